"""Which channels belong together: labels, what ties them, where they occur, what holds them fixed."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunas.structure import FIXED, Form, Frozen, Run

__all__ = ["Axis", "Expectation", "Grouping", "Ledger", "Mismatch", "Vector"]

Vector = npt.NDArray[np.int64]
"""Labels along one channel axis."""

Axis = tuple[str, str]
"""Where labels occur: (module path, `reads`, `inner` or `writes`), or (tensor name, its axis as text)."""


class Mismatch(Exception):
    """A built network does not have the channels it was expected to have.

    Args:
        node: Name of the node where that showed.
    """

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


@dataclass(frozen=True)
class Grouping:
    """The condensed books.

    Attributes:
        units: Per group, the class of each unit, in order of first occurrence.
        origins: Per group, the producers, first one first.
        statistical: Per group, whether a norm runs over its channels.
        concatenated: Per group, whether a concatenation reads it.
        forms: The form of every axis.
        frozen: What is held fixed and worth telling.
        axes: The classes along every axis.
    """

    units: list[Vector]
    origins: list[tuple[str, ...]]
    statistical: list[bool]
    concatenated: list[bool]
    forms: dict[Axis, Form]
    frozen: tuple[Frozen, ...]
    axes: dict[Axis, Vector]


@dataclass
class Ledger:
    """The books of a survey: union-find over labels, and every axis they occur on.

    A label is an integer for one channel of one producer. Ties join labels into classes; a group is a set of
    classes that occur together everywhere.
    """

    parent: list[int] = field(default_factory=list)
    origin: list[str] = field(default_factory=list)
    frozen: dict[int, tuple[str, str] | None] = field(default_factory=dict)
    axes: dict[Axis, Vector] = field(default_factory=dict)
    concatenated: set[int] = field(default_factory=set)
    statistical: set[int] = field(default_factory=set)
    forbidden: dict[str, tuple[str, str]] = field(default_factory=dict)

    def new(self, count: int, origin: str) -> Vector:
        """Fresh labels for the channels that `origin` produces."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        self.origin.extend([origin] * count)
        return np.arange(start, start + count)

    def fixed(self, count: int) -> Vector:
        """Fresh labels of channels that never vary, which needs no telling."""
        labels = self.new(count, "")
        self.frozen.update(dict.fromkeys(labels.tolist()))
        return labels

    def root(self, label: int) -> int:
        """The representative of a label's class: its earliest label."""
        parent = self.parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def roots(self, labels: Iterable[int]) -> Vector:
        """The representatives of many labels."""
        return np.array([self.root(int(label)) for label in labels], np.int64)

    def occur(self, axis: Axis, labels: Vector, node: str) -> None:
        """Notes that `labels` occur along `axis`, and ties them to those that occurred there before."""
        if axis in self.axes:
            self.tie(self.axes[axis], labels, node)
        else:
            self.axes[axis] = labels

    def produce(self, axis: Axis, count: int, tiles: int, node: str) -> Vector:
        """The labels that `axis` produces, the same at every call: `count` fresh ones, repeated `tiles` times."""
        if axis not in self.axes:
            self.axes[axis] = np.tile(self.new(count, axis[0]), tiles)
        return self.axes[axis]

    def tie(self, first: Vector, second: Vector, node: str) -> None:
        """Joins labels pair by pair: their channels meet in one operation."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self.root(a), self.root(b)
            self.parent[max(a, b)] = min(a, b)

    def freeze(self, labels: Vector, why: str, place: str) -> None:
        """Holds channels fixed; the first reason given is the one reported."""
        for label in set(labels.tolist()):
            self.frozen.setdefault(label, (why, place))

    def forbid(self, path: str, why: str, place: str) -> None:
        """Holds every channel of one layer fixed, whenever it is met."""
        self.forbidden.setdefault(path, (why, place))

    def group(self) -> Grouping:
        """Condenses the books."""
        for (path, _), labels in self.axes.items():
            if path in self.forbidden:
                self.freeze(labels, *self.forbidden[path])
        axes = {axis: self.roots(labels) for axis, labels in self.axes.items()}
        held = {self.root(label): reason for label, reason in reversed(self.frozen.items())}
        occurrences: dict[int, list[tuple[int, int]]] = {}
        for number, labels in enumerate(axes.values()):
            for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
                occurrences.setdefault(int(label), []).append((number, int(count)))
        members: dict[tuple[tuple[int, int], ...], dict[int, None]] = {}
        for labels in axes.values():
            for label in labels.tolist():
                if label not in held:
                    members.setdefault(tuple(occurrences[label]), {})[label] = None
        # One unit cannot become fewer: such a group never varies.
        units = [np.array(list(labels), np.int64) for labels in members.values() if len(labels) > 1]
        units.sort(key=lambda labels: int(labels.min()))
        place = {label: (g, u) for g, labels in enumerate(units) for u, label in enumerate(labels.tolist())}
        producers: dict[int, dict[str, None]] = {}
        for label in range(len(self.parent)):
            producers.setdefault(self.root(label), {})[self.origin[label]] = None
        return Grouping(
            units=units,
            origins=[tuple(producers[int(labels[0])]) for labels in units],
            statistical=[not self._of(labels).isdisjoint(self._of(self.statistical)) for labels in units],
            concatenated=[not self._of(labels).isdisjoint(self._of(self.concatenated)) for labels in units],
            forms={axis: _form([place.get(label) for label in row.tolist()]) for axis, row in axes.items()},
            frozen=_tell(held, set(occurrences), producers),
            axes=axes,
        )

    def _of(self, labels: Iterable[int]) -> set[int]:
        return {self.root(int(label)) for label in labels}


class Expectation(Ledger):
    """Books that only check: every axis has the labels a point gives it, and ties must join equal ones.

    Args:
        axes: The expected labels of every axis; -1 is a channel that never varies.
    """

    def __init__(self, axes: dict[Axis, Vector]) -> None:
        super().__init__()
        self.expected = axes

    def new(self, count: int, origin: str) -> Vector:
        """Channels that nothing is expected of."""
        return np.full(count, FIXED)

    def fixed(self, count: int) -> Vector:
        """The same."""
        return np.full(count, FIXED)

    def occur(self, axis: Axis, labels: Vector, node: str) -> None:
        """Compares position by position."""
        if axis not in self.expected:
            raise Mismatch(node)
        self.tie(self.expected[axis], labels, node)

    def produce(self, axis: Axis, count: int, tiles: int, node: str) -> Vector:
        """The expected labels."""
        expected = self.expected.get(axis)
        if expected is None or len(expected) != count * tiles:
            raise Mismatch(node)
        return expected

    def tie(self, first: Vector, second: Vector, node: str) -> None:
        """Raises `Mismatch` unless both sides are the same channels."""
        if len(first) != len(second) or (first != second).any():
            raise Mismatch(node)

    def freeze(self, labels: Vector, why: str, place: str) -> None:
        """Nothing: what is frozen has label -1 already."""


def _tell(
    held: dict[int, tuple[str, str] | None], present: set[int], producers: dict[int, dict[str, None]]
) -> tuple[Frozen, ...]:
    told: dict[tuple[str, str], dict[str, None]] = {}
    for label, reason in sorted(held.items()):
        if reason is not None and label in present:
            told.setdefault(reason, {}).update(producers[label])
    return tuple(Frozen(_listed([name for name in names if name]), *why) for why, names in told.items())


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _form(units: list[tuple[int, int] | None]) -> Form:
    """Run-length encodes one axis, given the (group, unit) of each channel or None where it is fixed."""
    repeated: list[tuple[tuple[int, int] | None, int]] = []
    for unit in units:
        if repeated and repeated[-1][0] == unit:
            repeated[-1] = (unit, repeated[-1][1] + 1)
        else:
            repeated.append((unit, 1))
    runs: list[Run] = []
    for item, count in repeated:
        if item is None:
            runs.append(Run(FIXED, 0, count, 1))
            continue
        last = runs[-1] if runs else None
        if last and (last.group, last.start + last.length, last.repeat) == (*item, count):
            runs[-1] = last._replace(length=last.length + 1)
        else:
            runs.append(Run(item[0], item[1], 1, count))
    return tuple(runs)
