"""A method's reading of a network that nobody trained: the control that has everything but the training.

What a method reads in weights can be there from the start: filters of wide layers are born small, so that one
threshold over their means finds the initialisation. A shape that searches agree on is found by training only if
it is not the one that this control proposes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prunas.errors import InputError
from prunas.proposers.brief import Brief, DenseNetwork, Penalty, Proposal, Trial
from prunas.proposers.registry import entry

__all__ = ["Untrained"]


class Untrained:
    """What a method proposes if the dense network has its initial weights.

    Args:
        method: Name of a method that reads a dense network without changing its training.
        settings: Of the method.
    """

    def __init__(self, method: str, **settings: Any) -> None:
        self._name = method
        self._method = entry(method).build(**settings)

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """What the method answers, without the weights of a run: there is none.

        Raises:
            InputError: The method needs a penalty in the training, or cannot serve the space.
        """

        def born(penalty: Penalty | None) -> DenseNetwork:
            if penalty is not None:
                raise InputError(
                    f"{self._name} decides by a penalty in the training; compare it with no penalty"
                )
            return DenseNetwork("", brief.untrained, {})

        proposals = self._method.propose(replace(brief, dense=born), trials)
        return [replace(proposal, weights_of=None, rebuild=None) for proposal in proposals]
