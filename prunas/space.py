"""Search spaces: a network, what may vary in it, and what it is trained on. Without torch once surveyed.

A space is a TOML file in `search_spaces/`, a file of the user's, or made by `SearchSpace.from_model`:

    network = "prunas.networks:vgg16"      # any import path, or a Python file beside this one: "mine.py:factory"
    arguments = { classes = 10 }           # for the factory
    input = [3, 32, 32]
    data = "cifar10"
    recipe = "paper"
    keep = [0.5, 0.3, 0.1]                 # default targets, fractions of `metric`

    [vary]                                 # shell patterns over what `prunas show` lists
    groups = ["*"]
    gates = []
    blocks = []

    [presets."VGG-16-A"]
    widths = [32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256]
"""

import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from operator import index
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture, KernelPattern
from prunas.costs import METRICS, Cost, CostModel, Metric, Target
from prunas.errors import InputError, unknown
from prunas.files import cache_folder, canonical, digest, read_json, write_json
from prunas.plugins import Plugin, foreign_code, load_all, plugins
from prunas.recipe import FineTuning, finite
from prunas.structure import Survey

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Dimension",
    "Preset",
    "SearchSpace",
    "bundled_spaces",
    "installed_spaces",
    "load_network",
    "load_point",
    "load_space",
]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One number that a space lets vary.

    Attributes:
        name: Name of the group or gate.
        kind: `group`: units kept; `gate`: input channels that pass.
        stage: Its stage.
        role: Role of the group, or `gate`.
        dense: The number in the dense network.
    """

    name: str
    kind: Literal["group", "gate"]
    stage: int
    role: str
    dense: int


@dataclass(frozen=True, slots=True)
class Preset:
    """A named point.

    Attributes:
        name: As published.
        slug: The same in letters that need no quoting.
        architecture: The point.
        source: Where it comes from.
    """

    name: str
    slug: str
    architecture: Architecture
    source: str


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """The points a search may propose.

    Attributes:
        name: What a user types.
        survey: The dense network.
        factory: Makes the dense network; imports torch when called.
        data: Name of the data set, or "" if there is none.
        recipe: Name of the default recipe.
        metric: What default targets are fractions of.
        keep: Default targets.
        groups: Patterns of the groups that vary; `gates` and `blocks` likewise.
        gates: See `groups`.
        blocks: See `groups`.
        exclude: Patterns of groups, gates and blocks that do not vary after all.
        floor: Fewest units of a group, and fewest channels that pass a gate.
        step: Widths are multiples of it, or dense.
        cap: Largest factor of Scratch-B epochs, or None.
        finetune: Epochs and rate of fine-tuning with the default recipe, in proportion with another; None: a
            quarter of the recipe's epochs at a hundredth of its rate.
        options: Settings of proposers by name, for example {"slimming": {"pull": 0.66}}.
        network: What the factory is, for a person.
        source: The file, or "" if it was made in Python.
        content: What makes the space again in any process, whatever becomes of the file: network, arguments,
            input, [vary], and the network's source if that is a file; empty if the factory cannot be imported.
        raw_presets: Tables `[presets.NAME]` of the file by name; see `presets`.
    """

    name: str
    survey: Survey
    factory: Callable[[], "nn.Module"]
    data: str = ""
    recipe: str = "paper"
    metric: Metric = "params"
    keep: tuple[float, ...] = (0.5, 0.3, 0.1)
    groups: tuple[str, ...] = ("*",)
    gates: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    floor: int = 1
    step: int = 1
    cap: float | None = None
    finetune: FineTuning | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    network: str = ""
    source: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    raw_presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses patterns that match nothing."""
        survey = self.survey
        groups, gates, blocks = (
            [part.name for part in parts] for parts in (survey.groups, survey.gates, survey.blocks)
        )
        for key, patterns, names in (
            ("groups", self.groups, groups),
            ("gates", self.gates, gates),
            ("blocks", self.blocks, blocks),
            ("exclude", self.exclude, [*groups, *gates, *blocks]),
        ):
            for pattern in patterns:
                if pattern != "*" and not fnmatch.filter(names, pattern):
                    raise InputError(
                        f"space {self.name!r}: vary.{key} pattern {pattern!r} matches nothing; "
                        f"`prunas show {self.name}` lists the names"
                    )

    @classmethod
    def from_model(
        cls, factory: Callable[[], "nn.Module"], input_shape: Sequence[int], *, name: str, **settings: Any
    ) -> "SearchSpace":
        """A space over any network.

        Args:
            factory: Returns a fresh network at every call, always the same one.
            input_shape: Shape of one input without the batch.
            name: What to call the space.
            settings: Any further attribute of `SearchSpace`.

        Raises:
            InputError: The network cannot be traced or does not accept such an input.
        """
        from prunas.survey.survey import survey

        made = survey(factory, input_shape)
        space = cls(name=name, survey=made, factory=factory, network=_called(factory), **settings)
        return replace(space, content=_importable(space))

    @property
    def reference(self) -> str | Mapping[str, Any]:
        """What `load_space` takes to make this space again in another process: a known name, or its content."""
        if self.source:
            path = Path(self.source)
            if bundled_spaces().get(self.name) == path or installed_spaces()[0].get(self.name) == path:
                return self.name
        if not self.content:
            raise InputError(
                f"space {self.name!r} was made from {self.network}, which another process cannot import; to train "
                'in it, write a TOML file with network = "FILE.py:FUNCTION"'
            )
        return self.content

    # What varies

    def _vary(self, name: str, patterns: Sequence[str]) -> bool:
        def matches(some: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in some)

        return matches(patterns) and not matches(self.exclude)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The groups that vary, in order, then the gates that vary."""
        inputs = self._inputs(self.dense)
        groups = [
            Dimension(group.name, "group", group.stage, group.role, group.units)
            for group in self.survey.groups
            if self._vary(group.name, self.groups)
        ]
        gates = [
            Dimension(gate.name, "gate", gate.stage, "gate", inputs[gate.name])
            for gate in self.survey.gates
            if self._vary(gate.name, self.gates)
        ]
        return (*groups, *gates)

    @cached_property
    def dense_counts(self) -> npt.NDArray[np.int64]:
        """The dense network's number of every dimension, shape (dimensions,)."""
        return np.array([d.dense for d in self.dimensions], np.int64)

    @cached_property
    def _varying(self) -> Mapping[str, Mapping[str, int]]:
        """Dense number of every dimension by name, groups and gates apart."""
        return {
            kind: {d.name: d.dense for d in self.dimensions if d.kind == kind} for kind in ("group", "gate")
        }

    @cached_property
    def _columns(self) -> tuple[list[int], list[int]]:
        """Where the survey lists the groups that vary, and the gates that vary."""
        gates = {gate.name: i for i, gate in enumerate(self.survey.gates)}
        groups = self.survey.group_index
        return [groups[n] for n in self._varying["group"]], [gates[n] for n in self._varying["gate"]]

    @cached_property
    def removable(self) -> tuple[str, ...]:
        """The blocks that may be removed."""
        return tuple(block.name for block in self.survey.blocks if self._vary(block.name, self.blocks))

    @cached_property
    def costs(self) -> CostModel:
        """The cost of every point."""
        return CostModel(self.survey)

    # Points

    @property
    def dense(self) -> Architecture:
        """The point at which nothing is pruned."""
        return Architecture(self.name, self.survey.fingerprint)

    def point(
        self,
        widths: Mapping[str, int] | None = None,
        selected: Mapping[str, Sequence[int]] | None = None,
        removed: Sequence[str] = (),
        kernels: KernelPattern | None = None,
    ) -> Architecture:
        """A checked point in canonical form.

        Args:
            widths: Units of groups.
            selected: Positions that pass gates, counted in the input as built.
            removed: Blocks without their branch.
            kernels: A kernel pattern.

        Raises:
            InputError: The point does not lie in this space.
        """
        arch = self.dense.replace(
            widths=tuple(sorted((group, index(n)) for group, n in (widths or {}).items())),
            selected=tuple(
                sorted((gate, tuple(sorted(map(index, ps)))) for gate, ps in (selected or {}).items())
            ),
            removed=tuple(sorted(removed)),
            kernels=kernels,
        )
        self.check(arch)
        return self.canonical(arch)

    def check(self, arch: Architecture) -> None:
        """Refuses a point that does not lie in this space.

        Raises:
            InputError: It belongs to another space or network, or something in it is off the grid.
        """
        if arch.space != self.name:
            raise InputError(f"the architecture belongs to space {arch.space!r}, not to {self.name!r}")
        if arch.network != self.survey.fingerprint:
            raise InputError(
                f"the architecture was made for another network ({arch.network}) than space {self.name!r} "
                f"has now ({self.survey.fingerprint}); make it anew"
            )
        groups, gates = self._varying["group"], self._varying["gate"]
        for group, width in arch.widths:
            if group not in groups:
                raise self._stranger("group", group, groups, self.survey.group_index)
            if not self.floor <= width <= groups[group] or (width % self.step and width != groups[group]):
                raise InputError(
                    f"group {group!r} cannot have {width} units; {self.floor} to {groups[group]} "
                    f"in steps of {self.step} are in space {self.name!r}"
                )
        inputs = self._inputs(arch) if arch.selected else {}
        for gate, positions in arch.selected:
            if gate not in gates:
                raise self._stranger("gate", gate, gates, inputs)
            if len(positions) < min(self.floor, inputs[gate]):
                raise InputError(f"gate {gate!r} lets too few channels through; {self.floor} is the least")
            if (
                list(positions) != sorted(set(positions))
                or not 0 <= positions[0] <= positions[-1] < inputs[gate]
            ):
                raise InputError(
                    f"gate {gate!r} selects among {inputs[gate]} channels of this point; positions must "
                    "ascend without repetition and lie below that"
                )
        for block in arch.removed:
            if block not in self.removable:
                raise self._stranger("block", block, self.removable, self.survey.block_index)
        if arch.kernels is not None:
            self._check_kernels(arch, arch.kernels)

    def _stranger(
        self, kind: str, name: str, varying: Collection[str], existing: Collection[str]
    ) -> InputError:
        if name in existing:
            return InputError(f"{kind} {name!r} does not vary in space {self.name!r}; its [vary] decides")
        return unknown(f"{kind} of space {self.name!r}:", name, varying)

    def _check_kernels(self, arch: Architecture, kernels: KernelPattern) -> None:
        convolutions = [layer for layer in self.survey.layers if layer.kind == "conv"]
        paths = {layer.path for layer in convolutions}
        keys = {f"{layer.stage}/{'x'.join(map(str, layer.kernel))}" for layer in convolutions}
        for path, _ in kernels.masks:
            if path not in paths:
                raise unknown(f"convolution of space {self.name!r}:", path, paths)
        for key, _ in kernels.frequencies:
            if key not in keys | paths:
                raise unknown(f"kernel key of space {self.name!r}:", key, keys | paths)
        self.cost(arch)  # a pattern that does not fit raises

    def contains(self, arch: Architecture) -> bool:
        """Whether `check` would accept the point."""
        try:
            self.check(arch)
        except InputError:
            return False
        return True

    def canonical(self, arch: Architecture) -> Architecture:
        """The same point without what says nothing: what is full, and what lies inside removed branches."""
        dense, inputs = self._varying["group"], self._inputs(arch) if arch.selected else {}
        groups, layers = self._gone(arch)
        kernels = arch.kernels
        if kernels is not None:
            frequencies = tuple((key, values) for key, values in kernels.frequencies if set(values) != {1.0})
            masks = tuple((path, mask) for path, mask in kernels.masks if path not in layers)
            kernels = KernelPattern(frequencies, masks, kernels.seed) if frequencies or masks else None
        return arch.replace(
            widths=tuple((g, n) for g, n in arch.widths if n != dense[g] and g not in groups),
            selected=tuple((g, ps) for g, ps in arch.selected if len(ps) != inputs[g] and g not in layers),
            kernels=kernels,
        )

    def _gone(self, arch: Architecture) -> tuple[set[str], set[str]]:
        """Names of the groups, and paths of the layers, that go with the removed branches."""
        if not arch.removed:
            return set(), set()
        survey = self.survey
        blocks = {survey.block_index[block] for block in arch.removed}
        groups = {g.name for g, held in zip(survey.groups, survey.group_blocks, strict=True) if held & blocks}
        return groups, {path for path, held in survey.blocks_of.items() if held & blocks}

    def _inputs(self, arch: Architecture) -> dict[str, int]:
        """Channels at the input of every gate as built."""
        counts = self.costs.gate_inputs(self.costs.widths(arch)[None])[0].tolist()
        return {gate.name: count for gate, count in zip(self.survey.gates, counts, strict=True)}

    def counted(self, counts: npt.ArrayLike) -> Architecture:
        """The point with given counts; gates let evenly spaced channels through.

        Args:
            counts: One per dimension, in the order of `dimensions`; a gate's is cut to its input as built.
        """
        numbers = list(zip(self.dimensions, np.asarray(counts).tolist(), strict=True))
        widths = {d.name: n for d, n in numbers if d.kind == "group"}
        if not self._varying["gate"]:
            return self.point(widths)
        inputs = self._inputs(self.dense.replace(widths=tuple(widths.items())))
        selected = {
            d.name: _spread(n, inputs[d.name]) for d, n in numbers if d.kind == "gate" and n < inputs[d.name]
        }
        return self.point(widths, selected)

    def counts(self, arch: Architecture) -> npt.NDArray[np.int64]:
        """Units and passing channels of a point, shape (dimensions,); whole inside removed branches."""
        widths = dict(arch.widths)
        passing = {gate: len(positions) for gate, positions in arch.selected}
        inputs = self._inputs(arch) if self._varying["gate"] else {}
        return np.array(
            [
                widths.get(d.name, d.dense) if d.kind == "group" else passing.get(d.name, inputs[d.name])
                for d in self.dimensions
            ],
            np.int64,
        )

    # Cost

    def cost(self, arch: Architecture) -> Cost:
        """What a point costs."""
        return self.costs.of(arch)

    def measure(self, arch: Architecture, metric: Metric) -> int:
        """One number of a point's cost; see `Target.metric`."""
        if metric == "channels":
            groups, layers = self._gone(arch)
            there = [d.name not in (groups if d.kind == "group" else layers) for d in self.dimensions]
            return int(self.counts(arch)[there].sum())
        if metric == "conv-params":
            return self.costs.conv_params(arch)
        return cast(int, getattr(self.cost(arch), metric))

    def measures(self, counts: npt.ArrayLike, metric: Metric) -> npt.NDArray[np.int64]:
        """The cost of many points at once, kernels dense and all blocks whole.

        Args:
            counts: Shape (points, dimensions); a gate's is cut to its input as built.
            metric: What is counted.
        """
        table = np.atleast_2d(np.asarray(counts, float))
        groups, gates = self._columns
        widths = np.tile(self.costs.dense_widths.astype(float), (len(table), 1))
        widths[:, groups] = table[:, : len(groups)]
        selected = None
        if gates:
            selected = np.full((len(table), len(self.survey.gates)), -1.0)
            selected[:, gates] = table[:, len(groups) :]
        if metric == "channels":
            passing = np.zeros(len(table))
            if selected is not None:
                passing = np.minimum(selected, self.costs.gate_inputs(widths))[:, gates].sum(1)
            return np.asarray(widths[:, groups].sum(1) + passing, np.int64)
        if metric == "conv-params":
            return self.costs.conv_params_table(widths, selected)
        params, macs = self.costs.table(widths, selected)
        return params if metric == "params" else macs

    def target(
        self, *, keep: float | None = None, budget: int | None = None, metric: Metric | None = None
    ) -> Target:
        """A budget of this space.

        Args:
            keep: Fraction of the dense network, in (0, 1]. For `channels` it follows the study's threshold:
                int(N * (1 - keep)) + 1 of N are removed.
            budget: Or an absolute number. Without either, the dense network's.
            metric: What is counted; the space's own by default.

        Raises:
            InputError: No point of this space reaches the budget.
        """
        metric = metric or self.metric
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
        if keep is not None and budget is not None:
            raise InputError("a budget is a fraction or a number, not both")
        dense = self.measure(self.dense, metric)
        if keep is not None:
            if not (finite(keep) and 0 < keep <= 1):
                raise InputError(f"keep must lie in (0, 1], not {keep}")
            value = round(keep * dense)
            if metric == "channels" and keep < 1:
                pruned = round(1 - keep, 9)  # 1 - 0.9 is a little less than 0.1
                value = dense - int(dense * pruned) - 1
        else:
            value = dense if budget is None else budget
        least = self.least(metric)
        if not least <= value <= dense:
            raise InputError(
                f"no architecture of space {self.name!r} has {value:,} {metric}; "
                f"{least:,} to {dense:,} can be reached"
            )
        return Target(metric, value, keep)

    def least(self, metric: Metric) -> int:
        """The smallest cost that widths and removed blocks can reach."""
        floor = self.counted(self.grid(np.zeros(len(self.dimensions))))
        return self.measure(self.canonical(floor.replace(removed=self.removable)), metric)

    def grid(self, counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The nearest counts at or below the given ones that the space allows, shape (dimensions,)."""
        dense = self.dense_counts
        whole = np.floor(np.asarray(counts, float) + 1e-9)  # forgives the rounding of ratio * width
        if self.step > 1:
            whole = np.where(whole >= dense, dense, whole // self.step * self.step)
        least = np.minimum(-(-self.floor // self.step) * self.step, dense)
        return np.clip(whole, least, dense).astype(np.int64)

    # Networks

    def build(
        self,
        arch: Architecture | None = None,
        weights: "Mapping[str, Tensor] | None" = None,
        kept: Mapping[str, Sequence[int]] | None = None,
    ) -> "nn.Module":
        """The network of a point, see `prunas.build.build.build`; the dense one by default.

        Raises:
            InputError: The point does not lie in this space.
        """
        from prunas.build.build import build

        arch = arch or self.dense
        self.check(arch)
        return build(self.factory, self.survey, self.canonical(arch), weights, kept)

    # Presets

    @cached_property
    def presets(self) -> tuple[Preset, ...]:
        """The named points of this space, in the order of its file."""
        return tuple(self._presets())

    def _presets(self) -> Iterator[Preset]:
        for name, entry in self.raw_presets.items():
            widths = entry.get("widths", {})
            groups = self._varying["group"]
            try:
                if isinstance(widths, list):
                    if len(widths) != len(groups):
                        raise InputError(f"{len(widths)} widths are given and {len(groups)} groups vary")
                    widths = dict(zip(groups, widths, strict=True))
                inputs = self._inputs(self.point(widths))
                selected = {
                    gate: _spread(some, inputs.get(gate, some)) if isinstance(some, int) else some
                    for gate, some in entry.get("selected", {}).items()
                }
                arch = self.point(widths, selected, entry.get("removed", ()))
            except InputError as error:
                raise InputError(f"{self.source or self.name}: preset {name!r}: {error}") from error
            yield Preset(name, entry.get("slug") or slug(name), arch, entry.get("source", ""))

    def preset(self, name: str) -> Preset:
        """The preset of this name or slug.

        Raises:
            InputError: There is none.
        """
        for preset in self.presets:
            if name in (preset.name, preset.slug):
                return preset
        raise unknown(f"preset of space {self.name!r}:", name, [preset.name for preset in self.presets])


def _spread(count: int, channels: int) -> list[int]:
    """`count` of so many channels, evenly spaced."""
    return [i * channels // count for i in range(count)]


def slug(name: str) -> str:
    """A name in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("%", "pct")).strip("-")


# Files


def space_folder() -> Path:
    """The folder of the bundled spaces: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "search_spaces"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "search_spaces"


def bundled_spaces() -> dict[str, Path]:
    """The bundled spaces by name."""
    return {path.stem: path for path in sorted(space_folder().glob("*.toml"))}


def installed_spaces() -> tuple[dict[str, Path], tuple[str, ...]]:
    """The bundled spaces and what installed packages add, and one line about each addition that cannot be used."""
    bundled = bundled_spaces()
    added, problems = load_all("prunas.spaces", bundled, _offered)
    return {**bundled, **added}, problems


def _file_of(name: str) -> Path | None:
    """The file of a bundled space or of one that an installed package offers; None if there is no such name."""
    if (path := bundled_spaces().get(name)) is not None:
        return path
    plugin = plugins("prunas.spaces").get(name)
    return None if plugin is None else _offered(plugin)


def _offered(plugin: Plugin) -> Path:
    path = plugin.load()
    if not isinstance(path, (str, Path)):
        raise InputError(f"{plugin}: its entry point names a {type(path).__name__}, not a path")
    path = Path(path)
    if path.name != f"{plugin.name}.toml" or not path.is_file():
        raise InputError(f"{plugin}: {path} must be a file called {plugin.name}.toml")
    return path


def load_space(name: str | Mapping[str, Any]) -> SearchSpace:
    """A bundled space by name, one that an installed package offers, the one in a TOML file, or of such content.

    The first call for a network imports torch to survey it; later ones read the survey from a cache in the
    user's cache folder, or in PRUNAS_CACHE.

    Raises:
        InputError: There is no such space, or the file is not one.
    """
    if not isinstance(name, str):
        return _from_content(name)
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no file {name}")
        return _read(path)
    found = _file_of(name)
    if found is None:
        raise unknown("space", name, {*bundled_spaces(), *plugins("prunas.spaces")})
    return _read(found)


def load_point(text: str) -> tuple[SearchSpace, Architecture]:
    """The point that a user means by `SPACE`, `SPACE:PRESET` or the path of an architecture's JSON file.

    An architecture of a user's own space is read with the space's TOML file beside it.

    Raises:
        InputError: It is none of these.
    """
    if text.endswith(".json"):
        arch = Architecture.from_json(read_json(Path(text)), text)
        beside = Path(text).with_name(f"{arch.space}.toml")
        space = load_space(str(beside) if beside.is_file() else arch.space)
        space.check(arch)
        return space, space.canonical(arch)
    name, _, preset = text.partition(":")
    file = name.endswith(".toml")
    if preset and not file and (name.endswith(".py") or ("." in name and _file_of(name) is None)):
        raise InputError(
            f"{text!r} is a network, not a space: show it with --input, such as --input 3,224,224; to search or "
            f'train, write a TOML file with network = "{text}", input, data and recipe'
        )
    space = load_space(name)
    return space, space.preset(preset).architecture if preset else space.dense


def _read(path: Path) -> SearchSpace:
    from prunas.spacefile import parse

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    spec = parse(text, path)
    content = _content(
        path.stem, spec.network, path.parent, spec.arguments, spec.input, spec.vary.model_dump()
    )
    return replace(_from_content(content), source=str(path), **spec.settings())


def load_network(network: str, input_shape: Sequence[int]) -> SearchSpace:
    """The space of a network by its import path or file, to look at: everything varies, and there are no data.

    Args:
        network: "package.module:factory", or "path/to/file.py:factory".
        input_shape: Shape of one input without the batch.

    Raises:
        InputError: It cannot be imported, made or surveyed.
    """
    from prunas.spacefile import NETWORK, Vary

    if not re.fullmatch(NETWORK, network):
        raise InputError(f"{network!r} is no network; write package.module:function or file.py:function")
    name = slug(network.partition(":")[2]) or "network"
    vary = Vary(gates=("*",), blocks=("*",)).model_dump()
    return _from_content(_content(name, network, Path(), {}, input_shape, vary))


def _content(
    name: str,
    network: str,
    folder: Path,
    arguments: Mapping[str, Any],
    shape: Sequence[int],
    vary: Mapping[str, Any],
) -> dict[str, Any]:
    """See `SearchSpace.content`."""
    place, _, attribute = network.partition(":")
    content: dict[str, Any] = {"name": name, "network": network, "arguments": dict(arguments)}
    if place.endswith(".py"):
        try:
            content["source"] = (folder / place).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"network {network!r}: cannot read {folder / place}: {why}") from error
        content["network"] = f"{Path(place).name}:{attribute}"  # where it lies does not matter
    else:
        content["versions"] = _versions(place)
    content |= {"input": list(shape), "vary": {key: _listed(value) for key, value in vary.items()}}
    try:
        canonical(content)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"space {name!r}: arguments must be numbers, texts, lists and tables: {error}"
        ) from error
    return content


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _from_content(content: Mapping[str, Any]) -> SearchSpace:
    network, source = content["network"], content.get("source", "")
    factory = partial(_make, network, source, dict(content["arguments"]))
    survey = _surveyed(content, factory)
    vary: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["vary"].items()
    }
    return SearchSpace(
        name=content["name"], survey=survey, factory=factory, network=network, content=content, **vary
    )


def _importable(space: SearchSpace) -> dict[str, Any]:
    """The content of a space made in Python; empty if another process cannot import its factory."""
    factory: Any = space.factory
    arguments: Mapping[str, Any] = {}
    if isinstance(factory, partial) and not factory.args:
        factory, arguments = factory.func, factory.keywords
    network = _called(factory)
    vary = {key: getattr(space, key) for key in ("groups", "gates", "blocks", "exclude", "floor", "step")}
    try:
        if network.startswith("__main__") or pkgutil.resolve_name(network) is not factory:
            return {}
        return _content(space.name, network, Path(), arguments, space.survey.input, vary)
    except (
        ImportError,
        AttributeError,
        ValueError,
    ):  # a local function, a lambda, arguments JSON cannot hold
        return {}


def _make(network: str, source: str, arguments: Mapping[str, Any]) -> "nn.Module":
    """Calls a factory. A module-level function, so that a partial of it pickles."""
    factory = _factory(network, source)
    try:
        with foreign_code(f"network {network!r}"):
            return cast("nn.Module", factory(**arguments))
    except (InputError, RuntimeError):
        raise  # ours, or torch's; the survey knows what to do about a factory that fails on the meta device
    except Exception as error:  # whatever a user's factory raises
        raise InputError(
            f"network {network!r} cannot be made with arguments {dict(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _factory(network: str, source: str) -> Callable[..., Any]:
    """Imports a factory: by its import path, or from the source of a Python file."""
    place, _, attribute = network.partition(":")
    try:
        with foreign_code(f"network {network!r}"):
            found: Any = (
                getattr(_module(place, source), attribute) if source else pkgutil.resolve_name(network)
            )
    except InputError:
        raise
    except Exception as error:  # whatever a user's file raises
        raise InputError(
            f"network {network!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(found) or _is_network(found):
        raise InputError(
            f"network {network!r} is not a function that makes a network, but a {type(found).__name__}; name one "
            "that returns a fresh network at every call"
        )
    return cast(Callable[..., Any], found)


def _is_network(found: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever made a network has imported it
    return torch is not None and isinstance(found, torch.nn.Module)


@lru_cache
def _module(name: str, source: str) -> ModuleType:
    """A user's Python file as a module; the same one while the file does not change."""
    module = ModuleType(f"prunas_network_{Path(name).stem}_{digest(source)}")
    module.__file__ = name
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def _surveyed(content: Mapping[str, Any], factory: Callable[[], "nn.Module"]) -> Survey:
    """The survey of a network, from the cache if nothing it depends on has changed."""
    network = {key: value for key, value in content.items() if key not in ("name", "vary")}
    key = digest([network, _own_sources()], 24)
    path = cache_folder() / "surveys" / f"{key}.json"
    with suppress(InputError):  # an entry that is missing or damaged is made anew
        return Survey.from_json(read_json(path))
    from prunas.survey.survey import survey

    # Imported here, lest a module's tensors be born on the meta device.
    _factory(content["network"], content.get("source", ""))
    made = survey(factory, content["input"])
    with suppress(InputError):  # a cache that cannot be written only costs time
        write_json(path, made.to_json())
    return made


def _own_sources() -> list[str]:
    """What every survey depends on: torch, and our own sources."""
    here = Path(__file__).parent
    files = [*sorted(f for room in ("survey", "build", "networks") for f in (here / room).glob("*.py"))]
    files.append(here / "structure.py")
    return [importlib.metadata.version("torch"), *map(_sha, files)]


def _versions(module: str) -> list[str]:
    """What a network that is imported depends on: the version of its distribution, else its files."""
    top = module.partition(".")[0]
    if top == "prunas":
        return []
    try:
        return [f"{top} {importlib.metadata.version(top)}"]
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(top) if top else None
    roots = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    files = sorted(f for root in roots for f in root.rglob("*.py"))
    if spec and spec.origin and not roots:
        files.append(Path(spec.origin))
    return [_sha(f) for f in files if f.is_file()]


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _called(factory: Callable[..., Any]) -> str:
    inner = factory.func if isinstance(factory, partial) else factory
    return f"{getattr(inner, '__module__', '')}:{getattr(inner, '__qualname__', inner)}"
