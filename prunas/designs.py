"""Designs: pure functions from a space, and perhaps found shapes, to a shape. No torch, no training.

They all speak of one number per dimension of a space, its *ratio*: the share of the dense units (or passing
channels) that is kept. `fit` brings a vector of ratios to a budget; the rest says where ratios come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture
from prunas.costs import Target
from prunas.errors import InputError
from prunas.space import SearchSpace

__all__ = [
    "TOLERANCE",
    "equal_depth",
    "fit",
    "guided",
    "missed",
    "ratios",
    "scaled",
    "shuffled",
    "stage_means",
    "taper",
    "transferred",
    "uniform",
]

TOLERANCE = 0.01
"""How far from its target a fitted shape may land before it is flagged."""

GOLDEN = (5**0.5 - 1) / 2

Ratios = npt.NDArray[np.float64]


def ratios(space: SearchSpace, arch: Architecture) -> Ratios:
    """Share of the dense count that a point keeps, shape (dimensions,), in (0, 1]."""
    return space.counts(arch) / space.dense_counts


def scaled(space: SearchSpace, keep: npt.ArrayLike) -> Architecture:
    """The point whose counts are the dense ones times `keep`, to the nearest step, at least the space's floor.

    Args:
        space: The space.
        keep: One ratio, or one per dimension.
    """
    return space.counted(space.grid(np.asarray(keep) * space.dense_counts + space.step / 2))


def fit(space: SearchSpace, profile: npt.ArrayLike, target: Target) -> Architecture:
    """The largest point of a profile within a budget.

    One scalar multiplies the profile, clipped at the dense counts and at the floor. Counts are rounded up or
    down so that layers of equal ratio keep their mean: of ten layers with 3.3 channels, three get 4. After
    the largest scalar within the budget, counts are raised by one step each, those that the scalar would raise
    next first, as long as the budget allows.

    Args:
        space: The space.
        profile: Positive weights, shape (dimensions,); only their proportions matter.
        target: The budget. If even the floor exceeds it, the floor is the answer.
    """
    dense, step = space.dense_counts, space.step
    if not len(dense):
        return space.dense
    weights = np.asarray(profile, float)
    wanted = weights / weights.max() * dense
    thresholds = np.arange(1, len(dense) + 1) * GOLDEN % 1 * step  # spread evenly over any run of layers

    def within(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return space.measures(counts, target.metric) <= target.value

    low, high = 0.5 / wanted.max(), float((dense / wanted).max())  # all at the floor, all dense
    for _ in range(6):  # narrows the bracket by 32 each time: to 1e-8 of the scalar
        scalars = np.geomspace(low, high, 33)
        fitting = int(within(space.grid(scalars[:, None] * wanted + thresholds)).sum())
        low, high = float(scalars[max(fitting - 1, 0)]), float(scalars[min(fitting, 32)])
    exact = np.minimum(low * wanted, dense) + thresholds
    counts = space.grid(exact)
    raised = space.grid(counts // step * step + step)
    waiting = np.argsort(counts - exact, kind="stable")
    waiting = waiting[raised[waiting] > counts[waiting]]

    def raising(which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """One row per row of `which`, which says what of `waiting` is raised in it."""
        table = np.tile(counts, (len(which), 1))
        table[:, waiting] = np.where(which, raised[waiting], counts[waiting])
        return table

    # What does not fit now never will; of the rest, all are raised that come before the next that does not fit.
    while len(waiting):
        waiting = waiting[within(raising(np.eye(len(waiting), dtype=bool)))]
        table = raising(np.tri(len(waiting), dtype=bool))
        fitting = int(within(table).sum())
        counts = table[fitting - 1] if fitting else counts
        waiting = waiting[fitting + 1 :]
    return space.counted(counts)


def missed(space: SearchSpace, arch: Architecture, target: Target) -> bool:
    """Whether a point lies further than `TOLERANCE` from its target."""
    return abs(space.measure(arch, target.metric) - target.value) > TOLERANCE * target.value


def uniform(space: SearchSpace, target: Target) -> Architecture:
    """One ratio for every dimension, fitted."""
    return fit(space, np.ones(len(space.dimensions)), target)


def equal_depth(space: SearchSpace, target: Target) -> Architecture:
    """The largest point within a budget that keeps the same share of the removable blocks in every stage.

    The share is rounded half up per stage, and a stage loses its last blocks first. If even no block at all
    exceeds the budget, that is the answer.
    """
    stages: dict[int, list[str]] = {}
    for block in space.survey.blocks:
        if block.name in space.removable:
            stages.setdefault(block.stage, []).append(block.name)
    # Every share at which some stage's rounding changes, from all blocks to none.
    shares = {(i - 0.5) / len(blocks) for blocks in stages.values() for i in range(1, len(blocks) + 1)}
    for share in sorted({1.0, 0.0, *shares}, reverse=True):
        removed = [name for blocks in stages.values() for name in blocks[int(share * len(blocks) + 0.5) :]]
        arch = space.point(removed=removed)
        if space.measure(arch, target.metric) <= target.value:
            return arch
    return arch


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
            lands; a budget fits them by one scalar (`fitted`).
    """
    return transferred(space, found, space, target)


def transferred(
    source: SearchSpace, found: Sequence[Architecture], space: SearchSpace, target: Target | None = None
) -> Architecture:
    """The mean stage ratios of shapes found in one space, applied to another.

    Stages correspond by their ordinal; a role that the source stage does not have takes the stage's plain mean
    over roles. Ratios carry over, not counts: they agree where the networks have equal widths, as VGGs have.

    Raises:
        InputError: The networks have different numbers of stages with something to vary.
    """
    means = stage_means(source, found)
    ours, theirs = (sorted({d.stage for d in s.dimensions}) for s in (space, source))
    if len(ours) != len(theirs):
        raise InputError(
            f"space {source.name!r} varies {len(theirs)} stages and {space.name!r} {len(ours)}; "
            "stages correspond one to one, so choose networks with as many"
        )
    match = dict(zip(ours, theirs, strict=True))
    profile = []
    for d in space.dimensions:
        stage = match[d.stage]
        over_roles = float(np.mean([value for (s, _), value in means.items() if s == stage]))
        profile.append(means.get((stage, d.role), over_roles))
    return scaled(space, profile) if target is None else fit(space, profile, target)
