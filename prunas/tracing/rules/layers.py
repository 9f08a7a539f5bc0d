"""Rules of the layers with weights: linear layers, convolutions, norms, and the pad that can be narrowed.

Each takes the state of the pass, the node, its value and the module path of the layer, and returns the labels of
the value.
"""

import numpy as np
from torch import Tensor, fx, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from prunas.graphs.layers import ChannelPad
from prunas.tracing.labels import Channels, Labels, Refused
from prunas.tracing.ledger import NOTHING
from prunas.tracing.operations import CONVOLUTIONS, TRANSPOSED, has_batch, where
from prunas.tracing.state import PassState

__all__ = [
    "channel_norm",
    "channel_pad",
    "convolution",
    "embedding",
    "group_norm",
    "layer_norm",
    "linear",
    "prelu",
    "transposed",
]


def linear(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """A linear layer reads the last axis and begins new labels there."""
    layer = state.modules[path]
    assert isinstance(layer, nn.Linear)
    channels = state.passing(path, state.enter_layer(node, path, value, -1))
    state.ledger.occur((path, "inner"), channels, node.name)
    written = state.ledger.produce((path, "writes"), layer.out_features, 1, node.name)
    return Channels(value.ndim - 1, written)


def convolution(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """A convolution begins new labels, a depthwise one keeps those it reads."""
    conv = state.modules[path]
    assert isinstance(conv, CONVOLUTIONS)
    axis = value.ndim - 1 - len(conv.kernel_size)  # 0 where there is no batch
    channels = state.passing(path, state.enter_layer(node, path, value, axis - value.ndim))
    writes, filters = (path, "writes"), conv.out_channels // conv.groups
    if state.ledger.is_depthwise(path, conv):  # a channel in is `filters` channels out
        written = np.repeat(channels, filters)
        state.ledger.occur(writes, written, node.name)
    else:
        state.ledger.occur((path, "inner"), state.tile(channels, conv.groups, node), node.name)
        written = state.ledger.produce(writes, filters, conv.groups, node.name)
    return Channels(axis, written)


def transposed(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """A transposed convolution begins new labels, a depthwise one keeps those it reads.

    It multiplies every position of its input by the whole kernel, so that its inputs are what is counted.
    """
    conv = state.modules[path]
    assert isinstance(conv, TRANSPOSED)
    if conv.groups > 1 and not conv.groups == conv.in_channels == conv.out_channels:
        raise Refused("a transposed convolution in groups is not understood")
    depthwise = state.ledger.is_depthwise(path, conv)
    axis = value.ndim - 1 - len(conv.kernel_size)
    channels = state.enter_layer(node, path, value, axis - value.ndim)
    given = state.values[state.source(node)]
    state.read[path] = state.read.get(path, 0) + given.numel() // given.shape[axis]
    if depthwise:
        state.ledger.occur((path, "writes"), channels, node.name)
        return Channels(axis, channels)
    state.ledger.occur((path, "inner"), channels, node.name)
    return Channels(axis, state.ledger.produce((path, "writes"), conv.out_channels, 1, node.name))


def embedding(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """An embedding begins new labels along an axis behind those of the indices that it looks up."""
    table = state.modules[path]
    assert isinstance(table, nn.Embedding)
    if table.max_norm is not None:
        state.ledger.forbid(path, "it changes the rows that it looks up", where(node))
    state.ledger.occur((path, "reads"), NOTHING, node.name)
    state.called.setdefault(path, 0)
    state.calls.setdefault(path, []).append(node)
    written = state.ledger.produce((path, "writes"), table.embedding_dim, 1, node.name)
    return Channels(value.ndim - 1, written)


def channel_norm(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """A batch norm or instance norm keeps the labels of the second axis."""
    norm = state.modules[path]
    if isinstance(norm, _InstanceNorm) and not has_batch(type(norm).__name__, value):
        raise Refused("its norm takes the channels for positions")
    return _elementwise(state, node, value, path, 1)


def prelu(state: PassState, node: fx.Node, value: Tensor, path: str) -> Labels:
    """A PReLU keeps its labels; one with a slope for every channel has weights along the second axis."""
    layer = state.modules[path]
    assert isinstance(layer, nn.PReLU)
    if layer.num_parameters > 1:
        return _elementwise(state, node, value, path, 1)
    return state.labels[state.source(node)]


def layer_norm(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """A layer norm over the last axis takes its statistics over the channels."""
    normed = _elementwise(state, node, value, path, -1)
    state.ledger.mix(normed.labels)
    return normed


def group_norm(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """A group norm takes its statistics over equal parts of the channels, which are paired."""
    norm = state.modules[path]
    assert isinstance(norm, nn.GroupNorm)
    normed = _elementwise(state, node, value, path, 1)
    state.tile(normed.labels, norm.num_groups, node)
    state.ledger.mix(normed.labels)
    return normed


def channel_pad(state: PassState, node: fx.Node, value: Tensor, path: str) -> Channels:
    """A `ChannelPad` appends new labels to those it reads."""
    pad = state.modules[path]
    assert isinstance(pad, ChannelPad)
    channels = state.enter_layer(node, path, value, 1)
    extra = state.ledger.produce((path, "writes"), pad.extra, 1, node.name)
    return Channels(1, np.concatenate([channels, extra]))


def _elementwise(state: PassState, node: fx.Node, value: Tensor, path: str, axis: int) -> Channels:
    """A layer that scales every channel along `axis` by weights of its own keeps the labels."""
    channels = state.passing(path, state.enter_layer(node, path, value, axis))
    state.ledger.occur((path, "writes"), channels, node.name)
    return Channels(axis % value.ndim, channels)
