"""Designs of kernel patterns: which weights of each convolution exist. Pure functions, no torch, no training.

A pattern is one keep frequency per kernel position, for all convolutions of a stage that share a kernel size, or
for one convolution (`KernelPattern`). Only weights of convolutions are thinned; linear layers, biases and norms
stay and are counted, as in the study (arXiv:1810.05270, section 4.3).

What the study leaves open is decided here for all designs:
    - A pattern becomes a mask with exact counts: round(frequency * kernels) of the weights at each position of a
      convolution exist (half to even, as Python rounds), drawn by the pattern's seed.
    - A convolution that rounding would empty keeps one weight, at its most frequent position.
    - A 1x1 kernel has one position, so that its pattern is a density. It is thinned like any other, by the density
      of its own kind in its stage; `cross`, which is about positions, leaves it whole.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.counted import check_target
from prunas.costs.kernels import position_counts
from prunas.costs.metrics import check_thinned
from prunas.costs.target import Target
from prunas.designs.stages import match
from prunas.errors import InputError
from prunas.spaces.space import SearchSpace
from prunas.survey import Layer

__all__ = [
    "cross",
    "erk",
    "fit_kernels",
    "frequencies",
    "stage_key",
    "transferred_kernels",
    "uniform_kernels",
]

Frequencies = Mapping[str, npt.ArrayLike]
"""Keep frequency per kernel position, by key of a `KernelPattern`."""

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], float)
"""The five weights that pruned 3x3 kernels keep most often (the study's figure 4)."""


def stage_key(layer: Layer) -> str:
    """The key that a convolution shares with those of its stage and kernel size: `2/3x3`."""
    return f"{layer.stage}/{'x'.join(map(str, layer.kernel))}"


def fit_kernels(space: SearchSpace, wanted: Frequencies, target: Target, seed: int) -> Architecture:
    """The pattern with wanted frequencies, scaled by one number to a budget.

    Frequencies are multiplied by the largest scalar that stays within the budget, and clipped at 1. Counts are
    whole per convolution and position, so that a pattern lands within its number of positions of the budget.

    Args:
        space: The space.
        wanted: Proportions, 0 or more, by key; a convolution without a key stays dense.
        target: A budget in params, MACs or weights of convolutions.
        seed: Chooses among the masks that have the frequencies.

    Raises:
        InputError: Not even an empty pattern meets the budget, or `wanted` is empty.
    """
    check_target(target)
    check_thinned(target.metric, "a kernel pattern")
    if not wanted:
        raise InputError(f"space {space.name!r} has no convolution whose kernels such a design could thin")
    proportions = {key: np.asarray(values, float) for key, values in wanted.items()}

    def point(scale: float) -> Architecture:
        clipped = {key: np.clip(scale * values, 0.0, 1.0) for key, values in proportions.items()}
        return space.point(kernels=_pattern(clipped, seed))

    def cost(scale: float) -> int:
        return space.measure(point(scale), target.metric)

    low, high = 0.0, 1.0 / min(float(v[v > 0].min()) for v in proportions.values() if (v > 0).any())
    if cost(low) > target.value:
        raise InputError(
            f"no kernel pattern of space {space.name!r} has {target.label} of {target.metric}; what convolutions "
            f"do not hold is {cost(low):,} already"
        )
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= target.value else (low, middle)
    return point(low)


def uniform_kernels(space: SearchSpace, target: Target, seed: int = 0) -> Architecture:
    """One density for every position of every convolution, fitted."""
    return fit_kernels(space, _everywhere(space, 1.0), target, seed)


def erk(space: SearchSpace, target: Target, seed: int = 0) -> Architecture:
    """Erdos-Renyi-Kernel densities: proportional to (inputs + filters + kernel extents) over their product.

    Evci et al., Rigging the Lottery, ICML 2020, section 3: small layers stay denser. One key per convolution.
    """
    densities = {}
    for path, shape in space.costs.weights(space.dense).items():
        densities[path] = np.full(int(np.prod(shape[2:])), sum(shape) / np.prod(shape))
    return fit_kernels(space, densities, target, seed)


def frequencies(space: SearchSpace, found: Sequence[Architecture]) -> dict[str, npt.NDArray[np.float64]]:
    """Mean keep frequency of every kernel position per stage and kernel size, over found points (figure 4).

    Every kernel counts alike, so that wide convolutions weigh more than narrow ones.

    Raises:
        InputError: There is no found point.
    """
    kept, total = _counts(space, found)
    return {key: counts / total[key] for key, counts in kept.items()}


def _counts(
    space: SearchSpace, found: Sequence[Architecture]
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, int]]:
    """Weights that exist at each position, and kernels, per stage and kernel size, summed over points."""
    if not found:
        raise InputError("a guided pattern needs at least one found point; run a search first")
    kept: dict[str, npt.NDArray[np.float64]] = {}
    total: dict[str, int] = {}
    for arch in found:
        exact = dict(arch.kernels.masks) if arch.kernels else {}
        for path, shape in space.costs.weights(arch).items():
            layer = space.survey.layer_at[path]
            kernels, positions = shape[0] * shape[1], int(np.prod(shape[2:]))
            counts = None
            if path in exact:
                mask = KernelPattern.unpack(exact[path], shape)
                counts = mask.reshape(kernels, positions).sum(0)
            elif arch.kernels and arch.kernels.frequencies:
                counts = position_counts(arch.kernels, layer, shape)
            key = stage_key(layer)
            kept[key] = kept.get(key, np.zeros(positions)) + (kernels if counts is None else counts)
            total[key] = total.get(key, 0) + kernels
    return kept, total


def transferred_kernels(
    source: SearchSpace,
    found: Sequence[Architecture],
    space: SearchSpace,
    target: Target | None = None,
    seed: int = 0,
) -> Architecture:
    """The mean frequencies found in one space, applied to another or to the same.

    Stages correspond as `prunas.designs.stages.match` says.
    A kernel size that the source stage does not have takes the density of the stage as a whole.

    Raises:
        InputError: There is no found point, or the stages of the two networks do not correspond.
    """
    kept, total = _counts(source, found)
    stages = match(source, space, "kernel").stages
    wanted = {}
    for key, ones in _everywhere(space, 1.0).items():
        stage, size = key.split("/")
        theirs = f"{stages[int(stage)]}/"
        if theirs + size in kept:
            wanted[key] = kept[theirs + size] / total[theirs + size]
        else:
            there = [k for k in kept if k.startswith(theirs)]
            weights = sum(total[k] * len(kept[k]) for k in there)
            wanted[key] = ones * (sum(kept[k].sum() for k in there) / weights)
    if target is None:
        return space.point(kernels=_pattern(wanted, seed))
    return fit_kernels(space, wanted, target, seed)


def cross(space: SearchSpace, target: Target | None = None, seed: int = 0) -> Architecture:
    """Only the centre and the four edges of every 3x3 kernel; other kernels whole. Fitted if a budget is given.

    A budget thins what is left, other kernels too, by one density; one above the cross itself is not reached.

    Raises:
        InputError: No convolution has a 3x3 kernel, or not even an empty pattern meets the budget.
    """
    everywhere = _everywhere(space, 1.0)
    wanted = {key: CROSS.ravel() if key.endswith("/3x3") else ones for key, ones in everywhere.items()}
    if not any(key.endswith("/3x3") for key in wanted):
        raise InputError(f"space {space.name!r} has no 3x3 kernel that a cross could be cut from")
    if target is None:
        return space.point(kernels=_pattern(wanted, seed))
    return fit_kernels(space, wanted, target, seed)


def _everywhere(space: SearchSpace, value: float) -> dict[str, npt.NDArray[np.float64]]:
    """One value for every position, by stage and kernel size."""
    layers = [layer for layer in space.survey.layers if layer.kind == "conv"]
    return {stage_key(layer): np.full(int(np.prod(layer.kernel)), value) for layer in layers}


def _pattern(values: Mapping[str, npt.NDArray[np.float64]], seed: int) -> KernelPattern:
    return KernelPattern(tuple((key, tuple(v.tolist())) for key, v in values.items()), seed=seed)
