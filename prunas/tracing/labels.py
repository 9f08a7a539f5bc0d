"""What the survey knows of a value: which channels lie where along its axes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from prunas.graphs.structure import arguments
from prunas.tracing.ledger import Vector
from prunas.tracing.operations import RANDOM, operation

__all__ = [
    "Bare",
    "Channels",
    "Joined",
    "Labels",
    "Refused",
    "Spread",
    "Work",
    "alike",
    "altered",
    "axes_of",
    "is_tensor",
    "vectors",
]


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
    """What `forward` makes of parameters and buffers alone; their channel axis shows when it meets channels.

    Attributes:
        axes: By the name of each parameter or buffer: for every axis of the tensor, the axis of the parameter that
            lies along it in whole and in order, or None.
    """

    axes: Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True, slots=True)
class Joined(Bare):
    """What is made of parameters and buffers alone and joined along one axis, as a bias of its parts is.

    Attributes:
        axis: The axis along which the parts lie one after the other; `axes` says what lies along the others.
        parts: Every part, with its extent along the axis.
    """

    axis: int
    parts: tuple[tuple[Bare, int], ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What a network does for one image in eval mode.

    Attributes:
        positions: Output positions of every layer, summed over its calls.
        macs: Multiply-accumulates of the operations that are not understood, by node.
        read: Input positions of the layers that multiply these, summed over their calls.
    """

    positions: Mapping[str, int]
    macs: Mapping[fx.Node, int]
    read: Mapping[str, int]


Labels = Channels | Spread | Bare | list["Labels"] | None
"""What a node carries: None where no channel varies, a list for an operation with several results."""


def vectors(labels: Labels) -> list[Vector]:
    """The labels of a value, or of each of several results, flat."""
    if isinstance(labels, list):
        return [vector for item in labels for vector in vectors(item)]
    if isinstance(labels, Channels):
        return [labels.labels]
    return [labels.labels.numpy().ravel()] if isinstance(labels, Spread) else []


def axes_of(labels: Labels) -> list[int]:
    """The axes of a tensor along which its labels vary."""
    if isinstance(labels, Channels):
        return [labels.axis]
    if isinstance(labels, Spread):
        return [axis for axis, size in enumerate(labels.labels.shape) if size > 1]
    return []


def is_tensor(value: Any) -> bool:
    """Whether a node's value is a tensor, or a list or tuple with one in it."""
    return any(isinstance(item, Tensor) for item in (value if isinstance(value, list | tuple) else (value,)))


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
