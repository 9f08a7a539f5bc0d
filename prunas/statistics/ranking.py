"""Who is ahead over the targets at which it matters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import rankdata

from prunas.costs.target import Target
from prunas.results.rows import TrainingRow
from prunas.statistics.inference import gain_bounds
from prunas.statistics.summary import Difference, Line, Summary, grouped, summarise, table
from prunas.tasks.score import Score

__all__ = ["Ranking", "mean_difference", "rankings", "saturated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """How proposers rank under one protocol, over the unsaturated targets that all of them were tested at.

    Attributes:
        protocol: How the points were trained.
        masked: Whether the networks are masked.
        ranks: (proposer, mean rank) pairs, the best first; rank 1 is the best, ties share their mean.
        targets: The targets that were ranked.
        left_out: The saturated targets among those that all were tested at.
    """

    protocol: str
    masked: bool
    ranks: tuple[tuple[str, float], ...]
    targets: tuple[Target, ...]
    left_out: tuple[Target, ...]


def saturated(means: Sequence[float], dense: float | None, score: Score) -> bool:
    """Whether a target is too easy to tell proposers apart.

    It is when even the worst proposer comes within the score's margin of the dense network, or, where no dense
    network was tested, of the best proposer.

    Args:
        means: Mean score of each proposer at the target; at least one.
        dense: That of the dense network.
        score: What they mean.
    """
    gains = [score.gain(mean, 0.0) for mean in means]
    return min(gains) >= (max(gains) if dense is None else score.gain(dense, 0.0)) - score.margin


def rankings(rows: Iterable[TrainingRow], dense: float | None = None, *, score: Score) -> list[Ranking]:
    """The rankings, one per protocol and sort of network.

    Args:
        rows: Trainings of one space under one recipe.
        dense: Mean test score of the dense network, if it was tested.
        score: What the scores mean.
    """
    lines = [line for line in table(rows, score) if line.score is not None and line.kind != "dense"]
    found = []
    for (protocol, masked), panel in grouped(lines, lambda line: (line.protocol, line.masked)).items():
        everyone = {line.proposer for line in panel}
        ranks: dict[str, list[float]] = {name: [] for name in sorted(everyone)}
        counted, left_out = [], []
        for asked, group in grouped(panel, lambda line: line.asked).items():
            means = {line.proposer: _mean(line) for line in group}
            if means.keys() != everyone:
                continue
            if saturated(list(means.values()), dense, score):
                left_out.append(asked)
            else:
                counted.append(asked)
                losses = [-score.gain(mean, 0.0) for mean in means.values()]
                for name, rank in zip(means, rankdata(losses), strict=True):
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


def mean_difference(differences: Sequence[Difference], score: Score) -> tuple[Summary, int] | None:
    """One number for a comparison at several targets: each seed's differences averaged, then summarised.

    Averaging within a seed first keeps one value per independent search, so the interval needs no correction over
    targets.

    Args:
        differences: Of one proposer against one other under one protocol.
        score: What they are gains in.

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
    return summarise(means, gain_bounds(score)), len(differences)


def _mean(line: Line) -> float:
    assert line.score is not None
    return line.score.mean
