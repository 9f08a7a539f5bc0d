"""An Optuna study made again from finished trials, so that a sampler is a pure function of them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.baselines.controls import NARROWEST, flagged
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.optuna.lengths import first_lengths
from prunas.proposers.optuna.profiles import PROFILES
from prunas.proposers.replay import DUPLICATES, Replay

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import FloatDistribution

    from prunas.proposers.optuna.samplers import Sampler

__all__ = ["StudyReplay", "quiet"]


@dataclass(slots=True)
class Candidate:
    """A point that was asked of Optuna and not yet told.

    Attributes:
        trial: Optuna's.
        proposal: Ours, with the schedule that is due.
        waiting: Whether it was proposed and has no result.
    """

    trial: "optuna.Trial"
    proposal: Proposal
    waiting: bool = False


class StudyReplay(Replay):
    """One study: what was told to it, and what is open.

    Args:
        sampler: The proposer, with its settings.
        brief: What is asked.
        target: The budget.
    """

    def __init__(self, sampler: "Sampler", brief: Brief, target: Target) -> None:
        import optuna

        super().__init__(brief, target)
        self.sampler = sampler
        self.profile = PROFILES[sampler.vary](brief.space, sampler.level, target, brief.seed)
        self.found_points = tuple(
            dict.fromkeys(point.architecture for point in brief.found if point.target == target)
        )
        if sampler.neighbourhood and not self.found_points:
            name = type(sampler).__name__.lower()
            raise InputError(
                f"{name}: neighbourhood wants a found point of every target; name who finds it: {name}+slimming"
            )
        with quiet():
            self.study = self._new_study()
        full_range = optuna.distributions.FloatDistribution(NARROWEST, 1.0, log=True)
        self.ranges: dict[str, FloatDistribution] = dict.fromkeys(self.profile.names, full_range)
        self.open: list[Candidate] = []
        self.scores: dict[float, list[float]] = {}
        self.known: set[tuple[Architecture, float]] = set()
        self.spent = 0.0
        self.asked = 0
        self.repeats = 0
        self.starts = first_lengths(sampler.halving, sampler.shortest)

    def _waiting(self) -> list[Proposal]:
        return [candidate.proposal for candidate in self.open if candidate.waiting]

    def _begin_round(self) -> None:
        """Once all are answered: new candidates, and those that go on to a longer schedule."""
        if any(candidate.waiting for candidate in self.open):
            return
        if self.asked < len(self.found_points):
            for arch in self.found_points:
                self._ask(arch)
        elif self.asked > len(self.found_points) or not self.open:  # found points are brought to an end first
            if self.asked == len(self.found_points) > 0:
                self._narrow_ranges()
            while len(self.open) < self.sampler.batch and self._wanted():
                self._ask()
        for candidate in self.open:
            candidate.waiting = True

    def _wanted(self) -> bool:
        if len(self.profile.names) == 1 and self.asked:
            return False  # all profiles of one number are the same point
        coming = sum(candidate.proposal.fraction for candidate in self.open)
        return self.spent + coming < self.brief.trials - 1e-9 and self.repeats < DUPLICATES

    def _narrow_ranges(self) -> None:
        """A new study around the best of the found points, once they are scored, if the sampler asks for one."""
        import optuna

        reach = 1 + self.sampler.neighbourhood
        if reach == 1 and self.sampler.starts_in_the_middle:
            reach = NARROWEST**-0.5  # ranges as wide as ever
        if reach == 1:
            return
        scores = {
            trial.proposal.architecture: trial.score
            for trial in self.results
            if trial.proposal.fraction == 1 and trial.score is not None
        }
        if not scores:
            if self.sampler.neighbourhood:
                name = type(self.sampler).__name__.lower()
                raise InputError(
                    f"{name}: no found point of {self.target.label} could be trained, and neighbourhood wants one "
                    "to search around"
                )
            return  # as if nothing had been found
        centre = self.profile.of(max(scores, key=lambda arch: self.brief.score.gain(scores[arch], 0.0)))
        self.ranges = {
            name: optuna.distributions.FloatDistribution(value / reach, value * reach, log=True)
            for name, value in centre.items()
        }
        # Other ranges are another study: Optuna would take parameters whose ranges differ for unrelated ones.
        self.study = self._new_study()
        for arch, score in scores.items():
            params = self.profile.of(arch)
            if all(
                self.ranges[name].low <= value <= self.ranges[name].high for name, value in params.items()
            ):
                self._add(params, self._values(arch, score))

    def _new_study(self) -> "optuna.Study":
        import optuna

        seed = int(np.random.SeedSequence([self.brief.seed, self.target.value]).generate_state(1)[0])
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        first = up if self.brief.score.better == "higher" else down
        return optuna.create_study(
            directions=[first, down] if self.sampler.two_objectives else [first],
            sampler=self.sampler.make(seed),
        )

    def _add(self, params: dict[str, float], values: list[float]) -> None:
        """Tells a result that was not asked for."""
        import optuna

        made = optuna.trial.create_trial(params=params, distributions=dict(self.ranges), values=values)
        self.study.add_trial(made)

    def _values(self, arch: Architecture, score: float) -> list[float]:
        if not self.sampler.two_objectives:
            return [score]
        return [
            score,
            self.brief.space.measure(arch, "params" if self.target.metric == "macs" else "macs"),
        ]

    def _ask(self, arch: Architecture | None = None) -> None:
        """Adds a candidate: a found point, or what Optuna draws."""
        if arch is not None:
            self.study.enqueue_trial(self._clipped(arch))
        trial = self.study.ask(dict(self.ranges))
        point = self.profile.point(trial.params) if arch is None else arch
        proposal = flagged(self.brief.space, point, self.target)
        fraction = self.starts[self.asked % len(self.starts)]
        self.open.append(Candidate(trial, replace(proposal, fraction=fraction)))
        self.asked += 1

    def _clipped(self, arch: Architecture) -> dict[str, float]:
        return {
            name: float(np.clip(value, self.ranges[name].low, self.ranges[name].high))
            for name, value in self.profile.of(arch).items()
        }

    def _tell(self, result: Trial) -> None:
        import optuna

        self.results.append(result)
        arch, fraction, score = result.proposal.architecture, result.proposal.fraction, result.score
        if (arch, fraction) in self.known:
            self.repeats += 1
        else:
            self.known.add((arch, fraction))
            self.spent += fraction
            self.repeats = 0
        rivals = self.scores.setdefault(fraction, [])
        if score is not None:
            rivals.append(score)
        waiting = (c for c in self.open if c.waiting and c.proposal.architecture == arch)
        candidate = next((c for c in waiting if c.proposal.fraction == fraction), None)
        if candidate is None:  # a history that this sampler did not make
            if fraction == 1 and score is not None:
                self._add(self._clipped(arch), self._values(arch, score))
            return
        candidate.waiting = False
        if score is None:
            self.study.tell(candidate.trial, state=optuna.trial.TrialState.FAIL)
        elif fraction == 1:
            self.study.tell(candidate.trial, self._values(arch, score))
        else:
            candidate.trial.report(score, round(100 * fraction))
            better = sum(self.brief.score.gain(rival, score) > 0 for rival in rivals)
            if better < max(1, len(rivals) // self.sampler.halving):
                longer = next(f for f in sorted(set(self.starts)) if f > fraction)
                candidate.proposal = replace(candidate.proposal, fraction=longer)
                return
            self.study.tell(candidate.trial, state=optuna.trial.TrialState.PRUNED)
        self.open.remove(candidate)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from telling about every trial and study, and about what it calls experimental."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
