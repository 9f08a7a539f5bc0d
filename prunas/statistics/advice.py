"""Fine-tune, train a found shape from scratch, or take a uniform one? An answer, and what it rests on."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from prunas.costs.target import Target
from prunas.names import FINDERS
from prunas.protocols import family_of
from prunas.results.rows import TrainingRow
from prunas.statistics.claims import Side, Verdict, compared, verdict
from prunas.statistics.inference import LEVEL
from prunas.statistics.retraining import courses, crossings
from prunas.statistics.summary import Summary, grouped
from prunas.statistics.text import Table, interval_text
from prunas.statistics.wording import decimals, difference_words, gain_text, number
from prunas.tasks.score import Score

__all__ = ["Advice", "Observation", "advise", "observation_table", "observations"]

NEAR = 2.0
"""An observation speaks for budgets and epochs up to so many times larger or smaller than its own."""

Question = Literal["scratch or fine-tune", "found or uniform"]
FINETUNE: Question = "scratch or fine-tune"
UNIFORM: Question = "found or uniform"
_SCRATCH = "scratch-e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One comparison that was made.

    Attributes:
        question: What it answers: scratch against fine-tuning, or found against uniform, both from scratch.
        where: Who made it: the user's own runs, or a committed result by name.
        own: Whether it is the user's own, in the same space.
        space: The space.
        data: The data set.
        proposer: Whose points.
        keep: Share of the dense network's parameters that they have.
        epochs: How long they were trained.
        recipe_epochs: Epochs of the recipe, which the dense network had.
        difference: Gain of the first over the second in the test score, one value per seed.
        score: What the scores mean.
        against: How the second side of scratch or fine-tune was retrained; "" says nothing more than the question.
    """

    question: Question
    where: str
    own: bool
    space: str
    data: str
    proposer: str
    keep: float
    epochs: int
    recipe_epochs: int
    difference: Summary
    score: Score
    against: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the first of the two is ahead."""
        return verdict(self.difference, self.score.margin)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, and the verdict."""
        return asdict(self) | {"score": self.score.to_json(), "verdict": self.verdict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """An answer.

    Attributes:
        answer: What to do.
        basis: `own`: the user's own runs near the question decide it; `elsewhere`: other networks do; `none`:
            nothing does, and the answer is only the cheapest thing to try first.
        reasons: Why, one sentence each.
        evidence: The observations it rests on.
    """

    answer: Literal["fine-tune", "scratch", "uniform"]
    basis: Literal["own", "elsewhere", "none"]
    reasons: tuple[str, ...]
    evidence: tuple[Observation, ...]


def observations(
    rows: Sequence[TrainingRow],
    *,
    where: str,
    own: bool,
    space: str,
    data: str,
    recipe_epochs: int,
    whole: float | None,
    score: Score,
) -> list[Observation]:
    """Every comparison in some rows that bears on the question.

    Args:
        rows: Trainings of one space under one recipe.
        where: Who made them.
        own: Whether they are the user's own, in the same space.
        space: Name of the space.
        data: Name of the data set.
        recipe_epochs: Epochs of the recipe.
        whole: Parameters of the dense network; None where only targets asked as fractions tell.
        score: What the scores of the rows mean.
    """
    found: list[Observation] = []

    def add(
        question: Question, proposer: str, asked: Target, epochs: int, difference: Summary, against: str = ""
    ) -> None:
        reached = [row.reached.params for row in rows if row.asked == asked and row.proposer == proposer]
        dense = whole or (asked.value / asked.keep if asked.metric == "params" and asked.keep else None)
        if dense:
            found.append(
                Observation(
                    question=question,
                    where=where,
                    own=own,
                    space=space,
                    data=data,
                    proposer=proposer,
                    keep=sum(reached) / len(reached) / dense,
                    epochs=epochs,
                    recipe_epochs=recipe_epochs,
                    difference=difference,
                    score=score,
                    against=against,
                )
            )

    for crossing in crossings(courses(rows, score)):
        for epochs, difference in zip(crossing.epochs, crossing.differences, strict=True):
            add(FINETUNE, crossing.proposer, crossing.asked, epochs, difference, crossing.family)
    finders = dict.fromkeys(row.proposer for row in rows if row.kind in FINDERS)
    for asked, epochs, protocol in dict.fromkeys(
        (row.asked, row.epochs, row.protocol) for row in rows if family_of(row.protocol) == _SCRATCH
    ):
        for proposer in finders:
            pairs: list[tuple[Question, Side, Side]] = [
                (UNIFORM, Side(proposer, protocol), Side("uniform", protocol))
            ]
            if protocol == _SCRATCH:  # the study's own comparison: a quarter of the epochs at a small rate
                pairs.append((FINETUNE, Side(proposer, protocol), Side(proposer, "finetune")))
            for question, left, right in pairs:
                paired = compared(rows, left, right, asked, score=score)
                if paired is not None:
                    add(question, proposer, asked, epochs, paired, "finetune" if question == FINETUNE else "")
    return found


def advise(known: Iterable[Observation], *, keep: float, epochs: int, recipe_epochs: int) -> Advice:
    """The answer for a budget and so many epochs, from the observations nearest to it.

    The user's own runs come first. Those elsewhere are looked up at the same share of their dense network and the
    same share of their recipe's epochs.

    Args:
        known: All observations.
        keep: Budget as a share of the dense network's parameters.
        epochs: How long the smaller network may be trained.
        recipe_epochs: Epochs of the space's recipe.
    """
    by_question = grouped(known, lambda each: each.question)
    nearest = {
        question: _nearest(by_question.get(question, ()), keep, epochs, recipe_epochs)
        for question in (FINETUNE, UNIFORM)
    }
    tuned, uniform = nearest[FINETUNE], nearest[UNIFORM]
    reasons = [_sentence(FINETUNE, tuned), _sentence(UNIFORM, uniform)]
    answer: Literal["fine-tune", "scratch", "uniform"] = "uniform"
    decisive = None
    if tuned is not None and tuned.verdict == "behind":
        answer, decisive = "fine-tune", tuned
    elif uniform is not None and uniform.verdict == "ahead":
        answer, decisive = "scratch", uniform
    elif uniform is not None and uniform.verdict in ("behind", "level"):
        decisive = uniform
    if decisive is None:
        reasons.append("Nothing decides. A uniform shape costs no search, so try it first and compare.")
    basis: Literal["own", "elsewhere", "none"] = (
        "none" if decisive is None else "own" if decisive.own else "elsewhere"
    )
    return Advice(
        answer=answer,
        basis=basis,
        reasons=tuple(reasons),
        evidence=tuple(each for each in (tuned, uniform) if each is not None),
    )


def observation_table(evidence: Sequence[Observation]) -> Table:
    """One row per observation."""
    rows = [
        (
            *(_asked(each), each.where, f"{each.space}, {each.data}", each.proposer),
            *(f"{100 * each.keep:.3g} %", f"{each.epochs} of {each.recipe_epochs}"),
            number(each.difference.mean, each.score, "+"),
            interval_text(each.difference, "+", digits=decimals(each.score)),
            str(each.difference.n),
            each.verdict,
        )
        for each in evidence
    ]
    return Table(
        columns=(
            *("question", "seen in", "space", "proposer", "params", "epochs", "difference"),
            *(f"{100 * LEVEL:.0f} % interval", "n", "first is"),
        ),
        align="llllrrrlrl",
        rows=tuple(rows),
        notes=tuple(
            f"Differences of {difference_words(score)}, the first of the question minus the second."
            if score.better == "higher"
            else f"Differences of {difference_words(score)}: the second of the question minus the first."
            for score in dict.fromkeys(each.score for each in evidence)
        ),
    )


def _asked(each: Observation) -> str:
    """The question, with the way of fine-tuning that is meant."""
    plain = each.against in ("", "finetune")
    return each.question if plain else each.question.replace("fine-tune", each.against)


def _nearest(
    known: Sequence[Observation], keep: float, epochs: int, recipe_epochs: int
) -> Observation | None:
    """The observation that lies nearest, own ones first; None if none is near enough.

    Of equally near fine-tunings the best one is compared: a worse one would be beaten for nothing.
    """

    def distances(each: Observation) -> tuple[float, float]:
        asked, seen = (
            (epochs, each.epochs) if each.own else (epochs / recipe_epochs, each.epochs / each.recipe_epochs)
        )
        return abs(math.log(each.keep / keep)), abs(math.log(seen / asked))

    limit = math.log(NEAR) + 1e-9
    near = [each for each in known if max(distances(each)) <= limit]

    def order(each: Observation) -> tuple[bool, float, float, str]:
        gained = each.difference.mean if each.question == FINETUNE else 0.0
        return not each.own, sum(distances(each)), gained, each.where

    return min(near, key=order, default=None)


def _sentence(question: Question, seen: Observation | None) -> str:
    first, second = (
        ("training from scratch", "fine-tuning") if question == FINETUNE else ("found", "uniform shapes")
    )
    if seen is None:
        return f"No comparison of {first} and {second} within a factor of {NEAR:g} of this budget and length."
    words = {
        "ahead": f"{first} is ahead of {second}",
        "behind": f"{first} is behind {second}",
        "level": f"{first} and {second} are level",
        "undecided": f"{first} against {second} is undecided",
    }[seen.verdict]
    if question == UNIFORM:
        words = words.replace("found", f"what {seen.proposer} found")
    if seen.against not in ("", "finetune"):
        words = words.replace(second, f"{second} ({seen.against})")
    difference = seen.difference
    interval = interval_text(difference, "+", digits=decimals(seen.score))
    spread = f" {interval}" if difference.low is not None else ""
    place = "your runs" if seen.own else f"{seen.where}, another network or setting"
    return (
        f"{words[0].upper()}{words[1:]}: {gain_text(difference.mean, seen.score)}{spread}, n = {difference.n}, at "
        f"{100 * seen.keep:.3g} % of the parameters and {seen.epochs} epochs ({place})."
    )
