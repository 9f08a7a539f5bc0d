"""The survey: trace, label, condense, describe, verify."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import fx, nn

from prunas.errors import InputError
from prunas.inputs import Inputs
from prunas.surgery.assemble import shrink
from prunas.surgery.construct import Factory, construction_order
from prunas.survey import Survey
from prunas.tracing.describe import describe
from prunas.tracing.example import Example, sample
from prunas.tracing.labels import alike
from prunas.tracing.ledger import Ledger, Mismatch
from prunas.tracing.operations import where
from prunas.tracing.part import check_rest, in_whole, look_at_rest, part_of
from prunas.tracing.propagate import LabelPass, label, stops_short
from prunas.tracing.refusals import forbid_outside, forbid_shared, forbid_unmade, hold_uneven
from prunas.tracing.settle import settled
from prunas.tracing.trace import (
    BATCH,
    MODES,
    OnMeta,
    Trace,
    Untraceable,
    exported,
    given_to,
    recorded,
    trace_mode,
    traced,
)
from prunas.tracing.untouched import running, untouched
from prunas.tracing.verify import named
from prunas.tracing.work import work_of_one_image

__all__ = ["survey"]

WAYS = (traced, recorded, exported)
"""The ways of tracing, in the order in which they are tried."""


def survey(
    factory: Factory,
    inputs: Sequence[int] | Inputs,
    seed: int = 0,
    part: str = "",
    part_inputs: Sequence[int] | Inputs | None = None,
) -> Survey:
    """Surveys the network that `factory` makes, or a part of it.

    The survey verifies itself: it builds random points in which every group is narrowed, traces them again and
    compares the channels of every layer position by position with what it expects, and the numbers and shapes of
    every operation with the dense network's. Where they differ, the channels that met there are frozen and the
    comparison is repeated.

    A network that torch.fx cannot trace is recorded, and one that cannot be recorded is traced by torch.export.

    Args:
        factory: Returns a fresh network; the same network at every call.
        inputs: What it is called with; or the shape of one input without the batch, for example (3, 32, 32).
        seed: Chooses the random points of the verification.
        part: Module path of the submodule that varies; its inputs and outputs are held, and the rest is as it is.
            Without it, all of the network varies.
        part_inputs: What the part is called with, where that does not show when the network runs once.

    Raises:
        InputError: The network cannot be traced, does not accept such an input, or is another one at every call;
            or there is no such part.
    """
    called_with = Inputs.of(inputs)
    with untouched(factory) as watch:
        if part:
            return _survey_of_part(factory, called_with, part, part_inputs, seed, watch)
        return _survey(factory, called_with, None, seed, watch)


def _survey(
    factory: Factory,
    inputs: Inputs,
    given: Example | None,
    seed: int,
    watch: Callable[[nn.Module], None],
    outside: Callable[[Ledger], None] = lambda ledger: None,
) -> Survey:
    """See `survey`.

    Args:
        factory: Returns a fresh network.
        inputs: What it is called with.
        given: The same with tensors for one image, if it is known.
        seed: Chooses the random points.
        watch: Notes what the network shares with others, to be put back.
        outside: Holds what others use, in a ledger.
    """
    ledger = Ledger()
    on_meta = OnMeta()
    net, order = _made(factory, on_meta)
    forbid_unmade(net, order, factory, ledger)
    watch(net)
    forbid_shared(net, ledger)
    outside(ledger)
    if given is None:
        types = [p.dtype for p in net.parameters() if p.dtype.is_floating_point]
        given = sample(inputs, 1, dtype=types[0] if types else None, device="meta")
    try:
        given_to(net, given)
    except TypeError as error:
        raise InputError(
            f"the network's forward is called with {inputs}, and that does not fit: {error}; name what it takes, "
            "as in input = [{ x = [3, 32, 32] }, { y = [10] }]"
        ) from error
    trace, passes, ledger = _labelled(net, given.of(BATCH), ledger)
    hold_uneven(factory, ledger, [*passes.values()])
    work = work_of_one_image(net, trace, passes[False])
    draft = partial(describe, net, order, inputs, ledger, passes=[*passes.values()], work=work)
    return settled(factory, on_meta, ledger, trace, passes, draft, seed)


def _made(factory: Factory, on_meta: OnMeta) -> tuple[nn.Module, tuple[str, ...]]:
    """The network without data, and the order in which its layers are made."""
    try:
        return on_meta(lambda: construction_order(factory))
    except Untraceable as error:
        raise InputError(f"the network cannot be made: {error}") from error


def _survey_of_part(
    factory: Factory,
    inputs: Inputs,
    part: str,
    part_inputs: Sequence[int] | Inputs | None,
    seed: int,
    watch: Callable[[nn.Module], None],
) -> Survey:
    """See `survey`."""
    net, order = _made(factory, OnMeta())
    watch(net)
    part_of(net, part)
    rest = look_at_rest(factory, part, inputs, part_inputs)
    outside = partial(forbid_outside, net, part, rest.reached)
    survey = _survey(lambda: part_of(factory(), part), inputs, rest.example, seed, watch, outside)
    lifted = in_whole(survey, net, part, order, inputs, rest)
    narrow = [-(-group.units // 2) for group in lifted.groups]
    check_rest(lambda: shrink(factory, lifted, narrow), part, inputs, rest)
    return lifted


def _labelled(
    net: nn.Module, example: Example, ledger: Ledger
) -> tuple[Trace, dict[bool, LabelPass], Ledger]:
    """Traces the network and labels its channels, in the first of the three ways that can follow it.

    Args:
        net: The network, on the meta device.
        example: Its arguments there.
        ledger: The labels so far; it is left as it is.

    Returns:
        The way of tracing, the passes by mode (train, eval; only the latter if they are alike), and the ledger
        with what the passes entered.
    """
    refused: dict[Trace, Untraceable] = {}
    ways = [*WAYS]
    for trace in ways:
        entered = copy.deepcopy(ledger)
        try:
            graphs = {training: trace_mode(trace, net, example, training, lines=True) for training in MODES}
            if trace is traced and len(ways) == len(WAYS) and any(map(stops_short, graphs.values())):
                ways.insert(2, traced)  # what stops torch.fx, the recorder may go into
                continue
            if alike(graphs[True], graphs[False]):
                del graphs[True]
            passes: dict[bool, LabelPass] = {}
            for training, graph in graphs.items():
                try:
                    passes[training] = label(net, graph, entered, example, training)
                except Mismatch as error:
                    raise _failed(net, graph, example, error) from error
        except Untraceable as error:
            refused[trace] = error
            continue
        return trace, passes, entered
    symbols, run, last = (refused[way] for way in WAYS)
    raise InputError(
        f"the network cannot be traced, not by torch.fx: {symbols}; nor by running it without data: {run}; nor by "
        f"torch.export: {last}"
    )


def _failed(net: nn.Module, graph: fx.Graph, example: Example, error: Mismatch) -> Untraceable | InputError:
    """What to raise for a node that fails: the input is to blame only if the network itself fails on it too."""
    cause, place = str(error.__cause__).partition("\n")[0], where(named(error.node, graph))
    with suppress(Exception), running(), torch.no_grad():
        example.call(net)
        return Untraceable(cause, place)
    if isinstance(error.__cause__, NotImplementedError) or "meta tensor" in cause:
        return InputError(
            f"the network reads the values of its tensors [{place}], and a survey knows shapes only: {cause}"
        )
    return InputError(
        f"the network does not accept an input of shape {example}: {cause} [{place}]; give the "
        "shape of one input without the batch"
    )
