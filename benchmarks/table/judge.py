"""How good cheap scores and searches are, looked up in the table.

Everything is asked at budgets: of all points that cost no more, which is the best? A *score* is a function from
a point to a number, higher for what it takes to be better. A *search* sees validation accuracies of one seed, one
point after another; what it would answer by then is the best of them, and its *regret* is what that lacks of the
best point within the budget. The truth is mean test accuracy, over the seeds that a search or score has not seen.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks.table.space import the_space
from benchmarks.table.table import Table
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError

__all__ = [
    "BEST",
    "BINS",
    "Budget",
    "Course",
    "Score",
    "ScoreVerdict",
    "Search",
    "budgets_of",
    "judge_score",
    "judge_search",
    "lookup_regret",
]

BEST = 0.01
"""Share of the points within a budget that are its best."""

BINS, IN_A_BIN = 8, 8
"""Classes of nearly equal MACs within which points are compared at equal cost, and points of one at least."""

Floats = npt.NDArray[np.float64]

Score = Callable[[Architecture], float]

Evaluate = Callable[[Architecture], float]
"""Validation accuracy in percent of a point, looked up."""

Search = Callable[["Budget", Evaluate, int], None]
"""Called with a budget, what to evaluate with, and a seed; it evaluates points until it is stopped."""


@dataclass(frozen=True, eq=False)
class Budget:
    """The points of a table that cost no more than a share of the dense network.

    Attributes:
        table: The table.
        keep: The share.
        target: The budget itself.
    """

    table: Table
    keep: float
    target: Target

    @cached_property
    def within(self) -> npt.NDArray[np.int64]:
        """Positions of these points."""
        return np.flatnonzero(self.table.cost(self.target.metric) <= self.target.value)

    @cached_property
    def points(self) -> tuple[Architecture, ...]:
        """These points."""
        return tuple(self.table.points[i] for i in self.within)

    def best(self, truth: Floats) -> frozenset[int]:
        """Positions of the best `BEST` of them, at least one.

        Args:
            truth: Mean test accuracy of every point of the table, in percent.
        """
        count = max(1, math.ceil(BEST * len(self.within)))
        order = np.argsort(-truth[self.within], kind="stable")
        return frozenset(self.within[order[:count]].tolist())


def budgets_of(table: Table, keeps: Sequence[float] | None = None, metric: str = "macs") -> list[Budget]:
    """Budgets of a table: by default the targets of its space.

    Args:
        table: The table.
        keeps: Shares of the dense network.
        metric: What is counted.
    """
    space = the_space()
    return [Budget(table, keep, space.target(keep=keep, metric=metric)) for keep in keeps or space.study.keep]


# Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreVerdict:
    """What a score is worth.

    Attributes:
        tau: Kendall's tau with mean test accuracy over all points.
        tau_equal_cost: Its mean within `BINS` classes of nearly equal MACs; None where the score is the same for
            all of a class.
        regret: At each budget, what its first choice lacks of the best, in percentage points.
        needed: At each budget, how many points must be trained in its order until one of the best is among them.
    """

    tau: float
    tau_equal_cost: float | None
    regret: tuple[float, ...]
    needed: tuple[int, ...]


def judge_score(
    table: Table,
    score: Score | Floats,
    budgets: Sequence[Budget] | None = None,
    unseen: int | None = None,
) -> ScoreVerdict:
    """What a score is worth on the table.

    Args:
        table: The table.
        score: A function from a point to a number, or the numbers, shape (points,); higher means better.
        budgets: By default those of the space.
        unseen: A seed of the table that the score has seen.

    Raises:
        InputError: The score is no number at a point.
    """
    values = np.array([score(arch) for arch in table.points]) if callable(score) else np.asarray(score)
    if np.isnan(values).any():
        at = table.points[int(np.flatnonzero(np.isnan(values))[0])]
        raise InputError(f"the score of point {at.digest} is no number")
    truth, regrets, needed = table.truth(unseen), [], []
    for budget in budgets or budgets_of(table):
        order, best = budget.within[np.argsort(-values[budget.within], kind="stable")], budget.best(truth)
        regrets.append(float(truth[budget.within].max() - truth[order[0]]))
        needed.append(1 + next(n for n, i in enumerate(order.tolist()) if i in best))
    return ScoreVerdict(
        tau=_tau(values, truth),
        tau_equal_cost=_within_bins(values, truth, table),
        regret=tuple(regrets),
        needed=tuple(needed),
    )


def _within_bins(values: Floats, truth: Floats, table: Table) -> float | None:
    order = np.argsort(table.cost("macs"), kind="stable")
    bins = np.array_split(order, max(1, min(BINS, len(order) // IN_A_BIN)))
    taus = [_tau(values[some], truth[some]) for some in bins]
    return None if np.isnan(taus).any() else float(np.mean(taus))


def _tau(left: Floats, right: Floats) -> float:
    """Kendall's tau-b; no number where one side is the same everywhere."""
    return float(kendalltau(left, right).statistic)


# Searches


class _Enough(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Course:
    """One search.

    Attributes:
        regret: After each evaluation, of what is best on validation by then, in percentage points.
        needed: Evaluations until one of the best is among them; None if none was.
    """

    regret: tuple[float, ...]
    needed: int | None


def judge_search(budget: Budget, search: Search, seed: int, evaluations: int) -> Course:
    """The course of one search at a budget.

    A point that is asked for again costs nothing. A search that gives up early stays where it is.

    Args:
        budget: The budget.
        search: The search.
        seed: Its seed; it sees validation accuracies of that modulo the seeds of the table, and others judge it.
        evaluations: After how many it is stopped.

    Raises:
        InputError: It asked for a point outside the budget, or for none.
    """
    table = budget.table
    seen = seed % table.val.shape[1]
    val, truth, best = table.val[:, seen], table.truth(seen), budget.best(table.truth(seen))
    allowed, asked = set(budget.within.tolist()), dict[int, float]()

    def evaluate(arch: Architecture) -> float:
        place = table.at(arch)
        if place not in allowed:
            raise InputError(
                f"point {arch.digest} costs more than {budget.keep:.0%} of the {budget.target.metric}"
            )
        if place not in asked and len(asked) == evaluations:
            raise _Enough
        return asked.setdefault(place, float(val[place]))

    with suppress(_Enough):
        search(budget, evaluate, seed)
    if not asked:
        raise InputError("the search evaluated no point")
    order = list(asked)
    chosen = [max(order[: n + 1], key=asked.__getitem__) for n in range(len(order))]
    regrets = [float(truth[budget.within].max() - truth[place]) for place in chosen]
    regrets += regrets[-1:] * (evaluations - len(regrets))
    met = [n + 1 for n, place in enumerate(order) if place in best]
    return Course(tuple(regrets), met[0] if met else None)


# Points that somebody proposed


def lookup_regret(table: Table, arch: Architecture, target: Target) -> dict[str, Any]:
    """What a proposed point lacks of the best that costs no more than it, or than its target if that is more.

    Returns:
        `regret` in percentage points, and `reached`, the cost over the target.

    Raises:
        InputError: The point is not in the table.
    """
    cost, truth, place = table.cost(target.metric), table.truth(), table.at(arch)
    allowed = cost <= max(target.value, cost[place])
    regret = float(truth[allowed].max() - truth[place])
    return {"regret": regret, "reached": float(cost[place] / target.value)}
