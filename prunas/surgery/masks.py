"""Exact masks from kernel patterns."""

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.counted import CostModel
from prunas.costs.kernels import position_counts
from prunas.survey import Survey

__all__ = ["kernel_masks"]


def kernel_masks(survey: Survey, arch: Architecture) -> dict[str, npt.NDArray[np.bool_]]:
    """Which weights of each convolution exist in `arch`.

    From frequencies, each kernel position keeps an exact number of weights, round(frequency * filters * inputs),
    drawn without replacement by the pattern's seed, one convolution after the other in the survey's order.

    Returns:
        Masks by parameter name, in the shape of the weight as built; convolutions that stay dense are missing.
    """
    pattern = arch.kernels
    if pattern is None:
        return {}
    masks = {}
    exact = dict(pattern.masks)
    generator = np.random.default_rng(pattern.seed)
    for path, shape in CostModel(survey).weights(arch).items():
        if path in exact:
            masks[f"{path}.weight"] = KernelPattern.unpack(exact[path], shape)
            continue
        counts = None if exact else position_counts(pattern, survey.layer_at[path], shape)
        if counts is None:
            continue
        mask = np.zeros((shape[0] * shape[1], len(counts)), bool)
        for position, count in enumerate(counts):
            mask[generator.choice(len(mask), int(count), replace=False), position] = True
        masks[f"{path}.weight"] = mask.reshape(shape)
    return masks
