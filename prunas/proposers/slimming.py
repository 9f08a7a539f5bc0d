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
    - A norm behind a gate is narrowed with its selection; the released code keeps it full and selects after it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas import designs
from prunas.costs import Target
from prunas.errors import InputError
from prunas.proposers.brief import Brief, Penalty, Proposal, Trial
from prunas.space import SearchSpace
from prunas.training.regulariser import Regulariser

__all__ = ["SMALL", "ScalePenalty", "Slimming", "scores", "threshold"]

SMALL = 0.01
"""Scales below this count as driven to zero by the penalty."""

PLAIN_PULL, RESIDUAL_PULL = 6.6, 0.66

Scores = dict[str, npt.NDArray[np.float64]]


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
            gradients = [scale.grad for scale in self.scales if scale.grad is not None]
            torch._foreach_add_(gradients, torch._foreach_sign(self.scales), alpha=self.strength)

    def record(self) -> dict[str, float]:
        """lambda, and the share of scales that ended below `SMALL`."""
        scales = torch.cat([scale.detach().abs() for scale in self.scales])
        return {"lambda": self.strength, "below": float((scales < SMALL).double().mean())}


def penalty(pull: float, lr_sum: float, momentum: float) -> Penalty:
    """The penalty whose total pull on a scale is `pull` over a schedule."""
    strength = pull * (1 - momentum) / lr_sum
    return Penalty("prunas.proposers.slimming:ScalePenalty", {"strength": strength})


def scores(space: SearchSpace, weights: Mapping[str, Tensor]) -> Scores:
    """|gamma| of every unit of every dimension, by the dimension's name.

    Where several norms carry a group (a residual stream), a unit counts as its largest scale among them; norms
    that serve a gate's reader alone speak for the gate, and for the group only if no other norm does.

    Raises:
        InputError: A dimension has no batch norm.
    """
    survey = space.survey
    gated = {gate.norm for gate in survey.gates if gate.norm}
    norms = [n for n in survey.layers if n.kind == "norm" and f"{n.path}.running_mean" in weights]
    found: Scores = {}
    for dimension in space.dimensions:
        if dimension.kind == "gate":
            norm = survey.gate_named[dimension.name].norm
            carried = [] if norm is None else [np.abs(weights[f"{norm}.weight"].double().numpy())]
        else:
            index = survey.group_index[dimension.name]
            carriers = [n for n in norms if any(run.group == index for run in survey.forms[n.writes])]
            own = [n for n in carriers if n.path not in gated] or carriers
            carried = [_per_unit(space, n.path, n.writes, index, weights) for n in own]
        if not carried:
            raise InputError(
                f"slimming needs a batch norm behind everything that varies, and {dimension.name!r} of space "
                f"{space.name!r} has none; exclude it there, or use a sampler such as tpe"
            )
        found[dimension.name] = np.max(carried, 0)
    return found


def _per_unit(
    space: SearchSpace, path: str, form: int, group: int, weights: Mapping[str, Tensor]
) -> npt.NDArray[np.float64]:
    """The largest |gamma| of each unit of a group along a norm."""
    scales = np.abs(weights[f"{path}.weight"].double().numpy())
    largest = np.zeros(space.survey.groups[group].units)
    offset = 0
    for run in space.survey.forms[form]:
        if run.group == group:
            part = scales[offset : offset + run.length * run.repeat].reshape(run.length, run.repeat).max(1)
            units = slice(run.start, run.start + run.length)
            largest[units] = np.maximum(largest[units], part)
        offset += run.length * run.repeat
    return largest


def threshold(space: SearchSpace, found: Scores, target: Target) -> tuple[npt.NDArray[np.int64], bool]:
    """Counts left by the lowest threshold that meets a budget; strictly greater scores stay.

    Args:
        space: The space.
        found: Score per unit, by dimension.
        target: The budget.

    Returns:
        How many of the highest-scoring units each dimension keeps, shape (dimensions,), and whether the floor
        held any.

    Raises:
        InputError: Even the floor costs more than the budget.
    """
    pooled = np.unique(np.concatenate(list(found.values())))
    ordered = [np.sort(found[d.name]) for d in space.dimensions]
    candidates = np.concatenate([[-1.0], pooled])
    alive = np.array([len(s) - np.searchsorted(s, candidates, side="right") for s in ordered]).T
    counts = space.grid(alive)

    low, high = 0, len(candidates) - 1  # the cost falls along the candidates: bisect
    if space.measures(counts[high], target.metric)[0] > target.value:
        raise InputError(f"slimming cannot meet {target.label} of {target.metric} in space {space.name!r}")
    while low < high:
        middle = (low + high) // 2
        if space.measures(counts[middle], target.metric)[0] <= target.value:
            high = middle
        else:
            low = middle + 1
    return counts[high], bool((counts[high] > alive[high]).any())


class Slimming:
    """Network slimming as an architecture proposer.

    Args:
        pull: Total pull of the penalty on one scale; by default 6.6, and 0.66 for networks with gates, which
            are those with residual sums or concatenations.
    """

    def __init__(self, pull: float | None = None) -> None:
        self.pull = pull

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        space = brief.space
        pull = self.pull
        if pull is None:
            pull = RESIDUAL_PULL if space.survey.gates else PLAIN_PULL
        trained = brief.trained(penalty(pull, brief.lr_sum, brief.momentum))
        found = scores(space, trained.weights())
        below = float((np.concatenate(list(found.values())) < SMALL).mean())
        return [self._point(space, found, below, target, trained.run) for target in brief.targets]

    def _point(self, space: SearchSpace, found: Scores, below: float, target: Target, run: str) -> Proposal:
        counts, floored = threshold(space, found, target)
        kept: dict[str, tuple[int, ...]] = {}
        selected: dict[str, list[int]] = {}
        best = {
            d.name: np.sort(np.argsort(-found[d.name], kind="stable")[:count])
            for d, count in zip(space.dimensions, counts.tolist(), strict=True)
        }
        for d in space.dimensions:
            if d.kind == "group":
                kept[d.name] = tuple(best[d.name].tolist())
        survey = space.survey
        units = [np.array(kept.get(g.name, range(g.units)), np.int64) for g in survey.groups]
        for d in space.dimensions:
            if d.kind == "gate":
                built = survey.positions(survey.gate_named[d.name].form, units)
                passing = np.flatnonzero(np.isin(built, best[d.name]))
                selected[d.name] = passing.tolist() or [0]
        arch = space.point({name: len(units) for name, units in kept.items()}, selected)
        pruned = 1 - space.measure(arch, "channels") / space.measure(space.dense, "channels")
        flags = [("floor", floored), ("penalty_not_acted", below < pruned)]
        flags.append(("target_missed", designs.missed(space, arch, target)))
        return Proposal(target, arch, tuple(name for name, held in flags if held), kept, run)
