"""What an interval of a difference says, against a margin that was fixed beforehand."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from prunas.costs.target import Target
from prunas.names import FINDERS
from prunas.results.rows import TrainingRow
from prunas.statistics.inference import LEVEL, gain_bounds
from prunas.statistics.summary import Spread, Summary, grouped, summarise
from prunas.tasks.score import Score

__all__ = [
    "Judgement",
    "Relation",
    "Side",
    "Verdict",
    "apart",
    "chances",
    "compared",
    "controls_of",
    "jointly",
    "judge",
    "standard_errors",
    "verdict",
]

Relation = Literal["more", "at-least", "tie"]
Judgement = Literal["holds", "fails", "undecided"]
Verdict = Literal["ahead", "behind", "level", "undecided"]
_WITHOUT_CAUSE = ("unpenalised", "untrained", "unweighted", "unlearnt", "random")


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        proposer: Whose points; "" means those of any pruning method.
        protocol: How they were trained; "" means in any way.
    """

    proposer: str = ""
    protocol: str = ""

    def holds(self, row: TrainingRow) -> bool:
        """Whether a row belongs to this side."""
        by = row.proposer == self.proposer if self.proposer else row.kind in FINDERS
        return by and self.protocol in ("", row.protocol)


def compared(
    rows: Iterable[TrainingRow], left: Side, right: Side, asked: Target | None = None, *, score: Score
) -> Summary | None:
    """How much better left is than right in the test score, one value per search seed.

    Differences are paired by seed and target and averaged over the targets of a seed first, so that the interval
    counts independent searches.

    Args:
        rows: Trainings of one space under one recipe.
        left: What is claimed to be better.
        right: Than what.
        asked: Only at this target.
        score: What the scores mean.

    Returns:
        The summary; None if no seed has both sides at every target that both have.
    """
    tested = [row for row in rows if row.score is not None and asked in (None, row.asked)]
    ours, theirs = (_cells([row for row in tested if side.holds(row)]) for side in (left, right))
    shared = sorted(ours.keys() & theirs.keys(), key=lambda key: key[1])
    targets = {target for target, _ in shared}
    by_seed = grouped(shared, lambda key: key[1])
    whole = [keys for keys in by_seed.values() if len(keys) == len(targets)]
    values = [fmean(score.gain(ours[key], theirs[key]) for key in keys) for keys in whole]
    return summarise(values, gain_bounds(score)) if values else None


def verdict(difference: Summary, margin: float) -> Verdict:
    """What an interval says about 0.

    Args:
        difference: Gains of the first over the second.
        margin: The smallest difference that matters, in the unit of the difference.
    """
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low >= -margin and difference.high <= margin:
        return "level"
    if difference.low > 0:
        return "ahead"
    return "behind" if difference.high < 0 else "undecided"


def judge(difference: Summary, relation: Relation, margin: float) -> Judgement:
    """What an interval says about a claim.

    Args:
        difference: Gains of left over right.
        relation: `more`: above the margin; `at-least`: not below minus the margin; `tie`: within the margin.
        margin: The smallest difference that matters, in the unit of the difference.

    Returns:
        `holds` where the interval lies inside the region the claim names, `fails` where it lies outside,
        `undecided` otherwise, and where one value has no interval.
    """
    low, high = difference.low, difference.high
    if low is None or high is None:
        return "undecided"
    floor = margin if relation == "more" else -margin
    above, below = low > floor, high < floor
    if relation != "tie":
        return "holds" if above else "fails" if below else "undecided"
    if above and high < margin:
        return "holds"
    return "fails" if below or low > margin else "undecided"


def chances(
    difference: Summary, relation: Relation, margin: float, error: float | None = None
) -> tuple[float, float] | None:
    """How surprising a sample is if a claim does not hold, and if it does: two p values of t tests.

    Each is twice that of a one-sided test, so that it lies below 1 - `LEVEL` where `judge` says `holds`, or
    `fails`.

    Args:
        difference: Gains of left over right.
        relation: As in `judge`.
        margin: Likewise.
        error: Standard error of the mean where it is not that of one sample, as that of `apart`.

    Returns:
        The p values; None where the sample has no spread to test against.
    """
    if error is None and difference.std is not None:
        error = float(difference.std / difference.n**0.5)
    if not error:
        return None
    from scipy.special import stdtr

    spread, freedom = error, difference.n - 1

    def above(bound: float) -> float:
        """p value of the mean being no more than the bound."""
        return min(1.0, 2 * float(stdtr(freedom, (bound - difference.mean) / spread)))

    def below(bound: float) -> float:
        """p value of the mean being no less."""
        return min(1.0, 2 * float(stdtr(freedom, (difference.mean - bound) / spread)))

    if relation == "tie":
        return max(above(-margin), below(margin)), min(below(-margin), above(margin))
    floor = margin if relation == "more" else -margin
    return above(floor), below(floor)


def jointly(judgements: Iterable[Judgement]) -> Judgement:
    """What several comparisons say about a claim that needs all of them.

    Args:
        judgements: At least one.

    Returns:
        `holds` where all hold, `fails` where any fails, else `undecided`.
    """
    said = set(judgements)
    if said == {"holds"}:
        return "holds"
    return "fails" if "fails" in said else "undecided"


def controls_of(proposer: str) -> tuple[str, ...]:
    """Names of the controls that have everything of a method but the cause: its penalty, or the training."""
    return tuple(f"{proposer}-{lacking}" for lacking in _WITHOUT_CAUSE)


def apart(left: Spread, right: Spread) -> Summary:
    """The difference of the means of two independent samples, with Welch's interval at `LEVEL`.

    Welch, The generalization of "Student's" problem when several different population variances are involved,
    Biometrika 34, 1947.

    Args:
        left: One sample.
        right: The other.

    Returns:
        Left minus right; `std` is the standard error, `n` the smaller sample. No interval where one sample has a
        single value, or neither has any spread.
    """
    mean, n = left.mean - right.mean, min(left.n, right.n)
    if left.std is None or right.std is None:
        return Summary(mean=mean, std=None, n=n, low=None, high=None)
    parts = [(sample.std or 0.0) ** 2 / sample.n for sample in (left, right)]
    error = float(sum(parts) ** 0.5)
    if not error:
        return Summary(mean=mean, std=0.0, n=n, low=None, high=None)
    from scipy.special import stdtrit

    spread = sum(part**2 / (sample.n - 1) for part, sample in zip(parts, (left, right), strict=True))
    half = float(stdtrit(sum(parts) ** 2 / spread, (1 + LEVEL) / 2)) * error
    return Summary(mean=mean, std=error, n=n, low=mean - half, high=mean + half)


def standard_errors(ours: Summary, mean: float, std: float | None, n: int) -> float | None:
    """Ours minus a published mean, in standard errors of the difference of two independent samples.

    Args:
        ours: Our sample.
        mean: The published mean.
        std: Its standard deviation; None if it is not known.
        n: The published number of runs.

    Returns:
        The quotient; None where a deviation is not known or both are 0.
    """
    if ours.std is None or std is None:
        return None
    error = float((ours.std**2 / ours.n + std**2 / n) ** 0.5)
    return (ours.mean - mean) / error if error else None


def _cells(rows: Iterable[TrainingRow]) -> dict[tuple[Target, int], float]:
    groups = grouped(rows, lambda row: (row.asked, row.search_seed))
    return {key: fmean(row.score for row in own if row.score is not None) for key, own in groups.items()}
