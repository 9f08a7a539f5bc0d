"""A survey leaves nothing in the objects of the user that a network's code keeps things in."""

import functools
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, cast

import pytest
import torch
from torch import Tensor, nn

from prunas.tracing.survey import survey

IMAGE = (3, 8, 8)


def row(x: Tensor) -> Tensor:
    return torch.linspace(-1, 1, x.shape[3], device=x.device).expand(1, 1, *x.shape[2:])


class Net(nn.Module):
    """Looks at its own positions, which it keeps somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(17, 4, 1)

    def positions(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        assert len(x.shape) == 4  # torch.fx stops here
        return self.o(torch.cat((self.a(x).relu(), self.positions(x).expand(x.shape[0], 1, *x.shape[2:])), 1))


CACHE: dict[str, Any] = {}
ROWS: list[Tensor] = []
ROW: Tensor | None = None
READY = False


class InDictionary(Net):
    def positions(self, x: Tensor) -> Tensor:
        if "row" not in CACHE:
            CACHE["row"] = row(x)
        return CACHE["row"]


class InList(Net):
    def positions(self, x: Tensor) -> Tensor:
        if not ROWS:
            ROWS.append(row(x))
        return ROWS[0]


class InGlobal(Net):
    def positions(self, x: Tensor) -> Tensor:
        global ROW
        if ROW is None:
            ROW = row(x)
        return ROW


class Flagged(Net):
    kept: ClassVar[dict[str, Tensor]] = {}

    def positions(self, x: Tensor) -> Tensor:
        global READY
        if not READY:
            self.kept["row"], READY = row(x), True
        return self.kept["row"]


class InClass(Net):
    kept: Tensor | None = None

    def positions(self, x: Tensor) -> Tensor:
        if InClass.kept is None:
            InClass.kept = row(x)
        return InClass.kept


class Keeper:
    def __init__(self) -> None:
        self.rows: dict[str, list[Tensor]] = {}

    def row(self, x: Tensor) -> Tensor:
        if "row" not in self.rows:
            self.rows["row"] = [row(x)]
        return self.rows["row"][0]


KEEPER = Keeper()


class InObject(Net):
    def positions(self, x: Tensor) -> Tensor:
        return KEEPER.row(x)


@functools.cache
def computed(rows: int, columns: int) -> Tensor:
    return torch.linspace(-1, 1, columns).expand(1, 1, rows, columns)


@functools.cache
def computed_there(rows: int, columns: int, device: str) -> Tensor:
    return torch.linspace(-1, 1, columns, device=device).expand(1, 1, rows, columns)


class InFunction(Net):
    def positions(self, x: Tensor) -> Tensor:
        return computed(x.shape[2], x.shape[3]).to(x.device)


class InFunctionByDevice(Net):
    def positions(self, x: Tensor) -> Tensor:
        return computed_there(x.shape[2], x.shape[3], str(x.device))


class Given(Net):
    def __init__(self, kept: dict[str, Tensor]) -> None:
        super().__init__()
        self.kept = kept

    def positions(self, x: Tensor) -> Tensor:
        if "row" not in self.kept:
            self.kept["row"] = row(x)
        return self.kept["row"]


class InConstructor(Net):
    def __init__(self) -> None:
        super().__init__()
        if "made" not in CACHE:
            CACHE["made"] = torch.linspace(-1, 1, 8)
        self.row = CACHE["made"]

    def positions(self, x: Tensor) -> Tensor:
        return self.row.expand(1, 1, 8, 8)


class Symbols(nn.Module):
    """Keeps its last features, which are symbols when torch.fx traces it."""

    kept: ClassVar[list[Tensor]] = []

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.kept[:] = [self.a(x)]
        return self.o(self.kept[0])


class ReadOnly(dict[str, Tensor]):
    """A dictionary that its owner fills; others may neither change nor copy it, as those of SQLAlchemy."""

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("this dictionary does not change")

    copy = clear = update = __setitem__ = refuse  # type: ignore[assignment]

    def keep(self, key: str, value: Tensor) -> None:
        super().__setitem__(key, value)


class Recent(OrderedDict[str, Tensor]):
    """Keeps what was used last, and counts what it was given."""

    added: ClassVar[list[str]] = []

    def __setitem__(self, key: str, value: Tensor) -> None:
        self.added.append(key)
        super().__setitem__(key, value)


class Last(deque[Tensor]):
    """The last two tensors; made without arguments."""

    def __init__(self) -> None:
        super().__init__(maxlen=2)


class Shelf:
    """Gets an attribute when it is first needed."""


@dataclass(frozen=True)
class Grid:
    """Computes its row once, and is not to be changed."""

    columns: int

    @functools.cached_property
    def row(self) -> Tensor:
        return torch.linspace(-1, 1, self.columns)


READ_ONLY, RECENT, LAST, SHELF, GRID = ReadOnly(), Recent(), Last(), Shelf(), Grid(8)


class InReadOnly(Net):
    def positions(self, x: Tensor) -> Tensor:
        if "row" not in READ_ONLY:
            READ_ONLY.keep("row", row(x))
        return READ_ONLY["row"]


class InRecent(Net):
    def positions(self, x: Tensor) -> Tensor:
        if "row" not in RECENT:
            RECENT["row"] = row(x)
        return RECENT["row"]


class InDeque(Net):
    def positions(self, x: Tensor) -> Tensor:
        if not LAST:
            LAST.append(row(x))
        return LAST[0]


class InNewAttribute(Net):
    def positions(self, x: Tensor) -> Tensor:
        if "row" not in vars(SHELF):
            SHELF.row = row(x)  # type: ignore[attr-defined]
        return cast(Tensor, vars(SHELF)["row"])


class InFrozen(Net):
    def positions(self, x: Tensor) -> Tensor:
        return GRID.row.expand(1, 1, *x.shape[2:])


def in_closure() -> type[Net]:
    kept: Tensor | None = None

    class InClosure(Net):
        def positions(self, x: Tensor) -> Tensor:
            nonlocal kept
            if kept is None:
                kept = row(x)
            return kept

    return InClosure


FACTORIES: list[Callable[[], Callable[[], nn.Module]]] = [
    *(
        functools.partial(lambda network: network, network)
        for network in (
            InDictionary, InList, InGlobal, Flagged, InClass, InObject, InFunction, InFunctionByDevice,
            InConstructor, Symbols, InReadOnly, InRecent, InDeque, InNewAttribute, InFrozen,
        )
    ),
    in_closure,
    lambda: functools.partial(Given, {}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def forget() -> None:
    """Every test begins with empty caches."""
    global ROW, READY
    ROW, READY, InClass.kept = None, False, None
    for cache in (CACHE, ROWS, Flagged.kept, KEEPER.rows, Symbols.kept):
        cache.clear()  # type: ignore[attr-defined]
    dict.clear(READ_ONLY)
    RECENT.clear()
    LAST.clear()
    vars(SHELF).clear()
    vars(GRID).pop("row", None)
    for function in (computed, computed_there):
        function.cache_clear()


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("make", FACTORIES)
def test_the_users_own_network_computes_what_it_did(make: Callable[[], Any], used: bool) -> None:
    factory = make()
    images = torch.randn(2, *IMAGE)
    torch.manual_seed(0)
    net = factory()
    if used:
        before = net(images)
    assert [group.name for group in survey(factory, IMAGE).groups] == ["a"]
    after = net(images)
    assert after.device.type == "cpu"
    if used:
        assert torch.equal(after, before)


def test_what_was_kept_before_is_the_very_same() -> None:
    InDictionary()(torch.randn(2, *IMAGE))
    CACHE["other"] = other = torch.ones(3)
    kept = CACHE["row"]
    survey(InDictionary, IMAGE)
    assert CACHE.keys() == {"row", "other"} and CACHE["row"] is kept and CACHE["other"] is other


def test_containers_that_refuse_copies_are_no_concern_of_a_network_that_keeps_nothing() -> None:
    READ_ONLY.keep("other", other := torch.ones(3))

    def factory() -> nn.Module:
        assert READ_ONLY is not None
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))

    assert [group.name for group in survey(factory, IMAGE).groups] == ["0"]
    assert READ_ONLY["other"] is other


def test_an_order_of_use_is_kept() -> None:
    """A survey moves nothing to the end, drops nothing, and adds nothing by the container's own methods."""
    RECENT["row"], RECENT["other"] = row(torch.zeros(2, *IMAGE)), torch.ones(3)
    RECENT.move_to_end("row")
    Recent.added.clear()
    survey(InRecent, IMAGE)
    assert list(RECENT) == ["other", "row"]
    assert not Recent.added


def test_without_tensors_nothing_is_undone() -> None:
    calls: list[int] = []

    def factory() -> nn.Module:
        calls.append(1)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))

    survey(factory, IMAGE)
    assert calls
