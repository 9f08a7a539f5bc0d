"""Runs a traced network on the meta device while every tensor carries the labels of its channels.

A label is an integer for one channel; along one axis of every tensor lies a vector of them. Layers begin new
labels, sums tie them, and data movement (flatten, permute, index) is executed on a tensor of labels instead of
being derived again: `prunas.tracing.rules` has a rule for every family of operations. Every operation without a
rule freezes the channels it meets, with its name and source line.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, MappingProxyType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from prunas.surgery.construct import CONSTRUCTORS
from prunas.tracing.example import Example
from prunas.tracing.labels import Bare, Channels, Labels, Refused, altered, is_tensor
from prunas.tracing.ledger import Ledger, Mismatch
from prunas.tracing.operations import (
    ATTENTION,
    BINARY,
    CONVOLUTIONS,
    ELEMENTWISE_WEIGHTS,
    FUNCTIONAL,
    PRODUCTS,
    SHAPE_KEEPING,
    SHAPELESS,
    functional,
    operation,
    where,
)
from prunas.tracing.results import alike, result_of, result_of_function
from prunas.tracing.rules import FUNCTIONS, counts, layers, movement, parameters, rule_of
from prunas.tracing.state import PassState
from prunas.tracing.trace import given_to, to_meta
from prunas.tracing.untouched import running

__all__ = ["LabelPass", "known", "label", "stops_short"]


T = TypeVar("T")

SEVERAL = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Layers that return several tensors."""


class LabelPass(PassState):
    """One pass over one graph.

    Args:
        net: The network, on the meta device, in the mode the graph was traced in.
        graph: Its graph.
        ledger: Where labels are entered; a checking ledger raises `Mismatch`.
        example: The network's arguments, on the meta device.
        memo: What functions that are not understood return, and their multiply-accumulates, by what they are
            given; the passes of one survey that count nothing share it.
        selecting: Positions of the inputs that pass, by the module path of the layer that selects them.
        counting: Whether multiply-accumulates are counted, which takes time.
    """

    def __init__(
        self,
        net: nn.Module,
        graph: fx.Graph,
        ledger: Ledger,
        example: Example,
        memo: dict[str, tuple[Any, int]] | None = None,
        selecting: Mapping[str, Sequence[int]] = MappingProxyType({}),
        counting: bool = False,
    ) -> None:
        super().__init__(net, graph, ledger, selecting, counting)
        self.example = example
        self.memo = {} if memo is None else memo

    def run(self) -> None:
        """Labels every node.

        Raises:
            Mismatch: The ledger found other channels than it expects, or the network does not run.
        """
        given: dict[Any, Any] = {**given_to(self.net, self.example), **dict(enumerate(self.example.leaves))}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                argument = node.meta.get("given")
                if argument not in given:
                    why = TypeError(f"forward also takes {node.target!r}, which the input does not have")
                    raise Mismatch(node.name) from why
                self.values[node] = given[argument]
                self.labels[node] = self._labels_of_input(given[argument])
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
                self.freeze_inputs(node, str(why))
                self.labels[node] = None
            parameters.hold_reduced(self, node)

    def _labels_of_input(self, value: Any) -> Channels | None:
        """The channels of an input, which never vary; integers and what is no tensor have none."""
        if isinstance(value, Tensor) and value.ndim > 1 and value.is_floating_point():
            return Channels(1, self.ledger.fixed(value.shape[1]))
        return None

    def _is_input(self, node: fx.Node) -> bool:
        """Whether a node is an input that holds several tensors, or a part of one that does."""
        while operation(node) == "getitem" and isinstance(node.args[0], fx.Node):
            node = node.args[0]
        return node.op == "placeholder" and not isinstance(self.values[node], Tensor)

    def freeze(self, name: str, why: str) -> None:
        """Holds the channels that enter the node called `name`, if there is one."""
        for node in self.graph.nodes:
            if node.name == name:
                self.freeze_inputs(node, why)
                for path, lines in self.computed.items():
                    if isinstance(self.labels[node], Bare) and node.meta.get("line", name) in lines:
                        self.ledger.freeze(self.ledger.axes[path, "reads"], why, where(node))

    # Labels

    def _label(self, node: fx.Node, value: Any) -> Labels:
        """The labels of a node's value, by the rule of what it does."""
        if node.op == "get_attr":
            return parameters.read(self, node, value)
        if node.op == "output":
            raise Refused("the network's output")
        name = operation(node)
        if name == "getitem" and self._is_input(self.source(node)):
            return self._labels_of_input(value)
        if name == "size" or (name == "getattr" and not isinstance(value, Tensor)):
            counts.measure(self, node, name)
            return None
        bare = [n for n in node.all_input_nodes if isinstance(self.labels[n], Bare)]
        path = functional(node, self.modules)
        if not path and (computed := parameters.layer_of(self, node)):
            return self._label_computed(node, computed, value)
        if bare and node.op != "call_module" and not path and not self.entering(node).size:
            if name in FUNCTIONAL:  # on what has no channels
                self._count_product(node)
            return parameters.follow(self, node, name, value)
        if name == "getattr" and node.args[1] in ("T", "mT"):
            return movement.move(self, node, value)
        if any(n in self.counts for n in node.all_input_nodes) and not counts.follow(self, node, name, value):
            return None
        if node.op == "call_module":
            return self._label_module(node, str(node.target), value)
        if not is_tensor(value):
            if name not in SHAPELESS and (channels := self.entering(node)).size:
                self.counts[node] = channels  # such as numel
            return None
        if path:
            return layers.biased(self, node, path, self._label_module(node, path, value))
        rule = FUNCTIONS.get(name)
        if rule is None:
            raise self._not_understood(node, name)
        if not self.entering(node).size and not (name in PRODUCTS and self.counting):
            return None
        if name in PRODUCTS:
            self._count_product(node)
        return rule(self, node, value) if self.entering(node).size else None

    def _count_product(self, node: fx.Node) -> None:
        """Counts what a product of tensors multiplies, where running it has not."""
        if self.counting and node not in self.macs:
            _, macs = self._counted_macs(lambda: self._execute(node))
            if macs:
                self.macs[node] = macs

    def _label_module(self, node: fx.Node, path: str, value: Any) -> Labels:
        """The labels of a module's call, or of a function that does its work."""
        module = self.modules[path]
        if (why := altered(module)) and not isinstance(module, tuple(CONSTRUCTORS)):  # those are forbidden
            raise self._refused(node, why)
        rule = rule_of(module) if isinstance(value, Tensor) or isinstance(module, SEVERAL) else None
        if rule is None:
            raise self._not_understood(node, type(module).__name__)
        try:
            labels = rule(self, node, value, path)
        except Refused as why:
            raise self._refused(node, str(why)) from None
        derived = altered(module) or parametrize.is_parametrized(module)
        if self.counting and derived and node.op == "call_module" and node in self.calls.get(path, ()):
            # What a hook multiplies, or what makes the weight.
            _, macs = self._counted_macs(lambda: self._execute(node))
            self.macs[node] = macs - value.numel() * _summands(module)
        return labels

    def _label_computed(self, node: fx.Node, path: str, value: Any) -> Labels:
        """The labels of a function that does a layer's work with what `forward` has computed from its weight."""
        labels = layers.biased(self, node, path, self._label_module(node, path, value))
        if isinstance(labels, Channels):
            parameters.compute(self, node, path, labels.labels)
            self.macs.pop(node, None)  # they are the layer's
        return labels

    def _not_understood(self, node: fx.Node, name: str) -> Refused:
        """The refusal of a node that calls `name`."""
        why = f"{name} is not understood"
        if name in ATTENTION:
            why += ": heads stay, their number is an attribute of the module, their size sets the scale"
        return self._refused(node, why)

    def _refused(self, node: fx.Node, why: str) -> Refused:
        """The refusal of a node, whose multiply-accumulates are those of the widths it will always have."""
        if self.counting and node not in self.macs:
            _, macs = self._counted_macs(lambda: self._execute(node))
            if macs:
                self.macs[node] = macs
        return Refused(why)

    # Values

    def _execute(self, node: fx.Node) -> Any:
        """The value of a node; on the meta device only its shape matters, and torch's own way there is slow."""
        args: Any = _changeable(fx.node.map_arg(node.args, lambda n: self.values[n]))
        kwargs: Any = _changeable(fx.node.map_arg(node.kwargs, lambda n: self.values[n]))
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            plain = not altered(module) and not parametrize.is_parametrized(module)
            result = result_of(module, *args, **kwargs) if plain else None
            return module(*args, **kwargs) if result is None else result
        quick = node.op in ("call_function", "call_method") and not self.counting
        if quick and (result := result_of_function(operation(node), args, kwargs)) is not None:
            return result
        if node.op == "call_function":
            return self._execute_function(node, args, kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            value: Any = self.net
            for part in str(node.target).split("."):
                value = getattr(value, part)
            # torch's counter of operations looks for the gradient of what a module is given.
            return value.detach() if isinstance(value, nn.Parameter) else value
        return args[0]

    def _execute_function(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """What a function returns; a function that is not understood is asked once for equal arguments."""
        name = operation(node)
        if name in SHAPE_KEEPING and len(node.all_input_nodes) == 1 and isinstance(args[0], Tensor):
            return args[0]
        if name in BINARY and len(args) == 2 and not kwargs and alike(*args):
            return args[0]
        target = cast(Callable[..., Any], node.target)
        path = functional(node, self.modules)
        if path and args and isinstance(args[0], Tensor):
            plain = not parametrize.is_parametrized(self.modules[path])
            if plain and (result := result_of(self.modules[path], args[0])) is not None:
                return result
        if not node.all_input_nodes or not is_tensor([*args, *kwargs.values()]):
            with torch.device("meta"):  # what it makes has no values either
                return target(*args, **kwargs)
        if (name in FUNCTIONS and name not in PRODUCTS) or path or name == "getattr" or not is_tensor(args):
            return target(*args, **kwargs)
        key = f"{id(target)} {fx.node.map_aggregate((args, kwargs), _described)}"
        if key not in self.memo:
            self.memo[key] = self._counted_macs(lambda: target(*args, **kwargs))
        result, macs = self.memo[key]
        if macs:
            self.macs[node] = macs
        return result

    def _counted_macs(self, call: Callable[[], T]) -> tuple[T, int]:
        """What a call returns, and its multiply-accumulates in the batch as torch counts them, if wanted."""
        if not self.counting:
            return call(), 0
        with FlopCounterMode(display=False) as counter:  # attention is unfused on the meta device
            result = call()
        return result, counter.get_total_flops() // 2


def known(name: str) -> bool:
    """Whether a function moves, reduces or maps elements, or reads its weights element by element."""
    return (name in FUNCTIONS and name not in PRODUCTS) or name in ELEMENTWISE_WEIGHTS


def stops_short(graph: fx.Graph) -> bool:
    """Whether a graph calls a function of others that is not understood: torch.fx does not enter it."""
    return any(
        isinstance(node.target, FunctionType)
        and node.target.__module__.partition(".")[0] != "torch"
        and operation(node) not in FUNCTIONS
        and node.all_input_nodes
        for node in graph.nodes
    )


def _summands(layer: nn.Module) -> int:
    """Multiply-accumulates of a layer per number in its result."""
    if isinstance(layer, CONVOLUTIONS):
        return layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return layer.in_features if isinstance(layer, nn.Linear) else 0


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


def label(
    net: nn.Module,
    graph: fx.Graph,
    ledger: Ledger,
    example: Example,
    training: bool,
    memo: dict[str, tuple[Any, int]] | None = None,
    selecting: Mapping[str, Sequence[int]] = MappingProxyType({}),
    counting: bool = False,
) -> LabelPass:
    """The labels of every value of a traced graph, entered in the ledger."""
    to_meta(net)
    net.train(training)
    labelled = LabelPass(net, graph, ledger, example, memo, selecting, counting)
    with running(), torch.no_grad():
        labelled.run()
    return labelled
