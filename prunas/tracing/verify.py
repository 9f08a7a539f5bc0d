"""A survey checks itself: random points are built, traced again and compared label by label."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from prunas.graphs.structure import structure
from prunas.surgery.assemble import select_inputs, shrink
from prunas.surgery.construct import DerivedSize, Factory
from prunas.surgery.remove import pass_through, without_branch
from prunas.surgery.weights import gated_axes
from prunas.survey import FIXED, Block, Survey
from prunas.tracing.compare import detour, difference, reshaped
from prunas.tracing.example import Example
from prunas.tracing.ledger import Axis, Expectation, Grouping, Ledger, Mismatch, Vector
from prunas.tracing.operations import RESHAPING, operation, where
from prunas.tracing.propagate import LabelPass, label
from prunas.tracing.trace import T, Trace, Untraceable, on_meta, to_meta, trace_mode, traced
from prunas.tracing.untouched import running

__all__ = ["Failure", "bisected", "failing_groups", "failure", "named", "selections", "subset"]
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
    """

    why: str
    place: str = ""
    node: str | None = None
    layer: str = ""
    blocks: tuple[str, ...] = ()
    made: bool = True


def named(name: str, graph: fx.Graph) -> fx.Node:
    """The node of a graph by its name."""
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
    return nodes[name]


def failure(
    factory: Factory,
    draft: Survey,
    grouping: Grouping,
    passes: Mapping[bool, LabelPass],
    trace: Trace,
    narrowest: bool,
    widths: Sequence[int],
    selected: Mapping[str, Sequence[int]],
    blocks: bool = True,
) -> Failure | None:
    """Builds a point and compares it with what is expected of it.

    Args:
        factory: Of the dense network.
        draft: The survey to verify.
        grouping: What it was recorded from.
        passes: Over the dense network, by the mode it was traced in.
        trace: How.
        narrowest: Whether only operations and shapes are compared, and the operations without blocks: a single
            channel does not show where it goes.
        widths: The point.
        selected: Positions of the inputs that pass each gate that selects.
        blocks: Whether the operations without blocks are compared at all.
    """
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
    counts = {gate: len(positions) for gate, positions in selected.items()}
    try:
        net = on_meta(lambda: shrink(factory, draft, widths, counts))
    except Untraceable as error:
        return Failure(f"a narrowed network fails: {error.why}", error.place, made=False)
    except DerivedSize:
        why = "the network's factory computes the size of another layer from it; give that size as a number"
        return Failure(why, made=False)
    try:
        selecting = select_inputs(net, draft, selected)
        if path := _misshapen(net, draft, widths, selected):
            why = "its factory gives it tensors of a size of their own"
            return Failure(why, path, layer=path)
        graphs: dict[bool, fx.Graph] = {}
        for training, dense in passes.items():
            graph = graphs[training] = trace_mode(trace, net, dense.example, training)
            if (node := detour(dense.graph, graph)) is not None:
                why = "a narrowed network does something else here (a branch of Python on a size?)"
                return Failure(why, where(named(node, dense.graph)), node)
            if narrowest:
                single = LabelPass(net, graph, Ledger(), dense.example, dense.memo, selecting)
                if (changed := first_apart(dense, single)) is not None:
                    apart = named(changed, dense.graph)
                    why = COMPUTES_ELSE
                    if operation(apart) in RESHAPING:
                        why = OTHER_CHANNELS
                    elif operation(apart) == "squeeze":
                        why = SQUEEZED
                    return Failure(why, where(apart), changed)
                continue
            ledger = Expectation(expected, dense.ledger.followed)
            built = label(net, graph, ledger, dense.example, training, dense.memo, selecting)
            if (node := difference(dense, built)) is not None:
                return Failure(COMPUTES_ELSE, where(named(node, dense.graph)), node)
        return standing_blocks(net, draft, graphs, dense.example, trace) if narrowest and blocks else None
    except Mismatch as error:
        return Failure(OTHER_CHANNELS, where(named(error.node, graph)), error.node)
    except Untraceable as error:
        return Failure(f"a narrowed network fails: {error.why}", error.place)


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


def failing_groups(
    fails: Callable[..., Failure | None],
    draft: Survey,
    widths: Sequence[int],
) -> list[int]:
    """The groups that make a point fail when they alone are narrowed; all if none does alone."""

    return bisected(
        lambda part: fails(
            [widths[i] if i in part else group.units for i, group in enumerate(draft.groups)],
            {},
            blocks=False,
        ),
        range(len(draft.groups)),
    )


def bisected(fails: Callable[[Sequence[T]], Any], things: Sequence[T]) -> list[T]:
    """The things that make a point fail, which all of them do: those that do so alone; all if none does."""
    if len(things) < 2:
        return [*things]
    halves = things[: len(things) // 2], things[len(things) // 2 :]
    return [thing for half in halves if fails(half) for thing in bisected(fails, half)] or [*things]


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
            rest = {training: trace_mode(trace, net, example, training) for training in graphs}
        except Untraceable as error:
            return f"the network fails without it: {error}"
        finally:
            for path, module in modules.items():
                net.set_submodule(path, module)
        changed = any(
            line_of(rest[training], inside) != line_of(graphs[training], inside) for training in rest
        )
        return "the network does something else without it" if changed else ""

    if not draft.blocks or not (why := fails(draft.blocks)):
        return None
    blocks = bisected(fails, draft.blocks)
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
