"""What pruning is compared with: shapes that no training of their own finds.

`taper`, `shuffled` and `random-channels` answer a found point and rest on its search: the first matches its
parameters *and* MACs with two numbers, the second keeps its ratios and forgets which layers they belong to, the
third keeps its widths and forgets which channels they are of.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prunas import designs
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.designs import kernels
from prunas.errors import InputError
from prunas.names import MACS_NOT_MATCHED, TARGET_MISSED
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.pruning.channels import proposal
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace

__all__ = [
    "ErdosRenyiKernel",
    "Random",
    "RandomChannels",
    "Shuffled",
    "TaperControl",
    "Uniform",
    "UniformDepth",
    "UniformKernel",
    "flagged",
    "stage_profile",
]

Positions = npt.NDArray[np.int64]

NARROWEST = 0.1
"""Smallest stage ratio, relative to the widest stage, that random profiles and samplers draw."""


def flagged(space: SearchSpace, arch: Architecture, target: Target, *flags: str) -> Proposal:
    """A proposal that says whether it missed its target."""
    missed = (TARGET_MISSED,) if designs.missed(space, arch, target) else ()
    return Proposal(target, arch, (*flags, *missed))


def stage_profile(space: SearchSpace, stages: Sequence[float]) -> list[float]:
    """One ratio per dimension from one per stage, in the order of the stages that vary."""
    order = sorted({d.stage for d in space.dimensions})
    by_stage = dict(zip(order, stages, strict=True))
    return [by_stage[d.stage] for d in space.dimensions]


class Uniform:
    """One ratio for every width and gate, rounded and fitted to the target."""

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, once."""
        if trials:
            return []
        return [flagged(brief.space, designs.uniform(brief.space, t), t) for t in brief.targets]


class Random:
    """Log-uniform ratios per stage, down to a tenth of the widest, then one scalar to the target.

    With more than one trial per target this is random search: the best on the validation split is trained.
    """

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """`trials` points per target, once."""
        if trials:
            return []
        space = brief.space
        stages = len({d.stage for d in space.dimensions})
        proposals = []
        for target in brief.targets:
            generator = np.random.default_rng([brief.seed, target.value])
            for _ in range(brief.trials):
                drawn = np.exp(generator.uniform(np.log(NARROWEST), 0.0, stages))
                arch = designs.fit(space, stage_profile(space, drawn.tolist()), target)
                proposals.append(flagged(space, arch, target))
        return proposals


def _found(brief: Brief, name: str) -> Sequence[Proposal]:
    if not brief.found:
        raise InputError(
            f"proposer {name!r} answers points that a pruning method found; add one, such as --proposer slimming"
        )
    return brief.found


class TaperControl:
    """The tapered shape with the parameters and MACs of each found point; see `prunas.designs.taper`."""

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per found point, once; it carries the target that point was asked for."""
        if trials:
            return []
        proposals = []
        for found in _found(brief, "taper"):
            cost = brief.space.cost(found.architecture)
            made = designs.taper(brief.space, cost.params, cost.macs)
            flags = () if made.matched else (MACS_NOT_MATCHED,)
            proposals.append(flagged(brief.space, made.architecture, found.target, *flags))
        return proposals


class Shuffled:
    """Each found point with its ratios dealt anew among its layers.

    Args:
        draws: Shuffles per found point; each is trained.
    """

    def __init__(self, draws: int = 1) -> None:
        check_values("shuffled", draws=draws)
        self.draws = draws

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """`draws` points per found point, once."""
        if trials:
            return []
        space = brief.space
        proposals = []
        for found in _found(brief, "shuffled"):
            reached = Target(found.target.metric, space.measure(found.architecture, found.target.metric))
            for draw in range(self.draws):
                seed = int(np.random.SeedSequence([brief.seed, reached.value, draw]).generate_state(1)[0])
                arch = designs.shuffled(space, found.architecture, reached, seed)
                proposals.append(flagged(space, arch, found.target))
        return proposals


class RandomChannels:
    """Each found point with channels drawn at random: whether it matters which ones are inherited.

    Widths, the run the weights come from and how they are rebuilt are the found point's. A protocol that inherits
    nothing trains the found widths again.

    Args:
        draws: Choices of channels per found point; each is trained.
    """

    def __init__(self, draws: int = 1) -> None:
        check_values("random-channels", draws=draws)
        self.draws = draws

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """`draws` points per found point that comes with weights, once."""
        if trials:
            return []
        space = brief.space
        proposals = []
        for found in _found(brief, "random-channels"):
            if found.weights_of is None:
                continue
            counts, removed = space.counts(found.architecture), found.architecture.removed
            for draw in range(self.draws):
                generator = np.random.default_rng([brief.seed, found.target.value, draw])

                def choose(
                    dimension: int, there: Positions, count: int, draw: np.random.Generator = generator
                ) -> Positions:
                    return np.sort(draw.permutation(len(there))[:count])

                made = proposal(space, counts, choose, found.target, found.weights_of, removed)
                proposals.append(replace(made, rebuild=found.rebuild))
        return proposals


class UniformKernel:
    """One density for all convolution weights, the mask drawn with exact counts by the search seed."""

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, once."""
        if trials:
            return []
        made = [(t, kernels.uniform_kernels(brief.space, t, brief.seed)) for t in brief.targets]
        return [flagged(brief.space, arch, target) for target, arch in made]


class ErdosRenyiKernel:
    """Densities that spare small convolutions; see `prunas.designs.kernels.erk`."""

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, once."""
        if trials:
            return []
        made = [(t, kernels.erk(brief.space, t, brief.seed)) for t in brief.targets]
        return [flagged(brief.space, arch, target) for target, arch in made]


class UniformDepth:
    """Equally many blocks per stage, for each found point within the cost it reached.

    The last blocks of a stage go first. Depth offers few points, so that controls follow what was reached and not
    what was asked.
    """

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per found point, once."""
        if trials:
            return []
        proposals = []
        for found in _found(brief, "uniform-depth"):
            reached = brief.space.measure(found.architecture, found.target.metric)
            arch = designs.equal_depth(brief.space, Target(found.target.metric, reached))
            proposals.append(flagged(brief.space, arch, found.target))
        return proposals
