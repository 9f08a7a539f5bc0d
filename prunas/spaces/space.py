"""Search spaces: a network and what may vary in it. Without torch once surveyed.

A space is a TOML file in `search_spaces/`, a file of the user's, or made by `SearchSpace.from_model`:

    network = "prunas.networks:vgg16"      # any import path, or a Python file beside this one: "mine.py:factory"
    arguments = { classes = 10 }           # for the factory
    input = [3, 32, 32]
    data = "cifar10"
    task = "classification"                # the default; or a function that makes one of the data: "mine.py:task"
    recipe = "paper"                       # or a table: [recipe], with name = "paper" and what differs from it
    keep = [0.5, 0.3, 0.1]                 # default targets, fractions of `metric`
    weights = "mine.pth"                   # of the dense network, beside this file; without it that is trained
    part = "backbone"                      # only this submodule varies; costs and targets are the whole network's

    [vary]                                 # shell patterns over what `prunas show` lists
    groups = ["*"]
    gates = []
    blocks = []

    [presets."VGG-16-A"]
    widths = [32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256]
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.counted import Cost, CostModel
from prunas.costs.metrics import metric as named_metric
from prunas.costs.target import Target
from prunas.errors import unknown
from prunas.spaces.points import (
    canonical_point,
    check_patterns,
    check_point,
    counted_point,
    counts_of,
    inside_removed,
    target_of,
)
from prunas.spaces.presets import Preset, presets_of
from prunas.spaces.study import Study
from prunas.survey import Survey

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Dimension", "SearchSpace"]


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


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """The points a search may propose.

    Attributes:
        name: What a user types.
        survey: The dense network.
        factory: Makes the dense network; imports torch when called.
        groups: Patterns of the groups that vary.
        gates: Patterns of the gates that vary.
        blocks: Patterns of the blocks that may be removed.
        exclude: Patterns of groups, gates and blocks that do not vary after all.
        floor: Fewest units of a group, and fewest channels that pass a gate.
        step: Widths are multiples of it, or dense.
        ceiling: Most units of a group, in multiples of the dense network's. What is to be wider than that network
            is trained from scratch: there are no weights to inherit.
        study: What a search in this space does unless told otherwise.
        network: What the factory is, for a person.
        source: The file, or "" if it was made in Python.
        known_as: See `reference`; empty if another process cannot import the factory.
        raw_presets: Tables `[presets.NAME]` of the file by name; see `presets`.
    """

    name: str
    survey: Survey
    factory: Callable[[], "nn.Module"]
    groups: tuple[str, ...] = ("*",)
    gates: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    floor: int = 1
    step: int = 1
    ceiling: float = 1.0
    study: Study = field(default_factory=Study)
    network: str = ""
    source: str = ""
    known_as: str | Mapping[str, Any] = ""
    raw_presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses patterns that match nothing."""
        check_patterns(self)

    @classmethod
    def from_model(
        cls, factory: Callable[[], "nn.Module"], input_shape: Any, *, name: str, **settings: Any
    ) -> "SearchSpace":
        """A space over any network; see `prunas.spaces.load.space_from_model`."""
        from prunas.spaces.load import space_from_model

        return space_from_model(factory, input_shape, name=name, **settings)

    @property
    def reference(self) -> str | Mapping[str, Any]:
        """What `load_space` takes to make this space again in another process: a known name, or its content.

        The content holds network, arguments, input, [vary], and the network's source if that is a file; it serves
        whatever becomes of the space's own file. Of a factory that another process cannot import, such as a
        lambda, it serves in this process alone: see `prunas.live`.
        """
        return self.known_as or self._live_content

    @cached_property
    def _live_content(self) -> Mapping[str, Any]:
        from prunas.spaces.load import live_content

        return live_content(self)

    # What varies

    def _vary(self, name: str, patterns: Sequence[str]) -> bool:
        def matches(some: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in some)

        return matches(patterns) and not matches(self.exclude)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The groups that vary, in order, then the gates that vary."""
        inputs = self.gate_inputs(self.dense)
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
    def widest(self) -> Mapping[str, int]:
        """Most units of every group that varies, by name."""
        return {name: _most(dense, self.ceiling, self.step) for name, dense in self.varying["group"].items()}

    @cached_property
    def most_counts(self) -> npt.NDArray[np.int64]:
        """The largest number of every dimension, shape (dimensions,)."""
        inputs = self.gate_inputs(self.dense.replace(widths=tuple(self.widest.items())))
        most = [self.widest[d.name] if d.kind == "group" else inputs[d.name] for d in self.dimensions]
        return np.array(most, np.int64)

    @cached_property
    def varying(self) -> Mapping[str, Mapping[str, int]]:
        """Dense number of every dimension by name, groups and gates apart."""
        return {
            kind: {d.name: d.dense for d in self.dimensions if d.kind == kind} for kind in ("group", "gate")
        }

    @cached_property
    def _columns(self) -> tuple[list[int], list[int]]:
        """Where the survey lists the groups that vary, and the gates that vary."""
        gates = {gate.name: i for i, gate in enumerate(self.survey.gates)}
        groups = self.survey.group_index
        return [groups[n] for n in self.varying["group"]], [gates[n] for n in self.varying["gate"]]

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
        check_point(self, arch)

    def canonical(self, arch: Architecture) -> Architecture:
        """The same point as it is stored: nothing at its dense number, nothing inside removed branches."""
        return canonical_point(self, arch)

    def gate_inputs(self, arch: Architecture) -> dict[str, int]:
        """Channels at the input of every gate as built."""
        counts = self.costs.gate_inputs(self.costs.widths(arch)[None])[0].tolist()
        return {gate.name: count for gate, count in zip(self.survey.gates, counts, strict=True)}

    def counted(self, counts: npt.ArrayLike) -> Architecture:
        """The point with given counts; gates let evenly spaced channels through.

        Args:
            counts: One per dimension, in the order of `dimensions`; a gate's is cut to its input as built.
        """
        return counted_point(self, counts)

    def counts(self, arch: Architecture) -> npt.NDArray[np.int64]:
        """Units and passing channels of a point, shape (dimensions,); dense numbers inside removed branches."""
        return counts_of(self, arch)

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
        groups, layers = inside_removed(self.survey, arch)
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
            metric: What is counted; the study's own by default.

        Raises:
            InputError: No point of this space reaches the budget.
        """
        return target_of(self, keep, budget, named_metric(metric or self.study.metric).name)

    def least(self, metric: str) -> int:
        """The smallest cost that widths and removed blocks can reach."""
        floor = self.counted(self.grid(np.zeros(len(self.dimensions))))
        return self.measure(self.canonical(floor.replace(removed=self.removable)), metric)

    def most(self, metric: str) -> int:
        """The largest cost that widths can reach: the dense network's where none may be above its own."""
        return self.measure(self.counted(self.most_counts), metric)

    def grid(self, counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The nearest counts at or below the given ones that the space allows, shape (dimensions,)."""
        dense = self.dense_counts
        whole = np.floor(np.asarray(counts, float) + 1e-9)  # forgives the rounding of ratio * width
        if self.step > 1:
            stepped = whole // self.step * self.step
            whole = np.where(whole >= dense, np.maximum(dense, stepped), stepped)
        least = np.minimum(-(-self.floor // self.step) * self.step, dense)
        return np.clip(whole, least, self.most_counts).astype(np.int64)

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
        return tuple(presets_of(self))

    def preset(self, name: str) -> Preset:
        """The preset of this name or slug.

        Raises:
            InputError: There is none.
        """
        for preset in self.presets:
            if name in (preset.name, preset.slug):
                return preset
        raise unknown(f"preset of space {self.name!r}:", name, [preset.name for preset in self.presets])


def _most(dense: int, ceiling: float, step: int) -> int:
    """The largest width up to `ceiling` times the dense one, a multiple of `step` or dense."""
    return max(dense, int(dense * ceiling + 1e-9) // step * step)
