"""A network's graph of operations, in one of three ways, on the meta device and without side effects."""

import inspect
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunas.errors import InputError
from prunas.graphs.tracer import graph_of
from prunas.surgery.construct import layers_on_meta
from prunas.tracing.example import Example
from prunas.tracing.exported import export
from prunas.tracing.recorded import Interrupted, record
from prunas.tracing.results import MetaUndrawn
from prunas.tracing.untouched import running

__all__ = [
    "BATCH",
    "MODES",
    "OnMeta",
    "T",
    "Trace",
    "Untraceable",
    "exported",
    "given_to",
    "on_meta",
    "recorded",
    "to_meta",
    "trace_mode",
    "traced",
]

BATCH = 2
MODES = (True, False)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

T = TypeVar("T")
Trace = Callable[[nn.Module, Example, bool], fx.Graph]
"""Traces a network in its present mode: given the network, its arguments and whether source lines are wanted."""


class Untraceable(Exception):
    """One way of tracing cannot follow a network; the message says why, and where.

    Args:
        why: The first sentence of what was raised, which is the cause.
        place: The user's line where it was.
        graph: What was traced until then, if it is known.
    """

    def __init__(self, why: str, place: str, graph: fx.Graph | None = None) -> None:
        super().__init__(f"{why} ({place})" if place else why)
        self.why, self.place, self.graph = why, place, graph


class OnMeta:
    """Runs a factory on the meta device, where a network costs no memory and no time to initialise.

    A factory may read values of tensors it makes: then only its layers go there, or nothing does. The way that
    served once is the only one that is tried again.
    """

    def __init__(self) -> None:
        self._ways: Sequence[Callable[[], AbstractContextManager[Any]]] = (
            MetaUndrawn,
            layers_on_meta,
            nullcontext,
        )

    def __call__(self, make: Callable[[], T]) -> T:
        """What a function makes.

        Raises:
            Untraceable: Whatever it raises, but for `InputError`.
        """
        try:
            with torch.random.fork_rng(devices=[]):
                *first, last = self._ways
                for way in first:
                    with suppress(NotImplementedError, RuntimeError), running(), way():
                        return self._served(way, make())
                with running(), last():
                    return self._served(last, make())
        except InputError:
            raise
        except Exception as error:  # whatever a user's factory raises
            raise Untraceable(f"{type(error).__name__}: {_said(error)}", place(error)) from error

    def _served(self, way: Callable[[], AbstractContextManager[Any]], made: T) -> T:
        self._ways = (way,)
        return made


def on_meta(make: Callable[[], T]) -> T:
    """Runs a factory on the meta device; see `OnMeta`."""
    return OnMeta()(make)


def trace_mode(
    trace: Trace, net: nn.Module, example: Example, training: bool, lines: bool = False
) -> fx.Graph:
    """The graph of one mode, by one way of tracing."""
    net.train(training)
    try:
        with running():
            return trace(net, example, lines)
    except Interrupted as stop:
        error = cast(BaseException, stop.__cause__)
        raise Untraceable(_said(error), place(error), stop.graph) from error
    except Exception as error:  # whatever a user's forward raises when it is traced
        raise Untraceable(_said(error), place(error)) from error


def traced(net: nn.Module, example: Example, lines: bool) -> fx.Graph:
    """By torch.fx, further inputs having their defaults, as the call gives them."""
    given = given_to(net, example)
    fixed = {
        name: value
        for name, value in given.items()
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
    }
    graph = graph_of(net, fixed, lines)
    parameters = inspect.signature(net.forward).parameters
    for node, name in zip(graph.find_nodes(op="placeholder"), parameters, strict=False):
        node.meta["given"] = name
    return graph


def given_to(net: nn.Module, example: Example) -> dict[str, Any]:
    """What each parameter of a network's forward is in a call, but for `*args` and `**kwargs`."""
    signature = inspect.signature(net.forward)
    given = signature.bind(*example.args, **example.kwargs)
    given.apply_defaults()
    return {n: v for n, v in given.arguments.items() if signature.parameters[n].kind not in VARIADIC}


def recorded(net: nn.Module, example: Example, lines: bool) -> fx.Graph:
    """By running it on tensors without data."""
    to_meta(net)
    return record(net, example, lines)


def exported(net: nn.Module, example: Example, lines: bool) -> fx.Graph:
    """By torch.export."""
    to_meta(net)
    graph = export(net, example, lines)
    for i, node in enumerate(graph.find_nodes(op="placeholder")):
        node.meta["given"] = i
    return graph


def _said(error: BaseException) -> str:
    """The first sentence of an error, or what is behind it."""
    if any(
        frame.f_code.co_name == "pack_padded_sequence" for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        return "packed sequences are as long as values say, and a survey knows shapes only: give the padded tensor"
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__


def place(error: BaseException) -> str:
    """The line of the user's where it was raised."""
    package = Path(__file__).parents[1]
    rooms = (Path(torch.__file__).parent, package / "tracing", package / "graphs", package / "surgery")
    machinery = (*(f"{room}{os.sep}" for room in rooms), "<")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def to_meta(net: nn.Module) -> None:
    """Moves a network to the meta device, with the tensors that are plain attributes; shared ones stay shared."""
    shared: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in net.modules():
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor):
                module.__dict__[name] = value.to("meta")
        for name, parameter in module._parameters.items():
            if parameter is not None:
                shared.setdefault(id(parameter), []).append((module, name))
    net.to("meta")
    for (first, name), *others in shared.values():
        for module, other in others:
            module._parameters[other] = first._parameters[name]
