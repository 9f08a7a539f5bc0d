"""What a point costs, exactly, and what a budget is: arithmetic on a survey's rows, without torch.

Two pairs of numbers. `params` and `macs` count the weights that exist; `dense_params` and `dense_macs` what a
dense device stores and executes. They differ only under a kernel pattern. MACs are multiply-accumulates of one
image in eval mode; norms, activations, pooling and biases are not counted among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture, KernelPattern
from prunas.errors import InputError
from prunas.structure import FIXED, Layer, Survey

__all__ = ["METRICS", "Cost", "CostModel", "Metric", "Target", "kept_weights"]

Metric = Literal["params", "macs", "channels"]
METRICS: tuple[Metric, ...] = get_args(Metric)

Table = npt.NDArray[np.float64]


class Cost(NamedTuple):
    """Cost of one network; see the module's docstring."""

    params: int
    macs: int
    dense_params: int
    dense_macs: int

    def to_json(self) -> dict[str, int]:
        """The four numbers by name."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class Target:
    """A budget.

    Attributes:
        metric: What is counted: `params`, `macs`, or `channels` (units of the groups and channels of the gates
            that a space lets vary, as the study counts them).
        value: The number asked for.
        keep: The fraction of the dense network it was asked as, or None if it was asked as a number.
    """

    metric: Metric
    value: int
    keep: float | None = None

    @property
    def label(self) -> str:
        """How a person would say it: `10 %` or `1.2M`."""
        if self.keep is not None:
            return f"{100 * self.keep:g} %"
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if self.value >= size:
                return f"{self.value / size:.4g}{letter}"
        return str(self.value)

    def to_json(self) -> dict[str, object]:
        """The three fields by name."""
        return {"metric": self.metric, "value": self.value, "keep": self.keep}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "Target":
        """The target `to_json` wrote."""
        return cls(**document)  # type: ignore[arg-type]  # written by to_json

    @staticmethod
    def parse(text: str) -> int:
        """A number as people write budgets: `850000`, `1.2M`, `40k`, `0.3G`.

        Raises:
            InputError: It is not a number above 0.
        """
        scale = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:].lower(), 1.0)
        try:
            value = round(float(text[:-1] if scale != 1.0 else text) * scale)
        except (ValueError, OverflowError):
            value = 0
        if value <= 0:
            raise InputError(f"budget {text!r} is not a number above 0, such as 850000 or 1.2M")
        return value


class CostModel:
    """The cost of every point of a surveyed network.

    Args:
        survey: The network.
    """

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        linear, constant = self._linear_forms()
        rows = survey.rows
        pick = [-1 if row.reads < 0 else row.reads for row in rows], [row.writes for row in rows]
        self._factors = tuple(
            (
                np.array([linear[i] if i >= 0 else np.zeros(linear.shape[1]) for i in side]).T,
                np.array([constant[i] if i >= 0 else 1.0 for i in side]),
            )
            for side in pick
        )
        self._params = np.array([float(row.params) for row in rows])
        self._macs = np.array([float(row.macs) for row in rows])
        gates = {gate.name: i for i, gate in enumerate(survey.gates)}
        self._gated = tuple(
            [(i, gates[name]) for i, name in enumerate(names) if name is not None]
            for names in ([row.gate_reads for row in rows], [row.gate_writes for row in rows])
        )
        self._in_block = np.zeros((len(rows), len(survey.blocks)), bool)
        for i, row in enumerate(rows):
            self._in_block[i, list(row.blocks)] = True
        self._gate_form = (
            np.array([linear[gate.form] for gate in survey.gates]).reshape(-1, linear.shape[1]).T
        )
        self._gate_constant = np.array([constant[gate.form] for gate in survey.gates])

    def _linear_forms(self) -> tuple[Table, Table]:
        """Every form's size as coefficients of the widths, plus a constant."""
        survey = self.survey
        linear = np.zeros((len(survey.forms), len(survey.groups)))
        constant = np.zeros(len(survey.forms))
        for i, form in enumerate(survey.forms):
            for run in form:
                if run.group == FIXED:
                    constant[i] += run.length * run.repeat
                else:
                    linear[i, run.group] += run.length * run.repeat / survey.groups[run.group].units
        return np.rint(linear), constant

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
            selected: Channels that pass each gate, shape (points, gates); a negative entry means all. None
                means all of all.
            alive: Whether each block has its branch, shape (points, blocks). None means all have.

        Returns:
            Two arrays of shape (points,): dense_params and dense_macs, exact.
        """
        # float64 holds integers exactly up to 2**53, and its matrix product is far faster than int64's.
        units = np.asarray(widths, np.float64)
        reads, writes = (units @ linear + constant for linear, constant in self._factors)
        if selected is not None:
            chosen = np.asarray(selected, np.float64)
            for factor, pairs in zip((reads, writes), self._gated, strict=True):
                if pairs:
                    at, gate = np.array(pairs).T
                    factor[:, at] = np.where(chosen[:, gate] < 0, factor[:, at], chosen[:, gate])
        products = reads * writes
        if alive is not None:
            gone = ~np.asarray(alive, bool) @ self._in_block.T
            products[gone] = 0.0
        return (products @ self._params).astype(np.int64), (products @ self._macs).astype(np.int64)

    def gate_inputs(self, widths: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Channels at each gate's input as built, shape (points, gates), for widths of shape (points, groups)."""
        return (np.asarray(widths, np.float64) @ self._gate_form + self._gate_constant).astype(np.int64)

    def widths(self, arch: Architecture) -> npt.NDArray[np.int64]:
        """Units of every group in `arch`, shape (groups,)."""
        units = self.dense_widths.copy()
        index = self.survey.group_index
        for group, width in arch.widths:
            units[index[group]] = width
        return units

    def of(self, arch: Architecture) -> Cost:
        """The cost of one point."""
        survey = self.survey
        units = self.widths(arch)
        selected = np.full((1, len(survey.gates)), -1)
        names = {gate.name: i for i, gate in enumerate(survey.gates)}
        for gate, positions in arch.selected:
            selected[0, names[gate]] = len(positions)
        alive = np.ones((1, len(survey.blocks)), bool)
        for block in arch.removed:
            alive[0, survey.block_index[block]] = False
        params, macs = (int(column[0]) for column in self.table(units[None], selected, alive))
        if arch.kernels is None:
            return Cost(params, macs, params, macs)
        missing_params = missing_macs = 0
        for layer, shape in self.weights(arch).items():
            gone = int(np.prod(shape)) - kept_weights(arch.kernels, survey.layer_at[layer], shape)
            missing_params += gone
            missing_macs += gone * survey.layer_at[layer].positions
        return Cost(params - missing_params, macs - missing_macs, params, macs)

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


def kept_weights(pattern: KernelPattern, layer: Layer, shape: tuple[int, ...]) -> int:
    """How many weights of a convolution exist under a pattern.

    Args:
        pattern: The pattern.
        layer: The convolution.
        shape: Shape of its weight as built, (filters, inputs per convolution group, *kernel).

    Raises:
        InputError: The pattern does not fit the layer.
    """
    if pattern.masks:
        text = dict(pattern.masks).get(layer.path)
        return int(np.prod(shape)) if text is None else int(KernelPattern.unpack(text, shape).sum())
    counts = position_counts(pattern, layer, shape)
    return int(np.prod(shape)) if counts is None else int(counts.sum())


def position_counts(
    pattern: KernelPattern, layer: Layer, shape: tuple[int, ...]
) -> npt.NDArray[np.int64] | None:
    """Weights that exist at each kernel position of a convolution, shape (positions,), or None if all do."""
    key = f"{layer.stage}/{'x'.join(map(str, layer.kernel))}"
    values = dict(pattern.frequencies).get(key)
    if values is None:
        return None
    positions = int(np.prod(layer.kernel))
    if len(values) != positions:
        raise InputError(
            f"kernel pattern {key!r} has {len(values)} values; a kernel has {positions} positions"
        )
    return np.rint(np.array(values) * shape[0] * shape[1]).astype(np.int64)
