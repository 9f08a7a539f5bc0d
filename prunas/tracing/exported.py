"""The last way of tracing: non-strict torch.export, for what can neither be traced by torch.fx nor be recorded.

It runs `forward` on tensors without data and writes down every operation, those in transforms such as vmap too.
Its graph differs from one of torch.fx in three ways that are undone here: it goes into the layers of torch.nn,
which are therefore made opaque while it runs; parameters are inputs of the graph; and it speaks of ATen overloads.
One difference stays: sizes are numbers in it. `prunas.tracing.compare` finds those that the widths decide.
"""

import functools
import io
import itertools
import logging
import operator
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.fx import config as fx_config
from torch.utils import _pytree as pytree

from prunas.graphs.tracer import Tracer
from prunas.tracing.example import Example
from prunas.tracing.recorded import Valued, constant, described

__all__ = ["export"]

HOLE = object()
"""Stands for a tensor among the arguments of a call."""

WHOLE_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
DROPPED = frozenset({"_assert_tensor_metadata"})
"""What torch.export adds on its own."""


@dataclass
class _Call:
    """One call of a layer that stays opaque.

    Attributes:
        path: Module path of the layer.
        forward: The layer's forward.
        spec: Structure of its arguments.
        leaves: The arguments in order, `HOLE` for tensors.
        outputs: Where in the result each tensor is: keys to follow, one after the other.
        result: The result's structure and leaves, likewise.
    """

    path: str
    forward: Callable[..., Any]
    spec: pytree.TreeSpec
    leaves: list[Any]
    outputs: list[tuple[Any, ...]] = field(default_factory=list)
    result: tuple[list[Any], pytree.TreeSpec] | None = None


_calls: dict[str, _Call] = {}
_number = itertools.count()


def _run(call: str, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What the operator that stands for a layer's call does: the call itself, on tensors without data."""
    this = _calls[call]
    args, kwargs = _filled(this.leaves, this.spec, inputs)
    leaves, spec = pytree.tree_flatten_with_path(this.forward(*args, **kwargs))
    this.outputs = [_keys(path) for path, leaf in leaves if isinstance(leaf, Tensor)]
    this.result = [HOLE if isinstance(leaf, Tensor) else leaf for _, leaf in leaves], spec
    return [torch.empty_like(leaf) for _, leaf in leaves if isinstance(leaf, Tensor)]


torch.library.define("prunas::call", "(str call, Tensor[] inputs) -> Tensor[]")
torch.library.register_fake("prunas::call", _run)
fx.node.has_side_effect(torch.ops.prunas.call.default)  # a call whose result nobody reads runs all the same


def _filled(leaves: Sequence[Any], spec: pytree.TreeSpec, tensors: Sequence[Any]) -> Any:
    """The structure whose holes are `tensors`, in order."""
    waiting = iter(tensors)
    return pytree.tree_unflatten([next(waiting) if leaf is HOLE else leaf for leaf in leaves], spec)


def _keys(path: Sequence[Any]) -> tuple[Any, ...]:
    """What to index a structure with, level by level."""
    return tuple(key.key if isinstance(key, pytree.MappingKey) else key.idx for key in path)


def _opaque(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that leaves one node, whatever `forward` does."""

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        call, name = _Call(path, forward, spec, [_hole(leaf) for leaf in leaves]), f"{next(_number)}"
        _calls[name] = call
        outputs = torch.ops.prunas.call(name, tensors)
        assert call.result is not None
        return _filled(*call.result, outputs)

    return stand_in


def _hole(leaf: Any) -> Any:
    return HOLE if isinstance(leaf, Tensor) else leaf


@contextmanager
def _opaque_layers(net: nn.Module) -> Iterator[None]:
    """While active, the layers that are one node to torch.fx are one node to torch.export too, hooks and all."""
    leaves: dict[str, nn.Module] = {}
    is_leaf = Tracer().is_leaf_module
    for path, module in net.named_modules():
        # torch.fx never meets a list or dictionary of modules, whose parts forward calls itself.
        if (
            path
            and is_leaf(module, path)
            and not isinstance(module, nn.ModuleList | nn.ModuleDict)
            and not any(path.startswith(f"{outer}.") for outer in leaves)
        ):
            leaves[path] = module
    before = [
        {name: module.__dict__[name] for name in (*WHOLE_HOOKS, "forward") if name in module.__dict__}
        for module in leaves.values()
    ]
    try:
        for path, module in leaves.items():
            module.__dict__.update({name: OrderedDict() for name in WHOLE_HOOKS})
            module.forward = _opaque(path, module.forward)
        yield
    finally:
        for module, attributes in zip(leaves.values(), before, strict=True):
            module.__dict__.pop("forward", None)
            module.__dict__.update(attributes)
        _calls.clear()


@contextmanager
def _valued(net: nn.Module) -> Iterator[None]:
    """While active, a network's `forward` runs in that way; all around it torch.export is quicker without."""
    replaced = vars(net).get("forward")
    forward = net.forward

    @functools.wraps(forward)
    def within(*args: Any, **kwargs: Any) -> Any:
        with Valued():
            return forward(*args, **kwargs)

    net.forward = within
    try:
        yield
    finally:
        del net.forward
        if replaced is not None:
            net.forward = replaced


def export(net: nn.Module, example: Example, lines: bool = True) -> fx.Graph:
    """The graph of a network in its present mode, in the form in which torch.fx would have traced it.

    Args:
        net: The network, on the meta device.
        example: Its arguments, on the meta device.
        lines: Whether every node remembers its source line, which takes a fifth of the time.

    Raises:
        Exception: Whatever torch.export or the network's `forward` raises.
    """
    with _silence(), _opaque_layers(net), _valued(net), _stack_traces(lines):
        program = torch.export.export(net, example.args, dict(example.kwargs), strict=False)
        return _Writer(net, program).graph


@contextmanager
def _stack_traces(wanted: bool) -> Iterator[None]:
    """While active, torch.export notes source lines, or does not."""
    before = fx_config.do_not_emit_stack_traces
    fx_config.do_not_emit_stack_traces = not wanted
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


@contextmanager
def _silence() -> Iterator[None]:
    """While active, nothing is said besides what is raised: torch.export prints the graph that it fails on."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class _Lifted:
    """A parameter, buffer or constant that the exported graph takes as an input."""

    name: str


class _Writer:
    """Writes an exported program down as a graph of torch.fx."""

    def __init__(self, net: nn.Module, program: torch.export.ExportedProgram) -> None:
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {
            name: value
            for name, value in program.constants.items()
            if isinstance(value, Tensor) and not _has(net, name)
        }
        self.read: dict[str, fx.Node] = {}
        inputs: list[Any] = []
        for spec in program.graph_signature.input_specs:
            if spec.kind == InputKind.USER_INPUT:
                inputs.append(self.graph.placeholder(str(getattr(spec.arg, "name", "input"))))
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                inputs.append(_Lifted(str(spec.target)))
            else:
                raise TypeError(f"forward uses an object that torch.export lifts as {spec.kind.name.lower()}")
        self.graph.output(self._copy(program.graph_module, inputs))

    def _copy(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        """Appends a graph; what it returns."""
        values: dict[fx.Node, Any] = {}
        waiting = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(waiting)
            elif node.op == "get_attr":
                values[node] = getattr(module, str(node.target))
            elif node.op == "call_function":
                values[node] = self._call(node, values)
        output = module.graph.output_node()
        return fx.node.map_arg(output.args[0], lambda n: self._resolved(values[n], output))

    def _call(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        name = node.target.__name__.partition(".")[0] if callable(node.target) else str(node.target)
        before = [values[n] for n in node.args if isinstance(n, fx.Node)]
        if inner := next((value for value in before if isinstance(value, fx.GraphModule)), None):
            # A region without gradients or with other precision: what is in it counts, not that it is one.
            return self._copy(inner, before[before.index(inner) + 1 :])
        if node.target is operator.getitem and isinstance(before[0], list | tuple):
            index: Any = node.args[1]
            return before[0][index]
        if name in DROPPED:
            return None
        if name == "contiguous":  # is written down only where it copies, which the widths may decide
            return before[0]
        args: Any = fx.node.map_arg(node.args, lambda n: self._resolved(values[n], node))
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: self._resolved(values[n], node))
        if node.target is torch.ops.prunas.call.default:
            return self._layer(node, _calls[args[0]], args[1])
        if node.target in (torch.ops.aten.slice.Tensor, torch.ops.aten.select.int):
            return self._add(node, "call_function", operator.getitem, (args[0], _index(node)))
        target = node.target
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        if isinstance(target, torch._ops.OpOverload):
            target = target.overloadpacket  # it is called as the torch function is, and named like it
        if target is torch.ops.aten.copy_ and args[1].target is torch.ops.aten.expand:
            # An assignment to items is given the shape of what it writes to, which copying finds by itself.
            expanded, args = args[1], (args[0], args[1].args[0])
            if not expanded.users:
                self.graph.erase_node(expanded)
        return self._add(node, "call_function", target, args, kwargs)

    def _layer(self, node: fx.Node, call: _Call, tensors: Sequence[fx.Node]) -> list[fx.Node]:
        """The call of a layer, and the tensors in its result."""
        args, kwargs = _filled(call.leaves, call.spec, tensors)
        called = self._add(node, "call_module", call.path, args, kwargs)
        outputs = []
        for keys in call.outputs:
            part = called
            for key in keys:
                part = self._add(node, "call_function", operator.getitem, (part, key))
            outputs.append(part)
        return outputs

    def _add(self, node: fx.Node, op: str, target: Any, args: Any = (), kwargs: Any = None) -> fx.Node:
        """Appends a node that stands where `node` does."""
        new = self.graph.create_node(op, target, tuple(args), kwargs)
        stack = (node.meta.get("nn_module_stack") or {}).items()
        # Keyed as torch.fx does: by the path, with @1, @2 for further calls, and without the network itself.
        new.meta["nn_module_stack"] = {
            path + key[key.rfind("@") :] if "@" in key else path: (path, kind)
            for key, (path, kind) in stack
            if path
        }
        if node.stack_trace:
            new.meta["stack_trace"] = node.stack_trace
        return new

    def _resolved(self, value: Any, reader: fx.Node) -> Any:
        """A value as an argument; what was lifted is read where it is first needed."""
        if not isinstance(value, _Lifted):
            return value
        if value.name not in self.read:
            tensor = self.tensors.get(value.name)
            if tensor is None:
                new = self._add(reader, "get_attr", value.name)
            else:
                new = self._add(reader, "call_function", constant, described(tensor))
            self.read[value.name] = new
        return self.read[value.name]


def _has(net: nn.Module, name: str) -> bool:
    try:
        operator.attrgetter(name)(net)
    except AttributeError:
        return False
    return True


def _index(node: fx.Node) -> tuple[slice | int, ...]:
    """The index that a slice or a selection along one axis is."""
    source, dim, *rest = cast(tuple[Any, ...], node.args)
    shape = source.meta["val"].shape
    before = [slice(None)] * (dim % len(shape))
    if node.target is torch.ops.aten.select.int:
        return (*before, rest[0])
    first, end, step = (rest + [None, None, 1][len(rest) :])[:3]
    return (*before, slice(first or 0, None if end is None or end >= shape[len(before)] else end, step))
