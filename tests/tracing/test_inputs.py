"""Networks of several tensors, of integers, of lists and dictionaries, by position and by name."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.support.oracle import masked, point, random_kept, relative
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.errors import InputError
from prunas.inputs import Inputs
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.surgery.assemble import build
from prunas.tracing.example import sample
from prunas.tracing.survey import survey


class Reader(nn.Module):
    """Looks integers up; a mask says which count."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8))
        self.out = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        h = self.table(ids)
        h = h + scale * self.mlp(h)
        if mask is not None:
            h = h * mask.unsqueeze(-1)
        answer: Tensor = self.out(h.mean(1))
        return answer


class Pair(nn.Module):
    """Two pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 12, 3), nn.Conv2d(1, 12, 3), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        answer: Tensor = self.out((self.a(x) + self.b(y)).relu())
        return answer


class Pyramid(nn.Module):
    """A list of maps, which is iterated: torch.fx stops there."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(4, 10, 1), nn.Conv2d(6, 10, 1)])
        self.out = nn.Conv2d(10, 2, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.out(conv(m)) for conv, m in zip(self.lateral, maps, strict=True)]


class Named(nn.Module):
    """A dictionary of maps and a list within it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(4, 10, 1), nn.Conv2d(6, 10, 1), nn.Conv2d(10, 2, 1)

    def forward(self, maps: dict[str, Any]) -> Tensor:
        answer: Tensor = self.out(self.a(maps["p3"]) + self.b(maps["others"][0]))
        return answer


IDS = {"ids": [7], "dtype": "int64", "below": 50}
CASES: dict[str, tuple[Callable[[], nn.Module], Any, int]] = {
    # network, input, its groups
    "integers": (Reader, IDS, 2),
    "integers and a mask": (Reader, [IDS, {"mask": [7]}], 1),
    "two by position": (Pair, [[3, 8, 8], [1, 8, 8]], 1),
    "two by name": (Pair, {"y": [1, 8, 8], "x": [3, 8, 8]}, 1),
    "a list": (Pyramid, {"maps": [[4, 8, 8], [6, 4, 4]]}, 1),
    "a dictionary": (Named, {"maps": {"p3": [4, 8, 8], "others": [[6, 8, 8]]}}, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_surveyed_and_narrowed_exactly(name: str) -> None:
    factory, given, groups = CASES[name]
    inputs = Inputs.of(given)
    made = survey(factory, inputs)
    assert len(made.groups) == groups
    assert made.called_with == inputs
    torch.manual_seed(0)
    dense = factory().double()
    kept = random_kept(made, random.Random(name))
    chosen = point(made, kept)
    net = build(lambda: factory().double(), made, chosen.arch, weights=dense.state_dict(), kept=kept)
    example = sample(inputs, 2, dtype=torch.float64)
    with torch.no_grad():
        with masked(dense, made, chosen):
            actual, expected = example.call(net), example.call(dense)
        assert relative(actual, expected) <= 1e-9
        assert relative(actual, example.call(dense)) > 1e-6
    one = sample(inputs, 1, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        one.call(net.eval())
    cost = CostModel(made).of(chosen.arch)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.params == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name", CASES)
def test_json_keeps_it(name: str) -> None:
    inputs = Inputs.of(CASES[name][1])
    assert Inputs.of(inputs.to_json()) == inputs


def test_a_plain_input_is_written_as_before() -> None:
    made = survey(Reader, Inputs.of(IDS))
    assert made.input == (7,)
    assert Inputs.of((3, 32, 32)).to_json() == [3, 32, 32]
    assert "inputs" not in survey(lambda: nn.Conv2d(3, 8, 1), (3, 8, 8)).to_json()


WRONG = {
    "no list": ("3,32,32", "is none; write"),
    "empty": ([], "is none; write"),
    "a size of nothing": ([3, 0], "has sizes below 1"),
    "integers without a bound": ({"ids": [7], "dtype": "int64"}, "needs both"),
    "a bound without integers": ({"ids": [7], "below": 5}, "needs both"),
    "an unknown type": ({"ids": [7], "dtype": "int63", "below": 5}, "dtype 'int63' is not known"),
    "no argument": ({"3x": [7]}, "no argument of a function"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_input_is_refused(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Inputs.of(given)
    assert "\n" not in str(caught.value)


FILE = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.a, self.b = nn.Embedding(50, 8), nn.Linear(8, 16), nn.Linear(16, 3)
    def forward(self, ids):
        return self.b(self.a(self.table(ids)).relu()).mean(1)
class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.out = Net(), nn.Linear(3, 2)
    def forward(self, ids):
        h = self.body(ids)
        return self.out(h) if float(h.sum()) < 1e9 else h
"""


def test_files_say_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    path = tmp_path / "mine.toml"
    start = 'network = "net.py:{}"\ninput = {{ ids = [7], dtype = "int64", below = 50 }}\n'
    path.write_text(start.format("Net"))
    space = load_space(str(path))
    assert [group.name for group in space.survey.groups] == ["table", "a"]
    assert space.survey.called_with == Inputs(((7,),), ("ids",), ("int64",), (50,))
    path.write_text(start.format("Whole") + 'part = "body"\n')
    part = load_space(str(path))
    assert [group.name for group in part.survey.groups] == ["body.table", "body.a"]
    again = load_space(part.reference)
    assert again.survey.digest == part.survey.digest
    assert again.survey.called_with == part.survey.called_with
    path.write_text('network = "net.py:Net"\ninput = { ids = [7], dtype = "int64" }\n')
    with pytest.raises(InputError, match=r"mine\.toml:2: input: an input of integers needs both"):
        load_space(str(path))


def test_what_the_part_is_called_with_can_be_stated(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        FILE + "class Deaf(Whole):\n    def forward(self, ids):\n        raise ValueError('no images')\n"
    )
    path = tmp_path / "mine.toml"
    start = 'network = "net.py:Deaf"\ninput = { ids = [7], dtype = "int64", below = 50 }\npart = "body"\n'
    path.write_text(start)
    with pytest.raises(InputError, match=r"does not call its part 'body'.*no images.*part_input"):
        load_space(str(path))
    path.write_text(start + 'part_input = { ids = [7], dtype = "int64", below = 50 }\n')
    survey = load_space(str(path)).survey
    assert [group.name for group in survey.groups] == ["body.table", "body.a"]
    assert survey.part is not None
    assert survey.part.uncounted == ("what follows",)
    assert "no images" in survey.part.why


def test_python_says_it() -> None:
    space = SearchSpace.from_model(Reader, IDS, name="mine")
    assert space.reference["input"] == [IDS]  # type: ignore[index, call-overload]
    assert space.cost(Architecture("mine", space.survey.fingerprint)).macs == 7 * 2 * 8 * 24 + 8 * 3
