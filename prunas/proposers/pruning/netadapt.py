"""NetAdapt: one layer at a time, the one whose narrowing costs the least score per saved cost.

Reference:
    Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018,
    https://arxiv.org/abs/1804.03230, algorithm 1; step, decay and the rule by ratio as in the authors' code.

From the trained network on, every iteration lowers the budget by a step, which shrinks by a factor each time.
For each layer alone there is a candidate: the largest width at which the network meets that budget, with its
largest filters. The candidate with the least loss of score per saved cost is where the next iteration starts. All
candidates of an iteration are scored side by side.

Departures:
    - A candidate is scored on validation images with the weights it inherits, batch norms estimated anew, or by
      the search's evaluator, instead of after a short fine-tuning (the code's example: 500 steps); and the
      network chosen keeps the trained weights. So the search is the greedy one of AutoSlim on a trained network,
      and costs forward passes alone.
    - Filters are ranked by the sum of their absolute weights, as in `l1`, not by that of their squares.
    - Of one search all targets are read off: where the next step would pass a target, the candidates are cut to
      the target for its answer, and the search goes on without that.
    - Where no layer alone can save a step, the layers' least widths are the candidates until the budget is met.
    - The cost is any metric that prunas counts; the paper measures latency.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunas.errors import InputError
from prunas.proposers.brief import Brief, DenseNetwork, Proposal, Trial
from prunas.proposers.evaluators import INHERITED, Evaluator, evaluator, has_batch_norms
from prunas.proposers.pruning.channels import Choose, in_order_of, proposal, weighing
from prunas.proposers.pruning.l1 import sums
from prunas.proposers.registry import check_values
from prunas.spaces.space import SearchSpace

__all__ = ["NetAdapt", "budgets", "narrowed"]

Counts = npt.NDArray[np.int64]


def budgets(step: float, decay: float) -> Iterator[float]:
    """The budget of every iteration as a share of the dense cost, downwards from 1 - step, without end."""
    budget = 1.0
    while True:
        budget -= step
        step *= decay
        yield budget


def narrowed(space: SearchSpace, counts: Counts, metric: str, limit: float) -> list[Counts]:
    """For each dimension alone the largest count below the present one that meets a limit, as far as there is one.

    Args:
        space: The space.
        counts: The present ones, shape (dimensions,).
        metric: What the limit counts.
        limit: The most the network may cost.

    Returns:
        Counts of shape (dimensions,), each cheaper than the present ones.
    """
    present = space.measures(counts[None], metric)[0]
    candidates = []
    for i, count in enumerate(counts.tolist()):
        table = np.tile(counts, (count, 1))
        table[:, i] = np.arange(count)
        table = np.unique(space.grid(table), axis=0)
        table = table[table[:, i] < count]  # the floor may be the present count
        costs = space.measures(table, metric) if len(table) else np.empty(0)
        meets = np.flatnonzero((costs <= limit) & (costs < present))
        if len(meets):
            candidates.append(table[meets[-1]])
    return candidates


class NetAdapt:
    """Greedy narrowing as an architecture proposer.

    Args:
        step: Cost saved by the first iteration, as a share of the dense network's, in (0, 0.5].
        decay: What the step is multiplied by after every iteration, in (0, 1].
        images: Training images from which batch norms are estimated anew before a candidate is scored; 0 keeps the
            inherited ones. Means nothing where the search names an evaluator.
        rule: `ratio`: the least loss of score per saved cost; `score`: the best score, as the paper's text has it;
            `random`: any candidate, by the seed of the search and without scores, which is its control.
    """

    def __init__(
        self,
        step: float = 0.05,
        decay: float = 0.96,
        images: int = 1024,
        rule: Literal["ratio", "score", "random"] = "ratio",
    ) -> None:
        check_values("netadapt", step=step, decay=decay, images=images, rule=rule)
        self.step, self.decay, self.images, self.rule = step, decay, images, rule

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target from one dense training and the scores of all candidates, once.

        Raises:
            Pending: Candidates are not scored yet; all those of an iteration are asked for.
            InputError: No layer makes a dimension, the steps do not reach a target, or nothing does.
        """
        if trials:
            return []
        weighing(brief.space, "netadapt")  # refuses an unfit space before anything is trained
        self._check_reach(brief)
        dense = brief.trained()
        choose = in_order_of(sums(brief.space, dense.weights())[0])
        return list(_Walk(self, brief, dense, choose).answers())

    def scored_by(self, space: SearchSpace, named: Evaluator | None = None) -> Evaluator:
        """What scores candidates: the evaluator that the search names, if it does."""
        if named is not None:
            return named
        if self.images and has_batch_norms(space):
            return evaluator("adaptive-bn", norms=self.images, images=0)
        return INHERITED

    def _check_reach(self, brief: Brief) -> None:
        space, reach = brief.space, self.step / (1 - self.decay) if self.decay < 1 else np.inf
        for target in brief.targets:
            wanted = 1 - target.value / space.measure(space.dense, target.metric)
            if wanted > reach - 1e-9 and wanted > 0:
                raise InputError(
                    f"netadapt: steps from {self.step:g} on that shrink by {self.decay:g} save {reach:.1%} in "
                    f"all, and {target.label} of {target.metric} asks for {wanted:.1%}; raise --set "
                    "netadapt.step, or netadapt.decay"
                )


class _Walk:
    """One search from the dense network down."""

    def __init__(self, settings: NetAdapt, brief: Brief, dense: DenseNetwork, choose: Choose) -> None:
        self.settings, self.brief, self.dense, self.choose = settings, brief, dense, choose
        self.space = brief.space
        self.evaluator = settings.scored_by(brief.space, brief.evaluator)

    def answers(self) -> Iterator[Proposal]:
        """The proposals, in the order of the targets; those of each metric from a search of its own."""
        by_metric: dict[str, list[int]] = {}
        for i, target in enumerate(self.brief.targets):
            by_metric.setdefault(target.metric, []).append(i)
        answers: dict[int, Proposal] = {}
        for metric, places in by_metric.items():
            answers |= self._down(metric, sorted(places, key=lambda i: -self.brief.targets[i].value))
        return (answers[i] for i in range(len(self.brief.targets)))

    def _down(self, metric: str, places: list[int]) -> dict[int, Proposal]:
        space, settings = self.space, self.settings
        whole = space.measure(space.dense, metric)
        answers: dict[int, Proposal] = {}
        counts = space.dense_counts.copy()
        for budget in budgets(settings.step, settings.decay):
            while places and self.brief.targets[places[0]].value >= budget * whole:
                place = places.pop(0)
                limit = self.brief.targets[place].value
                answers[place] = self._point(self._within(counts, metric, limit), place)
            if not places:
                return answers
            counts = self._within(counts, metric, budget * whole)
        raise AssertionError("budgets end only with the targets")

    def _within(self, counts: Counts, metric: str, limit: float) -> Counts:
        """The counts after as many choices as it takes to meet a limit; as a rule one, none if they meet it."""
        while self.space.measures(counts[None], metric)[0] > limit:
            candidates = narrowed(self.space, counts, metric, limit)
            if not candidates:  # the least widths, each of which saves something
                least = self.space.grid(np.zeros(len(counts)))
                alone = [np.where(np.arange(len(counts)) == i, least, counts) for i in range(len(counts))]
                present = self.space.measures(counts[None], metric)[0]
                candidates = [c for c in alone if self.space.measures(c[None], metric)[0] < present]
            if not candidates:
                raise InputError(
                    f"netadapt cannot meet {limit:,.0f} of {metric} in space {self.space.name!r} by widths"
                )
            counts = self._best(counts, candidates, metric)
        return counts

    def _best(self, counts: Counts, candidates: list[Counts], metric: str) -> Counts:
        if self.settings.rule == "random":  # by where it stands, so that a further target changes nothing
            generator = np.random.default_rng([self.brief.seed, *counts.tolist()])
            return candidates[int(generator.integers(len(candidates)))]
        present, *scores = self._scores([counts, *candidates])
        losses = [-self.brief.score.gain(score, present) for score in scores]
        if self.settings.rule == "score":
            return candidates[int(np.argmin(losses))]
        costs = self.space.measures(np.array([counts, *candidates]), metric)
        saved = (costs[0] - costs[1:]) / self.space.measure(self.space.dense, metric)
        return candidates[int(np.argmin((np.array(losses) + 1e-6) / (saved + 1e-5)))]

    def _scores(self, several: list[Counts]) -> list[float]:
        """Validation scores; all are asked for before it waits for any."""
        points = [self._point(counts, 0) for counts in several]
        return self.brief.evaluate_all(
            [point.architecture for point in points],
            self.evaluator,
            dense=self.dense,
            kept=[point.kept for point in points],
        )

    def _point(self, counts: Counts, place: int) -> Proposal:
        return proposal(self.space, counts, self.choose, self.brief.targets[place], self.dense.run)
