"""The widths that the slices of a super-network have: even shares of every dense width. Torch-free."""

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture
from prunas.spaces.space import SearchSpace

__all__ = ["mean_macs", "quanta_point", "quantised"]


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
