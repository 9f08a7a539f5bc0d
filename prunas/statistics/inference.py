"""Uncertainty: t and bootstrap intervals, p values of paired differences, Holm's correction.

A sample whose values are all equal has no interval and no p value: it does not tell how far others would lie.
scipy is imported where a distribution is asked for: that takes a fifth of a second, and many figures ask for none.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from prunas.tasks.score import Score

__all__ = [
    "BOOTSTRAP_FROM",
    "LEVEL",
    "SHARE_DIFFERENCE",
    "UNBOUNDED",
    "Bounds",
    "bootstrap",
    "gain_bounds",
    "holm",
    "paired_p",
    "score_bounds",
    "t_interval",
]

Bounds = tuple[float, float]
"""Smallest and largest value that a mean can have."""

UNBOUNDED: Bounds = (-math.inf, math.inf)
SHARE_DIFFERENCE: Bounds = (-1.0, 1.0)
"""Of two shares, such as distances between shapes in shares of the dense widths."""

LEVEL = 0.95
"""Coverage of every interval."""

BOOTSTRAP_FROM = 10
"""Smallest sample that is resampled: of fewer values there are too few distinct resamples to cover `LEVEL`."""

_RESAMPLES = 9999
_ROUNDING = 1e-9  # in units of the sample: differences of equal pairs differ by less


def score_bounds(score: Score) -> Bounds:
    """Between which a mean of scores must lie."""
    return score.low, score.high


def gain_bounds(score: Score) -> Bounds:
    """Between which a mean difference of two scores must lie."""
    return score.low - score.high, score.high - score.low


def t_interval(values: Sequence[float], bounds: Bounds = UNBOUNDED) -> tuple[float, float] | None:
    """Two-sided t interval of the mean at `LEVEL`, cut at the bounds of what was measured.

    The mean lies within the bounds whatever the sample is, so the cut takes no coverage away; where n is small and
    the interval reaches over the range, it says that the sample decides nothing.

    Args:
        values: The sample.
        bounds: Between which the mean must lie.

    Returns:
        Its ends, or None where the sample has no spread to judge by: one value, or all equal.
    """
    n = len(values)
    if n < 2 or _equal(values):
        return None
    from scipy.special import stdtrit

    mean = fmean(values)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * stdev(values) / math.sqrt(n)
    return max(bounds[0], mean - half), min(bounds[1], mean + half)


def bootstrap(values: Sequence[float]) -> tuple[float, float] | None:
    """BCa bootstrap interval of the mean at `LEVEL` (Efron 1987), the same for the same values.

    Returns:
        Its ends, or None for fewer than `BOOTSTRAP_FROM` values and where all are equal.
    """
    if len(values) < BOOTSTRAP_FROM or _equal(values):
        return None
    import numpy as np
    from scipy.stats import bootstrap as resample

    interval = resample(
        (np.asarray(values),),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=_RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p value of the t test that the mean difference is 0.

    Returns:
        The p value, or None where the sample has no spread to test against: one value, or all equal.
    """
    n = len(differences)
    if n < 2 or _equal(differences):
        return None
    from scipy.special import stdtr

    t = fmean(differences) / (stdev(differences) / math.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979), in the order given.

    Args:
        p_values: One per hypothesis. None stays None and counts as a hypothesis all the same, so that a test
            that could not be made never makes the others easier.
    """
    m = len(p_values)
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * m
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (m - rank) * p))
        adjusted[index] = highest
    return adjusted


def _equal(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= _ROUNDING
