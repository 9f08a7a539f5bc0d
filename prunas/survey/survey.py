"""The survey: trace, label, condense, verify, write down."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from prunas.build.build import fingerprint, shrink
from prunas.build.construct import Factory, construction_order
from prunas.build.layers import SELECTING, ChannelPad
from prunas.build.residual import Tracer, residual, without_branch
from prunas.errors import InputError
from prunas.structure import FIXED, Block, Form, Frozen, Gate, Group, Layer, Row, Site, Survey
from prunas.survey.labels import CONVOLUTIONS, NORMS, LabelPass, operation
from prunas.survey.ledger import Axis, Expectation, Grouping, Ledger, Mismatch, Vector

__all__ = ["survey"]

BATCH = 2
ATTEMPTS = 30
PASSING = frozenset({"relu", "flatten", "dropout", "mean", "contiguous"})
"""Functions a gate may look through on its way up to the norm that serves its reader alone."""


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
        InputError: The network cannot be traced, or does not accept such an input.
    """
    net, order = _on_meta(factory)
    traces = _trace(net)
    ledger = Ledger()
    _forbid_shared(net, ledger)
    passes = [_label(net, graph, ledger, input_shape, training) for training, graph in traces]
    grouping = ledger.group()
    draft = _record(net, order, tuple(input_shape), grouping, passes)
    generator = random.Random(seed)
    remaining = 1
    for _ in range(ATTEMPTS):
        if not remaining:
            return draft
        failed = _disagreement(factory, draft, grouping, input_shape, generator)
        if failed is None:
            remaining -= 1
            continue
        for labelled in passes:
            ledger.freeze(
                labelled.at.get(failed, np.empty(0, np.int64)),
                "a narrowed network has other channels here than expected (a size written as a number?)",
                failed,
            )
        before, grouping = grouping, ledger.group()
        if len(grouping.units) == len(before.units):
            raise InputError(f"the network cannot be narrowed: the node {failed!r} fails at every width")
        draft = _record(net, order, tuple(input_shape), grouping, passes)
        remaining = 3  # one point can pass by luck
    raise InputError(f"the survey did not settle after {ATTEMPTS} random points; exclude more layers")


def _on_meta(factory: Factory) -> tuple[nn.Module, tuple[str, ...]]:
    """The network on the meta device, where it costs no memory and no time to initialise."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return construction_order(factory)
        except (NotImplementedError, RuntimeError):  # a factory that reads values of tensors it makes
            net, order = construction_order(factory)
            return net.to("meta"), order


def _trace(net: nn.Module) -> list[tuple[bool, fx.Graph]]:
    """The graphs in train and eval mode; only the latter if they are the same."""
    graphs = []
    for training in (True, False):
        net.train(training)
        try:
            graphs.append((training, Tracer().trace(net)))
        except Exception as error:
            raise InputError(f"the network cannot be traced: {str(error).splitlines()[0]}") from error
    return graphs[1:] if str(graphs[0][1]) == str(graphs[1][1]) else graphs


def _label(
    net: nn.Module, graph: fx.Graph, ledger: Ledger, input_shape: Sequence[int], training: bool
) -> LabelPass:
    net.train(training)
    labelled = LabelPass(net, graph, ledger, [torch.empty(BATCH, *input_shape, device="meta")])
    try:
        with torch.no_grad():
            labelled.run()
    except Mismatch as error:
        if isinstance(ledger, Expectation):
            raise
        cause = str(error.__cause__).splitlines()[0]
        raise InputError(
            f"the network does not accept an input of shape {tuple(input_shape)}: {cause}"
        ) from error
    return labelled


def _forbid_shared(net: nn.Module, ledger: Ledger) -> None:
    """Holds layers whose parameters live elsewhere too, are computed, or are watched by hooks."""
    owners: dict[int, str] = {}
    for path, module in net.named_modules():
        if parametrize.is_parametrized(module) or hasattr(module, "weight_g"):
            ledger.forbid(path, "its weight is parametrised", path)
        elif list(module.children()):
            continue
        elif module._forward_hooks or module._forward_pre_hooks:
            ledger.forbid(path, "it has forward hooks", path)
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), path)
            if other != path:
                ledger.forbid(path, f"it shares its weight with {other}", path)
                ledger.forbid(other, f"it shares its weight with {path}", other)


def _disagreement(
    factory: Factory, draft: Survey, grouping: Grouping, shape: Sequence[int], generator: random.Random
) -> str | None:
    """Builds a random point and compares its channels with the expected ones; the node where they differ."""
    widths = [generator.randint(max(1, group.units // 3), group.units - 1) for group in draft.groups]
    unit = {
        int(label): (sum(len(u) for u in grouping.units[:g]) + i, i < widths[g])
        for g, labels in enumerate(grouping.units)
        for i, label in enumerate(labels)
    }
    expected: dict[Axis, Vector] = {}
    for axis, labels in grouping.axes.items():
        numbered = [unit.get(label, (FIXED, True)) for label in labels.tolist()]
        expected[axis] = np.array([number for number, kept in numbered if kept], np.int64)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            net = shrink(factory, draft, widths)
    except (NotImplementedError, RuntimeError):
        with torch.random.fork_rng(devices=[]):
            net = shrink(factory, draft, widths).to("meta")
    try:
        for training, graph in _trace(net):
            _label(net, graph, Expectation(expected), shape, training)
    except Mismatch as error:
        return error.node
    return None


@dataclass(frozen=True)
class _Forms:
    """Interned forms: equal ones share an index."""

    index: dict[Form, int]

    def of(self, form: Form) -> int:
        return self.index.setdefault(form, len(self.index))


def _record(
    net: nn.Module,
    order: tuple[str, ...],
    input_shape: tuple[int, ...],
    grouping: Grouping,
    passes: Sequence[LabelPass],
) -> Survey:
    """Writes down what a grouping means."""
    forms = _Forms({})
    inference = passes[-1]
    blocks, refused = _blocks(net, inference)
    maps, stage_of = _stages(inference, blocks)
    layers = []
    called = {path: positions for labelled in passes for path, positions in labelled.called.items()}
    called = {path: inference.called.get(path, 0) for path in called}
    for path, positions in called.items():
        module = inference.modules[path]
        reads, writes = (forms.of(grouping.forms[path, side]) for side in ("reads", "writes"))
        stage = stage_of.get(path, len(maps))
        if isinstance(module, CONVOLUTIONS):
            depthwise = module.groups > 1 and module.groups == module.in_channels
            kernel = tuple(module.kernel_size)
            layer = Layer(path, "conv", stage, reads, writes, kernel, module.groups, depthwise, positions)
        elif isinstance(module, nn.Linear):
            layer = Layer(path, "linear", stage, reads, writes, positions=positions)
        else:
            kind = (
                "pad"
                if isinstance(module, ChannelPad)
                else "prelu"
                if isinstance(module, nn.PReLU)
                else "norm"
            )
            layer = Layer(path, kind, stage, reads, writes)  # type: ignore[arg-type]  # one of the three
        layers.append(layer)
    gates = _gates(inference, grouping, forms, stage_of, len(maps))
    sites, rows = _sites_and_rows(net, grouping, forms, layers, gates, blocks)
    names: dict[str, int] = {}
    groups = []
    for units, origins, statistical, concatenated in zip(
        grouping.units, grouping.origins, grouping.statistical, grouping.concatenated, strict=True
    ):
        first = origins[0]
        names[first] = names.get(first, 0) + 1
        name = first if names[first] == 1 else f"{first}#{names[first]}"
        occurs = int((grouping.axes[first, "writes"] == units[0]).sum())
        role = "residual" if len(origins) > 1 else "concatenated" if concatenated else "plain"
        stage = stage_of.get(first, len(maps))
        groups.append(Group(name, len(units), occurs, stage, role, not statistical))  # type: ignore[arg-type]
    return Survey(
        input=input_shape,
        fingerprint=fingerprint(net),
        order=order,
        groups=tuple(groups),
        gates=tuple(gates),
        blocks=tuple(blocks),
        frozen=(*grouping.frozen, *refused),
        stages=(*maps, ()),
        forms=tuple(forms.index),
        layers=tuple(layers),
        sites=tuple(sites),
        rows=tuple(rows),
    )


def _blocks(net: nn.Module, inference: LabelPass) -> tuple[list[Block], list[Frozen]]:
    """Every module that is a shortcut plus one branch, innermost ones only."""
    found: dict[str, Block] = {}
    refused = []
    calls = [str(n.target) for n in inference.graph.nodes if n.op == "call_module"]
    for path, module in reversed(list(net.named_modules())):
        if not path or isinstance(module, nn.Sequential | nn.ModuleList) or not list(module.children()):
            continue
        if any(inner.startswith(f"{path}.") for inner in found):
            continue
        here = residual(module)
        branch = tuple(f"{path}.{name}" for name in here.branch) if here else ()
        if not branch or any(calls.count(name) != 1 for name in branch):
            continue
        try:
            without_branch(module)
        except ValueError as error:
            refused.append(Frozen(path, f"its branch cannot be removed: {error}", path))
            continue
        found[path] = Block(path, 0, branch)
    in_order = sorted(found.values(), key=lambda block: calls.index(block.branch[0]))
    return in_order, refused


def _stages(inference: LabelPass, blocks: list[Block]) -> tuple[list[tuple[int, ...]], dict[str, int]]:
    """Feature-map sizes in order, and the stage of every layer; see `Layer.stage`.

    A layer inside a residual branch takes the size of the branch's output. A layer on a smaller map than one
    that comes later (squeeze and excitation) takes the later one's. Fills in the stage of every block.
    """
    size: dict[str, tuple[int, ...]] = {}
    for node in inference.graph.nodes:
        value = inference.values[node]
        if node.op == "call_module" and str(node.target) in inference.called and isinstance(value, Tensor):
            linear = isinstance(inference.modules[str(node.target)], nn.Linear | nn.LayerNorm)
            size[str(node.target)] = tuple(value.shape[1:-1] if linear else value.shape[2:])
    for block in blocks:
        inside = [path for path in block.branch if path in size]
        for path in inside:
            size[path] = size[inside[-1]]
    largest: tuple[int, ...] = ()
    for path in reversed(size):
        if not size[path] and not largest:
            continue
        largest = max(size[path], largest, key=math.prod) if size[path] else largest
        size[path] = largest
    maps = sorted({shape for shape in size.values() if shape}, key=math.prod, reverse=True)
    stage_of = {path: maps.index(shape) if shape else len(maps) for path, shape in size.items()}
    for i, block in enumerate(blocks):
        blocks[i] = Block(block.name, stage_of[next(p for p in block.branch if p in size)], block.branch)
    return maps, stage_of


def _gates(
    inference: LabelPass, grouping: Grouping, forms: _Forms, stage_of: dict[str, int], head: int
) -> list[Gate]:
    """Convolutions and linear layers that read channels which another one reads too."""
    modules = inference.modules
    readers: dict[int, set[str]] = {}
    dense = [path for path in inference.called if (path, "inner") in grouping.axes]
    for path in dense:
        for label in set(grouping.axes[path, "reads"].tolist()):
            readers.setdefault(label, set()).add(path)
    calls: dict[str, list[fx.Node]] = {}
    for node in inference.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    gates = []
    for path in dense:
        module = modules[path]
        shared = any(len(readers[label]) > 1 for label in set(grouping.axes[path, "reads"].tolist()))
        if (
            not shared
            or getattr(module, "groups", 1) != 1
            or len(calls[path]) != 1
            or type(module) not in SELECTING
        ):
            continue
        norm = None
        node = calls[path][0].all_input_nodes[0]
        while len(node.users) == 1 and len(node.all_input_nodes) == 1:
            target = str(node.target)
            if node.op == "call_module" and isinstance(modules[target], NORMS):
                if len(calls[target]) == 1 and type(modules[target]) in SELECTING:
                    norm = target
                break
            passing = target in modules and not (set(dict(modules[target].named_parameters())))
            if not (node.op == "call_module" and passing) and not _passing(node):
                break
            node = node.all_input_nodes[0]
        form = forms.of(grouping.forms[path, "reads"])
        gates.append(Gate(path, norm, form, stage_of.get(path, head)))
    return gates


def _passing(node: fx.Node) -> bool:
    return node.op != "call_module" and (operation(node) in PASSING or "pool" in operation(node))


def _sites_and_rows(
    net: nn.Module,
    grouping: Grouping,
    forms: _Forms,
    layers: Sequence[Layer],
    gates: Sequence[Gate],
    blocks: Sequence[Block],
) -> tuple[list[Site], list[Row]]:
    modules = dict(net.named_modules())
    by_norm = {gate.norm: gate.name for gate in gates if gate.norm}
    by_reader = {gate.name for gate in gates}
    inside: dict[str, list[int]] = {}
    for i, block in enumerate(blocks):
        for path in block.branch:
            inside.setdefault(path, []).append(i)
    sites, rows = [], []
    counted: set[str] = set()
    for layer in layers:
        module, within = modules[layer.path], tuple(inside.get(layer.path, ()))
        tensors = {
            **dict(module.named_parameters(recurse=False)),
            **dict(module.named_buffers(recurse=False)),
        }
        inner = grouping.forms.get((layer.path, "inner"))
        for name, tensor in tensors.items():
            full = f"{layer.path}.{name}"
            if tensor.ndim:
                sites.append(Site(full, 0, layer.writes))
            if name == "weight" and inner is not None:
                sites.append(Site(full, 1, forms.of(inner)))
            if isinstance(tensor, nn.Parameter):
                counted.add(full)
        if "weight" in tensors and layer.kind in ("conv", "linear"):
            area = math.prod(layer.kernel)
            gate = layer.path if layer.path in by_reader else None
            reads = FIXED if inner is None else forms.of(inner)
            conv = layer.kind == "conv"
            rows.append(
                Row(layer.path, reads, layer.writes, area, area * layer.positions, gate, None, within, conv)
            )
            if "bias" in tensors:
                rows.append(Row(layer.path, FIXED, layer.writes, 1, 0, blocks=within))
        elif count := sum(isinstance(tensor, nn.Parameter) for tensor in tensors.values()):
            norm_gate = by_norm.get(layer.path)
            rows.append(Row(layer.path, FIXED, layer.writes, count, 0, None, norm_gate, within))
    constant = 0
    for name, parameter in net.named_parameters():
        if name in counted:
            continue
        bare = [(int(axis), form) for (owner, axis), form in grouping.forms.items() if owner == name]
        if not bare:
            constant += parameter.numel()
            continue
        (axis, form), *_ = bare
        sites.append(Site(name, axis, forms.of(form)))
        rows.append(Row(name, FIXED, forms.of(form), parameter.numel() // parameter.shape[axis], 0))
    if constant:
        rows.append(Row("other parameters", FIXED, FIXED, constant, 0))
    return sites, rows
