"""Optuna's samplers over stage profiles, at the same budget as everyone.

References:
    Optuna: Akiba et al., KDD 2019; version 5. Of each sampler: see `prunas proposers --json`.

A study's parameters are a profile: one number per stage or layer, log-uniform between a tenth and one, of which
only the proportions matter. One scalar fits the profile to the target, else nearly every trial would miss the
budget. Each target has a study of its own.

A sampler is a pure function of brief and trials although Optuna's keep state: the study is rebuilt by asking and
telling again what was asked and told. A proposer that is called with a longer history than the last time goes on
from there instead, with the same outcome.

A shape may come again: small networks have few at a budget. It is proposed, costs nothing because its training is
there, counts as no trial, and is told to the sampler like any other.

A trial whose training failed (its loss is no number, say) counts, and is told to Optuna as failed: without a
value, so that its estimators leave it out.
"""

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunas import designs, kernels
from prunas.architecture import Architecture
from prunas.build.masks import kernel_masks
from prunas.costs import Target
from prunas.errors import InputError
from prunas.proposers import check_values
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.controls import NARROWEST, flagged
from prunas.space import SearchSpace

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import FloatDistribution

__all__ = ["CMAES", "GP", "NSGA2", "QMC", "TPE", "Sampler", "quiet", "stage_ratios"]

DUPLICATES = 30
"""Known shapes in a row after which a sampler has nothing new to say about a target."""


@dataclass(kw_only=True)
class Sampler:
    """What they have in common: the best of its trials on the validation split becomes the point.

    Points that pruning found (`prunas search --proposer tpe+slimming`) are its first trials.

    Attributes:
        vary: What the profile scales: `width`, `depth` (blocks kept) or `kernel` (densities).
        level: One parameter per `stage` (of kernels: per stage and kernel size), or per `layer` (of depth: per
            block).
        neighbourhood: If above 0, the search is confined to profiles in which every ratio lies within this share
            of that of the found point that is best on the validation split.
        batch: Candidates per target that may be trained at the same time.
        halving: If not 0, trials are stopped early by asynchronous successive halving (Li et al., MLSys 2020):
            a candidate is trained for a short schedule first, and for one that is so many times longer if it is
            among the best 1/`halving` of the schedules of that length so far. First lengths take turns as in
            Hyperband (Li et al., JMLR 18(185), 2018). Unlike there, every schedule is a training of its own, from
            scratch and with all its learning rate drops, because a score before the drops says little; each is
            paid for in full. `trials` then counts whole schedules' worth. gp learns from whole schedules only.
        shortest: The shortest schedule, as a share of the whole one.
    """

    vary: str = "width"
    level: str = "stage"
    neighbourhood: float = 0.0
    batch: int = 1
    halving: int = 0
    shortest: float = 0.1
    _courses: dict[Target, "_Course"] = field(default_factory=dict, init=False, repr=False, compare=False)

    optuna_name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    two_objectives: ClassVar[bool] = False
    starts_in_the_middle: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses settings that mean nothing, and a package that is missing."""
        name = type(self).__name__.lower()
        check_values(name, **self._settings)
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"proposer {name!r} needs the package {package}; pip install 'prunas[samplers]'"
                )

    def arguments(self) -> dict[str, Any]:
        """What Optuna's sampler is constructed with, besides a seed; JSON values."""
        raise NotImplementedError

    @property
    def _settings(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @property
    def made_with(self) -> str:
        """Everything that decides what is proposed: settings, Optuna's class and arguments, versions."""
        packages = ("optuna", *self.packages)
        versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
        ours, theirs = _call(type(self).__name__, self._settings), _call(self.optuna_name, self.arguments())
        return f"{ours} by {theirs} of {versions}"

    def make(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Optuna's sampler, drawing from a seed."""
        import optuna

        made: optuna.samplers.BaseSampler = getattr(optuna.samplers, self.optuna_name)(
            seed=seed, **self.arguments()
        )
        return made

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """The next candidates of every target that has trials left."""
        proposals = []
        for target in brief.targets:
            told = [trial for trial in trials if trial.proposal.target == target]
            course = self._courses.pop(target, None)  # one that is interrupted is made anew
            if course is None or not course.leads_to(brief, told):
                course = _Course(self, brief, target)
            with quiet():
                proposals += course.after(told)
            self._courses[target] = course
        return proposals


@dataclass(kw_only=True)
class TPE(Sampler):
    """Tree-structured Parzen estimator, multivariate.

    Attributes:
        startup: Trials drawn at random before the estimator is used.
    """

    startup: int = 5

    optuna_name = "TPESampler"

    def arguments(self) -> dict[str, Any]:
        """See `Sampler.arguments`."""
        return {
            "n_startup_trials": self.startup,
            "n_ei_candidates": 24,
            "multivariate": True,
            "group": False,
            "constant_liar": self.batch > 1,
        }


@dataclass(kw_only=True)
class GP(Sampler):
    """Gaussian process with a Matern kernel and log expected improvement.

    Attributes:
        startup: Trials drawn at random before the process is fitted.
    """

    startup: int = 5

    optuna_name = "GPSampler"
    packages = ("torch", "scipy", "greenlet")

    def arguments(self) -> dict[str, Any]:
        """See `Sampler.arguments`."""
        return {
            "n_startup_trials": self.startup,
            "deterministic_objective": False,
            "warn_independent_sampling": False,
        }

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """As `Sampler.propose`, with one thread: matrices are small, and sums depend on the number of threads."""
        import torch
        from threadpoolctl import threadpool_limits

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with threadpool_limits(1):
                return super().propose(brief, trials)
        finally:
            torch.set_num_threads(threads)


@dataclass(kw_only=True)
class CMAES(Sampler):
    """Covariance matrix adaptation; it starts in the middle of its ranges, or at the best found point.

    Attributes:
        population: Points per generation.
    """

    population: int = 8

    optuna_name = "CmaEsSampler"
    starts_in_the_middle = True
    packages = ("cmaes",)

    def arguments(self) -> dict[str, Any]:
        """See `Sampler.arguments`."""
        return {
            "n_startup_trials": 1,
            "popsize": self.population,
            "consider_pruned_trials": self.halving > 0,
            "warn_independent_sampling": False,
        }


@dataclass(kw_only=True)
class NSGA2(Sampler):
    """NSGA-II on two objectives: accuracy, and the cost that the target leaves open.

    Shapes of equal parameters differ several times in MACs, so these are minimised where the target counts
    parameters or channels, and parameters where it counts MACs. The answer is the most accurate trial, as of any
    sampler.

    Attributes:
        population: Points per generation.
    """

    population: int = 8

    optuna_name = "NSGAIISampler"
    two_objectives = True

    def __post_init__(self) -> None:
        """Refuses what two objectives do not allow."""
        super().__post_init__()
        if self.halving:
            raise InputError(
                "nsga2: halving compares by accuracy alone; leave it out, or use another sampler"
            )

    def arguments(self) -> dict[str, Any]:
        """See `Sampler.arguments`."""
        return {"population_size": self.population, "crossover_prob": 0.9, "swapping_prob": 0.5}


@dataclass(kw_only=True)
class QMC(Sampler):
    """Quasi-random points, which fill the space more evenly than random ones; results do not steer it."""

    optuna_name = "QMCSampler"
    packages = ("scipy",)

    def arguments(self) -> dict[str, Any]:
        """See `Sampler.arguments`."""
        return {
            "qmc_type": "sobol",
            "scramble": True,
            "warn_asynchronous_seeding": False,
            "warn_independent_sampling": False,
        }


@dataclass(slots=True)
class _Candidate:
    """A point that was asked of Optuna and not yet told.

    Attributes:
        trial: Optuna's.
        proposal: Ours, with the schedule that is due.
        waiting: Whether it was proposed and has no result.
    """

    trial: "optuna.Trial"
    proposal: Proposal
    waiting: bool = False


class _Course:
    """One study: what was told to it, and what is open.

    Args:
        sampler: Whose.
        brief: What is asked.
        target: The budget.
    """

    def __init__(self, sampler: Sampler, brief: Brief, target: Target) -> None:
        import optuna

        self.sampler, self.brief, self.target = sampler, brief, target
        self.profile = PROFILES[sampler.vary](brief.space, sampler.level, target, brief.seed)
        self.found = tuple(
            dict.fromkeys(point.architecture for point in brief.found if point.target == target)
        )
        if sampler.neighbourhood and not self.found:
            name = type(sampler).__name__.lower()
            raise InputError(
                f"{name}: neighbourhood wants a found point of every target; name who finds it: {name}+slimming"
            )
        with quiet():
            self.study = self._new_study()
        whole = optuna.distributions.FloatDistribution(NARROWEST, 1.0, log=True)
        self.ranges: dict[str, FloatDistribution] = dict.fromkeys(self.profile.names, whole)
        self.told: list[Trial] = []
        self.open: list[_Candidate] = []
        self.scores: dict[float, list[float]] = {}
        self.known: set[tuple[Architecture, float]] = set()
        self.spent = 0.0
        self.asked = 0
        self.barren = 0
        self.starts = _first_lengths(sampler.halving, sampler.shortest)

    def leads_to(self, brief: Brief, trials: Sequence[Trial]) -> bool:
        """Whether this course, told the last of the trials, is the one these would have made."""
        ours = self.brief
        same = (ours.space, ours.seed, ours.trials, ours.found) == (
            brief.space, brief.seed, brief.trials, brief.found
        )  # fmt: skip
        return same and self.told == list(trials[: len(self.told)])

    def after(self, trials: Sequence[Trial]) -> list[Proposal]:
        """What is proposed after these trials, the first of which were told before."""
        for trial in trials[len(self.told) :]:
            self._begin_round()
            self._tell(trial)
        self._begin_round()
        return [candidate.proposal for candidate in self.open if candidate.waiting]

    def _begin_round(self) -> None:
        """Once all are answered: new candidates, and those that go on to a longer schedule."""
        if any(candidate.waiting for candidate in self.open):
            return
        if self.asked < len(self.found):
            for arch in self.found:
                self._ask(arch)
        elif self.asked > len(self.found) or not self.open:  # found points are brought to an end first
            if self.asked == len(self.found) > 0:
                self._settle_down()
            while len(self.open) < self.sampler.batch and self._wanted():
                self._ask()
        for candidate in self.open:
            candidate.waiting = True

    def _wanted(self) -> bool:
        if len(self.profile.names) == 1 and self.asked:
            return False  # all profiles of one number are the same point
        coming = sum(candidate.proposal.fraction for candidate in self.open)
        return self.spent + coming < self.brief.trials - 1e-9 and self.barren < DUPLICATES

    def _settle_down(self) -> None:
        """After the found points, before the first of its own: a study around the best of them, if it is to be."""
        import optuna

        reach = 1 + self.sampler.neighbourhood
        if reach == 1 and self.sampler.starts_in_the_middle:
            reach = NARROWEST**-0.5  # ranges as wide as ever
        if reach == 1:
            return
        scores = {
            trial.proposal.architecture: trial.accuracy
            for trial in self.told
            if trial.proposal.fraction == 1 and trial.accuracy is not None
        }
        if not scores:
            if self.sampler.neighbourhood:
                name = type(self.sampler).__name__.lower()
                raise InputError(
                    f"{name}: no found point of {self.target.label} could be trained, and neighbourhood wants one "
                    "to search around"
                )
            return  # as if nothing had been found
        centre = self.profile.of(max(scores, key=scores.__getitem__))
        self.ranges = {
            name: optuna.distributions.FloatDistribution(value / reach, value * reach, log=True)
            for name, value in centre.items()
        }
        # Other ranges are another study: Optuna would take parameters whose ranges differ for unrelated ones.
        self.study = self._new_study()
        for arch, accuracy in scores.items():
            params = self.profile.of(arch)
            if all(
                self.ranges[name].low <= value <= self.ranges[name].high for name, value in params.items()
            ):
                self._add(params, self._values(arch, accuracy))

    def _new_study(self) -> "optuna.Study":
        import optuna

        seed = int(np.random.SeedSequence([self.brief.seed, self.target.value]).generate_state(1)[0])
        return optuna.create_study(
            directions=["maximize", "minimize"] if self.sampler.two_objectives else ["maximize"],
            sampler=self.sampler.make(seed),
        )

    def _add(self, params: dict[str, float], values: list[float]) -> None:
        """Tells a result that was not asked for."""
        import optuna

        made = optuna.trial.create_trial(params=params, distributions=dict(self.ranges), values=values)
        self.study.add_trial(made)

    def _values(self, arch: Architecture, accuracy: float) -> list[float]:
        if not self.sampler.two_objectives:
            return [accuracy]
        return [
            accuracy,
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
        self.open.append(_Candidate(trial, replace(proposal, fraction=fraction)))
        self.asked += 1

    def _clipped(self, arch: Architecture) -> dict[str, float]:
        return {
            name: float(np.clip(value, self.ranges[name].low, self.ranges[name].high))
            for name, value in self.profile.of(arch).items()
        }

    def _tell(self, result: Trial) -> None:
        import optuna

        self.told.append(result)
        arch, fraction, accuracy = result.proposal.architecture, result.proposal.fraction, result.accuracy
        if (arch, fraction) in self.known:
            self.barren += 1
        else:
            self.known.add((arch, fraction))
            self.spent += fraction
            self.barren = 0
        rivals = self.scores.setdefault(fraction, [])
        if accuracy is not None:
            rivals.append(accuracy)
        mine = (c for c in self.open if c.waiting and c.proposal.architecture == arch)
        candidate = next((c for c in mine if c.proposal.fraction == fraction), None)
        if candidate is None:  # a history that this sampler did not make
            if fraction == 1 and accuracy is not None:
                self._add(self._clipped(arch), self._values(arch, accuracy))
            return
        candidate.waiting = False
        if accuracy is None:
            self.study.tell(candidate.trial, state=optuna.trial.TrialState.FAIL)
        elif fraction == 1:
            self.study.tell(candidate.trial, self._values(arch, accuracy))
        else:
            candidate.trial.report(accuracy, round(100 * fraction))
            if sum(rival > accuracy for rival in rivals) < max(1, len(rivals) // self.sampler.halving):
                longer = next(f for f in sorted(set(self.starts)) if f > fraction)
                candidate.proposal = replace(candidate.proposal, fraction=longer)
                return
            self.study.tell(candidate.trial, state=optuna.trial.TrialState.PRUNED)
        self.open.remove(candidate)


def _first_lengths(halving: int, shortest: float) -> tuple[float, ...]:
    """Share of the schedule that candidates are first trained for, in turn; Hyperband's numbers of them.

    Li et al., algorithm 1: so many start short that all lengths cost about as much.
    """
    if not halving:
        return (1.0,)
    fractions = [1.0]
    while fractions[-1] / halving > shortest * (1 - 1e-9):
        fractions.append(fractions[-1] / halving)
    count = len(fractions)
    return tuple(
        fractions[s]
        for s in reversed(range(count))
        for _ in range(int(np.ceil(count / (s + 1) * halving**s)))
    )


@dataclass(frozen=True, slots=True)
class _Profile:
    """What a study's parameters mean: one ratio per part that varies, and the point they are fitted to.

    Attributes:
        keys: Name of the parameter that each part shares, in the order of the parts.
        ratios: Of a point, what it keeps of each part, in [0, 1].
        point: From ratios to the point that fits the target.
    """

    keys: tuple[str, ...]
    ratios: Callable[[Architecture], npt.ArrayLike]
    fit: Callable[[npt.NDArray[np.float64]], Architecture]

    @property
    def names(self) -> list[str]:
        """The parameters, in order."""
        return list(dict.fromkeys(self.keys))

    def point(self, params: Mapping[str, float]) -> Architecture:
        """The point of a study's parameters."""
        return self.fit(np.array([params[key] for key in self.keys]))

    def means(self, arch: Architecture) -> dict[str, float]:
        """What a point keeps, by parameter."""
        kept = np.asarray(self.ratios(arch), float)
        return {name: float(kept[[key == name for key in self.keys]].mean()) for name in self.names}

    def of(self, arch: Architecture) -> dict[str, float]:
        """A point as parameters, in [NARROWEST, 1].

        Only their proportions matter, because they are fitted by one scalar: of all profiles with these
        proportions, the one in the middle of the range stands for them, so that neighbouring shapes are neighbours
        for a sampler too.
        """
        means = {name: max(mean, 1e-6) for name, mean in self.means(arch).items()}
        scale = (NARROWEST / (min(means.values()) * max(means.values()))) ** 0.5
        return {name: float(np.clip(mean * scale, NARROWEST, 1.0)) for name, mean in means.items()}


def _widths(space: SearchSpace, level: str, target: Target, seed: int) -> _Profile:
    keys = tuple(f"stage{d.stage}" if level == "stage" else d.name for d in space.dimensions)
    return _Profile(keys, partial(designs.ratios, space), lambda ratios: designs.fit(space, ratios, target))


def _depth(space: SearchSpace, level: str, target: Target, seed: int) -> _Profile:
    """Blocks go in the order of the scalar at which they would be rounded away, until the budget is met.

    At stage level the last blocks of a stage go first.
    """
    blocks = [block for block in space.survey.blocks if block.name in space.removable]
    keys = tuple(f"stage{block.stage}" if level == "stage" else block.name for block in blocks)
    turn = np.array([keys[:i].count(key) + 0.5 for i, key in enumerate(keys)])
    count = np.array([keys.count(key) for key in keys])

    def fit(ratios: npt.NDArray[np.float64]) -> Architecture:
        order = np.argsort(turn / (count * ratios), kind="stable")
        for kept in range(len(blocks), -1, -1):
            arch = space.point(removed=[blocks[i].name for i in order[kept:]])
            if space.measure(arch, target.metric) <= target.value:
                break
        return arch

    def ratios(arch: Architecture) -> list[bool]:
        return [block.name not in arch.removed for block in blocks]

    return _Profile(keys, ratios, fit)


def _kernels(space: SearchSpace, level: str, target: Target, seed: int) -> _Profile:
    layers = [layer for layer in space.survey.layers if layer.kind == "conv"]
    keys = tuple(kernels.stage_key(layer) if level == "stage" else layer.path for layer in layers)

    def fit(ratios: npt.NDArray[np.float64]) -> Architecture:
        wanted = {
            key: np.full(int(np.prod(layer.kernel)), ratio)
            for key, layer, ratio in zip(keys, layers, ratios, strict=True)
        }
        return kernels.fit_kernels(space, wanted, target, seed)

    def ratios(arch: Architecture) -> list[float]:
        masks = kernel_masks(space.survey, arch)
        return [
            float(mask.mean()) if (mask := masks.get(f"{layer.path}.weight")) is not None else 1.0
            for layer in layers
        ]

    return _Profile(keys, ratios, fit)


PROFILES: Mapping[str, Callable[[SearchSpace, str, Target, int], _Profile]] = {
    "width": _widths,
    "depth": _depth,
    "kernel": _kernels,
}


def stage_ratios(space: SearchSpace, points: Sequence[Architecture]) -> list[dict[str, float]]:
    """What points of one search keep of each stage, as parameters of a study; of what the search varies."""
    vary = (
        "kernel" if any(p.masked for p in points) else "depth" if any(p.removed for p in points) else "width"
    )
    profile = PROFILES[vary](space, "stage", Target("params", 0), 0)
    return [profile.means(arch) for arch in points]


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


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
