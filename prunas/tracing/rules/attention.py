"""Rules of attention: a head is a unit, which goes as a whole; its size, and so its scale, stays.

The labels of queries, keys and values lie along the heads and along the channels of a head. The latter are paired,
so that what is left of a product over them are the labels of the heads.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunas.graphs.layers import HeadAttention
from prunas.tracing.labels import Bare, Channels, Labels, Refused, Spread
from prunas.tracing.ledger import Vector
from prunas.tracing.operations import where
from prunas.tracing.rules import parameters
from prunas.tracing.state import Grid, PassState

__all__ = ["attend", "multihead", "product"]


def product(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """A product of matrices, one for every head."""
    nodes = [n for n in node.all_input_nodes if isinstance(state.values[n], Tensor)]
    if len(nodes) != 2 or any(state.values[n].ndim < 3 for n in nodes):
        raise Refused("a product of other things than two stacks of matrices")
    grids = [state.grid(n, value.ndim) for n in nodes]
    if any(grid is None and isinstance(state.labels[n], Bare) for n, grid in zip(nodes, grids, strict=True)):
        raise Refused("they are multiplied by a parameter as a matrix")
    first, second = grids
    for grid, other, rows in ((first, second, -2), (second, first, -1)):
        if grid is not None and (other is None or other.size == 1) and grid.size == grid.shape[rows] > 1:
            _count(state, node, grid)  # sums over positions, for every channel by itself
            return _labels(grid)
    for grid, other, factor in zip(grids, reversed(grids), reversed(nodes), strict=True):
        if grid is not None and other is None:
            _alone(grid, state.values[factor])
    kept = [_heads(state, node, grid) for grid in grids if grid is not None]
    for heads in kept[1:]:
        _pair(state, node, kept[0], heads)
    product = kept[0] if len(kept) == 1 else np.broadcast_arrays(*kept)[0]
    _count(state, node, product)
    return _labels(product)


def _alone(grid: Grid, other: Tensor) -> None:
    """Refuses channels that meet matrices of fixed number or extent."""
    sizes = (*(1,) * (grid.ndim - other.ndim), *other.shape)
    if any(extent > 1 and size > 1 for extent, size in zip(grid.shape[:-2], sizes[:-2], strict=True)):
        raise Refused("they are multiplied by a tensor of fixed size")
    if all(extent == 1 for extent in grid.shape[:-2]):
        raise Refused("a product of matrices is not understood where no axis is one of heads")


def attend(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """torch's `scaled_dot_product_attention`."""
    given = dict(zip(("query", "key", "value", "attn_mask"), node.args, strict=False)) | dict(node.kwargs)
    operands = [cast(fx.Node, given[name]) for name in ("query", "key", "value")]
    grids = [state.grid(n, value.ndim) for n in operands]
    if any(grid is None for grid in grids) or value.ndim < 3:
        raise Refused("attention to what has no heads")
    query, key, values = (_heads(state, node, grid) for grid in grids if grid is not None)
    if given.get("enable_gqa"):
        times = state.values[operands[0]].shape[-3] // state.values[operands[1]].shape[-3]
        key, values = (np.repeat(grid, times, -3) for grid in (key, values))
    _pair(state, node, query, key)
    _pair(state, node, query, values)
    mask = given.get("attn_mask")
    if isinstance(mask, fx.Node):
        _meet(state, node, mask, query)
    _count(state, node, query)
    heads = np.broadcast_arrays(query, values)[0]
    if heads.size == 1:  # it does not show where it lies: all channels of the only head are its own
        return Channels(value.ndim - 1, np.repeat(heads.ravel(), value.shape[-1]))
    return _labels(heads)


def _meet(state: PassState, node: fx.Node, mask: fx.Node, heads: Grid) -> None:
    """A mask or bias that is added for every head."""
    labels, tensor = state.labels[mask], state.values[mask]
    axes = [axis - heads.ndim for axis, extent in enumerate(heads.shape) if extent > 1]
    axes = [axis for axis in axes if tensor.ndim >= -axis and tensor.shape[axis] > 1]
    if not axes:
        return
    if len(axes) > 1:
        raise Refused("channels of two axes meet")
    (axis,) = axes
    if isinstance(labels, Bare):
        parameters.meet(state, node, labels, tensor.ndim + axis, heads.ravel())
        return
    grid = state.grid(mask, heads.ndim)
    if grid is None:
        raise Refused("they meet a tensor of fixed size")
    _pair(state, node, heads, grid)


def _heads(state: PassState, node: fx.Node, grid: Grid) -> Grid:
    """The labels of the heads: those of the channels of a head are paired, for its size stays."""
    first = grid[..., :1, :1]
    _pair(state, node, first, grid)
    return first


def _pair(state: PassState, node: fx.Node, first: Grid, second: Grid) -> None:
    """Pairs labels that lie along the same axes."""
    try:
        one, other = np.broadcast_arrays(first, second)
    except ValueError:
        raise Refused("heads meet others of another number") from None
    state.ledger.pair(one.ravel(), other.ravel(), node.name)


def _labels(heads: Grid) -> Labels:
    """A grid as labels; a single head, which does not show where it lies, before the matrices."""
    axes = [axis for axis, extent in enumerate(heads.shape) if extent > 1]
    if len(axes) > 1:
        return Spread(torch.as_tensor(np.ascontiguousarray(heads)))
    return Channels(axes[0] if axes else heads.ndim - 3, heads.ravel())


def _count(state: PassState, node: fx.Node, heads: Grid) -> None:
    """Notes that the multiply-accumulates of a node are proportional to the number of heads."""
    if not state.net.training and heads.size > 1:
        state.ledger.count((node.name, "product"), np.unique(heads), node.name)


def multihead(state: PassState, node: fx.Node, value: Any, path: str) -> Labels:
    """torch's multi-head attention: heads are units of their own; the stream that it reads is another matter."""
    module = state.modules[path]
    assert isinstance(module, nn.MultiheadAttention)
    if type(module) not in (nn.MultiheadAttention, HeadAttention):
        raise Refused(f"{type(module).__name__} is not understood")
    if module.bias_k is not None or module.add_zero_attn:
        raise Refused("an attention with keys or values of its own is not understood")
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights")
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    operands = [given[name] for name in names[:3]]
    inner = _inner(state, node, module, path, operands)
    heads = inner.reshape(module.num_heads, -1)[:, 0]
    state.ledger.follow((path, "attribute num_heads"), heads, node.name)
    query, key = (state.values[n] for n in operands[:2])
    length = key.shape[1 if module.batch_first else 0] if key.ndim == 3 else key.shape[0]
    if state.counting:
        state.macs[node] = 2 * query.numel() // query.shape[-1] * length * len(inner)
    if not state.net.training:
        state.ledger.count((node.name, "product"), inner, node.name)
    mask = given.get("attn_mask")
    if isinstance(mask, fx.Node) and isinstance(state.values[mask], Tensor) and state.values[mask].ndim > 2:
        state.ledger.freeze(inner, "its mask has a part for every head", where(node))
    if any(user.args[1:] == (1,) and user.users for user in node.users):
        state.ledger.freeze(inner, "its attention weights are read", where(node))
    result = value[0]
    out = f"{path}.out_proj"
    state.ledger.occur((out, "reads"), inner, node.name)
    state.ledger.occur((out, "inner"), inner, node.name)
    state.called[out] = state.called.get(out, 0) + result.numel() // result.shape[-1]
    state.calls.setdefault(out, []).append(node)
    written = state.ledger.produce((out, "writes"), result.shape[-1], 1, node.name)
    return [Channels(result.ndim - 1, written), None]


def _inner(
    state: PassState, node: fx.Node, module: nn.MultiheadAttention, path: str, operands: list[fx.Node]
) -> Vector:
    """The labels of the channels of all heads, from what queries, keys and values are projected from."""
    ledger = state.ledger
    inner = ledger.produce((path, "writes"), module.num_heads * module.head_dim, 1, node.name)
    rows = inner.reshape(module.num_heads, module.head_dim)
    for column in rows.T[1:]:
        ledger.pair(rows[:, 0], column, node.name)
    packed = module.in_proj_weight is not None
    for letter, operand in zip("qkv", operands, strict=True):
        labels, tensor = state.labels[operand], state.values[operand]
        if isinstance(labels, Channels) and labels.axis == tensor.ndim - 1:
            channels = labels.labels
        else:
            if labels is not None:
                state.freeze_inputs(node, "its channels do not lie along the axis that the layer reads")
            channels = ledger.fixed(tensor.shape[-1])
        name = f"{path}.in_proj_weight" if packed else f"{path}.{letter}_proj_weight"
        ledger.occur((path, "reads" if packed or letter == "q" else letter), channels, node.name)
        ledger.occur((name, "1"), channels, node.name)
        state.read[name] = state.read.get(name, 0) + tensor.numel() // tensor.shape[-1]
        if not packed:
            ledger.occur((name, "0"), inner, node.name)
    if packed:
        ledger.occur((f"{path}.in_proj_weight", "0"), np.tile(inner, 3), node.name)
    if module.in_proj_bias is not None:
        ledger.occur((f"{path}.in_proj_bias", "0"), np.tile(inner, 3), node.name)
    return inner
