"""A survey checks itself: random points are built, traced again and compared label by label."""

import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from prunas.graphs.structure import structure
from prunas.surgery.assemble import select_inputs, shrink
from prunas.surgery.construct import DerivedSize, Factory, constructing
from prunas.surgery.remove import pass_through, without_branch
from prunas.surgery.weights import gated_axes
from prunas.survey import FIXED, Block, Survey
from prunas.tracing.compare import detour, difference, reshaped
from prunas.tracing.example import Example
from prunas.tracing.ledger import Axis, Expectation, Grouping, Ledger, Mismatch, Vector
from prunas.tracing.localize import Nearness, near_error, near_layers, near_node
from prunas.tracing.operations import RESHAPING, operation, where
from prunas.tracing.propagate import LabelPass, label
from prunas.tracing.trace import OnMeta, T, Trace, Untraceable, to_meta, trace_mode, traced
from prunas.tracing.untouched import running

__all__ = ["Failure", "failure", "named", "selections", "subset"]
COMPUTES_ELSE = "a narrowed network computes something else here (a size used as a number?)"
OTHER_CHANNELS = "a narrowed network has other channels here than expected (a size written as a number?)"
SQUEEZED = "squeeze takes a single channel away; give it the axes that it is to take"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a narrowed network is not the one that was expected.

    Attributes:
        why: The reason.
        place: Module path or source line, as far as it is known.
        node: Name of the node where it shows; None if the network does not even run.
        layer: Module path of the layer that makes the point fail, if that is known.
        blocks: Names of the blocks that do.
        made: Whether the network could be made at all.
        near: The groups and gates nearest to the place.
    """

    why: str
    place: str = ""
    node: str | None = None
    layer: str = ""
    blocks: tuple[str, ...] = ()
    made: bool = True
    near: Nearness = ()


def named(name: str, graph: fx.Graph) -> fx.Node:
    """The node of a graph by its name."""
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
    return nodes[name]


def failure(
    factory: Factory,
    on_meta: OnMeta,
    draft: Survey,
    grouping: Grouping,
    passes: Mapping[bool, LabelPass],
    trace: Trace,
    narrowest: bool,
    widths: Sequence[int],
    selected: Mapping[str, Sequence[int]],
    blocks: bool = True,
    modes: Collection[bool] = (True, False),
) -> Failure | None:
    """Builds a point and compares it with what is expected of it.

    Args:
        factory: Of the dense network.
        on_meta: Runs it.
        draft: The survey to verify.
        grouping: What it was recorded from.
        passes: Over the dense network, by the mode it was traced in.
        trace: How.
        narrowest: Whether only operations and shapes are compared, and the operations without blocks: a single
            channel does not show where it goes.
        widths: The point.
        selected: Positions of the inputs that pass each gate that selects.
        blocks: Whether the operations without blocks are compared at all.
        modes: In which the channels are compared; the network runs in all, as it may keep what it computed.
    """
    counts = {gate: len(positions) for gate, positions in selected.items()}
    layers: list[nn.Module] = []

    def narrowed() -> nn.Module:
        layers.clear()
        with constructing(layers):
            return shrink(factory, draft, widths, counts)

    try:
        net = on_meta(narrowed)
    except Untraceable as error:
        paths = {id(layer): path for layer, path in zip(layers, draft.order, strict=False)}
        near = near_error(error.__cause__, paths, grouping, draft)
        return Failure(f"a narrowed network fails: {error.why}", error.place, made=False, near=near)
    except DerivedSize:
        why = "the network's factory computes the size of another layer from it; give that size as a number"
        return Failure(why, made=False)
    selecting = select_inputs(net, draft, selected)
    if path := _misshapen(net, draft, widths, selected):
        why = "its factory gives it tensors of a size of their own"
        return Failure(why, path, layer=path, near=near_layers([[path]], grouping, draft))
    graphs: dict[bool, fx.Graph] = {}
    expected = None if narrowest else _expected(draft, grouping, widths, selected)
    for training, dense in passes.items():
        try:
            graphs[training] = trace_mode(trace, net, dense.example, training)
            failed = None
            if training in modes:
                failed = _apart(dense, net, graphs[training], training, selecting, expected)
        except Untraceable as error:
            why = f"a narrowed network fails: {error.why}"
            node = None if error.graph is None else _interrupted(dense.graph, error.graph)
            near = near_node(dense, grouping, draft, node) if node else ()
            return Failure(why, error.place, near=near)
        if failed is not None:
            name, why = failed
            near = near_node(dense, grouping, draft, name)
            return Failure(why, where(named(name, dense.graph)), name, near=near)
    if narrowest and blocks:
        return standing_blocks(net, draft, graphs, passes[False].example, trace)
    return None


def _expected(
    draft: Survey, grouping: Grouping, widths: Sequence[int], selected: Mapping[str, Sequence[int]]
) -> dict[Axis, Vector]:
    """The labels of every axis at a point."""
    limit = np.array([*widths, 1])  # the last one serves FIXED, whose units are all 0
    start = np.cumsum([0, *(group.units for group in draft.groups)])
    expected: dict[Axis, Vector] = {}
    for axis, (group, unit) in grouping.axes.items():
        labels = np.where(group == FIXED, FIXED, start[group] + unit)
        expected[axis] = labels[unit < limit[group]]
    for name, positions in selected.items():
        norm = draft.gate_named[name].norm
        narrower = [(name, "inner")] if norm is None else [(norm, "writes"), (name, "reads"), (name, "inner")]
        expected |= {axis: expected[axis][list(positions)] for axis in narrower}
    return expected


def _apart(
    dense: LabelPass,
    net: nn.Module,
    graph: fx.Graph,
    training: bool,
    selecting: Mapping[str, Sequence[int]],
    expected: dict[Axis, Vector] | None,
) -> tuple[str, str] | None:
    """Name of the dense graph's first node where a narrowed network does something else, and what.

    Args:
        dense: The pass over the dense network.
        net: The narrowed one.
        graph: Its graph.
        training: Its mode.
        selecting: Positions of the inputs that pass, by the module path of the layer that selects them.
        expected: The labels of every axis; None if only operations and shapes are compared.
    """
    if (node := detour(dense.graph, graph)) is not None:
        return node, "a narrowed network does something else here (a branch of Python on a size?)"
    if expected is None:
        single = LabelPass(net, graph, Ledger(), dense.example, dense.memo, selecting)
        if (changed := first_apart(dense, single)) is None:
            return None
        name = operation(named(changed, dense.graph))
        if name in RESHAPING:
            return changed, OTHER_CHANNELS
        return changed, SQUEEZED if name == "squeeze" else COMPUTES_ELSE
    try:
        ledger = Expectation(expected, dense.ledger.followed)
        built = label(net, graph, ledger, dense.example, training, dense.memo, selecting)
    except Mismatch as error:
        return error.node, OTHER_CHANNELS
    node = difference(dense, built)
    return None if node is None else (node, COMPUTES_ELSE)


def _interrupted(dense: fx.Graph, graph: fx.Graph) -> str | None:
    """Name of the dense graph's node that a graph which breaks off has next; None if it is another graph."""
    nodes = iter(dense.nodes)
    for node in graph.nodes:
        twin = next(nodes, None)
        if twin is None or (node.op, node.target) != (twin.op, twin.target):
            return None
    return next((str(node.name) for node in nodes if node.all_input_nodes), None)


def first_apart(dense: LabelPass, narrowed: LabelPass) -> str | None:
    """Runs a narrowed network; name of the dense graph's first node that has another shape in it, or stops it."""
    to_meta(narrowed.net)
    stopped = None
    try:
        with running(), torch.no_grad():
            narrowed.run()
    except Mismatch as error:
        stopped = error.node
    return reshaped(dense, narrowed) or stopped


def selections(draft: Survey, widths: Sequence[int], generator: random.Random) -> dict[str, list[int]]:
    """Random inputs for every gate of a point that reads several: a single one for half of the gates."""
    selected = {}
    for gate in draft.gates:
        if (inputs := draft.size(gate.form, widths)) > 1:
            count = generator.choice((1, generator.randint(1, inputs - 1)))
            selected[gate.name] = sorted(generator.sample(range(inputs), count))
    return selected


def subset(selected: Mapping[str, list[int]], gates: Sequence[str]) -> dict[str, list[int]]:
    """The selections of some gates."""
    return {gate: selected[gate] for gate in gates}


def _misshapen(
    net: nn.Module, draft: Survey, widths: Sequence[int], selected: Mapping[str, Sequence[int]]
) -> str | None:
    """Module path of a tensor that is not as large as the point says: somebody put it there."""
    gated = gated_axes(draft, selected)
    for site in draft.sites:
        path, _, name = site.tensor.rpartition(".")
        positions = gated.get((site.tensor, site.axis))
        size = draft.size(site.form, widths) if positions is None else len(positions)
        if getattr(net.get_submodule(path), name).shape[site.axis] != size:
            return path
    return None


def _bisected(fails: Callable[[Sequence[T]], Any], things: Sequence[T]) -> list[T]:
    """The things that make a network fail, which all of them do: those that do so alone; all if none does."""
    if len(things) < 2:
        return [*things]
    halves = things[: len(things) // 2], things[len(things) // 2 :]
    return [thing for half in halves if fails(half) for thing in _bisected(fails, half)] or [*things]


def standing_blocks(
    net: nn.Module, draft: Survey, graphs: Mapping[bool, fx.Graph], example: Example, trace: Trace
) -> Failure | None:
    """Finds blocks in whose absence a network does something else around them.

    Somebody may read an attribute of a block, ask for its class, or hold it in a list of Python.

    Args:
        net: A network of the surveyed kind; it is left as it is.
        draft: Its survey.
        graphs: Its graphs by mode.
        example: Its arguments, on the meta device.
        trace: How it was traced.
    """
    if trace is not traced:  # a block is built without its branch by torch.fx, which must see the same one
        unlike = {block.name: why for block in draft.blocks if (why := _unlike(net, block))}
        if unlike:
            return Failure(next(iter(unlike.values())), blocks=tuple(unlike))

    def fails(blocks: Sequence[Block]) -> str:
        inside = {path for block in blocks for path in block.chain or (block.name,)}
        modules = {path: net.get_submodule(path) for path in inside}
        try:
            for block in blocks:
                pass_through(net, block.chain or (block.name,))
            for training, before in dense.items():
                rest = trace_mode(trace, net, example, training)
                if line_of(rest, inside) != line_of(before, inside):
                    return "the network does something else without it"
        except Untraceable as error:
            return f"the network fails without it: {error}"
        finally:
            for path, module in modules.items():
                net.set_submodule(path, module)
        return ""

    dense = dict(graphs)
    if not draft.blocks or not (why := fails(draft.blocks)):
        return None
    if fails(()):  # it keeps what it computed when it was traced first
        try:
            dense = {training: trace_mode(trace, net, example, training) for training in graphs}
        except Untraceable:
            return Failure(why, blocks=tuple(block.name for block in draft.blocks))
        if not (why := fails(draft.blocks)):
            return None
    alike = sorted(draft.blocks, key=lambda block: re.sub(r"\d+", "", block.name))  # these share their fate
    blocks = _bisected(fails, alike)
    return Failure(fails(blocks[:1]) or why, blocks=tuple(block.name for block in blocks))


def _unlike(net: nn.Module, block: Block) -> str:
    """Why a block that was found in a graph of torch.export is not built as it was found; empty if it is."""
    if block.chain:
        return ""
    module = net.get_submodule(block.name)
    try:
        rest = without_branch(module)
    except Exception as error:  # whatever torch.fx or a user's forward raises
        return f"torch.fx cannot trace it: {str(error).partition(chr(10))[0]}"
    every = {f"{block.name}.{name}" for name, _ in module.named_parameters()}
    gone = every - {f"{block.name}.{name}" for name, _ in rest.named_parameters()}
    inside = tuple(f"{name}." for name in block.branch)
    return "" if gone == {n for n in every if f"{n}.".startswith(inside)} else "torch.fx sees another branch"


def line_of(graph: fx.Graph, inside: set[str]) -> list[Any]:
    """What a graph does outside some modules, to be compared."""
    outside = [
        node
        for node in graph.nodes
        if str(node.target) not in inside
        # What one of them returns may be a symbol, which is asked for its parts, or be these parts.
        and not (operation(node) == "getitem" and str(node.all_input_nodes[0].target) in inside)
        and inside.isdisjoint(path for path, _ in (node.meta.get("nn_module_stack") or {}).values())
    ]
    return structure(outside, lambda _: None)
