"""Rules of element-wise functions: one operand keeps its labels, those of several are tied where they meet."""

import numpy as np
import torch
from torch import Tensor, fx

from prunas.tracing.labels import Bare, Channels, Labels, Refused, Spread
from prunas.tracing.operations import where
from prunas.tracing.rules import parameters
from prunas.tracing.state import PassState

__all__ = ["combine", "create", "keep", "pointwise"]


def keep(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """A function or module of one tensor that maps every element by itself."""
    return state.labels[state.source(node)]


def pointwise(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """A function of every element, which may have tensors as limits too, such as `clamp`."""
    return combine(state, node, value) if len(node.all_input_nodes) > 1 else keep(state, node, value)


def create(state: PassState, node: fx.Node, value: Tensor) -> None:
    """A new tensor has no channels; where it meets some, they are held."""


def combine(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """Arithmetic of several tensors: channels that meet are tied."""
    operands = [(state.labels[n], state.values[n]) for n in node.all_input_nodes]
    if any(isinstance(labels, list) for labels, _ in operands):
        raise Refused("channels of two axes meet")
    if any(isinstance(labels, Spread) for labels, _ in operands):
        return _spread(state, node, value)
    labelled = []
    for labels, tensor in operands:
        if isinstance(labels, Channels):
            if len(labels.labels) == value.shape[labels.axis - tensor.ndim]:
                labelled.append((labels, tensor))
            else:
                state.ledger.freeze(labels.labels, "one channel is broadcast over many", where(node))
    axes = {labels.axis - tensor.ndim for labels, tensor in labelled}  # broadcasting aligns last axes
    if not axes:
        return None
    if len(axes) > 1:
        raise Refused("channels of two axes meet")
    (axis,) = axes
    channels = labelled[0][0].labels
    for labels, _ in labelled[1:]:
        state.ledger.tie(channels, labels.labels, node.name)
    for operand, tensor in operands:
        if isinstance(operand, Channels) or not isinstance(tensor, Tensor):
            continue
        if tensor.ndim >= -axis and tensor.shape[axis] > 1:
            if not isinstance(operand, Bare):
                raise Refused("they meet a tensor of fixed size")
            parameters.meet(state, node, operand, tensor.ndim + axis, channels)
    return Channels(value.ndim + axis, channels)


def _spread(state: PassState, node: fx.Node, value: Tensor) -> Spread:
    """Arithmetic of channels that lie along several axes, such as heads and what is in one."""
    grids = [grid for n in node.all_input_nodes if (grid := state.grid(n, value.ndim)) is not None]
    shape = np.broadcast_shapes(*(grid.shape for grid in grids))
    for n in node.all_input_nodes:
        tensor = state.values[n]
        if not isinstance(tensor, Tensor) or isinstance(state.labels[n], Channels | Spread):
            continue
        sizes = (*(1,) * (value.ndim - tensor.ndim), *tensor.shape)
        fixed = [axis for axis in range(value.ndim) if shape[axis] > 1 and sizes[axis] > 1]
        if len(fixed) == sum(extent > 1 for extent in shape):
            raise Refused("they meet a tensor of fixed size")
        for axis in fixed:  # such as the angles that every head is turned by: its size stays
            for grid in grids:
                one, every = np.broadcast_arrays(grid.take([0], axis), grid)
                state.ledger.pair(one.ravel(), every.ravel(), node.name)
    first, *others = (np.broadcast_to(grid, shape) for grid in grids)
    for other in others:
        state.ledger.pair(first.ravel(), other.ravel(), node.name)
    return Spread(torch.as_tensor(first.copy()))
