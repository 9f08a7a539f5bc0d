"""Residual blocks: where the branch is, and what the block is without it."""

import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prunas.build.layers import SELECTING, ChannelPad

__all__ = [
    "ADDITIONS",
    "Branch",
    "Tracer",
    "arguments",
    "changes_in_place",
    "find_branch",
    "find_branches",
    "is_fresh",
    "pass_through",
    "structure",
    "without_branch",
]

ADDITIONS = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
IN_PLACE = frozenset({operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow})
WORKING = (_ConvNd, nn.Linear, nn.MultiheadAttention)
FRESH = (*WORKING, _NormBase, nn.LayerNorm, nn.GroupNorm)
"""Layers whose output shares no memory with their input."""
ARITHMETIC = frozenset({
    operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div,
})  # fmt: skip
"""Functions of which the same is true."""
FUNCTIONS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "scaled_dot_product_attention"})
"""Functions that do the work of such layers."""
SYMBOL = re.compile(r"Proxy\(\w+\)")
"""How torch.fx writes a symbol into a text: by the name of its node, which is numbered anew in every graph."""
MACHINERY = tuple(f"{path}/" for path in (Path(torch.__file__).parent, *Path(__file__).parents[:1]))
"""Where the source of the tracer itself lies."""


class _Proxy(fx.Proxy):
    """A symbol that is written into by `+=` and its kind; torch.fx's own ones are replaced by a sum instead."""


def _writing(function: Callable[..., Any]) -> Callable[[_Proxy, Any], fx.Proxy]:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in IN_PLACE:
    setattr(_Proxy, f"__{_function.__name__}__", _writing(_function))


class Tracer(fx.Tracer):
    """torch.fx's tracer; a leaf is a module of torch.nn or one of ours.

    Args:
        lines: Whether every node remembers its source line, as `file.py:12` in `node.meta["line"]`.
    """

    def __init__(self, lines: bool = False) -> None:
        super().__init__()
        self.lines = lines
        self._names: dict[int, str] = {}

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: Any = None) -> fx.Graph:
        """The graph of a network."""
        assert isinstance(root, nn.Module)
        # By identity; torch's own way searches the whole network whenever a tensor is read.
        self._names = {id(tensor): name for name, tensor in (*root.named_buffers(), *root.named_parameters())}
        return super().trace(root, concrete_args)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """What a module's attribute is while it is traced: the symbol of a parameter, else its value."""
        name = self._names.get(id(attr_val)) if isinstance(attr_val, nn.Parameter) else None
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
        if self.lines:  # torch's own way reads and formats the whole stack, which doubles the time
            frame = sys._getframe(1)
            while frame.f_back and frame.f_code.co_filename.startswith(MACHINERY):
                if frame.f_code.co_name == "trace":
                    return node  # no line of anybody else's
                frame = frame.f_back
            node.meta["line"] = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The symbol of a node."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        ours: tuple[type[nn.Module], ...] = (ChannelPad, *SELECTING.values())
        return isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)


def arguments(node: fx.Node, operand: Callable[[fx.Node], Any]) -> Any:
    """The positional and named arguments of a node, as far as they decide what it computes.

    The message of an assertion is left out, for it may hold sizes; so are the names of symbols in any other text.

    Args:
        node: The node.
        operand: What stands for each operand.
    """

    def plain(part: Any) -> Any:
        if isinstance(part, fx.Node):
            return operand(part)
        return SYMBOL.sub("", part) if isinstance(part, str) else part

    given = (node.args[:1], {}) if node.target is torch._assert else (node.args, node.kwargs)
    return fx.node.map_aggregate(given, plain)


def structure(nodes: Iterable[fx.Node], operand: Callable[[fx.Node], Any]) -> list[Any]:
    """What some nodes do, in order and whatever they are called, to be compared; `operand` as in `arguments`."""
    return [(node.op, node.target, arguments(node, operand)) for node in nodes]


@dataclass(frozen=True, slots=True)
class Branch:
    """The branch of a block.

    Attributes:
        addition: The sum that ends it.
        shortcut: The operand that stays.
        nodes: What is inside, in order.
    """

    addition: fx.Node
    shortcut: fx.Node
    nodes: tuple[fx.Node, ...]


def find_branch(nodes: Sequence[fx.Node], modules: Mapping[str, nn.Module]) -> Branch | None:
    """Finds the branch of a block, or None if it is not one shortcut plus one branch.

    The block must have one input and one output and hold exactly one sum of two tensors that both depend on the
    input. Seen from the sum's immediate dominator, the operand with more convolutions, linear layers and
    attentions behind it is the branch; nothing outside may read from inside it, and it may not change in place
    what the shortcut sees.

    Args:
        nodes: All nodes of one call of the block, in order.
        modules: Modules by the names that the nodes call them.
    """
    here = set(nodes)
    exits = [node for node in nodes if node.users.keys() - here]
    sums, branches = _branches(nodes, modules)
    return branches[0] if len(exits) == len(sums) == len(branches) == 1 else None


def find_branches(nodes: Sequence[fx.Node], modules: Mapping[str, nn.Module]) -> list[Branch]:
    """Finds the branch of every sum of a module that holds several, as `find_branch` does that of one."""
    return _branches(nodes, modules)[1]


def _branches(
    nodes: Sequence[fx.Node], modules: Mapping[str, nn.Module]
) -> tuple[list[fx.Node], list[Branch]]:
    """The sums of two tensors that depend on the one input of `nodes`, and those that end a branch."""
    here = set(nodes)
    entries = {before for node in nodes for before in node.all_input_nodes if before not in here}
    if len(entries) != 1:
        return [], []
    (entry,) = entries
    dag = nx.DiGraph((before, node) for node in nodes for before in node.all_input_nodes)
    live = nx.descendants(dag, entry) | {entry}
    sums = [
        node
        for node in nodes
        if node.target in ADDITIONS and len(node.args) == 2 and not node.kwargs
        if len(node.all_input_nodes) == 2 and live.issuperset(node.all_input_nodes)
    ]
    dominators = nx.immediate_dominators(dag, entry) if sums else {}
    dead: set[fx.Node] = set()
    for node in reversed(nodes):
        if node.users.keys() <= dead:
            dead.add(node)
    found = []
    for addition in sums:
        below = nx.descendants(dag, dominators[addition])
        first, second = addition.all_input_nodes
        sides = [(nx.ancestors(dag, operand) | {operand}) & below for operand in (first, second)]
        work = [sum(_works(node, modules) for node in side) for side in sides]
        if work[0] == work[1]:
            continue
        (inside, other), shortcut = (sides, second) if work[0] > work[1] else (sides[::-1], first)
        for node in nodes:  # what is read from it in vain
            if node in dead and not inside.isdisjoint(node.all_input_nodes):
                inside.add(node)
        if inside & other or any(node.users.keys() - inside - {addition} for node in inside):
            continue
        for node in reversed(nodes):  # parameters that only the branch reads
            if node not in live and node.users and node.users.keys() <= inside:
                inside.add(node)
        ordered = tuple(node for node in nodes if node in inside)
        if not any(changes_in_place(n, modules) and not is_fresh(n, inside, modules) for n in ordered):
            found.append(Branch(addition, shortcut, ordered))
    return sums, found


def _works(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node multiplies by a matrix of weights."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], WORKING)
    name = getattr(node.target, "__name__", "")
    reads = any(n.op == "get_attr" and str(n.target).endswith("weight") for n in node.all_input_nodes)
    return node.op == "call_function" and (name in FUNCTIONS or (reads and not name.endswith("norm")))


def changes_in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node writes into its first operand."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    trailing = name.endswith("_") and not name.endswith("__")
    return node.op.startswith("call") and (
        trailing or node.target in IN_PLACE or bool(node.kwargs.get("inplace"))
    )


def is_fresh(node: fx.Node, inside: set[fx.Node], modules: Mapping[str, nn.Module]) -> bool:
    """Whether the first operand of a node was certainly made by the nodes `inside`."""
    while node.all_input_nodes and (node := node.all_input_nodes[0]) in inside:
        if node.target in ARITHMETIC or (
            node.op == "call_module" and isinstance(modules[str(node.target)], FRESH)
        ):
            return True
    return False


class PassThrough(nn.Module):
    """Stands for a module of a removed branch that is not its last one."""

    def forward(self, x: Tensor, *others: Any, **options: Any) -> Tensor:
        """Returns its first argument."""
        return x


class Nothing(nn.Module):
    """Stands for the last module of a removed branch, which then adds zero.

    Args:
        attention: Whether it answers as `nn.MultiheadAttention` does, without attention weights.
    """

    def __init__(self, attention: bool = False) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, *others: Any, **options: Any) -> Tensor | tuple[Tensor, None]:
        """Returns zeros of the shape of its first argument."""
        zeros = torch.zeros_like(x)
        return (zeros, None) if self.attention else zeros


def pass_through(net: nn.Module, paths: Sequence[str]) -> None:
    """Takes a branch away that is not alone in its module: a chain of modules, the last of which adds nothing.

    Args:
        net: The network, changed in place.
        paths: Module paths of the chain, in order.
    """
    for path in paths:
        parent, _, name = path.rpartition(".")
        last, attention = path == paths[-1], isinstance(net.get_submodule(path), nn.MultiheadAttention)
        setattr(net.get_submodule(parent), name, Nothing(attention) if last else PassThrough())


def without_branch(block: nn.Module) -> nn.Module:
    """The block with its branch gone: its shortcut and whatever follows the sum.

    Returns:
        `Identity` if nothing is left but the input, else a graph module of the same class name whose parameters
        keep their names.

    Raises:
        ValueError: `block` has no branch, or what is left differs between training and evaluation.
    """
    was_training = block.training
    rests = []
    for training in (True, False):
        block.train(training)
        rests.append(_rest(block))
    block.train(was_training)
    places = [{node: i for i, node in enumerate(rest.nodes)} for rest in rests]
    in_training, in_evaluation = (
        structure(rest.nodes, place.__getitem__) for rest, place in zip(rests, places, strict=True)
    )
    if in_training != in_evaluation:
        raise ValueError("what is left without the branch differs between training and evaluation")
    kept = [node for node in rests[0].nodes if node.op not in ("placeholder", "output")]
    if all(
        node.op == "call_module" and isinstance(block.get_submodule(str(node.target)), nn.Identity)
        for node in kept
    ):
        return nn.Identity()
    rest = fx.GraphModule(block, rests[0], type(block).__name__)
    rest.train(was_training)
    return rest


def _rest(block: nn.Module) -> fx.Graph:
    """The graph of a block in its present mode, without its branch."""
    modules = dict(block.named_modules())
    graph = Tracer().trace(block)
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    branch = find_branch(nodes, modules)
    if branch is None or len(nodes) + 2 != len(graph.nodes):
        raise ValueError("not a shortcut plus one branch")
    rest = branch.shortcut
    if any(changes_in_place(node, modules) for node in nodes[nodes.index(branch.addition) :]):
        with graph.inserting_before(branch.addition):  # the shortcut's tensor belongs to others too
            rest = graph.call_method("clone", (branch.shortcut,))
    branch.addition.replace_all_uses_with(rest)
    for node in (branch.addition, *reversed(branch.nodes)):
        graph.erase_node(node)
    return graph
