"""An agent's way through a network: dimension after dimension, each below the wall of the budget. Torch-free."""

from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunas.costs.target import Target
from prunas.proposers.pruning.channels import readers
from prunas.spaces.space import SearchSpace

__all__ = ["Walk", "largest_action", "usual_lower"]

Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

USUAL_LOWER = 0.2


def usual_lower(share: float) -> float:
    """The least share of a layer that is kept at a budget: 0.2 (AMC), and less where that could not be met.

    Args:
        share: The budget over the dense network's cost, in (0, 1].

    Returns:
        The smaller of 0.2 and PocketFlow's 1.5 * log10(1 + share).
    """
    return min(USUAL_LOWER, float(1.5 * np.log10(1 + share)))


def largest_action(budget: float, this: float, other: float) -> float:
    """The wall in closed form (algorithm 1 of AMC): the largest share that leaves the budget within reach.

    Args:
        budget: The cost that is allowed.
        this: What grows with the layer's share: its cost if all of it is kept, the other layers as they are
        now.
        other: The cost of the rest, undecided layers at their least.
    """
    return (budget - other) / this


class Walk:
    """The dimensions of a space in the order in which their readers are executed, under one budget.

    Args:
        space: The space; a convolution or linear layer must read each of its dimensions.
        target: The budget.
        lower: Least share of a dimension that is kept, in [0, 1].
        method: For messages.

    Attributes:
        order: Dimension of each step, shape (steps,).
        least: Least counts of the dimensions, by `lower`, shape (dimensions,).

    Raises:
        InputError: No convolution or linear layer reads a dimension.
    """

    def __init__(self, space: SearchSpace, target: Target, lower: float, method: str) -> None:
        self.space, self.target = space, target
        place = {layer.path: i for i, layer in enumerate(space.survey.layers)}
        first = [min(layers, key=lambda layer: place[layer.path]) for layers in readers(space, method)]
        self.order: Counts = np.argsort([place[layer.path] for layer in first], kind="stable")
        self.layers = [first[at] for at in self.order]
        self.least = self._rounded(lower * space.dense_counts.astype(float))

    @property
    def reachable(self) -> bool:
        """Whether the budget can be met with every dimension at its least."""
        return int(self._cost(self.least[None])[0]) <= self.target.value

    def wall(self, step: int, counts: Counts) -> int:
        """The largest count of this step's dimension that leaves the budget within reach, at least its least.

        Args:
            step: From 0.
            counts: Those of earlier steps are decided, the others are not read; shape (dimensions,).
        """
        at, choices = self.order[step], self._choices[step]
        table = np.tile(self._undecided(step, counts), (len(choices), 1))
        table[:, at] = choices
        fitting = int((self._cost(table) <= self.target.value).sum())
        return int(choices[max(fitting - 1, 0)])

    def decided(self, step: int, action: float, counts: Counts) -> int:
        """The count that an action asks for, rounded to the space's step and cut at the wall.

        Args:
            step: From 0.
            action: Share that is kept, in [0, 1].
            counts: As of `wall`.
        """
        at = self.order[step]
        asked = self._rounded(action * self.space.dense_counts.astype(float))[at]
        return int(np.clip(asked, self.least[at], self.wall(step, counts)))

    def actions(self, counts: Counts) -> Numbers:
        """Share of the dense count that each step keeps, shape (steps,)."""
        return (counts / self.space.dense_counts)[self.order]

    def states(self, counts: Counts, kind: Literal["eleven", "eight"]) -> Numbers:
        """What the agent sees before each of its steps, if it decides on these counts, shape (steps, features).

        `eleven` are the numbers of AMC's paper: index, output and input channels, height, width, stride and
        kernel of the layer that reads, its MACs, all scaled to [0, 1] over the steps; share of the cost that
        is gone with undecided dimensions at their least; share of the MACs in later steps; the action before.
        `eight` are PocketFlow's: the same without the kernel and the last three, and the MACs that this and
        later steps can still lose, each over its maximum.
        """
        static = self._static
        if kind == "eight":
            ahead = static[::-1, 7].cumsum()[::-1]
            columns = np.column_stack((static[:, [0, 1, 2, 3, 4, 5]], ahead, static[:, 7]))
            shares: Numbers = columns / np.maximum(columns.max(0), 1e-12)
            return shares
        low, high = static.min(0), static.max(0)
        scaled = (static - low) / np.where(high > low, high - low, 1.0)
        decided = np.stack([self._undecided(step, counts) for step in range(len(self.order))])
        gone = 1 - self._cost(decided) / self.space.measure(self.space.dense, self.target.metric)
        later = (static[::-1, 7].cumsum()[::-1] - static[:, 7]) / self.space.cost(self.space.dense).macs
        before = np.concatenate(([1.0], self.actions(counts)[:-1]))
        return np.column_stack((scaled, gone, later, before))

    def _rounded(self, counts: Numbers) -> Counts:
        """To the nearest whole number, at least 1, then up to the space's step."""
        whole = np.maximum(np.floor(counts + 0.5), 1)
        return self.space.grid(np.ceil(whole / self.space.step) * self.space.step)

    def _undecided(self, step: int, counts: Counts) -> Counts:
        """These counts with every dimension from this step on at its least."""
        table = self.least.copy()
        table[self.order[:step]] = counts[self.order[:step]]
        return table

    def _cost(self, counts: Counts) -> Counts:
        return self.space.measures(counts, self.target.metric)

    @cached_property
    def _choices(self) -> list[Counts]:
        """The counts that each step may decide on, ascending."""
        choices = []
        for at in self.order:
            every = np.arange(self.least[at], self.space.dense_counts[at] + 1)
            table = np.tile(self.least, (len(every), 1))
            table[:, at] = every
            counts = np.unique(self.space.grid(table)[:, at])
            choices.append(counts[counts >= self.least[at]])
        return choices

    @cached_property
    def _static(self) -> Numbers:
        """What does not depend on decisions, shape (steps, 8), unscaled; see `states`.

        A survey knows how many positions a layer writes. Those it reads are the positions that its input's
        producer writes; height and width have the proportions of the input image. Pooling in between counts
        as stride.
        """
        survey = self.space.survey
        dense = [group.units for group in survey.groups]
        macs: dict[str, int] = {}
        for row in survey.rows:
            reads, writes = (1 if form < 0 else survey.size(form, dense) for form in (row.reads, row.writes))
            macs[row.layer] = macs.get(row.layer, 0) + row.macs * reads * writes
        image = survey.input[-2:] if len(survey.input) == 3 else (1, 1)
        rows = []
        for index, layer in enumerate(self.layers):
            writers = [
                other.positions
                for other in survey.layers
                if other.positions and other.writes == layer.reads and other.path != layer.path
            ]
            written = max(layer.positions, 1)
            read = max(writers, default=written)
            height = (read * image[0] / image[1]) ** 0.5
            kernel = max(layer.kernel, default=1)
            channels = survey.size(layer.writes, dense), survey.size(layer.reads, dense)
            spatial = height, read / height, (read / written) ** 0.5
            rows.append((index, *channels, *spatial, kernel, macs.get(layer.path, 0)))
        return np.array(rows, float)
