"""torch.fx's tracer as surveying and building need it: networks that write into tensors."""

import dis
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prunas.graphs.layers import SELECTING, ChannelPad, HeadAttention

__all__ = [
    "ADDITIONS",
    "ARITHMETIC",
    "FRESH",
    "FUNCTIONS",
    "IN_PLACE",
    "WORKING",
    "Tracer",
    "graph_of",
    "line_of_caller",
]

aten = torch.ops.aten
ADDITIONS = frozenset({operator.add, operator.iadd, torch.add, aten.add, aten.add_, "add", "add_"})
IN_PLACE = frozenset({operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow})
WORKING = (_ConvNd, nn.Linear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
TRANSFORMERS = (
    nn.TransformerEncoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoderLayer,
    nn.TransformerDecoder,
    nn.Transformer,
)
"""Modules of torch.nn whose layers vary; torch.export goes into them."""
FRESH = (*WORKING, _NormBase, nn.LayerNorm, nn.GroupNorm)
"""Layers whose output shares no memory with their input."""
ARITHMETIC = frozenset({
    operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div,
    aten.add, aten.sub, aten.mul, aten.div,
})  # fmt: skip
"""Functions of which the same is true."""
CUTS: dict[str, tuple[str, ...]] = {
    "chunk": ("chunks",),
    "split": ("split_size_or_sections", "split_size"),
    "split_with_sizes": ("split_sizes",),
    "tensor_split": ("sections", "indices", "tensor_indices_or_sections"),
}
"""Functions that cut a tensor into parts, and the argument that says into how many or how large ones."""
FUNCTIONS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "scaled_dot_product_attention"})
"""Functions that do the work of such layers."""
_PACKAGE = Path(__file__).parents[1]
MACHINERY = tuple(
    f"{path}/"
    for path in (Path(torch.__file__).parent, *(_PACKAGE / room for room in ("graphs", "surgery", "tracing")))
)
"""Where the source of the tracers themselves lies."""


class _Proxy(fx.Proxy):
    """A symbol that is written into by `+=` and its kind; torch.fx's own ones are replaced by a sum instead."""

    def __len__(self) -> int:
        """How many parts it has, where that does not depend on sizes: `list` asks for it."""
        parts = _parts(self.node)
        return super().__len__() if parts is None else parts

    def __iter__(self) -> Iterator[fx.Proxy]:
        """Its parts, as many as the caller unpacks; torch disassembles all of the caller's code to know it."""
        frame = sys._getframe(1)
        code, at = frame.f_code.co_code, frame.f_lasti
        if dis.opname[code[at]] != "UNPACK_SEQUENCE" or dis.opname[code[at - 2]] == "EXTENDED_ARG":
            return super().__iter__()
        count = code[at + 1]
        symbol = cast(Any, self)
        return iter([symbol[i] for i in range(count)])


def writing(function: Callable[..., Any]) -> Callable[[_Proxy, Any], fx.Proxy]:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in IN_PLACE:
    setattr(_Proxy, f"__{_function.__name__}__", writing(_function))


class Tracer(fx.Tracer):
    """torch.fx's tracer; a leaf is a module of torch.nn or one of ours.

    Args:
        lines: Whether every node remembers its source line, as `file.py:12` in `node.meta["line"]`.
        buffers: Whether buffers are symbols, as parameters are; else what is computed of them alone is a constant.
    """

    def __init__(self, lines: bool = False, buffers: bool = True) -> None:
        super().__init__()
        self.lines, self.buffers = lines, buffers
        self._names: dict[int, str] = {}

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: Any = None) -> fx.Graph:
        """The graph of a network."""
        assert isinstance(root, nn.Module)
        # By identity; torch's own way searches the whole network whenever a tensor is read.
        self._names = {id(tensor): name for name, tensor in (*root.named_buffers(), *root.named_parameters())}
        return super().trace(root, concrete_args)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """What a module's attribute is while it is traced: the symbol of a parameter or buffer, else its value."""
        symbolic = isinstance(attr_val, nn.Parameter) or (self.buffers and isinstance(attr_val, Tensor))
        name = self._names.get(id(attr_val)) if symbolic else None
        if name is None:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_arg(self, a: Any) -> Any:
        """A value as an argument of a node."""
        name = self._names.get(id(a)) if isinstance(a, Tensor) else None
        return super().create_arg(a) if name is None else self.create_node("get_attr", name, (), {})

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Appends a node."""
        node = super().create_node(*args, **kwargs)
        if self.lines and (line := line_of_caller()):
            node.meta["line"] = line
        return node

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The parts that a tensor is cut into, where the call says how many: `list(x.chunk(2, 1))`.

        If there are fewer, for a tensor of fewer channels, the graph fails when it runs.
        """
        parts, symbol = _parts(obj.node), cast(Any, obj)
        return super().iter(obj) if parts is None else iter([symbol[i] for i in range(parts)])

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The symbol of a node."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        ours: tuple[type[nn.Module], ...] = (ChannelPad, HeadAttention, *SELECTING.values())
        if isinstance(m, TRANSFORMERS):
            return False
        return isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)


def line_of_caller() -> str:
    """The line, as `file.py:12`, of the code that is being traced; nothing if only the tracer runs.

    torch's own way reads and formats the whole stack, which doubles the time.
    """
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(MACHINERY):
        if frame.f_code.co_name in ("trace", "graph_of"):
            return ""
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _parts(node: fx.Node) -> int | None:
    """How many parts a node cuts a tensor into; None where that depends on its size."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if not (keys := CUTS.get(name)):
        return None
    given = (
        node.args[1] if len(node.args) > 1 else next((node.kwargs[k] for k in keys if k in node.kwargs), None)
    )
    if isinstance(given, list | tuple):
        return len(given) + 1 if name == "tensor_split" else len(given)  # that one is given where to cut
    return given if isinstance(given, int) and name in ("chunk", "tensor_split") else None


def graph_of(root: nn.Module, given: Any = None, lines: bool = False) -> fx.Graph:
    """The graph of a network; buffers are symbols in it unless Python asks one for its value.

    Args:
        root: The network.
        given: Arguments of its forward that are no symbols, by name.
        lines: As of `Tracer`.

    Raises:
        Exception: Whatever torch.fx or the network's `forward` raises.
    """
    if next(root.buffers(), None) is not None:
        with suppress(Exception):
            return Tracer(lines).trace(root, given)
    return Tracer(lines, buffers=False).trace(root, given)
