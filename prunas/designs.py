"""Designs: pure functions from a space, and perhaps found shapes, to a shape. No torch, no training.

They all speak of one number per dimension of a space, its *ratio*: the share of the dense units (or passing
channels) that is kept. `fit` brings a vector of ratios to a budget; the rest says where ratios come from.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture
from prunas.costs import Target, check_target
from prunas.errors import InputError, unknown
from prunas.space import SearchSpace
from prunas.stages import match

__all__ = [
    "TOLERANCE",
    "Rounding",
    "align",
    "depth_means",
    "equal_depth",
    "fit",
    "guided",
    "guided_depth",
    "missed",
    "ratios",
    "scaled",
    "shuffled",
    "stage_means",
    "taper",
    "transferred",
    "transferred_depth",
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
    check_target(target)
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

    def together() -> int:
        """How many of `waiting`, in order, are raised before the first that does not fit."""
        some, beyond = 0, len(waiting)
        while some < beyond:  # looks at sixteen places at a time
            ends = np.unique(np.linspace(some + 1, beyond, 16).round().astype(int))
            fitting = int(within(raising(np.arange(len(waiting)) < ends[:, None])).sum())
            some, beyond = (
                int(ends[fitting - 1]) if fitting else some,
                int(ends[fitting]) - 1 if fitting < len(ends) else beyond,
            )
        return some

    while len(waiting):
        number = together()
        counts = raising(np.arange(len(waiting))[None] < number)[0]
        waiting = waiting[number + 1 :]
        waiting = waiting[within(raising(np.eye(len(waiting), dtype=bool)))]  # the others never will
    return space.counted(counts)


def missed(space: SearchSpace, arch: Architecture, target: Target) -> bool:
    """Whether a point lies further than `TOLERANCE` from its target."""
    check_target(target)
    return abs(space.measure(arch, target.metric) - target.value) > TOLERANCE * target.value


def uniform(space: SearchSpace, target: Target) -> Architecture:
    """One ratio for every dimension, fitted."""
    return fit(space, np.ones(len(space.dimensions)), target)


def equal_depth(space: SearchSpace, target: Target) -> Architecture:
    """The largest point within a budget that keeps the same share of the removable blocks in every stage.

    Rounded as `transferred_depth` says.

    Raises:
        InputError: No block of the space may be removed.
    """
    if not space.removable:
        raise InputError(f"space {space.name!r} has no blocks that may be removed (see its [vary])")
    return _fit_depth(space, dict.fromkeys(_removable(space), 1.0), target)


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

    Stages correspond as `prunas.stages.match` says; a role that the source stage does not have takes the stage's
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


def depth_means(space: SearchSpace, found: Sequence[Architecture]) -> dict[int, float]:
    """Mean share of the removable blocks that found points keep, by stage."""
    if not found:
        raise InputError("a guided design needs at least one found point; run a search first")
    gone = [set(arch.removed) for arch in found]
    return {
        stage: float(np.mean([name not in removed for removed in gone for name in blocks]))
        for stage, blocks in _removable(space).items()
    }


def guided_depth(
    space: SearchSpace, found: Sequence[Architecture], target: Target | None = None
) -> Architecture:
    """As many blocks per stage as found points have in the mean: `as-found`, or `fitted` to a budget."""
    return transferred_depth(space, found, space, target)


def transferred_depth(
    source: SearchSpace, found: Sequence[Architecture], space: SearchSpace, target: Target | None = None
) -> Architecture:
    """The share of blocks that points found in one space keep per stage, applied to another.

    Shares carry over, not counts, so that the networks may differ in depth; which blocks of a stage were found is
    not carried: a stage loses its last blocks first. A share is rounded half up to whole blocks. A stage may lose
    all that may be removed; its shortcuts stay.

    Args:
        source: The space of the found points.
        found: The points.
        space: The space to design for; its stages correspond as `prunas.stages.match` says.
        target: None leaves the shares untouched. For a budget they are multiplied by the largest scalar that
            stays within it, clipped at 1; the nearest point below a budget may be far from it. If none is within
            it, the answer is the smallest.

    Raises:
        InputError: There is no found point, or the stages of the two networks do not correspond.
    """
    means = depth_means(source, found)
    shares = {ours: means[theirs] for ours, theirs in match(source, space, "depth").stages.items()}
    return _with_shares(space, shares) if target is None else _fit_depth(space, shares, target)


def _removable(space: SearchSpace) -> dict[int, list[str]]:
    """The removable blocks of every stage, first ones first."""
    stages: dict[int, list[str]] = {}
    for block in space.survey.blocks:
        if block.name in space.removable:
            stages.setdefault(block.stage, []).append(block.name)
    return stages


def _with_shares(space: SearchSpace, shares: Mapping[int, float]) -> Architecture:
    """The point that keeps a share of the removable blocks of every stage."""
    kept = {
        stage: int(min(shares[stage], 1.0) * len(blocks) + 0.5 + 1e-9)
        for stage, blocks in _removable(space).items()
    }
    return space.point(
        removed=[name for stage, blocks in _removable(space).items() for name in blocks[kept[stage] :]]
    )


def _fit_depth(space: SearchSpace, shares: Mapping[int, float], target: Target) -> Architecture:
    """The largest point of a depth profile within a budget, or its smallest."""
    check_target(target)
    blocks = {stage: len(names) for stage, names in _removable(space).items() if shares[stage] > 0}
    # Every scalar at which some stage's rounding changes, from all blocks to none.
    steps = {
        (i - 0.5) / count / shares[stage] for stage, count in blocks.items() for i in range(1, count + 1)
    }
    arch = space.dense
    for scalar in sorted({0.0, *steps}, reverse=True):
        arch = _with_shares(space, {stage: scalar * share for stage, share in shares.items()})
        if space.measure(arch, target.metric) <= target.value:
            break
    return arch


Rounding = Literal["nearest", "up", "down"]
"""Where `align` moves a width: to the nearest multiple (of two equally near, the larger), or only up, or down."""


def align(space: SearchSpace, arch: Architecture, to: int, mode: Rounding = "nearest") -> Architecture:
    """The same shape with widths that devices like: multiples of 8 or 16, say.

    A layer is given a multiple of `to` channels, at least one such multiple and never more than it has in the
    dense network; tied layers move together. The dense width counts as aligned even where it is no multiple, as
    it does for a space's `step`, so that `up` may end there. Layers that are not narrowed stay dense, and layers
    whose dense width is below `to` stay as they are: no width of theirs is aligned. A gate's number of passing
    channels is aligned alike. Where it changes, channels are dropped or added evenly; which channels pass is
    carried over to inputs whose own width changes.

    Nothing is fitted: the cost moves with the widths. Aligning an aligned shape changes nothing.

    Args:
        space: The space.
        arch: A checked point.
        to: Channels.
        mode: Where a width between two multiples goes. Under `down`, what lies below the smallest one still goes
            up to it.

    Raises:
        InputError: `to` is below 1, the mode is unknown, or the point has exact kernel masks, which fit no other
            width.
    """
    if to < 1:
        raise InputError(f"widths cannot be aligned to {to}; 8 and 16 are usual")
    if mode not in get_args(Rounding):
        raise unknown("way of aligning", mode, get_args(Rounding))
    survey = space.survey
    widths = {}
    for name, units in arch.widths:
        group = survey.groups[survey.group_index[name]]
        step = math.lcm(to // math.gcd(to, group.unit), space.step)  # a unit may be several channels
        widths[name] = _aligned(units, group.units, step, space.floor, mode)
    before, after = space.costs.widths(arch), space.costs.widths(space.point(widths))
    selected = {}
    for name, positions in arch.selected:
        form = survey.gate_named[name].form
        was, now = (survey.positions(form, [np.arange(n) for n in units]) for units in (before, after))
        passing = np.flatnonzero(np.isin(now, was[list(positions)])).tolist()
        count = _aligned(len(positions), len(now), math.lcm(to, space.step), space.floor, mode)
        selected[name] = _resized(passing, count, len(now))
    return space.point(widths, selected, arch.removed, arch.kernels)


def _aligned(width: int, dense: int, step: int, floor: int, mode: Rounding) -> int:
    """The width that `align` gives a layer; see there."""
    if width >= dense or dense < step:
        return min(width, dense)
    allowed: list[int] = [n for n in (*range(step, dense, step), dense) if n >= floor]
    below = max((n for n in allowed if n <= width), default=allowed[0])
    above = min(n for n in allowed if n >= width)
    if mode == "nearest":
        return below if width - below < above - width else above
    return below if mode == "down" else above


def _resized(positions: Sequence[int], count: int, channels: int) -> list[int]:
    """`count` of so many channels: those of `positions` as far as possible, else evenly spread."""
    if count <= len(positions):
        return [positions[i * len(positions) // count] for i in range(count)]
    rest = sorted(set(range(channels)) - set(positions))
    missing = count - len(positions)
    return sorted([*positions, *(rest[i * len(rest) // missing] for i in range(missing))])
