"""Greedy slimming of a super-network: all targets from one training and one pass.

References:
    Yu & Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019,
    https://arxiv.org/abs/1903.11728.

One super-network is trained, see `prunas.works.supernet`. From its full width on, the layer that can lose one
quantum of its width at the least error does, until the smallest target is met; the shape at which each target
is passed is its answer. Errors are measured on a fixed part of the validation split, with the statistics of
the batch in batch norms, as in the paper.

Departures: of equal errors the step that saves most goes first (the paper does not say); `by = "ratio"`
divides what a step loses by what it saves, which does not prefer small steps; layers that share their
channels step together; a shape that lies below its target is filled up by single units, those of the last
steps first; where the narrowest quanta are still too much, they are scaled down together.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from prunas import designs
from prunas.costs.target import Target
from prunas.proposers.baselines.controls import flagged
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.evaluators import Evaluator, evaluator
from prunas.proposers.registry import check_values
from prunas.proposers.supernet.quanta import quantised
from prunas.spaces.space import SearchSpace

__all__ = ["AutoSlim", "answer", "counts_after", "filled", "steps"]

Counts = npt.NDArray[np.int64]


def counts_after(table: Counts, path: Sequence[int]) -> Counts:
    """Counts of every dimension after some steps, shape (dimensions,).

    Args:
        table: As `quantised` gives it.
        path: The dimension of each step.
    """
    places = table.shape[1] - 1 - np.bincount(np.array(path, np.int64), minlength=len(table))
    counts: Counts = table[np.arange(len(table)), places]
    return counts


def steps(
    space: SearchSpace,
    table: Counts,
    target: Target,
    gain: Callable[[Counts], float],
    by: str = "error",
    path: Sequence[int] = (),
) -> Iterator[int]:
    """The dimension of each further step, until a target is met or every layer has its narrowest quantum.

    Args:
        space: The space.
        table: Widths of every dimension, ascending, as `quantised` gives it.
        target: The smallest one.
        gain: How good a shape is; larger is better.
        by: `error`: the best shape; `ratio`: the one that loses least for what it saves.
        path: Steps that were taken before.
    """
    taken = list(path)
    while True:
        counts = counts_after(table, taken)
        cost = float(space.measures(counts, target.metric)[0])
        if cost <= target.value:
            return
        places = table.shape[1] - 1 - np.bincount(np.array(taken, np.int64), minlength=len(table))
        able = np.flatnonzero(places > 0)
        narrower = np.tile(counts, (len(able), 1))
        narrower[np.arange(len(able)), able] = table[able, places[able] - 1]
        saved = (
            cost - np.asarray(space.measures(narrower, target.metric), float) if len(able) else np.empty(0)
        )
        before = gain(counts) if by == "ratio" else 0.0
        choices = []
        for i, candidate, less in zip(able.tolist(), narrower, saved.tolist(), strict=True):
            if less <= 0:  # two quanta of the same width, or a gate that its input cuts anyway
                choices.append((np.inf, 0.0, -i))
                continue
            after = gain(candidate)
            choices.append(((after - before) / less if by == "ratio" else after, less, -i))
        if not choices:
            return
        taken.append(-max(choices)[2])
        yield taken[-1]


def filled(space: SearchSpace, counts: Counts, most: Counts, order: Sequence[int], target: Target) -> Counts:
    """Counts raised by single units as long as a budget allows.

    Args:
        space: The space.
        counts: Within the budget, shape (dimensions,).
        most: What no count is raised above.
        order: Dimensions, those that are raised first in front.
        target: The budget.
    """
    raised = counts.copy()
    for i in order:
        widths = np.unique(
            [
                space.grid(np.where(np.arange(len(raised)) == i, n, raised))[i]
                for n in range(raised[i], most[i] + 1)
            ]
        )
        if not len(widths):
            continue
        candidates = np.tile(raised, (len(widths), 1))
        candidates[:, i] = widths
        fits = space.measures(candidates, target.metric) <= target.value
        raised = candidates[max(np.flatnonzero(fits), default=0)]
    return raised


def answer(space: SearchSpace, table: Counts, path: Sequence[int], target: Target) -> Counts:
    """The shape at which a path of steps passes a target, filled up to it, shape (dimensions,)."""
    for length in range(len(path) + 1):
        counts = counts_after(table, path[:length])
        if space.measures(counts, target.metric)[0] <= target.value:
            break
    else:
        return space.counts(designs.fit(space, table[:, 0], target))
    if not length:
        return counts
    last = path[length - 1]
    recent = list(dict.fromkeys([last, *reversed(path[:length]), *range(len(table))]))
    above = counts_after(table, path[: length - 1])
    most = np.maximum(above, counts)
    counts = filled(space, counts, most, [last], target)
    finer = np.minimum(table[:, -1], counts + table[:, 0])
    finer[last] = most[last]
    return filled(space, counts, finer, recent[1:], target)


class AutoSlim:
    """Narrows a super-network step by step, by the least error.

    Args:
        by: `error` or `ratio`, see `steps`.
        images: Validation images on which every step is measured.
        quanta: Widths of a layer; as of the evaluator `supernet`, which reads the same training.
        sampled: Random networks per training step.
        lengths: Epochs of the super-network's training over those of the recipe.
    """

    def __init__(
        self, by: str = "error", images: int = 512, quanta: int = 8, sampled: int = 2, lengths: float = 1.0
    ) -> None:
        check_values("autoslim", by=by, images=images, quanta=quanta, sampled=sampled, lengths=lengths)
        self.by, self.images = by, images
        self.quanta, self.sampled, self.lengths = quanta, sampled, lengths

    def scored_by(self, space: SearchSpace, named: Evaluator | None = None) -> Evaluator:
        """What scores single points of the same super-network, whatever the search names."""
        return evaluator("supernet", quanta=self.quanta, sampled=self.sampled, lengths=self.lengths)

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """One point per target, all from one pass."""
        if trials:
            return []
        space, smallest = brief.space, min(brief.targets, key=lambda target: target.value)
        how = self.scored_by(space)
        options = {
            "run": brief.super_network(how).run,
            "evaluator": how.to_json(),
            "target": smallest.to_json(),
            "by": self.by,
            "images": self.images,
        }
        path = brief.run("supernet/greedy", options)["path"]
        table = quantised(space, self.quanta)
        return [
            flagged(space, space.counted(answer(space, table, path, target)), target)
            for target in brief.targets
        ]
