"""How many weights of a convolution exist under a kernel pattern."""

import math

import numpy as np
import numpy.typing as npt

from prunas.architecture import KernelPattern
from prunas.errors import InputError
from prunas.survey import Layer

__all__ = ["kept_weights"]


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
        return math.prod(shape) if text is None else int(KernelPattern.unpack(text, shape).sum())
    counts = position_counts(pattern, layer, shape)
    return math.prod(shape) if counts is None else int(counts.sum())


def position_counts(
    pattern: KernelPattern, layer: Layer, shape: tuple[int, ...]
) -> npt.NDArray[np.int64] | None:
    """Weights that exist at each kernel position of a convolution, shape (positions,), or None if all do.

    A convolution that rounding would empty keeps one weight, at its most frequent position.
    """
    table = dict(pattern.frequencies)
    key = layer.path if layer.path in table else f"{layer.stage}/{'x'.join(map(str, layer.kernel))}"
    values = table.get(key)
    if values is None:
        return None
    positions = math.prod(layer.kernel)
    if len(values) != positions:
        raise InputError(
            f"kernel pattern {key!r} has {len(values)} values; a kernel has {positions} positions"
        )
    counts = np.array([round(value * shape[0] * shape[1]) for value in values], np.int64)
    if not counts.any():
        counts[np.argmax(values)] = 1
    return counts
