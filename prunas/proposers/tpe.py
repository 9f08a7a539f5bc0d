"""Optuna's tree-structured Parzen estimator over stage profiles, at the same budget as everyone.

Reference:
    Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Optuna 5 (Akiba et al. 2019).

One parameter per stage that varies: its ratio, log-uniform between a tenth and one. The profile is then fitted
to the target by one scalar, else nearly every trial would miss the budget. Each target has a study of its own.

The study is derived from the trials at every call and the sampler seeded by (search seed, target, number of
trials), so that proposals depend on nothing else, and a killed search continues as if it had not been.
"""

from collections.abc import Sequence

import numpy as np

from prunas import designs
from prunas.costs import Target
from prunas.errors import InputError
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.controls import NARROWEST, flagged, stage_profile
from prunas.space import SearchSpace

__all__ = ["TPE"]


class TPE:
    """A sampler: the best of its trials on the validation split becomes the point.

    Args:
        startup: Trials drawn at random before the estimator is used.
    """

    def __init__(self, startup: int = 5) -> None:
        self.startup = startup

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """The next candidate of every target that has trials left."""
        proposals = []
        for number, target in enumerate(brief.targets):
            done = [trial for trial in trials if trial.proposal.target == target]
            if len(done) < brief.trials:
                proposals.append(self._next(brief, number, target, done))
        return proposals

    def _next(self, brief: Brief, number: int, target: Target, done: Sequence[Trial]) -> Proposal:
        import optuna

        space = brief.space
        stages = sorted({d.stage for d in space.dimensions})
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            f"stage{stage}": optuna.distributions.FloatDistribution(NARROWEST, 1.0, log=True)
            for stage in stages
        }
        seed = int(np.random.SeedSequence([brief.seed, number, len(done)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup, multivariate=True, constant_liar=False
        )
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for trial in done:
                study.add_trial(
                    optuna.trial.create_trial(
                        params=_profile(space, trial.proposal),
                        distributions=distributions,
                        value=trial.accuracy,
                    )
                )
            drawn = study.ask(distributions).params
        finally:
            optuna.logging.set_verbosity(verbosity)
        arch = designs.fit(space, stage_profile(space, [drawn[f"stage{stage}"] for stage in stages]), target)
        if not space.contains(arch):
            raise InputError(f"tpe proposed a point outside space {space.name!r}: {arch}")
        return flagged(space, arch, target)


def _profile(space: SearchSpace, proposal: Proposal) -> dict[str, float]:
    """A point's stage ratios relative to its widest stage: the parameters that stand for it in the study."""
    means = designs.stage_means(space, [proposal.architecture])
    by_stage: dict[int, list[float]] = {}
    for (stage, _), value in means.items():
        by_stage.setdefault(stage, []).append(value)
    ratios = {stage: float(np.mean(values)) for stage, values in by_stage.items()}
    widest = max(ratios.values())
    return {f"stage{s}": float(np.clip(r / widest, NARROWEST, 1.0)) for s, r in ratios.items()}
