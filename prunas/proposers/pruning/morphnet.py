"""MorphNet: an L1 penalty on batch-norm scales by what their channel costs, then one factor up to the budget.

Reference:
    Gordon et al., MorphNet: Fast & Simple Resource-Constrained Structure Learning of Deep Networks, CVPR 2018,
    https://arxiv.org/abs/1711.06798, equations 4 to 8 and algorithm 1.

Of a layer with coefficient C, such as two operations per position and weight, A channels in and out are alive,
whose scale is above 0.01 in size; S is the sum of the sizes of all scales, dead ones included. The network costs
the sum of C * A_in * A_out. The penalty is the sum of C * (A_in * S_out + A_out * S_in), where the A are
constants: so a scale is pulled by what its channel costs to make and to read, at the widths there are by now. What
is alive at the end, times the one factor that brings it to the budget, is the proposal.

Of a depthwise convolution both sides are the same channels, whose cost is C * A and whose penalty C * 2S. Channels
that several layers make (a residual stream) have the largest of their scales, which alone is pulled.

Where the cost is latency, a layer takes as long as its operations at a device's peak or its bytes at its
bandwidth, whichever is longer at the widths there are by now, and the penalty is of that term alone (the authors'
code, https://github.com/google-research/morph-net). The bytes of maps are linear in their channels.

Departures:
    - The dense network is trained by the recipe, with its schedule; the paper trains at a constant rate until the
      penalty no longer falls, and repeats for several strengths.
    - The strength is such that the scale of a channel of mean cost in the dense network feels `pull` in all, as
      with slimming. Where what is alive at the end costs more than the budget, the factor shrinks it, and the
      proposal is flagged `penalty_not_acted`.
    - No width exceeds the space's ceiling: the expansion stops there, and widens the others further. A shape that
      is wider somewhere than the dense network keeps no channels: for those there is nothing to inherit.
    - Latency is that of convolutions and linear layers; the code charges norms, activations and sums as well, and
      the weights of a depthwise convolution as if it were an ordinary one.
    - Parameters of norms and biases are counted where `cost` is `params`. Scales are not decayed. One round.
    - A gate, which the paper does not have, is a dimension like any other, with the scales of its norm.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunas import designs
from prunas.names import PENALTY_NOT_ACTED, TARGET_MISSED
from prunas.proposers.brief import Brief, Penalty, Proposal, Trial, penalty_strength
from prunas.proposers.pruning.channels import in_order_of, proposal
from prunas.proposers.pruning.products import products
from prunas.proposers.pruning.roofline import DEVICES, Device, roofline
from prunas.proposers.pruning.slimming import PLAIN_PULL, RESIDUAL_PULL, SMALL, carriers, scores
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace
from prunas.training.hooks import Regulariser

__all__ = ["CostWeightedScales", "LatencyWeightedScales", "MorphNet", "places", "pulls"]

Matrix = npt.NDArray[np.float64]
By = Literal["macs", "params", "channels"]
Cost = Literal[By, "latency"]

ALIVE = SMALL
"""Scales above this in size are alive."""


def pulls(space: SearchSpace, cost: By) -> Matrix:
    """What pulls the scales of each dimension is this times (channels alive of each dimension, 1).

    Args:
        space: The space.
        cost: What a channel costs: multiply-accumulates, parameters, or 1 whatever it is.

    Returns:
        Shape (dimensions, dimensions + 1).
    """
    if cost == "channels":
        return np.eye(1, len(space.dimensions) + 1, len(space.dimensions)).repeat(len(space.dimensions), 0)
    rows = products(space, cost)
    weights = rows.coefficients * np.where(rows.depthwise, 2, 1)
    made: Matrix = (rows.writes.T * weights) @ rows.reads + (rows.reads.T * weights) @ rows.writes
    return made[:-1]


def places(space: SearchSpace) -> list[list[list[Any]]]:
    """Where the scales of each dimension are: lists of [norm, unit of each of its channels or -1].

    Raises:
        InputError: A dimension has no batch norm.
    """
    survey = space.survey
    where: list[list[list[Any]]] = []
    for d, norms in zip(space.dimensions, carriers(space, "morphnet"), strict=True):
        if d.kind == "gate":
            where.append([[norm.path, list(range(d.dense))] for norm in norms])
            continue
        index = survey.group_index[d.name]
        where.append([])
        for norm in norms:
            units: list[int] = []
            for run in survey.forms[norm.writes]:
                numbers = np.arange(run.start, run.start + run.length) if run.group == index else -1
                units += np.broadcast_to(numbers, run.length).repeat(run.repeat).tolist()
            where[-1].append([norm.path, units])
    return where


class CostWeightedScales(Regulariser):
    """Subgradient of the penalty of the module's docstring.

    Args:
        strength: lambda.
        matrix: As `pulls` returns it, in lists.
        places: As `places` returns it.
    """

    def __init__(
        self,
        strength: float,
        matrix: Sequence[Sequence[float]],
        places: Sequence[Sequence[tuple[str, Sequence[int]]]],
    ) -> None:
        self.strength, self.matrix, self.places = strength, matrix, places

    def prepare(self, like: Tensor) -> None:
        """Puts the matrix where the scales are, which are `like` this one."""
        self.pulls = like.new_tensor(self.matrix)

    def pull(self, alive: Tensor) -> Tensor:
        """What pulls the scales of each dimension, given how many channels of each are alive, and 1."""
        return self.pulls @ alive

    def attach(self, net: nn.Module) -> None:
        """Finds the scales."""
        self.scales: list[nn.Parameter] = []
        units: list[Tensor] = []
        dimensions: list[Tensor] = []
        count = 0
        for d, norms in enumerate(self.places):
            dense = 1 + max(max(of) for _, of in norms)
            for path, of in norms:
                scale = net.get_submodule(path).weight
                assert isinstance(scale, nn.Parameter)
                self.scales.append(scale)
                units.append(torch.tensor([unit + count if unit >= 0 else -1 for unit in of]))
            dimensions.append(torch.full((dense,), d))
            count += dense
        where = self.scales[0].device
        slots = torch.cat(units)
        self.slots = torch.where(slots < 0, count, slots).to(
            where
        )  # channels of others have a unit of their own
        self.dimensions = torch.cat((*dimensions, torch.tensor([len(self.places)]))).to(where)
        self.prepare(self.scales[0].detach())

    def exempt(self) -> Iterable[nn.Parameter]:
        """The scales."""
        return self.scales

    def value(self) -> Tensor:
        """The penalty without its strength, a scalar."""
        largest, pull = self._pulled()
        return (largest * pull).sum()

    def _pulled(self) -> tuple[Tensor, Tensor]:
        """The largest scale of each unit, and what pulls it; channels of others last, without a pull."""
        sizes = torch.cat([scale.detach().abs() for scale in self.scales])
        largest = torch.zeros_like(self.dimensions, dtype=sizes.dtype)
        largest = largest.scatter_reduce(0, self.slots, sizes, "amax", include_self=False)
        alive = torch.zeros(len(self.places) + 1, dtype=sizes.dtype, device=sizes.device)
        alive.index_add_(0, self.dimensions, (largest > ALIVE).to(sizes.dtype))
        alive[-1] = 1
        pull = torch.cat((self.pull(alive), alive.new_zeros(1)))
        return largest, pull[self.dimensions]

    @torch.no_grad()
    def gradients(self) -> None:
        """Adds lambda * sign(gamma) * what its channel costs, to the largest scale of each unit."""
        largest, pull = self._pulled()
        felt = self.strength * pull[self.slots]
        largest = largest[self.slots]
        start = 0
        for scale in self.scales:
            here = slice(start, start + len(scale))
            start += len(scale)
            if scale.grad is not None:
                leads = scale.abs() == largest[here]
                scale.grad.add_(scale.sign() * felt[here] * leads)

    def record(self) -> dict[str, float]:
        """lambda, and the penalty without it."""
        return {"lambda": self.strength, "penalty": float(self.value())}


class LatencyWeightedScales(CostWeightedScales):
    """The same where the cost is latency: which term of a layer is pulled changes with what is alive.

    Args:
        strength: lambda.
        roofline: As `Roofline.to_json` returns it.
        places: As `places` returns it.
    """

    def __init__(
        self,
        strength: float,
        roofline: Mapping[str, Sequence[Any]],
        places: Sequence[Sequence[tuple[str, Sequence[int]]]],
    ) -> None:
        super().__init__(strength, (), places)
        self.roofline = roofline

    def prepare(self, like: Tensor) -> None:
        """Puts the roofline where the scales are."""
        self.layer = torch.tensor(self.roofline["layer"], device=like.device)
        self.arrays = {
            name: like.new_tensor(values) for name, values in self.roofline.items() if name != "layer"
        }

    def pull(self, alive: Tensor) -> Tensor:
        """As `Roofline.pulls`."""
        reads, writes, maps = (self.arrays[name] for name in ("reads", "writes", "maps"))
        read, written = reads @ alive, writes @ alive
        operations = maps.new_zeros(len(maps)).index_add(
            0, self.layer, self.arrays["operations"] * read * written
        )
        moved = (maps @ alive).index_add(0, self.layer, self.arrays["weights"] * read * written)
        bound = moved > operations
        longer = torch.where(bound[self.layer], self.arrays["weights"], self.arrays["operations"])
        price = self.arrays["sides"] * longer
        pulled = (price * written) @ reads + (price * read) @ writes + bound.to(maps.dtype) @ maps
        return pulled[:-1]


class MorphNet:
    """MorphNet as an architecture proposer.

    Args:
        pull: Total pull of the penalty on the scale of a channel of mean cost; by default 6.6, and 0.66 for
            networks with gates, which are those with residual sums or concatenations.
        cost: What a channel costs; `channels`: all the same, which makes it slimming with the same expansion.
        device: Where the network is to run, for the cost `latency`.
        peak: Of another device, in 1e9 operations per second.
        bandwidth: Of another device's memory, in 1e9 bytes per second.
        batch: Images at a time, for the cost `latency`.
    """

    def __init__(
        self,
        pull: float | None = None,
        cost: Cost = "macs",
        device: str = "V100",
        peak: float | None = None,
        bandwidth: float | None = None,
        batch: int = 1,
    ) -> None:
        given = {"device": device, "peak": peak, "bandwidth": bandwidth, "batch": batch}
        check_values("morphnet", pull=pull, cost=cost, **given)
        self.pull, self.cost, self.batch = pull, cost, batch
        known = DEVICES[device]
        self.device = Device(peak or known.peak, bandwidth or known.bandwidth)

    def penalty(self, space: SearchSpace, lr_sum: float, momentum: float) -> Penalty:
        """The penalty of the dense training.

        Raises:
            InputError: A dimension has no batch norm, or the sum of the learning rates is not known.
        """
        where = places(space)
        pull = self.pull
        if pull is None:
            pull = RESIDUAL_PULL if space.survey.gates else PLAIN_PULL
        strength = penalty_strength(pull, lr_sum, momentum)
        dense = space.dense_counts.astype(float)

        def per_mean(felt: npt.NDArray[np.float64]) -> float:
            """The strength at which a channel of mean cost feels the pull."""
            return strength / float(dense @ felt / dense.sum())

        if self.cost == "latency":
            bound = roofline(space, self.device, self.batch)
            options: Mapping[str, Any] = {
                "strength": per_mean(bound.pulls(dense)),
                "roofline": bound.to_json(),
            }
            return Penalty("morphnet/latency", {**options, "places": where})
        matrix = pulls(space, self.cost)
        options = {"strength": per_mean(matrix @ np.append(dense, 1.0)), "matrix": matrix.tolist()}
        return Penalty("morphnet/cost", {**options, "places": where})

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        space = brief.space
        trained = brief.trained(self.penalty(space, brief.lr_sum, brief.momentum))
        sizes = scores(space, trained.weights())
        alive = np.array([(size > ALIVE).sum() for size in sizes], float)
        seeded = space.counted(space.grid(alive))  # the floor holds what would be emptied
        proposals = []
        for target in brief.targets:
            arch = designs.fit(space, designs.ratios(space, seeded), target)
            if (space.counts(arch) > space.dense_counts).any():
                made = Proposal(target, arch, (TARGET_MISSED,) if designs.missed(space, arch, target) else ())
            else:
                made = proposal(space, space.counts(arch), in_order_of(sizes), target, trained.run)
            if space.measure(seeded, target.metric) > target.value:
                made = replace(made, flags=(*made.flags, PENALTY_NOT_ACTED))
            proposals.append(made)
        return proposals
