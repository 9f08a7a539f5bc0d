"""The grid: what its cells are, and the plans and trainings of prunas that they stand for."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from prunas import designs
from prunas.errors import InputError, unknown
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import Plan
from prunas.experiments.transfer import find_source, source_plan
from prunas.proposers.brief import Proposal, Source
from prunas.protocols import SCRATCH
from prunas.recipe import Recipe, recipe
from prunas.runs.executors import Executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.works.trainings import Setting, Training

__all__ = [
    "AnyCell",
    "Cell",
    "Dense",
    "Gpu",
    "Named",
    "Protocol",
    "cells",
    "data_identity",
    "every_cell",
    "foreseen",
    "gpu",
    "plan_of",
    "protocols",
    "recipe_of",
    "trainings_of",
]

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Protocol:
    """How every cell of one protocol is trained; results of two protocols never share a table.

    Attributes:
        name: `reduced`, `early`, `fast` or `paper`.
        says: In words.
        seeds: Searches per proposer, unless a cell says otherwise.
        recipe: Name of the recipe; None means each space's own.
        changes: Settings of the recipe that differ.
    """

    name: str
    says: str
    seeds: int
    recipe: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One plan.

    Attributes:
        name: Unique within its protocol.
        protocol: Its protocol.
        shows: Tables and figures of the study that it answers.
        space: A bundled space, or a TOML file beside the grid.
        proposers: All that are compared; no further control joins.
        source: The space whose shapes are carried over, found there by the first proposer.
        preset: Widths that the method is given.
        metric: What targets count.
        keep: Targets; the space's own if there are none.
        train: How points are trained; by default from scratch, and fine-tuned and by Scratch-B besides where the
            study prints rows.
        epochs: Retraining budgets, if accuracy against them is the question.
        also: Further protocols, not multiplied by the budgets.
        rows: Rows of the study's table, one per target.
        options: Settings of proposers.
        dense: Whether the unpruned network is trained and tested too.
        seeds: Instead of the protocol's.
        recipe: Instead of the protocol's recipe.
        changes: Of that recipe, instead of the protocol's.
    """

    name: str
    protocol: Protocol
    shows: tuple[str, ...]
    space: str
    proposers: tuple[str, ...]
    source: str | None = None
    preset: str | None = None
    metric: str | None = None
    keep: tuple[float, ...] = ()
    train: tuple[str, ...] = ()
    epochs: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dense: bool = True
    seeds: int = 0
    recipe: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> tuple[str, ...]:
        """The protocols of prunas by which points are trained."""
        how = self.train or (("finetune", "scratch-e", "scratch-b") if self.rows else ("scratch-e",))
        budgets = tuple(f"{name}:{n}" for n in self.epochs for name in how) if self.epochs else how
        return (*budgets, *self.also)

    @property
    def name_in_full(self) -> str:
        """Protocol and name."""
        return f"{self.protocol.name}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """Dense networks, each trained under several settings of the recipe; nothing is searched.

    Attributes:
        name: Unique within its protocol.
        protocol: Its protocol.
        shows: What it answers.
        spaces: Bundled spaces, or TOML files beside the grid.
        settings: Settings of the recipe that differ, one table each.
        scored: `val`: trained on *train* and scored on validation images, for a choice; `test`: trained on both
            and tested, for a result.
        seeds: Trainings of each.
    """

    name: str
    protocol: Protocol
    shows: tuple[str, ...]
    spaces: tuple[str, ...]
    settings: tuple[Mapping[str, Any], ...]
    scored: str
    seeds: int

    @property
    def name_in_full(self) -> str:
        """Protocol and name."""
        return f"{self.protocol.name}/{self.name}"


AnyCell = Cell | Dense


class Named(Interface):
    """What every cell of a grid has, of this one or of another."""

    @property
    def name(self) -> str:
        """Unique within its protocol."""

    @property
    def protocol(self) -> Protocol:
        """Its protocol."""

    @property
    def name_in_full(self) -> str:
        """Protocol and name."""


def protocols(path: Path = HERE / "grid.toml") -> dict[str, Protocol]:
    """The protocols of the grid by name."""
    return {name: Protocol(name, **table) for name, table in _read(path)["protocols"].items()}


def every_cell(protocol: str, path: Path = HERE / "grid.toml") -> list[AnyCell]:
    """The cells of one protocol, in order of value.

    Raises:
        InputError: There is no such protocol.
    """
    known = protocols(path)
    if protocol not in known:
        raise unknown("protocol", protocol, known)
    made: list[AnyCell] = []
    for table in _read(path)["cells"]:
        if table["protocol"] == protocol:
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
            values |= {"protocol": known[protocol], "seeds": table.get("seeds", known[protocol].seeds)}
            made.append(Dense(**values) if "spaces" in values else Cell(**values))
    return made


def cells(protocol: str, path: Path = HERE / "grid.toml") -> list[Cell]:
    """Those of them that are plans."""
    return [cell for cell in every_cell(protocol, path) if isinstance(cell, Cell)]


@dataclass(frozen=True, slots=True)
class Gpu:
    """How fast a GPU is taken to be.

    Attributes:
        name: Which.
        epochs: Seconds for 50,000 images by network, at batch 64 and at 256.
    """

    name: str
    epochs: Mapping[str, tuple[float, float]]

    def seconds(self, space: str, batch: int) -> float:
        """Seconds for one image of the dense network of a space.

        Raises:
            InputError: Nothing is known of its network.
        """
        network = space.partition("-")[0]
        if network not in self.epochs:
            raise InputError(f"grid.toml says nothing of {network} on {self.name}")
        small, large = self.epochs[network]
        return (large if batch >= 256 else small) / 50_000


def gpu(path: Path = HERE / "grid.toml") -> Gpu:
    """The GPU that the grid counts its hours on."""
    table = _read(path)["gpu"]
    return Gpu(table["name"], {name: tuple(value) for name, value in table.items() if name != "name"})


def data_identity(data: str, path: Path = HERE / "grid.toml") -> str | None:
    """What every result of a data set must have seen; None if the grid does not say."""
    known: Mapping[str, str] = _read(path)["data"]
    return known.get(data)


def recipe_of(cell: Cell) -> Recipe:
    """The recipe by which everything of a cell is trained, settled for its space."""
    space = _space(cell.space)
    name = cell.recipe or cell.protocol.recipe
    usual = recipe(name) if name else space.study.default_recipe()
    changes = cell.changes if cell.recipe else cell.protocol.changes
    return usual.replace(**changes).settled(space.cost(space.dense).params)


def trainings_of(
    cell: Dense, data: Path | None
) -> list[tuple[SearchSpace, Mapping[str, Any], int, Training]]:
    """Space, settings, seed and training of everything that a cell of dense networks asks for.

    Raises:
        InputError: A space or the data cannot be read.
    """
    wanted = []
    for name in cell.spaces:
        space = _space(name)
        for changes in cell.settings:
            setting = make_setting(
                space,
                recipe_name=cell.protocol.recipe,
                changes={**cell.protocol.changes, **changes},
                root=data,
            )
            target = space.target(keep=1.0)
            for seed in range(cell.seeds):
                if cell.scored == "val":
                    training = setting.candidate(space.dense, seed)
                else:
                    training = setting.final(Proposal(target, space.dense), SCRATCH, seed, None)
                wanted.append((space, changes, seed, training))
    return wanted


def plan_of(cell: Cell, data: Path | None, store: Store, make: Callable[[], Executor]) -> tuple[Plan, int]:
    """The plan of a cell; of a transfer, what is carried over is found first.

    Args:
        cell: The cell.
        data: Folder of the data sets.
        store: Where runs live.
        make: Opens the executor.

    Returns:
        The plan, and how many trainings this call did.

    Raises:
        InputError: Something does not exist or cannot be read, or the search on the source found nothing.
    """
    common, found, trained = _common(cell), None, 0
    if cell.source is not None:
        finder = cell.proposers[0]
        first = source_plan(make_plan(_setting(cell, cell.source, data), (finder,), **common), finder)
        found, trained = find_source(first, store, make)
    return _plan(cell, data, common, found), trained


def foreseen(cell: Cell, data: Path | None) -> list[Plan]:
    """The plans of a cell as far as they are known before anything is trained, that on the source first.

    Uniform shapes stand for what will be found there.

    Raises:
        InputError: Something does not exist or cannot be read.
    """
    common = _common(cell)
    if cell.source is None:
        return [_plan(cell, data, common, None)]
    finder = cell.proposers[0]
    first = source_plan(make_plan(_setting(cell, cell.source, data), (finder,), **common), finder)
    space = first.setting.space
    shapes = tuple(Proposal(target, designs.uniform(space, target)) for target in first.targets)
    return [first, _plan(cell, data, common, Source(space, shapes, finder))]


def _common(cell: Cell) -> dict[str, Any]:
    """What the plans of a cell share."""
    common: dict[str, Any] = {
        "keep": cell.keep,
        "metric": cell.metric,
        "seeds": cell.seeds,
        "options": {name: dict(values) for name, values in cell.options.items()},
        "controls": False,
    }
    if cell.preset is not None:
        common["options"].setdefault(cell.proposers[0], {})["preset"] = cell.preset
    return common


def _plan(cell: Cell, data: Path | None, common: Mapping[str, Any], source: Source | None) -> Plan:
    setting = _setting(cell, cell.space, data)
    return make_plan(
        setting, cell.proposers, protocols=cell.trained, dense=cell.dense, source=source, **common
    )


def _setting(cell: Cell, space: str, data: Path | None) -> Setting:
    how = cell.protocol
    changes = how.changes if cell.recipe is None else cell.changes
    return make_setting(_space(space), recipe_name=cell.recipe or how.recipe, changes=changes, root=data)


@lru_cache
def _space(name: str) -> SearchSpace:
    return load_space(str(HERE / name) if name.endswith(".toml") else name)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
