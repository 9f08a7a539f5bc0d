"""The second way of tracing: `forward` runs on tensors without data, and what it calls is written down.

torch.fx runs `forward` on symbols and must stop where Python asks them something: a branch on a shape, `len`,
`*x.shape`, an assertion, an assignment to items. Here the tensors answer. What is recorded are torch's functions
and methods and the calls of layers, as torch.fx writes them; sizes are numbers, and `prunas.tracing.compare` finds
those that the widths decide.

What no function of torch's returns, and what somebody has written into unseen, is not recorded: compiled code, and
transforms such as vmap. A network that uses such a tensor is refused here, and goes to torch.export.
"""

import hashlib
import operator
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._export.utils import _compiling_state_context
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext

from prunas.graphs.tracer import Tracer, line_of_caller
from prunas.tracing.example import Example
from prunas.tracing.labels import altered
from prunas.tracing.operations import SHAPELESS
from prunas.tracing.results import result_of, result_of_function

__all__ = ["Interrupted", "Valued", "constant", "described", "record"]

OPERATORS: dict[str, Callable[..., Any]] = {
    f"__{name}__": getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "invert"),
        *("lshift", "rshift", "getitem", "iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod"),
    )
}
REVERSED: dict[str, Callable[..., Any]] = {
    "__radd__": operator.add,
    "__rsub__": operator.sub,
    "__rmul__": operator.mul,
    "__rdiv__": operator.truediv,
    "__rtruediv__": operator.truediv,
    "__rfloordiv__": operator.floordiv,
    "__rpow__": operator.pow,
    "__rmod__": operator.mod,
    "__rmatmul__": operator.matmul,
}
FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor)
ASKING = frozenset({"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__contains__"})
"""What asks a tensor for its numbers."""
METHODS = (types.MethodDescriptorType, types.WrapperDescriptorType)
BUILTIN = (types.BuiltinFunctionType, *METHODS)


class Unrecorded(Exception):
    """A tensor that is used was not made by what was recorded."""


class Interrupted(Exception):
    """A network failed while it was recorded; the cause is what it raised.

    Args:
        graph: What was recorded until then.
        why: What it raised.
    """

    def __init__(self, graph: fx.Graph, why: str) -> None:
        super().__init__(why)
        self.graph = graph


class Valued(DeviceContext):
    """Puts what `forward` makes on the meta device, but lets tensors made from numbers keep their values."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and not isinstance(args[0], Tensor):
            device = options.pop("device", None)
            return func(*args, **options, device="cpu").to(device or "meta")
        if func is Tensor.new_tensor:
            options = {"dtype": args[0].dtype} | options
            return torch.tensor(*args[1:], **{**options, "device": "cpu"}).to(args[0].device)
        return super().__torch_function__(func, types, args, options)  # type: ignore[no-untyped-call]


def constant(shape: Sequence[int], dtype: torch.dtype, content: str) -> Tensor:
    """A tensor that `forward` makes from numbers; its values do not matter, only whether they change."""
    return torch.empty(shape, dtype=dtype, device="meta")


def described(tensor: Tensor) -> tuple[list[int], torch.dtype, str]:
    """The arguments of `constant`."""
    content = "" if tensor.is_meta else hashlib.sha256(repr(tensor.tolist()).encode()).hexdigest()[:12]
    return list(tensor.shape), tensor.dtype, content


def record(net: nn.Module, example: Example, lines: bool = True) -> fx.Graph:
    """The graph of a network in its present mode, in the form in which torch.fx would have traced it.

    Args:
        net: The network, on the meta device.
        example: Its arguments, on the meta device.
        lines: Whether every node remembers its source line.

    Raises:
        Interrupted: The network's `forward` raises something, or uses a tensor that no recorded function made.
    """
    recorder = _Recorder(net, lines)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return recorder.graph_of(example)
        except Exception as error:  # whatever a user's forward raises
            raise Interrupted(recorder.graph, str(error)) from error
        finally:
            recorder.drop_unused_parts()


@dataclass(slots=True)
class _Known:
    """What is known of a tensor.

    Attributes:
        tensor: Itself, so that no other one gets its id.
        node: Where it was made last; None if it is read from the network and was not used so far.
        name: What it is called in the network.
        numbers: The same with values, if it was made from numbers.
    """

    tensor: Tensor
    node: fx.Node | None = None
    name: str = ""
    numbers: Tensor | None = None


class _Recorder(TorchFunctionMode):
    """Writes down the functions of torch's that are called while it is active, and the calls of modules.

    Args:
        net: The network, on the meta device.
        lines: Whether every node remembers its source line.
    """

    def __init__(self, net: nn.Module, lines: bool) -> None:
        super().__init__()
        self.net, self.lines = net, lines
        self.graph = fx.Graph()
        self.paths = {id(module): path for path, module in net.named_modules()}
        self.is_leaf = Tracer().is_leaf_module
        self.known: dict[int, _Known] = {}
        self.versions: dict[int, int] = {}  # of what the tensors of one storage hold, by storage
        self.stack: dict[str, tuple[str, type[nn.Module]]] = {}
        self.calls: dict[str, int] = {}
        self.parts: list[fx.Node] = []
        self.several: set[str] = set()  # modules that return something else than one tensor
        self.inside = False  # of a function or layer that is one node
        for name, tensor in (*net.named_buffers(), *net.named_parameters()):
            self.known[id(tensor)] = _Known(tensor, name=name)
        for path, module in net.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and id(value) not in self.known:
                    self.known[id(value)] = _Known(value, name=f"{path}.{name}".lstrip("."), numbers=value)
        for entry in self.known.values():
            self._note_version(entry.tensor)

    def graph_of(self, example: Example) -> fx.Graph:
        """Runs the network."""
        for i, leaf in enumerate(example.leaves):
            if isinstance(leaf, Tensor):
                node = self.graph.placeholder(f"input_{i}")
                node.meta["given"] = i
                self._know(leaf, node)
        # Code that would ask for numbers to warn of them, say, leaves that while a network is exported.
        with self._modules_called(), _compiling_state_context(), Valued(), self:
            result = example.call(self.net)
        leaves = []
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                leaves.append(self._node_of(leaf))
            elif not isinstance(leaf, bool | int | float | complex | str | None):
                raise Unrecorded(f"forward returns a {type(leaf).__name__}")
        self.graph.output(tuple(leaves)).meta["several"] = self.several
        return self.graph

    def drop_unused_parts(self) -> None:
        """Erases the parts of results that nobody used."""
        for node in reversed(self.parts):
            if not node.users:
                self.graph.erase_node(node)

    @contextmanager
    def _modules_called(self) -> Iterator[None]:
        """While active, the calls of modules are seen."""
        original = nn.Module.__call__

        def called(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._module(original, module, args, kwargs)

        nn.Module.__call__ = called  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]

    def _module(self, call: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        path = self.paths.get(id(module), "")
        if self.inside or not path:
            return call(module, *args, **kwargs)
        number = self.calls[path] = self.calls.get(path, -1) + 1
        key = f"{path}@{number}" if number else path
        self.stack[key] = path, type(module)
        try:
            if not self.is_leaf(module, path) or isinstance(module, nn.ModuleList | nn.ModuleDict):
                result = call(module, *args, **kwargs)
                if not isinstance(result, Tensor):
                    self.several.add(path)
                return result

            def layer(*args: Any, **kwargs: Any) -> Any:
                result = None if special else result_of(module, *args, **kwargs)
                return call(module, *args, **kwargs) if result is None else result

            special = bool(altered(module)) or parametrize.is_parametrized(module)
            result = self._add("call_module", path, layer, args, kwargs)
            for buffer in module.buffers():  # a norm has written its statistics
                self._note_version(buffer)
            return result
        finally:
            del self.stack[key]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function, and writes it down if tensors come of it."""
        options = kwargs or {}
        if self.inside:
            return func(*args, **options)
        name = str(getattr(func, "__name__", func))
        if func in FROM_NUMBERS or func is Tensor.new_tensor:
            numbers = args[1] if func is Tensor.new_tensor else args[0]
            if not isinstance(numbers, Tensor) and not any(
                isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(numbers)
            ):
                return self._constant(func, args, options)
        if name in ASKING and args and (known := self.known.get(id(args[0]))) and known.numbers is not None:
            return func(known.numbers, *args[1:], **options)
        if name == "__setitem__":
            return self._assign(func, *args)
        if name == "__get__":
            attribute = func.__self__.__name__
            if attribute in SHAPELESS or attribute == "shape":
                return func(*args)
            if attribute == "data":
                return self._add("call_method", "detach", func, args, {})
            return self._add(
                "call_function", getattr, lambda x, _: func(x, *args[1:]), (args[0], attribute), {}
            )
        if name in REVERSED:
            return self._add("call_function", REVERSED[name], REVERSED[name], args[1::-1], options)
        if name in OPERATORS:
            return self._add("call_function", OPERATORS[name], func, args, options)
        method = isinstance(func, METHODS) or getattr(Tensor, name, None) is func
        if method and args and isinstance(args[0], Tensor):
            return self._add("call_method", name, func, args, options)
        if isinstance(func, torch._ops.OpOverload):
            return self._add("call_function", func.overloadpacket, func, args, options)
        return self._add("call_function", func, func, args, options)

    def _add(self, op: str, target: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Calls what becomes one node, and appends that if tensors come of it."""
        with self._aside():
            return self._added(op, target, call, args, kwargs)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """While active, what is asked of tensors is no part of the network."""
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    def _added(self, op: str, target: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `_add`."""
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in given:
            self._check(tensor)
        before = [tensor._version for tensor in given]
        name = getattr(target, "__name__", target) if op == "call_function" else target
        result = None if op == "call_module" else result_of_function(name, args, kwargs)
        if result is None:
            # Kernels without data are Python: what they call in turn need not pass through `Valued`.
            plain = given and isinstance(call, BUILTIN)
            with torch._C.DisableTorchFunction() if plain else nullcontext():
                result = call(*args, **kwargs)
        leaves, spec = pytree.tree_flatten_with_path(result)
        written = [
            tensor for tensor, version in zip(given, before, strict=True) if tensor._version != version
        ]
        if not written and not any(isinstance(leaf, Tensor) for _, leaf in leaves):
            return result
        for tensor in written:
            self._note_version(tensor)
        node = self._node(op, target, args, kwargs)
        outputs = []
        for keys, leaf in leaves:
            if isinstance(leaf, Tensor):
                if any(leaf is tensor for tensor in given) and not any(leaf is tensor for tensor in written):
                    leaf = leaf.view_as(leaf)  # the result is another value than the operand
                part = node
                for key in keys:
                    part = self._node("call_function", operator.getitem, (part, _key(key)), {})
                    self.parts.append(part)
                self._know(leaf, part)
            outputs.append(leaf)
        return pytree.tree_unflatten(outputs, spec)

    def _assign(self, func: Any, target: Tensor, index: Any, value: Any) -> None:
        """An assignment to items: to a part of the tensor, which is written into."""
        with self._aside():
            part = self._node("call_function", operator.getitem, (target, index), {})
            copied = isinstance(value, Tensor) and value.ndim
            self._node("call_method", "copy_" if copied else "fill_", (part, value), {})
            func(target, index, value)
            self._note_version(target)

    def _constant(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """A tensor made from numbers."""
        with self._aside():
            result: Tensor = func(*args, **kwargs)
            numbers = args[1] if func is Tensor.new_tensor else args[0]
            values = torch.tensor(numbers, dtype=result.dtype, device="cpu")
            self._know(result, self._node("call_function", constant, described(values), {}))
            self.known[id(result)].numbers = values
            return result

    def _node(self, op: str, target: Any, args: Any, kwargs: Any) -> fx.Node:
        """Appends a node."""
        args, kwargs = fx.node.map_aggregate((tuple(args), dict(kwargs)), self._argument)
        node = self.graph.create_node(op, target, args, kwargs)
        node.meta["nn_module_stack"] = dict(self.stack)
        if self.lines and (line := line_of_caller()):
            node.meta["line"] = line
        return node

    def _argument(self, value: Any) -> Any:
        return self._node_of(value) if isinstance(value, Tensor) else value

    def _node_of(self, tensor: Tensor) -> fx.Node:
        """Where a tensor was made; what belongs to the network is read where it is first needed."""
        self._check(tensor)
        known = self.known[id(tensor)]
        if known.node is None:
            if known.numbers is None:
                known.node = self._node("get_attr", known.name, (), {})
            else:
                known.node = self._node("call_function", constant, described(known.numbers), {})
        return known.node

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        """Notes where a tensor was made."""
        self.known[id(tensor)] = _Known(tensor, node)
        self._note_version(tensor)

    def _note_version(self, tensor: Tensor) -> None:
        """Notes how often a tensor was written into."""
        with torch._C.DisableTorchFunction():
            self.versions[tensor.untyped_storage()._cdata] = tensor._version

    def _check(self, tensor: Tensor) -> None:
        """Refuses a tensor that was made, or written into, by what is not recorded."""
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            raise Unrecorded("forward uses a transform of functions, such as vmap")
        if id(tensor) not in self.known:
            raise Unrecorded("forward uses a tensor that no function of torch's made")
        if self.versions.get(tensor.untyped_storage()._cdata) != tensor._version:
            raise Unrecorded("forward writes into a tensor by no function of torch's")


def _key(key: Any) -> Any:
    """What to index a result with."""
    return key.key if isinstance(key, pytree.MappingKey) else key.idx
