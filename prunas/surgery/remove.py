"""Removing a residual branch: what stays is the shortcut and whatever follows the sum."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunas.graphs.branches import changes_in_place, find_branch
from prunas.graphs.structure import structure
from prunas.graphs.tracer import graph_of

__all__ = ["pass_through", "without_branch"]


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
    graph = graph_of(block)
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
