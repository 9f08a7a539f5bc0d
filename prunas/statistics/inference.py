"""Uncertainty beyond the t interval: bootstrap intervals, p values of paired differences, Holm's correction."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import stdtr

__all__ = ["BOOTSTRAP_FROM", "LEVEL", "bootstrap", "holm", "paired_p"]

LEVEL = 0.95
"""Coverage of every interval."""

BOOTSTRAP_FROM = 10
"""Smallest sample that is resampled: of fewer values there are too few distinct resamples to cover `LEVEL`."""

_RESAMPLES = 9999
_ROUNDING = 1e-9  # percentage points: differences of equal pairs differ by less


def bootstrap(values: Sequence[float]) -> tuple[float, float] | None:
    """BCa bootstrap interval of the mean at `LEVEL` (Efron 1987), the same for the same values.

    Returns:
        Its ends, or None for fewer than `BOOTSTRAP_FROM` values.
    """
    if len(values) < BOOTSTRAP_FROM:
        return None
    if max(values) - min(values) <= _ROUNDING:
        return values[0], values[0]  # BCa divides by the spread
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
    if n < 2 or max(differences) - min(differences) <= _ROUNDING:
        return None
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
