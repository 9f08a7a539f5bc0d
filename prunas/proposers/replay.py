"""Searches that are made again from finished trials, so that whoever learns from them is a pure function."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from prunas.costs.target import Target
from prunas.proposers.brief import Brief, Proposal, Trial

__all__ = ["DUPLICATES", "Replay", "call", "one_thread", "replayed"]

DUPLICATES = 30
"""Known shapes in a row after which a search counts as exhausted at a target."""


class Replay(ABC):
    """One search at one target: what was told to it, and what is open.

    Attributes:
        brief: What is asked.
        target: The budget.
        results: The trials that were told, in order.
    """

    def __init__(self, brief: Brief, target: Target) -> None:
        self.brief, self.target = brief, target
        self.results: list[Trial] = []

    def leads_to(self, brief: Brief, trials: Sequence[Trial]) -> bool:
        """Whether this search can go on: the same brief, and its results are the first of these trials."""
        ours = self.brief
        same = (ours.space, ours.seed, ours.trials, ours.score, ours.found) == (
            brief.space, brief.seed, brief.trials, brief.score, brief.found
        )  # fmt: skip
        return same and self.results == list(trials[: len(self.results)])

    def after(self, trials: Sequence[Trial]) -> list[Proposal]:
        """What is proposed after these trials, the first of which were told before."""
        for trial in trials[len(self.results) :]:
            self._begin_round()
            self._tell(trial)
        self._begin_round()
        return self._waiting()

    @abstractmethod
    def _begin_round(self) -> None:
        """Opens the next candidates once all are answered."""

    @abstractmethod
    def _tell(self, trial: Trial) -> None:
        """Takes a result."""

    @abstractmethod
    def _waiting(self) -> list[Proposal]:
        """The open candidates without a result."""


_R = TypeVar("_R", bound=Replay)


def replayed(
    searches: MutableMapping[Target, _R],
    brief: Brief,
    trials: Sequence[Trial],
    make: Callable[[Brief, Target], _R],
) -> list[Proposal]:
    """The next candidates of every target that has trials left.

    Args:
        searches: Those that were made before, which go on where they lead to these trials.
        brief: What is asked.
        trials: Results so far, of all targets.
        make: Begins a search.
    """
    proposals = []
    for target in brief.targets:
        results = [trial for trial in trials if trial.proposal.target == target]
        search = searches.pop(target, None)  # one that was interrupted is made anew
        if search is None or not search.leads_to(brief, results):
            search = make(brief, target)
        proposals += search.after(results)
        searches[target] = search
    return proposals


@contextmanager
def one_thread() -> Iterator[None]:
    """Has torch compute with one thread: matrices are small, and sums depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def call(name: str, arguments: Mapping[str, Any]) -> str:
    """A constructor call as a reader would type it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
