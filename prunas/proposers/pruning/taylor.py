"""Taylor: what the loss would change, to first order, if a channel were zero.

Reference:
    Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019,
    https://arxiv.org/abs/1906.10771, equations 7 and 8 and section 3.2.

The importance of a set of parameters that go together is the square of the sum of parameter * gradient over the
set, averaged over batches of training images. With `on="norms"` the set is a channel's scale and shift in its
batch norm, which is a gate behind the norm (the paper's Taylor-FO-BN); with `on="filters"` it is the filter with
its bias. One threshold over all that varies then decides the widths.

Departures:
    - The paper prunes 100 or so channels at a time and trains between; here one trained network is read once, so
      that one training serves all targets.
    - Gradients are those of the network in evaluation mode: in training mode the loss does not depend on the size
      of a filter in front of a norm, and its sum would be zero.
    - A unit that several layers make (a residual stream, where it varies) is one set, whose members are summed
      before the square, as equation 8 says; the paper's experiments leave streams alone. A norm that serves a
      gate's reader alone speaks for the gate; a gate without a norm has the weights that read its channel.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.pruning.channels import Scope, Scores, allocated, by_unit, in_order_of, weighing
from prunas.proposers.pruning.l1 import per_input
from prunas.proposers.pruning.slimming import carriers
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace
from prunas.survey import Layer

__all__ = ["Taylor", "contributions", "importances"]

On = Literal["auto", "norms", "filters"]


def _members(space: SearchSpace, on: On) -> list[list[Layer]]:
    """The layers whose parameters are the sets of each dimension.

    Raises:
        InputError: A dimension has none.
    """
    if on != "filters":
        try:
            return carriers(space, "taylor")
        except InputError:
            if on == "norms":
                raise
    return weighing(space, "taylor")


def contributions(
    space: SearchSpace, products: Mapping[str, Tensor], members: Sequence[Sequence[Layer]]
) -> Scores:
    """Sum of parameter * gradient over the set of every unit, or gated channel, per dimension.

    Args:
        space: The space.
        products: Parameter * gradient by parameter name.
        members: The layers whose parameters count, per dimension.
    """
    survey = space.survey
    sums: Scores = []
    for d, layers in zip(space.dimensions, members, strict=True):
        total = np.zeros(d.dense)
        for layer in layers:
            weight = products[f"{layer.path}.weight"].double().numpy()
            if d.kind == "gate" and layer.kind != "norm":
                total += per_input(weight, layer)
                continue
            channels: npt.NDArray[np.float64] = weight.reshape(len(weight), -1).sum(1)
            if f"{layer.path}.bias" in products:
                channels = channels + products[f"{layer.path}.bias"].double().numpy()
            if d.kind == "gate":
                total += channels
            else:
                total += by_unit(survey.forms[layer.writes], survey.group_index[d.name], d.dense, channels)
        sums.append(total)
    return sums


def importances(brief: Brief, weights: Mapping[str, Tensor], images: int, on: On = "auto") -> Scores:
    """Mean over batches of the squared contributions, per dimension; see the module's docstring.

    Args:
        brief: With a loss and calibration images.
        weights: State dict of the dense network, on the CPU.
        images: How many training images are looked at.
        on: Which parameters make a set.

    Raises:
        InputError: A dimension has no such parameters, the brief has no loss, or the loss is not finite.
    """
    space = brief.space
    members = _members(space, on)
    if brief.loss is None or brief.calibration is None:
        raise InputError(
            "taylor asks for the gradient of a loss, and the brief has none; l1-global needs no data"
        )
    with torch.random.fork_rng(devices=[]):
        net = space.build()
    net.load_state_dict(dict(weights))
    net.eval()
    wanted = {f"{layer.path}.{kind}" for layers in members for layer in layers for kind in ("weight", "bias")}
    parameters = {name: p for name, p in net.named_parameters() if name in wanted}
    for name, p in net.named_parameters():
        p.requires_grad_(name in parameters)
    scores: Scores = [np.zeros(d.dense) for d in space.dimensions]
    batches = 0
    for batch in brief.calibration(images):
        products = _products(net, brief.loss(net, batch), parameters)
        for score, total in zip(scores, contributions(space, products, members), strict=True):
            score += total**2
        batches += 1
    return [score / max(1, batches) for score in scores]


def _products(net: nn.Module, loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    if not torch.isfinite(loss):
        raise InputError(
            f"taylor: the trained network's loss on training images is {loss.item()}; train it at a lower rate"
        )
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: p.detach() * (torch.zeros_like(p) if gradient is None else gradient)
        for (name, p), gradient in zip(parameters.items(), gradients, strict=True)
    }


class Taylor:
    """First-order importance as an architecture proposer.

    Args:
        on: What a channel's parameters are: `norms`, its scale and shift; `filters`, its weights and bias; `auto`,
            norms where everything that varies has one, else filters.
        images: Images of the training split that are looked at.
        scope: What is compared, see `prunas.proposers.pruning.channels.comparable`.
    """

    def __init__(self, on: On = "auto", images: int = 1024, scope: Scope = "global") -> None:
        check_values("taylor", on=on, images=images, scope=scope)
        self.on: On = on
        self.images = images
        self.scope = scope

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        _members(brief.space, self.on)  # refuses an unfit space before anything is trained
        trained = brief.trained()
        scores = importances(brief, trained.weights(), self.images, self.on)
        return allocated(brief, scores, in_order_of(scores), trained.run, "taylor", self.scope)
