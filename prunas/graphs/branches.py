"""Residual blocks: where the branch is, and what the block is without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
from torch import fx, nn

from prunas.graphs.tracer import ADDITIONS, ARITHMETIC, FRESH, FUNCTIONS, IN_PLACE, WORKING

__all__ = ["Branch", "changes_in_place", "find_branch", "find_branches", "is_fresh"]


MAKING = frozenset({"empty", "zeros", "ones", "full", "clone"})
"""Functions that make a tensor, and the methods of tensors called so after `new_`."""


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
    branches = []
    for addition in sums:
        below = nx.descendants(dag, dominators[addition])
        first, second = addition.all_input_nodes
        sides = [(nx.ancestors(dag, operand) | {operand}) & below for operand in (first, second)]
        work = [sum(works(node, modules) for node in side) for side in sides]
        if work[0] == work[1]:
            continue
        (inside, other), shortcut = (sides, second) if work[0] > work[1] else (sides[::-1], first)
        for node in nodes:  # what reads from it and nobody reads
            if node in dead and not inside.isdisjoint(node.all_input_nodes):
                inside.add(node)
        if inside & other or any(node.users.keys() - inside - {addition} for node in inside):
            continue
        for node in reversed(nodes):  # parameters that only the branch reads
            if node not in live | dead and node.users and node.users.keys() - dead <= inside:
                inside.add(node)
        unread = dead.difference(live).intersection(dag)
        inside |= {node for node in unread if not nx.ancestors(dag, node).isdisjoint(inside)}
        ordered = tuple(node for node in nodes if node in inside)
        if not any(changes_in_place(n, modules) and not is_fresh(n, inside, modules) for n in ordered):
            branches.append(Branch(addition, shortcut, ordered))
    return sums, branches


def works(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
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
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if (
            node.target in ARITHMETIC
            or name.removeprefix("new_") in MAKING
            or (node.op == "call_module" and isinstance(modules[str(node.target)], FRESH))
        ):
            return True
    return False
