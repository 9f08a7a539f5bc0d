"""What is tried: the found shapes of `search_spaces/found/`, their controls, and the trainings of a case."""

import pkgutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.reproduce.cells import Protocol
from prunas import designs
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.designs.fit import ratios as ratios_of
from prunas.designs.fit import scaled
from prunas.errors import InputError, unknown
from prunas.experiments.plan import make_setting
from prunas.files import digest, read_json
from prunas.proposers.brief import Proposal
from prunas.protocols import SCRATCH
from prunas.spaces.file import parse
from prunas.spaces.load import load_space, space_folder
from prunas.spaces.presets import slug
from prunas.spaces.space import SearchSpace
from prunas.works.trainings import Setting, Training

__all__ = [
    "FOUND",
    "Case",
    "Claim",
    "Found",
    "Shape",
    "Trial",
    "cases",
    "claims",
    "claims_digest",
    "found_shapes",
    "margin",
    "protocols",
    "shapes_of",
]

HERE = Path(__file__).parent
FOUND, UNIFORM_PARAMS, UNIFORM_MACS, TAPER = "found", "uniform-params", "uniform-macs", "taper"
TRIED = ("cifar10", "cifar100")
"""Data sets on which shapes are trained; on others they are counted."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a court trains.

    Attributes:
        protocol: Recipe, seeds, and what it is called.
        base: Width of the first stage of every network; None: as published.
    """

    protocol: Protocol
    base: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim, as `court.toml` explains it."""

    id: str
    says: str
    left: str
    right: str
    scope: Literal["shape", "all"]


@dataclass(frozen=True, slots=True)
class Found:
    """A found shape of the folder.

    Attributes:
        name: Unique; file and point.
        label: For a reader.
        space: Its space.
        architecture: The point.
        source: Where it comes from.
        ours: Whether it was found by prunas, and not published.
    """

    name: str
    label: str
    space: SearchSpace
    architecture: Architecture
    source: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """One side of a case.

    Attributes:
        architecture: The point.
        matched: Whether its parameters, its MACs, or both lie within the tolerance of the found one's, as asked.
    """

    architecture: Architecture
    matched: bool


def protocols(path: Path = HERE / "court.toml") -> dict[str, Trial]:
    """The protocols by name."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["protocols"]
    return {
        name: Trial(Protocol(name, **{k: v for k, v in table.items() if k != "base"}), table.get("base"))
        for name, table in tables.items()
    }


def claims(path: Path = HERE / "court.toml") -> list[Claim]:
    """All claims."""
    return [Claim(**table) for table in tomllib.loads(path.read_text(encoding="utf-8"))["claims"]]


def margin(path: Path = HERE / "court.toml") -> float:
    """The smallest difference that matters, in percentage points."""
    return float(tomllib.loads(path.read_text(encoding="utf-8"))["margin"])


def claims_digest(path: Path = HERE / "court.toml") -> str:
    """Twelve hex digits over the margin and the claims, as they stand now."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return digest([document["margin"], document["claims"]])


# Shapes


@cache
def found_shapes(tried: bool = False) -> tuple[Found, ...]:
    """Every distinct shape of the folder, in the order of its files; of a search of ours the first seed's alone.

    Args:
        tried: Only those on data sets of `TRIED`: the networks of the others are not even surveyed.

    Raises:
        InputError: A file cannot be read, or a point does not lie in its space.
    """
    shapes: dict[str, Found] = {}
    for path in sorted((space_folder() / "found").glob("*.json")):
        if tried and _data_of(read_json(path)["space"]) not in TRIED:
            continue
        for one in _of_file(path):
            shapes.setdefault(one.architecture.digest, one)
    return tuple(shapes.values())


def _data_of(space: str) -> str:
    """The data set of a bundled space, by its file alone."""
    path = space_folder() / f"{space}.toml"
    return parse(path.read_text(encoding="utf-8"), path).data_name


def _of_file(path: Path) -> Iterator[Found]:
    document = read_json(path)
    space = load_space(document["space"])
    ours = document["source"].startswith("prunas")
    asked = set()
    for point in document["points"]:
        target = Target.from_json(point["asked"])
        if ours and target in asked:
            continue
        asked.add(target)
        arch = Architecture.from_json(point["architecture"], str(path))
        space.check(arch)
        label = point.get("name") or f"{document['proposer']}, {space.name}"
        if target.keep is not None:
            label += f" at {target.keep:.0%}"
        several = len(document["points"]) > 1
        name = f"{path.stem}-{slug(point.get('name') or str(len(asked)))}" if several else path.stem
        yield Found(name, label, space, space.canonical(arch), document["source"], ours)


def shapes_of(space: SearchSpace, arch: Architecture) -> dict[str, Shape]:
    """The found shape and its controls: uniform at equal parameters and at equal MACs, tapered at both."""
    cost = space.cost(arch)

    def uniform(metric: str, value: int) -> Shape:
        target = Target(metric, value)
        control = designs.uniform(space, target)
        return Shape(control, not designs.missed(space, control, target))

    tapered = designs.taper(space, cost.params, cost.macs)
    return {
        FOUND: Shape(arch, True),
        UNIFORM_PARAMS: uniform("params", cost.params),
        UNIFORM_MACS: uniform("macs", cost.macs),
        TAPER: Shape(tapered.architecture, tapered.matched),
    }


# Cases


@dataclass(frozen=True, slots=True)
class Case:
    """A found shape under a protocol: a cell of the runner of benchmarks/reproduce.

    Attributes:
        shape: The found shape.
        trial: How it is trained.
    """

    shape: Found
    trial: Trial

    @property
    def name(self) -> str:
        """Unique within its protocol."""
        return self.shape.name

    @property
    def protocol(self) -> Protocol:
        """Its protocol."""
        return self.trial.protocol

    @property
    def name_in_full(self) -> str:
        """Protocol and name."""
        return f"{self.protocol.name}/{self.name}"

    @property
    def space(self) -> SearchSpace:
        """The space in which it is trained."""
        return self.shape.space if self.trial.base is None else narrower(self.shape.space, self.trial.base)

    def shapes(self) -> dict[str, Shape]:
        """The sides of the case in that space."""
        return _shapes(self.shape, self.trial.base)

    def setting(self, data: Path | None) -> Setting:
        """What its trainings have in common.

        Args:
            data: Folder of the data sets.

        Raises:
            InputError: The data are not there.
        """
        how = self.protocol
        return make_setting(self.space, recipe_name=how.recipe, changes=how.changes, root=data)

    def trainings(self, data: Path | None) -> dict[tuple[str, int], Training]:
        """All of them by side and seed, seed after seed: sides that are the same shape share theirs."""
        setting = self.setting(data)
        target = setting.space.target(keep=1.0)
        return {
            (side, seed): setting.final(Proposal(target, shape.architecture), SCRATCH, seed, None, keep=False)
            for seed in range(self.protocol.seeds)
            for side, shape in self.shapes().items()
        }


@cache
def _shapes(shape: Found, base: int | None) -> dict[str, Shape]:
    if base is None:
        return shapes_of(shape.space, shape.architecture)
    small = narrower(shape.space, base)
    kept = ratios_of(shape.space, shape.architecture)
    carried = scaled(small, kept).replace(removed=shape.architecture.removed)
    return shapes_of(small, small.canonical(carried))


@cache
def narrower(space: SearchSpace, base: int) -> SearchSpace:
    """The same space over its network with another width of the first stage.

    Raises:
        InputError: The network takes no `base`, or has other dimensions with it.
    """
    path = Path(space.source)
    spec = parse(path.read_text(encoding="utf-8"), path)
    factory = partial(pkgutil.resolve_name(spec.network), **{**spec.arguments, "base": base})
    vary: Mapping[str, Any] = spec.vary.model_dump()
    try:
        small = SearchSpace.from_model(
            factory,
            space.survey.called_with,
            name=f"{space.name}-base{base}",
            data=space.study.data,
            metric=space.study.metric,
            keep=space.study.keep,
            **vary,
        )
    except TypeError as error:
        raise InputError(f"the network of space {space.name!r} takes no base: {error}") from error
    if [d.name for d in small.dimensions] != [d.name for d in space.dimensions]:
        raise InputError(f"the network of space {space.name!r} has other dimensions at base {base}")
    return small


def cases(protocol: str) -> list[Case]:
    """The cases of a protocol, those that are trained fastest first.

    Raises:
        InputError: There is no such protocol.
    """
    known = protocols()
    if protocol not in known:
        raise unknown("protocol", protocol, known)
    tried = [Case(shape, known[protocol]) for shape in found_shapes(tried=True)]
    return sorted(
        tried, key=lambda case: (case.shape.ours, case.space.cost(case.shapes()[FOUND].architecture).macs)
    )
