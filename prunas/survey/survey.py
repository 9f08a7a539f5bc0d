"""The survey: trace, label, condense, record, verify."""

import copy
import dataclasses
import inspect
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from prunas.build.build import gated_axes, select_inputs, shrink
from prunas.build.construct import CONSTRUCTORS, Factory, construction_order, layers_on_meta
from prunas.build.residual import Tracer, pass_through, structure
from prunas.errors import InputError
from prunas.structure import FIXED, Block, Frozen, Survey
from prunas.survey.compare import detour, difference, reshaped
from prunas.survey.exported import export
from prunas.survey.labels import RESHAPING, LabelPass, Work, alike, altered, operation, where
from prunas.survey.ledger import Axis, Expectation, Grouping, Ledger, Mismatch, Vector
from prunas.survey.record import record
from prunas.survey.untouched import running, untouched

__all__ = ["survey"]

BATCH = 2
ATTEMPTS = 30
MODES = (True, False)
COMPUTES_ELSE = "a narrowed network computes something else here (a size used as a number?)"
OTHER_CHANNELS = "a narrowed network has other channels here than expected (a size written as a number?)"
SQUEEZED = "squeeze takes a single channel away; give it the axes that it is to take"

T = TypeVar("T")
Trace = Callable[[nn.Module, Tensor, bool], fx.Graph]
"""Traces a network in its present mode: given the network, a batch and whether source lines are wanted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a narrowed network is not the one that was expected.

    Attributes:
        why: The reason.
        place: Module path or source line, as far as it is known.
        node: Name of the node where it shows; None if the network does not even run.
        layer: Module path of the layer that is to blame, if that is known.
        blocks: Names of the blocks that are to blame.
    """

    why: str
    place: str = ""
    node: str | None = None
    layer: str = ""
    blocks: tuple[str, ...] = ()


class Untraceable(Exception):
    """One way of tracing cannot follow a network; the message says why, and where."""

    def __init__(self, why: str, place: str) -> None:
        super().__init__(f"{why} ({place})" if place else why)
        self.why, self.place = why, place


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
        net, order = _on_meta(lambda: construction_order(factory))
        _forbid_unmade(net, order, factory, ledger)
    except Untraceable as error:
        raise InputError(f"the network cannot be made: {error}") from error
    watch(net)
    _forbid_shared(net, ledger)
    types = [p.dtype for p in net.parameters() if p.dtype.is_floating_point]
    image = torch.empty(BATCH, *shape, device="meta", dtype=types[0] if types else None)
    trace, passes, ledger, notes = _labelled(net, image, ledger)
    work = _work_of_one_image(net, trace, passes[False])
    generator = random.Random(seed)
    standing: dict[str, str] = {}  # blocks that cannot be removed, and why
    closed: dict[str, Frozen] = {}  # gates that cannot select, and why
    narrowest, remaining, grouping = True, 1, ledger.group()  # Python may branch on a width
    draft: Survey | None = None
    for _ in range(ATTEMPTS):
        draft = draft or record(
            net, order, shape, ledger, grouping, [*passes.values()], work, standing, closed
        )
        widths = [
            1 if narrowest else generator.randint(max(1, group.units // 3), group.units - 1)
            for group in draft.groups
        ]
        selected = _selections(draft, widths, generator)
        fails = partial(_failure, factory, draft, grouping, passes, trace, narrowest)
        failed = fails(widths, selected)
        if failed is not None and selected and not failed.blocks:
            unselected = fails(widths, {})
            if unselected is None:
                for gate in _bisected(lambda names: fails(widths, _some(selected, names)), [*selected]):  # noqa: B023
                    why = fails(widths, _some(selected, [gate])) or failed
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
            for i in _guilty(fails, draft, widths):  # what enters the node is held already, or it is unknown
                labels = [ledger.axes[axis][group == i] for axis, (group, _) in before.axes.items()]
                ledger.freeze(np.concatenate(labels), failed.why, failed.place)
            grouping = ledger.group()
        if len(grouping.groups) == len(before.groups):
            raise InputError(f"the network cannot be narrowed: {failed.why} at every width [{failed.place}]")
        draft, remaining = None, 3  # one point can pass by luck
    raise InputError(f"the survey did not settle after {ATTEMPTS} random points; exclude more layers")


def _on_meta(make: Callable[[], T]) -> T:
    """Runs a factory on the meta device, where a network costs no memory and no time to initialise."""
    try:
        with torch.random.fork_rng(devices=[]):
            for device in (torch.device("meta"), layers_on_meta()):
                # A factory may read values of tensors it makes, then only the layers go there; or even of those.
                with suppress(NotImplementedError, RuntimeError), running(), device:
                    return make()
            with running():
                return make()
    except InputError:
        raise
    except Exception as error:  # whatever a user's factory raises
        raise Untraceable(f"{type(error).__name__}: {_said(error)}", _place(error)) from error


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
    for trace in (_traced, _exported):
        books = copy.deepcopy(ledger)
        try:
            graphs = {training: _trace(trace, net, image, training, lines=True) for training in MODES}
            if alike(graphs[True], graphs[False]):
                del graphs[True]
            passes: dict[bool, LabelPass] = {}
            for training, graph in graphs.items():
                try:
                    passes[training] = _label(net, graph, books, image, training)
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
    cause, place = str(error.__cause__).partition("\n")[0], where(_named(error.node, graph))
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


def _trace(trace: Trace, net: nn.Module, image: Tensor, training: bool, lines: bool = False) -> fx.Graph:
    net.train(training)
    try:
        with running():
            return trace(net, image, lines)
    except Exception as error:  # whatever a user's forward raises when it is traced
        raise Untraceable(_said(error), _place(error)) from error


def _traced(net: nn.Module, image: Tensor, lines: bool) -> fx.Graph:
    """By torch.fx, further inputs having their defaults, as a call with one input gives them."""
    _, *others = inspect.signature(net.forward).parameters.values()
    defaults = {other.name: other.default for other in others if other.default is not other.empty}
    return Tracer(lines).trace(net, defaults)


def _exported(net: nn.Module, image: Tensor, lines: bool) -> fx.Graph:
    """By torch.export."""
    _to_meta(net)
    return export(net, image, lines)


def _said(error: BaseException) -> str:
    """The first sentence of an error."""
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__


def _place(error: BaseException) -> str:
    """The line of the user's where it was raised."""
    house = Path(__file__).parents[1]
    own = (*map(str, (Path(torch.__file__).parent, house / "survey", house / "build")), "<")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(own)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _to_meta(net: nn.Module) -> None:
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


def _label(
    net: nn.Module,
    graph: fx.Graph,
    ledger: Ledger,
    image: Tensor,
    training: bool,
    memo: dict[str, tuple[Any, int]] | None = None,
    selecting: Mapping[str, Sequence[int]] = MappingProxyType({}),
    counting: bool = False,
) -> LabelPass:
    _to_meta(net)
    net.train(training)
    labelled = LabelPass(net, graph, ledger, image, memo, selecting, counting)
    with running(), torch.no_grad():
        labelled.run()
    return labelled


def _work_of_one_image(net: nn.Module, trace: Trace, labelled: LabelPass) -> Work:
    """What the network does for one image.

    Not every value has a batch, and what has one shows only when the number of images changes: a grid made from
    the input's size has none, a parameter expanded to the images has one, a mean over images has lost it.

    Args:
        net: The dense network.
        trace: How it is traced.
        labelled: The pass over it in eval mode, which had several images.
    """
    shape = labelled.image.shape[1:]

    def counted(images: int) -> LabelPass | None:
        image = labelled.image.new_empty(images, *shape)
        try:
            graph = labelled.graph if trace is _traced else _trace(trace, net, image, training=False)
            return _label(net, graph, Ledger(), image, False, counting=True)
        except (Mismatch, Untraceable):
            return None  # it may not take a single image: squeeze() then takes the batch away

    if (one := counted(1)) is not None:
        return Work(one.called, one.macs)
    some, twice = counted(BATCH), counted(2 * BATCH)
    if some is None or twice is None or detour(some.graph, twice.graph) is not None:
        raise InputError(f"the network takes neither 1 nor {2 * BATCH} images; its cost for one is unknown")

    def of_one(few: int, many: int) -> int:
        """From the line through both counts."""
        return few - (many - few) // BATCH * (BATCH - 1)

    twins = zip(some.graph.nodes, twice.graph.nodes, strict=True)
    macs = {node: of_one(some.macs.get(node, 0), twice.macs.get(twin, 0)) for node, twin in twins}
    return Work(
        {path: of_one(count, twice.called[path]) for path, count in some.called.items()},
        {node: count for node, count in macs.items() if count},
    )


def _named(name: str, graph: fx.Graph) -> fx.Node:
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
    return nodes[name]


def _forbid_unmade(net: nn.Module, order: Sequence[str], factory: Factory, ledger: Ledger) -> None:
    """Holds layers that the factory does not construct when it is called.

    Raises:
        InputError: The network, or part of it, is the same object at every call: it is somebody's; or it has
            lazy layers.
    """
    for path, module in net.named_modules():
        if isinstance(module, LazyModuleMixin):
            raise InputError(f"{path!r} is a lazy layer: it has no size yet; make it with its sizes")
    layers = [path for path, module in net.named_modules() if isinstance(module, tuple(CONSTRUCTORS))]
    unmade = set(layers).difference(order)
    if unmade or not all(parameter.is_meta for parameter in net.parameters()):
        known = {id(module): path for path, module in net.named_modules()}
        for module in _on_meta(lambda: construction_order(factory))[0].modules():
            if id(module) in known:
                part = f" with {known[id(module)]!r} in it" if known[id(module)] else ""
                raise InputError(
                    f"the network's factory returns a network{part} that was made before; it must make a new one "
                    "at every call, as `lambda: Net()` does"
                )
    for path in sorted(unmade):
        ledger.forbid(path, "the factory copies it instead of constructing it", path)


def _forbid_shared(net: nn.Module, ledger: Ledger) -> None:
    """Holds modules that have several names, parameters that live elsewhere too or are computed, or hooks."""
    owners: dict[int, str] = {}
    names: dict[int, list[str]] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        if next(module.parameters(), None) is not None:
            names.setdefault(id(module), []).append(path)
    for path, *others in names.values():
        if others:
            ledger.forbid(path, f"it is also called {others[0]}", path)
    for path, module in net.named_modules():
        if parametrize.is_parametrized(module) or hasattr(module, "weight_g"):
            ledger.forbid(path, "its weight is parametrised", path)
        elif why := altered(module):
            ledger.forbid(path, why, path)
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), path)
            if other != path:
                ledger.forbid(path, f"it shares its weight with {other}", path)
                ledger.forbid(other, f"it shares its weight with {path}", other)


def _failure(
    factory: Factory,
    draft: Survey,
    grouping: Grouping,
    passes: Mapping[bool, LabelPass],
    trace: Trace,
    narrowest: bool,
    widths: Sequence[int],
    selected: Mapping[str, Sequence[int]],
) -> Failure | None:
    """Builds a point and compares it with what is expected of it.

    Args:
        factory: Of the dense network.
        draft: The survey to verify.
        grouping: What it was recorded from.
        passes: Over the dense network, by the mode it was traced in.
        trace: How.
        narrowest: Whether only operations and shapes are compared, and the operations without blocks: a single
            channel does not show where it goes.
        widths: The point.
        selected: Positions of the inputs that pass each gate that selects.
    """
    limit = np.array([*widths, 1])  # the last one serves FIXED, whose units are all 0
    start = np.cumsum([0, *(group.units for group in draft.groups)])
    expected: dict[Axis, Vector] = {}
    for axis, (group, unit) in grouping.axes.items():
        labels = np.where(group == FIXED, FIXED, start[group] + unit)
        expected[axis] = labels[unit < limit[group]]
    for name, positions in selected.items():
        norm = draft.gate_named[name].norm
        narrower = [(name, "inner")] if norm is None else [(norm, "writes"), (name, "reads"), (name, "inner")]
        expected |= {axis: expected[axis][list(positions)] for axis in narrower}
    counts = {gate: len(positions) for gate, positions in selected.items()}
    try:
        net = _on_meta(lambda: shrink(factory, draft, widths, counts))
        selecting = select_inputs(net, draft, selected)
        if path := _misshapen(net, draft, widths, selected):
            why = "its factory gives it tensors of a size of their own"
            return Failure(why, path, layer=path)
        graphs: dict[bool, fx.Graph] = {}
        for training, dense in passes.items():
            graph = graphs[training] = _trace(trace, net, dense.image, training)
            if (node := detour(dense.graph, graph)) is not None:
                why = "a narrowed network does something else here (a branch of Python on a size?)"
                return Failure(why, where(_named(node, dense.graph)), node)
            if narrowest:
                single = LabelPass(net, graph, Ledger(), dense.image, dense.memo, selecting)
                if (changed := _apart(dense, single)) is not None:
                    apart = _named(changed, dense.graph)
                    why = COMPUTES_ELSE
                    if operation(apart) in RESHAPING:
                        why = OTHER_CHANNELS
                    elif operation(apart) == "squeeze":
                        why = SQUEEZED
                    return Failure(why, where(apart), changed)
                continue
            ledger = Expectation(expected)
            built = _label(net, graph, ledger, dense.image, training, dense.memo, selecting)
            if (node := difference(dense, built)) is not None:
                return Failure(COMPUTES_ELSE, where(_named(node, dense.graph)), node)
        return _stuck(net, draft, graphs, dense.image) if narrowest else None
    except Mismatch as error:
        return Failure(OTHER_CHANNELS, where(_named(error.node, graph)), error.node)
    except Untraceable as error:
        return Failure(f"a narrowed network fails: {error.why}", error.place)


def _apart(dense: LabelPass, narrowed: LabelPass) -> str | None:
    """Runs a narrowed network; name of the dense graph's first node that has another shape in it, or stops it."""
    _to_meta(narrowed.net)
    stopped = None
    try:
        with running(), torch.no_grad():
            narrowed.run()
    except Mismatch as error:
        stopped = error.node
    return reshaped(dense, narrowed) or stopped


def _selections(draft: Survey, widths: Sequence[int], generator: random.Random) -> dict[str, list[int]]:
    """Random inputs for every gate of a point that reads several: a single one for half of the gates."""
    selected = {}
    for gate in draft.gates:
        if (inputs := draft.size(gate.form, widths)) > 1:
            count = generator.choice((1, generator.randint(1, inputs - 1)))
            selected[gate.name] = sorted(generator.sample(range(inputs), count))
    return selected


def _some(selected: Mapping[str, list[int]], gates: Sequence[str]) -> dict[str, list[int]]:
    return {gate: selected[gate] for gate in gates}


def _misshapen(
    net: nn.Module, draft: Survey, widths: Sequence[int], selected: Mapping[str, Sequence[int]]
) -> str | None:
    """Module path of a tensor that is not as large as the point says: somebody put it there."""
    gated = gated_axes(draft, selected)
    for site in draft.sites:
        path, _, name = site.tensor.rpartition(".")
        positions = gated.get((site.tensor, site.axis))
        size = draft.size(site.form, widths) if positions is None else len(positions)
        if getattr(net.get_submodule(path), name).shape[site.axis] != size:
            return path
    return None


def _guilty(
    fails: Callable[[Sequence[int], Mapping[str, list[int]]], Failure | None],
    draft: Survey,
    widths: Sequence[int],
) -> list[int]:
    """The groups that make a point fail when they are narrowed and the others are not; all if none does alone."""

    return _bisected(
        lambda part: fails(
            [widths[i] if i in part else group.units for i, group in enumerate(draft.groups)], {}
        ),
        range(len(draft.groups)),
    )


def _bisected(fails: Callable[[Sequence[T]], Any], things: Sequence[T]) -> list[T]:
    """The things that make a point fail, which all of them do: those that do so alone; all if none does."""
    if len(things) < 2:
        return [*things]
    halves = things[: len(things) // 2], things[len(things) // 2 :]
    return [thing for half in halves if fails(half) for thing in _bisected(fails, half)] or [*things]


def _stuck(net: nn.Module, draft: Survey, graphs: Mapping[bool, fx.Graph], image: Tensor) -> Failure | None:
    """Finds blocks in whose absence a network does something else around them.

    Somebody may read an attribute of a block, ask for its class, or hold it in a list of Python.

    Args:
        net: A network of the surveyed kind; it is left as it is.
        draft: Its survey.
        graphs: Its graphs by mode.
        image: A batch of inputs on the meta device.
    """

    def fails(blocks: Sequence[Block]) -> str:
        inside = {path for block in blocks for path in block.chain or (block.name,)}
        own = {path: net.get_submodule(path) for path in inside}
        try:
            for block in blocks:
                pass_through(net, block.chain or (block.name,))
            rest = {training: _trace(_traced, net, image, training) for training in graphs}
        except Untraceable as error:
            return f"the network fails without it: {error}"
        finally:
            for path, module in own.items():
                net.set_submodule(path, module)
        changed = any(
            _around(rest[training], inside) != _around(graphs[training], inside) for training in rest
        )
        return "the network does something else without it" if changed else ""

    if not draft.blocks or not (why := fails(draft.blocks)):
        return None
    guilty = _bisected(fails, draft.blocks)
    return Failure(fails(guilty[:1]) or why, blocks=tuple(block.name for block in guilty))


def _around(graph: fx.Graph, inside: set[str]) -> list[Any]:
    """What a graph does outside some modules, to be compared."""
    outside = [
        node
        for node in graph.nodes
        if str(node.target) not in inside
        # What one of them returns may be a symbol, which is asked for its parts, or be these parts.
        and not (operation(node) == "getitem" and str(node.all_input_nodes[0].target) in inside)
        and inside.isdisjoint(path for path, _ in (node.meta.get("nn_module_stack") or {}).values())
    ]
    return structure(outside, lambda _: None)
