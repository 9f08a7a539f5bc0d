"""Sparse structure selection: scales on residual branches, driven to exact zero, decide which blocks stay.

Reference:
    Huang & Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018,
    https://arxiv.org/abs/1707.01213, section 3: accelerated proximal gradient, equations 10 to 12.

Every removable branch is multiplied by a scale that starts at 1. An L1 penalty on the scales is stepped
proximally, so that they reach zero exactly; a branch at zero is gone. The scales are not decayed.

Departures:
    - One training serves all targets. Branches go in the order in which their scales reached zero for good, then
      by the size of what is left; the paper tunes the penalty for every point and trains once for each.
    - The penalty is scaled to the schedule like network slimming's: its pull, strength * sum(lr) /
      (1 - momentum), is what a scale would lose if the loss did not hold it. If fewer scales end at zero than
      branches are removed, the proposal is flagged `penalty_not_acted`.
    - Depth offers few points: the largest one within the budget is proposed, whatever it misses the target by.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from prunas import designs
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import PENALTY_NOT_ACTED, TARGET_MISSED
from prunas.proposers.brief import Brief, Penalty, Proposal, Trial, penalty_strength
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace
from prunas.survey import Block
from prunas.training.hooks import Regulariser

__all__ = ["BranchScales", "SparseStructureSelection", "branch_ends"]


class BranchScales(Regulariser):
    """Scales on branches and their accelerated proximal gradient.

    Args:
        strength: Weight of the L1 penalty.
        momentum: Of the acceleration.
        branches: Module path of the last layer of each branch, whose output is scaled.
    """

    def __init__(self, strength: float, momentum: float, branches: Sequence[str]) -> None:
        self.strength, self.momentum, self.branches = strength, momentum, list(branches)

    def attach(self, net: nn.Module) -> None:
        """Multiplies the branches' outputs by scales of 1."""
        device = next(net.parameters()).device
        self.scales = torch.ones(len(self.branches), device=device, requires_grad=True)
        self.velocity = torch.zeros_like(self.scales)
        self.until = torch.zeros_like(self.scales)
        self.steps = torch.zeros((), device=device)
        for i, path in enumerate(self.branches):
            net.get_submodule(path).register_forward_hook(
                lambda module, inputs, output, i=i: output * self.scales[i]
            )

    def gradients(self) -> None:
        """Nothing: the scales are not among the optimiser's parameters."""

    @torch.no_grad()
    def after_step(self, lr: Tensor) -> None:
        """Equations 10 to 12. Scales are held at 0 or more; what the momentum remembers is not."""
        gradient = self.scales.grad
        assert gradient is not None
        step, reach = self.scales - lr * gradient, lr * self.strength
        near = step.sign() * torch.relu(step.abs() - reach)  # the soft threshold, of either sign
        self.velocity.mul_(self.momentum).add_(near - self.scales)
        self.scales.copy_(torch.relu(near + self.momentum * self.velocity))
        self.scales.grad = None
        self.steps += 1
        self.until.copy_(torch.where(self.scales > 0, self.steps, self.until))

    def state(self) -> dict[str, Tensor]:
        """Scales, velocity, and when each scale was last above zero."""
        own = {"scales": self.scales.detach(), "velocity": self.velocity}
        return own | {"until": self.until, "steps": self.steps}

    def record(self) -> dict[str, float]:
        """Per branch, its final scale and the share of the training after which it stayed at zero."""
        scales, until = self.scales.tolist(), (self.until / self.steps).tolist()
        record = {f"scale {path}": scale for path, scale in zip(self.branches, scales, strict=True)}
        return record | {f"until {path}": share for path, share in zip(self.branches, until, strict=True)}


def branch_ends(space: SearchSpace) -> tuple[list[Block], list[str]]:
    """The removable blocks in order, and of each the module path of its branch's last layer."""
    blocks = [block for block in space.survey.blocks if block.name in space.removable]
    ends = [  # a branch that shares its module with another is a chain of modules
        block.chain[-1]
        if block.chain
        else next(path for path in reversed(block.branch) if path in space.survey.layer_at)
        for block in blocks
    ]
    return blocks, ends


class SparseStructureSelection:
    """Removes blocks by the order in which their scales reach zero.

    Args:
        pull: Total pull of the penalty on one scale, in units of its initial 1.
    """

    def __init__(self, pull: float = 10.0) -> None:
        check_values("sss", pull=pull)
        self.pull = pull

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training, once."""
        if trials:
            return []
        space = brief.space
        if not space.removable:
            raise InputError(
                f"sss removes residual branches, and space {space.name!r} lets none vary; slimming and samplers "
                "such as tpe decide widths instead"
            )
        blocks, last = branch_ends(space)
        strength = penalty_strength(self.pull, brief.lr_sum, brief.momentum)
        options = {"strength": strength, "momentum": brief.momentum, "branches": last}
        trained = brief.trained(Penalty("sss/branch", options))
        until = [trained.record[f"until {path}"] for path in last]
        scale = [trained.record[f"scale {path}"] for path in last]
        order = [blocks[i].name for i in np.lexsort((scale, until))]
        zeros = sum(value == 0 for value in scale)
        return [self._point(space, order, zeros, target) for target in brief.targets]

    def _point(self, space: SearchSpace, order: Sequence[str], zeros: int, target: Target) -> Proposal:
        for count in range(len(order) + 1):
            arch = space.point(removed=order[:count])
            if space.measure(arch, target.metric) <= target.value:
                flags = [(PENALTY_NOT_ACTED, zeros < count)]
                flags.append((TARGET_MISSED, designs.missed(space, arch, target)))
                return Proposal(target, arch, tuple(name for name, held in flags if held), {})
        least = space.measure(space.point(removed=order), target.metric)
        raise InputError(
            f"sss cannot meet {target.label} of {target.metric} in space {space.name!r}: without any branch it "
            f"still has {least:,}"
        )
