"""Who is ahead over the targets at which it matters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import rankdata

from prunas.costs.target import Target
from prunas.results.rows import TrainingRow
from prunas.statistics.inference import DIFFERENCE
from prunas.statistics.summary import Difference, Line, Summary, grouped, summarise, table

__all__ = ["MARGIN", "Ranking", "mean_difference", "rankings", "saturated"]

MARGIN = 0.2
"""Percentage points below which two accuracies count as the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """How proposers rank under one protocol, over the unsaturated targets that all of them were tested at.

    Attributes:
        protocol: How the points were trained.
        masked: Whether the networks are masked.
        ranks: (proposer, mean rank) pairs, the best first; rank 1 is the most accurate, ties share their mean.
        targets: The targets that were ranked.
        left_out: The saturated targets among those that all were tested at.
    """

    protocol: str
    masked: bool
    ranks: tuple[tuple[str, float], ...]
    targets: tuple[Target, ...]
    left_out: tuple[Target, ...]


def saturated(means: Sequence[float], dense: float | None) -> bool:
    """Whether a target is too easy to tell proposers apart.

    It is when even the worst proposer comes within `MARGIN` of the dense network, or, where no dense network was
    tested, of the best proposer.

    Args:
        means: Mean accuracy of each proposer at the target, in percent; at least one.
        dense: That of the dense network.
    """
    return min(means) >= (max(means) if dense is None else dense) - MARGIN


def rankings(rows: Iterable[TrainingRow], dense: float | None = None) -> list[Ranking]:
    """The rankings, one per protocol and sort of network.

    Args:
        rows: Trainings of one space under one recipe.
        dense: Mean test accuracy of the dense network in percent, if it was tested.
    """
    lines = [line for line in table(rows) if line.accuracy is not None and line.kind != "dense"]
    found = []
    for (protocol, masked), panel in grouped(lines, lambda line: (line.protocol, line.masked)).items():
        everyone = {line.proposer for line in panel}
        ranks: dict[str, list[float]] = {name: [] for name in sorted(everyone)}
        counted, left_out = [], []
        for asked, group in grouped(panel, lambda line: line.asked).items():
            means = {line.proposer: _mean(line) for line in group}
            if means.keys() != everyone:
                continue
            if saturated(list(means.values()), dense):
                left_out.append(asked)
            else:
                counted.append(asked)
                for name, rank in zip(means, rankdata([-m for m in means.values()]), strict=True):
                    ranks[name].append(float(rank))
        averaged = [(name, fmean(values)) for name, values in ranks.items() if values]
        found.append(
            Ranking(
                protocol=protocol,
                masked=masked,
                ranks=tuple(sorted(averaged, key=lambda pair: (pair[1], pair[0]))),
                targets=tuple(counted),
                left_out=tuple(left_out),
            )
        )
    return found


def mean_difference(differences: Sequence[Difference]) -> tuple[Summary, int] | None:
    """One number for a comparison at several targets: each seed's differences averaged, then summarised.

    Averaging within a seed first keeps one value per independent search, so the interval needs no correction over
    targets.

    Args:
        differences: Of one proposer against one other under one protocol.

    Returns:
        The summary over seeds and the number of targets in it. Only seeds that have every target count; None if
        there is no such seed.
    """
    if not differences:
        return None
    by_seed = [dict(zip(each.seeds, each.values, strict=True)) for each in differences]
    shared = sorted(set.intersection(*(set(values) for values in by_seed)))
    if not shared:
        return None
    means = [fmean(values[seed] for values in by_seed) for seed in shared]
    return summarise(means, DIFFERENCE), len(differences)


def _mean(line: Line) -> float:
    assert line.accuracy is not None
    return line.accuracy.mean
