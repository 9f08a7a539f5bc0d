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
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.counted import Cost, CostModel
from prunas.costs.metrics import metric as named_metric
from prunas.costs.target import Target
from prunas.errors import InputError, unknown
from prunas.recipe import FineTuning, finite
from prunas.survey import Survey

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Dimension", "Preset", "SearchSpace", "slug"]


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
    metric: str = "params"
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
        from prunas.spaces.factory import import_path
        from prunas.spaces.load import content_of
        from prunas.tracing.survey import survey

        made = survey(factory, input_shape)
        space = cls(name=name, survey=made, factory=factory, network=import_path(factory), **settings)
        return replace(space, content=content_of(space))

    @property
    def reference(self) -> str | Mapping[str, Any]:
        """What `load_space` takes to make this space again in another process: a known name, or its content."""
        from prunas.spaces.load import bundled_spaces, installed_spaces

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
            d.name: evenly_spaced(n, inputs[d.name])
            for d, n in numbers
            if d.kind == "gate" and n < inputs[d.name]
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

    def measure(self, arch: Architecture, metric: str) -> int:
        """One number of a point's cost, by the name of its metric; see `prunas.costs.metrics`."""
        return named_metric(metric).of(self, arch)

    def measures(self, counts: npt.ArrayLike, metric: str) -> npt.NDArray[np.int64]:
        """The cost of many points at once, kernels dense and all blocks whole.

        Args:
            counts: Shape (points, dimensions); a gate's is cut to its input as built.
            metric: What is counted.
        """
        return named_metric(metric).table(self, counts)

    def channels(self, arch: Architecture) -> int:
        """Units and passing channels of a point that the space lets vary, those of removed branches left out."""
        groups, layers = self._gone(arch)
        there = [d.name not in (groups if d.kind == "group" else layers) for d in self.dimensions]
        return int(self.counts(arch)[there].sum())

    def channels_table(self, counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """`channels` of many points at once, shape (points,); `counts` as of `measures`."""
        widths, selected = self.sizes(counts)
        groups, gates = self._columns
        passing = np.zeros(len(widths))
        if selected is not None:
            passing = np.minimum(selected, self.costs.gate_inputs(widths))[:, gates].sum(1)
        return np.asarray(widths[:, groups].sum(1) + passing, np.int64)

    def sizes(self, counts: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Widths (points, groups) and passing channels (points, gates), or None; `counts` as of `measures`."""
        table = np.atleast_2d(np.asarray(counts, float))
        groups, gates = self._columns
        widths = np.tile(self.costs.dense_widths.astype(float), (len(table), 1))
        widths[:, groups] = table[:, : len(groups)]
        selected = None
        if gates:
            selected = np.full((len(table), len(self.survey.gates)), -1.0)
            selected[:, gates] = table[:, len(groups) :]
        return widths, selected

    def target(
        self, *, keep: float | None = None, budget: int | None = None, metric: str | None = None
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
        metric = named_metric(metric or self.metric).name
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

    def least(self, metric: str) -> int:
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
        """The network of a point, see `prunas.surgery.assemble.build`; the dense one by default.

        Raises:
            InputError: The point does not lie in this space.
        """
        from prunas.surgery.assemble import build

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
                    gate: evenly_spaced(some, inputs.get(gate, some)) if isinstance(some, int) else some
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


def evenly_spaced(count: int, channels: int) -> list[int]:
    """`count` of so many channels, evenly spaced."""
    return [i * channels // count for i in range(count)]


def slug(name: str) -> str:
    """A name in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("%", "pct")).strip("-")
