"""Rules of the layers with weights: linear layers, convolutions, norms, and the pad that can be narrowed.

Each takes the state of the pass, the node, its value and the module path of the layer, and returns the labels of
the value.
"""

from typing import cast

import numpy as np
from torch import Tensor, fx, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from prunas.graphs.layers import ChannelPad
from prunas.tracing.labels import Bare, Channels, Labels, Refused, vectors
from prunas.tracing.ledger import NOTHING
from prunas.tracing.operations import CONVOLUTIONS, TRANSPOSED, has_batch, named_arguments, where
from prunas.tracing.rules import parameters
from prunas.tracing.state import PassState

__all__ = [
    "biased",
    "channel_norm",
    "channel_pad",
    "convolution",
    "deformable",
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


def biased(state: PassState, node: fx.Node, path: str, labels: Labels) -> Labels:
    """The labels of what a function made of a layer's weight, once it has added a bias that is not the layer's."""
    bias = named_arguments(node).get("bias")
    if not isinstance(bias, fx.Node) or not isinstance(labels, Channels):
        return labels
    if bias.target == f"{path}.bias":
        state.met.add((node, f"{path}.bias"))
        return labels
    carried = state.labels[bias]
    if not isinstance(carried, Bare):
        raise Refused("they meet a tensor of fixed size")
    parameters.meet(state, node, carried, 0, labels.labels)
    return labels


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


def deformable(state: PassState, node: fx.Node, value: Tensor) -> Channels:
    """torchvision's deformable convolution, with weights of a module's own; the channels of its offsets stay."""
    if len(node.args) != 14 or node.args[11:13] != (1, 1):
        raise Refused("a deformable convolution in groups is not understood")
    source, weight, *moving, bias = cast(tuple[fx.Node, ...], node.args[:5])
    path = str(weight.target).rpartition(".")[0]
    if weight.op != "get_attr":
        raise Refused("a deformable convolution by a computed weight is not understood")
    for operand in moving:
        for vector in vectors(state.labels[operand]):
            state.ledger.freeze(vector, "they say where a deformable convolution reads", where(node))
    labels, ledger = state.labels[source], state.ledger
    if not isinstance(labels, Channels) or labels.axis != 1:
        raise Refused("its channels do not lie along the axis that the layer reads")
    written = ledger.produce((path, "writes"), value.shape[1], 1, node.name)
    for axis, channels, attribute in ((0, written, "out_channels"), (1, labels.labels, "in_channels")):
        ledger.occur((str(weight.target), str(axis)), channels, node.name)
        if getattr(state.modules[path], attribute, None) == len(channels):
            ledger.follow((path, f"attribute {attribute}"), channels, node.name)
    state.met.add((node, str(weight.target)))
    if isinstance(state.labels[bias], Bare):
        parameters.meet(state, node, cast(Bare, state.labels[bias]), 0, written)
    else:  # zeros, as many as the weight has rows
        state.labels[bias] = Channels(0, written)
    return Channels(1, written)


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
