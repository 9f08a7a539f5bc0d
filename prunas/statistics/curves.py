"""Efficiency curves: test score over cost, one per proposer, checked before anybody draws them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from prunas.costs.target import Target
from prunas.protocols import is_reference
from prunas.results.rows import Metric, TrainingRow
from prunas.statistics.flags import doubts
from prunas.statistics.retraining import course_protocols
from prunas.statistics.summary import Spread, grouped, seed_order, spread_of
from prunas.tasks.score import Score

__all__ = ["Curve", "Point", "curves", "dense_score", "undrawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One training on a curve.

    Attributes:
        x: Cost reached, in units of the curve's metric; above 0, because the axis is logarithmic.
        score: The test score; finite.
        seed: The search seed.
        run: Id of the run, by which its architecture can be looked up.
        flags: What a reader must know about it, `chance_level` included.
    """

    x: float
    score: float
    seed: int
    run: str
    flags: tuple[str, ...] = ()

    @property
    def hollow(self) -> bool:
        """Whether its mark is white inside: a flag puts it in doubt."""
        return bool(doubts(self.flags))

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn."""
        if not (math.isfinite(self.x) and self.x > 0):
            raise ValueError(f"run {self.run}: a cost must be finite and above 0, not {self.x}")
        if not math.isfinite(self.score):
            raise ValueError(f"run {self.run}: a score must be finite, not {self.score}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What one proposer's points score under one protocol, from the smallest network to the largest.

    The sequences `asked`, `xs`, `scores` and `points` have one entry per target.

    Attributes:
        proposer: Who proposed the points.
        protocol: How they were trained.
        masked: Whether the networks are masked; such a curve never shares a panel with a narrow one.
        metric: What `xs` counts.
        asked: The targets.
        xs: Mean cost reached at each target, never descending.
        scores: Test score at each target.
        points: Every single training at each target, in order of the seeds.
    """

    proposer: str
    protocol: str
    masked: bool
    metric: Metric
    asked: tuple[Target, ...]
    xs: tuple[float, ...]
    scores: tuple[Spread, ...]
    points: tuple[tuple[Point, ...], ...]

    def __post_init__(self) -> None:
        """Refuses a curve whose parts do not describe the same points."""
        if not self.points or not len(self.asked) == len(self.xs) == len(self.scores) == len(self.points):
            raise ValueError(f"curve {self.proposer}: needs one entry per target, and a target")
        if list(self.xs) != sorted(self.xs):
            raise ValueError(f"curve {self.proposer}: the costs must not descend")
        for x, summary, points in zip(self.xs, self.scores, self.points, strict=True):
            cost = fmean(point.x for point in points)
            mean = fmean(point.score for point in points)
            if summary.n != len(points) or not math.isclose(summary.mean, mean) or not math.isclose(x, cost):
                raise ValueError(f"curve {self.proposer}: the mean at {x} is not that of its points")


def curves(rows: Iterable[TrainingRow], score: Score, metric: Metric = "params") -> list[Curve]:
    """One curve per proposer, protocol and sort of network, from the rows that have a test score.

    Args:
        rows: Trainings of one space under one recipe, in any order; those of the dense network are ignored, and so
            are those that `undrawn` tells of.
        score: What their scores mean.
        metric: The cost axis.
    """
    found = []
    rows = list(rows)
    of_courses = course_protocols(rows)
    tested = [
        row
        for row in rows
        if row.score is not None and row.kind != "dense" and row.protocol not in of_courses
    ]
    by_curve = grouped(tested, lambda row: (row.protocol, row.masked, row.proposer))
    for (protocol, masked, proposer), group in sorted(by_curve.items()):
        stops = []
        for asked, sharing in grouped(group, lambda row: row.asked).items():
            points = tuple(_point(row, score, metric) for row in sorted(sharing, key=seed_order))
            stops.append((fmean(point.x for point in points), asked, points))
        stops.sort(key=lambda stop: (stop[0], stop[1].value))
        found.append(
            Curve(
                proposer=proposer,
                protocol=protocol,
                masked=masked,
                metric=metric,
                asked=tuple(asked for _, asked, _ in stops),
                xs=tuple(x for x, _, _ in stops),
                scores=tuple(spread_of([p.score for p in points]) for _, _, points in stops),
                points=tuple(points for _, _, points in stops),
            )
        )
    return found


def dense_score(rows: Iterable[TrainingRow], score: Score) -> Spread | None:
    """Test score of the dense network, or None if no row of kind `dense` has one.

    What dense-sparse-dense training makes of it is a control of its own and not in it.

    Args:
        rows: Trainings of one space under one recipe.
        score: What their scores mean.
    """
    values = [
        row.score
        for row in rows
        if row.kind == "dense" and row.score is not None and is_reference(row.protocol)
    ]
    return spread_of(values) if values else None


def undrawn(rows: Iterable[TrainingRow], score: Score) -> tuple[str, ...]:
    """What `curves` does not show, a phrase a reason: retraining budgets, runs not tested, runs not made.

    Args:
        rows: As of `curves`.
        score: What their scores mean.
    """
    rows = [row for row in rows if row.kind != "dense"]
    of_courses = course_protocols(rows)
    untested = sum(row.score is None and row.protocol not in of_courses for row in rows)
    drawn = [row for row in rows if row.protocol not in of_courses]
    names = {row.proposer for row in drawn}
    phrases = []
    for protocol, trained in sorted(grouped(drawn, lambda row: row.protocol).items()):
        if missing := sorted(names - {row.proposer for row in trained}):
            phrases.append(f"{', '.join(missing)} by {protocol} (no runs)")
    if of_courses:
        phrases.append(f"{', '.join(sorted(of_courses))} (retraining budgets: see `prunas plot budget`)")
    if untested:
        phrases.append(f"{untested} run{'s' if untested > 1 else ''} without a test {score.name}")
    return tuple(phrases)


def _point(row: TrainingRow, score: Score, metric: Metric) -> Point:
    assert row.score is not None
    if not score.low <= row.score <= score.high:
        raise ValueError(f"run {row.id}: {row.score} is no {score.name}, from {score.low} to {score.high}")
    return Point(
        x=row.reached.params if metric == "params" else row.reached.macs,
        score=row.score,
        seed=row.search_seed,
        run=row.id,
        flags=row.all_flags(score),
    )
