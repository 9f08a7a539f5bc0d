"""What an answer rests on beside how well it trains."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from prunas.costs.target import Target
from prunas.results.rows import SearchCost, TrainingRow
from prunas.statistics.inference import score_bounds
from prunas.statistics.summary import CostLine, Summary, cost_table, grouped, summarise
from prunas.tasks.score import Score

__all__ = ["Price", "prices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One proposer: what one of its searches costs, and how well what it finds trains.

    Attributes:
        proposer: Who searched.
        protocol: How the points were trained.
        masked: Whether the networks are masked.
        cost: Mean price of one search: all that its answers rest on, for all its targets.
        targets: The targets that all proposers of this panel were tested at.
        score: Test score, averaged over `targets`, one value per seed.
    """

    proposer: str
    protocol: str
    masked: bool
    cost: CostLine
    targets: tuple[Target, ...]
    score: Summary


def prices(rows: Iterable[TrainingRow], costs: Iterable[SearchCost], score: Score) -> list[Price]:
    """The prices of all proposers whose search costs are known, panel by panel, the best first.

    What rests on shapes of unknown cost has no price. Seeds that lack one of the shared targets are left out, and
    so are panels without a shared target.

    Args:
        rows: Trainings of one space under one recipe.
        costs: What finding their points cost.
        score: What the scores of the rows mean.
    """
    known = {line.proposer: line for line in cost_table(costs) if line.complete}
    tested = [row for row in rows if row.score is not None and row.proposer in known]
    found = []
    for (protocol, masked), panel in grouped(tested, lambda row: (row.protocol, row.masked)).items():
        by_proposer = grouped(panel, lambda row: row.proposer)
        shared = set.intersection(*({row.asked for row in own} for own in by_proposer.values()))
        targets = tuple(sorted(shared, key=lambda target: -target.value))
        of_panel = [
            Price(
                proposer=proposer,
                protocol=protocol,
                masked=masked,
                cost=known[proposer],
                targets=targets,
                score=summarise(means, score_bounds(score)),
            )
            for proposer, own in by_proposer.items()
            if (means := _per_seed(own, targets))
        ]
        found += sorted(of_panel, key=lambda price: (-score.gain(price.score.mean, 0.0), price.proposer))
    return found


def _per_seed(rows: Sequence[TrainingRow], targets: Sequence[Target]) -> list[float]:
    means = []
    for own in grouped(rows, lambda row: row.search_seed).values():
        at = grouped(own, lambda row: row.asked)
        if targets and at.keys() >= set(targets):
            means.append(
                fmean(fmean(r.score for r in at[target] if r.score is not None) for target in targets)
            )
    return means
