"""Rules of data movement: views, transpositions, parts, concatenation and channel shuffle.

Movement is not derived anew: it is run on a tensor that holds the position of every channel. Where it cuts the
channels into equal parts whose extent follows their number, the parts are paired; other cuts freeze them.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunas.tracing.labels import Bare, Channels, Labels, Refused, Spread, axes_of, vectors
from prunas.tracing.ledger import Vector
from prunas.tracing.operations import PARTS, RESHAPING, TRANSPOSITIONS, operation, where
from prunas.tracing.rules import numbers, parameters
from prunas.tracing.state import PassState

__all__ = [
    "concatenate",
    "depth_to_space",
    "flatten",
    "move",
    "pixel_shuffle",
    "pixel_unshuffle",
    "shuffle",
    "space_to_depth",
    "stack",
    "unflatten",
]


def move(state: PassState, node: fx.Node, value: Any) -> Labels:
    """A function or method that moves elements."""
    name = "reshape" if operation(node) == "view" else operation(node)
    labels = state.labels[state.source(node)]
    rest: Any = fx.node.map_arg(node.args[1:], lambda n: state.values[n])
    named: Any = fx.node.map_arg(node.kwargs, lambda n: state.values[n])
    if isinstance(labels, list):
        return cast(Labels, labels[rest[0]])
    options = {key: option for key, option in named.items() if key != "input"}
    if name in ("reshape_as", "view_as"):
        return _like(state, node, value)
    if name == "channel_shuffle":
        return _shuffled(state, node, *rest, **options)
    if name == "getattr":
        return _moved(state, node, "transpose", lambda tensor: getattr(tensor, rest[0]))
    if name == "getitem":
        index = _looked_up(rest[0], labels)
        return _moved(state, node, name, lambda tensor: tensor[index])
    return _moved(state, node, name, lambda tensor: getattr(tensor, name)(*rest, **options))


def _looked_up(index: Any, labels: Labels) -> Any:
    """An index whose values are not known: any row of a table will do where its channels lie behind the rows."""
    if isinstance(index, Tensor) and index.is_meta and not index.dtype.is_floating_point:
        if index.dtype is not torch.bool and 0 not in axes_of(labels):
            return torch.zeros(index.shape, dtype=torch.int64)
    elif not any(isinstance(part, Tensor) and part.is_meta for part in pytree.tree_leaves(index)):
        return index
    raise Refused("getitem takes channels by computed positions")


def flatten(state: PassState, node: fx.Node, value: Tensor, path: str) -> Labels:
    """An `nn.Flatten`."""
    return _moved(state, node, "flatten", state.modules[path])


def unflatten(state: PassState, node: fx.Node, value: Tensor, path: str) -> Labels:
    """An `nn.Unflatten`."""
    module = state.modules[path]
    assert isinstance(module, nn.Unflatten)
    return _moved(state, node, "unflatten", module, (module.dim, module.unflattened_size))


def shuffle(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """An `nn.ChannelShuffle`."""
    module = state.modules[path]
    assert isinstance(module, nn.ChannelShuffle)
    return _shuffled(state, node, module.groups)


def concatenate(state: PassState, node: fx.Node, value: Tensor) -> Channels | Spread:
    """Tensors joined along their channels keep their labels side by side; along another axis they are tied."""
    parts = node.args[0] if node.args else node.kwargs.get("tensors")
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    operands: list[tuple[Labels, Any]]
    if isinstance(parts, fx.Node):
        several = state.labels[parts]
        operands = list(zip(several, state.values[parts], strict=True)) if isinstance(several, list) else []
    else:
        operands = [(state.labels[part], state.values[part]) for part in cast(Sequence[fx.Node], parts)]
    axis = cast(int, dim) % value.ndim
    if operands and all(isinstance(labels, Spread) for labels, _ in operands):
        return _side_by_side([(cast(Spread, labels).labels, tensor) for labels, tensor in operands], axis)
    if not operands or any(isinstance(labels, Spread) for labels, _ in operands):
        raise Refused("what it concatenates cannot be followed")
    operands = _met(state, node, operands, axis)
    labelled = [labels for labels, _ in operands if isinstance(labels, Channels)]
    if all(labels.axis == axis for labels in labelled):
        pieces = [
            labels.labels
            if isinstance(labels, Channels)
            else state.ledger.fixed(tensor.shape[axis], "they meet channels that never vary", where(node))
            for labels, tensor in operands
        ]
        joined = np.concatenate(pieces)
        if len(pieces) > 1:
            state.ledger.concatenate(joined)
        return Channels(axis, joined)
    if len(labelled) < len(operands) or any(labels.axis != labelled[0].axis for labels in labelled):
        raise Refused("concatenated along another axis than the channels")
    for labels in labelled[1:]:
        state.ledger.tie(labelled[0].labels, labels.labels, node.name)
    return labelled[0]


def _side_by_side(parts: Sequence[tuple[Tensor, Tensor]], axis: int) -> Spread:
    """Labels that lie along several axes, joined along one of them, such as the halves of what is in a head.

    Args:
        parts: The labels of each tensor, and the tensor.
        axis: Along which they are joined.
    """
    others = [labels.narrow(axis, 0, 1).shape for labels, _ in parts]
    shape = list(np.broadcast_shapes(*others))
    pieces = []
    for labels, tensor in parts:
        shape[axis] = tensor.shape[axis]
        pieces.append(labels.expand(shape))
    return Spread(torch.cat(pieces, axis))


def stack(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """Tensors stacked along a new axis: their channels are tied."""
    parts = node.args[0] if node.args else node.kwargs.get("tensors")
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if not isinstance(parts, list | tuple):
        raise Refused("what it stacks cannot be followed")
    new = cast(int, dim) % value.ndim
    before = [(state.labels[part], state.values[part]) for part in cast(Sequence[fx.Node], parts)]
    labelled = [labels for labels, _ in _met(state, node, before, None)]
    first = labelled[0]
    if not isinstance(first, Channels) or any(
        not isinstance(labels, Channels) or labels.axis != first.axis for labels in labelled
    ):
        raise Refused("stacked with tensors of fixed size")
    for labels in labelled[1:]:
        assert isinstance(labels, Channels)
        state.ledger.tie(first.labels, labels.labels, node.name)
    return Channels(first.axis + 1 if new <= first.axis else first.axis, first.labels)


def _met(
    state: PassState, node: fx.Node, operands: list[tuple[Labels, Any]], joined: int | None
) -> list[tuple[Labels, Any]]:
    """Operands that are joined along another axis than their channels: parameters among them take the channels.

    Args:
        state: The pass.
        node: The node that joins them.
        operands: Labels and values.
        joined: The axis along which they are joined; None if it is a new one.
    """
    first = next((labels for labels, _ in operands if isinstance(labels, Channels)), None)
    if first is None or first.axis == joined:
        return operands
    met: list[tuple[Labels, Any]] = []
    for labels, tensor in operands:
        if isinstance(labels, Bare):
            parameters.meet(state, node, labels, first.axis, first.labels)
            labels = first
        met.append((labels, tensor))
    return met


def pixel_shuffle(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """An `nn.PixelShuffle`."""
    return _to_space(state, node, int(cast(Any, state.modules[path]).upscale_factor))


def pixel_unshuffle(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """An `nn.PixelUnshuffle`."""
    return _to_depth(state, node, int(cast(Any, state.modules[path]).downscale_factor))


def depth_to_space(state: PassState, node: fx.Node, value: Tensor) -> Channels:
    """The function `pixel_shuffle`."""
    return _to_space(state, node, _factor(node, "upscale_factor"))


def space_to_depth(state: PassState, node: fx.Node, value: Tensor) -> Channels:
    """The function `pixel_unshuffle`."""
    return _to_depth(state, node, _factor(node, "downscale_factor"))


def _factor(node: fx.Node, name: str) -> int:
    factor = node.args[1] if len(node.args) > 1 else node.kwargs.get(name)
    if not isinstance(factor, int):
        raise Refused("pixels are shuffled by a computed factor")
    return factor


def _to_space(state: PassState, node: fx.Node, factor: int) -> Channels:
    """Every r * r channels become one: they are a unit."""
    labels = _before_positions(state, node)
    rows = labels.labels.reshape(-1, factor * factor)
    for column in rows.T[1:]:
        state.ledger.pair(rows[:, 0], column, node.name)
    return Channels(labels.axis, rows[:, 0])


def _to_depth(state: PassState, node: fx.Node, factor: int) -> Channels:
    """Every channel becomes r * r: each stands r * r times."""
    labels = _before_positions(state, node)
    return Channels(labels.axis, np.repeat(labels.labels, factor * factor))


def _before_positions(state: PassState, node: fx.Node) -> Channels:
    """The labels of channels that lie before the two axes of positions."""
    source = state.source(node)
    labels = state.labels[source]
    if not isinstance(labels, Channels) or labels.axis != state.values[source].ndim - 3:
        raise Refused("pixels are shuffled along another axis than the channels")
    return labels


def _like(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """A view in the shape of another tensor, whose channels it must have then."""
    other = state.labels[cast(fx.Node, node.args[1])]
    after = _moved(state, node, "reshape", lambda tensor: tensor.reshape(value.shape), list(value.shape))
    if isinstance(other, Channels):
        if not isinstance(after, Channels) or after.axis != other.axis:
            raise Refused("it takes the shape of a tensor whose channels lie elsewhere")
        state.ledger.pair(other.labels, after.labels, node.name)
    return after


def _shuffled(state: PassState, node: fx.Node, groups: int) -> Channels:
    """The channels written as `groups` rows and read column by column."""
    labels = state.labels[state.source(node)]
    if not isinstance(labels, Channels) or labels.axis != 1:
        raise Refused("channels that do not lie along the second axis are shuffled")
    state.tile(labels.labels, groups, node)
    return Channels(1, labels.labels.reshape(groups, -1).T.ravel())


def _moved(
    state: PassState, node: fx.Node, name: str, move: Callable[[Tensor], Any], sizes: Any = None
) -> Labels:
    """Data movement called `name`, run on the positions of the channels.

    Args:
        state: The pass.
        node: The node that moves its source.
        name: How the movement is called in torch.
        move: Does it to a tensor.
        sizes: The sizes it is given, where these are not the node's own arguments.
    """
    source = state.source(node)
    labels = state.labels[source]
    shape = list(state.values[source].shape)
    if not isinstance(labels, Channels | Spread):
        return None
    (vector,) = vectors(labels)
    axes = axes_of(labels)
    doubled = name in TRANSPOSITIONS and len(vector) == 1
    if doubled:
        vector, shape[axes[0]] = np.repeat(vector, 2), 2  # a single channel does not show where it goes
    extents = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    try:
        result = move(torch.arange(len(vector)).view(extents).expand(shape))
    except (RuntimeError, TypeError, IndexError):  # such as an index that is itself computed
        raise Refused(f"{name} moves channels in a way that cannot be followed") from None
    leaves = list(result) if isinstance(result, list | tuple) else [result]
    landed = [_landed(leaf, vector, axes[0]) for leaf in leaves]
    if doubled:
        landed = [Channels(part.axis, part.labels[:1]) for part in landed if isinstance(part, Channels)]
    if name in PARTS:
        _take(state, node, name, labels, landed)
    elif isinstance(landed[0], Spread) and name in RESHAPING and not isinstance(labels, Spread):
        _cut(state, node, name, landed[0], sizes)
    elif isinstance(landed[0], Channels) and name in RESHAPING:
        size = _sizes(state, node, name, sizes)
        if isinstance(size, list | tuple) and landed[0].axis < len(size):
            numbers.follow(state, node, size[landed[0].axis], landed[0].labels)
    return landed[0] if leaves[0] is result else [*landed]


def _landed(moved: Tensor, labels: Vector, axis: int) -> Channels | Spread:
    """The labels of a tensor of positions, `axis` being theirs before if there is only one."""
    if not moved.ndim:
        raise Refused("a single channel is taken by position")
    size = moved.shape[axis := min(axis, moved.ndim - 1)]
    strides = moved.stride()
    for other in sorted(range(moved.ndim), key=lambda axis: bool(strides[axis])):  # expanded ones are free
        if moved.shape[other] > 1:
            first = moved.narrow(other, 0, 1)
            if not strides[other] or bool((moved == first).all()):
                moved = first
    remaining = labels[moved.numpy()]
    axes = [other for other, extent in enumerate(remaining.shape) if extent > 1]
    if len(axes) > 1:
        return Spread(torch.as_tensor(remaining))
    if axes:
        return Channels(axes[0], remaining.ravel())
    return Channels(axis, np.repeat(remaining.ravel(), size))


def _take(
    state: PassState, node: fx.Node, name: str, before: Labels, parts: Sequence[Channels | Spread]
) -> None:
    """Elements taken by position: all channels, or equal parts that follow their number, else they are frozen."""
    (channels,) = vectors(before)
    follows = name == "chunk" or any(n in state.counts for n in node.all_input_nodes)
    if isinstance(before, Spread) and name in ("getitem", "unbind", "chunk", "split"):
        return  # queries, keys and values, say; the verification sees whether what is taken follows
    if (
        name in ("split", "split_with_sizes")
        and not follows
        and _split_by_attribute(state, node, before, parts)
    ):
        return
    for part in parts:
        (labels,) = vectors(part)
        times, size = len(labels) // len(channels), len(labels)
        if size and np.array_equal(labels, np.repeat(channels, times)):
            continue
        equal = isinstance(before, Channels) and size and len(channels) % size == 0
        if follows and equal and labels.tolist() in channels.reshape(-1, size).tolist():
            state.tile(channels, len(channels) // size, node)
            continue
        state.ledger.freeze(channels, f"{name} splits or reorders channels by position", where(node))
        return


def _split_by_attribute(
    state: PassState, node: fx.Node, before: Labels, parts: Sequence[Channels | Spread]
) -> bool:
    """Parts whose sizes the module keeps as attributes, which can be set to other ones; whether they are such.

    Each of a list of sizes is one of its own; parts of one size are paired.
    """
    sizes = node.args[1] if len(node.args) > 1 else None
    vectors_of_parts = [vectors(part)[0] for part in parts]
    cut = isinstance(before, Channels) and sum(map(len, vectors_of_parts)) == len(before.labels)
    if not cut or any(len(labels) < 2 for labels in vectors_of_parts):
        return False
    assert isinstance(before, Channels)
    if isinstance(sizes, list | tuple):
        return numbers.follow_all(state, node, sizes, vectors_of_parts)
    equal = isinstance(sizes, int) and len(before.labels) % sizes == 0
    if not equal or not numbers.follow(state, node, sizes, vectors_of_parts[0]):
        return False
    state.tile(before.labels, len(parts), node)
    return True


def _sizes(state: PassState, node: fx.Node, name: str, sizes: Any) -> Any:
    """The sizes that a view is given, one for every axis as far as they are known."""
    if sizes is None:
        sizes = node.args[1] if len(node.args) == 2 else node.args[1:]
    if name == "unflatten" and len(sizes) == 2 and isinstance(sizes[0], int):
        sizes = [*[None] * (sizes[0] % state.values[state.source(node)].ndim), *sizes[1]]
    return sizes


def _cut(state: PassState, node: fx.Node, name: str, after: Spread, sizes: Any) -> None:
    """Channels that a view spreads over several axes: one axis must follow their number, else they are frozen."""
    axes = axes_of(after)
    sizes = _sizes(state, node, name, sizes)
    if (heads := numbers.heads_axis(state, node, sizes, axes)) is not None:
        rows = after.labels.movedim(heads, -1).flatten(0, -2).numpy()
        state.tile(rows.ravel(), len(rows), node)
        numbers.follow(state, node, sizes[heads], rows[0], heads=True)
        return
    if isinstance(sizes, fx.Node):  # another tensor's shape
        shape = state.counts.get(sizes)
        free = [axis for axis in axes if isinstance(shape, tuple) and shape[axis] is not None]
    else:
        free = [a for a in axes if a < len(sizes) and (sizes[a] == -1 or sizes[a] in state.counts)]
    if len(free) == 1:
        rows = after.labels.movedim(free[0], -1).flatten(0, -2).numpy()
        state.tile(rows.ravel(), len(rows), node)
    else:
        why = f"{name} splits or reorders channels by position"
        state.ledger.freeze(after.labels.numpy().ravel(), why, where(node))
