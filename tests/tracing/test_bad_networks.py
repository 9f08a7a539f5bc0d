"""What a user may bring that cannot be surveyed: one line that names the thing, the place and what to do."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.spaces.load import load_network
from prunas.tracing.survey import survey

SHAPE = (3, 6, 6)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


def refusal(factory: Callable[[], nn.Module], shape: tuple[int, ...] = SHAPE) -> str:
    with pytest.raises(InputError) as caught:
        survey(factory, shape)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_control_flow_that_depends_on_data() -> None:
    class Case(Chain):
        def middle(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    message = refusal(Case)
    assert message.startswith("the network cannot be traced, not by torch.fx: symbolically traced variables ")
    assert "nor by running it without data: " in message
    assert "nor by torch.export: Could not guard on data-dependent expression" in message
    assert len(re.findall(r"\(test_bad_networks\.py:\d+\)", message)) == 3


def test_values_that_are_read() -> None:
    class Case(Chain):
        def middle(self, x: Tensor) -> Tensor:
            return x * float(len(x)) if x.max().item() else x

    assert "test_bad_networks.py:" in refusal(Case)


def test_an_input_that_does_not_fit() -> None:
    message = refusal(Chain, (4, 6, 6))
    assert message.startswith("the network does not accept an input of shape (4, 6, 6): ")
    assert message.endswith("give the shape of one input without the batch")

    class Case(Chain):
        def middle(self, x: Tensor) -> Tensor:
            assert len(x) == 2
            return x

    assert re.search(r"torch.export: .*channels.*\(test_bad_networks.py:\d+\)", refusal(Case, (4, 6, 6)))


def test_a_factory_that_answers_differently() -> None:
    class Turns:
        count = 0

        def __call__(self) -> nn.Module:
            self.count += 1
            return Chain() if self.count == 1 else nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())

    assert "must return the same network at every call" in refusal(Turns())


class Sized(Chain):
    """Another width at every call."""

    calls = 0

    def __init__(self) -> None:
        nn.Module.__init__(self)
        Sized.calls += 1
        width = 8 + Sized.calls
        self.first, self.last = nn.Conv2d(3, width, 3), nn.Conv2d(width, 4, 1)


def test_a_factory_with_other_widths_at_every_call() -> None:
    assert "must return the same network at every call" in refusal(Sized)


def test_a_factory_that_fails() -> None:
    def fails() -> nn.Module:
        raise ValueError("no weights here\nand more")

    message = refusal(fails)
    assert message.startswith(
        "the network cannot be made: ValueError: no weights here (test_bad_networks.py:"
    )

    def asks_for_values() -> nn.Module:
        raise RuntimeError("twice")

    assert refusal(asks_for_values).startswith("the network cannot be made: RuntimeError: twice (")
    assert refusal(lambda: 3) == "the network's factory returns int, not a torch module"


def test_a_model_on_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("the device is there")
    assert refusal(lambda: Chain().to("cuda")).startswith("the network cannot be made: ")


def test_tensors_on_another_device_than_the_model_do_not_matter() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.ones(1, 1, 4, 4, device="cpu")  # neither parameter nor buffer

        def middle(self, x: Tensor) -> Tensor:
            return x * self.table

    assert [group.name for group in survey(Case, SHAPE).groups] == ["first"]


def test_a_constructor_that_checks_widths_holds_them() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            if self.first.out_channels != 8:
                raise ValueError("eight, please")

    made = survey(Case, SHAPE)
    assert not made.groups
    assert [(f.what, f.why) for f in made.frozen if f.what == "first"] == [
        ("first", "a narrowed network fails: ValueError: eight, please")
    ]


def test_weights_shared_in_odd_ways_are_held() -> None:
    class Tied(Chain):
        """A layer whose weight is another one's, one whose bias is, and one read as a matrix."""

        def __init__(self) -> None:
            super().__init__()
            self.second, self.third = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.third.weight = self.second.weight
            self.fourth, self.fifth = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
            self.fourth.bias = nn.Parameter(torch.zeros(6))
            self.spare = self.fourth.bias
            self.free, self.back = nn.Conv2d(8, 5, 1), nn.Conv2d(5, 8, 1)

        def middle(self, x: Tensor) -> Tensor:
            x = self.third(self.second(x))
            return self.back(self.free(self.fifth(self.fourth(x))))

    for factory in (Tied, partial(_on_the_cpu, Tied)):
        made = survey(factory, SHAPE)
        names = [group.name for group in made.groups]
        assert "second" not in names
        assert "third" not in names
        assert "free" in names
        net = factory()
        total = sum(p.numel() for p in net.parameters())
        from prunas.costs.counted import CostModel

        counts = CostModel(made).table(CostModel(made).dense_widths[None].astype(float), None)[0]
        assert counts.tolist() == [total]


def _on_the_cpu(factory: Callable[[], nn.Module]) -> nn.Module:
    """Made where the meta device does not reach."""
    torch.ones(1).item()
    return factory()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            "no_such_package.models:net",
            r"network 'no_such_package.models:net' cannot be imported: ModuleNotFound",
        ),
        ("torchvision.models:resnet51", r"'torchvision.models:resnet51' cannot be imported: AttributeError"),
        ("math:pi", r"network 'math:pi' is not a function that makes a network"),
        ("math:sqrt", r"network 'math:sqrt' cannot be made with arguments {}: TypeError"),
        ("nowhere/net.py:make", r"network 'nowhere/net.py:make': cannot read nowhere/net.py: No such file"),
        ("resnet50", r"'resnet50' is no network; write package.module:function or file.py:function"),
    ],
)
def test_a_path_that_leads_nowhere(network: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_network(network, SHAPE)
    assert "\n" not in str(caught.value)
