"""What of good practice in architecture search was done here, computed from the runs.

After Lindauer and Hutter, Best practices for scientific research on neural architecture search (JMLR 21:243,
2020), Li and Talwalkar (UAI 2019) and Yang et al., NAS evaluation is frustratingly hard (ICLR 2020).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from prunas.names import (
    CHANCE_LEVEL,
    MACS_NOT_MATCHED,
    ONE_GIVEN_NETWORK,
    PENALTY_NOT_ACTED,
    SEARCHERS,
    TARGET_MISSED,
)
from prunas.protocols import is_fresh
from prunas.report.evidence import Evidence
from prunas.report.headline import only_tuned
from prunas.results.rows import FINISHED
from prunas.statistics.ranking import rankings
from prunas.statistics.summary import spent
from prunas.statistics.text import asked_text, duration

__all__ = ["Item", "checklist"]

SEEDS = 5
"""Searches per proposer in the study."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist.

    Attributes:
        status: `done`, `partly`, `not done`, or `unknown` where the runs do not tell.
        practice: What should be done.
        evidence: What was done.
    """

    status: Literal["done", "partly", "not done", "unknown"]
    practice: str
    evidence: str


def checklist(evidence: Evidence) -> list[Item]:
    """Every line, in a fixed order."""
    makers: tuple[Callable[[Evidence], Item], ...] = (
        _same_setting,
        _from_scratch,
        _taper,
        _uniform,
        _random,
        _shuffled,
        _samplers,
        _seeds,
        _pairs,
        _selection,
        _counted,
        _telling,
        _cost,
        _acted,
        _chance,
        _complete,
        _machine,
        _repeat,
        _anytime,
        _tuning,
    )
    return [make(evidence) for make in makers]


def _names(evidence: Evidence) -> list[str]:
    return list(dict.fromkeys(row.proposer for row in evidence.rows))


def _final_specs(evidence: Evidence) -> list[Any]:
    return [run.spec for row in evidence.rows if (run := evidence.runs[row.id]).spec]


def _same_setting(evidence: Evidence) -> Item:
    practice = "All compared shapes share space, data, recipe and final training"
    keys = ("batch", "lr", "schedule", "augment", "precision", "images")
    fresh = [spec for spec in _final_specs(evidence) if not spec.get("inherit")]
    recipes = {tuple(str(spec.get("recipe", {}).get(key)) for key in keys) for spec in fresh}
    devices = {str(run.values["device"]) for run in evidence.runs.values() if "device" in run.values}
    if len(recipes) > 1:
        return Item("not done", practice, f"{len(recipes)} different recipes among the final trainings")
    on = f", device {', '.join(sorted(devices))}" if devices else ""
    return Item("done" if len(devices) < 2 else "partly", practice, f"recipe {evidence.record.recipe}{on}")


def _from_scratch(evidence: Evidence) -> Item:
    practice = "Shapes are judged by training them from scratch"
    tuned = only_tuned(evidence.rows)
    fresh = sorted({row.protocol for row in evidence.rows if is_fresh(row.protocol)})
    if tuned:
        return Item("partly" if fresh else "not done", practice, f"only fine-tuned: {', '.join(tuned)}")
    return Item("done", practice, ", ".join(fresh))


def _control(evidence: Evidence, practice: str, name: str) -> Item:
    here = name in _names(evidence)
    return Item("done" if here else "not done", practice, f"{name} is in the table" if here else f"no {name}")


def _taper(evidence: Evidence) -> Item:
    practice = "Compared with tapered shapes of the same parameters and MACs"
    tapers = [row for row in evidence.rows if row.proposer == "taper"]
    unmatched = sum(MACS_NOT_MATCHED in row.flags for row in tapers)
    if not unmatched:
        return _control(evidence, practice, "taper")
    return Item(
        "partly",
        practice,
        f"{unmatched} of {len(tapers)} tapers miss the parameters or the MACs of their points by more than 1 %",
    )


def _uniform(evidence: Evidence) -> Item:
    return _control(evidence, "Compared with uniform shapes of the same budget", "uniform")


def _random(evidence: Evidence) -> Item:
    practice = "Compared with random search, given as many trainings as other samplers"
    if "random" not in _names(evidence):
        return Item("not done", practice, "no random")
    used = {
        name: max((cost.trainings for cost in evidence.costs if cost.proposer == name), default=0)
        for name in dict.fromkeys(row.proposer for row in evidence.rows if row.kind == "sampler")
    }
    own = max((cost.trainings for cost in evidence.costs if cost.proposer == "random"), default=0)
    if used and max(used.values()) > own:
        return Item("partly", practice, f"random {own} trainings, others up to {max(used.values())}")
    return Item(
        "done", practice, "random is in the table" + (f", {own} trainings" if own else ", one draw a seed")
    )


def _shuffled(evidence: Evidence) -> Item:
    return _control(evidence, "Compared with the found widths in another order", "shuffled")


def _samplers(evidence: Evidence) -> Item:
    practice = "Compared with other search methods on the same space"
    found = dict.fromkeys(row.proposer for row in evidence.rows if row.kind in SEARCHERS)
    status: Literal["done", "not done"] = "done" if len(found) > 1 else "not done"
    return Item(status, practice, ", ".join(found) or "nothing was searched")


def _seeds(evidence: Evidence) -> Item:
    practice = f"Several seeds of the search itself, {SEEDS} as in the study"
    seeds = {
        name: len({row.search_seed for row in evidence.rows if row.proposer == name})
        for name in _names(evidence)
    }
    least = min(seeds.values(), default=0)
    status: Literal["done", "partly", "not done"] = (
        "done" if least >= SEEDS else "partly" if least > 1 else "not done"
    )
    text = f"{least} seed{'s' if least != 1 else ''} for every proposer"
    if shared := sorted({row.proposer for row in evidence.rows if ONE_GIVEN_NETWORK in row.flags}):
        return Item(
            "partly", practice, f"{text}; one given dense network for all seeds of {', '.join(shared)}"
        )
    return Item(status, practice, text)


def _pairs(evidence: Evidence) -> Item:
    practice = "Comparisons paired by seed, with mean, standard deviation, n and interval; every point shown"
    seeds = [{r.search_seed for r in evidence.rows if r.proposer == name} for name in _names(evidence)]
    same = all(each == seeds[0] for each in seeds)
    return Item(
        "done" if same else "partly", practice, "all seeds shared" if same else "some seeds lack a partner"
    )


def _selection(evidence: Evidence) -> Item:
    practice = "Selection on validation images; the test set met once, after the last epoch"
    final = _final_specs(evidence)
    searching = [
        run.spec
        for row in evidence.dense
        if row.protocol in ("dense", "penalty") and (run := evidence.runs[row.id]).spec
    ]
    if not final:
        return Item("unknown", practice, "the run folders are gone")
    sound = all(s.get("score") == "test" and s.get("split") == "train+val" for s in final)
    sound &= all(s.get("score") == "val" and s.get("split") == "train" for s in searching)
    text = (
        f"{len(final)} final trainings on train + validation; the {len(searching)} dense trainings that "
        "proposers asked for never met the test set"
    )
    if sound and evidence.record.plan.get("weights"):
        return Item("partly", practice, f"{text}; what the given dense network was trained on is not known")
    return Item("done" if sound else "not done", practice, text if sound else "a training breaks this rule")


def _counted(evidence: Evidence) -> Item:
    practice = "Drawn at the parameters and MACs counted, not at nominal ratios"
    missed = [row for row in evidence.rows if TARGET_MISSED in row.flags]
    text = "all points" + (
        f"; {len(missed)} of {len(evidence.rows)} missed their target by more than 1 %" if missed else ""
    )
    return Item("done", practice, text)


def _telling(evidence: Evidence) -> Item:
    practice = "Targets small enough to tell proposers apart"
    left_out, counted = set(), set()
    for ranking in rankings(evidence.rows, evidence.dense_mean, score=evidence.score):
        left_out |= set(ranking.left_out)
        counted |= set(ranking.targets)
    text = f"{len(counted)} targets tell"
    if left_out:
        easy = ", ".join(asked_text(target) for target in sorted(left_out, key=lambda t: -t.value))
        text += f"; too easy: {easy}"
    return Item("done" if counted and not left_out else "partly" if counted else "not done", practice, text)


def _cost(evidence: Evidence) -> Item:
    practice = "The cost of searching reported beside what was found"
    if not evidence.costs:
        return Item("not done", practice, "no cost is recorded")
    shared_once = spent(evidence.costs)
    older = [cost for cost in evidence.costs if cost.rests_on is None]
    seconds = sum(each.seconds for each in shared_once) + sum(cost.seconds for cost in older)
    trainings = len(shared_once) + sum(cost.trainings for cost in older)
    text = f"{trainings} trainings and {duration(seconds)} for all searches together"
    return Item("done", practice, text)


def _acted(evidence: Evidence) -> Item:
    practice = "Sparsity penalties strong and long enough to act"
    penalised = {row.proposer for row in evidence.dense if row.protocol == "penalty"}
    points = [row for row in evidence.rows if row.proposer in penalised]
    idle = [row for row in points if PENALTY_NOT_ACTED in row.flags]
    if not points:
        return Item("done", practice, "no proposer here uses one")
    status: Literal["done", "partly", "not done"] = (
        "done" if not idle else "partly" if len(idle) < len(points) else "not done"
    )
    return Item(status, practice, f"not acted for {len(idle)} of {len(points)} points (drawn hollow)")


def _chance(evidence: Evidence) -> Item:
    practice = "Networks that learnt more than guessing"
    tested = [row for row in evidence.rows if row.score is not None]
    if not tested or any(row.chance is None for row in tested):
        return Item("unknown", practice, "the runs do not say what guessing reaches")
    idle = [row for row in tested if CHANCE_LEVEL in row.all_flags(evidence.score)]
    status: Literal["done", "partly", "not done"] = (
        "done" if not idle else "partly" if len(idle) < len(tested) else "not done"
    )
    return Item(status, practice, f"{len(idle)} of {len(tested)} cannot be told from guessing (drawn hollow)")


def _complete(evidence: Evidence) -> Item:
    practice = "Every run that was begun is reported"
    missing = [row for row in evidence.rows if row.status != FINISHED]
    text = f"{len(evidence.rows) - len(missing)} of {len(evidence.rows)} runs finished"
    return Item("partly" if missing else "done", practice, text)


def _machine(evidence: Evidence) -> Item:
    practice = "Hardware, versions and time of searching and final training reported"
    known = [row for row in evidence.rows if evidence.runs[row.id].result.get("machine")]
    status: Literal["done", "partly", "not done"] = (
        "done" if len(known) == len(evidence.rows) else "partly" if known else "not done"
    )
    return Item(status, practice, f"for {len(known)} of {len(evidence.rows)} final trainings, below")


def _repeat(evidence: Evidence) -> Item:
    return Item("done", "Code and commands to repeat everything", "below; the code is prunas itself")


def _anytime(evidence: Evidence) -> Item:
    return Item("not done", "Performance over search time", "only the end of each search is compared")


def _tuning(evidence: Evidence) -> Item:
    return Item("unknown", "Effort spent on tuning, and ablations of the proposers' settings", "not recorded")
