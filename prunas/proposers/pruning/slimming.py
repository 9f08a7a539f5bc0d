"""Network slimming: an L1 penalty on batch-norm scales, then one threshold for all layers.

Reference:
    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    https://arxiv.org/abs/1708.06519, section 3; with the study's settings (arXiv:1810.05270, section 4.2).

The dense network is trained from scratch with lambda * sign(gamma) added to the gradient of every batch-norm
scale. Then one threshold over the scales of everything that varies decides which channels stay.

Departures:
    - The threshold is the smallest that meets a budget in parameters or MACs, found by bisection on the exact
      cost; the paper removes a share of the channels (`--metric channels` does that).
    - A layer never loses its last channels: the space's floor holds the ones with the largest scales, and the
      proposal is flagged `floor`. The paper's threshold can cut a network in two.
    - lambda is scaled to the schedule. What a scale feels over a training is the *pull*, about
      lambda * sum(lr) / (1 - momentum): 6.6 in the study's VGG recipe, a tenth of that for residual and dense
      networks. Shorter recipes get the lambda that keeps the pull. If fewer scales end below 0.01 than are
      pruned, the penalty did not decide what goes, and the proposal is flagged `penalty_not_acted`.
    - A norm in front of a gate is narrowed with its selection; the released code selects behind the full norm.
    - Where streams vary too, a channel that a stream loses is lost to every gate that reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas.errors import InputError
from prunas.names import PENALTY_NOT_ACTED
from prunas.proposers.brief import Brief, Penalty, Proposal, Trial, penalty_strength
from prunas.proposers.pruning.channels import Scope, Scores, allocated, capped, in_order_of, parts
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace
from prunas.survey import Layer
from prunas.training.hooks import Regulariser

__all__ = ["SMALL", "ScalePenalty", "Slimming", "penalty", "scores"]

SMALL = 0.01
"""Scales below this count as driven to zero by the penalty."""

PLAIN_PULL, RESIDUAL_PULL = 6.6, 0.66


class ScalePenalty(Regulariser):
    """Subgradient of lambda * sum |gamma| over the scales of every batch norm (equation 1 of the paper).

    Args:
        strength: lambda.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.scales: list[Tensor] = []

    def attach(self, net: nn.Module) -> None:
        """Finds the scales."""
        self.scales = [m.weight for m in net.modules() if isinstance(m, _BatchNorm) and m.affine]

    def gradients(self) -> None:
        """Adds lambda * sign(gamma)."""
        with torch.no_grad():
            felt = [scale for scale in self.scales if scale.grad is not None]
            gradients = [scale.grad for scale in self.scales if scale.grad is not None]
            torch._foreach_add_(gradients, torch._foreach_sign(felt), alpha=self.strength)

    def record(self) -> dict[str, float]:
        """lambda, and the share of scales that ended below `SMALL`."""
        scales = torch.cat([scale.detach().abs() for scale in self.scales])
        return {"lambda": self.strength, "below": float((scales < SMALL).double().mean())}


def penalty(pull: float, lr_sum: float, momentum: float) -> Penalty:
    """The penalty whose total pull on a scale is `pull` over a schedule."""
    return Penalty("slimming/scale", {"strength": penalty_strength(pull, lr_sum, momentum)})


def carriers(space: SearchSpace, method: str = "slimming") -> list[list[Layer]]:
    """The batch norms whose scales decide each dimension, in the order of the dimensions.

    Where several norms carry a group (a residual stream), all do; norms that serve a gate's reader alone speak
    for the gate, and for the group only if no other norm does.

    Args:
        space: The space.
        method: Its name, for a message.

    Raises:
        InputError: A dimension has no batch norm.
    """
    survey = space.survey
    tensors = {site.tensor for site in survey.sites}
    norms = [n for n in survey.layers if {f"{n.path}.weight", f"{n.path}.running_mean"} <= tensors]
    gated = {gate.norm for gate in survey.gates}
    found = []
    for dimension in space.dimensions:
        if dimension.kind == "gate":
            norms_of = [n for n in norms if n.path == survey.gate_named[dimension.name].norm]
        else:
            index = survey.group_index[dimension.name]
            carrying = [n for n in norms if any(run.group == index for run in survey.forms[n.writes])]
            norms_of = [n for n in carrying if n.path not in gated] or carrying
        if not norms_of:
            raise InputError(
                f"{method} needs a batch norm behind everything that varies, and {dimension.name!r} of space "
                f"{space.name!r} has none; exclude it there, or use a sampler such as tpe"
            )
        found.append(norms_of)
    return found


def scores(space: SearchSpace, weights: Mapping[str, Tensor]) -> Scores:
    """|gamma| of everything that varies: of a unit its largest, of a gate's channel at most its stream's.

    Args:
        space: The space.
        weights: State dict of the dense network, on the CPU.

    Raises:
        InputError: A dimension has no batch norm.
    """
    survey = space.survey
    found: Scores = []
    for dimension, norms in zip(space.dimensions, carriers(space), strict=True):
        scales = [np.abs(weights[f"{norm.path}.weight"].double().numpy()) for norm in norms]
        if dimension.kind == "gate":
            found.append(scales[0])
            continue
        index = survey.group_index[dimension.name]
        largest = np.zeros(dimension.dense)
        for norm, scale in zip(norms, scales, strict=True):
            for run, part in parts(survey.forms[norm.writes], scale):
                if run.group == index:
                    units = largest[run.start : run.start + run.length]
                    np.maximum(units, part.max(1), out=units)
        found.append(largest)
    return capped(space, found)


class Slimming:
    """Network slimming as an architecture proposer.

    Args:
        pull: Total pull of the penalty on one scale; by default 6.6, and 0.66 for networks with gates, which
            are those with residual sums or concatenations.
        scope: What is compared, see `prunas.proposers.pruning.channels.comparable`.
    """

    def __init__(self, pull: float | None = None, scope: Scope = "global") -> None:
        check_values("slimming", pull=pull, scope=scope)
        self.pull = pull
        self.scope = scope

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        space = brief.space
        carriers(space)  # refuses an unfit space before anything is trained
        pull = self.pull
        if pull is None:
            pull = RESIDUAL_PULL if space.survey.gates else PLAIN_PULL
        trained = brief.trained(penalty(pull, brief.lr_sum, brief.momentum))
        found = scores(space, trained.weights())
        below = float((np.concatenate(found) < SMALL).mean())
        proposals = allocated(brief, found, in_order_of(found), trained.run, "slimming", self.scope)
        return [_judged(space, made, below) for made in proposals]


def _judged(space: SearchSpace, made: Proposal, below: float) -> Proposal:
    """Flags a proposal that prunes more than the penalty drove out."""
    pruned = 1 - space.measure(made.architecture, "channels") / space.measure(space.dense, "channels")
    return replace(made, flags=(*made.flags, PENALTY_NOT_ACTED)) if below < pruned else made
