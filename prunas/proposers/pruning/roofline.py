"""The roofline of a device: a layer takes as long as its operations or its bytes, whichever is longer."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prunas.proposers.pruning.products import channel_counts
from prunas.spaces.space import SearchSpace
from prunas.tracing.example import sample
from prunas.tracing.untouched import running, untouched

__all__ = ["DEVICES", "Device", "Roofline", "input_positions", "roofline"]

Table = npt.NDArray[np.float64]

FLOAT = 4
"""Bytes of a number."""


@dataclass(frozen=True, slots=True)
class Device:
    """What bounds a layer.

    Attributes:
        peak: Operations in 1e9 per second, two for each multiply-accumulate.
        bandwidth: Of its memory, in 1e9 bytes per second.
    """

    peak: float
    bandwidth: float


DEVICES: Mapping[str, Device] = MappingProxyType(
    {"V100": Device(125_000, 900), "P100": Device(9_300, 732), "T4": Device(8_100, 300)}
)
"""Of the makers' data sheets, as MorphNet's authors took them."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """time(counts) = sum over layers of max(their operations, their bytes), in nanoseconds.

    Rows are products as in `prunas.proposers.pruning.products`, those with operations.

    Attributes:
        layer: Layer of every row, shape (rows,).
        reads: Channels read, per count of each dimension and fixed ones last, shape (rows, dimensions + 1).
        writes: Channels written, likewise.
        sides: 2 for rows of depthwise convolutions, whose two sides are the same channels, else 1, shape (rows,).
        operations: Nanoseconds of a row's operations, per product, shape (rows,).
        weights: Nanoseconds of reading a row's weights, per product, shape (rows,).
        maps: Nanoseconds of a layer's input and output maps, shape (layers, dimensions + 1).
    """

    layer: npt.NDArray[np.int64]
    reads: Table
    writes: Table
    sides: Table
    operations: Table
    weights: Table
    maps: Table

    def times(self, counts: npt.ArrayLike) -> tuple[Table, Table]:
        """Nanoseconds that the operations, and the bytes, of every layer take, shape (layers,) each."""
        extended = np.append(np.asarray(counts, float), 1.0)
        products = (self.reads @ extended) * (self.writes @ extended)
        operations, weights = np.zeros((2, len(self.maps)))
        np.add.at(operations, self.layer, self.operations * products)
        np.add.at(weights, self.layer, self.weights * products)
        return operations, weights + self.maps @ extended

    def time(self, counts: npt.ArrayLike) -> float:
        """Nanoseconds of the network at counts of shape (dimensions,)."""
        return float(np.maximum(*self.times(counts)).sum())

    def pulls(self, counts: npt.ArrayLike) -> Table:
        """What pulls the scales of each dimension at these counts: the longer term of each layer alone."""
        extended = np.append(np.asarray(counts, float), 1.0)
        operations, moved = self.times(counts)
        bound = moved > operations
        price = self.sides * np.where(bound[self.layer], self.weights, self.operations)
        pulled = (price * (self.writes @ extended)) @ self.reads + (
            price * (self.reads @ extended)
        ) @ self.writes
        pulled += bound @ self.maps
        return cast(Table, pulled[:-1])

    def to_json(self) -> dict[str, Any]:
        """All fields as lists."""
        return {name: array.tolist() for name, array in asdict(self).items()}


def roofline(space: SearchSpace, device: Device, batch: int) -> Roofline:
    """The roofline of a space's network.

    Of a layer with weights these are read once, and its input and output maps once for each image. Norms,
    activations and sums belong to the layer that writes what they read: they cost nothing. What has operations but
    no weights, such as a product of attention, is bound by its operations.

    Args:
        space: The space.
        device: Where the network is to run.
        batch: Images at a time.
    """
    survey = space.survey
    channels = channel_counts(space)
    positions = input_positions(space)
    rows = [row for row in survey.rows if row.macs]
    names = list(dict.fromkeys(row.layer for row in rows))
    maps = np.zeros((len(names), len(space.dimensions) + 1))
    for i, name in enumerate(names):
        if (layer := survey.layer_at.get(name)) is not None:
            gate = name if name in survey.gate_named else None
            read = positions[name] * channels(layer.reads, gate)
            maps[i] = FLOAT * batch * (read + layer.positions * channels(layer.writes, None))
    depthwise = [name in survey.layer_at and survey.layer_at[name].depthwise for name in names]
    at = np.array([names.index(row.layer) for row in rows], np.int64)
    return Roofline(
        layer=at,
        reads=np.array([channels(row.reads, row.gate_reads) for row in rows]),
        writes=np.array([channels(row.writes, row.gate_writes) for row in rows]),
        sides=np.where(np.array(depthwise)[at], 2.0, 1.0),
        operations=np.array([2 * batch * row.macs / device.peak for row in rows]),
        weights=np.array([FLOAT * row.params / device.bandwidth for row in rows]),
        maps=maps / device.bandwidth,
    )


def input_positions(space: SearchSpace) -> dict[str, int]:
    """Positions of the input of every convolution and linear layer per image, over all calls, by module path."""
    positions: dict[str, int] = {}

    def noting(path: str, spatial: slice) -> Callable[[nn.Module, Any], None]:
        def note(_: nn.Module, given: Any) -> None:
            positions[path] = positions.get(path, 0) + int(np.prod(given[0].shape[spatial]))

        return note

    with untouched(space.factory), running(), torch.no_grad():
        with torch.device("meta"):
            net = space.build().eval()
            example = sample(space.survey.called_with, 1, device="meta")
        for layer in space.survey.layers:
            if layer.kind in ("conv", "linear"):
                spatial = slice(2, None) if layer.kind == "conv" else slice(1, -1)
                net.get_submodule(layer.path).register_forward_pre_hook(noting(layer.path, spatial))
        example.call(net)
    return positions
