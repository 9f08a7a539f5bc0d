"""Designs from found shapes, as proposers: guided on the network they were found on, transferred to another.

The study, section 5 (arXiv:1810.05270): mean widths, or mean keep frequencies of kernel positions, per stage, over
the points that several searches found; every layer of a stage gets the mean. Depth is carried likewise, as the
share of a stage's blocks that is kept, which the study does not do. `prunas.designs` holds the
arithmetic; here it is put on a budget, so that it can be trained beside the others.

Departure: seed i's design is made of what the *other* seeds found, where the study makes one of all. So a design
never contains the shape it is compared with, and every seed has a shape of its own. These shapes share most of
what they are made of: they differ less than independent searches would. Where nothing can be left out (a single
seed, shipped shapes) the design is made of everything and flagged `none_left_out`: seeds share it, and n counts
trainings.
"""

from collections.abc import Callable, Sequence

from prunas import designs
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.designs import kernels
from prunas.errors import InputError
from prunas.names import NONE_LEFT_OUT
from prunas.proposers.baselines.controls import flagged
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace

__all__ = ["Guided", "GuidedDepth", "GuidedKernels", "Transferred", "TransferredDepth", "TransferredKernels"]

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

    def _source(self, brief: Brief) -> tuple[SearchSpace, Sequence[Proposal], bool]:
        """Where the points lie, the points, and whether those of the brief's own seed are left out."""
        raise NotImplementedError

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, once."""
        if trials:
            return []
        source, points, leaves_one_out = self._source(brief)
        flags = () if leaves_one_out else (NONE_LEFT_OUT,)
        proposals = []
        for target in brief.targets:
            same = [p for p in points if (p.target.metric, p.target.keep) == (target.metric, target.keep)]
            found = [p.architecture for p in same or points]  # published shapes answer no target of ours
            wanted = target if self.form == "fitted" else None
            arch = self.carry(source, found, brief.space, wanted, brief.seed)
            proposals.append(flagged(brief.space, arch, target, *flags))
        return proposals


class Guided(_Carried):
    """Mean stage ratios of what the other seeds found in this space."""

    def _source(self, brief: Brief) -> tuple[SearchSpace, Sequence[Proposal], bool]:
        if not brief.found_by_others:
            raise InputError(
                "guided designs need found points; add a pruning method, such as --proposer slimming"
            )
        return brief.space, brief.found_by_others, brief.leaves_one_out


class Transferred(_Carried):
    """Mean stage ratios of what the other seeds found in another space."""

    def _source(self, brief: Brief) -> tuple[SearchSpace, Sequence[Proposal], bool]:
        if brief.source is None or not brief.source.points:
            raise InputError(
                "transferred designs need a space they come from; use `prunas transfer --from SPACE`"
            )
        others = brief.source.without(brief.seed)
        return others.space, others.points, others is not brief.source


class GuidedDepth(Guided):
    """Mean share of blocks per stage of what the other seeds found in this space."""

    carry = staticmethod(_depth)


class TransferredDepth(Transferred):
    """Mean share of blocks per stage of what was found in another space."""

    carry = staticmethod(_depth)


class GuidedKernels(Guided):
    """Mean keep frequencies per stage and kernel position of what the other seeds found in this space."""

    carry = staticmethod(kernels.transferred_kernels)


class TransferredKernels(Transferred):
    """Mean keep frequencies per stage and kernel position of what was found in another space."""

    carry = staticmethod(kernels.transferred_kernels)
