"""The searches and the retrainings behind the answer, through the library's own plans.

A trial is one training from scratch on *train*, scored on *validation*. What is best after so many trials is
trained anew on train + validation, with seeds that no search has used, and tested once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.experiments.plan import make_plan
from prunas.experiments.search import Findings
from prunas.experiments.search import search as run_search
from prunas.files import read_json
from prunas.proposers.brief import Proposal
from prunas.protocols import protocol
from prunas.runs.executors import Executor
from prunas.runs.store import Store
from prunas.works.trainings import Setting, Training

__all__ = ["FRESH", "Question", "Unfinished", "measure"]

FRESH = 1000
"""Training seeds from here on are no search's: search s retrains with FRESH + 10 s, FRESH + 10 s + 1, ..."""

SAMPLERS = ("tpe", "tpe+slimming", "random")
CONTROLS = ("taper", "uniform")


class Unfinished(Exception):
    """The time was up; the same command continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        keep: The budget, as a share of the dense network's parameters.
        searches: Independent searches per proposer.
        trials: Trials of each sampler.
        retrain: Fresh trainings of every winner.
        pulls: Slimming's settings to choose among; the first is the one that is taken without tuning.
        proxy: Share of the schedule that a trial of the proxy mode trains.
    """

    keep: float
    searches: int
    trials: int
    retrain: int
    pulls: tuple[float, ...]
    proxy: float


class _Lab:
    """Runs searches and trainings in one store.

    Args:
        question: What is asked.
        setting: Space, recipe and data.
        store: Where runs live.
        make: Opens an executor.
        stop: Whether the time is up.
        say: Told what is being done.
    """

    def __init__(
        self,
        question: Question,
        setting: Setting,
        store: Store,
        make: Callable[[], Executor],
        stop: Callable[[], bool],
        say: Callable[[str], object],
    ) -> None:
        self.question, self.setting, self.store = question, setting, store
        self.make, self.stop, self.say = make, stop, say

    @property
    def target(self) -> Target:
        return self.setting.space.target(keep=self.question.keep)

    def search(self, setting: Setting, names: Sequence[str], options: Mapping[str, Any]) -> Findings:
        """Searches without final trainings: those come with fresh seeds."""
        plan = make_plan(
            setting,
            names,
            keep=[self.question.keep],
            protocols=(),
            seeds=self.question.searches,
            trials=self.question.trials,
            options=options,
            controls=False,
            dense=False,
        )
        self.say(f"{', '.join(plan.proposers)}, {setting.recipe.epochs} epochs")
        found = run_search(plan, self.store, self.make)
        if self.stop():
            raise Unfinished
        if found.problems:
            raise InputError("; ".join(found.problems))
        return found

    def accuracies(self, trainings: Iterable[Training]) -> dict[str, float]:
        """Accuracy of each training by its run, trained if it is not there."""
        todo = {training.job.id: training.job for training in trainings}
        self.say(f"{len(todo)} trainings")
        done = {}
        with self.make() as executor:
            for job in todo.values():
                executor.submit(job)
            for outcome in executor.completed():
                if outcome.result is not None:
                    done[outcome.job.id] = float(outcome.result.values["score"])
                elif not self.stop():
                    raise InputError(f"run {outcome.job.name} ended {outcome.status}: {outcome.error}")
        if done.keys() != todo.keys():
            raise Unfinished
        return done


def measure(
    question: Question,
    setting: Setting,
    store: Store,
    make: Callable[[], Executor],
    stop: Callable[[], bool],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Everything that `answer` needs, as JSON values.

    Raises:
        Unfinished: `stop` said so.
        InputError: A training or a search failed.
    """
    lab = _Lab(question, setting, store, make, stop, say)
    first = {"slimming": {"pull": question.pulls[0]}}
    whole = lab.search(setting, ("slimming", *SAMPLERS, *CONTROLS), first)
    short = replace(setting, recipe=_shortened(setting, question.proxy))
    proxy = lab.search(short, ("tpe", "random"), {})
    by_pull = {question.pulls[0]: whole} | {
        pull: lab.search(setting, ("slimming",), {"slimming": {"pull": pull}}) for pull in question.pulls[1:]
    }
    points: dict[str, Architecture] = {}
    pruned = _pruned(lab, by_pull, points)
    fixed = [
        _control(lab, whole, name, search, points) for name in CONTROLS for search in range(question.searches)
    ]
    courses = _courses(whole, points, {name: name for name in SAMPLERS})
    courses += _courses(proxy, points, {"tpe": "tpe, short"})  # random's short trials are only ranked
    wanted = {(entry["search"], entry["architecture"]) for entry in (*pruned, *fixed)}
    wanted |= {(course["search"], trial["best"]) for course in courses for trial in course["trials"]}
    return {
        "pruned": pruned,
        "fixed": fixed,
        "courses": courses,
        "tests": _tests(lab, wanted, points),
        "proxy": _pairs(whole, proxy),
        "dense": setting.space.cost(setting.space.dense).to_json(),
        "epochs": {"whole": setting.recipe.epochs, "short": short.recipe.epochs},
        "made with": {cost.proposer: cost.made_with for cost in whole.costs if cost.made_with},
    }


def _shortened(setting: Setting, share: float) -> Any:
    return setting.recipe.replace(epochs=max(1, round(share * setting.recipe.epochs)))


def _pruned(
    lab: _Lab, by_pull: Mapping[float, Findings], points: dict[str, Architecture]
) -> list[dict[str, Any]]:
    """Slimming's points, one per search and pull, scored on validation as a trial is."""
    found = []
    for pull, findings in by_pull.items():
        costs = {cost.seed: cost for cost in findings.costs if cost.proposer == "slimming"}
        for search, point in enumerate(findings.points["slimming"]):
            trial = lab.setting.candidate(point.architecture, search)
            points[point.architecture.digest] = point.architecture
            found.append((pull, search, point, costs[search].macs, trial))
    scores = lab.accuracies(trial for *_, trial in found)
    return [
        {
            "search": search,
            "pull": pull,
            "architecture": point.architecture.digest,
            "flags": list(point.flags),
            "params": lab.setting.space.cost(point.architecture).params,
            "macs": lab.setting.space.cost(point.architecture).macs,
            "dense training macs": dense_macs,
            "training macs": trial.macs,
            "val": scores[trial.job.id],
        }
        for pull, search, point, dense_macs, trial in found
    ]


def _control(
    lab: _Lab, findings: Findings, name: str, search: int, points: dict[str, Architecture]
) -> dict[str, Any]:
    arch = findings.points[name][search].architecture
    points[arch.digest] = arch
    macs = lab.setting.space.cost(arch).macs
    return {"proposer": name, "search": search, "architecture": arch.digest, "macs": macs}


def _courses(
    findings: Findings, points: dict[str, Architecture], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What each search tried, in order, without repetitions, and what was best on validation by then."""
    starts = {cost.seed: cost.macs for cost in findings.costs if cost.proposer == "slimming"}
    courses: dict[tuple[str, int], dict[str, Any]] = {}
    for trial in findings.trials:
        if trial.proposer not in names:
            continue
        name, search = names[trial.proposer], trial.search_seed
        before = starts[search] if trial.proposer.endswith("+slimming") else 0
        start = {"proposer": name, "search": search, "before": before, "trials": []}
        tried = courses.setdefault((name, search), start)["trials"]
        if trial.duplicate:
            continue
        spec = read_json(Path(trial.folder) / "result.json")["spec"]
        points[trial.architecture] = Architecture.from_json(spec["architecture"])
        better = not tried or trial.val_score > tried[-1]["top"]
        tried.append(
            {
                "architecture": trial.architecture,
                "macs": trial.reached.macs,
                "training macs": trial.train_macs,
                "val": trial.val_score,
                "best": trial.architecture if better else tried[-1]["best"],
                "top": trial.val_score if better else tried[-1]["top"],
            }
        )
    return list(courses.values())


def _tests(
    lab: _Lab, wanted: Iterable[tuple[int, str]], points: Mapping[str, Architecture]
) -> list[dict[str, Any]]:
    """Test accuracies of winners, trained whole with fresh seeds; searches of one number share their seeds."""
    how = protocol("scratch-e")
    trainings = {
        (search, digest): [
            lab.setting.final(Proposal(lab.target, points[digest]), how, FRESH + 10 * search + j, None, False)
            for j in range(lab.question.retrain)
        ]
        for search, digest in sorted(wanted)
    }
    scores = lab.accuracies(training for own in trainings.values() for training in own)
    return [
        {"search": search, "architecture": digest, "test": [scores[t.job.id] for t in own]}
        for (search, digest), own in trainings.items()
    ]


def _pairs(whole: Findings, proxy: Findings) -> list[dict[str, Any]]:
    """Validation accuracies of the random points after a whole and after a short schedule: the same points."""
    short = {(t.search_seed, t.architecture): t.val_score for t in proxy.trials if t.proposer == "random"}
    pairs: dict[int, dict[str, Any]] = {}
    for trial in whole.trials:
        if trial.proposer == "random" and not trial.duplicate:
            own = pairs.setdefault(trial.search_seed, {"search": trial.search_seed, "whole": [], "short": []})
            own["whole"].append(trial.val_score)
            own["short"].append(short[trial.search_seed, trial.architecture])
    return list(pairs.values())
