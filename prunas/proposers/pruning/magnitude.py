"""Magnitude pruning: the smallest weights of all convolutions go, by one global threshold.

Reference:
    Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015,
    https://arxiv.org/abs/1506.02626; one shot and over all convolutions together, as the study does it
    (arXiv:1810.05270, section 4.3).

The dense network is trained without a penalty. What is found is an exact mask, and the kernel patterns it shows
(`prunas.designs.kernels.frequencies`).

Departures:
    - The threshold meets a budget in parameters or MACs; linear layers, biases and norms stay and are counted.
    - A convolution never loses its last weight: the largest one stays, and the proposal is flagged `floor`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from prunas import designs
from prunas.architecture import KernelPattern
from prunas.costs.metrics import check_thinned
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import FLOOR, TARGET_MISSED
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.spaces.space import SearchSpace

__all__ = ["Magnitude", "masks"]

Weights = Mapping[str, npt.NDArray[np.float32]]


def masks(
    space: SearchSpace, magnitudes: Weights, target: Target
) -> tuple[dict[str, npt.NDArray[np.bool_]], bool]:
    """The masks of the lowest threshold that meets a budget; strictly greater magnitudes stay.

    Args:
        space: The space.
        magnitudes: |weight| of every convolution, by module path.
        target: The budget, in params, MACs or weights of convolutions.

    Returns:
        A mask per convolution, and whether the floor held a last weight.

    Raises:
        InputError: What convolutions do not hold costs more than the budget.
    """
    check_thinned(target.metric, "magnitude prunes weights and")
    prices = {
        path: space.survey.layer_at[path].positions if target.metric == "macs" else 1 for path in magnitudes
    }
    ordered = {path: np.sort(values, None) for path, values in magnitudes.items()}
    rest = space.measure(space.dense, target.metric) - sum(prices[p] * v.size for p, v in ordered.items())

    def cost(threshold: float) -> int:
        kept = {p: max(1, v.size - int(np.searchsorted(v, threshold, "right"))) for p, v in ordered.items()}
        return rest + sum(prices[p] * count for p, count in kept.items())

    largest = max(float(v[-1]) for v in ordered.values())
    if cost(largest) > target.value:
        raise InputError(
            f"magnitude cannot meet {target.label} of {target.metric} in space {space.name!r}: what convolutions "
            f"do not hold is {rest:,} already"
        )
    low, high = -1.0, largest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= target.value else (middle, high)
    found, floored = {}, False
    for path, values in magnitudes.items():
        mask = values > high
        if not mask.any():
            mask, floored = values >= values.max(), True
        found[path] = mask
    return found, floored


class Magnitude:
    """Global magnitude pruning as a proposer of kernel patterns."""

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One mask per target from one dense training, once."""
        if trials:
            return []
        space = brief.space
        trained = brief.trained()
        weights = trained.weights()
        convolutions = space.costs.weights(space.dense)
        if not convolutions:
            raise InputError(f"magnitude prunes convolutions, and space {space.name!r} has none")
        magnitudes = {path: np.abs(weights[f"{path}.weight"].float().numpy()) for path in convolutions}
        proposals = []
        for target in brief.targets:
            found, floored = masks(space, magnitudes, target)
            packed = tuple((path, KernelPattern.pack(mask)) for path, mask in found.items() if not mask.all())
            arch = space.point(kernels=KernelPattern(masks=packed)) if packed else space.dense
            flags = [(FLOOR, floored), (TARGET_MISSED, designs.missed(space, arch, target))]
            names = tuple(name for name, held in flags if held)
            proposals.append(Proposal(target, arch, names, {}, trained.run))
        return proposals
