"""What torch's modules and functions do to channels: one rule a family of operations, and the tables of them.

A rule returns the labels of a node's value from those of its operands, enters in the ledger what it ties, pairs
or freezes, and raises `Refused` where the channels cannot be followed. Operations in neither table freeze the
channels they meet.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from prunas.graphs.layers import ChannelPad
from prunas.tracing.labels import Labels
from prunas.tracing.operations import (
    ALONG,
    BINARY,
    COMPARISON,
    CONCATENATION,
    CONVOLUTIONS,
    CREATION,
    NORMS,
    PARTS,
    POINTWISE,
    POINTWISE_MODULES,
    POOLING,
    POOLING_MODULES,
    REDUCTION,
    TRANSPOSED,
    VIEWS,
)
from prunas.tracing.rules import attention, elementwise, layers, movement, recurrent, reduction
from prunas.tracing.state import PassState

__all__ = ["FUNCTIONS", "MODULES", "rule_of"]

ModuleRule = Callable[[PassState, fx.Node, Tensor, str], Labels]
FunctionRule = Callable[[PassState, fx.Node, Any], Labels]


def _by_node(rule: FunctionRule) -> ModuleRule:
    """A function's rule for the module that does the same and has no channel counts."""
    return lambda state, node, value, path: rule(state, node, value)


MODULES: tuple[tuple[tuple[type[nn.Module], ...], ModuleRule], ...] = (
    (POINTWISE_MODULES, _by_node(elementwise.keep)),
    (POOLING_MODULES, _by_node(reduction.pool)),
    ((nn.Flatten,), movement.flatten),
    ((nn.Unflatten,), movement.unflatten),
    ((nn.ChannelShuffle,), movement.shuffle),
    ((nn.PixelShuffle,), movement.pixel_shuffle),
    ((nn.PixelUnshuffle,), movement.pixel_unshuffle),
    ((nn.Softmax, nn.LogSoftmax), reduction.softmax),
    (CONVOLUTIONS, layers.convolution),
    (TRANSPOSED, layers.transposed),
    ((nn.Linear,), layers.linear),
    (NORMS, layers.channel_norm),
    ((nn.PReLU,), layers.prelu),
    ((nn.Embedding,), layers.embedding),
    ((nn.LayerNorm, nn.RMSNorm), layers.layer_norm),
    ((nn.GroupNorm,), layers.group_norm),
    ((ChannelPad,), layers.channel_pad),
    ((nn.MultiheadAttention,), attention.multihead),
    ((nn.RNNBase, nn.RNNCellBase), recurrent.recurrent),
)
"""The rule of every module that is understood, by its classes."""

FUNCTIONS: dict[str, FunctionRule] = {
    **dict.fromkeys(POINTWISE, elementwise.pointwise),
    **dict.fromkeys(BINARY | COMPARISON, elementwise.combine),
    **dict.fromkeys(("max", "min"), reduction.extreme),
    **dict.fromkeys(ALONG, reduction.along),
    "normalize": reduction.normalize,
    "stack": movement.stack,
    "pixel_shuffle": movement.depth_to_space,
    "pixel_unshuffle": movement.space_to_depth,
    **dict.fromkeys(CREATION, elementwise.create),
    **dict.fromkeys(CONCATENATION, movement.concatenate),
    **dict.fromkeys(VIEWS | PARTS, movement.move),
    **dict.fromkeys(POOLING, reduction.pool),
    **dict.fromkeys(REDUCTION, reduction.reduce),
    **dict.fromkeys(("matmul", "bmm"), attention.product),
    "scaled_dot_product_attention": attention.attend,
    "deform_conv2d": layers.deformable,
    "glu": reduction.gate,
    "pad": reduction.pad,
}
"""The rule of every function and method that is understood, by its bare name."""


def rule_of(module: nn.Module) -> ModuleRule | None:
    """The rule of a module, or None if it is not understood."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) > 1:
        return None  # its channels are not along the last axis alone
    return next((rule for classes, rule in MODULES if isinstance(module, classes)), None)
