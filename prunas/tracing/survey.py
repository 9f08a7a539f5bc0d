"""The survey: trace, label, condense, describe, verify."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, fx, nn

from prunas.errors import InputError
from prunas.surgery.construct import Factory, construction_order
from prunas.survey import Frozen, Survey
from prunas.tracing.describe import describe
from prunas.tracing.labels import alike
from prunas.tracing.ledger import Ledger, Mismatch
from prunas.tracing.operations import where
from prunas.tracing.propagate import LabelPass, label
from prunas.tracing.refusals import forbid_shared, forbid_unmade
from prunas.tracing.settle import settled
from prunas.tracing.trace import BATCH, MODES, Trace, Untraceable, exported, on_meta, trace_mode, traced
from prunas.tracing.untouched import running, untouched
from prunas.tracing.verify import named
from prunas.tracing.work import work_of_one_image

__all__ = ["survey"]


def survey(factory: Factory, input_shape: Sequence[int], seed: int = 0) -> Survey:
    """Surveys the network that `factory` makes.

    The survey verifies itself: it builds random points in which every group is narrowed, traces them again and
    compares the channels of every layer position by position with what it expects, and the numbers and shapes of
    every operation with the dense network's. Where they differ, the channels that met there are frozen and the
    comparison is repeated.

    A network that torch.fx cannot trace is traced by torch.export; its blocks stay, and `Survey.frozen` says why.

    Args:
        factory: Returns a fresh network; the same network at every call.
        input_shape: Shape of one input without the batch, for example (3, 32, 32).
        seed: Chooses the random points of the verification.

    Raises:
        InputError: The network cannot be traced, does not accept such an input, or is another one at every call.
    """
    shape = tuple(input_shape)
    if not all(isinstance(size, int) for size in shape):
        raise InputError(f"the input shape {shape} is not one list of sizes; only one input is surveyed")
    with untouched(factory) as watch:
        return _survey(factory, shape, seed, watch)


def _survey(
    factory: Factory, shape: tuple[int, ...], seed: int, watch: Callable[[nn.Module], None]
) -> Survey:
    """See `survey`; `watch` notes what the network shares with others, to be put back."""
    ledger = Ledger()
    try:
        net, order = on_meta(lambda: construction_order(factory))
        forbid_unmade(net, order, factory, ledger)
    except Untraceable as error:
        raise InputError(f"the network cannot be made: {error}") from error
    watch(net)
    forbid_shared(net, ledger)
    types = [p.dtype for p in net.parameters() if p.dtype.is_floating_point]
    image = torch.empty(BATCH, *shape, device="meta", dtype=types[0] if types else None)
    trace, passes, ledger, notes = _labelled(net, image, ledger)
    work = work_of_one_image(net, trace, passes[False])
    draft = partial(describe, net, order, shape, ledger, passes=[*passes.values()], work=work)
    survey = settled(factory, ledger, trace, passes, draft, seed)
    return dataclasses.replace(survey, frozen=(*survey.frozen, *notes))


def _labelled(
    net: nn.Module, image: Tensor, ledger: Ledger
) -> tuple[Trace, dict[bool, LabelPass], Ledger, tuple[Frozen, ...]]:
    """Traces the network and labels its channels, by torch.export if torch.fx cannot follow it.

    Args:
        net: The network, on the meta device.
        image: A batch of inputs there.
        ledger: The labels so far; it is left as it is.

    Returns:
        The way of tracing, the passes by mode (train, eval; only the latter if they are alike), the ledger with
        what the passes entered, and what is frozen because of the way.
    """
    refused: list[Untraceable] = []
    for trace in (traced, exported):
        entered = copy.deepcopy(ledger)
        try:
            graphs = {training: trace_mode(trace, net, image, training, lines=True) for training in MODES}
            if alike(graphs[True], graphs[False]):
                del graphs[True]
            passes: dict[bool, LabelPass] = {}
            for training, graph in graphs.items():
                try:
                    passes[training] = label(net, graph, entered, image, training)
                except Mismatch as error:
                    raise _failed(net, graph, image, error) from error
        except Untraceable as error:
            refused.append(error)
            continue
        why = "torch.fx cannot trace the network, and only there are blocks found: "
        return trace, passes, entered, tuple(Frozen("every block", why + e.why, e.place) for e in refused)
    first, second = refused
    raise InputError(f"the network cannot be traced, not by torch.fx: {first}; nor by torch.export: {second}")


def _failed(net: nn.Module, graph: fx.Graph, image: Tensor, error: Mismatch) -> Untraceable | InputError:
    """What to raise for a node that fails: the input is to blame only if the network itself fails on it too."""
    cause, place = str(error.__cause__).partition("\n")[0], where(named(error.node, graph))
    with suppress(Exception), running(), torch.no_grad():
        net(image)
        return Untraceable(cause, place)
    if isinstance(error.__cause__, NotImplementedError) or "meta tensor" in cause:
        return InputError(
            f"the network reads the values of its tensors [{place}], and a survey knows shapes only: {cause}"
        )
    return InputError(
        f"the network does not accept an input of shape {tuple(image.shape[1:])}: {cause} [{place}]; give the "
        "shape of one input without the batch"
    )
