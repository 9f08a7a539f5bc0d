"""Score against the retraining budget: from how many epochs on does a shape need no inherited weights?"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from prunas.costs.target import Target
from prunas.protocols import family_of, untaught
from prunas.results.rows import TrainingRow
from prunas.statistics.inference import LEVEL, gain_bounds, score_bounds
from prunas.statistics.summary import Summary, grouped, summarise
from prunas.statistics.text import Table, asked_text, interval_text
from prunas.statistics.wording import decimals, direction_note, number, quantity
from prunas.tasks.score import Score

__all__ = [
    "FAMILIES",
    "SCRATCH",
    "Crossing",
    "RetrainingCurve",
    "budgeted",
    "course_protocols",
    "courses",
    "crossings",
    "ordered",
    "retraining_table",
]

SCRATCH = "scratch-e"
FAMILIES = ("finetune", "finetune-large", "finetune-rewound", SCRATCH)
"""What is compared, each with a teacher or without: a constant small rate, one cycle at the full rate,
the whole schedule again, new initial weights."""


def budgeted(protocol: str) -> bool:
    """Whether a protocol names its own epochs, as `finetune:20` does: a point of a course, not of a comparison."""
    return protocol != family_of(protocol) and untaught(protocol) in FAMILIES


def ordered(families: Iterable[str]) -> list[str]:
    """Families in the order of `FAMILIES`, those with a teacher behind the one without, each once."""
    return sorted(set(families), key=lambda family: (FAMILIES.index(untaught(family)), family))


def course_protocols(rows: Iterable[TrainingRow]) -> set[str]:
    """The protocols that are points of a course: they name their own epochs, and their family has several lengths.

    Args:
        rows: Trainings of one space under one recipe.
    """
    lengths: dict[str, set[int]] = {}
    protocols = set()
    for row in rows:
        protocols.add(row.protocol)
        lengths.setdefault(family_of(row.protocol), set()).add(row.epochs)
    return {name for name in protocols if budgeted(name) and len(lengths[family_of(name)]) > 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingCurve:
    """How well one proposer's points retrain, by budget.

    The sequences have one entry per budget.

    Attributes:
        proposer: Who proposed the points.
        asked: Their target.
        masked: Whether the networks are masked.
        family: How they were retrained: one of `FAMILIES`, with its teacher if it has one.
        epochs: The budgets, ascending; at least two.
        points: Test score by search seed.
        score: What it means.
    """

    proposer: str
    asked: Target
    masked: bool
    family: str
    epochs: tuple[int, ...]
    points: tuple[dict[int, float], ...]
    score: Score

    @property
    def scores(self) -> tuple[Summary, ...]:
        """Test score at each budget."""
        return tuple(summarise(list(points.values()), score_bounds(self.score)) for points in self.points)


def courses(rows: Iterable[TrainingRow], score: Score) -> list[RetrainingCurve]:
    """The courses of all points that were retrained for at least two budgets, by target from the largest.

    Args:
        rows: Trainings of one space under one recipe.
        score: What their scores mean.
    """
    tested = [row for row in rows if row.score is not None and untaught(row.protocol) in FAMILIES]
    tested.sort(key=lambda row: (row.asked.metric, -row.asked.value))
    found = []
    for (asked, proposer, masked), own in grouped(
        tested, lambda row: (row.asked, row.proposer, row.masked)
    ).items():
        by_family = grouped(own, lambda row: family_of(row.protocol))
        for family in ordered(by_family):
            budgets = sorted(grouped(by_family[family], lambda row: row.epochs).items())
            if len(budgets) > 1:
                found.append(
                    RetrainingCurve(
                        proposer=proposer,
                        asked=asked,
                        masked=masked,
                        family=family,
                        epochs=tuple(epochs for epochs, _ in budgets),
                        points=tuple(_by_seed(some) for _, some in budgets),
                        score=score,
                    )
                )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where training from scratch overtakes retraining inherited weights.

    Attributes:
        proposer: Whose points.
        asked: Their target.
        family: What scratch is compared with.
        epochs: The budgets that both have, ascending.
        differences: Gain of scratch over the other at each of them, paired by seed.
        at: The budget from which on scratch is ahead, on straight lines over the logarithm of the budget: the
            smallest budget tried if it is ahead at all of them, None if it is behind at the largest.
        by_seed: The same for every seed that has all budgets; None where it is behind at the largest.
    """

    proposer: str
    asked: Target
    family: str
    epochs: tuple[int, ...]
    differences: tuple[Summary, ...]
    at: float | None
    by_seed: tuple[float | None, ...]

    @property
    def sentence(self) -> str:
        """The answer in words."""
        who = f"{self.proposer} at {asked_text(self.asked)}: training from scratch"
        first, last = self.epochs[0], self.epochs[-1]
        if self.at is None:
            return f"{who} stays behind {self.family} up to {last} epochs."
        if self.at <= first:
            return f"{who} is ahead of {self.family} from {first} epochs on, the smallest budget tried."
        seeds = [at for at in self.by_seed if at is not None]
        spread = ""
        if len(self.by_seed) > 1:
            ends = f"{min(seeds):.3g} to {max(seeds):.3g}" if seeds else "never"
            spread = f" (seed by seed: {ends}; {len(seeds)} of {len(self.by_seed)} cross)"
        return f"{who} overtakes {self.family} at about {self.at:.3g} epochs{spread}."

    def to_json(self) -> dict[str, Any]:
        """One record."""
        return {
            "proposer": self.proposer,
            "asked": self.asked.to_json(),
            "family": self.family,
            "epochs": list(self.epochs),
            "differences": [asdict(each) for each in self.differences],
            "at": self.at,
            "by_seed": list(self.by_seed),
            "sentence": self.sentence,
        }


def crossings(found: Sequence[RetrainingCurve]) -> list[Crossing]:
    """Scratch against every other way, wherever they share at least two budgets."""
    crossed = []
    for (proposer, asked, _), own in grouped(found, lambda c: (c.proposer, c.asked, c.masked)).items():
        by_family = {course.family: course for course in own}
        scratch = by_family.pop(SCRATCH, None)
        for family, course in by_family.items():
            if scratch is not None and (made := _crossing(proposer, asked, scratch, course)):
                crossed.append(made)
                assert made.family == family
    return crossed


def retraining_table(found: Sequence[RetrainingCurve]) -> Table:
    """One row per target, proposer and budget: the score of every way, and what scratch gains on the first.

    Args:
        found: At least one, all of one score.
    """
    rows = []
    score = found[0].score
    crossed = crossings(found)
    families = ordered(course.family for course in found)
    usual = next((family for family in families if family != SCRATCH), FAMILIES[0])
    differences = {
        (each.proposer, each.asked, each.family, epochs): difference
        for each in crossed
        for epochs, difference in zip(each.epochs, each.differences, strict=True)
    }
    for (asked, proposer), own in grouped(found, lambda c: (c.asked, c.proposer)).items():
        means = {
            (course.family, epochs): summary
            for course in own
            for epochs, summary in zip(course.epochs, course.scores, strict=True)
        }
        for epochs in sorted({epochs for _, epochs in means}):
            against = differences.get((proposer, asked, usual, epochs))
            rows.append(
                (
                    *(asked_text(asked), proposer, str(epochs)),
                    *(_mean(means.get((family, epochs)), score) for family in families),
                    "-" if against is None else number(against.mean, score, "+"),
                    "-" if against is None else interval_text(against, "+", digits=decimals(score)),
                )
            )
    gained = (SCRATCH, usual)
    shown = quantity(score)
    return Table(
        columns=(
            *("asked", "proposer", "epochs", *families),
            " - ".join(gained if score.better == "higher" else gained[::-1]),
            f"{100 * LEVEL:.0f} % interval",
        ),
        align="llr" + "r" * len(families) + "rl",
        rows=tuple(rows),
        notes=(
            f"{shown[0].upper()}{shown[1:]}, mean ± standard deviation over searches; differences paired by seed.",
            *direction_note(score),
            *(each.sentence for each in crossed),
        ),
    )


def _mean(spread: Summary | None, score: Score) -> str:
    if spread is None:
        return "-"
    return number(spread.mean, score) + ("" if spread.std is None else f" ± {number(spread.std, score)}")


def _by_seed(rows: Sequence[TrainingRow]) -> dict[int, float]:
    once = {row.id: row for row in rows}.values()
    return {
        seed: fmean(row.score for row in own if row.score is not None)
        for seed, own in sorted(grouped(once, lambda row: row.search_seed).items())
    }


def _crossing(
    proposer: str, asked: Target, scratch: RetrainingCurve, other: RetrainingCurve
) -> Crossing | None:
    score = scratch.score
    ours, theirs = (dict(zip(course.epochs, course.points, strict=True)) for course in (scratch, other))
    paired = {
        epochs: {seed: score.gain(ours[epochs][seed], theirs[epochs][seed]) for seed in sorted(seeds)}
        for epochs in sorted(ours.keys() & theirs.keys())
        if (seeds := ours[epochs].keys() & theirs[epochs].keys())
    }
    if len(paired) < 2:
        return None
    summaries = [summarise(list(values.values()), gain_bounds(score)) for values in paired.values()]
    whole = sorted(set.intersection(*(set(values) for values in paired.values())))
    return Crossing(
        proposer=proposer,
        asked=asked,
        family=other.family,
        epochs=tuple(paired),
        differences=tuple(summaries),
        at=_overtakes(list(paired), [each.mean for each in summaries]),
        by_seed=tuple(_overtakes(list(paired), [v[seed] for v in paired.values()]) for seed in whole),
    )


def _overtakes(epochs: Sequence[int], differences: Sequence[float]) -> float | None:
    """Where a line over the logarithm of the epochs last rises to 0; its start if it never lies below."""
    if differences[-1] < 0:
        return None
    at = float(epochs[0])
    for (x, low), (y, high) in pairwise(zip(epochs, differences, strict=True)):
        if low < 0 <= high:
            at = math.exp(math.log(x) + (math.log(y) - math.log(x)) * -low / (high - low))
    return at
