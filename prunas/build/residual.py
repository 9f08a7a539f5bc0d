"""Residual blocks: where the branch is, and what the block is without it."""

import operator
from dataclasses import dataclass

import networkx as nx
import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from prunas.build.layers import SELECTING, ChannelPad

__all__ = ["Residual", "Tracer", "residual", "without_branch"]

ADDITIONS = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
WORKING = (_ConvNd, nn.Linear, nn.MultiheadAttention)


class Tracer(fx.Tracer):
    """torch.fx's tracer; a leaf is a module of torch.nn or one of ours."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        ours = (ChannelPad, *SELECTING.values())
        return isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True, slots=True)
class Residual:
    """A block with one branch.

    Attributes:
        graph: The block's own graph.
        addition: The sum that ends the branch.
        shortcut: The operand that stays.
        branch: Module paths inside the branch, relative to the block, in order.
    """

    graph: fx.Graph
    addition: fx.Node
    shortcut: fx.Node
    branch: tuple[str, ...]


def residual(block: nn.Module) -> Residual | None:
    """Finds the branch of `block`, or None if it is not one shortcut plus one branch.

    The block must have one input and one output and hold exactly one sum of two tensors that both depend on the
    input. Seen from the sum's immediate dominator, the operand with more convolutions, linear layers and
    attentions behind it is the branch; nothing outside may read from inside it.
    """
    try:
        graph = Tracer().trace(block)
    except Exception:  # whatever a user's forward raises under tracing, it only means: not a block
        return None
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        return None
    dag = nx.DiGraph((before, node) for node in graph.nodes for before in node.all_input_nodes)
    (start,) = (node for node in graph.nodes if node.op == "placeholder")
    if start not in dag:
        return None
    live = nx.descendants(dag, start) | {start}
    found = [
        node
        for node in graph.nodes
        if node.target in ADDITIONS and len(node.all_input_nodes) == 2 and set(node.all_input_nodes) <= live
    ]
    if len(found) != 1:
        return None
    (addition,) = found
    dominator = nx.immediate_dominators(dag, start)[addition]
    between = nx.descendants(dag, dominator)
    sides = [(nx.ancestors(dag, operand) | {operand}) & between for operand in addition.all_input_nodes]
    modules = dict(block.named_modules())

    def work(nodes: set[fx.Node]) -> int:
        return sum(node.op == "call_module" and isinstance(modules[node.target], WORKING) for node in nodes)

    first, second = (work(side) for side in sides)
    if first == second:
        return None
    inside, shortcut = (sides[0], 1) if first > second else (sides[1], 0)
    if any(set(node.users) - inside - {addition} for node in inside) or inside & sides[shortcut]:
        return None
    ordered = [str(node.target) for node in graph.nodes if node in inside and node.op == "call_module"]
    called_outside = {str(n.target) for n in graph.nodes if n.op == "call_module" and n not in inside}
    if called_outside & set(ordered):
        return None
    return Residual(graph, addition, addition.all_input_nodes[shortcut], tuple(dict.fromkeys(ordered)))


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
        found = residual(block)
        if found is None:
            raise ValueError("not a shortcut plus one branch")
        found.addition.replace_all_uses_with(found.shortcut)
        for node in reversed(found.graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                found.graph.erase_node(node)
        rests.append(found.graph)
    block.train(was_training)
    if str(rests[0]) != str(rests[1]):
        raise ValueError("what is left without the branch differs between training and evaluation")
    if all(node.op in ("placeholder", "output") or _does_nothing(block, node) for node in rests[0].nodes):
        return nn.Identity()
    rest = fx.GraphModule(block, rests[0], type(block).__name__)
    rest.train(was_training)
    return rest


def _does_nothing(block: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(block.get_submodule(str(node.target)), nn.Identity)
