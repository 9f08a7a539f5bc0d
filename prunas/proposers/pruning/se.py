"""SE: gates of squeeze-and-excitation, trained beside the network, say which channels matter; then they go.

Reference:
    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507, section 3: the gate of
    a channel is sigmoid(W2 relu(W1 z)), where z are the means of all channels over the map.

A gate stands behind the batch norm of everything that varies while the dense network is trained, of residual
branches in front of the sum. What it lets pass, on average over training images, is the score of its channel, one
threshold decides, and the proposal is trained without gates. Three scores: `gate`, the mean gate; `scale`, times
the size of the scale of the norm in front, without which a gate forgets how large its channel is; `activity`, the
mean of gate times size of what it gates. Each is divided by the largest of its dimension. Where the standard
deviation of all mean gates, so divided, is below 0.02 the gates say nothing: `gate` refuses, and what the others
propose is flagged `penalty_not_acted`, for scales or activities alone decided.

Departures:
    - As importance it is ours; the paper widens nothing and prunes nothing.
    - Gates are averaged over the training images of the last hundred steps or so, with their augmentation.
    - Their weights are stepped by stochastic gradient descent of momentum 0.9 at the network's rate, and not
      decayed. A gate has at least four hidden channels.
    - `rate` is their rate as a share of the network's. At 0 gates never learn, which is the control.
    - `binary` and `sparse` add binary * mean(sin(pi s)) + sparse * mean(s) to the loss of every gate, which drives
      gates to 0 or 1, and to 0; off unless asked for.
    - Of channels that several layers make, the largest score counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.names import PENALTY_NOT_ACTED
from prunas.proposers.brief import Brief, Penalty, Proposal, Trial
from prunas.proposers.pruning.channels import Scope, Scores, allocated, in_order_of, parts
from prunas.proposers.pruning.slimming import carriers
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace
from prunas.training.hooks import Regulariser

__all__ = ["SqueezeExcitation", "TrainedGates", "gate", "scores"]

By = Literal["gate", "scale", "activity"]

LEAST_SPREAD = 0.02
"""Standard deviation of all mean gates, each dimension's largest 1, below which they say nothing."""

KEPT, MOMENTUM, LEAST_HIDDEN = 0.99, 0.9, 4


def _pressed(gates: Tensor, binary: float, sparse: float) -> None:
    """Adds the slope of binary * mean(sin(pi s)) + sparse * mean(s) to the gradient that gates will get."""
    slope = (binary * math.pi * torch.cos(math.pi * gates.detach()) + sparse) / gates.numel()
    gates.register_hook(lambda gradient: gradient + slope)  # type: ignore[no-untyped-call]


def gate(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The gates of a batch of maps.

    Args:
        x: Shape (batch, channels, ...).
        weights: W1 (hidden, channels), its bias, W2 (channels, hidden), its bias.

    Returns:
        Shape (batch, channels), in (0, 1).
    """
    first, first_bias, second, second_bias = weights
    z = x.flatten(2).mean(2) if x.ndim > 2 else x
    hidden = nn.functional.linear(z, first, first_bias).relu()
    return nn.functional.linear(hidden, second, second_bias).float().sigmoid()


class TrainedGates(Regulariser):
    """Gates behind batch norms, their training and their averages.

    Args:
        norms: Module path and channels of each norm with a gate.
        reduction: Channels per hidden channel of a gate.
        seed: Of the gates' initial weights.
        binary: Weight of mean(sin(pi s)) in the loss.
        sparse: Weight of mean(s) in the loss.
        rate: Of the gates' steps, as a share of the network's.
    """

    def __init__(
        self,
        norms: Sequence[tuple[str, int]],
        reduction: int,
        seed: int,
        binary: float = 0.0,
        sparse: float = 0.0,
        rate: float = 1.0,
    ) -> None:
        self.norms, self.reduction, self.seed, self.rate = norms, reduction, seed, rate
        self.binary, self.sparse = binary, sparse

    def attach(self, net: nn.Module) -> None:
        """Adds the gates."""
        where = next(net.parameters()).device
        generator = torch.Generator().manual_seed(self.seed)
        self.weights: list[list[Tensor]] = []
        self.velocities: list[list[Tensor]] = []
        self.means: list[Tensor] = []
        self.passed: list[Tensor] = []
        for i, (path, channels) in enumerate(self.norms):
            hidden = max(LEAST_HIDDEN, channels // self.reduction)
            first = torch.randn(hidden, channels, generator=generator) * (2 / channels) ** 0.5
            second = torch.randn(channels, hidden, generator=generator) * (1 / hidden) ** 0.5
            drawn = [first, torch.zeros(hidden), second, torch.zeros(channels)]
            self.weights.append([tensor.to(where).requires_grad_() for tensor in drawn])
            self.velocities.append([torch.zeros_like(tensor, device=where) for tensor in drawn])
            self.means.append(torch.zeros(3, channels, device=where))  # of s, s * s and s * |x|
            self.passed.append(torch.zeros((), device=where))
            net.get_submodule(path).register_forward_hook(
                lambda module, inputs, output, i=i: self._gated(i, module, output)
            )

    def _gated(self, i: int, module: nn.Module, x: Tensor) -> Tensor:
        gates = gate(x, self.weights[i])
        if module.training and gates.requires_grad and (self.binary or self.sparse):
            _pressed(gates, self.binary, self.sparse)
        open_ = gates.to(x.dtype).view(*gates.shape, *[1] * (x.ndim - 2))
        if module.training:
            with torch.no_grad():
                sizes = x.abs().flatten(2).mean(2) if x.ndim > 2 else x.abs()
                now = torch.stack((gates.mean(0), gates.square().mean(0), (gates * sizes.float()).mean(0)))
                self.means[i].mul_(KEPT).add_(now, alpha=1 - KEPT)
                self.passed[i].mul_(KEPT).add_(1 - KEPT)
        return x * open_

    def gradients(self) -> None:
        """Nothing: the gates are not among the optimiser's parameters."""

    @torch.no_grad()
    def after_step(self, lr: Tensor) -> None:
        """Steps the weights of the gates."""
        for weights, velocities in zip(self.weights, self.velocities, strict=True):
            for weight, velocity in zip(weights, velocities, strict=True):
                if weight.grad is not None:
                    velocity.mul_(MOMENTUM).add_(weight.grad)
                    weight.sub_(self.rate * lr * velocity)
                    weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """Weights, velocities and averages."""
        state: dict[str, Tensor] = {}
        for i, (mean, passed) in enumerate(zip(self.means, self.passed, strict=True)):
            state |= {f"{i}.mean": mean, f"{i}.passed": passed}
            for j, (weight, velocity) in enumerate(zip(self.weights[i], self.velocities[i], strict=True)):
                state |= {f"{i}.weight.{j}": weight.detach(), f"{i}.velocity.{j}": velocity}
        return state

    def record(self) -> dict[str, float]:
        """Per channel of each norm its mean gate, the gate's deviation over images, and its mean activity."""
        record: dict[str, float] = {}
        for (path, _), mean, passed in zip(self.norms, self.means, self.passed, strict=True):
            gates, squares, activity = (mean / passed.clamp(min=1e-12)).double().cpu().unbind(0)
            deviation = (squares - gates.square()).clamp(min=0).sqrt()
            for kind, values in (("gate", gates), ("deviation", deviation), ("activity", activity)):
                record |= {f"{kind} {path} {c}": value for c, value in enumerate(values.tolist())}
        return record


def scores(space: SearchSpace, record: Mapping[str, float], weights: Mapping[str, Tensor], by: By) -> Scores:
    """Score of everything that varies, each dimension's largest 1.

    Args:
        space: The space.
        record: Of `TrainedGates`.
        weights: State dict of the dense network, on the CPU.
        by: Which score.

    Raises:
        InputError: A dimension has no batch norm.
    """
    survey = space.survey
    kind = "activity" if by == "activity" else "gate"
    all_scores: Scores = []
    for d, norms in zip(space.dimensions, carriers(space, "se"), strict=True):
        score = np.zeros(d.dense)
        for norm in norms:
            scale = np.abs(weights[f"{norm.path}.weight"].double().numpy())
            channels = np.array([record[f"{kind} {norm.path} {c}"] for c in range(len(scale))])
            if by == "scale":
                channels = channels * scale
            if d.kind == "gate":
                score = channels
                continue
            index = survey.group_index[d.name]
            for run, part in parts(survey.forms[norm.writes], channels):
                if run.group == index:
                    units = score[run.start : run.start + run.length]
                    np.maximum(units, part.max(1), out=units)
        all_scores.append(score / max(score.max(), np.finfo(float).tiny))
    return all_scores


class SqueezeExcitation:
    """Gates as an architecture proposer.

    Args:
        score: `gate`, `scale` or `activity`; see the module's docstring.
        reduction: Channels per hidden channel of a gate.
        binary: Weight of a loss that drives gates to 0 or 1.
        sparse: Weight of a loss that closes gates.
        rate: Of the gates' steps, as a share of the network's; 0: they never learn.
        scope: What is compared, see `prunas.proposers.pruning.channels.comparable`.
    """

    def __init__(
        self,
        score: By = "scale",
        reduction: int = 16,
        binary: float = 0.0,
        sparse: float = 0.0,
        rate: float = 1.0,
        scope: Scope = "global",
    ) -> None:
        settings = {"reduction": reduction, "binary": binary, "sparse": sparse, "rate": rate}
        check_values("se", score=score, scope=scope, **settings)
        self.score: By = score
        self.scope = scope
        self.settings = settings

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once.

        Raises:
            InputError: A dimension has no batch norm, or the gates say nothing.
        """
        if trials:
            return []
        space = brief.space
        norms = {norm.path: norm.writes for of in carriers(space, "se") for norm in of}
        units = [group.units for group in space.survey.groups]
        options = {
            "norms": [[path, space.survey.size(form, units)] for path, form in sorted(norms.items())],
            "seed": brief.seed,
            **self.settings,
        }
        trained = brief.trained(Penalty("se/gates", options))
        measured = scores(space, trained.record, trained.weights(), self.score)
        gates = scores(space, trained.record, trained.weights(), "gate")
        spread = float(np.concatenate(gates).std())
        if spread < LEAST_SPREAD and self.score == "gate":
            raise InputError(
                f"se: the gates say nothing: their means have a standard deviation of {spread:.4f}, below "
                f"{LEAST_SPREAD}; train longer, set se.binary, or use slimming, which reads the scales themselves"
            )
        made = allocated(brief, measured, in_order_of(measured), trained.run, "se", self.scope)
        if spread >= LEAST_SPREAD:
            return made
        return [replace(proposal, flags=(*proposal.flags, PENALTY_NOT_ACTED)) for proposal in made]
