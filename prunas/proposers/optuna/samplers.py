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
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.optuna.replay import StudyReplay, quiet
from prunas.proposers.registry import check_values
from prunas.proposers.replay import call, one_thread, replayed

if TYPE_CHECKING:
    import optuna

__all__ = ["CMAES", "GP", "NSGA2", "QMC", "TPE", "Sampler"]


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
            paid for in full. `trials` then counts full schedules' worth. gp learns from full schedules only.
        shortest: The shortest schedule, as a share of the recipe's.
    """

    vary: str = "width"
    level: str = "stage"
    neighbourhood: float = 0.0
    batch: int = 1
    halving: int = 0
    shortest: float = 0.1
    _replays: dict[Target, "StudyReplay"] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        ours, theirs = call(type(self).__name__, self._settings), call(self.optuna_name, self.arguments())
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
        with quiet():
            return replayed(
                self._replays, brief, trials, lambda told, target: StudyReplay(self, told, target)
            )


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
        from threadpoolctl import threadpool_limits

        with one_thread(), threadpool_limits(1):
            return super().propose(brief, trials)


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
    """NSGA-II on two objectives: the score, and the cost that the target leaves open.

    Shapes of equal parameters differ several times in MACs, so these are minimised where the target counts
    parameters or channels, and parameters where it counts MACs. The answer is the trial with the best score, as
    of any sampler.

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
            raise InputError("nsga2: halving compares by score alone; leave it out, or use another sampler")

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
