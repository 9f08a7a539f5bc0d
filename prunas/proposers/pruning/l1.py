"""L1: filters with small weights go.

Reference:
    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, https://arxiv.org/abs/1608.08710, section 3.1.

A filter is ranked by the sum of its absolute weights, within its layer. `L1` takes the widths as given, as the
paper does, and says which filters stay. `GlobalL1` also finds the widths, by one threshold for all layers.

Departures:
    - A unit that several layers make (a residual stream, where it varies) has the sum over all of them; the
      paper lets the projection shortcut decide. A depthwise convolution has no say beside the layer in front.
    - A gate, which the paper does not have, keeps the input channels that its layer gives the largest weights.
    - The paper's widths come from a study of each layer's sensitivity; here they are uniform, or a preset.
    - `GlobalL1` compares means, not sums: a sum grows with the number of inputs, so that one threshold over sums
      would empty the layers with few inputs, first of all the one that reads the image.
    - `GlobalL1` divides each layer's weights by their mean size before training. Wide layers are born with smaller
      weights, so that a threshold over plain means finds the initialisation: on digits, at 10 % of the parameters,
      its shape lay within 2 % of the untrained network's. What is left of that shows in the control
      `l1-global-untrained`. Dividing by each layer's largest filter instead let one large filter empty an early
      layer: a small VGG on digits fell to chance at 95 % of its parameters.
    - The network is trained without any penalty of the method's own.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.pruning.channels import (
    Scope,
    Scores,
    allocated,
    at_given_widths,
    by_unit,
    in_order_of,
    weighing,
)
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace
from prunas.survey import Layer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["L1", "GlobalL1", "initial_sizes", "per_input", "sums"]


def initial_sizes(space: SearchSpace, initial: Mapping[str, "Tensor"]) -> dict[str, float]:
    """Mean absolute weight of each convolution and linear layer before training, by module path.

    Layers that are born with zeros alone are left out.

    Args:
        space: The space.
        initial: State dict of the dense network before training, on the CPU.
    """
    layers = {layer.path for own in weighing(space, "l1-global") for layer in own}
    sizes = {path: float(initial[f"{path}.weight"].double().abs().mean()) for path in sorted(layers)}
    return {path: size for path, size in sizes.items() if size > 0}


def sums(
    space: SearchSpace, weights: Mapping[str, "Tensor"], sizes: Mapping[str, float] | None = None
) -> tuple[Scores, Scores]:
    """Sum of the absolute weights of each unit, or gated input channel, and how many weights that are.

    Args:
        space: The space.
        weights: State dict of the dense network, on the CPU.
        sizes: What the weights of each layer are divided by, by module path; a layer that is missing is divided
            by the mean of its own. By default nothing is divided.

    Raises:
        InputError: No layer makes the units of a dimension.
    """
    survey = space.survey
    totals, counts = [], []
    for d, layers in zip(space.dimensions, weighing(space, "l1"), strict=True):
        total, count = np.zeros(d.dense), np.zeros(d.dense)
        for layer in layers:
            weight = np.abs(weights[f"{layer.path}.weight"].double().numpy())
            if sizes is not None:
                weight /= sizes.get(layer.path) or max(weight.mean(), np.finfo(float).tiny)
            if d.kind == "gate":
                channels = per_input(weight, layer)
                total += channels
                count += weight.size / len(channels)
            else:
                channels = weight.reshape(len(weight), -1).sum(1)
                form, index = survey.forms[layer.writes], survey.group_index[d.name]
                total += by_unit(form, index, d.dense, channels)
                count += by_unit(form, index, d.dense, np.full(len(weight), weight[0].size))
        totals.append(total)
        counts.append(count)
    return totals, counts


def per_input(weight: npt.NDArray[Any], layer: Layer) -> npt.NDArray[np.float64]:
    """Sums over everything but the input channels of a layer, whose weight has shape (out, in / groups, ...)."""
    by_group = weight.reshape(layer.groups, len(weight) // layer.groups, weight.shape[1], -1)
    summed: npt.NDArray[np.float64] = by_group.sum((1, 3)).reshape(-1)
    return summed


class L1:
    """Keeps the filters with the largest weights, at widths that are given.

    Args:
        preset: A preset of the space whose widths are used; by default they are uniform at each target.
    """

    def __init__(self, preset: str | None = None) -> None:
        check_values("l1", preset=preset)
        self.preset = preset

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, or the preset, from one dense training, once."""
        if trials:
            return []
        weighing(brief.space, "l1")  # refuses an unfit space before anything is trained
        trained = brief.trained()
        totals, _ = sums(brief.space, trained.weights())
        return at_given_widths(brief, self.preset, in_order_of(totals), trained.run)


class GlobalL1:
    """Also finds the widths: one threshold on a filter's mean weight over that of its layer before training.

    Args:
        scope: What is compared, see `prunas.proposers.pruning.channels.comparable`.
    """

    def __init__(self, scope: Scope = "global") -> None:
        check_values("l1-global", scope=scope)
        self.scope = scope

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        weighing(brief.space, "l1-global")
        trained = brief.trained()
        sizes = initial_sizes(brief.space, brief.untrained())
        totals, counts = sums(brief.space, trained.weights(), sizes)
        means = [total / count for total, count in zip(totals, counts, strict=True)]
        return allocated(brief, means, in_order_of(means), trained.run, "l1-global", self.scope)
