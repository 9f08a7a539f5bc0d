"""What the survey knows of a value: which channels lie where along its axes."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, fx, nn

from prunas.graphs.structure import arguments
from prunas.tracing.ledger import Vector
from prunas.tracing.operations import RANDOM, operation

__all__ = ["Bare", "Channels", "Labels", "Refused", "Spread", "Work", "alike", "altered"]


@dataclass(frozen=True, slots=True)
class Channels:
    """The labels of a tensor: `labels` along `axis` (from 0); the other axes are the same everywhere."""

    axis: int
    labels: Vector


@dataclass(frozen=True, slots=True)
class Spread:
    """Labels that vary along several axes of a tensor; `labels` has extent 1 along all others."""

    labels: Tensor


@dataclass(frozen=True, slots=True)
class Bare:
    """A parameter or buffer read by `forward` itself; its channel axis shows when it meets a labelled tensor."""

    name: str
    value: Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """What a network does for one image in eval mode.

    Attributes:
        positions: Output positions of every layer, summed over its calls.
        macs: Multiply-accumulates of the operations that are not understood, by node.
    """

    positions: Mapping[str, int]
    macs: Mapping[fx.Node, int]


Labels = Channels | Spread | Bare | list["Channels | Spread | None"] | None
"""What a node carries: None where no channel varies, a list for an operation with several results."""


def altered(module: nn.Module) -> str:
    """What makes a module do something else than its class says, if anything does."""
    if "forward" in vars(module):
        return "its forward was replaced"
    return "it has forward hooks" if module._forward_hooks or module._forward_pre_hooks else ""


class Refused(Exception):
    """An operation whose channels cannot be followed; the message says why."""


def alike(first: fx.Graph, second: fx.Graph) -> bool:
    """Whether two graphs differ in nothing but the arguments of random element-wise layers."""
    place: dict[fx.Node, int] = {}
    if len(first.nodes) != len(second.nodes):
        return False
    for i, (one, two) in enumerate(zip(first.nodes, second.nodes, strict=True)):
        place[one] = place[two] = i
        sources = [[place[n] for n in node.all_input_nodes] for node in (one, two)]
        if (one.op, one.target) != (two.op, two.target) or sources[0] != sources[1]:
            return False
        if one.op == "call_function" and operation(one) in RANDOM:
            continue
        if arguments(one, place.__getitem__) != arguments(two, place.__getitem__):
            return False
    return True
