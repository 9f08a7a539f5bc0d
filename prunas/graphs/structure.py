"""Graphs compared by what they compute: without messages and symbols that name nodes."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

__all__ = ["arguments", "structure"]
SYMBOL = re.compile(r"Proxy\(\w+\)")
"""How torch.fx writes a symbol into a text: by the name of its node, which is numbered anew in every graph."""


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
