"""Kernel patterns over several searches, as in figure 4 of the study (arXiv:1810.05270)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from prunas.costs.target import Target
from prunas.designs.kernels import CROSS
from prunas.statistics.inference import LEVEL, SHARE_DIFFERENCE
from prunas.statistics.summary import Summary, summarise
from prunas.statistics.text import Table, asked_text, interval_text

__all__ = ["PatternSpread", "pattern_spread", "pattern_table"]

_CROSS = CROSS.ravel() > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternSpread:
    """Keep frequencies of the positions of 3x3 kernels, over the searches of one proposer at one target.

    The sequences have one entry per stage that has 3x3 kernels.

    Attributes:
        proposer: Who proposed the points.
        asked: Their target.
        n: Number of points.
        stages: Ordinals of the stages.
        mean: Mean keep frequency of each of the nine positions, row by row, in [0, 1].
        std: Its standard deviation over the points, with n - 1 in the denominator; 0 for n = 1.
        by_stage: Mean frequency of centre and edges minus that of the corners.
        contrast: The same, averaged over the stages of each point first; its interval is over points.
    """

    proposer: str
    asked: Target
    n: int
    stages: tuple[int, ...]
    mean: tuple[tuple[float, ...], ...]
    std: tuple[tuple[float, ...], ...]
    by_stage: tuple[Summary, ...]
    contrast: Summary

    @property
    def cross(self) -> float:
        """Mean keep frequency of centre and edges, over the stages."""
        return float(np.array(self.mean)[:, _CROSS].mean())

    @property
    def corners(self) -> float:
        """Mean keep frequency of the corners, over the stages."""
        return float(np.array(self.mean)[:, ~_CROSS].mean())

    def to_json(self) -> dict[str, Any]:
        """One record; frequencies are fractions of the kernels."""
        stages = [
            {"stage": stage, "mean": list(mean), "std": list(std), "contrast": asdict(contrast)}
            for stage, mean, std, contrast in zip(
                self.stages, self.mean, self.std, self.by_stage, strict=True
            )
        ]
        return {
            "proposer": self.proposer,
            "asked": self.asked.to_json(),
            "n": self.n,
            "stages": stages,
            "contrast": asdict(self.contrast),
        }


def pattern_spread(
    proposer: str, asked: Target, points: Sequence[Mapping[str, Sequence[float]]]
) -> PatternSpread | None:
    """Mean and spread of the 3x3 patterns of points found by searches with different seeds.

    Args:
        proposer: Who proposed the points.
        asked: Their target.
        points: Keep frequencies of each point, by keys such as `2/3x3`; at least one point. Other kernel sizes
            are left out.

    Returns:
        The numbers, or None where the points have no 3x3 kernels in common.
    """
    shared = set.intersection(*(set(point) for point in points))
    stages = sorted(int(key.split("/")[0]) for key in shared if key.endswith("/3x3"))
    if not stages:
        return None
    table = np.array([[point[f"{stage}/3x3"] for stage in stages] for point in points])
    contrasts = table[:, :, _CROSS].mean(2) - table[:, :, ~_CROSS].mean(2)
    std = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(table.shape[1:])
    return PatternSpread(
        proposer=proposer,
        asked=asked,
        n=len(table),
        stages=tuple(stages),
        mean=tuple(tuple(map(float, row)) for row in table.mean(axis=0)),
        std=tuple(tuple(map(float, row)) for row in std),
        by_stage=tuple(summarise(column, SHARE_DIFFERENCE) for column in contrasts.T.tolist()),
        contrast=summarise([fmean(row) for row in contrasts.tolist()], SHARE_DIFFERENCE),
    )


def pattern_table(spreads: Sequence[PatternSpread]) -> Table:
    """One row per target and proposer, in percent of the kernels."""
    rows = [
        (
            *(asked_text(each.asked), each.proposer, str(each.n)),
            *(f"{100 * value:.2f}" for value in (each.cross, each.corners)),
            f"{100 * each.contrast.mean:+.2f}",
            interval_text(each.contrast, "+", 100),
        )
        for each in spreads
    ]
    return Table(
        columns=(
            *("asked", "proposer", "n", "centre and edges %", "corners %", "difference"),
            f"{100 * LEVEL:.0f} % interval",
        ),
        align="llrrrrl",
        rows=tuple(rows),
        notes=(
            "How often the weights of 3x3 kernels are kept, in percent; mean over stages, then over searches.",
        ),
    )
