"""What a figure needs to know of a curve; `prunas.statistics.curves.Curve` is one."""

from collections.abc import Sequence
from typing import Literal, Protocol

__all__ = ["Curve", "Point", "Spread"]


class Point(Protocol):
    """One training."""

    @property
    def x(self) -> float:
        """Cost reached, above 0."""

    @property
    def accuracy(self) -> float:
        """In percent."""

    @property
    def run(self) -> str:
        """Id of the run."""

    @property
    def hollow(self) -> bool:
        """Whether the search behind the point had not worked as its method means it to."""


class Spread(Protocol):
    """The trainings of one target, summarised."""

    @property
    def mean(self) -> float:
        """In percent."""

    @property
    def std(self) -> float | None:
        """In percentage points; None if there is one training only."""


class Curve(Protocol):
    """What one proposer's points score; `xs`, `accuracy` and `points` have one entry per target."""

    @property
    def proposer(self) -> str:
        """Names the curve and chooses its style."""

    @property
    def protocol(self) -> str:
        """How the points were trained."""

    @property
    def masked(self) -> bool:
        """Whether the networks are masked rather than narrow."""

    @property
    def metric(self) -> Literal["params", "macs"]:
        """What `xs` counts."""

    @property
    def xs(self) -> Sequence[float]:
        """Mean costs, never descending."""

    @property
    def accuracy(self) -> Sequence[Spread]:
        """Accuracy at each cost."""

    @property
    def points(self) -> Sequence[Sequence[Point]]:
        """Every single training."""
