"""What the widths decide besides channels: sizes that became numbers, and branches of Python taken by them."""

from fractions import Fraction
from itertools import zip_longest
from typing import Any

from torch import Tensor, fx

from prunas.graphs.structure import arguments
from prunas.tracing.labels import Channels, Labels, Spread, axes_of
from prunas.tracing.operations import CREATION, FUNCTIONAL, RESHAPING, SPLITTING, along, functional, operation
from prunas.tracing.propagate import LabelPass

__all__ = ["detour", "difference", "reshaped"]

ARITHMETIC = frozenset({"floordiv", "truediv", "mul", "add", "sub"})
"""What is done to a channel count, by the number of heads that an attribute holds, say."""
SIZES = frozenset({"normalized_shape", "num_groups", "groups"})
"""Arguments of a layer's function that are sizes of its channels."""


def detour(dense: fx.Graph, narrowed: fx.Graph) -> str | None:
    """Name of the first node of the dense graph whose operation is another one in the narrowed graph, or None."""
    node: fx.Node | None
    twin: fx.Node | None
    for node, twin in zip_longest(dense.nodes, narrowed.nodes):
        if node is None or twin is None or (node.op, node.target) != (twin.op, twin.target):
            return str((node or dense.output_node()).name)
    return None


def difference(dense: LabelPass, narrowed: LabelPass) -> str | None:
    """Finds where a narrowed network computes something else than the dense one, both having the same operations.

    They must be on the same operands with the same numbers, and give tensors of the same shape but for channels.
    So `h * h.shape[1] ** -0.5` is found, which a trace may hold as a constant.

    Returns:
        Name of the first node of the dense graph that differs, or None.
    """
    place: dict[fx.Node, int] = {}
    for i, (node, twin) in enumerate(zip(dense.graph.nodes, narrowed.graph.nodes, strict=True)):
        operand = next(iter(node.all_input_nodes), None)
        before = (dense.labels[operand], dense.values[operand]) if operand else (None, None)
        sized = node in dense.counts or (operation(node) in CREATION and dense.labels[node] is not None)
        if _arguments(node, dense, place, before, sized) != _arguments(twin, narrowed, place, before, sized):
            return str(node.name)
        if node.op != "output" and _reshaped(dense.labels[node], dense.values[node], narrowed.values[twin]):
            return str(node.name)
        place[node] = place[twin] = i
    return None


def reshaped(dense: LabelPass, narrowed: LabelPass) -> str | None:
    """Name of the first node of the dense graph whose result has another shape in the narrowed network.

    Channels aside, as in `difference`. Both must have the same operations; the narrowed network may have stopped.
    """
    for node, twin in zip(dense.graph.nodes, narrowed.graph.nodes, strict=True):
        if node.op == "output" or twin not in narrowed.values:
            return None
        if _reshaped(dense.labels[node], dense.values[node], narrowed.values[twin]):
            return str(node.name)
    return None


def _reshaped(carried: Labels, value: Any, built: Any) -> bool:
    """Whether two results have different shapes apart from their channels."""
    values = value if isinstance(value, list | tuple) else [value]
    others = built if isinstance(built, list | tuple) else [built]
    labels = carried if isinstance(carried, list) else [carried] * len(values)
    return len(values) != len(others) or any(
        one.ndim != two.ndim or _shape(one, label) != _shape(two, label)
        for one, two, label in zip(values, others, labels, strict=True)
        if isinstance(one, Tensor) and (label is None or isinstance(label, Channels | Spread))
    )


def _shape(value: Any, labels: Channels | Spread | None) -> list[int]:
    """A tensor's shape without the axes that its channels vary along."""
    axes = axes_of(labels)
    return [size for axis, size in enumerate(value.shape) if axis not in axes]


def _arguments(
    node: fx.Node,
    labelled: LabelPass,
    place: dict[fx.Node, int],
    before: tuple[Labels, Any],
    counted: bool,
) -> Any:
    """The arguments of a node, its operands by their places, without sizes of channels.

    Args:
        node: Of either network.
        labelled: The pass over it.
        place: Of the nodes before it.
        before: Labels and value of its first operand in the dense network, which say where channels lie: in the
            narrowed one, a single head may hide that.
        counted: Whether its result in the dense network counts channels, or is made with as many.
    """
    args, kwargs = arguments(node, lambda operand: operand)
    name, (labels, value) = operation(node), before
    taken = args[1] if name == "getitem" and isinstance(args[1], tuple) else ()
    if taken and isinstance(labels, Channels) and all(isinstance(part, int | slice) for part in taken):
        # Which channels it takes shows in the labels.
        args = args[0], tuple(part for axis, part in enumerate(taken) if axis != labels.axis)
    if node in labelled.cuts and isinstance(taken := args[1], slice):
        size = labelled.values[args[0]].shape[0]
        start, stop, _ = taken.indices(size)
        args = args[0], (Fraction(start, size), Fraction(stop, size))
    if functional(node, labelled.modules):
        args = tuple(arg for arg, known in zip(args, FUNCTIONAL[name][1], strict=False) if known not in SIZES)
        kwargs = {key: value for key, value in kwargs.items() if key not in SIZES}
    # Their numbers are sizes, which show in the result: of a view, or of one that is given what is computed here.
    sized = name in RESHAPING or (name in ARITHMETIC | CREATION and counted)
    if name in SPLITTING and isinstance(labels, Channels):
        axis = along(node)
        sized = isinstance(axis, int) and axis % value.ndim == labels.axis
    return _plain((args, kwargs), place, sized)


def _plain(argument: Any, place: dict[fx.Node, int], sized: bool) -> Any:
    if isinstance(argument, fx.Node):
        return "node", place[argument]
    if isinstance(argument, slice):
        return "slice", _plain((argument.start, argument.stop, argument.step), place, sized)
    if isinstance(argument, dict):
        return {key: _plain(part, place, sized) for key, part in argument.items()}
    if isinstance(argument, list | tuple):
        return [_plain(part, place, sized) for part in argument]
    return None if sized and isinstance(argument, int) else argument
