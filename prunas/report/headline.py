"""The finding of a comparison in words, with its interval."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prunas.names import SEARCHERS
from prunas.protocols import is_fresh
from prunas.results.rows import TrainingRow
from prunas.statistics.claims import Verdict, verdict
from prunas.statistics.flags import count_flags, flags_text
from prunas.statistics.ranking import mean_difference, rankings
from prunas.statistics.retraining import course_protocols
from prunas.statistics.summary import Difference, Summary, differences, grouped
from prunas.statistics.text import interval_text, size_text
from prunas.statistics.wording import better_words, decimals, gain_text, margin_text
from prunas.tasks.score import Score

__all__ = ["Finding", "findings", "in_one_sentence", "only_tuned"]

_CONTROLS = {"taper": "tapered shapes", "uniform": "uniform shapes", "random": "random shapes"}
_WORDS: dict[Verdict, str] = {
    "ahead": "The interval lies above 0: what was found is better than the control.",
    "behind": "The interval lies below 0: what was found is worse than the control.",
    "level": "The interval lies within {margin} of 0: the two are as good as each other.",
    "undecided": "The interval holds 0 and reaches beyond the margin: these runs do not decide it.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One proposer against one control.

    Attributes:
        proposer: Whose points.
        against: The control.
        protocol: How both were trained.
        fresh: Whether they were trained from scratch.
        difference: Gain in the test score, one value per seed.
        verdict: What its interval says.
        sentence: All of it in words.
    """

    proposer: str
    against: str
    protocol: str
    fresh: bool
    difference: Summary
    verdict: Verdict
    sentence: str


def findings(rows: Sequence[TrainingRow], dense: float | None, score: Score) -> list[Finding]:
    """What was found against each control, the tapered shapes first, training from scratch before fine-tuning.

    Differences are averaged over the targets that can tell proposers apart, or over all where none can.

    Args:
        rows: Trainings of one space under one recipe; those of a retraining budget have no say.
        dense: Mean test score of the dense network, if it was tested.
        score: What the scores mean.
    """
    of_courses = course_protocols(rows)
    rows = [row for row in rows if row.protocol not in of_courses]
    telling = {
        (ranking.protocol, ranking.masked): ranking.targets for ranking in rankings(rows, dense, score=score)
    }
    found = []
    proposers = dict.fromkeys(row.proposer for row in rows if row.kind in SEARCHERS)
    for against in _CONTROLS:
        for proposer in proposers:
            panels = grouped(
                differences(rows, proposer, against, score=score), lambda d: (d.protocol, d.masked)
            )
            for (protocol, masked), every in panels.items():
                able = [each for each in every if each.asked in telling.get((protocol, masked), ())]
                pooled = mean_difference(able or every, score)
                if pooled is None:
                    continue
                difference, targets = pooled
                compared = able or every
                found.append(
                    Finding(
                        proposer=proposer,
                        against=against,
                        protocol=protocol,
                        fresh=is_fresh(protocol),
                        difference=difference,
                        verdict=verdict(difference, score.margin),
                        sentence=_sentence(compared, difference, targets, bool(able), score)
                        + _flagged(rows, compared, score),
                    )
                )
    return sorted(found, key=lambda finding: not finding.fresh)


def in_one_sentence(found: Sequence[Finding], score: Score) -> str:
    """What every proposer gained over the first control that it was compared with, all under the first protocol.

    Args:
        found: As `findings` gives them.
        score: What the gains are in.
    """
    if not found:
        return "Found: nothing that a search proposed has been compared with a control."
    first = found[0]
    parts = []
    for each in found:
        if (each.against, each.protocol) == (first.against, first.protocol):
            open_end = each.difference.low is None
            interval = (
                "no interval"
                if open_end
                else f"95 % interval {interval_text(each.difference, '+', digits=decimals(score))}"
            )
            size = f"{gain_text(each.difference.mean, score)}, n {each.difference.n}"
            parts.append(f"{each.proposer} is {each.verdict} ({size}, {interval})")
    return f"Found: against {_CONTROLS[first.against]}, {first.protocol}, {'; '.join(parts)}."


def only_tuned(rows: Iterable[TrainingRow]) -> list[str]:
    """The proposers whose points were fine-tuned and never trained from scratch."""
    protocols = grouped(rows, lambda row: row.proposer)
    return [name for name, own in protocols.items() if not any(is_fresh(row.protocol) for row in own)]


def _sentence(
    compared: Sequence[Difference], difference: Summary, targets: int, able: bool, score: Score
) -> str:
    proposer, protocol = compared[0].proposer, compared[0].protocol
    where = f"{targets} target{'s' if targets > 1 else ''}"
    seeds = f"{difference.n} seed{'s' if difference.n > 1 else ''}"
    text = f"Shapes found by {proposer} {better_words(difference.mean, score)} {_control(compared)}"
    if difference.low is None or difference.high is None:
        why = "one seed" if difference.n == 1 else f"{seeds} with equal differences"
        return (
            f"{text}: mean over {where}, {protocol}, {why}, so there is no interval and nothing is decided."
        )
    text += f", 95 % interval {interval_text(difference, '+', digits=decimals(score))}: "
    text += f"mean over {where}, {seeds}, {protocol}."
    says = _WORDS[verdict(difference, score.margin)].format(margin=margin_text(score))
    easy = "" if able else " Every target is too easy to tell proposers apart."
    return f"{text} {says}{easy}"


def _control(compared: Sequence[Difference]) -> str:
    """The control in words, with what it was to share with the points and by how much it misses that."""
    against, metrics = compared[0].against, {each.asked.metric for each in compared}
    params_off = max((each.params_off for each in compared), key=abs)
    macs_off = max((each.macs_off for each in compared), key=abs)
    if against == "taper":
        shared, missed = "the same parameters and MACs (taper)", size_text(params_off, macs_off)
    else:  # these answer the budget alone
        shared = "the same budget"
        missed = size_text(params_off if "params" in metrics else 0.0, macs_off if "macs" in metrics else 0.0)
    if not missed:
        return f"{_CONTROLS[against]} of {shared}"
    return f"{_CONTROLS[against]} that were to have {shared} and miss them by up to {missed}"


def _flagged(rows: Iterable[TrainingRow], compared: Sequence[Difference], score: Score) -> str:
    """Which of the compared trainings carry flags, as a sentence; empty if none does."""
    first = compared[0]
    pairs = {(each.asked, seed) for each in compared for seed in each.seeds}
    parts = []
    for name in (first.proposer, first.against):
        points = [
            row
            for row in rows
            if (row.proposer, row.protocol, row.masked) == (name, first.protocol, first.masked)
            and row.score is not None
            and (row.asked, row.search_seed) in pairs
        ]
        if flags := flags_text(count_flags(points, score), len(points)):
            parts.append(f"{name} ({flags})")
    return f" Flagged: {'; '.join(parts)}." if parts else ""
