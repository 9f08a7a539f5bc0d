"""The survey: trace, label, condense, record, verify."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from prunas.build.build import shrink
from prunas.build.construct import Factory, construction_order
from prunas.build.residual import Tracer
from prunas.errors import InputError
from prunas.structure import FIXED, Survey
from prunas.survey.labels import LabelPass
from prunas.survey.ledger import Axis, Expectation, Grouping, Ledger, Mismatch, Vector
from prunas.survey.record import record

__all__ = ["survey"]

BATCH = 2
ATTEMPTS = 30

T = TypeVar("T")


def survey(factory: Factory, input_shape: Sequence[int], seed: int = 0) -> Survey:
    """Surveys the network that `factory` makes.

    The survey verifies itself: it builds random points in which every group is narrowed, traces them again and
    compares the channels of every layer position by position with what it expects. Where they differ, the
    channels that met there are frozen and the comparison is repeated.

    Args:
        factory: Returns a fresh network; the same network at every call.
        input_shape: Shape of one input without the batch, for example (3, 32, 32).
        seed: Chooses the random points of the verification.

    Raises:
        InputError: The network cannot be traced, does not accept such an input, or is another one at every call.
    """
    shape = tuple(input_shape)
    image = torch.empty(BATCH, *shape, device="meta")
    net, order = _on_meta(lambda: construction_order(factory))
    traces = _traces(net)
    ledger = Ledger()
    _forbid_shared(net, ledger)
    passes = []
    for training, graph in traces.items():
        try:
            passes.append(_label(net, graph, ledger, image, training))
        except Mismatch as error:
            cause = str(error.__cause__).partition("\n")[0]
            raise InputError(f"the network does not accept an input of shape {shape}: {cause}") from error
    generator = random.Random(seed)
    remaining, grouping = 1, ledger.group()
    for _ in range(ATTEMPTS):
        draft = record(net, order, shape, ledger, grouping, passes)
        failed = _disagreement(factory, draft, grouping, image, list(traces), generator)
        if failed is None:
            remaining -= 1
            if not remaining:
                return draft
            continue
        why = "a narrowed network has other channels here than expected (a size written as a number?)"
        for labelled in passes:
            labelled.freeze(failed, why)
        before, grouping = grouping, ledger.group()
        if len(grouping.groups) == len(before.groups):
            raise InputError(f"the network cannot be narrowed: the node {failed!r} fails at every width")
        remaining = 3  # one point can pass by luck
    raise InputError(f"the survey did not settle after {ATTEMPTS} random points; exclude more layers")


def _on_meta(make: Callable[[], T]) -> T:
    """Runs a factory on the meta device, where a network costs no memory and no time to initialise."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make()
        except (NotImplementedError, RuntimeError):  # a factory that reads values of tensors it makes
            return make()


def _traces(net: nn.Module) -> dict[bool, fx.Graph]:
    """The graphs in train and eval mode, in that order; only the latter if they are the same."""
    graphs = {training: _trace(net, training, lines=not training) for training in (True, False)}
    if str(graphs[True]) == str(graphs[False]):
        return {False: graphs[False]}
    return {True: _trace(net, True, lines=True), False: graphs[False]}


def _trace(net: nn.Module, training: bool, lines: bool = False) -> fx.Graph:
    net.train(training)
    try:
        return Tracer(lines).trace(net)
    except Exception as error:  # whatever a user's forward raises when it is traced
        raise InputError(f"the network cannot be traced: {str(error).partition(chr(10))[0]}") from error


def _label(net: nn.Module, graph: fx.Graph, ledger: Ledger, image: Tensor, training: bool) -> LabelPass:
    net.to("meta").train(training)
    labelled = LabelPass(net, graph, ledger, image)
    with torch.no_grad():
        labelled.run()
    return labelled


def _forbid_shared(net: nn.Module, ledger: Ledger) -> None:
    """Holds layers whose parameters live elsewhere too, are computed, or are watched by hooks."""
    owners: dict[int, str] = {}
    for path, module in net.named_modules():
        if parametrize.is_parametrized(module) or hasattr(module, "weight_g"):
            ledger.forbid(path, "its weight is parametrised", path)
        elif module._forward_hooks or module._forward_pre_hooks:
            ledger.forbid(path, "it has forward hooks", path)
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), path)
            if other != path:
                ledger.forbid(path, f"it shares its weight with {other}", path)
                ledger.forbid(other, f"it shares its weight with {path}", other)


def _disagreement(
    factory: Factory,
    draft: Survey,
    grouping: Grouping,
    image: Tensor,
    modes: Sequence[bool],
    generator: random.Random,
) -> str | None:
    """Builds a random point and compares its channels with the expected ones; the node where they differ."""
    widths = [generator.randint(max(1, group.units // 3), group.units - 1) for group in draft.groups]
    limit = np.array([*widths, 1])  # the last one serves FIXED, whose units are all 0
    start = np.cumsum([0, *(group.units for group in draft.groups)])
    expected: dict[Axis, Vector] = {}
    for axis, (group, unit) in grouping.axes.items():
        labels = np.where(group == FIXED, FIXED, start[group] + unit)
        expected[axis] = labels[unit < limit[group]]
    net = _on_meta(lambda: shrink(factory, draft, widths))
    try:
        for training in modes:
            _label(net, _trace(net, training), Expectation(expected), image, training)
    except Mismatch as error:
        return error.node
    return None
