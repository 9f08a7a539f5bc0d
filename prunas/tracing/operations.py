"""Tables of what torch's modules, functions and methods do to channels."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import pooling
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.padding import _CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

__all__ = [
    "ALONG",
    "ATTENTION",
    "BIASED",
    "BINARY",
    "COMPARISON",
    "CONCATENATION",
    "CONVOLUTIONS",
    "CREATION",
    "ELEMENTWISE_WEIGHTS",
    "FUNCTIONAL",
    "MEASURED",
    "NORMS",
    "PARTS",
    "POINTWISE",
    "POINTWISE_MODULES",
    "POOLING",
    "POOLING_MODULES",
    "PRODUCTS",
    "RANDOM",
    "REDUCTION",
    "RESHAPING",
    "SHAPELESS",
    "SHAPE_KEEPING",
    "STATISTICS",
    "TRANSPOSED",
    "TRANSPOSITIONS",
    "VIEWS",
    "along",
    "commutes",
    "functional",
    "has_batch",
    "named_arguments",
    "operation",
    "where",
]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (_BatchNorm, _InstanceNorm)
"""Norms that treat every channel by itself."""

POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Identity, _DropoutNd,
)  # fmt: skip
POOLING_MODULES = (
    pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd, nn.Upsample,
    _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd, _CircularPadNd,
)  # fmt: skip
POINTWISE = frozenset({
    "dropout1d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardswish",
    "hardsigmoid", "hardtanh", "softplus", "dropout", "dropout2d", "abs", "neg", "exp", "log", "sqrt", "rsqrt",
    "sin", "cos", "tan", "sign", "erf", "log1p", "log2", "expm1", "reciprocal", "logsigmoid", "softsign",
    "hardshrink", "softshrink", "tanhshrink", "threshold", "nan_to_num", "round", "floor", "ceil",
    "square", "clamp", "clip", "float", "half", "double", "to", "clone", "contiguous", "detach",
    "stochastic_depth", "feature_dropout", "alias", "fill", "zero", "zeros_like", "ones_like", "empty_like",
    "bernoulli", "uniform", "normal", "rand_like", "randn_like", "full_like", "type_as",
})  # fmt: skip
RANDOM = frozenset({
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "stochastic_depth",
})  # fmt: skip
"""Element-wise functions that draw numbers in training and scale nothing by channel counts."""
BINARY = frozenset({
    "add", "iadd", "sub", "isub", "mul", "imul", "div", "itruediv", "truediv", "maximum", "minimum", "pow",
    "copy", "rsub", "atan2", "fmod", "remainder",
})  # fmt: skip
COMPARISON = frozenset({
    "where", "gt", "ge", "lt", "le", "eq", "ne", "greater", "less", "masked_fill", "lerp", "addcmul", "addcdiv",
    "expand_as",
})  # fmt: skip
"""Functions of several tensors, element by element, whose result may look like none of them."""
VIEWS = frozenset({
    "flatten", "view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "expand", "movedim", "swapaxes",
    "swapdims", "moveaxis", "t", "unflatten", "channel_shuffle", "repeat", "tile", "reshape_as", "view_as",
})  # fmt: skip
"""Movement that keeps every element and says where it goes by sizes and axes alone."""
TRANSPOSITIONS = frozenset({
    "permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "unsqueeze",
})  # fmt: skip
"""Those that do not mention sizes."""
PARTS = frozenset({"getitem", "chunk", "split", "split_with_sizes", "unbind", "narrow", "roll", "flip"})
"""Movement that takes elements by position."""
POOLING = frozenset({
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "interpolate", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d",
    "upsample_trilinear3d",
})  # fmt: skip
REDUCTION = frozenset({"mean", "sum", "amax", "amin", "var", "std", "norm", "prod", "logsumexp"})
STATISTICS = frozenset({"mean", "var", "std", "amax", "amin", "max", "min", "norm"})
"""Reductions that may run over channels, if the result scales or shifts these again, as in a norm."""
ALONG = frozenset({"softmax", "log_softmax", "cumsum", "cumprod", "softmin"})
"""Functions that combine the elements along one axis and keep its extent."""
CONCATENATION = frozenset({"cat", "concat", "concatenate"})
DIFFERING = frozenset({"float", "half", "double", "to", "clone", "contiguous", "detach"})
SHAPE_KEEPING = POINTWISE - DIFFERING
"""Functions whose result looks like their only tensor."""
CREATION = frozenset({
    "new_zeros", "new_ones", "new_empty", "new_full", "zeros", "ones", "empty", "full", "rand", "randn", "arange",
})  # fmt: skip
RESHAPING = frozenset({"view", "reshape", "expand", "unflatten", "reshape_as", "view_as"})
SPLITTING = frozenset({"split", "split_with_sizes", "tensor_split", "chunk", "narrow"})
"""Movement that cuts along one axis."""
MEASURED = RESHAPING | {"getitem", "split", "narrow"}
"""Movement that may take channel counts as arguments."""
ATTENTION = frozenset({
    "MultiheadAttention", "multi_head_attention_forward", "shifted_window_attention",
})  # fmt: skip
PRODUCTS = frozenset({"matmul", "bmm", "scaled_dot_product_attention"})
"""Functions that multiply tensors as matrices."""
SHAPELESS = frozenset({
    "dim", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "is_floating_point", "get_device",
})  # fmt: skip
"""What can be asked of a tensor without learning how many channels it has."""
FUNCTIONAL: dict[str, tuple[type[nn.Module] | tuple[type[nn.Module], ...], tuple[str, ...]]] = {
    "conv1d": (nn.Conv1d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    "conv2d": (nn.Conv2d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    "conv3d": (nn.Conv3d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    "linear": (nn.Linear, ("input", "weight", "bias")),
    "embedding": (nn.Embedding, ("input", "weight")),
    "batch_norm": (_BatchNorm, ("input", "running_mean", "running_var", "weight", "bias")),
    "layer_norm": (nn.LayerNorm, ("input", "normalized_shape", "weight", "bias")),
    "group_norm": (nn.GroupNorm, ("input", "num_groups", "weight", "bias")),
    "rms_norm": (nn.RMSNorm, ("input", "normalized_shape", "weight", "eps")),
    "instance_norm": (_InstanceNorm, ("input", "running_mean", "running_var", "weight", "bias")),
}
"""Functions that do a layer's work, the layer whose parameters they may take, and the names of their arguments."""

BIASED = (*CONVOLUTIONS, nn.Linear)
"""Layers to which a function that does their work may add another bias than their own."""

ATEN: dict[Any, tuple[str, ...]] = {
    torch.ops.aten.batch_norm: ("input", "weight", "bias", "running_mean", "running_var"),
    torch.ops.aten.embedding: ("weight", "input"),
}
"""The arguments of operators, which torch.export writes down, where they stand in another order."""

ELEMENTWISE_WEIGHTS = frozenset(
    {"embedding", "embedding_bag", "batch_norm", "layer_norm", "rms_norm", "prelu"}
)
"""Functions whose weights scale elements, or are looked up."""


def operation(node: fx.Node) -> str:
    """The bare name of what a node calls: `add` for operator.add, torch.add, `+=` and Tensor.add_."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return name.strip("_")


def commutes(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether selecting channels before a node is the same as selecting them after it."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], (*POINTWISE_MODULES, *POOLING_MODULES, nn.Flatten))
    return operation(node) in POINTWISE | POOLING | {"flatten", "mean"}


def along(node: fx.Node) -> Any:
    """The axis that a node of `SPLITTING` cuts along, as it is given."""
    if operation(node) == "narrow":
        return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)


def functional(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """The module whose work a function does with the module's own parameters, or nothing.

    Subclasses of torch's layers often write their `forward` that way.
    """
    kind, given = FUNCTIONAL.get(operation(node), (nn.Module,))[0], named_arguments(node)
    if not isinstance(given.get("weight"), fx.Node):
        return ""
    path = str(given["weight"].target).rpartition(".")[0]
    module = modules.get(path)
    if node.op != "call_function" or not isinstance(module, kind):
        return ""
    for name, value in given.items():
        if name == "bias" and isinstance(module, BIASED) and isinstance(value, fx.Node):
            continue  # forward may add one of its own making
        if isinstance(value, fx.Node) and name != "input":
            if value.op != "get_attr" or value.target != f"{path}.{name}":
                return ""
        elif name in ("groups", "num_groups", "normalized_shape"):
            size = getattr(module, name)
            if value != size and value != list(size if isinstance(size, tuple) else ()):
                return ""
    return path


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a function of `FUNCTIONAL` by their names; of any other, those that are given by name."""
    names = ATEN.get(node.target, FUNCTIONAL.get(operation(node), (nn.Module, ()))[1])
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def has_batch(name: str, value: Tensor) -> bool:
    """Whether a layer or function, called `max_pool2d` say, has a batch and channels before its positions."""
    return not name.endswith(("1d", "2d", "3d")) or value.ndim >= int(name[-2]) + 2


def where(node: fx.Node) -> str:
    """Module path and source line of a node, for a person."""
    scope = next(reversed(node.meta.get("nn_module_stack") or {"": None}), "") or "forward"
    if "line" in node.meta:
        return f"{scope} ({node.meta['line']})"
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    frames = [line for line in lines if line.startswith("File ")]
    outside = [frame for frame in frames if "/torch/" not in frame] or frames
    if not outside:
        return scope
    file, line = outside[-1].removeprefix("File ").split(",")[:2]
    name = file.strip('"').replace("\\", "/").rsplit("/", 1)[-1]
    return f"{scope} ({name}:{line.strip().removeprefix('line ')})"
