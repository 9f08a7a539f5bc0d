"""Rules of pooling, reductions, pads and gated linear units: what works along axes beside the channels."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, fx

from prunas.tracing.labels import Channels, Labels, Refused, Spread, axes_of, vectors
from prunas.tracing.operations import STATISTICS, has_batch, operation
from prunas.tracing.rules import elementwise
from prunas.tracing.state import PassState

__all__ = ["along", "extreme", "gate", "normalize", "pad", "pool", "reduce", "softmax"]


def pool(state: PassState, node: fx.Node, value: Any) -> Labels:
    """Pooling, interpolation and padding of positions keep channels that lie along the second axis."""
    labels = state.labels[state.source(node)]
    name = type(state.modules[str(node.target)]).__name__ if node.op == "call_module" else operation(node)
    if not isinstance(value, Tensor) or (
        vectors(labels) and (axes_of(labels) != [1] or not has_batch(name, value))
    ):
        raise Refused("pooled across channels")
    return labels


def reduce(state: PassState, node: fx.Node, value: Tensor) -> Channels | Spread | None:
    """A sum, mean or extreme over other axes keeps the channels; over theirs it cannot be followed."""
    source = state.source(node)
    labels = state.labels[source]
    position = 2 if operation(node) == "norm" else 1
    dims = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    listed = dims if isinstance(dims, list | tuple) else [dims]
    if isinstance(labels, Spread) and all(isinstance(dim, int) for dim in listed):
        return _reduced(
            state, node, labels, [cast(int, dim) % state.values[source].ndim for dim in listed], value
        )
    if not isinstance(labels, Channels) or not all(isinstance(dim, int) for dim in listed):
        raise Refused(f"{operation(node)} runs over channels")
    ndim = state.values[source].ndim
    reduced = {cast(int, dim) % ndim for dim in listed}
    if labels.axis in reduced:
        if operation(node) not in STATISTICS or value.ndim != ndim:
            raise Refused(f"{operation(node)} runs over channels")
        state.ledger.mix(labels.labels)  # a statistic that broadcasts over them again, as a norm's does
        return None
    gone_before = [dim for dim in reduced if dim < labels.axis] if value.ndim < ndim else []
    return Channels(labels.axis - len(gone_before), labels.labels)


def _reduced(
    state: PassState, node: fx.Node, labels: Spread, dims: Sequence[int], value: Tensor
) -> Channels | Spread:
    """Reduces channels that lie along several axes; along the reduced ones they come and go together."""
    left = labels.labels
    for dim in dims:
        left = _paired(state, node, left, dim)
    axes = [axis for axis, extent in enumerate(left.shape) if extent > 1]
    if not axes:
        raise Refused(f"{operation(node)} runs over channels")
    if value.ndim < left.ndim:
        left = left.reshape([size for axis, size in enumerate(left.shape) if axis not in dims])
        axes = [axis for axis, extent in enumerate(left.shape) if extent > 1]
    return Spread(left) if len(axes) > 1 else Channels(axes[0], left.numpy().ravel())


def _paired(state: PassState, node: fx.Node, labels: Tensor, dim: int) -> Tensor:
    """The first labels along an axis, with which the others are paired."""
    first = labels.narrow(dim, 0, 1)
    state.ledger.pair(first.expand_as(labels).numpy().ravel(), labels.numpy().ravel(), node.name)
    return first


def extreme(state: PassState, node: fx.Node, value: Any) -> Labels:
    """`max` and `min`: of two tensors element by element, or along an axis, then with the places."""
    if len(node.all_input_nodes) > 1:
        return elementwise.combine(state, node, value)
    if not isinstance(value, tuple):
        raise Refused(f"{operation(node)} runs over channels")
    labels = reduce(state, node, value[0])
    return [labels, labels]


def along(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """What combines the elements along one axis keeps channels that lie along another one."""
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return _beside(state, node, dim, value.ndim)


def softmax(state: PassState, node: fx.Node, value: Tensor, path: str) -> Labels:
    """An `nn.Softmax`."""
    return _beside(state, node, cast(Any, state.modules[path]).dim, value.ndim)


def normalize(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """Division by a norm, which may run over the channels."""
    labels = state.labels[state.source(node)]
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 1)
    if isinstance(labels, Channels) and isinstance(dim, int) and dim % value.ndim == labels.axis:
        state.ledger.mix(labels.labels)
        return labels
    if isinstance(labels, Spread) and isinstance(dim, int) and dim % value.ndim in axes_of(labels):
        rows = labels.labels.movedim(dim, 0).flatten(1).numpy()
        for row in rows[1:]:  # such as what is in a head, whose size stays
            state.ledger.pair(rows[0], row, node.name)
        return labels
    return _beside(state, node, dim, value.ndim)


def _beside(state: PassState, node: fx.Node, dim: Any, ndim: int) -> Labels:
    """The labels of what runs along an axis; refused where all of them lie there, else paired along it."""
    labels = state.labels[state.source(node)]
    if isinstance(labels, Spread) and isinstance(dim, int) and len(set(axes_of(labels)) - {dim % ndim}):
        _paired(state, node, labels.labels, dim % ndim)
        return labels
    if not isinstance(dim, int) or dim % ndim in axes_of(labels):
        raise Refused(f"{operation(node)} runs over channels")
    return labels


def pad(state: PassState, node: fx.Node, value: Tensor) -> Labels:
    """A constant pad of other axes keeps the channels."""
    labels = state.labels[state.source(node)]
    ends = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    if not isinstance(ends, list | tuple) or not isinstance(labels, Channels):
        raise Refused("a pad of computed extent")
    behind = value.ndim - 1 - labels.axis  # axes behind that of the channels, which come first in `ends`
    if any(ends[2 * behind : 2 * behind + 2]):
        raise Refused("a constant pad joins the channels")
    return labels


def gate(state: PassState, node: fx.Node, value: Tensor) -> Channels:
    """A gated linear unit: one half of the channels scales the other."""
    labels, ndim = state.labels[state.source(node)], value.ndim
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", -1)
    if not isinstance(labels, Channels) or labels.axis != cast(int, dim) % ndim:
        raise Refused("gated along another axis than the channels")
    return Channels(labels.axis, state.tile(labels.labels, 2, node))
