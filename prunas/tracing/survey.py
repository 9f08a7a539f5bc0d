"""The survey: trace, label, condense, record, verify."""

import copy
import dataclasses
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
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
from prunas.tracing.trace import BATCH, MODES, Trace, Untraceable, exported, on_meta, trace_mode, traced
from prunas.tracing.untouched import running, untouched
from prunas.tracing.verify import ATTEMPTS, bisected, failure, guilty, named, selections, subset
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
    """See `survey`; `watch` takes the network's own objects into care."""
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
    generator = random.Random(seed)
    standing: dict[str, str] = {}  # blocks that cannot be removed, and why
    closed: dict[str, Frozen] = {}  # gates that cannot select, and why
    narrowest, remaining, grouping = True, 1, ledger.group()  # Python may branch on a width
    draft: Survey | None = None
    for _ in range(ATTEMPTS):
        draft = draft or describe(
            net, order, shape, ledger, grouping, [*passes.values()], work, standing, closed
        )
        widths = [
            1 if narrowest else generator.randint(max(1, group.units // 3), group.units - 1)
            for group in draft.groups
        ]
        selected = selections(draft, widths, generator)
        fails = partial(failure, factory, draft, grouping, passes, trace, narrowest)
        failed = fails(widths, selected)
        if failed is not None and selected and not failed.blocks:
            unselected = fails(widths, {})
            if unselected is None:
                for gate in bisected(lambda names: fails(widths, subset(selected, names)), [*selected]):  # noqa: B023
                    why = fails(widths, subset(selected, [gate])) or failed
                    closed[gate] = Frozen(
                        gate, f"its inputs cannot be selected: {why.why}", why.place or gate
                    )
                draft = None
                continue
            failed = unselected
        if failed is None:
            remaining -= not narrowest
            narrowest = False
            if not remaining:
                return dataclasses.replace(draft, frozen=(*draft.frozen, *notes))
            continue
        if failed.blocks:
            standing |= dict.fromkeys(failed.blocks, failed.why)
            draft = None
            continue
        if failed.layer:
            ledger.forbid(failed.layer, failed.why, failed.layer)
        if failed.node is not None:
            for labelled in passes.values():
                labelled.freeze(failed.node, failed.why)
        before, grouping = grouping, ledger.group()
        if len(grouping.groups) == len(before.groups):
            for i in guilty(fails, draft, widths):  # what enters the node is held already, or it is unknown
                labels = [ledger.axes[axis][group == i] for axis, (group, _) in before.axes.items()]
                ledger.freeze(np.concatenate(labels), failed.why, failed.place)
            grouping = ledger.group()
        if len(grouping.groups) == len(before.groups):
            raise InputError(f"the network cannot be narrowed: {failed.why} at every width [{failed.place}]")
        draft, remaining = None, 3  # one point can pass by luck
    raise InputError(f"the survey did not settle after {ATTEMPTS} random points; exclude more layers")


def _labelled(
    net: nn.Module, image: Tensor, ledger: Ledger
) -> tuple[Trace, dict[bool, LabelPass], Ledger, tuple[Frozen, ...]]:
    """Traces the network and labels its channels, by torch.export if torch.fx cannot follow it.

    Args:
        net: The network, on the meta device.
        image: A batch of inputs there.
        ledger: The books so far; they are left as they are.

    Returns:
        The way of tracing, the passes by mode (train, eval; only the latter if they are alike), the books with
        what the passes noted, and what to tell of the way.
    """
    refused: list[Untraceable] = []
    for trace in (traced, exported):
        books = copy.deepcopy(ledger)
        try:
            graphs = {training: trace_mode(trace, net, image, training, lines=True) for training in MODES}
            if alike(graphs[True], graphs[False]):
                del graphs[True]
            passes: dict[bool, LabelPass] = {}
            for training, graph in graphs.items():
                try:
                    passes[training] = label(net, graph, books, image, training)
                except Mismatch as error:
                    raise _failed(net, graph, image, error) from error
        except Untraceable as error:
            refused.append(error)
            continue
        why = "torch.fx cannot trace the network, and only there are blocks found: "
        return trace, passes, books, tuple(Frozen("every block", why + e.why, e.place) for e in refused)
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
