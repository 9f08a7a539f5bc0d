"""Runs a traced network on the meta device while every tensor carries the labels of its channels.

A label is an integer for one channel; along one axis of every tensor lies a vector of them. Layers begin new
labels, sums tie them, and data movement (flatten, permute, index) is executed on a tensor of labels instead of
being derived again. Every operation this module does not list freezes the channels it meets, with its name and
source line.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules import pooling
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.flop_counter import FlopCounterMode

from prunas.build.layers import ChannelPad
from prunas.survey.ledger import NOTHING, Ledger, Mismatch, Vector

__all__ = ["CONVOLUTIONS", "NORMS", "LabelPass", "commutes", "operation", "where"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (_BatchNorm, _InstanceNorm)
"""Norms that treat every channel by itself."""

POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Identity, _DropoutNd,
)  # fmt: skip
POOLING_MODULES = (
    pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd, nn.Upsample,
    nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
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
CONCATENATION = frozenset({"cat", "concat", "concatenate"})
CREATION = frozenset({"new_zeros", "new_ones", "zeros", "ones"})
RESHAPING = frozenset({"view", "reshape", "expand", "unflatten"})


@dataclass(frozen=True, slots=True)
class Channels:
    """The labels of a tensor: `labels` along `axis` (from 0); the other axes are the same everywhere."""

    axis: int
    labels: Vector


@dataclass(frozen=True, slots=True)
class Bare:
    """A parameter or buffer read by `forward` itself; its channel axis shows when it meets a labelled tensor."""

    name: str
    value: Tensor


Labels = Channels | Bare | list["Channels | None"] | None
"""What a node carries: None where no channel varies, a list for an operation with several results."""


class Refused(Exception):
    """An operation whose channels cannot be followed; the message says why."""


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


def where(node: fx.Node) -> str:
    """Module path and source line of a node, for a person."""
    scope = next(reversed(node.meta.get("nn_module_stack") or {"": None}), "") or "forward"
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    frames = [line for line in lines if line.startswith("File ")]
    outside = [frame for frame in frames if "/torch/" not in frame] or frames
    if not outside:
        return scope
    file, line = outside[-1].removeprefix("File ").split(",")[:2]
    name = file.strip('"').replace("\\", "/").rsplit("/", 1)[-1]
    return f"{scope} ({name}:{line.strip().removeprefix('line ')})"


class LabelPass:
    """One pass over one graph.

    Args:
        net: The network, on the meta device, in the mode the graph was traced in.
        graph: Its graph.
        ledger: Where labels are booked; a checking ledger raises `Mismatch`.
        image: A batch of inputs on the meta device.

    Attributes:
        called: Layers met, in order, with the number of output positions per image summed over their calls.
        macs: Multiply-accumulates per image of the operations that are not understood, by node.
        values: Value of each node on the meta device.
        labels: Labels of each node.
    """

    def __init__(self, net: nn.Module, graph: fx.Graph, ledger: Ledger, image: Tensor) -> None:
        self.net = net
        self.graph = graph
        self.ledger = ledger
        self.image = image
        self.modules = dict(net.named_modules())
        self.called: dict[str, int] = {}
        self.macs: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}
        self.labels: dict[fx.Node, Labels] = {}
        # Which scalars are channel counts; for a whole shape, one entry per axis.
        self._counts: dict[fx.Node, Vector | tuple[Vector | None, ...]] = {}

    def run(self) -> None:
        """Labels every node.

        Raises:
            Mismatch: The ledger found other channels than it expects, or the network does not run.
        """
        waiting = [self.image]
        for node in self.graph.nodes:
            if node.op == "placeholder":
                value = waiting.pop() if waiting else next(iter(node.args), None)
                self.values[node], self.labels[node] = value, None
                if isinstance(value, Tensor) and value.ndim > 1:
                    self.labels[node] = Channels(1, self.ledger.fixed(value.shape[1]))
                continue
            try:
                value = self.values[node] = self._execute(node)
            except Exception as error:  # a built network that does not run at all is the plainest mismatch
                raise Mismatch(node.name) from error
            try:
                self.labels[node] = self._label(node, value)
            except Refused as why:
                self._freeze(node, str(why))
                self.labels[node] = None

    def freeze(self, name: str, why: str) -> None:
        """Holds the channels that enter the node called `name`, if there is one."""
        for node in self.graph.nodes:
            if node.name == name:
                self._freeze(node, why)

    def _freeze(self, node: fx.Node, why: str) -> None:
        for entering in node.all_input_nodes:
            for labels in _vectors(self.labels[entering]):
                self.ledger.freeze(labels, why, where(node))

    def _execute(self, node: fx.Node) -> Any:
        args: Any = fx.node.map_arg(node.args, lambda n: self.values[n])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            if isinstance(
                module, _BatchNorm
            ):  # slow on the meta device, and only these two checks matter there
                module._check_input_dim(args[0])  # type: ignore[no-untyped-call]
                if args[0].shape[1] != module.num_features:
                    raise ValueError(f"a norm of {module.num_features} channels was given {args[0].shape[1]}")
                return args[0]
            return module(*args, **kwargs)
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

    def _label(self, node: fx.Node, value: Any) -> Labels:
        if node.op == "get_attr":
            return self._attribute(node, value)
        if node.op == "output":
            raise Refused("the network's output")
        name = operation(node)
        if name in ("getattr", "size"):
            self._measure(node, name)
            return None
        if any(n in self._counts for n in node.all_input_nodes) and not self._count(node, name, value):
            return None
        if node.op == "call_module":
            return self._module(node, value)
        if not _tensors(value):
            return None
        handler = _HANDLERS.get(name)
        if handler is None:
            raise self._not_understood(node, name)
        if not any(_vectors(self.labels[n]) for n in node.all_input_nodes):
            return None
        return handler(self, node, value)

    def _not_understood(self, node: fx.Node, name: str) -> Refused:
        """The refusal of a node, whose multiply-accumulates are those of the widths it will always have."""
        with FlopCounterMode(display=False) as counter:  # attention is unfused on the meta device
            self._execute(node)
        if macs := counter.get_total_flops() // 2 // len(self.image):
            self.macs[node] = macs
        return Refused(f"{name} is not understood")

    def _source(self, node: fx.Node) -> fx.Node:
        """The tensor that an operation works on."""
        first = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(first, fx.Node):
            raise Refused(f"{operation(node)} is called in an unusual way")
        return first

    def _reading(self, node: fx.Node, axis: int) -> Vector:
        """Labels along the channel axis of a layer's input; fixed ones where they are opaque or lie elsewhere."""
        source = self._source(node)
        labels, value = self.labels[source], self.values[source]
        if isinstance(labels, Channels):
            if labels.axis == axis % value.ndim:
                return labels.labels
            self._freeze(node, "its channels do not lie along the axis that the layer reads")
        return self.ledger.fixed(value.shape[axis])

    # Modules

    def _module(self, node: fx.Node, value: Any) -> Labels:
        path = str(node.target)
        module = self.modules[path]
        if isinstance(value, Tensor):
            if isinstance(module, POINTWISE_MODULES):
                return self.labels[self._source(node)]
            if isinstance(module, POOLING_MODULES):
                return self._pool(node, value)
            if isinstance(module, nn.Flatten):
                return self._moved(node, module)
            if isinstance(module, CONVOLUTIONS):
                return self._convolve(node, path, module, value)
            if isinstance(module, nn.Linear):
                channels = self._layer(node, path, value, -1)
                self.ledger.occur((path, "inner"), channels, node.name)
                out = self.ledger.produce((path, "writes"), module.out_features, 1, node.name)
                return Channels(value.ndim - 1, out)
            if isinstance(module, NORMS) or (isinstance(module, nn.PReLU) and module.num_parameters > 1):
                return self._norm(node, path, value, 1)
            if isinstance(module, nn.PReLU):
                return self.labels[self._source(node)]
            if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
                normed = self._norm(node, path, value, -1)
                self.ledger.mix(normed.labels)
                return normed
            if isinstance(module, nn.GroupNorm):
                normed = self._norm(node, path, value, 1)
                self._tile(normed.labels, module.num_groups, node)
                self.ledger.mix(normed.labels)
                return normed
            if isinstance(module, ChannelPad):
                channels = self._layer(node, path, value, 1)
                extra = self.ledger.produce((path, "writes"), module.extra, 1, node.name)
                return Channels(1, np.concatenate([channels, extra]))
        raise self._not_understood(node, type(module).__name__)

    def _layer(self, node: fx.Node, path: str, value: Tensor, axis: int) -> Vector:
        """Books the call of a layer; the labels it reads."""
        channels = self._reading(node, axis)
        self.ledger.occur((path, "reads"), channels, node.name)
        positions = value.numel() // (len(self.image) * value.shape[axis])
        self.called[path] = self.called.get(path, 0) + positions
        return channels

    def _norm(self, node: fx.Node, path: str, value: Tensor, axis: int) -> Channels:
        channels = self._layer(node, path, value, axis)
        self.ledger.occur((path, "writes"), channels, node.name)
        return Channels(axis % value.ndim, channels)

    def _tile(self, channels: Vector, groups: int, node: fx.Node) -> Vector:
        """Ties equal positions of equal parts: a unit is one channel of every part."""
        first, *others = np.split(channels, groups)
        for part in others:
            self.ledger.tie(first, part, node.name)
        return first

    def _convolve(self, node: fx.Node, path: str, conv: nn.Module, value: Tensor) -> Channels:
        assert isinstance(conv, CONVOLUTIONS)
        channels = self._layer(node, path, value, 1)
        writes, filters = (path, "writes"), value.shape[1] // conv.groups
        if self.ledger.is_depthwise(path, conv):  # a channel in is `filters` channels out
            out = np.repeat(channels, filters)
            self.ledger.occur(writes, out, node.name)
        else:
            self.ledger.occur((path, "inner"), self._tile(channels, conv.groups, node), node.name)
            out = self.ledger.produce(writes, filters, conv.groups, node.name)
        return Channels(1, out)

    # Functions

    def _attribute(self, node: fx.Node, value: Any) -> Bare | None:
        path, _, name = str(node.target).rpartition(".")
        if isinstance(self.modules.get(path), (*CONVOLUTIONS, *NORMS, nn.Linear, nn.LayerNorm, nn.GroupNorm)):
            self.ledger.forbid(path, f"forward reads its {name} besides calling it", where(node))
        return Bare(str(node.target), value) if isinstance(value, Tensor) else None

    def _measure(self, node: fx.Node, name: str) -> None:
        """Notes which scalars are channel counts."""
        source = self._source(node)
        labels, value = self.labels[source], self.values[source]
        if not isinstance(labels, Channels) or (name == "getattr" and node.args[1] != "shape"):
            return
        shape = tuple(labels.labels if axis == labels.axis else None for axis in range(value.ndim))
        dim = node.args[1] if name == "size" and len(node.args) > 1 else node.kwargs.get("dim")
        entry = shape if dim is None else shape[cast(int, dim)]
        if entry is not None:
            self._counts[node] = entry

    def _count(self, node: fx.Node, name: str, value: Any) -> bool:
        """Follows channel counts through arithmetic; freezes their channels where they become values.

        Returns:
            Whether the node is still to be labelled as an operation on tensors.
        """
        shape = self._counts.get(node.all_input_nodes[0])
        if name == "getitem" and isinstance(shape, tuple) and isinstance(node.args[1], int | slice):
            entry: Vector | tuple[Vector | None, ...] | None = shape[node.args[1]]
            if isinstance(entry, tuple) or entry is not None:
                self._counts[node] = entry
            return False
        entries = [self._counts[n] for n in node.all_input_nodes if n in self._counts]
        parts = [part for entry in entries for part in (entry if isinstance(entry, tuple) else (entry,))]
        channels = np.concatenate([NOTHING, *(part for part in parts if part is not None)])
        if not _tensors(value):
            self._counts[node] = channels
            return False
        source = self.labels[self._source(node)] if name in RESHAPING else None
        if isinstance(source, Channels) and len(source.labels) == len(channels):
            self.ledger.tie(source.labels, channels, node.name)  # one stream takes another one's shape
        else:
            self.ledger.freeze(channels, "a channel count becomes a value", where(node))
        return True

    def _pointwise(self, node: fx.Node, value: Tensor) -> Labels:
        if len(node.all_input_nodes) > 1:
            return self._combine(node, value)
        return self.labels[self._source(node)]

    def _combine(self, node: fx.Node, value: Tensor) -> Labels:
        """Element-wise arithmetic: channels that meet are tied."""
        operands = [(self.labels[n], self.values[n]) for n in node.all_input_nodes]
        labelled = []
        for labels, tensor in operands:
            if isinstance(labels, Channels):
                if len(labels.labels) == value.shape[labels.axis - tensor.ndim]:
                    labelled.append((labels, tensor))
                else:
                    self.ledger.freeze(labels.labels, "one channel is broadcast over many", where(node))
        axes = {labels.axis - tensor.ndim for labels, tensor in labelled}  # broadcasting aligns last axes
        if not axes:
            return None
        if len(axes) > 1:
            raise Refused("channels of two axes meet")
        (axis,) = axes
        channels = labelled[0][0].labels
        for labels, _ in labelled[1:]:
            self.ledger.tie(channels, labels.labels, node.name)
        for carried, tensor in operands:
            if isinstance(carried, Channels) or not isinstance(tensor, Tensor):
                continue
            if tensor.ndim >= -axis and tensor.shape[axis] > 1:
                if not isinstance(carried, Bare):
                    raise Refused("they meet a tensor of fixed size")
                self.ledger.occur((carried.name, str(tensor.ndim + axis)), channels, node.name)
        return Channels(value.ndim + axis, channels)

    def _concatenate(self, node: fx.Node, value: Tensor) -> Channels:
        parts = node.args[0] if node.args else node.kwargs.get("tensors")
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        if not isinstance(parts, list | tuple):
            raise Refused("what it concatenates is not a plain list")
        axis = cast(int, dim) % value.ndim
        carried = [(self.labels[part], self.values[part]) for part in cast(Sequence[fx.Node], parts)]
        labelled = [labels for labels, _ in carried if isinstance(labels, Channels)]
        if all(labels.axis == axis for labels in labelled):
            pieces = [
                labels.labels
                if isinstance(labels, Channels)
                else self.ledger.fixed(tensor.shape[axis], "they meet channels that never vary", where(node))
                for labels, tensor in carried
            ]
            joined = np.concatenate(pieces)
            if len(pieces) > 1:
                self.ledger.concatenate(joined)
            return Channels(axis, joined)
        if len(labelled) < len(carried) or any(labels.axis != labelled[0].axis for labels in labelled):
            raise Refused("concatenated along another axis than the channels")
        for labels in labelled[1:]:
            self.ledger.tie(labelled[0].labels, labels.labels, node.name)
        return labelled[0]

    def _move(self, node: fx.Node, value: Any) -> Labels:
        source = self._source(node)
        name = "reshape" if operation(node) == "view" else operation(node)
        labels = self.labels[source]
        if isinstance(labels, list):
            return labels[cast(int, node.args[1])]
        rest: Any = fx.node.map_arg(node.args[1:], lambda n: self.values[n])
        named: Any = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        options = {key: option for key, option in named.items() if key != "input"}
        if name == "getitem":
            return self._moved(node, lambda tensor: tensor[rest[0]])
        return self._moved(node, lambda tensor: getattr(tensor, name)(*rest, **options))

    def _moved(self, node: fx.Node, move: Callable[[Tensor], Any]) -> Labels:
        """Data movement, run on the labels; it may not split or reorder the channels."""
        source = self._source(node)
        labels = self.labels[source]
        if not isinstance(labels, Channels):
            return None
        shape = self.values[source].shape
        spread = [1] * len(shape)
        spread[labels.axis] = len(labels.labels)
        try:
            result = move(torch.as_tensor(labels.labels).view(spread).expand(shape))
        except (RuntimeError, TypeError, IndexError):  # such as an index that is itself computed
            raise Refused(f"{operation(node)} moves channels in a way that cannot be followed") from None
        several = isinstance(result, list | tuple)
        leaves = [_along(leaf, labels) for leaf in (result if several else (result,))]
        if None in leaves:
            raise Refused(f"{operation(node)} splits or reorders channels by position")
        return list(leaves) if several else leaves[0]

    def _pool(self, node: fx.Node, value: Any) -> Labels:
        labels = self.labels[self._source(node)]
        if isinstance(labels, Channels) and (labels.axis != 1 or not isinstance(value, Tensor)):
            raise Refused("pooled across channels")
        return labels

    def _pad(self, node: fx.Node, value: Tensor) -> Labels:
        labels = self.labels[self._source(node)]
        ends = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
        if not isinstance(ends, list | tuple) or not isinstance(labels, Channels):
            raise Refused("a pad of computed extent")
        if value.ndim - labels.axis <= len(ends) // 2:
            raise Refused("a constant pad joins the channels")
        return labels

    def _reduce(self, node: fx.Node, value: Tensor) -> Labels:
        source = self._source(node)
        labels = self.labels[source]
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        listed = dims if isinstance(dims, list | tuple) else [dims]
        if not isinstance(labels, Channels) or not all(isinstance(dim, int) for dim in listed):
            raise Refused(f"{operation(node)} runs over channels")
        ndim = self.values[source].ndim
        reduced = {cast(int, dim) % ndim for dim in listed}
        if labels.axis in reduced:
            raise Refused(f"{operation(node)} runs over channels")
        before = sum(dim < labels.axis for dim in reduced) if value.ndim < ndim else 0
        return Channels(labels.axis - before, labels.labels)

    def _create(self, node: fx.Node, value: Tensor) -> None:
        """A new tensor has no channels of its own; where it meets some, they are held."""


_HANDLERS: dict[str, Callable[[LabelPass, fx.Node, Any], Labels]] = {
    **dict.fromkeys(POINTWISE, LabelPass._pointwise),
    **dict.fromkeys(BINARY, LabelPass._combine),
    **dict.fromkeys(CONCATENATION, LabelPass._concatenate),
    **dict.fromkeys(MOVEMENT, LabelPass._move),
    **dict.fromkeys(POOLING, LabelPass._pool),
    **dict.fromkeys(REDUCTION, LabelPass._reduce),
    **dict.fromkeys(CREATION, LabelPass._create),
    "pad": LabelPass._pad,
}


def _tensors(value: Any) -> bool:
    return any(isinstance(item, Tensor) for item in (value if isinstance(value, list | tuple) else (value,)))


def _vectors(labels: Labels) -> list[Vector]:
    items: Iterable[Labels] = labels if isinstance(labels, list) else (labels,)
    return [item.labels for item in items if isinstance(item, Channels)]


def _along(moved: Tensor, before: Channels) -> Channels | None:
    """Finds the labels in a tensor of them; None unless each is where it was, or as many times in a row."""
    varying = [
        axis
        for axis in range(moved.ndim)
        if moved.stride(axis) and moved.shape[axis] > 1 and bool((moved != moved.narrow(axis, 0, 1)).any())
    ]
    if len(varying) > 1 or not moved.ndim:
        return None
    axis = varying[0] if varying else min(before.axis, moved.ndim - 1)
    index: list[int | slice] = [0] * moved.ndim
    index[axis] = slice(None)
    after = moved[tuple(index)].numpy()
    times, rest = divmod(len(after), len(before.labels))
    if rest or (after != np.repeat(before.labels, times)).any():
        return None
    return Channels(axis, after)
