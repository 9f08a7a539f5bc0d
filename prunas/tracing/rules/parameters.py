"""Rules of parameters and buffers that `forward` reads besides calling their module."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunas.tracing.labels import Bare, Channels, Joined, Labels, Refused, vectors
from prunas.tracing.ledger import Vector
from prunas.tracing.operations import (
    BIASED,
    BINARY,
    COMPARISON,
    CONCATENATION,
    FUNCTIONAL,
    NORMS,
    POINTWISE,
    POOLING,
    RESHAPING,
    STATISTICS,
    TRANSPOSED,
    VIEWS,
    functional,
    has_batch,
    named_arguments,
    operation,
    where,
)
from prunas.tracing.rules import numbers
from prunas.tracing.state import PassState

__all__ = ["compute", "follow", "hold_reduced", "layer_of", "meet", "read"]

LAYERS = (
    *TRANSPOSED,
    *NORMS,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.PReLU,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)
"""Layers that are held where `forward` reads their tensors besides calling them, whatever it does with them."""


def read(state: PassState, node: fx.Node, value: Any) -> Bare | None:
    """A parameter, buffer or constant of the network; a layer's is held with the whole layer."""
    path, _, name = str(node.target).rpartition(".")
    counter = isinstance(value, Tensor) and not value.ndim  # `num_batches_tracked` has no channels
    if (
        isinstance(state.modules.get(path), LAYERS)
        and not counter
        and not all(functional(user, state.modules) == path for user in node.users)
    ):
        state.ledger.forbid(path, f"forward reads its {name} besides calling it", where(node))
    owner = state.modules.get(path, state.net)
    if name in owner._non_persistent_buffers_set:
        state.unsaved.add(str(node.target))
    elif name not in owner._parameters and name not in owner._buffers:
        state.ledger.keep_whole(str(node.target), f"{node.target} is not in the state dict", where(node))
    if not isinstance(value, Tensor):
        return None
    return Bare(
        {str(node.target): tuple(axis if size > 1 else None for axis, size in enumerate(value.shape))}
    )


def follow(state: PassState, node: fx.Node, name: str, value: Any) -> Bare | None:
    """What is made of parameters and buffers alone: moved, mapped element by element, combined.

    None where an axis of theirs is not there as a whole afterwards.
    """
    if not isinstance(value, Tensor):
        return None
    if name in VIEWS | {"getitem", "getattr"}:
        source = state.source(node)
        before = state.labels[source]
        if not isinstance(before, Bare):
            return None  # it only asks a parameter for its shape
        if name == "getitem" and (parts := _parts_overwritten(state, node, before)):
            state.cuts[node] = parts
            for tensor in before.axes:
                state.parts[tensor] = math.lcm(parts, state.parts.get(tensor, 1))
            return Bare({})
        landed = [_landed(state, node, name, axis) for axis in range(state.values[source].ndim)]

        def origin(axes: tuple[int | None, ...], axis: int) -> int | None:
            """The axis of a parameter that lies along an axis of the result."""
            return next((axes[i] for i, where_to in enumerate(landed) if where_to == axis), None)

        after = {
            n: tuple(origin(axes, axis) for axis in range(value.ndim)) for n, axes in before.axes.items()
        }
        if name in RESHAPING:
            _note_sizes(state, node, after)
        return Bare(after)
    if name == "batch_norm":
        return _standardised(state, node, value)
    if name in STATISTICS:
        return _beside_reduced(state, node, value)
    if name in POOLING:  # positions are resampled, the axes before them stay
        resampled = state.labels[state.source(node)]
        return _kept(resampled, range(2)) if isinstance(resampled, Bare) and has_batch(name, value) else None
    if name in CONCATENATION:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        beside = set(range(value.ndim)) - {int(cast(int, dim)) % value.ndim}
        return _joined(state, node, int(cast(int, dim)) % value.ndim, beside)
    if name not in BINARY | POINTWISE | COMPARISON:
        return None
    operands = [n for n in node.all_input_nodes if isinstance(state.values[n], Tensor)]
    if name in POINTWISE and len(operands) == 1:
        only = state.labels[operands[0]]
        return only if isinstance(only, Bare) else None
    # Along the axes of a tensor that is none of the network's own, theirs are met by what never varies.
    extents = [
        axis - value.ndim
        for n in operands
        if not isinstance(state.labels[n], Bare)
        for axis in range(value.ndim - state.values[n].ndim)
        if state.values[n].shape[axis - value.ndim] > 1
    ]
    free = {axis for axis in range(value.ndim) if axis - value.ndim not in extents}
    aligned = [_aligned(state.labels[n], value.ndim - state.values[n].ndim) for n in operands]
    return _merged([_kept(bare, free) for bare in aligned])


def _standardised(state: PassState, node: fx.Node, value: Tensor) -> Bare | None:
    """Weights whose rows lie along the second axis, brought to one mean and variance, and scaled, row by row."""
    given = named_arguments(node)
    rows = [given.get("weight"), given.get("bias")]
    source = state.labels[state.source(node)]
    if given.get("running_mean") is not None or not isinstance(source, Bare):
        return None
    scales = [state.labels[n] for n in rows if isinstance(n, fx.Node)]
    along = [
        Bare({n: (None, axes[0], *(None,) * (value.ndim - 2)) for n, axes in scale.axes.items()})
        for scale in scales
        if isinstance(scale, Bare) and not isinstance(scale, Joined)
    ]
    return _merged([_kept(source, [1]), *along]) if len(along) == len(scales) else None


def _beside_reduced(state: PassState, node: fx.Node, value: Tensor) -> Bare | None:
    """A statistic of parameters that keeps all axes: those that it does not run over are there as a whole."""
    source = state.source(node)
    labels, before = state.labels[source], state.values[source].shape
    if not isinstance(labels, Bare) or len(before) != value.ndim:
        return None
    return _kept(labels, [axis for axis in range(value.ndim) if before[axis] == value.shape[axis]])


def layer_of(state: PassState, node: fx.Node) -> str:
    """The convolution or linear layer whose weight a function multiplies by after it was computed with, if any."""
    if operation(node) not in FUNCTIONAL:
        return ""
    given = named_arguments(node)
    weight: Any = given.get("weight")
    bare = state.labels[weight] if isinstance(weight, fx.Node) and weight.op != "get_attr" else None
    if not isinstance(bare, Bare) or isinstance(bare, Joined) or node.op != "call_function":
        return ""
    kind = FUNCTIONAL[operation(node)][0]
    for name, axes in bare.axes.items():
        path, _, what = name.rpartition(".")
        module = state.modules.get(path)
        if what == "weight" and isinstance(module, BIASED) and isinstance(module, kind):
            shape = module.weight.shape
            same = isinstance(module, nn.Linear) or given.get("groups", 1) == module.groups
            if same and axes[0] == 0 and shape == state.values[weight].shape and len(shape) == len(axes):
                return path
    return ""


def compute(state: PassState, node: fx.Node, path: str, written: Vector) -> None:
    """Notes a layer whose weight is computed: its rows go with what else is in it, its columns may be mixed."""
    weight = cast(fx.Node, named_arguments(node)["weight"])
    bare, own = cast(Bare, state.labels[weight]), f"{path}.weight"
    scales = Bare({name: axes for name, axes in bare.axes.items() if name != own})
    if any(axes[0] is not None for axes in scales.axes.values()):
        meet(state, node, scales, 0, written)
    state.met.update((node, name) for name in bare.axes)
    if state.values[weight].shape[1] > 1 and bare.axes[own][1] != 1:
        for channels in vectors(state.labels[state.source(node)]):
            state.ledger.mix(channels)
    lines, waiting = set(), [weight]
    while waiting:
        before = waiting.pop()
        lines.add(before.meta.get("line", before.name))
        waiting.extend(before.all_input_nodes)
    state.computed[path] = lines


def _parts_overwritten(state: PassState, node: fx.Node, before: Bare) -> int:
    """Of how many equal parts of vectors one is taken and only written over with a number; 0 if that is not so.

    What is not met yet can still be paired in as many parts.
    """
    index, size = node.args[1], state.values[state.source(node)].shape
    met = any((name, "0") in state.ledger.axes or axes != (0,) for name, axes in before.axes.items())
    if met or not isinstance(index, slice) or index.step not in (None, 1) or len(size) != 1:
        return 0
    start, stop, _ = index.indices(size[0])
    extent = stop - start
    whole = extent > 0 and not size[0] % extent and not start % extent
    if not whole or any(user.users or operation(user) not in ("zero", "fill") for user in node.users):
        return 0
    return int(size[0]) // extent


def _joined(state: PassState, node: fx.Node, axis: int, beside: Collection[int]) -> Joined | None:
    """Parameters that are joined along an axis; None if it does not show which."""
    operands = node.args[0] if node.args else node.kwargs.get("tensors")
    if not isinstance(operands, list | tuple) or not all(isinstance(part, fx.Node) for part in operands):
        return None
    parts = cast(Sequence[fx.Node], operands)
    merged = _merged([_kept(state.labels[part], beside) for part in parts])
    bare = [(labels if isinstance(labels := state.labels[part], Bare) else Bare({})) for part in parts]
    extents = [int(state.values[part].shape[axis]) for part in parts]
    return Joined(merged.axes, axis, tuple(zip(bare, extents, strict=True)))


def _note_sizes(state: PassState, node: fx.Node, after: Mapping[str, tuple[int | None, ...]]) -> None:
    """Notes the attributes by which a view is given the extents of parameters, such as `self.shape`."""
    sizes = node.args[1] if len(node.args) == 2 else node.args[1:]
    if not isinstance(sizes, list | tuple):
        return
    for tensor, axes in after.items():
        for size, own in zip(sizes, axes, strict=False):
            if own is not None:
                state.viewed.setdefault((tensor, own), []).extend(numbers.holding(state, node, size, tensor))


def _aligned(labels: Labels, padding: int) -> Labels:
    """What is made of parameters, with further axes in front."""
    if not isinstance(labels, Bare):
        return labels
    return Bare({name: (*(None,) * padding, *axes) for name, axes in labels.axes.items()})


def _kept(labels: Labels, axes: Collection[int]) -> Bare:
    """What is made of parameters, of which some axes are there as a whole; of other tensors, nothing."""
    tensors = labels.axes if isinstance(labels, Bare) else {}
    return Bare(
        {n: tuple(own if i in axes else None for i, own in enumerate(row)) for n, row in tensors.items()}
    )


def _merged(parts: Sequence[Bare]) -> Bare:
    """What is made of several such tensors; an axis that lies in them in two ways is not there as a whole."""
    merged: dict[str, tuple[int | None, ...]] = {}
    for part in parts:
        for name, axes in part.axes.items():
            before = merged.setdefault(name, axes)
            merged[name] = tuple(a if a == b else None for a, b in zip(before, axes, strict=True))
    return Bare(merged)


def _landed(state: PassState, node: fx.Node, name: str, axis: int) -> int | None:
    """Where an axis of a tensor is after a node has moved it; None if it is not there in whole and in order."""
    rest: Any = fx.node.map_arg(node.args[1:], lambda n: state.values[n])
    named: Any = fx.node.map_arg(node.kwargs, lambda n: state.values[n])
    options = {key: option for key, option in named.items() if key != "input"}
    shape = state.values[state.source(node)].shape
    extents = [size if i == axis else 1 for i, size in enumerate(shape)]
    positions = torch.arange(shape[axis]).view(extents).expand(shape)
    if shape[axis] == 1:
        return None
    try:
        if name == "getitem" and isinstance(rest[0], Tensor):
            if not axis:
                return None
            moved = positions[torch.zeros(rest[0].shape, dtype=torch.int64)]  # rows of a table, whichever
        elif name == "getitem":
            moved = positions[pytree.tree_map_only(Tensor, _any_row, rest[0])]
        elif name == "getattr":
            moved = getattr(positions, rest[0])
        else:
            moved = getattr(positions, "reshape" if name == "view" else name)(*rest, **options)
    except (RuntimeError, TypeError, IndexError):  # such as an index that is itself computed
        return None
    for after, size in enumerate(moved.shape):
        extents = [size if i == after else 1 for i in range(moved.ndim)]
        if size == shape[axis] and bool((moved == torch.arange(size).view(extents)).all()):
            return after
    return None


def _any_row(index: Tensor) -> Tensor:
    """An index without values as one of the first row of a table, whichever it takes."""
    return torch.zeros(index.shape, dtype=torch.int64) if index.is_meta else index


def meet(state: PassState, node: fx.Node, bare: Bare, axis: int, channels: Vector) -> None:
    """Ties what is made of parameters to the channels that it meets along one of its axes.

    Raises:
        Refused: No parameter lies along it as a whole.
    """
    if isinstance(bare, Joined) and bare.axis == axis:
        ends = np.cumsum([extent for _, extent in bare.parts])
        for (part, _), piece in zip(bare.parts, np.split(channels, ends[:-1]), strict=True):
            meet(state, node, part, axis, piece)
        return
    met = {name: own for name, axes in bare.axes.items() if (own := axes[axis]) is not None}
    if not met:
        raise Refused("they meet a tensor of fixed size")
    state.met.update((node, name) for name in met)
    for name, own in met.items():
        if own == 0 and name in state.indexed:
            state.ledger.keep_whole(name, f"its rows are looked up in {name}", where(node))
        path, _, kind = name.rpartition(".")
        if kind == "weight" and isinstance(state.modules.get(path), BIASED):
            state.ledger.forbid(path, f"forward reads its {kind} besides calling it", where(node))
        layers = kind == "bias" and isinstance(state.modules.get(path), BIASED)
        state.ledger.occur((path, "writes") if layers else (name, str(own)), channels, node.name)
        if name in state.parts:
            state.tile(channels, state.parts[name], node)
        for path, attribute in state.viewed.get((name, own), ()):
            state.ledger.follow((path, f"attribute {attribute}"), channels, node.name)
        if any(owner == name and side != str(own) for owner, side in state.ledger.axes):
            state.ledger.keep_whole(name, "its channels lie along two axes", where(node))


def hold_reduced(state: PassState, node: fx.Node) -> None:
    """Holds parameters and buffers that a node reads in another way than channel by channel.

    Their mean, say, is another one where there are fewer of them.
    """
    after, name = state.labels[node], operation(node)
    for before in node.all_input_nodes:
        bare = state.labels[before]
        if isinstance(bare, Bare):
            _hold_read(state, node, bare, after)
        if (
            not isinstance(bare, Bare)
            or node in state.cuts
            or (name in BINARY | COMPARISON and isinstance(after, Channels))
        ):
            continue
        followed = _within(after) if isinstance(after, Bare) else {}
        looked_up = name == "getitem" and isinstance(node.args[1], fx.Node) and node.args[0] is before
        for tensor, axes in _within(bare).items():
            if (node, tensor) in state.met:
                continue
            if looked_up and (tensor, "0") not in state.ledger.axes:
                state.indexed.add(tensor)
                axes = axes[1:]
            for axis in axes:
                if axis is not None and axis not in followed.get(tensor, ()):
                    state.ledger.keep_axis(tensor, axis, f"{name} reads {tensor} as a whole", where(node))


def _within(bare: Bare) -> Mapping[str, tuple[int | None, ...]]:
    """The axes of every parameter that lie in what is made of them, in whole or as one of its parts."""
    if not isinstance(bare, Joined):
        return bare.axes
    rows = [*bare.axes.items(), *(item for part, _ in bare.parts for item in _within(part).items())]
    within: dict[str, tuple[int | None, ...]] = {}
    for name, axes in rows:
        within[name] = (*within.get(name, ()), *axes)
    return within


def _hold_read(state: PassState, node: fx.Node, bare: Bare, after: Labels) -> None:
    """Holds the layers whose weight or bias a node reads in another way than they do themselves."""
    if not isinstance(state.values.get(node, bare), Tensor) and node.op != "output":
        return
    followed = _within(after) if isinstance(after, Bare) else {}
    for name in _within(bare):
        path, _, kind = name.rpartition(".")
        layer = kind in ("weight", "bias") and isinstance(state.modules.get(path), BIASED)
        if (
            layer
            and node not in state.cuts
            and 0 not in followed.get(name, ())
            and (node, name) not in state.met
            and functional(node, state.modules) != path
        ):
            state.ledger.forbid(path, f"forward reads its {kind} besides calling it", where(node))
