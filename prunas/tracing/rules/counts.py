"""Rules of channel counts: sizes read from tensors, followed through arithmetic until they become values."""

from typing import Any, cast

import numpy as np
from torch import fx

from prunas.tracing.labels import Channels, Spread, axes_of, is_tensor, vectors
from prunas.tracing.ledger import Vector
from prunas.tracing.operations import MEASURED, RESHAPING, SHAPELESS, where
from prunas.tracing.rules import numbers
from prunas.tracing.state import PassState

__all__ = ["follow", "measure"]


def measure(state: PassState, node: fx.Node, name: str) -> None:
    """Notes which scalars of what a node asks a tensor for are channel counts."""
    source = state.source(node)
    channels, value = vectors(state.labels[source]), state.values[source]
    if not channels or (name == "getattr" and node.args[1] in SHAPELESS):
        return
    if name == "getattr" and node.args[1] != "shape":  # such as nbytes
        state.counts[node] = channels[0]
        return
    axes = axes_of(state.labels[source])
    shape = tuple(channels[0] if axis in axes else None for axis in range(value.ndim))
    dim = node.args[1] if name == "size" and len(node.args) > 1 else node.kwargs.get("dim")
    entry = shape if dim is None else shape[cast(int, dim)]
    if entry is not None:
        state.counts[node] = entry


def follow(state: PassState, node: fx.Node, name: str, value: Any) -> bool:
    """Follows channel counts through arithmetic; freezes their channels where they become values.

    Returns:
        Whether the node is still to be labelled as an operation on tensors.
    """
    shape = state.counts.get(node.all_input_nodes[0])
    if name == "getitem" and isinstance(shape, tuple) and isinstance(node.args[1], int | slice):
        entry: Vector | tuple[Vector | None, ...] | None = shape[node.args[1]]
        if isinstance(entry, tuple) or entry is not None:
            state.counts[node] = entry
        return False
    channels = np.concatenate([state.counted(n) for n in node.all_input_nodes])
    if not is_tensor(value):
        state.counts[node] = channels
        return False
    source = state.labels[state.source(node)] if name in MEASURED else None
    if isinstance(source, Channels | Spread) and np.isin(channels, vectors(source)[0]).all():
        return True
    if (
        name in RESHAPING
        and isinstance(source, Channels | Spread)
        and _by_heads(state, node, source, channels)
    ):
        return True
    if isinstance(source, Channels) and len(source.labels) == len(channels):
        state.ledger.tie(source.labels, channels, node.name)  # one stream takes another one's shape
    else:
        state.ledger.freeze(channels, "a channel count becomes a value", where(node))
    return True


def _by_heads(state: PassState, node: fx.Node, source: Channels | Spread, channels: Vector) -> bool:
    """Pairs channels that another stream's number cuts into heads, or puts together again; whether it does.

    In `qkv.reshape(b, n, 3, self.num_heads, c // self.num_heads)` a head goes with as many channels of the stream
    that `c` counts.
    """
    (labels,) = vectors(source)
    sizes = node.args[1] if isinstance(node.args[1], list | tuple) else node.args[1:]
    if not len(channels):
        return False
    if any(numbers.has_heads(state, node, size) for size in sizes) and not len(labels) % len(channels):
        state.ledger.pair(channels, labels[: len(channels)], node.name)
        return True
    shape, size = state.values[state.source(node)].shape, len(channels) // len(labels)
    if isinstance(source, Channels) and size > 1 and shape[source.axis + 1 :] == (size,):
        state.ledger.pair(channels, np.repeat(labels, size), node.name)
        return True
    return False
