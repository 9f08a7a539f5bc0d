"""What a point costs, exactly, and what a budget is: arithmetic on a survey's rows, without torch.

Two pairs of numbers. `params` and `macs` count the weights that exist; `dense_params` and `dense_macs` what a
dense device stores and executes. They differ only under a kernel pattern. MACs are multiply-accumulates of one
image in eval mode; norms, activations, pooling and biases are not counted among them.
"""

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture
from prunas.costs.kernels import kept_weights
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.survey import FIXED, Survey

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Cost", "CostModel", "check_target"]

Table = npt.NDArray[np.float64]

CHUNK = 1 << 14
"""Numbers per temporary array: few enough to stay in a processor's cache, and in memory that is used again."""


class Cost(NamedTuple):
    """Cost of one network; see the module's docstring."""

    params: int
    macs: int
    dense_params: int
    dense_macs: int

    def to_json(self) -> dict[str, int]:
        """The four numbers by name."""
        return self._asdict()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        """Describes the object that `to_json` makes, where pydantic would describe an array."""
        counts = {name: {"type": "integer"} for name in cls._fields}
        return {
            "type": "object",
            "properties": counts,
            "required": list(counts),
            "additionalProperties": False,
        }


def check_target(target: Target) -> None:
    """Refuses a budget that is a bare number, which may be meant as a fraction or as a count.

    Raises:
        InputError: It is one.
    """
    if not isinstance(target, Target):
        raise InputError(
            f"a target is wanted, not {target!r}; make one with space.target(keep=0.3), or with budget=400_000"
        )


class CostModel:
    """The cost of every point of a surveyed network.

    Args:
        survey: The network.
    """

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self._linear, self._constant = _sizes(survey)
        rows = survey.rows
        self._counts = np.array([[row.params for row in rows], [row.macs for row in rows]], np.float64)
        at = survey.layer_at
        positions = [at[row.layer].positions if row.macs and row.layer in at else 0 for row in rows]
        self._output_counts = np.array([positions], np.float64)
        self._conv_counts = np.array([[row.params if row.weight else 0 for row in rows]], np.float64)
        self._gate_index = {gate.name: i for i, gate in enumerate(survey.gates)}
        self._in_block = tuple(
            [i for i, row in enumerate(rows) if block in row.blocks] for block in range(len(survey.blocks))
        )
        self._gate_forms = [gate.form for gate in survey.gates]
        # Places in a column of sizes: those of `_sizes`, then what passes each gate.
        ones = len(survey.forms)
        self._reads, self._writes = (
            np.array(
                [
                    (form if form >= 0 else ones) if gate is None else ones + 1 + self._gate_index[gate]
                    for form, gate in ends
                ],
                np.intp,
            )
            for ends in (
                [(row.reads, row.gate_reads) for row in rows],
                [(row.writes, row.gate_writes) for row in rows],
            )
        )

    @cached_property
    def dense_widths(self) -> npt.NDArray[np.int64]:
        """Units of every group in the dense network, shape (groups,)."""
        return np.array([group.units for group in self.survey.groups], np.int64)

    def table(
        self,
        widths: npt.ArrayLike,
        selected: npt.ArrayLike | None = None,
        alive: npt.ArrayLike | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Parameters and MACs of many points at once, kernels dense.

        Args:
            widths: Units per group, shape (points, groups).
            selected: Channels that pass each gate, shape (points, gates), at most those at its input; a negative
                entry means all. None means all of all.
            alive: Whether each block has its branch, shape (points, blocks). None means all have.

        Returns:
            Two arrays of shape (points,): dense_params and dense_macs, exact.
        """
        params, macs = self._totals(self._counts, widths, selected, alive)
        return params, macs

    def conv_params_table(
        self,
        widths: npt.ArrayLike,
        selected: npt.ArrayLike | None = None,
        alive: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.int64]:
        """Weights of the convolutions of many points at once, kernels dense; arguments as of `table`.

        Returns:
            Shape (points,), exact.
        """
        weights: npt.NDArray[np.int64] = self._totals(self._conv_counts, widths, selected, alive)[0]
        return weights

    def activations_table(
        self,
        widths: npt.ArrayLike,
        selected: npt.ArrayLike | None = None,
        alive: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.int64]:
        """Outputs of all convolutions and linear layers for one image; arguments as of `table`.

        Returns:
            Shape (points,), exact.
        """
        ones = np.full_like(self._reads, len(self.survey.forms))
        outputs: npt.NDArray[np.int64] = self._totals(self._output_counts, widths, selected, alive, ones)[0]
        return outputs + (self.survey.part.activations if self.survey.part else 0)

    def activations(self, arch: Architecture) -> int:
        """Outputs of all convolutions and linear layers of one point, for one image."""
        return int(self.activations_table(*self._columns(arch))[0])

    def conv_params(self, arch: Architecture) -> int:
        """Weights of the convolutions of one point that exist."""
        at = self.survey.layer_at
        return sum(
            math.prod(shape) if arch.kernels is None else kept_weights(arch.kernels, at[path], shape)
            for path, shape in self.weights(arch).items()
        )

    def _totals(
        self,
        counts: Table,
        widths: npt.ArrayLike,
        selected: npt.ArrayLike | None,
        alive: npt.ArrayLike | None,
        reads: npt.NDArray[np.intp] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Sums of the products of rows, each weighed by `counts` of shape (sums, rows): shape (sums, points).

        `reads` replaces the first factors.
        """
        # float64 holds integers exactly up to 2**53, and its products are far faster than int64's.
        units = np.asarray(widths, np.float64)
        passing, present = (
            None if table is None else np.asarray(table, np.float64).T for table in (selected, alive)
        )
        step = max(1, CHUNK // (len(self._reads) + 1))
        parts = [np.empty((len(counts), 0))]
        for start in range(0, len(units), step):
            some = slice(start, start + step)
            sizes = self._sizes(units[some])
            passed = sizes[self._gate_forms]
            if passing is not None:
                chosen = passing[:, some]
                np.copyto(passed, np.minimum(passed, chosen), where=chosen >= 0)
            sizes = np.concatenate((sizes, passed))
            products = sizes[self._reads if reads is None else reads]
            products *= sizes[self._writes]
            if present is not None:
                for inside, branch in zip(self._in_block, present, strict=True):
                    products[inside] *= branch[some]
            parts.append(counts @ products)
        return np.concatenate(parts, axis=1).astype(np.int64)

    def gate_inputs(self, widths: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Channels at each gate's input as built, shape (points, gates), for widths of shape (points, groups)."""
        return self._sizes(widths)[self._gate_forms].T.astype(np.int64)

    def _sizes(self, widths: npt.ArrayLike) -> Table:
        """Channels of every form, and a last row of ones (the form -1), shape (forms + 1, points)."""
        sizes: Table = self._linear @ np.asarray(widths, np.float64).T + self._constant
        return sizes

    def widths(self, arch: Architecture) -> npt.NDArray[np.int64]:
        """Units of every group in `arch`, shape (groups,)."""
        units = self.dense_widths.copy()
        index = self.survey.group_index
        for group, width in arch.widths:
            units[index[group]] = width
        return units

    def of(self, arch: Architecture) -> Cost:
        """The cost of one point."""
        params, macs = (int(column[0]) for column in self.table(*self._columns(arch)))
        if arch.kernels is None:
            return Cost(params, macs, params, macs)
        missing_params = missing_macs = 0
        for layer, shape in self.weights(arch).items():
            gone = math.prod(shape) - kept_weights(arch.kernels, self.survey.layer_at[layer], shape)
            missing_params += gone
            missing_macs += gone * self.survey.layer_at[layer].positions
        return Cost(params - missing_params, macs - missing_macs, params, macs)

    def _columns(
        self, arch: Architecture
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None, npt.NDArray[np.bool_] | None]:
        """One point as the arguments of `table`."""
        survey = self.survey
        units = self.widths(arch)
        selected = alive = None
        if arch.selected:
            selected = np.full((1, len(survey.gates)), -1)
            for gate, positions in arch.selected:
                selected[0, self._gate_index[gate]] = len(positions)
        if arch.removed:
            alive = np.ones((1, len(survey.blocks)), bool)
            for block in arch.removed:
                alive[0, survey.block_index[block]] = False
        return units[None], selected, alive

    def weights(self, arch: Architecture) -> dict[str, tuple[int, ...]]:
        """Shape of the weight of every convolution that `arch` has, by module path."""
        survey, units = self.survey, self.widths(arch)
        selected = {gate: len(positions) for gate, positions in arch.selected}
        removed = {survey.block_index[block] for block in arch.removed}
        shapes = {}
        for row in survey.rows:
            if row.weight and not removed & set(row.blocks):
                inputs = 1 if row.reads < 0 else survey.size(row.reads, units.tolist())
                inputs = selected.get(row.gate_reads or "", inputs)
                filters = survey.size(row.writes, units.tolist())
                shapes[row.layer] = (filters, inputs, *survey.layer_at[row.layer].kernel)
        return shapes


def _sizes(survey: Survey) -> tuple["csr_array", Table]:
    """Every form's size as coefficients of the widths, shape (forms + 1, groups), and constants (forms + 1, 1)."""
    from scipy.sparse import csr_array  # a seventh of a second, and whoever reads stored costs counts none

    linear = np.zeros((len(survey.forms) + 1, len(survey.groups)))
    constant = np.zeros((len(survey.forms) + 1, 1))
    for i, form in enumerate(survey.forms):
        for run in form:
            if run.group == FIXED:
                constant[i] += run.length * run.repeat
            else:
                linear[i, run.group] += run.length * run.repeat / survey.groups[run.group].units
    constant[-1] = 1
    return csr_array(np.rint(linear)), constant
