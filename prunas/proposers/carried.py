"""Designs from found shapes, as proposers: guided on the network they were found on, transferred to another.

The study, section 5 (arXiv:1810.05270): mean widths, or mean keep frequencies of kernel positions, per stage, over
the points that several searches found; every layer of a stage gets the mean. Depth is carried likewise, as the
share of a stage's blocks that is kept, which the study does not do. `prunas.designs` and `prunas.kernels` hold the
arithmetic; here it is put on a budget, so that it can be trained beside the others.
"""

from collections.abc import Callable, Sequence

from prunas import designs, kernels
from prunas.architecture import Architecture
from prunas.costs import Target
from prunas.errors import InputError
from prunas.proposers import check_values
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.controls import flagged
from prunas.space import SearchSpace

__all__ = [
    "Guided",
    "GuidedDepth",
    "GuidedKernels",
    "Transferred",
    "TransferredDepth",
    "TransferredKernels",
]

Carry = Callable[[SearchSpace, Sequence[Architecture], SearchSpace, Target | None, int], Architecture]


def _widths(
    source: SearchSpace, found: Sequence[Architecture], space: SearchSpace, target: Target | None, seed: int
) -> Architecture:
    return designs.transferred(source, found, space, target)


def _depth(
    source: SearchSpace, found: Sequence[Architecture], space: SearchSpace, target: Target | None, seed: int
) -> Architecture:
    return designs.transferred_depth(source, found, space, target)


class _Carried:
    """What they have in common.

    Args:
        form: `fitted` scales the means to the target by one number; `as-found` leaves them, as the study does, and
            the point lands where it lands.
    """

    carry: Carry = staticmethod(_widths)

    def __init__(self, form: str = "fitted") -> None:
        check_values("guided", form=form)
        self.form = form

    def _source(self, brief: Brief) -> tuple[SearchSpace, Sequence[Proposal]]:
        raise NotImplementedError

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, once."""
        if trials:
            return []
        source, points = self._source(brief)
        proposals = []
        for target in brief.targets:
            same = [p for p in points if (p.target.metric, p.target.keep) == (target.metric, target.keep)]
            found = [p.architecture for p in same or points]  # published shapes answer no target of ours
            wanted = target if self.form == "fitted" else None
            arch = self.carry(source, found, brief.space, wanted, brief.seed)
            proposals.append(flagged(brief.space, arch, target))
        return proposals


class Guided(_Carried):
    """Mean stage ratios of what all seeds found in this space."""

    def _source(self, brief: Brief) -> tuple[SearchSpace, Sequence[Proposal]]:
        if not brief.found_by_all:
            raise InputError(
                "guided designs need found points; add a pruning method, such as --proposer slimming"
            )
        return brief.space, brief.found_by_all


class Transferred(_Carried):
    """Mean stage ratios of what was found in another space."""

    def _source(self, brief: Brief) -> tuple[SearchSpace, Sequence[Proposal]]:
        if brief.source is None or not brief.source.points:
            raise InputError(
                "transferred designs need a space they come from; use `prunas transfer --from SPACE`"
            )
        return brief.source.space, brief.source.points


class GuidedDepth(Guided):
    """Mean share of blocks per stage of what all seeds found in this space."""

    carry = staticmethod(_depth)


class TransferredDepth(Transferred):
    """Mean share of blocks per stage of what was found in another space."""

    carry = staticmethod(_depth)


class GuidedKernels(Guided):
    """Mean keep frequencies per stage and kernel position of what all seeds found in this space."""

    carry = staticmethod(kernels.transferred_kernels)


class TransferredKernels(Transferred):
    """Mean keep frequencies per stage and kernel position of what was found in another space."""

    carry = staticmethod(kernels.transferred_kernels)
