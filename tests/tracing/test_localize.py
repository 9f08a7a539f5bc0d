"""How few networks it takes to find what cannot vary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.tracing.localize import Narrowable, Nearness, failure_inducing
from prunas.tracing.survey import survey
from prunas.tracing.trace import OnMeta

BLOCKS = 8
SHAPE = (3, 6, 6)


class Folded(nn.Module):
    """A block that folds what a layer gives by the number of channels which that layer was given."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.free, self.last = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        folded = self.query(x).flatten(2).reshape(len(x), x.shape[1], 6, 6)  # torch.fx stops at `len`
        return x + self.last(F.relu(self.free(folded)))


class Copied(nn.Module):
    """A block whose constructor writes a matrix of a fixed size into one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.square = nn.Linear(16, 24), nn.Linear(24, 24)
        self.narrow = nn.Linear(24, 16)
        with torch.no_grad():
            self.square.weight.copy_(torch.eye(24))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.narrow(F.relu(self.square(F.relu(self.wide(x)))))
        return out


class Stack(nn.Module):
    """Blocks between two layers."""

    def __init__(self, block: Callable[[], nn.Module], first: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.first, self.blocks, self.last = first, nn.Sequential(*(block() for _ in range(BLOCKS))), last

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.blocks(F.relu(self.first(x))))
        return out


def folded() -> nn.Module:
    return Stack(Folded, nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1))


def copied() -> nn.Module:
    return Stack(Copied, nn.Linear(6, 16), nn.Linear(16, 4))


@pytest.mark.parametrize(
    ("factory", "shape", "free", "most"),
    [
        (folded, SHAPE, {f"blocks.{i}.free" for i in range(BLOCKS)}, 20),  # halves take 40
        (copied, (6,), {"first"}, 35),  # halves take 102
    ],
    ids=["a number in forward", "a size in the constructor"],
)
def test_one_network_a_failing_place(
    factory: Callable[[], nn.Module], shape: tuple[int, ...], free: set[str], most: int
) -> None:
    networks = 0

    def counting() -> nn.Module:
        nonlocal networks
        networks += 1
        return factory()

    made = survey(counting, shape)
    assert {group.name for group in made.groups} == free
    held = {frozen.what for frozen in made.frozen}
    assert any("blocks.0" in what for what in held)
    assert networks <= most


@dataclass(frozen=True)
class Place:
    """A failure that knows its neighbourhood."""

    near: Nearness = ()


@pytest.mark.parametrize("told", [True, False], ids=["places", "no places"])
def test_exactly_what_makes_it_fail_is_found(told: bool) -> None:
    planted = {3: (2, 3), 11: (11,), 17: (16, 17)}
    tries = 0

    def fails(narrow: Sequence[Narrowable]) -> Place | None:
        nonlocal tries
        tries += 1
        first = next((g for g in planted if g in narrow), None)
        return None if first is None else Place((planted[first],) if told else ())

    everything = list(range(20))
    first = fails(everything)
    assert first is not None
    failing = failure_inducing(fails, everything, {i: f"layer.{i}" for i in everything}, first)
    assert set(failing) == set(planted)
    assert not told or tries <= 11  # halves take 26


def test_two_that_fail_together_only_cost_one_of_them() -> None:
    def fails(narrow: Sequence[Narrowable]) -> Place | None:
        return Place() if {1, 2} <= set(narrow) else None

    failing = failure_inducing(fails, [0, 1, 2, 3], {i: str(i) for i in range(4)}, Place())
    assert len(failing) == 1 and set(failing) < {1, 2}


def test_a_factory_that_reads_values_is_run_in_the_way_that_served() -> None:
    runs = 0

    def reads() -> nn.Module:
        nonlocal runs
        runs += 1
        net = nn.Linear(4, int(torch.arange(3).sum()))
        assert float(torch.ones(2).sum()) == 2
        return net

    on_meta = OnMeta()
    assert on_meta(reads).weight.shape == (3, 4)
    first, runs = runs, 0
    on_meta(reads)
    assert first > 1 and runs == 1


def test_initial_values_are_not_drawn_and_shapes_are_checked_all_the_same() -> None:
    def filled(size: int) -> nn.Module:
        net = nn.Linear(4, 3)
        with torch.no_grad():
            net.weight.uniform_(-1, 1).erfinv_().mul_(2.0).clamp_(min=-1, max=1)
            net.weight.mul_(torch.ones(size))
        return net

    assert OnMeta()(lambda: filled(4)).weight.is_meta
    with pytest.raises(Exception, match="must match"):
        OnMeta()(lambda: filled(5))


class Positioned(nn.Module):
    """A layer that keeps a table of positions from its first call on."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(8, 8, 1)
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0  # torch.fx stops here
        if self.table is None:
            self.table = torch.linspace(-1, 1, x.shape[3], device=x.device)
        out: Tensor = self.project(x * self.table)
        return out


class Twice(nn.Module):
    """Two branches behind such a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.position, self.one, self.two = Positioned(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.position(x)
        x = x + self.one(x)
        return x + self.two(x)


def test_a_network_that_keeps_what_it_computed_can_lose_its_blocks() -> None:
    made = survey(lambda: nn.Sequential(nn.Conv2d(3, 8, 1), Twice(), nn.Conv2d(8, 4, 1)), SHAPE)
    assert {block.name for block in made.blocks} == {"1.one", "1.two"}
