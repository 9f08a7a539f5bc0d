"""Score against cost in one number or one set: Pareto front, hypervolume, area under an efficiency curve."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from prunas.statistics.curves import Curve, Point
from prunas.statistics.inference import score_bounds
from prunas.statistics.summary import Summary, grouped, summarise
from prunas.tasks.score import Score

__all__ = ["Area", "areas", "front", "hypervolume"]


def front(points: Sequence[tuple[float, float]], score: Score) -> list[int]:
    """Positions of the points that no other point beats, by ascending cost.

    A point is beaten by one that is at most as dear and at least as good, and better in one of the two; of
    equal points the first one stays.

    Args:
        points: (cost, score) pairs.
        score: What the second of each means.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -score.gain(points[i][1], 0.0), i))
    kept: list[int] = []
    for i in order:
        if not kept or score.gain(points[i][1], points[kept[-1]][1]) > 0:
            kept.append(i)
    return kept


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float], score: Score) -> float:
    """Area between the points' front and a reference point, in decades of cost times units of the score.

    Cost counts by its logarithm, as on the axis of the figure: a decade saved is worth the same at any size
    (Zitzler and Thiele 1998, with log10 of the cost as first objective).

    Args:
        points: (cost, score) pairs with costs above 0.
        reference: The worst cost and the worst score; points beyond either add nothing.
        score: What the second of each means.
    """
    dearest, worst = reference
    inside = [(cost, value) for cost, value in points if cost < dearest and score.gain(value, worst) > 0]
    volume = 0.0
    reached = worst
    for i in front(inside, score):
        cost, value = inside[i]
        volume += math.log10(dearest / cost) * score.gain(value, reached)
        reached = value
    return volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Area under one proposer's efficiency curve, over the costs that all curves of its panel span.

    Attributes:
        proposer: Whose curve.
        protocol: How its points were trained.
        masked: Whether the networks are masked.
        low: Smallest cost of the common span.
        high: Largest cost of the common span.
        score: Test score, averaged evenly over the logarithm of the cost, one value per seed.
    """

    proposer: str
    protocol: str
    masked: bool
    low: float
    high: float
    score: Summary


def areas(curves: Iterable[Curve], score: Score) -> list[Area]:
    """The areas under the curves, panel by panel, best first.

    A seed's curve runs straight between its points on the logarithmic axis. The area is divided by the length
    of the span in decades, which makes it a score. Seeds that lack a target are left out, and so are panels
    whose curves share no span.

    Args:
        curves: Over one metric.
        score: What they show.
    """
    found = []
    for (protocol, masked), panel in grouped(curves, lambda c: (c.protocol, c.masked)).items():
        per_seed = {curve.proposer: _by_seed(curve) for curve in panel}
        lines = [line for seeds in per_seed.values() for line in seeds]
        if not lines:
            continue
        low, high = max(line[0][0] for line in lines), min(line[-1][0] for line in lines)
        if low >= high:
            continue
        of_panel = [
            Area(
                proposer=proposer,
                protocol=protocol,
                masked=masked,
                low=low,
                high=high,
                score=summarise([_mean_height(line, low, high) for line in seeds], score_bounds(score)),
            )
            for proposer, seeds in per_seed.items()
            if seeds
        ]
        found += sorted(of_panel, key=lambda area: (-score.gain(area.score.mean, 0.0), area.proposer))
    return found


def _by_seed(curve: Curve) -> list[list[tuple[float, float]]]:
    """A (cost, score) line per seed that has every target, by ascending cost."""
    lines = []
    for seed in sorted({point.seed for stop in curve.points for point in stop}):
        own: list[list[Point]] = [[p for p in stop if p.seed == seed] for stop in curve.points]
        if all(own):
            line = [(fmean(p.x for p in stop), fmean(p.score for p in stop)) for stop in own]
            lines.append(sorted(line))
    return lines


def _mean_height(line: Sequence[tuple[float, float]], low: float, high: float) -> float:
    xs = np.log([x for x, _ in line])
    ys = np.array([y for _, y in line])
    ends = np.log([low, high])
    knots = np.concatenate([ends[:1], xs[(xs > ends[0]) & (xs < ends[1])], ends[1:]])
    return float(np.trapezoid(np.interp(knots, xs, ys), knots) / (ends[1] - ends[0]))
