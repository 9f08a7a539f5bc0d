"""Searches that are judged on the table: samplers of prunas, random choice, evolution, the order of a score."""

import random as pseudorandom
from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.table.judge import Budget, Evaluate, Search
from benchmarks.table.space import the_space
from prunas.architecture import Architecture
from prunas.proposers.brief import Brief, Trial
from prunas.proposers.registry import entry

__all__ = ["SEARCHES", "evolution", "in_order", "random_points", "sampler"]

TRIALS = 32
"""Different shapes that a sampler may ask for."""

POPULATION, SAMPLE, GENERATIONS = 8, 4, 10
"""Of evolution: how many live, among how many the parent is the best, and children per point of the budget."""


def random_points(budget: Budget, evaluate: Evaluate, seed: int) -> None:
    """All points within the budget in a random order: widths and blocks alike."""
    for i in np.random.default_rng(seed).permutation(len(budget.points)):
        evaluate(budget.points[i])


def in_order(values: npt.NDArray[np.float64], budget: Budget, evaluate: Evaluate, seed: int) -> None:
    """The points within the budget in the order of a score, the highest first.

    Args:
        values: The score of every point of the table, shape (points,).
        budget: The budget.
        evaluate: Looks a point up.
        seed: Changes nothing.
    """
    for i in budget.within[np.argsort(-values[budget.within], kind="stable")]:
        evaluate(budget.table.points[i])


def evolution(budget: Budget, evaluate: Evaluate, seed: int) -> None:
    """Regularised evolution (Real et al., AAAI 2019, arXiv:1802.01548) over widths and blocks.

    A child differs from its parent in one step of one width or in one block, and lies within the budget.
    """
    draw = pseudorandom.Random(seed)
    allowed = {_genes(arch): arch for arch in budget.points}
    first = draw.sample(sorted(allowed), min(POPULATION, len(allowed)))
    living = [(evaluate(allowed[genes]), genes) for genes in first]
    for _ in range(GENERATIONS * len(allowed)):  # known points cost nothing, so that this would never end
        _, parent = max(draw.sample(living, min(SAMPLE, len(living))))
        near = [genes for genes in sorted(allowed) if _steps(genes, parent) == 1]
        child = draw.choice(near or sorted(allowed))
        living = [*living[1:], (evaluate(allowed[child]), child)]


def _steps(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    return sum(abs(a - b) for a, b in zip(left, right, strict=True))


def _genes(arch: Architecture) -> tuple[int, ...]:
    """A point as numbers that differ by one between neighbours."""
    space = the_space()
    widths = (space.counts(arch) // space.step).tolist()
    return (*widths, *(int(block in arch.removed) for block in space.removable))


def sampler(name: str, budget: Budget, evaluate: Evaluate, seed: int) -> None:
    """A sampler of prunas over stage widths at the budget, with all blocks.

    Args:
        name: Of the sampler.
        budget: The budget.
        evaluate: Looks a point up.
        seed: Of the search.
    """
    proposer = entry(name).build()
    brief = Brief(the_space(), (budget.target,), seed, trials=TRIALS)
    trials: list[Trial] = []
    while proposals := proposer.propose(brief, trials):
        trials += [Trial(proposal, evaluate(proposal.architecture)) for proposal in proposals]


SEARCHES: Mapping[str, Search] = {
    "random points": random_points,
    "evolution": evolution,
    **{name: partial(sampler, name) for name in ("random", "tpe", "gp", "cmaes", "nsga2", "qmc")},
}
"""By name; `random points` and `evolution` choose blocks too, the samplers widths alone."""
