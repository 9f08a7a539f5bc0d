"""Which residual branches can be removed: where they are, what they hold, and why others must stay."""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx, nn

from prunas.graphs.branches import Branch, changes_in_place, find_branch, find_branches, is_fresh
from prunas.graphs.structure import structure
from prunas.graphs.tracer import ADDITIONS
from prunas.survey import Frozen
from prunas.tracing.ledger import Ledger
from prunas.tracing.operations import CREATION, RANDOM, operation
from prunas.tracing.propagate import LabelPass

__all__ = ["RemovableBranch", "find_blocks", "users_of"]

KEEPS_ZEROS = RANDOM | {"getitem", "mul", "imul"}
"""Functions behind the last module of a branch that leave zeros as they are."""

DRAWING = frozenset({"bernoulli", "div", "itruediv"})
"""Functions that make a new tensor one of random factors, as stochastic depth written out does."""

Nodes = dict[str, list[fx.Node]]
"""The nodes of some modules, by module path."""


@dataclass(frozen=True, slots=True)
class RemovableBranch:
    """A branch that can be removed.

    Attributes:
        name: Name of its block.
        branch: Where it is in the graph.
        weights: Names of the modules and tensors in it that have weights and that what is left does not use.
        chain: Module paths of the branch where it is one of several in its module, else empty.
    """

    name: str
    branch: Branch
    weights: tuple[str, ...]
    chain: tuple[str, ...]


def find_blocks(
    net: nn.Module, ledger: Ledger, passes: Sequence[LabelPass], standing: Mapping[str, str]
) -> tuple[list[RemovableBranch], list[Frozen]]:
    """The branches that can be removed, in the order of their sums, and those that cannot, with the reasons.

    Args:
        net: The network.
        ledger: Which layers may not vary.
        passes: The last one is the one in eval mode.
        standing: Blocks that cannot be removed, and why.
    """
    finder = _BlockFinder(net, ledger, passes)
    blocks = finder.blocks()
    for name in [name for name in blocks if name in standing]:
        finder.refused.append(Frozen(name, f"its branch cannot be removed: {standing[name]}", name))
        del blocks[name]
    place = {node: i for i, node in enumerate(passes[-1].graph.nodes)}
    ordered = sorted(blocks.items(), key=lambda item: place[item[1][0].addition])
    return [
        RemovableBranch(name, branch, finder.weights(name, branch, chain), chain)
        for name, (branch, chain) in ordered
    ], finder.refused


def users_of(labelled: LabelPass) -> dict[fx.Node, str]:
    """Every node that uses weights, with the name of its module or of the tensor itself."""
    return {n: str(n.target) for n in labelled.graph.nodes if n.op in ("call_module", "get_attr")}


class _BlockFinder:
    """Finds the branches of one network; `refused` collects those that must stay."""

    def __init__(self, net: nn.Module, ledger: Ledger, passes: Sequence[LabelPass]) -> None:
        self.net, self.ledger, self.passes = net, ledger, passes
        self.inference = passes[-1]
        self.modules = self.inference.modules
        self.users = users_of(self.inference)
        self.calls = {labelled: _nodes_of_sums(labelled) for labelled in passes}
        self.module_nodes = {labelled: _nodes_of_modules(labelled) for labelled in passes}
        self.refused: list[Frozen] = []

    @cached_property
    def changing(self) -> list[fx.Node]:
        """Nodes that write into their first operand."""
        return [node for node in self.inference.graph.nodes if changes_in_place(node, self.modules)]

    @cached_property
    def names(self) -> dict[int, list[str]]:
        """Every name of each parameter, by its identity."""
        names: dict[int, list[str]] = {}
        for name, tensor in self.net.named_parameters(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
        return names

    def blocks(self) -> dict[str, tuple[Branch, tuple[str, ...]]]:
        """The branches that can be removed, with their chains, by the name of their block.

        A module that is a shortcut plus one branch is one block, the innermost such module only; of a module with
        several branches, each that is a chain of modules is one.
        """
        first_calls, single_calls = self.calls[self.inference]
        blocks: dict[str, tuple[Branch, tuple[str, ...]]] = {}
        for path in sorted(first_calls, key=len, reverse=True):
            if isinstance(self.modules[path], nn.Sequential) or any(p.startswith(f"{path}.") for p in blocks):
                continue
            branch = find_branch(first_calls[path], self.modules)
            if branch is not None:
                why = self.obstacle(path, branch, first_calls[path])
                if why:
                    self.refused.append(Frozen(path, f"its branch cannot be removed: {why}", path))
                else:
                    blocks[path] = branch, ()
            elif path in single_calls:
                chains = [self.chains(path, labelled) for labelled in self.passes]
                blocks |= {
                    name: (branch, chain)
                    for name, (branch, chain) in chains[-1].items()
                    if all(chain == other.get(name, (None, ()))[1] for other in chains)
                }
        return blocks

    def obstacle(self, path: str, branch: Branch, block: Sequence[fx.Node]) -> str:
        """Why the block cannot be built without its branch, or would then do something else; empty if it can."""
        inside = set(block)
        outer = {before for node in block for before in node.all_input_nodes if before not in inside}
        outer |= {node for node in block if node.users.keys() - inside}  # its input and its output
        weights = [self.users[node] for node in branch.nodes if node in self.users]
        weights = [name for name in weights if name not in self.modules or _has_weights(self.modules[name])]
        values, uses = self.inference.values, Counter(self.users.values())
        if path not in self.calls[self.inference][1]:
            return "it is called more than once"
        if path in self.ledger.forbidden:
            return self.ledger.forbidden[path][0]
        if any(uses[name] != 1 or name in self.ledger.forbidden for name in weights):
            return "its weights are used elsewhere too"
        if values[branch.shortcut].shape != values[branch.addition].shape:
            return "its shortcut is broadcast"
        if branch.addition in self.changing and not is_fresh(branch.addition, inside, self.modules):
            return "its sum changes its input in place"
        if any(node not in inside and node.all_input_nodes[0] in outer for node in self.changing):
            return "its input or output is changed in place"
        if len(inspect.signature(self.modules[path].forward).parameters) != 1:
            return "its forward takes more than one argument"
        if self.remainder_varies(path, branch, block):
            return "what is left without the branch differs between training and evaluation"
        return ""

    def remainder_varies(self, path: str, branch: Branch, block: Sequence[fx.Node]) -> bool:
        """Whether what is left of a block without its branch is random, or another thing in training."""
        rest = [node for node in block if node not in branch.nodes]
        if any(node.op == "call_function" and operation(node) in RANDOM for node in rest):
            return True
        training = self.calls[self.passes[0]][1]
        if path not in training:
            return True
        other = find_branch(training[path], self.passes[0].modules)
        return other is None or _remainder(block, branch) != _remainder(training[path], other)

    def chains(self, path: str, labelled: LabelPass) -> dict[str, tuple[Branch, tuple[str, ...]]]:
        """The branches of a module with several that are chains of modules, by name, with the chains."""
        chains = {}
        for branch in find_branches(self.calls[labelled][1].get(path, []), self.modules):
            chain = self.chain(path, branch, labelled)
            if chain:
                name = "+".join(part.removeprefix(f"{path}.") for part in chain)
                chains[f"{path}.{name}" if path else name] = branch, chain
        return chains

    def chain(self, path: str, branch: Branch, labelled: LabelPass) -> tuple[str, ...]:
        """The modules that make a branch, if they pass one tensor on and what follows them keeps zeros."""
        inside, within = set(branch.nodes), f"{path}." if path else ""
        nodes_of = self.module_nodes[labelled]
        parts = {
            p
            for p, nodes in nodes_of.items()
            if p.startswith(within) and p != path and nodes <= inside and _has_weights(self.modules[p])
        }
        chain = [p for p in nodes_of if p in parts and not any(p.startswith(f"{q}.") for q in parts)]
        if not labelled.graph.output_node().meta.get("several", set()).isdisjoint(chain):
            return ()
        values, total = labelled.values, labelled.values[branch.addition]
        passed: fx.Node | None = branch.shortcut
        for part in chain:
            nodes = nodes_of[part]
            entering = {b for n in nodes for b in n.all_input_nodes if b not in nodes and b.op != "get_attr"}
            leaving = [n for n in nodes if n.users.keys() - nodes]
            if len(entering) != 1 or len(leaving) != 1 or self.shared(part, nodes, labelled):
                return ()
            (before,), (passed_on,) = entering, leaving
            if passed is None or values[before].shape != total.shape or before is not passed:
                return ()
            attention = isinstance(self.modules[part], nn.MultiheadAttention)
            passed = None if attention else passed_on
            if not attention and values[passed_on].shape != total.shape:
                return ()
        loose = [n for n in branch.nodes if n.users and not any(n in nodes_of[part] for part in chain)]
        drawn = _drawn(loose)
        loose = [node for node in loose if node not in drawn]
        return tuple(chain) if all(self.keeps_zeros(node) for node in loose) else ()

    def keeps_zeros(self, node: fx.Node) -> bool:
        """Whether a node of a branch that is in none of its modules leaves zeros as they are."""
        if node.op == "call_module":
            return isinstance(self.modules[str(node.target)], nn.Dropout | nn.Identity)
        return node.op == "get_attr" or operation(node) in KEEPS_ZEROS

    def shared(self, part: str, nodes: set[fx.Node], labelled: LabelPass) -> bool:
        """Whether somebody else reads the tensors of a module, or holds them too."""
        inside = f"{part}."
        return any(
            str(node.target).startswith(inside) and node.users.keys() - nodes
            for node in labelled.graph.find_nodes(op="get_attr")
        ) or any(
            not name.startswith(inside)
            for tensor in self.modules[part].parameters()
            for name in self.names.get(id(tensor), ())
        )

    def weights(self, name: str, branch: Branch, chain: tuple[str, ...]) -> tuple[str, ...]:
        """Every weight in a branch, called or not, that what is left does not use."""
        tops = chain or (name,)
        gone = set(branch.nodes)
        within = tuple(f"{top}." for top in tops)
        inside = [user for node, user in self.users.items() if node in gone]
        if chain:
            inside = [user for user in inside if f"{user}.".startswith(within)]
        left = [f"{n}." for node, n in self.users.items() if node not in gone and n.startswith(within)]
        uncalled = []
        for top in tops:
            for n, _ in self.modules[top].named_parameters():
                name = f"{top}.{n}"
                owner = name.rpartition(".")[0] if "." in n or chain else name
                # One that is left in part, as a norm whose tensors a function reads, goes tensor by tensor.
                uncalled.append(name if any(other.startswith(f"{owner}.") for other in left) else owner)
        return tuple(n for n in dict.fromkeys((*inside, *uncalled)) if not f"{n}.".startswith(tuple(left)))


def _nodes_of_sums(labelled: LabelPass) -> tuple[Nodes, Nodes]:
    """The nodes of every module that holds a sum: of its first call; and of its only call, if it has one."""
    calls: dict[str, Nodes] = {}
    sums: set[str] = set()
    for node in labelled.graph.nodes:
        for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            calls.setdefault(path, {}).setdefault(call, []).append(node)
            if node.target in ADDITIONS:
                sums.add(path)
    first = {path: next(iter(calls[path].values())) for path in calls if path in sums}
    return first, {path: nodes for path, nodes in first.items() if len(calls[path]) == 1}


def _nodes_of_modules(labelled: LabelPass) -> dict[str, set[fx.Node]]:
    """The nodes of every module in all its calls, by its path, in the order in which the modules begin."""
    nodes_of: dict[str, set[fx.Node]] = {}
    for node in labelled.graph.nodes:
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            nodes_of.setdefault(path, set()).add(node)
        if node.op == "call_module":
            nodes_of.setdefault(str(node.target), set()).add(node)
    return nodes_of


def _drawn(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Those of some nodes, in order, that make tensors of random numbers, which only stand beside what passes."""
    drawn: set[fx.Node] = set()
    for node in nodes:
        before = [n for n in node.all_input_nodes if n not in drawn]
        if operation(node) in CREATION or (
            node.all_input_nodes and not before and operation(node) in DRAWING
        ):
            drawn.add(node)
    return drawn


def _remainder(block: Sequence[fx.Node], branch: Branch) -> list[Any]:
    """What is left of a block without its branch, to be compared."""
    kept = [node for node in block if node not in branch.nodes and node is not branch.addition]
    place: dict[fx.Node, int | str] = {node: i for i, node in enumerate(kept)}
    place[branch.addition] = "sum"
    return structure(kept, lambda node: place.get(node, "input"))


def _has_weights(module: nn.Module) -> bool:
    """Whether a module or a child of it has parameters."""
    return next(module.parameters(), None) is not None
