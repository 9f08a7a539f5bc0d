"""The finding of a comparison in words, with its interval."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prunas.recipe import PROTOCOLS
from prunas.statistics.claims import Verdict, verdict
from prunas.statistics.ranking import MARGIN, mean_difference, rankings
from prunas.statistics.retraining import budgeted
from prunas.statistics.rows import Row
from prunas.statistics.summary import Summary, differences, grouped

__all__ = ["Finding", "findings", "is_fresh", "only_tuned"]

_FOUND = ("automatic", "predefined", "sampler")
_CONTROLS = {
    "taper": "tapered shapes of the same parameters and MACs (taper)",
    "uniform": "uniform shapes of the same budget",
    "random": "random shapes of the same budget",
}
_WORDS: dict[Verdict, str] = {
    "ahead": "The interval lies above 0: what was found is better than the control.",
    "behind": "The interval lies below 0: what was found is worse than the control.",
    "level": f"The interval lies within {MARGIN} points of 0: the two are as good as each other.",
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
        difference: Of test accuracy in percentage points, one value per seed.
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


def findings(rows: Sequence[Row], dense: float | None) -> list[Finding]:
    """What was found against each control, the tapered shapes first, training from scratch before fine-tuning.

    Differences are averaged over the targets that can tell proposers apart, or over all where none can.

    Args:
        rows: Trainings of one space under one recipe; those of a retraining budget have no say.
        dense: Mean test accuracy of the dense network in percent, if it was tested.
    """
    rows = [row for row in rows if not budgeted(row.protocol)]
    telling = {(ranking.protocol, ranking.masked): ranking.targets for ranking in rankings(rows, dense)}
    found = []
    proposers = dict.fromkeys(row.proposer for row in rows if row.kind in _FOUND)
    for against in _CONTROLS:
        for proposer in proposers:
            panels = grouped(differences(rows, proposer, against), lambda d: (d.protocol, d.masked))
            for (protocol, masked), every in panels.items():
                able = [each for each in every if each.asked in telling.get((protocol, masked), ())]
                pooled = mean_difference(able or every)
                if pooled is None:
                    continue
                difference, targets = pooled
                found.append(
                    Finding(
                        proposer=proposer,
                        against=against,
                        protocol=protocol,
                        fresh=is_fresh(protocol),
                        difference=difference,
                        verdict=verdict(difference),
                        sentence=_sentence(proposer, against, protocol, difference, targets, bool(able)),
                    )
                )
    return sorted(found, key=lambda finding: not finding.fresh)


def is_fresh(protocol: str) -> bool:
    """Whether a protocol trains from scratch; one that is not known here is taken to."""
    family = protocol.partition(":")[0]
    return family not in PROTOCOLS or PROTOCOLS[family].weights == "fresh"


def only_tuned(rows: Iterable[Row]) -> list[str]:
    """The proposers whose points were fine-tuned and never trained from scratch."""
    protocols = grouped(rows, lambda row: row.proposer)
    return [name for name, own in protocols.items() if not any(is_fresh(row.protocol) for row in own)]


def _sentence(
    proposer: str, against: str, protocol: str, difference: Summary, targets: int, able: bool
) -> str:
    mean = difference.mean
    how = "more" if mean > 0 else "less"
    where = f"{targets} target{'s' if targets > 1 else ''}"
    seeds = f"{difference.n} seed{'s' if difference.n > 1 else ''}"
    text = f"Shapes found by {proposer} score {abs(mean):.2f} points {how} than {_CONTROLS[against]}"
    if difference.low is None or difference.high is None:
        return f"{text}: mean over {where}, {protocol}, one seed, so there is no interval and nothing is decided."
    text += f", 95 % interval [{difference.low:+.2f}, {difference.high:+.2f}]: "
    text += f"mean over {where}, {seeds}, {protocol}."
    easy = "" if able else " Every target is too easy to tell proposers apart."
    return f"{text} {_WORDS[verdict(difference)]}{easy}"
