"""Numbers that a module keeps as attributes and its `forward` views tensors by: heads, widths.

A constructor computes them from the dense widths. `self.num_heads` in `x.reshape(b, n, 3, self.num_heads, d)` says
how many heads there are; where a head goes, surgery sets the attribute of the built module, and the scale and the
size of a head, which the constructor computed too, stay. The verification sees whether it was the right one.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import fx

from prunas.tracing.ledger import Vector
from prunas.tracing.operations import where
from prunas.tracing.state import PassState

__all__ = ["follow", "follow_all", "has_heads", "heads_axis", "holding"]

HEADS = re.compile(r"heads?$|heads?_|^h$|nhead")
NO_HEADS = re.compile(r"dim|size|width|channel|hidden|scale")
NO_WIDTH = re.compile(
    r"image|img|patch|window|shift|kernel|seq|stride|grid|depth|layers|length|class|groups|padding|dilation|max_|scale|^_"
)


def _around(node: fx.Node) -> tuple[str, ...]:
    """Paths of the modules whose forward a node belongs to, the innermost first."""
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return (*reversed(stack), "")


def _attributes(
    state: PassState, node: fx.Node, size: Any, heads: bool, owners: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Attributes of the module that a node belongs to, or else of the nearest around it, that hold `size`.

    Those of `owners` come before them.

    Yields:
        The module's path and the attribute's name; of a list, with its place, as in `splits[1]`.
    """
    if not isinstance(size, int) or size < 2:
        return
    for path in (*owners, *_around(node)):
        module = state.modules.get(path)
        met = False
        for name, value in vars(module).items() if module is not None else ():
            is_heads = bool(HEADS.search(name) and not NO_HEADS.search(name))
            if is_heads != heads or (not heads and NO_WIDTH.search(name)):
                continue
            if type(value) is int and value == size:
                met = True
                yield path, name
            elif isinstance(value, list | tuple) and not heads and all(type(part) is int for part in value):
                for i in np.flatnonzero([part == size for part in value]).tolist():
                    met = True
                    yield path, f"{name}[{i}]"
        if met:
            return


def has_heads(state: PassState, node: fx.Node, size: Any) -> bool:
    """Whether a number is one of heads."""
    return next(_attributes(state, node, size, True), None) is not None


def heads_axis(state: PassState, node: fx.Node, sizes: Any, axes: list[int]) -> int | None:
    """Which of the axes of a view that channels are spread over is the one of the heads, if that is certain."""
    if not isinstance(sizes, list | tuple):
        return None
    named = [axis for axis in axes if axis < len(sizes) and has_heads(state, node, sizes[axis])]
    if len(named) > 1 and named[-1] == axes[-1]:
        named.pop()  # as many heads as a head has channels, which lie last
    return named[-1] if named else None  # three heads: behind the three of queries, keys and values


def follow(state: PassState, node: fx.Node, size: Any, labels: Vector, heads: bool = False) -> bool:
    """Notes that the attributes that hold a number count these channels, or heads; whether there are any."""
    named = list(_attributes(state, node, size, heads)) if size == len(labels) else []
    for path, name in named:
        state.ledger.follow((path, f"attribute {name}"), labels, node.name)
    return bool(named)


def holding(state: PassState, node: fx.Node, size: Any, tensor: str) -> list[tuple[str, str]]:
    """The attributes that hold the number by which a parameter or buffer is viewed, as path and name."""
    owner = tensor.rpartition(".")[0]
    return [place for heads in (True, False) for place in _attributes(state, node, size, heads, (owner,))]


def follow_all(state: PassState, node: fx.Node, sizes: Sequence[Any], parts: Sequence[Vector]) -> bool:
    """Notes that attributes hold how many channels each part has, as one list or as numbers; whether they do.

    Parts whose number no attribute holds stay as they are, if there are others.
    """
    for path in _around(node):
        for name, value in vars(state.modules[path]).items() if path in state.modules else ():
            if type(value) in (list, tuple) and list(value) == list(sizes):
                for i, labels in enumerate(parts):
                    state.ledger.follow((path, f"attribute {name}[{i}]"), labels, node.name)
                return True
    follows = [follow(state, node, size, labels) for size, labels in zip(sizes, parts, strict=True)]
    if not any(follows):
        return False
    for labels, one in zip(parts, follows, strict=True):
        if not one:
            state.ledger.freeze(labels, "it splits off as many channels as a number says", where(node))
    return True
