"""The cost of a point as a sum of products of two sums of counts, for methods that take its derivative."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prunas.spaces.space import SearchSpace
from prunas.survey import FIXED

__all__ = ["Products", "channel_counts", "products"]

Table = npt.NDArray[np.float64]


class Products(NamedTuple):
    """cost(counts) = sum of coefficient * (reads @ (counts, 1)) * (writes @ (counts, 1)).

    Attributes:
        coefficients: Shape (rows,).
        reads: Channels read, per count of each dimension and fixed ones last, shape (rows, dimensions + 1); of a
            row that counts outputs alone, such as a depthwise convolution's, the constant 1.
        writes: Channels written, likewise.
        depthwise: Which rows are of depthwise convolutions, shape (rows,).
    """

    coefficients: Table
    reads: Table
    writes: Table
    depthwise: npt.NDArray[np.bool_]

    def cost(self, counts: npt.ArrayLike) -> float:
        """The cost at counts of shape (dimensions,), which need not be whole."""
        extended = np.append(np.asarray(counts, float), 1.0)
        return float(self.coefficients @ ((self.reads @ extended) * (self.writes @ extended)))

    def slopes(self, counts: npt.ArrayLike) -> Table:
        """Derivative of the cost by each count, shape (dimensions,)."""
        extended = np.append(np.asarray(counts, float), 1.0)
        by_read = (self.coefficients * (self.writes @ extended)) @ self.reads
        by_write = (self.coefficients * (self.reads @ extended)) @ self.writes
        slopes: Table = (by_read + by_write)[:-1]
        return slopes


def products(space: SearchSpace, metric: str) -> Products:
    """The rows of a cost, of a network with all its blocks.

    A gate's count is taken as it is: nothing cuts it to its input.

    Args:
        space: The space.
        metric: `params` or `macs`, without what lies outside the part that varies.
    """
    survey = space.survey
    channels = channel_counts(space)
    rows = [row for row in survey.rows if getattr(row, metric)]
    layers = [survey.layer_at.get(row.layer) for row in rows]
    return Products(
        np.array([getattr(row, metric) for row in rows], float),
        np.array([channels(row.reads, row.gate_reads) for row in rows]).reshape(len(rows), -1),
        np.array([channels(row.writes, row.gate_writes) for row in rows]).reshape(len(rows), -1),
        np.array([layer is not None and layer.depthwise for layer in layers], bool),
    )


def channel_counts(space: SearchSpace) -> Callable[[int, str | None], Table]:
    """A function that says how many channels an axis has, per count of each dimension and fixed ones last.

    It takes the index of a form, -1 for the constant 1, and the name of the gate that selects the axis, or None,
    and answers an array of shape (dimensions + 1,).
    """
    survey = space.survey
    at = {(d.kind, d.name): i for i, d in enumerate(space.dimensions)}
    dimensions = len(space.dimensions)

    def channels(form: int, gate: str | None) -> Table:
        sizes = np.zeros(dimensions + 1)
        if gate is not None and ("gate", gate) in at:
            sizes[at["gate", gate]] = 1
        elif form < 0:
            sizes[-1] = 1
        else:
            for run in survey.forms[form]:
                name = survey.groups[run.group].name if run.group != FIXED else ""
                place = at.get(("group", name), -1)
                units = survey.groups[run.group].units if place >= 0 else 1
                sizes[place] += run.length * run.repeat / units
        return sizes

    return channels
