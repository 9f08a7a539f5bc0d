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

Ratios = npt.NDArray[np.float64]


def ratios(space: SearchSpace, arch: Architecture) -> Ratios:
    """Share of the dense count that a point keeps, shape (dimensions,), in (0, 1]."""
    return space.counts(arch) / _dense(space)


def scaled(space: SearchSpace, keep: npt.ArrayLike) -> Architecture:
    """The point whose counts are the dense ones times `keep`, rounded half up, at least the space's floor.

    Args:
        space: The space.
        keep: One ratio, or one per dimension.
    """
    return space.counted(space.grid(np.floor(np.asarray(keep) * _dense(space) + 0.5)))


def fit(space: SearchSpace, profile: npt.ArrayLike, target: Target) -> Architecture:
    """The largest point of a profile within a budget.

    One scalar multiplies the profile, clipped at the dense counts and at the floor; counts are rounded down at
    the largest scalar that stays within the budget, and then raised by one step each, largest remainder first,
    as long as the budget allows.

    Args:
        space: The space.
        profile: Positive weights, shape (dimensions,); only their proportions matter.
        target: The budget.
    """
    weights = np.asarray(profile, float)
    dense = _dense(space)
    if not len(dense):
        return space.dense
    wanted = weights / weights.max() * dense
    low, high = 0.0, float((dense / wanted).max())
    for _ in range(6):  # narrows the bracket by 32 each time: to 1e-9 of its width
        scalars = np.linspace(low, high, 33)
        cost = space.measures(space.grid(scalars[:, None] * wanted), target.metric)
        within = int((cost <= target.value).sum())
        low, high = float(scalars[max(within - 1, 0)]), float(scalars[min(within, 32)])
    exact = np.minimum(low * wanted, dense)
    counts = space.grid(exact)
    remainder = exact - counts
    for i in np.argsort(-remainder, kind="stable"):
        raised = counts.copy()
        raised[i] = min(counts[i] // space.step * space.step + space.step, dense[i])
        if raised[i] > counts[i] and space.measures(raised, target.metric)[0] <= target.value:
            counts = raised
    return space.counted(counts)


def missed(space: SearchSpace, arch: Architecture, target: Target) -> bool:
    """Whether a point lies further than `TOLERANCE` from its target."""
    return abs(space.measure(arch, target.metric) - target.value) > TOLERANCE * target.value


def uniform(space: SearchSpace, target: Target) -> Architecture:
    """One ratio for every dimension, fitted."""
    return fit(space, np.ones(len(space.dimensions)), target)


class Taper(NamedTuple):
    """A tapered shape.

    Attributes:
        architecture: The point.
        start: Width a of the first stage.
        factor: Factor b from one stage to the next.
        matched: Whether its MACs lie within `TOLERANCE` of those asked for.
    """

    architecture: Architecture
    start: float
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
    dense = _dense(space)
    stage = np.array([d.stage for d in space.dimensions])
    widest = np.array([dense[stage == s].max() for s in stage])

    def profile(start: float, log_factor: float) -> Ratios:
        return np.minimum(1.0, start * np.exp(log_factor * stage) / widest)

    def start_for(log_factor: float) -> float:
        low, high = 1e-3, float((widest / np.exp(log_factor * stage)).max())
        for _ in range(50):
            middle = (low * high) ** 0.5
            cost = space.measures(profile(middle, log_factor) * dense, "params")[0]
            low, high = (middle, high) if cost <= params else (low, middle)
        return low

    def macs_at(log_factor: float) -> int:
        return int(space.measures(profile(start_for(log_factor), log_factor) * dense, "macs")[0])

    low, high = -3.0, 3.0  # from 20 times narrower to 20 times wider per stage; MACs fall as the factor grows
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if macs_at(middle) >= macs else (low, middle)
    start = start_for(low)
    arch = fit(space, profile(start, low), Target("params", params))
    reached = space.measure(arch, "macs")
    return Taper(arch, start, float(np.exp(low)), abs(reached - macs) <= 2 * TOLERANCE * macs)


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


def _dense(space: SearchSpace) -> Ratios:
    return np.array([d.dense for d in space.dimensions], float)
