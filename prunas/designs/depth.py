"""Designs of depth: which residual blocks stay."""

from collections.abc import Mapping, Sequence

import numpy as np

from prunas.architecture import Architecture
from prunas.costs.counted import check_target
from prunas.costs.target import Target
from prunas.designs.stages import match
from prunas.errors import InputError
from prunas.spaces.space import SearchSpace

__all__ = ["depth_means", "equal_depth", "transferred_depth"]


def equal_depth(space: SearchSpace, target: Target) -> Architecture:
    """The largest point within a budget that keeps the same share of the removable blocks in every stage.

    Rounded as `transferred_depth` says.

    Raises:
        InputError: No block of the space may be removed.
    """
    if not space.removable:
        raise InputError(f"space {space.name!r} has no blocks that may be removed (see its [vary])")
    return _fit_depth(space, dict.fromkeys(_removable(space), 1.0), target)


def depth_means(space: SearchSpace, found: Sequence[Architecture]) -> dict[int, float]:
    """Mean share of the removable blocks that found points keep, by stage."""
    if not found:
        raise InputError("a guided design needs at least one found point; run a search first")
    gone = [set(arch.removed) for arch in found]
    return {
        stage: float(np.mean([name not in removed for removed in gone for name in blocks]))
        for stage, blocks in _removable(space).items()
    }


def transferred_depth(
    source: SearchSpace, found: Sequence[Architecture], space: SearchSpace, target: Target | None = None
) -> Architecture:
    """The share of blocks that points found in one space keep per stage, applied to another or to the same.

    Shares carry over, not counts, so that the networks may differ in depth; which blocks of a stage were found is
    not carried: a stage loses its last blocks first. A share is rounded half up to whole blocks. A stage may lose
    all that may be removed; its shortcuts stay.

    Args:
        source: The space of the found points.
        found: The points.
        space: The space to design for; its stages correspond as `prunas.designs.stages.match` says.
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
