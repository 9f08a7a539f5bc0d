"""Which channels belong together: labels, what ties them, where they occur, what holds them fixed."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.nn.modules.conv import _ConvNd

from prunas.survey import FIXED, ChannelMap, Frozen, Span

__all__ = ["NOTHING", "Axis", "Expectation", "Grouping", "Ledger", "Mismatch", "Vector"]

Vector = npt.NDArray[np.int64]
"""Labels along one channel axis."""

Axis = tuple[str, str]
"""Where labels occur: (module path, `reads`, `inner` or `writes`), or (tensor name, its axis as text)."""

NOTHING: Vector = np.empty(0, np.int64)
"""No labels."""


class Mismatch(Exception):
    """A built network does not have the channels it was expected to have.

    Args:
        node: Name of the node where that showed.
    """

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


@dataclass(frozen=True)
class Condensed:
    """What the ledger says of one group.

    Attributes:
        units: Number of units.
        origins: The producers of its channels, first one first.
        mixed: Whether a norm runs over its channels.
        concatenated: Whether a concatenation reads it.
    """

    units: int
    origins: tuple[str, ...]
    mixed: bool
    concatenated: bool


@dataclass(frozen=True)
class Grouping:
    """What a ledger's labels condense to.

    Attributes:
        groups: In the order of their first labels.
        frozen: What is held fixed, with the reasons.
        axes: Along every axis, the group of each channel (`FIXED` where it never varies) and its unit.
        forms: The same as forms.
        channels: The same as numbers of single channels, distinct even where they never vary.
        holders: The index in `frozen` of what holds an axis, where something is reported to.
    """

    groups: tuple[Condensed, ...]
    frozen: tuple[Frozen, ...]
    axes: dict[Axis, tuple[Vector, Vector]]
    forms: dict[Axis, ChannelMap]
    channels: dict[Axis, Vector]
    holders: dict[Axis, int]


class Ledger:
    """The labels of a survey, the ties between them, and every axis they occur on.

    Ties and pairs join labels into classes; a group is a set of classes that occur together everywhere, equally
    often. Tied labels are one channel, paired ones are different channels that come and go together.

    Attributes:
        axes: Labels along every axis met so far, in the order of meeting.
        forbidden: Layers that may not vary, with the reason and the place.
        fixed_tensors: Parameters and buffers that may not be narrowed, likewise.
        fixed_axes: Axes of parameters and buffers that may not be, likewise.
        followed: The axes of numbers, with the nodes that say so.
    """

    def __init__(self) -> None:
        self.axes: dict[Axis, Vector] = {}
        self.forbidden: dict[str, tuple[str, str]] = {}
        self.fixed_tensors: dict[str, tuple[str, str]] = {}
        self.fixed_axes: dict[Axis, tuple[str, str]] = {}
        self.followed: set[tuple[Axis, str]] = set()
        self._produced: list[tuple[str, int]] = []
        self._labels = 0
        self._ties: list[tuple[Vector, Vector]] = []
        self._pairs: list[tuple[Vector, Vector]] = []
        self._frozen: list[tuple[Vector, str, str]] = []
        self._adopted = 0, ""  # how many pairs there were before the last adoption, and where it was
        self._supposed: list[tuple[Vector, Vector, str]] = []
        self._mixed: list[Vector] = []
        self._concatenated: list[Vector] = []

    def fixed(self, count: int, why: str = "", place: str = "") -> Vector:
        """Fresh labels of channels that never vary; without a reason, none is reported."""
        labels = self._new(count, "")
        self._frozen.append((labels, why, place))
        return labels

    def _new(self, count: int, origin: str) -> Vector:
        self._produced.append((origin, count))
        self._labels += count
        return np.arange(self._labels - count, self._labels)

    def occur(self, axis: Axis, labels: Vector, node: str) -> None:
        """Notes that `labels` occur along `axis`, and ties them to those that occurred there before."""
        if axis in self.axes:
            self.tie(self.axes[axis], labels, node)
        else:
            self.axes[axis] = labels

    def follow(self, axis: Axis, labels: Vector, node: str) -> None:
        """Notes that a number counts `labels`; others that it counts come and go with them."""
        self.followed.add((axis, node))
        if axis in self.axes:
            self.pair(self.axes[axis], labels, node)
        else:
            self.axes[axis] = labels

    def count(self, axis: Axis, labels: Vector, node: str) -> None:
        """Notes that the work of a node is proportional to the number of `labels`."""
        self.axes.setdefault(axis, labels)

    def produce(self, axis: Axis, count: int, tiles: int, node: str) -> Vector:
        """The labels that `axis` produces, the same at every call: `count` fresh ones, repeated `tiles` times."""
        if axis not in self.axes:
            self.axes[axis] = np.tile(self._new(count, axis[0]), tiles)
        return self.axes[axis]

    def is_depthwise(self, path: str, conv: _ConvNd) -> bool:
        """Whether each filter of a convolution reads one input channel."""
        return 1 < conv.groups == conv.in_channels

    def tie(self, first: Vector, second: Vector, node: str) -> None:
        """Joins labels pair by pair: their channels meet in one operation."""
        self._ties.append((first, second))

    def pair(self, first: Vector, second: Vector, node: str) -> None:
        """Joins labels pair by pair: an operation takes the channels for granted in equal parts."""
        self._pairs.append((first, second))

    def suppose(self, first: Vector, second: Vector, place: str) -> None:
        """Notes labels that may have to be paired: whether they are shows when a network is narrowed without.

        Args:
            first: Labels.
            second: As many.
            place: The source line that will fail then, or one of the same file.
        """
        self._supposed.append((first, second, place.partition(":")[0]))

    def adopt(self, place: str) -> bool:
        """Pairs what was supposed in the file of a source line; whether there was anything."""
        file = place.partition(":")[0]
        self._adopted = len(self._pairs), file
        self._pairs += [(first, second) for first, second, where in self._supposed if where == file]
        rest = [supposed for supposed in self._supposed if supposed[2] != file]
        adopted = len(rest) < len(self._supposed)
        self._supposed = rest
        return adopted

    def retract(self, place: str) -> None:
        """Parts again what was paired by the last adoption, if that did not help in the file of a source line."""
        before, file = self._adopted
        if file and file == place.partition(":")[0]:
            del self._pairs[before:]
        self._adopted = before, ""

    def freeze(self, labels: Vector, why: str, place: str) -> None:
        """Holds channels fixed; the first reason given is the one reported."""
        self._frozen.append((labels, why, place))

    def forbid(self, path: str, why: str, place: str) -> None:
        """Holds every channel of one layer fixed, whenever it is met."""
        self.forbidden.setdefault(path, (why, place))

    def keep_whole(self, name: str, why: str, place: str) -> None:
        """Holds the channels of a parameter or buffer fixed, wherever it is met."""
        self.fixed_tensors.setdefault(name, (why, place))

    def keep_axis(self, name: str, axis: int, why: str, place: str) -> None:
        """Holds the channels of one axis of a parameter or buffer fixed, wherever it is met."""
        self.fixed_axes.setdefault((name, str(axis)), (why, place))

    def mix(self, labels: Vector) -> None:
        """Notes that a norm takes statistics over these channels."""
        self._mixed.append(labels)

    def concatenate(self, labels: Vector) -> None:
        """Notes that a concatenation reads these channels."""
        self._concatenated.append(labels)

    def group(self) -> Grouping:
        """Condenses the labels to groups."""
        classes = self._classes([*self._ties, *self._pairs])
        channels = self._classes(self._ties)
        axes = {axis: classes[labels] for axis, labels in self.axes.items()}
        reasons = list(self._frozen)
        for axis, labels in self.axes.items():
            owner, _ = axis
            reasons += [
                (labels, *held[owner]) for held in (self.forbidden, self.fixed_tensors) if owner in held
            ]
            if axis in self.fixed_axes:
                reasons.append((labels, *self.fixed_axes[axis]))
        held = np.full(len(classes), -1)
        for i in reversed(range(len(reasons))):
            held[classes[reasons[i][0]]] = i
        together = (units[held[units] < 0] for units in _together(list(axes.values()), len(classes)))
        members = [units for units in together if len(units)]
        # One unit cannot become fewer: such a group never varies.
        single = np.array([units[0] for units in members if len(units) == 1], np.int64)
        reasons.append((single, "it has a single unit", ""))
        held[single] = len(reasons) - 1
        members = sorted((units for units in members if len(units) > 1), key=lambda units: int(units.min()))
        group, unit = np.full(len(classes), FIXED), np.zeros(len(classes), np.int64)
        for i, units in enumerate(members):
            group[units], unit[units] = i, np.arange(len(units))
        mixed, concatenated = (
            set(group[classes[np.concatenate([NOTHING, *marked])]].tolist())
            for marked in (self._mixed, self._concatenated)
        )
        producer = np.repeat(np.arange(len(self._produced)), [count for _, count in self._produced])

        def origins(wanted: npt.NDArray[np.bool_]) -> tuple[str, ...]:
            """The producers of the classes in a mask over labels, in order."""
            names = [self._produced[i][0] for i in np.unique(producer[wanted[classes]])]
            return tuple(dict.fromkeys(name for name in names if name))

        occurring = np.zeros(len(classes), bool)
        occurring[np.concatenate([NOTHING, *axes.values()])] = True
        masks: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
        for i, (_, why, place) in enumerate(reasons):
            if why:
                mask = masks.setdefault((why, place), np.zeros(len(classes), bool))
                mask |= (held == i) & occurring
        listed = [(origins(mask), *reason) for reason, mask in masks.items() if mask.any()]
        listed = [entry for entry in listed if entry[0]]
        place_of = {(why, place): i for i, (_, why, place) in enumerate(listed)}
        holders: dict[Axis, int] = {}
        for axis, labels in self.axes.items():
            for i in np.unique(held[classes[labels]]).tolist():
                if i >= 0 and reasons[i][1:] in place_of:
                    holders.setdefault(axis, place_of[reasons[i][1:]])
        return Grouping(
            groups=tuple(
                Condensed(len(units), origins(group == i), i in mixed, i in concatenated)
                for i, units in enumerate(members)
            ),
            frozen=tuple(Frozen(_listed(names), why, place or names[0]) for names, why, place in listed),
            axes={axis: (group[row], unit[row]) for axis, row in axes.items()},
            forms={axis: _form(group[row], unit[row]) for axis, row in axes.items()},
            channels={axis: channels[labels] for axis, labels in self.axes.items()},
            holders=holders,
        )

    def _classes(self, ties: list[tuple[Vector, Vector]]) -> Vector:
        """The class of every label: the earliest label it is joined to."""
        first = np.concatenate([NOTHING, *(first for first, _ in ties)])
        second = np.concatenate([NOTHING, *(second for _, second in ties)])
        joined = coo_array((np.ones(len(first), bool), (first, second)), shape=(self._labels,) * 2)
        _, component = connected_components(joined, directed=False)
        _, earliest = np.unique(component, return_index=True)
        classes: Vector = earliest[component]
        return classes


class Expectation(Ledger):
    """A ledger that only checks: every axis has the labels a point gives it, and ties must join equal ones.

    Args:
        axes: The expected labels of every axis; `FIXED` is a channel that never varies.
        followed: The axes of numbers, with the nodes that said so in the dense network.
    """

    def __init__(
        self, axes: dict[Axis, Vector], followed: Collection[tuple[Axis, str]] = frozenset()
    ) -> None:
        super().__init__()
        self.expected, self.numbered = axes, followed

    def fixed(self, count: int, why: str = "", place: str = "") -> Vector:
        """Channels that nothing is expected of."""
        return np.full(count, FIXED)

    def occur(self, axis: Axis, labels: Vector, node: str) -> None:
        """Compares position by position."""
        if axis not in self.expected:
            raise Mismatch(node)
        self.tie(self.expected[axis], labels, node)

    def follow(self, axis: Axis, labels: Vector, node: str) -> None:
        """Compares where something is expected: another attribute may hold the same number by chance."""
        if (axis, node) in self.numbered:
            self.tie(self.expected[axis], labels, node)

    def count(self, axis: Axis, labels: Vector, node: str) -> None:
        """Compares the number."""

    def produce(self, axis: Axis, count: int, tiles: int, node: str) -> Vector:
        """The expected labels."""
        expected = self.expected.get(axis)
        if expected is None or len(expected) != count * tiles:
            raise Mismatch(node)
        return expected

    def is_depthwise(self, path: str, conv: _ConvNd) -> bool:
        """As in the dense network, whatever the narrowed one looks like."""
        return (path, "inner") not in self.expected

    def tie(self, first: Vector, second: Vector, node: str) -> None:
        """Raises `Mismatch` unless both sides are the same channels."""
        if not np.array_equal(first, second):
            raise Mismatch(node)

    pair = tie


def _together(axes: list[Vector], labels: int) -> list[Vector]:
    """Classes that occur along the same axes, equally often, as arrays in the order of first occurrence."""
    classes = np.concatenate([NOTHING, *axes])
    number = np.repeat(np.arange(len(axes)), [len(row) for row in axes])
    order, first = np.unique(classes, return_index=True)
    table = coo_array((np.ones(len(classes), np.int64), (classes, number)), shape=(labels, len(axes))).tocsr()
    table.sum_duplicates()
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for label in order[np.argsort(first)].tolist():
        span = slice(table.indptr[label], table.indptr[label + 1])
        alike.setdefault((table.indices[span].tobytes(), table.data[span].tobytes()), []).append(label)
    return [np.array(labels, np.int64) for labels in alike.values()]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _form(group: Vector, unit: Vector) -> ChannelMap:
    """Run-length encodes one axis."""
    if not len(group):
        return ()
    start = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (unit[1:] != unit[:-1])])
    repeat = np.diff(np.r_[start, len(group)])
    group, unit = group[start], unit[start]
    follows = (group[1:] == group[:-1]) & (unit[1:] == unit[:-1] + 1) & (repeat[1:] == repeat[:-1])
    first = np.flatnonzero(np.r_[True, ~follows])
    length = np.diff(np.r_[first, len(group)])
    runs = zip(
        group[first].tolist(), unit[first].tolist(), length.tolist(), repeat[first].tolist(), strict=True
    )
    return tuple(Span(g, 0, r, 1) if g == FIXED else Span(g, u, n, r) for g, u, n, r in runs)
