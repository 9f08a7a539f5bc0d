"""BlockDrop: a policy says image by image which residual branches are needed; what it says on average is a depth.

Reference:
    Wu et al., BlockDrop: Dynamic Inference Paths in Residual Networks, CVPR 2018,
    https://arxiv.org/abs/1711.08393. How the policy learns, and the departures there: `prunas.works.policy`.

Branches go in the order of the mean probability with which the policy keeps them over training images, the
later one of equals first, until the budget is met.

Departures:
    - The paper's network chooses for every image. Here one depth serves all of them, because a network is trained
      from scratch at it. Where no single policy serves half of the images, the proposal is flagged
      `policies_differ`: the paper finds 469 policies on CIFAR-10 and only 10 on ImageNet. Their number, and how
      much they vary in length, stand in the result of the run `blockdrop-policy` beside the trainings.
    - A stage keeps its first block, which may change the shape of what passes, unless the budget cannot be met
      otherwise. The paper's policies drop those too.
    - Depth offers few points: the largest one within the budget is proposed, whatever it misses the target by.
"""

from collections.abc import Sequence

from prunas import designs
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import POLICIES_DIFFER, TARGET_MISSED
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.pruning.sss import branch_ends
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace
from prunas.tasks.score import ACCURACY

__all__ = ["BlockDrop", "removal_order"]

BATCH = 256


class BlockDrop:
    """Removes the blocks that the policies keep least.

    Args:
        epochs: Passes of the policy's training over its images.
        images: Images of the training split that it learns from, at most.
        penalty: What a wrong answer costs; a right one is worth 1 less the square of the share of blocks used.
        alpha: How close what is drawn keeps to the policy, in (0.5, 1).
        beta: Weight of the entropy of what is drawn.
    """

    def __init__(
        self,
        epochs: int = 60,
        images: int = 2048,
        penalty: float = 1.0,
        alpha: float = 0.8,
        beta: float = 0.1,
    ) -> None:
        self._options = {"epochs": epochs, "images": images, "penalty": penalty, "alpha": alpha, "beta": beta}
        check_values("blockdrop", **self._options)

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one policy, once."""
        if trials:
            return []
        space = brief.space
        self._check(brief)
        blocks, ends = branch_ends(space)
        dense = brief.trained()
        learnt = brief.run(
            "blockdrop/policy",
            {
                **self._options,
                "batch": BATCH,
                "branches": ends,
                "inherit": {"run": dense.run, "kept": {}},
            },
        )
        order = removal_order(space, dict(zip((b.name for b in blocks), learnt["means"], strict=True)))
        flags = (POLICIES_DIFFER,) if learnt["commonest"] < 0.5 else ()
        return [self._point(space, order, target, dense.run, flags) for target in brief.targets]

    def _check(self, brief: Brief) -> None:
        """Refuses what no policy could learn in, before anything is trained."""
        space, score = brief.space, brief.score
        if not space.removable:
            raise InputError(
                f"blockdrop removes residual branches, and space {space.name!r} lets none vary; slimming and "
                "samplers such as tpe decide widths instead"
            )
        if score.name != ACCURACY.name:
            raise InputError(
                f"blockdrop learns from answers that are right or wrong, and the task of space {space.name!r} "
                f"is scored by its {score.name}; sss removes blocks for any task"
            )
        if len(space.survey.input) != 3 or len(space.survey.called_with.tensors) != 1:
            raise InputError(
                f"blockdrop's policy looks at one image, and the network of space {space.name!r} takes something "
                "else; sss removes blocks of any network"
            )

    def _point(
        self, space: SearchSpace, order: Sequence[str], target: Target, run: str, flags: tuple[str, ...]
    ) -> Proposal:
        for count in range(len(order) + 1):
            arch = space.point(removed=order[:count])
            if space.measure(arch, target.metric) <= target.value:
                missed = (TARGET_MISSED,) if designs.missed(space, arch, target) else ()
                return Proposal(target, arch, (*flags, *missed), {}, run)
        least = space.measure(space.point(removed=order), target.metric)
        raise InputError(
            f"blockdrop cannot meet {target.label} of {target.metric} in space {space.name!r}: without any branch "
            f"it still has {least:,}"
        )


def removal_order(space: SearchSpace, means: dict[str, float]) -> list[str]:
    """The removable blocks, those first that are kept least; the first block of every stage behind all others.

    Of equals the later one goes first.

    Args:
        space: The space.
        means: Mean probability of staying, by block.
    """
    place = space.survey.block_index
    begins: dict[int, str] = {}
    for block in space.survey.blocks:
        begins.setdefault(block.stage, block.name)
    held = set(begins.values())
    return sorted(means, key=lambda name: (name in held, means[name], -place[name]))
