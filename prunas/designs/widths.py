"""Designs: pure functions from a space, and perhaps found shapes, to a shape. No torch, no training.

They all speak of one number per dimension of a space, its *ratio*: the share of the dense units (or passing
channels) that is kept. `fit` brings a vector of ratios to a budget; the rest says where ratios come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.designs.fit import TOLERANCE, fit, ratios, scaled
from prunas.designs.stages import match
from prunas.errors import InputError
from prunas.spaces.space import SearchSpace

__all__ = ["guided", "shuffled", "stage_means", "taper", "transferred", "uniform"]


def uniform(space: SearchSpace, target: Target) -> Architecture:
    """One ratio for every dimension, fitted."""
    return fit(space, np.ones(len(space.dimensions)), target)


class Taper(NamedTuple):
    """A tapered shape.

    Attributes:
        architecture: The point.
        factor: Factor b from one stage to the next.
        matched: Whether its parameters and MACs lie within `TOLERANCE` of those asked for.
    """

    architecture: Architecture
    factor: float
    matched: bool


def taper(space: SearchSpace, params: int, macs: int) -> Taper:
    """The shape min(W, a * b**s) of stage s that has given parameters and MACs.

    Two numbers decide all widths, without training: the control that asks whether a found shape is more than
    "keep the early layers wide". W is the largest dense count of a stage; smaller dimensions of the stage, such
    as the inner width of a bottleneck beside its input, are scaled alike.

    Args:
        space: The space.
        params: Parameters to reach.
        macs: MACs to reach with them. If no factor reaches them, the nearest end is taken and `matched` is False.
    """
    stage = np.array([d.stage for d in space.dimensions])
    widest = np.array([space.dense_counts[stage == s].max() for s in stage])

    def shape(log_factor: float, share: float = 1.0) -> tuple[Architecture, int]:
        """For every b, `fit` finds the a that reaches the parameters."""
        arch = fit(space, np.exp(log_factor * stage) / widest, Target("params", round(share * params)))
        return arch, space.cost(arch).macs

    def miss(arch: Architecture) -> float:
        cost = space.cost(arch)
        return max(abs(cost.params / params - 1), abs(cost.macs / macs - 1))

    low, high = -3.0, 3.0  # from 20 times narrower to 20 times wider per stage; MACs fall as the factor grows
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if shape(middle)[1] >= macs else (low, middle)
    # Counts are whole, so that MACs jump about their trend: the best shape is near, not always here.
    nearby = [(low + o, share) for o in np.linspace(-0.05, 0.05, 25) for share in (1.0, 0.997, 0.994)]
    arch, factor = min(((shape(*n)[0], n[0]) for n in nearby), key=lambda found: miss(found[0]))
    return Taper(arch, float(np.exp(factor)), miss(arch) <= TOLERANCE)


def shuffled(space: SearchSpace, arch: Architecture, target: Target, seed: int) -> Architecture:
    """The ratios of a point dealt anew among its dimensions, groups among groups, gates among gates; fitted.

    It keeps how unequally a shape treats its layers and forgets which layers those are.
    """
    generator = np.random.default_rng(seed)
    dealt = ratios(space, arch)
    for kind in ("group", "gate"):
        where = np.array([i for i, d in enumerate(space.dimensions) if d.kind == kind], int)
        dealt[where] = dealt[generator.permutation(where)]
    return fit(space, dealt, target)


def stage_means(space: SearchSpace, found: Sequence[Architecture]) -> dict[tuple[int, str], float]:
    """Mean ratio per (stage, role) over the dimensions and over the found points (section 5 of the study)."""
    if not found:
        raise InputError("a guided design needs at least one found point; run a search first")
    kept = np.mean([ratios(space, arch) for arch in found], 0)
    keys = [(d.stage, d.role) for d in space.dimensions]
    return {
        key: float(np.mean([kept[i] for i, k in enumerate(keys) if k == key])) for key in dict.fromkeys(keys)
    }


def guided(space: SearchSpace, found: Sequence[Architecture], target: Target | None = None) -> Architecture:
    """A shape with the mean stage ratios of found ones.

    Args:
        space: The space they were found in.
        found: The points, usually one per search seed at one target.
        target: None leaves the means untouched, as the study does (`as-found`), and the shape lands where it
            lands: every count is the mean's nearest step, half a step up, at least the space's floor. A budget
            fits them by one scalar (`fitted`), rounded as `fit` says.
    """
    return transferred(space, found, space, target)


def transferred(
    source: SearchSpace, found: Sequence[Architecture], space: SearchSpace, target: Target | None = None
) -> Architecture:
    """The mean stage ratios of shapes found in one space, applied to another.

    Stages correspond as `stages.match` says; a role that the source stage does not have takes the stage's
    plain mean over roles. Ratios carry over, not counts: they agree where the networks have equal widths, as VGGs
    have, and need no correspondence of layers, so that depths and data sets may differ. Rounding and floors are
    those of `guided`.

    Raises:
        InputError: There is no found point, or the stages of the two networks do not correspond.
    """
    means = stage_means(source, found)
    stages = match(source, space, "width").stages
    profile = []
    for d in space.dimensions:
        stage = stages[d.stage]
        over_roles = float(np.mean([value for (s, _), value in means.items() if s == stage]))
        profile.append(means.get((stage, d.role), over_roles))
    return scaled(space, profile) if target is None else fit(space, profile, target)
