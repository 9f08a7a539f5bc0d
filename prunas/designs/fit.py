"""From a vector of ratios to the shape that meets a budget."""

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture
from prunas.costs.counted import check_target
from prunas.costs.target import Target
from prunas.spaces.space import SearchSpace

__all__ = ["TOLERANCE", "fit", "missed", "ratios", "scaled"]

TOLERANCE = 0.01
"""How far from its target a fitted shape may land before it is flagged."""

GOLDEN = (5**0.5 - 1) / 2

Ratios = npt.NDArray[np.float64]


def ratios(space: SearchSpace, arch: Architecture) -> Ratios:
    """A point's counts in shares of the dense ones, shape (dimensions,); above 1 only under a space's ceiling."""
    return space.counts(arch) / space.dense_counts


def scaled(space: SearchSpace, keep: npt.ArrayLike) -> Architecture:
    """The point whose counts are the dense ones times `keep`, to the nearest step, at least the space's floor.

    Args:
        space: The space.
        keep: One ratio, or one per dimension.
    """
    return space.counted(space.grid(np.asarray(keep) * space.dense_counts + space.step / 2))


def fit(space: SearchSpace, profile: npt.ArrayLike, target: Target) -> Architecture:
    """The largest point of a profile within a budget.

    One scalar multiplies the profile, clipped at the largest counts and at the floor. Counts are rounded up or
    down so that layers of equal ratio keep their mean: of ten layers with 3.3 channels, three get 4. After
    the largest scalar within the budget, counts are raised by one step each, those that the scalar would raise
    next first, as long as the budget allows.

    Args:
        space: The space.
        profile: Positive weights, shape (dimensions,); only their proportions matter.
        target: The budget. If even the floor exceeds it, the floor is the answer.
    """
    check_target(target)
    dense, most, step = space.dense_counts, space.most_counts, space.step
    if not len(dense):
        return space.dense
    weights = np.asarray(profile, float)
    wanted = weights / weights.max() * dense
    thresholds = np.arange(1, len(dense) + 1) * GOLDEN % 1 * step  # spread evenly over any run of layers

    def within(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return space.measures(counts, target.metric) <= target.value

    low, high = 0.5 / wanted.max(), float((most / wanted).max())  # all at the floor, all at their largest
    for _ in range(6):  # narrows the bracket by 32 each time: to 1e-8 of the scalar
        scalars = np.geomspace(low, high, 33)
        fitting = int(within(space.grid(scalars[:, None] * wanted + thresholds)).sum())
        low, high = float(scalars[max(fitting - 1, 0)]), float(scalars[min(fitting, 32)])
    exact = np.minimum(low * wanted, most) + thresholds
    counts = space.grid(exact)
    raised = space.grid(counts // step * step + step)
    waiting = np.argsort(counts - exact, kind="stable")
    waiting = waiting[raised[waiting] > counts[waiting]]

    def raising(which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """One row per row of `which`, which says what of `waiting` is raised in it."""
        table = np.tile(counts, (len(which), 1))
        table[:, waiting] = np.where(which, raised[waiting], counts[waiting])
        return table

    def together() -> int:
        """How many of `waiting`, in order, are raised before the first that does not fit."""
        some, beyond = 0, len(waiting)
        while some < beyond:  # looks at sixteen places at a time
            ends = np.unique(np.linspace(some + 1, beyond, 16).round().astype(int))
            fitting = int(within(raising(np.arange(len(waiting)) < ends[:, None])).sum())
            some, beyond = (
                int(ends[fitting - 1]) if fitting else some,
                int(ends[fitting]) - 1 if fitting < len(ends) else beyond,
            )
        return some

    while len(waiting):
        number = together()
        counts = raising(np.arange(len(waiting))[None] < number)[0]
        waiting = waiting[number + 1 :]
        waiting = waiting[within(raising(np.eye(len(waiting), dtype=bool)))]  # the others never will
    return space.counted(counts)


def missed(space: SearchSpace, arch: Architecture, target: Target) -> bool:
    """Whether a point lies further than `TOLERANCE` from its target."""
    check_target(target)
    return abs(space.measure(arch, target.metric) - target.value) > TOLERANCE * target.value
