"""Runs a traced network on the meta device while every tensor carries the labels of its channels.

Labels live in an int64 tensor of the same shape as the data, expanded from the channel axis with stride 0, so
that data movement (flatten, permute, index) is executed on the labels themselves instead of being re-derived.
Every operation this module does not list freezes the channels it meets, with its name and source line.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules import pooling

from prunas.build.layers import ChannelPad
from prunas.survey.ledger import Ledger, Mismatch, Vector

__all__ = ["CONVOLUTIONS", "NORMS", "LabelPass", "operation", "where"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
    nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
POOLING_MODULES = (
    pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd, nn.Upsample,
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
)  # fmt: skip
POINTWISE = frozenset({
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardswish",
    "hardsigmoid", "hardtanh", "softplus", "dropout", "dropout2d", "abs", "neg", "exp", "log", "sqrt", "rsqrt",
    "square", "clamp", "clip", "float", "half", "double", "to", "clone", "contiguous", "detach",
    "stochastic_depth",
})  # fmt: skip
BINARY = frozenset({
    "add", "iadd", "sub", "isub", "mul", "imul", "div", "itruediv", "truediv", "maximum", "minimum", "pow",
})  # fmt: skip
MOVEMENT = frozenset({
    "flatten", "view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "expand", "getitem", "chunk",
    "split", "unbind", "movedim", "swapaxes", "narrow", "t", "roll", "flip", "unflatten",
})  # fmt: skip
POOLING = frozenset({
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "interpolate",
})  # fmt: skip
REDUCTION = frozenset({"mean", "sum", "amax", "amin"})
SHAPE_TAKING = frozenset({"view", "reshape", "expand", "unflatten", "new_zeros", "zeros"})
"""Operations that may take a channel count as a shape: the survey's replay finds out whether that is sound."""

Labels = Tensor | None
"""Labels of one tensor, or None when all its axes are fixed."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A parameter or buffer read by `forward` itself; its channel axis shows when it meets a labelled tensor."""

    name: str
    value: Tensor


def operation(node: fx.Node) -> str:
    """The bare name of what a node calls: `add` for operator.add, torch.add, `+=` and Tensor.add_."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return name.strip("_")


def where(node: fx.Node) -> str:
    """Module path and source line of a node, for a person."""
    scope = next(reversed(node.meta.get("nn_module_stack") or {"": None}), "")
    frames = [
        line.strip() for line in (node.stack_trace or "").splitlines() if line.strip().startswith("File ")
    ]
    outside = [frame for frame in frames if "/torch/" not in frame] or frames
    if not outside:
        return scope or "forward"
    file, line = outside[-1].removeprefix("File ").split(",")[:2]
    name = file.strip('"').rsplit("/", 1)[-1]
    return f"{scope or 'forward'} ({name}:{line.strip().removeprefix('line ')})"


class LabelPass:
    """One pass over one graph.

    Args:
        net: The network, on the meta device, in the mode the graph was traced in.
        graph: Its graph.
        ledger: Where labels are booked; a checking ledger raises `Mismatch`.
        inputs: One meta tensor per placeholder.

    Attributes:
        called: Layers met, in order, with the number of output positions per image summed over their calls.
        at: Labels at the inputs of each node, by node name, to freeze when a replay fails there.
        values: Value of each node on the meta device.
    """

    def __init__(self, net: nn.Module, graph: fx.Graph, ledger: Ledger, inputs: Sequence[Tensor]) -> None:
        self.net = net
        self.graph = graph
        self.ledger = ledger
        self.inputs = list(inputs)
        self.modules = dict(net.named_modules())
        self.called: dict[str, int] = {}
        self.at: dict[str, Vector] = {}
        self.values: dict[fx.Node, Any] = {}
        self.labels: dict[fx.Node, Any] = {}
        self.sizes: dict[fx.Node, Vector] = {}
        self._place = ""

    def run(self) -> None:
        """Labels every node.

        Raises:
            Mismatch: The ledger found other channels than it expects, or the network does not run.
        """
        waiting = iter(self.inputs)
        for node in self.graph.nodes:
            self._place = where(node) if node.stack_trace or node.op == "call_module" else node.name
            try:
                if node.op == "placeholder":
                    value = next(waiting, node.args[0] if node.args else None)
                    labels = None
                    if isinstance(value, Tensor) and value.ndim > 1:
                        labels = self._spread(self.ledger.fixed(value.shape[1]), value.shape, 1)
                else:
                    value = self._execute(node)
                    labels = self._label(node, value)
            except Mismatch:
                raise
            except Exception as error:  # a built network that does not run at all is the plainest mismatch
                raise Mismatch(node.name) from error
            self.values[node], self.labels[node] = value, labels

    def _execute(self, node: fx.Node) -> Any:
        args = fx.node.map_arg(node.args, lambda n: self.values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        if node.op == "call_function":
            return cast(Callable[..., Any], node.target)(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            value: Any = self.net
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value
        return args[0]

    def _label(self, node: fx.Node, value: Any) -> Any:
        inputs = [vector for n in node.all_input_nodes for vector in self._vectors(self.labels[n])]
        self.at[node.name] = np.concatenate([np.empty(0, np.int64), *inputs])
        if node.op == "get_attr":
            return self._attribute(node, value)
        if node.op == "output":
            self.ledger.freeze(self.at[node.name], "the network's output", self._place)
            return None
        if node.op == "call_module":
            return self._module(node, value)
        name = operation(node)
        first = node.args[0] if node.args else None
        if name in ("getattr", "size", "dim") and isinstance(first, fx.Node):
            return self._size(node, name, first)
        if any(n in self.sizes for n in node.all_input_nodes) and not self._arithmetic(node, name):
            return None
        if not isinstance(value, Tensor | tuple | list) or not inputs:
            return None
        if name in POINTWISE:
            return self.labels[cast(fx.Node, first)]
        if name in BINARY:
            return self._combine(node, value)
        if name in ("cat", "concat", "concatenate"):
            return self._cat(node, value)
        if name in MOVEMENT:
            return self._move(node, cast(fx.Node, first))
        if name in POOLING:
            return self._pool(self.labels[cast(fx.Node, first)], value)
        if name in REDUCTION:
            return self._reduce(node, cast(fx.Node, first), value)
        return self._refuse(node, f"{name} is not understood")

    # Labels and vectors

    def _vectors(self, labels: Any) -> list[Vector]:
        if isinstance(labels, Tensor):
            return [labels.unique().numpy()]
        if isinstance(labels, tuple | list):
            return [vector for item in labels for vector in self._vectors(item)]
        return []

    @staticmethod
    def _spread(vector: Vector, shape: Sequence[int], axis: int) -> Tensor:
        view = [1] * len(shape)
        view[axis] = len(vector)
        return torch.as_tensor(vector).view(view).expand(tuple(shape))

    @staticmethod
    def _axis(labels: Tensor, default: int) -> tuple[int, Vector] | None:
        """The one axis along which labels vary, and the labels along it; None if there are several."""
        core = labels
        varying = []
        for axis in range(labels.ndim):
            first = core.narrow(axis, 0, 1)
            if core.shape[axis] > 1 and core.stride(axis) != 0 and not bool((core == first).all()):
                varying.append(axis)
            else:
                core = first
        if len(varying) > 1:
            return None
        axis = varying[0] if varying else default % labels.ndim
        flat = core.flatten()
        return axis, flat.expand(labels.shape[axis]).numpy() if len(flat) == 1 else flat.numpy()

    def _refuse(self, node: fx.Node, why: str) -> None:
        self.ledger.freeze(self.at[node.name], why, self._place)

    def _channels(self, node: fx.Node, source: fx.Node, axis: int) -> Vector:
        """Labels along the channel axis of a layer's input; fixed ones if it is opaque or they lie elsewhere."""
        value, labels = self.values[source], self.labels[source]
        if isinstance(labels, Tensor):
            found = self._axis(labels, axis)
            if found is not None and found[0] == axis % labels.ndim:
                return found[1]
            self._refuse(node, "its channels do not lie along one axis of its input")
        return self.ledger.fixed(value.shape[axis])

    # Modules

    def _module(self, node: fx.Node, value: Any) -> Labels:
        path = str(node.target)
        module = self.modules[path]
        source = cast(fx.Node, node.args[0]) if node.args else None
        if source is None or not isinstance(value, Tensor):
            return self._refuse(node, f"{type(module).__name__} is not understood")
        if isinstance(module, POINTWISE_MODULES):
            return cast(Labels, self.labels[source])
        if isinstance(module, nn.PReLU):
            if module.num_parameters > 1:
                self._layer(node, path, value, channels := self._channels(node, source, 1))
                self.ledger.occur((path, "writes"), channels, node.name)
            return cast(Labels, self.labels[source])
        if isinstance(module, POOLING_MODULES):
            return self._pool(self.labels[source], value)
        if isinstance(module, nn.Flatten):
            return self._move(node, source, lambda labels: module(labels))
        if isinstance(module, CONVOLUTIONS):
            return self._convolve(node, path, module, source, value)
        if isinstance(module, nn.Linear):
            channels = self._channels(node, source, -1)
            self._layer(node, path, value, channels)
            self.ledger.occur((path, "inner"), channels, node.name)
            out = self.ledger.produce((path, "writes"), module.out_features, 1, node.name)
            return self._spread(out, value.shape, -1)
        if isinstance(module, NORMS):
            channels = self._channels(node, source, 1)
            self._layer(node, path, value, channels)
            self.ledger.occur((path, "writes"), channels, node.name)
            return self._spread(channels, value.shape, 1)
        if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
            channels = self._channels(node, source, -1)
            self._layer(node, path, value, channels)
            self.ledger.occur((path, "writes"), channels, node.name)
            self.ledger.statistical.update(channels.tolist())
            return self._spread(channels, value.shape, -1)
        if isinstance(module, ChannelPad):
            channels = self._channels(node, source, 1)
            self._layer(node, path, value, channels)
            extra = self.ledger.produce((path, "writes"), module.extra, 1, node.name)
            return self._spread(np.concatenate([channels, extra]), value.shape, 1)
        return self._refuse(node, f"{type(module).__name__} is not understood")

    def _layer(self, node: fx.Node, path: str, value: Tensor, channels: Vector) -> None:
        self.ledger.occur((path, "reads"), channels, node.name)
        axis = -1 if isinstance(self.modules[path], nn.Linear | nn.LayerNorm) else 1
        positions = value.numel() // (value.shape[0] * value.shape[axis])
        self.called[path] = self.called.get(path, 0) + positions

    def _convolve(self, node: fx.Node, path: str, conv: nn.Module, source: fx.Node, value: Tensor) -> Tensor:
        assert isinstance(conv, CONVOLUTIONS)
        channels = self._channels(node, source, 1)
        self._layer(node, path, value, channels)
        each, filters = len(channels) // conv.groups, value.shape[1] // conv.groups
        writes = (path, "writes")
        if conv.groups > 1 and each == 1:  # depthwise: a channel in is `filters` channels out
            out = np.repeat(channels, filters)
            self.ledger.occur(writes, out, node.name)
        else:
            # A unit of a grouped convolution is one channel of every convolution group.
            for part in np.split(channels, conv.groups)[1:]:
                self.ledger.tie(channels[:each], part, node.name)
            self.ledger.occur((path, "inner"), channels[:each], node.name)
            out = self.ledger.produce(writes, filters, conv.groups, node.name)
        return self._spread(out, value.shape, 1)

    # Functions

    def _attribute(self, node: fx.Node, value: Any) -> Bare | None:
        name = str(node.target)
        owner = self.modules.get(name.rpartition(".")[0])
        layers = (*CONVOLUTIONS, *NORMS, nn.Linear, nn.LayerNorm)
        if isinstance(owner, layers):
            path = name.rpartition(".")[0]
            self.ledger.forbid(path, f"forward reads {name} besides its module", self._place)
        return Bare(name, value) if isinstance(value, Tensor) else None

    def _size(self, node: fx.Node, name: str, source: fx.Node) -> None:
        """Notes which scalars are channel counts."""
        labels = self.labels[source]
        if not isinstance(labels, Tensor) or name == "dim" or (name == "getattr" and node.args[1] != "shape"):
            return
        found = self._axis(labels, 1)
        channels = labels.unique().numpy() if found is None else found[1]
        if len(node.args) > 1 and name == "size":
            if found is not None and cast(int, node.args[1]) % labels.ndim != found[0]:
                return
            self.sizes[node] = channels
        else:  # the whole shape: an index into it decides
            self.sizes[node] = channels

    def _arithmetic(self, node: fx.Node, name: str) -> bool:
        """Follows channel counts through arithmetic; freezes their channels where they become values.

        Returns:
            Whether the node is still to be labelled as an operation on tensors.
        """
        counted = [n for n in node.all_input_nodes if n in self.sizes]
        channels = np.concatenate([self.sizes[n] for n in counted])
        if name == "getitem" and isinstance(self.values[counted[0]], torch.Size):
            source = cast(fx.Node, counted[0].args[0])
            found = self._axis(self.labels[source], 1)
            index = node.args[1]
            if isinstance(index, int) and found and index % len(self.values[counted[0]]) != found[0]:
                return False
            self.sizes[node] = channels
            return False
        if isinstance(self.values.get(node), int) or all(
            not isinstance(self.values[n], Tensor) for n in node.all_input_nodes
        ):
            if getattr(operator, name, None) is not None and name not in ("eq", "ne"):
                self.sizes[node] = channels
            return False
        if name not in SHAPE_TAKING:
            self.ledger.freeze(channels, "a channel count becomes a value", self._place)
        return True

    def _combine(self, node: fx.Node, value: Tensor) -> Labels:
        """Element-wise arithmetic: channels that meet are tied."""
        operands = [(n, self.labels[n], self.values[n]) for n in node.all_input_nodes]
        found: list[tuple[int, Vector]] = []
        for _, labels, _ in operands:
            if isinstance(labels, Tensor):
                place = self._axis(labels, 1)
                if place is None:
                    return self._refuse(node, "channels lie along several axes")
                axis, vector = place[0] - labels.ndim, place[1]
                if len(vector) == 1 and value.shape[axis] > 1:
                    self.ledger.freeze(vector, "one channel is broadcast over many", self._place)
                else:
                    found.append((axis, vector))
        if not found:
            return None
        axis, channels = found[0]
        for other, vector in found[1:]:
            if other != axis:
                return self._refuse(node, "channels of two axes meet")
            self.ledger.tie(channels, vector, node.name)
        for _, labels, operand in operands:
            tensor = operand.value if isinstance(operand, Bare) else operand
            if not isinstance(tensor, Tensor) or isinstance(labels, Tensor):
                continue
            if tensor.ndim >= -axis and tensor.shape[axis] > 1:
                if isinstance(labels, Bare):
                    self.ledger.occur((labels.name, str(tensor.ndim + axis)), channels, node.name)
                else:
                    self.ledger.freeze(channels, "they meet a tensor of fixed size", self._place)
        return self._spread(channels, value.shape, axis)

    def _cat(self, node: fx.Node, value: Tensor) -> Labels:
        parts = cast(Sequence[fx.Node], node.args[0] if node.args else node.kwargs["tensors"])
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        axis = cast(int, dim) % value.ndim
        pieces = []
        for part in parts:
            labels = self.labels[part]
            if not isinstance(labels, Tensor):
                labels = self._spread(
                    self.ledger.fixed(self.values[part].shape[axis]), self.values[part].shape, axis
                )
            found = self._axis(labels, axis)
            if found is None or found[0] != axis:
                return self._refuse(node, "concatenated along another axis than the channels")
            pieces.append(found[1])
        joined = np.concatenate(pieces)
        if len(pieces) > 1:
            self.ledger.concatenated.update(joined.tolist())
        return self._spread(joined, value.shape, axis)

    def _move(self, node: fx.Node, source: fx.Node, moved: Callable[[Tensor], Any] | None = None) -> Any:
        """Data movement, run on the labels; it may not split or reorder the channels."""
        labels = self.labels[source]
        if not isinstance(labels, Tensor):
            if isinstance(labels, tuple | list) and operation(node) == "getitem":
                return labels[cast(int, node.args[1])]
            return None
        before = self._axis(labels, 1)
        if before is None:
            return self._refuse(node, "channels lie along several axes")
        if moved is None:
            rest = fx.node.map_arg(node.args[1:], lambda n: self.values[n])
            kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
            name = "reshape" if operation(node) == "view" else operation(node)
            if name == "getitem":
                result = labels[rest[0]]
            else:
                method = getattr(labels, name, None)
                result = method(*rest, **kwargs) if method else getattr(torch, name)(labels, *rest, **kwargs)
        else:
            result = moved(labels)
        for leaf in result if isinstance(result, tuple | list) else (result,):
            after = self._axis(leaf, 1) if leaf.ndim else None
            if (
                after is None
                or len(after[1]) % len(before[1])
                or (after[1] != np.repeat(before[1], len(after[1]) // len(before[1]))).any()
            ):
                return self._refuse(node, f"{operation(node)} splits or reorders channels by position")
        return result

    def _pool(self, labels: Any, value: Any) -> Labels:
        if not isinstance(labels, Tensor) or not isinstance(value, Tensor):
            return None
        found = self._axis(labels, 1)
        if found is None or found[0] != 1:
            self.ledger.freeze(labels.unique().numpy(), "pooled across channels", self._place)
            return None
        return self._spread(found[1], value.shape, 1)

    def _reduce(self, node: fx.Node, source: fx.Node, value: Tensor) -> Labels:
        labels = self.labels[source]
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if not isinstance(labels, Tensor):
            return None
        found = self._axis(labels, 1)
        listed = dims if isinstance(dims, Sequence) else [dims]
        if found is None or any(not isinstance(d, int) for d in listed):
            return self._refuse(node, f"{operation(node)} runs over channels")
        reduced = {cast(int, d) % labels.ndim for d in listed}
        axis, channels = found
        if axis in reduced:
            return self._refuse(node, f"{operation(node)} runs over channels")
        if value.ndim < labels.ndim:
            axis -= sum(d < axis for d in reduced)
        return self._spread(channels, value.shape, axis)
