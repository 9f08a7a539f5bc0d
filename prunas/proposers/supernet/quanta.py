"""The widths that the slices of a super-network have: even shares of every dense width. Torch-free."""

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.spaces.space import SearchSpace

__all__ = ["fitted", "mean_macs", "quanta_point", "quantised"]


def quantised(space: SearchSpace, quanta: int) -> npt.NDArray[np.int64]:
    """The widths of every dimension, ascending, shape (dimensions, quanta); the last one is the dense width.

    Widths that the space does not allow are replaced by the nearest below that it does, so that some may be equal.
    """
    shares = np.arange(1, quanta + 1) / quanta
    table = [space.grid(space.dense_counts * share + space.step / 2) for share in shares[:-1]]
    return np.array([*table, space.dense_counts], np.int64).reshape(quanta, -1).T


def quanta_point(space: SearchSpace, counts: npt.ArrayLike, removed: tuple[str, ...] = ()) -> Architecture:
    """The point with these counts and without these blocks, in canonical form."""
    arch = space.counted(counts)
    return space.canonical(arch.replace(removed=tuple(sorted(removed)))) if removed else arch


def mean_macs(space: SearchSpace, quanta: int, sampled: int) -> float:
    """Multiply-accumulates of the slices of one training step for one image, the whole network among them.

    An estimate from 64 drawn points with all blocks, always the same ones.
    """
    table = quantised(space, quanta)
    drawn = np.random.default_rng(0).integers(quanta, size=(64, len(table)))
    counts = np.take_along_axis(table[None], drawn[..., None], 2)[..., 0]
    of_drawn = float(space.measures(counts, "macs").mean())
    smallest = float(space.measures(table[:, 0], "macs")[0])
    return space.cost(space.dense).macs + smallest + sampled * of_drawn


def fitted(
    space: SearchSpace, counts: npt.ArrayLike, removed: tuple[str, ...], target: Target
) -> Architecture:
    """The point whose widths are in the given proportions, without some blocks, at a budget.

    One number scales all counts, then single ones are raised by a step as long as the budget allows.

    Args:
        space: The space.
        counts: Of every dimension; only their proportions matter.
        removed: Blocks without their branch.
        target: The budget. If even the floor exceeds it, the floor is the answer.
    """
    wanted = np.asarray(counts, float)

    def scaled(scalar: float) -> npt.NDArray[np.int64]:
        return space.grid(np.minimum(scalar * wanted + space.step / 2, space.dense_counts))

    def fits(some: npt.NDArray[np.int64]) -> bool:
        return space.measure(quanta_point(space, some, removed), target.metric) <= target.value

    low, high = 0.0, float((space.dense_counts / wanted).max()) if len(wanted) else 0.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(scaled(middle)) else (low, middle)
    chosen = scaled(high) if fits(scaled(high)) else scaled(low)
    for i in np.argsort(chosen - high * wanted, kind="stable"):
        raised = chosen.copy()
        raised[i] = min(chosen[i] + space.step, space.dense_counts[i])
        raised = space.grid(raised)
        if (raised != chosen).any() and fits(raised):
            chosen = raised
    return quanta_point(space, chosen, removed)
