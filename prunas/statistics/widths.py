"""Widths per layer over several searches, as in table 8 of the study (arXiv:1810.05270)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunas.costs import Target

__all__ = ["WidthSpread", "width_spread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthSpread:
    """What one proposer's searches agree on, and what they do not.

    The sequences have one entry per layer.

    Attributes:
        proposer: Who proposed the points.
        asked: Their target.
        n: Number of points.
        dense: Widths of the dense network.
        mean: Mean width.
        std: Standard deviation of the width over the points, with n - 1 in the denominator; 0 for n = 1.
        ratio: Spread between seeds over spread between layers, see `width_spread`; None for n = 1, or where all
            layers keep the same share.
    """

    proposer: str
    asked: Target
    n: int
    dense: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ratio: float | None

    @property
    def shares(self) -> tuple[float, ...]:
        """Mean width over dense width of every layer."""
        return tuple(mean / dense for mean, dense in zip(self.mean, self.dense, strict=True))


def width_spread(
    proposer: str, asked: Target, points: Sequence[Sequence[float]], dense: Sequence[int]
) -> WidthSpread:
    """Mean and spread of the widths of points found by searches with different seeds.

    `ratio` compares shares (width over dense width): the root mean square over layers of their standard deviation
    between seeds, over the standard deviation between layers of their mean. Near 0 the searches agree on a
    profile, at 1 and above their differences are as large as the profile itself.

    Args:
        proposer: Who proposed the points.
        asked: Their target.
        points: Widths of each point, shape (points, layers).
        dense: Widths of the dense network, shape (layers,).
    """
    table = np.asarray(points, float)
    several = len(table) > 1
    std = table.std(axis=0, ddof=1) if several else np.zeros(table.shape[1])
    shares = table / np.asarray(dense)
    ratio = None
    if several and len(dense) > 1:
        between_layers = shares.mean(axis=0).std(ddof=1)
        between_seeds = np.sqrt(np.mean(shares.var(axis=0, ddof=1)))
        ratio = float(between_seeds / between_layers) if between_layers > 1e-12 else None
    return WidthSpread(
        proposer=proposer,
        asked=asked,
        n=len(table),
        dense=tuple(dense),
        mean=tuple(table.mean(axis=0).tolist()),
        std=tuple(std.tolist()),
        ratio=ratio,
    )
