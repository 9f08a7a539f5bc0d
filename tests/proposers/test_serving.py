import dataclasses

import pytest
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.names import SEARCHERS
from prunas.proposers.serving import check_served, refusal, serving
from prunas.proposers.table import PROPOSERS
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace

SCORING = {"l1", "l1-global", "thinet", "thinet-global", "reconstruction", "reconstruction-global"}


class Plain(nn.Sequential):
    """Two 3x3 convolutions, no batch norm, nothing residual."""

    def __init__(self) -> None:
        layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        super().__init__(*layers, nn.Flatten(), nn.Linear(8 * 16, 5))


class OneByOne(nn.Sequential):
    """1x1 kernels alone, with batch norms."""

    def __init__(self) -> None:
        layers = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        super().__init__(*layers, nn.Flatten(), nn.Linear(8 * 64, 5))


class Perceptron(nn.Sequential):
    """Linear layers alone."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5))


class Block(nn.Module):
    """A shortcut and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).relu()


class Residual(nn.Sequential):
    """One residual branch behind a stem."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), Block(), nn.Flatten(), nn.Linear(8 * 64, 5))


def space_of(network: type[nn.Module], **settings: tuple[str, ...]) -> SearchSpace:
    return SearchSpace.from_model(network, (3, 8, 8), name=network.__name__.lower(), **settings)


# Who serves which network: by what it decides, and by what slimming and the rest need.
CASES = {
    "plain": (lambda: space_of(Plain), SCORING | {"magnitude", "tpe"}),
    "1x1": (lambda: space_of(OneByOne), SCORING | {"slimming", "tpe"}),
    "linear": (lambda: space_of(Perceptron), SCORING | {"tpe"}),
    "blocks alone": (lambda: space_of(Residual, groups=(), blocks=("*",)), {"sss", "magnitude"}),
    "all": (lambda: load_space("preresnet20-digits"), SCORING | {"slimming", "sss", "magnitude", "tpe"}),
    "nothing": (lambda: dataclasses.replace(space_of(OneByOne), groups=()), set()),
}
FINDERS = {name for name, line in PROPOSERS.items() if line.kind in SEARCHERS}


@pytest.mark.parametrize("case", CASES)
def test_every_proposer_serves_a_network_or_says_in_a_line_who_can(case):
    make, able = CASES[case]
    space = make()
    assert set(serving(space)) & {*SCORING, "slimming", "sss", "magnitude", "tpe"} == able
    decided = {PROPOSERS[name].dimensions[0] for name in able}
    for name, line in PROPOSERS.items():
        # A control that repeats a method serves what that does; other controls and designs, what any method can.
        method = line.controls or name
        if method in serving(space) if method in FINDERS else line.dimensions[0] in decided:
            check_served(name, space)
            continue
        with pytest.raises(InputError) as refused:
            check_served(name, space)
        message = str(refused.value)
        assert message.startswith(f"{name!r} cannot serve space {space.name!r}: ")
        assert "\n" not in message
        if able:
            assert set(message.rpartition("these can: ")[2].split(", ")) == set(serving(space))
        else:
            assert message.endswith("no method can")


@pytest.mark.parametrize(
    ("network", "name", "why"),
    [
        (Plain, "slimming", "slimming needs a batch norm behind everything that varies, and '0' of space"),
        (Plain, "sss", "it removes residual branches, and there are none"),
        (Residual, "sss", "it removes residual branches, and none vary there"),
        (OneByOne, "magnitude", "no kernel there is larger than 1x1"),
        (Perceptron, "erk", "no kernel there is larger than 1x1"),
    ],
)
def test_the_reason_is_named(network, name, why):
    assert why in (refusal(name, space_of(network)) or "")
