"""Which feature map a layer belongs to: its stage."""

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

import networkx as nx
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from prunas.tracing.labels import Channels
from prunas.tracing.operations import operation
from prunas.tracing.propagate import LabelPass

__all__ = ["Stages", "find_stages"]

Shape = tuple[int, ...]

JOINS = frozenset({"add", "iadd", "mul", "imul"})
"""Functions in which what was made of a tensor meets it again."""

LAST = (nn.Linear, nn.LayerNorm, nn.RNNBase, nn.RNNCellBase)
"""Layers whose channels lie along the last axis."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of a network.

    Attributes:
        maps: Feature-map sizes, largest first.
        number: The stage of every layer that has one, by module path.
    """

    maps: tuple[Shape, ...]
    number: dict[str, int]

    def of(self, path: str) -> int:
        """The stage of a layer; the last one is that of layers without a map."""
        return self.number.get(path, len(self.maps))


def find_stages(inference: LabelPass, called: Sequence[str]) -> Stages:
    """Feature-map sizes in order, and the stage of every layer; see `Layer.stage`.

    A layer of a residual branch takes the map of the branch's sum, and one that pools its input to scale or
    shift it (squeeze and excitation, say) the map of what it scales. Any other layer on a smaller map than one
    that comes later takes the later one's.

    Args:
        inference: The pass in eval mode.
        called: The layers, in the order of their calls.
    """
    values = inference.values
    size: dict[str, Shape] = {}
    for path in called:
        for node in inference.calls.get(path, ()):
            last = isinstance(inference.modules[path], LAST)
            value = values[node][0] if isinstance(values[node], tuple) else values[node]
            size[path] = tuple(value.shape[1:-1] if last else value.shape[2:])
    taken = dict(size)
    for join, nodes in _regions(inference):
        inside = [path for path in size if not nodes.isdisjoint(inference.calls.get(path, ()))]
        shape = tuple(values[join].shape)
        axis = _channel_axis(inference, join)
        if axis is not None:
            taken.update(dict.fromkeys(inside, shape[1:axis] + shape[axis + 1 :]))
        else:  # its channels are opaque: before or behind its positions, as for a layer, rather one inside
            fitting = [size[path] for path in (*size, *inside) if size[path] in (shape[2:], shape[1:-1])]
            taken.update(dict.fromkeys(inside, fitting[-1]) if fitting else {})
    largest: Shape = ()
    for path in reversed(taken):
        largest = max(taken[path], largest, key=lambda shape: math.prod(shape) if shape else 0)
        taken[path] = largest
    maps = sorted({shape for shape in taken.values() if shape}, key=math.prod, reverse=True)
    number = {path: maps.index(shape) if shape else len(maps) for path, shape in taken.items()}
    return Stages(tuple(maps), number)


def _channel_axis(inference: LabelPass, join: fx.Node) -> int | None:
    """The axis along which the channels of a sum or product lie, if one of its operands of that shape shows it."""
    shape = inference.values[join].shape
    for node in (join, *join.all_input_nodes):
        labels = inference.labels[node]
        if getattr(inference.values[node], "shape", None) == shape and isinstance(labels, Channels):
            return labels.axis
    return None


def _regions(inference: LabelPass) -> list[tuple[fx.Node, set[fx.Node]]]:
    """Every sum and product in which what was made of one tensor meets again, with the nodes in between.

    Nothing but the sum or product reads from these. Residual sums come last, and of nested ones the outer ones
    first: what comes later is to count.
    """
    graph, values = inference.graph, inference.values
    entry = next(node for node in graph.nodes if node.op == "placeholder")
    # A size or a device that is asked for is no tensor that is passed on.
    passing = {n for n in graph.nodes if any(map(torch.is_tensor, pytree.tree_leaves(values[n])))}
    read: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node in passing and (node.op == "output" or not read.isdisjoint(node.users)):
            read.add(node)
    operands = {node: [n for n in node.all_input_nodes if n in passing] for node in read}
    edges = [(before, node) for node in graph.nodes if node in read for before in operands[node]]
    edges += [
        (entry, node) for node in graph.find_nodes(op="placeholder") if node in read and node is not entry
    ]
    dominators = nx.immediate_dominators(nx.DiGraph([(entry, entry), *edges]), entry)
    regions = []
    for join in dominators:
        if operation(join) not in JOINS or len(operands[join]) < 2:
            continue
        sides = [_between(dominators[join], operand, dominators) for operand in operands[join]]
        nodes = set.union(*sides)
        readers = {reader for node in nodes for reader in node.users} & read
        if len(nodes) < sum(map(len, sides)) or readers - nodes - {join}:
            continue
        for node in reversed(graph.nodes):  # what does not depend on the input and serves them alone
            if node in read and node not in dominators and nodes.issuperset(read & node.users.keys()):
                nodes.add(node)
        alike = len({values[operand].shape for operand in operands[join]}) == 1
        regions.append((alike and operation(join) in ("add", "iadd"), len(nodes), join, nodes))
    regions.sort(key=lambda region: (region[0], -region[1]))
    return [(join, nodes) for _, _, join, nodes in regions]


def _between(start: fx.Node, end: fx.Node, live: Container[fx.Node]) -> set[fx.Node]:
    """The live nodes on the ways from `start`, which is left out, to `end`."""
    nodes: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is not start and node in live and node not in nodes:
            nodes.add(node)
            waiting.extend(node.all_input_nodes)
    return nodes
