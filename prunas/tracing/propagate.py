"""Runs a traced network on the meta device while every tensor carries the labels of its channels.

A label is an integer for one channel; along one axis of every tensor lies a vector of them. Layers begin new
labels, sums tie them, and data movement (flatten, permute, index) is executed on a tensor of labels instead of
being derived again. Where it cuts the channels into equal parts whose extent follows their number (chunk, channel
shuffle), the parts are paired: they keep their labels and vary together. Every operation this module does not
list freezes the channels it meets, with its name and source line.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from prunas.graphs.layers import SELECTING, ChannelPad
from prunas.surgery.construct import CONSTRUCTORS
from prunas.tracing.labels import Bare, Channels, Labels, Refused, Spread, altered
from prunas.tracing.ledger import NOTHING, Ledger, Mismatch, Vector
from prunas.tracing.operations import (
    ATTENTION,
    BINARY,
    CONCATENATION,
    CONVOLUTIONS,
    CREATION,
    ELEMENTWISE_WEIGHTS,
    FUNCTIONAL,
    MEASURED,
    NORMS,
    PARTS,
    POINTWISE,
    POINTWISE_MODULES,
    POOLING,
    POOLING_MODULES,
    REDUCTION,
    RESHAPING,
    SHAPE_KEEPING,
    SHAPELESS,
    TRANSPOSITIONS,
    VIEWS,
    functional,
    operation,
    where,
)
from prunas.tracing.trace import to_meta
from prunas.tracing.untouched import running

__all__ = ["LabelPass", "known", "label"]


T = TypeVar("T")


class LabelPass:
    """One pass over one graph.

    Args:
        net: The network, on the meta device, in the mode the graph was traced in.
        graph: Its graph.
        ledger: Where labels are booked; a checking ledger raises `Mismatch`.
        image: A batch of inputs on the meta device.
        memo: What functions that are not understood return, and their multiply-accumulates, by what they are
            given; the passes of one survey that count nothing share it.
        selecting: Positions of the inputs that pass, by the module path of the layer that selects them.
        counting: Whether multiply-accumulates are counted, which takes time.

    Attributes:
        called: Layers met, in order, with the number of output positions in the batch summed over their calls.
        calls: The nodes that call each layer.
        macs: Multiply-accumulates in the batch of the operations that are not understood, by node; if counted.
        values: Value of each node on the meta device.
        labels: Labels of each node.
    """

    def __init__(
        self,
        net: nn.Module,
        graph: fx.Graph,
        ledger: Ledger,
        image: Tensor,
        memo: dict[str, tuple[Any, int]] | None = None,
        selecting: Mapping[str, Sequence[int]] = MappingProxyType({}),
        counting: bool = False,
    ) -> None:
        self.net = net
        self.graph = graph
        self.ledger = ledger
        self.image = image
        self.modules = dict(net.named_modules())
        self.called: dict[str, int] = {}
        self.calls: dict[str, list[fx.Node]] = {}
        self.macs: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}
        self.labels: dict[fx.Node, Labels] = {}
        self.memo = {} if memo is None else memo
        self.selecting = selecting
        self.counting = counting
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
                if not waiting and not node.args:
                    why = TypeError(f"forward also takes {node.target!r}, and one input is all that is given")
                    raise Mismatch(node.name) from why
                value = waiting.pop() if waiting else node.args[0]
                self.values[node], self.labels[node] = value, None
                if isinstance(value, Tensor) and value.ndim > 1:
                    self.labels[node] = Channels(1, self.ledger.fixed(value.shape[1]))
                continue
            try:
                value = self.values[node] = self._execute(node)
            except Exception as error:  # a built network that does not run at all is the plainest mismatch
                raise Mismatch(node.name) from error
            try:
                labels = self.labels[node] = self._label(node, value)
                if isinstance(labels, Channels) and value.shape[labels.axis] != len(labels.labels):
                    raise Refused(f"{operation(node)} is called in an unusual way")
            except Refused as why:
                self._freeze(node, str(why))
                self.labels[node] = None
            self._read_bare(node)

    def freeze(self, name: str, why: str) -> None:
        """Holds the channels that enter the node called `name`, if there is one."""
        for node in self.graph.nodes:
            if node.name == name:
                self._freeze(node, why)

    def _freeze(self, node: fx.Node, why: str) -> None:
        for entering in node.all_input_nodes:
            for labels in (*_vectors(self.labels[entering]), self._counted(entering)):
                self.ledger.freeze(labels, why, where(node))

    def _execute(self, node: fx.Node) -> Any:
        """The value of a node; on the meta device only its shape matters, and torch's own way there is slow."""
        args: Any = _changeable(fx.node.map_arg(node.args, lambda n: self.values[n]))
        kwargs: Any = _changeable(fx.node.map_arg(node.kwargs, lambda n: self.values[n]))
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            plain = len(args) == 1 and isinstance(args[0], Tensor) and not kwargs
            plain = plain and not altered(module) and not parametrize.is_parametrized(module)
            result = _result_of(module, args[0]) if plain else None
            return module(*args, **kwargs) if result is None else result
        if node.op == "call_function":
            name = operation(node)
            if name in SHAPE_KEEPING and len(node.all_input_nodes) == 1 and isinstance(args[0], Tensor):
                return args[0]
            if name in BINARY and len(args) == 2 and not kwargs and _alike(*args):
                return args[0]
            target = cast(Callable[..., Any], node.target)
            if (path := functional(node, self.modules)) and args and isinstance(args[0], Tensor):
                plain = not parametrize.is_parametrized(self.modules[path])
                if plain and (result := _result_of(self.modules[path], args[0])) is not None:
                    return result
            if not node.all_input_nodes or not _tensors([*args, *kwargs.values()]):
                with torch.device("meta"):  # what it makes has no values either
                    return target(*args, **kwargs)
            if name in _HANDLERS or name in FUNCTIONAL or name == "getattr" or not _tensors(args):
                return target(*args, **kwargs)
            key = f"{id(target)} {fx.node.map_aggregate((args, kwargs), _described)}"
            if key not in self.memo:
                self.memo[key] = self._counted_macs(lambda: target(*args, **kwargs))
            result, macs = self.memo[key]
            if macs:
                self.macs[node] = macs
            return result
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            value: Any = self.net
            for part in str(node.target).split("."):
                value = getattr(value, part)
            # torch's counter of operations looks for the gradient of what a module is given.
            return value.detach() if isinstance(value, nn.Parameter) else value
        return args[0]

    def _label(self, node: fx.Node, value: Any) -> Labels:
        if node.op == "get_attr":
            return self._attribute(node, value)
        if node.op == "output":
            raise Refused("the network's output")
        name = operation(node)
        if name == "size" or (name == "getattr" and not isinstance(value, Tensor)):
            self._measure(node, name)
            return None
        if name == "getattr" and node.args[1] in ("T", "mT"):
            return self._move(node, value)
        if any(n in self._counts for n in node.all_input_nodes) and not self._count(node, name, value):
            return None
        if node.op == "call_module":
            return self._call(node, str(node.target), value)
        if not _tensors(value):
            if name not in SHAPELESS and (channels := self._entering(node)).size:
                self._counts[node] = channels  # such as numel
            return None
        if path := functional(node, self.modules):
            return self._call(node, path, value)
        handler = _HANDLERS.get(name)
        if handler is None:
            raise self._not_understood(node, name)
        if not self._entering(node).size:
            return None
        return handler(self, node, value)

    def _read_bare(self, node: fx.Node) -> None:
        """Holds parameters and buffers that `forward` reads in another way than channel by channel.

        Their mean, say, is another one where there are fewer of them.
        """
        for entering in node.all_input_nodes:
            labels, name = self.labels[entering], operation(node)
            if isinstance(labels, Bare) and not (name in BINARY and isinstance(self.labels[node], Channels)):
                self.ledger.keep_whole(labels.name, f"{name} reads {labels.name} as a whole", where(node))

    def _entering(self, node: fx.Node) -> Vector:
        """All labels that a node is given."""
        return np.concatenate(
            [NOTHING, *(vector for n in node.all_input_nodes for vector in _vectors(self.labels[n]))]
        )

    def _not_understood(self, node: fx.Node, name: str) -> Refused:
        """The refusal of a node that calls `name`."""
        heads = ": heads stay, their number is an attribute of the module, their size sets the scale"
        return self._refused(node, f"{name} is not understood" + heads * (name in ATTENTION))

    def _refused(self, node: fx.Node, why: str) -> Refused:
        """The refusal of a node, whose multiply-accumulates are those of the widths it will always have."""
        if self.counting and node not in self.macs:
            _, macs = self._counted_macs(lambda: self._execute(node))
            if macs:
                self.macs[node] = macs
        return Refused(why)

    def _counted_macs(self, call: Callable[[], T]) -> tuple[T, int]:
        """What a call returns, and its multiply-accumulates in the batch as torch counts them, if wanted."""
        if not self.counting:
            return call(), 0
        with FlopCounterMode(display=False) as counter:  # attention is unfused on the meta device
            result = call()
        return result, counter.get_total_flops() // 2

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
        if isinstance(labels, Channels) and labels.axis == axis % value.ndim:
            return labels.labels
        if _vectors(labels):
            self._freeze(node, "its channels do not lie along the axis that the layer reads")
        return self.ledger.fixed(value.shape[axis])

    # Layers

    def _call(self, node: fx.Node, path: str, value: Any) -> Labels:
        """A module's call, or a function that does its work."""
        module = self.modules[path]
        if (why := altered(module)) and not isinstance(module, tuple(CONSTRUCTORS)):  # those are forbidden
            raise self._refused(node, why)
        if isinstance(value, Tensor):
            if isinstance(module, POINTWISE_MODULES):
                return self.labels[self._source(node)]
            if isinstance(module, POOLING_MODULES):
                return self._pool(node, value)
            if isinstance(module, nn.Flatten):
                return self._moved(node, "flatten", module)
            if isinstance(module, nn.Unflatten):
                return self._moved(node, "unflatten", module, (module.dim, module.unflattened_size))
            if isinstance(module, nn.ChannelShuffle):
                return self._shuffled(node, module.groups)
            if isinstance(module, CONVOLUTIONS):
                return self._convolve(node, path, module, value)
            if isinstance(module, nn.Linear):
                channels = self._passing(path, self._layer(node, path, value, -1))
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
        self.called[path] = self.called.get(path, 0) + value.numel() // value.shape[axis]
        self.calls.setdefault(path, []).append(node)
        module = self.modules[path]
        derived = altered(module) or parametrize.is_parametrized(module)
        if self.counting and derived and node.op == "call_module":
            # What a hook multiplies, or what makes the weight.
            self.macs[node] = self._counted_macs(lambda: self._execute(node))[1] - value.numel() * _summands(
                module
            )
        return channels

    def _passing(self, path: str, channels: Vector) -> Vector:
        """Those of the channels that a layer reads which pass its selection, if it has one."""
        positions = self.selecting.get(path)
        return channels if positions is None else channels[list(positions)]

    def _norm(self, node: fx.Node, path: str, value: Tensor, axis: int) -> Channels:
        if isinstance(self.modules[path], _InstanceNorm) and not _batched(
            type(self.modules[path]).__name__, value
        ):
            raise Refused("its norm takes the channels for positions")
        channels = self._passing(path, self._layer(node, path, value, axis))
        self.ledger.occur((path, "writes"), channels, node.name)
        return Channels(axis % value.ndim, channels)

    def _tile(self, channels: Vector, groups: int, node: fx.Node) -> Vector:
        """Pairs equal positions of equal parts: a unit is one channel of every part."""
        first, *others = np.split(channels, groups)
        for part in others:
            self.ledger.pair(first, part, node.name)
        return first

    def _convolve(self, node: fx.Node, path: str, conv: nn.Module, value: Tensor) -> Channels:
        assert isinstance(conv, CONVOLUTIONS)
        axis = value.ndim - 1 - len(conv.kernel_size)  # 0 where there is no batch
        channels = self._passing(path, self._layer(node, path, value, axis - value.ndim))
        writes, filters = (path, "writes"), conv.out_channels // conv.groups
        if self.ledger.is_depthwise(path, conv):  # a channel in is `filters` channels out
            out = np.repeat(channels, filters)
            self.ledger.occur(writes, out, node.name)
        else:
            self.ledger.occur((path, "inner"), self._tile(channels, conv.groups, node), node.name)
            out = self.ledger.produce(writes, filters, conv.groups, node.name)
        return Channels(axis, out)

    # Functions

    def _attribute(self, node: fx.Node, value: Any) -> Bare | None:
        path, _, name = str(node.target).rpartition(".")
        layers = (*CONVOLUTIONS, *NORMS, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
        if isinstance(self.modules.get(path), layers) and not all(
            functional(user, self.modules) == path for user in node.users
        ):
            self.ledger.forbid(path, f"forward reads its {name} besides calling it", where(node))
        owner = self.modules.get(path, self.net)
        if name not in owner._parameters and (
            name not in owner._buffers or name in owner._non_persistent_buffers_set
        ):
            self.ledger.keep_whole(str(node.target), f"{node.target} is not in the state dict", where(node))
        return Bare(str(node.target), value) if isinstance(value, Tensor) else None

    def _measure(self, node: fx.Node, name: str) -> None:
        """Notes which scalars are channel counts."""
        source = self._source(node)
        vectors, value = _vectors(self.labels[source]), self.values[source]
        if not vectors or (name == "getattr" and node.args[1] in SHAPELESS):
            return
        if name == "getattr" and node.args[1] != "shape":  # such as nbytes
            self._counts[node] = vectors[0]
            return
        axes = _axes(self.labels[source])
        shape = tuple(vectors[0] if axis in axes else None for axis in range(value.ndim))
        dim = node.args[1] if name == "size" and len(node.args) > 1 else node.kwargs.get("dim")
        entry = shape if dim is None else shape[cast(int, dim)]
        if entry is not None:
            self._counts[node] = entry

    def _counted(self, node: fx.Node) -> Vector:
        """The channels that a scalar, or a shape, counts."""
        entry = self._counts.get(node, NOTHING)
        parts = entry if isinstance(entry, tuple) else (entry,)
        return np.concatenate([NOTHING, *(part for part in parts if part is not None)])

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
        channels = np.concatenate([self._counted(n) for n in node.all_input_nodes])
        if not _tensors(value):
            self._counts[node] = channels
            return False
        source = self.labels[self._source(node)] if name in MEASURED else None
        own = _vectors(source)
        if isinstance(source, Channels | Spread) and np.isin(channels, own[0]).all():
            return True
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
        if any(isinstance(labels, Spread | list) for labels, _ in operands):
            raise Refused("channels of two axes meet")
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
        carried: list[tuple[Labels, Any]]
        if isinstance(parts, fx.Node):
            several = self.labels[parts]
            carried = list(zip(several, self.values[parts], strict=True)) if isinstance(several, list) else []
        else:
            carried = [(self.labels[part], self.values[part]) for part in cast(Sequence[fx.Node], parts)]
        if not carried or any(isinstance(labels, Spread) for labels, _ in carried):
            raise Refused("what it concatenates cannot be followed")
        axis = cast(int, dim) % value.ndim
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
        rest: Any = fx.node.map_arg(node.args[1:], lambda n: self.values[n])
        named: Any = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        if isinstance(labels, list):
            if name != "getitem" or not isinstance(rest[0], int | slice):
                raise Refused(f"{name} of several tensors")
            return labels[rest[0]]
        options = {key: option for key, option in named.items() if key != "input"}
        if name == "channel_shuffle":
            return self._shuffled(node, *rest, **options)
        if name == "getattr":
            return self._moved(node, "transpose", lambda tensor: getattr(tensor, rest[0]))
        if name == "getitem":
            return self._moved(node, name, lambda tensor: tensor[rest[0]])
        return self._moved(node, name, lambda tensor: getattr(tensor, name)(*rest, **options))

    def _moved(self, node: fx.Node, name: str, move: Callable[[Tensor], Any], sizes: Any = None) -> Labels:
        """Data movement called `name`, run on the positions of the channels."""
        source = self._source(node)
        labels = self.labels[source]
        shape = list(self.values[source].shape)
        if not isinstance(labels, Channels | Spread):
            return None
        (vector,) = _vectors(labels)
        axes = _axes(labels)
        if name in TRANSPOSITIONS and len(vector) == 1:
            vector, shape[axes[0]] = np.repeat(vector, 2), 2  # a single channel does not show where it goes
        spread = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
        try:
            result = move(torch.arange(len(vector)).view(spread).expand(shape))
        except (RuntimeError, TypeError, IndexError):  # such as an index that is itself computed
            raise Refused(f"{name} moves channels in a way that cannot be followed") from None
        leaves = list(result) if isinstance(result, list | tuple) else [result]
        landed = [_landed(leaf, vector, axes[0]) for leaf in leaves]
        if len(vector) > sum(map(len, _vectors(labels))):
            landed = [Channels(part.axis, part.labels[:1]) for part in landed if isinstance(part, Channels)]
        if name in PARTS:
            self._take(node, name, labels, landed)
        elif isinstance(landed[0], Spread) and name in RESHAPING:
            self._cut(node, name, landed[0], sizes)
        return landed[0] if leaves[0] is result else [*landed]

    def _take(self, node: fx.Node, name: str, before: Labels, parts: Sequence[Channels | Spread]) -> None:
        """Books elements taken by position: all channels, or equal parts that follow their number, or held."""
        (whole,) = _vectors(before)
        follows = name == "chunk" or any(n in self._counts for n in node.all_input_nodes)
        for part in parts:
            (labels,) = _vectors(part)
            times, size = len(labels) // len(whole), len(labels)
            if size and np.array_equal(labels, np.repeat(whole, times)):
                continue
            equal = isinstance(before, Channels) and size and len(whole) % size == 0
            if follows and equal and labels.tolist() in whole.reshape(-1, size).tolist():
                self._tile(whole, len(whole) // size, node)
                continue
            self.ledger.freeze(whole, f"{name} splits or reorders channels by position", where(node))
            return

    def _cut(self, node: fx.Node, name: str, after: Spread, sizes: Any) -> None:
        """Books channels that a view spreads over several axes: one axis must follow their number."""
        axes = _axes(after)
        if sizes is None:
            sizes = node.args[1] if len(node.args) == 2 else node.args[1:]
        if name == "unflatten" and len(sizes) == 2 and isinstance(sizes[0], int):
            sizes = [*[None] * (sizes[0] % self.values[self._source(node)].ndim), *sizes[1]]
        if isinstance(sizes, fx.Node):  # another tensor's shape
            shape = self._counts.get(sizes)
            free = [axis for axis in axes if isinstance(shape, tuple) and shape[axis] is not None]
        else:
            free = [a for a in axes if a < len(sizes) and (sizes[a] == -1 or sizes[a] in self._counts)]
        if len(free) == 1:
            rows = after.labels.movedim(free[0], -1).flatten(0, -2).numpy()
            self._tile(rows.ravel(), len(rows), node)
        else:
            why = f"{name} splits or reorders channels by position"
            self.ledger.freeze(after.labels.numpy().ravel(), why, where(node))

    def _shuffled(self, node: fx.Node, groups: int) -> Channels:
        """Channel shuffle: the channels as `groups` rows, read column by column."""
        labels = self.labels[self._source(node)]
        if not isinstance(labels, Channels) or labels.axis != 1:
            raise Refused("channels that do not lie along the second axis are shuffled")
        self._tile(labels.labels, groups, node)
        return Channels(1, labels.labels.reshape(groups, -1).T.ravel())

    def _pool(self, node: fx.Node, value: Any) -> Labels:
        labels = self.labels[self._source(node)]
        name = type(self.modules[str(node.target)]).__name__ if node.op == "call_module" else operation(node)
        if not isinstance(value, Tensor) or (
            _vectors(labels) and (_axes(labels) != [1] or not _batched(name, value))
        ):
            raise Refused("pooled across channels")
        return labels

    def _gate(self, node: fx.Node, value: Tensor) -> Channels:
        """A gated linear unit: one half of the channels scales the other."""
        labels, ndim = self.labels[self._source(node)], value.ndim
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", -1)
        if not isinstance(labels, Channels) or labels.axis != cast(int, dim) % ndim:
            raise Refused("gated along another axis than the channels")
        return Channels(labels.axis, self._tile(labels.labels, 2, node))

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
    **dict.fromkeys(VIEWS | PARTS, LabelPass._move),
    **dict.fromkeys(POOLING, LabelPass._pool),
    **dict.fromkeys(REDUCTION, LabelPass._reduce),
    **dict.fromkeys(CREATION, LabelPass._create),
    "glu": LabelPass._gate,
    "pad": LabelPass._pad,
}


def known(name: str) -> bool:
    """Whether a function moves, reduces or maps elements, or reads its weights element by element."""
    return name in _HANDLERS or name in ELEMENTWISE_WEIGHTS


def _batched(name: str, value: Tensor) -> bool:
    """Whether a layer or function, called `max_pool2d` say, has a batch and channels before its positions."""
    return not name.endswith(("1d", "2d", "3d")) or value.ndim >= int(name[-2]) + 2


def _summands(layer: nn.Module) -> int:
    """Multiply-accumulates of a layer per number in its result."""
    if isinstance(layer, CONVOLUTIONS):
        return layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return layer.in_features if isinstance(layer, nn.Linear) else 0


def _tensors(value: Any) -> bool:
    return any(isinstance(item, Tensor) for item in (value if isinstance(value, list | tuple) else (value,)))


def _changeable(value: Any) -> Any:
    """Arguments in plain lists and dictionaries, which a function may change; torch.fx keeps immutable ones."""
    if isinstance(value, list):
        return [_changeable(item) for item in value]
    if isinstance(value, dict):
        return {key: _changeable(item) for key, item in value.items()}
    return tuple(map(_changeable, value)) if type(value) is tuple else value


def _described(value: Any) -> Any:
    """What the shape of a result depends on."""
    return (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


def _vectors(labels: Labels) -> list[Vector]:
    items: Iterable[Labels] = labels if isinstance(labels, list) else (labels,)
    return [
        item.labels if isinstance(item, Channels) else item.labels.numpy().ravel()
        for item in items
        if isinstance(item, Channels | Spread)
    ]


def _axes(labels: Labels) -> list[int]:
    """The axes of a tensor along which its labels vary."""
    if isinstance(labels, Channels):
        return [labels.axis]
    if isinstance(labels, Spread):
        return [axis for axis, size in enumerate(labels.labels.shape) if size > 1]
    return []


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
    here = labels[moved.numpy()]
    axes = [other for other, extent in enumerate(here.shape) if extent > 1]
    if len(axes) > 1:
        return Spread(torch.as_tensor(here))
    return Channels(axes[0], here.ravel()) if axes else Channels(axis, np.repeat(here.ravel(), size))


def _alike(first: Any, second: Any) -> bool:
    """Whether the element-wise result of two operands certainly looks like the first one."""
    if not isinstance(first, Tensor):
        return False
    if isinstance(second, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype
    return first.is_floating_point() and isinstance(second, int | float)


def _result_of(module: nn.Module, given: Tensor) -> Tensor | None:
    """A tensor that looks like what a common layer returns; None where torch must be asked.

    Raises:
        ValueError: The layer does not accept such an input.
    """
    if isinstance(module, POINTWISE_MODULES):
        return given
    if isinstance(module, tuple(SELECTING.values())):
        if isinstance(module, _BatchNorm):
            return given.new_empty((given.shape[0], module.num_features, *given.shape[2:]))
        return None
    expected, axis = 0, -1
    if isinstance(module, _BatchNorm):
        module._check_input_dim(given)  # type: ignore[no-untyped-call]
        expected, axis, what = module.num_features, 1, "norm of {} channels"
    elif isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        (expected,), what = module.normalized_shape, "norm of {} channels"
    elif isinstance(module, nn.Linear):
        expected, what = module.in_features, "linear layer of {} inputs"
    else:
        return None
    if given.shape[axis] != expected:
        raise ValueError(f"a {what.format(expected)} was given {given.shape[axis]}")
    return (
        given.new_empty((*given.shape[:-1], module.out_features)) if isinstance(module, nn.Linear) else given
    )


def label(
    net: nn.Module,
    graph: fx.Graph,
    ledger: Ledger,
    image: Tensor,
    training: bool,
    memo: dict[str, tuple[Any, int]] | None = None,
    selecting: Mapping[str, Sequence[int]] = MappingProxyType({}),
    counting: bool = False,
) -> LabelPass:
    """The labels of every value of a traced graph, entered in the ledger."""
    to_meta(net)
    net.train(training)
    labelled = LabelPass(net, graph, ledger, image, memo, selecting, counting)
    with running(), torch.no_grad():
        labelled.run()
    return labelled
