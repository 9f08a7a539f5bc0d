"""Rules of recurrent layers: input and hidden width, and that of a projection, vary.

Every weight has its rows in blocks, one for each gate, and a hidden unit is one row of every block. One number
sets the hidden width of all directions and stacked layers, so that unit i of each goes with unit i of the others.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor, fx, nn

from prunas.tracing.labels import Bare, Channels, Labels, Refused, vectors
from prunas.tracing.ledger import Vector
from prunas.tracing.operations import CREATION, POINTWISE, operation, where
from prunas.tracing.rules import numbers, parameters
from prunas.tracing.state import PassState

__all__ = ["CELLS", "LAYERS", "recurrent"]

LAYERS = (nn.LSTM, nn.GRU, nn.RNN)
CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
TENSOR = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l(\d+))?(?:_reverse)?")
"""How torch names the tensors of a recurrent layer: what they do, what they read, and the place in the stack."""


def recurrent(state: PassState, node: fx.Node, value: Any, path: str) -> Labels:
    """An LSTM, a GRU or an RNN of Elman's, or a cell of one."""
    layer = cast(Any, state.modules[path])
    if type(layer) not in (*LAYERS, *CELLS):
        raise Refused(f"{type(layer).__name__} is not understood")
    ledger, directions = state.ledger, 2 if getattr(layer, "bidirectional", False) else 1
    projected = bool(getattr(layer, "proj_size", 0))
    output = value if isinstance(value, Tensor) else value[0]
    channels = state.enter_layer(node, path, output, -1)
    ledger.follow((path, "attribute input_size"), channels, node.name)
    written = ledger.produce((path, "writes"), output.shape[-1] // directions, directions, node.name)
    single = written[: len(written) // directions]
    hidden = single
    if projected:
        hidden = ledger.produce((path, "cells"), layer.hidden_size, 1, node.name)
        ledger.follow((path, "attribute proj_size"), single, node.name)
    ledger.follow((path, "attribute hidden_size"), hidden, node.name)
    given = state.values[state.source(node)]
    for name, tensor in layer.named_parameters(recurse=False):
        what, reads, place = cast(re.Match[str], TENSOR.fullmatch(name)).groups()
        rows = single if reads == "hr" else np.tile(hidden, len(tensor) // len(hidden))
        ledger.occur((f"{path}.{name}", "0"), rows, node.name)
        if what == "weight":
            first = channels if place in (None, "0") else written
            columns = {"ih": first, "hh": single, "hr": hidden}[reads]
            ledger.occur((f"{path}.{name}", "1"), columns, node.name)
            read = state.read.get(f"{path}.{name}", 0)
            state.read[f"{path}.{name}"] = read + given.numel() // given.shape[-1]
    _follow_first(state, node, [single, hidden])
    ndim = output.ndim
    if isinstance(layer, CELLS):
        cell = Channels(ndim - 1, single)
        return cell if isinstance(value, Tensor) else [cell, cell]
    last = Channels(ndim - 1, single)
    states: Labels = last if isinstance(value[1], Tensor) else [last, Channels(ndim - 1, hidden)]
    return [Channels(ndim - 1, written), states]


def _follow_first(state: PassState, node: fx.Node, widths: Sequence[Vector]) -> None:
    """The first states that a call is given, if it is: their channels are the hidden units.

    Args:
        state: The pass.
        node: The call.
        widths: The channels of the first state, and of the second one if there is one.
    """
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("hx")
    if given is None:
        return
    states: list[tuple[Labels, Tensor, fx.Node | None]]
    if isinstance(given, fx.Node) and not isinstance(
        state.values[given], Tensor
    ):  # what another layer returned
        labels, values = state.labels[given], state.values[given]
        several = labels if isinstance(labels, list) else [None] * len(values)
        states = [(part, tensor, None) for part, tensor in zip(several, values, strict=True)]
    else:
        nodes = [given] if isinstance(given, fx.Node) else cast(Sequence[fx.Node], given)
        states = [(state.labels[n], state.values[n], n) for n in nodes]
    for (part, tensor, made), hidden in zip(states, widths, strict=False):
        if isinstance(part, Channels) and part.axis == tensor.ndim - 1:
            state.ledger.pair(part.labels, hidden, node.name)
        elif isinstance(part, Bare):
            parameters.meet(state, node, part, tensor.ndim - 1, hidden)
        elif part is not None or made is None or not _made_for(state, made, hidden):
            for vector in (hidden, *vectors(part)):
                state.ledger.freeze(vector, "its first state has a fixed size", where(node))


def _made_for(state: PassState, operand: fx.Node, hidden: Vector) -> bool:
    """Whether a state was made with a size that an attribute holds, as in `zeros(n, len(x), self.hidden_size)`."""
    chain = [operand]
    while operation(chain[-1]) in POINTWISE and isinstance(chain[-1].args[0], fx.Node):
        chain.append(chain[-1].args[0])
    made = chain[-1]
    if operation(made) not in CREATION - {"arange", "full", "new_full"}:
        return False
    sizes: Any = made.args[1:] if made.op == "call_method" else made.args
    sizes = sizes[0] if sizes and isinstance(sizes[0], list | tuple) else sizes
    if not sizes or not numbers.follow(state, made, sizes[-1], hidden):
        return False
    for before in chain:
        state.labels[before] = Channels(state.values[before].ndim - 1, hidden)
    return True
