"""Optuna's tree-structured Parzen estimator over stage profiles, at the same budget as everyone.

Reference:
    Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Optuna 5 (Akiba et al. 2019).

One parameter per stage that varies: its ratio, log-uniform between a tenth and one. The profile is then fitted
to the target by one scalar, else nearly every trial would miss the budget. Each target has a study of its own.

The study is derived from the trials at every call and the sampler seeded by (search seed, target, number of
trials), so that proposals depend on nothing else: a killed search continues as if it had not been, and another
target changes nothing for this one.
"""

from collections.abc import Sequence

import numpy as np

from prunas import designs
from prunas.architecture import Architecture
from prunas.costs import Target
from prunas.errors import InputError
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.controls import NARROWEST, flagged, stage_profile
from prunas.space import SearchSpace

__all__ = ["TPE"]


RETRIES = 10
"""Draws after which a shape may come a second time: small networks have few shapes at a budget."""


class TPE:
    """A sampler: the best of its trials on the validation split becomes the point.

    Args:
        startup: Trials drawn at random before the estimator is used.
    """

    def __init__(self, startup: int = 5) -> None:
        if startup < 1:
            raise InputError(f"tpe: startup must be at least 1, not {startup}")
        self.startup = startup

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """The next candidate of every target that has trials left."""
        proposals = []
        for target in brief.targets:
            done = [trial for trial in trials if trial.proposal.target == target]
            if len(done) < brief.trials:
                proposals.append(self._next(brief, target, done))
        return proposals

    def _next(self, brief: Brief, target: Target, done: Sequence[Trial]) -> Proposal:
        import optuna

        space = brief.space
        tried = {trial.proposal.architecture for trial in done}
        names = [f"stage{stage}" for stage in sorted({d.stage for d in space.dimensions})]
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.FloatDistribution(NARROWEST, 1.0, log=True) for name in names
        }
        seed = int(np.random.SeedSequence([brief.seed, target.value, len(done)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup, multivariate=True)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for trial in done:
                params = _profile(space, trial.proposal.architecture)
                study.add_trial(
                    optuna.trial.create_trial(
                        params=params, distributions=distributions, value=trial.accuracy
                    )
                )
            for _ in range(RETRIES):
                drawn = study.ask(distributions).params
                arch = designs.fit(space, stage_profile(space, [drawn[name] for name in names]), target)
                if arch not in tried:
                    break
        finally:
            optuna.logging.set_verbosity(verbosity)
        return flagged(space, arch, target)


def _profile(space: SearchSpace, arch: Architecture) -> dict[str, float]:
    """A point's stage ratios as parameters of the study.

    Only their proportions matter, because `fit` scales them: of all profiles with these proportions, the one in
    the middle of the range stands for them, so that neighbouring shapes are neighbours for the estimator too.
    """
    stages = np.array([d.stage for d in space.dimensions])
    kept = designs.ratios(space, arch)
    ratios = {stage: kept[stages == stage].mean() for stage in sorted(set(stages.tolist()))}
    scale = (NARROWEST / (min(ratios.values()) * max(ratios.values()))) ** 0.5
    return {f"stage{s}": float(np.clip(r * scale, NARROWEST, 1.0)) for s, r in ratios.items()}
