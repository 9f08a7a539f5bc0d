"""Writes down what a grouping means: groups, layers, gates, blocks, stages, costs and all, as plain data."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from torch import nn

from prunas.graphs.layers import ChannelPad
from prunas.inputs import Inputs
from prunas.surgery.assemble import fingerprint
from prunas.survey import FIXED, Attribute, Block, ChannelMap, CostTerm, Frozen, Gate, Group, Layer, Survey
from prunas.tracing.blocks import find_blocks
from prunas.tracing.gates import find_gates
from prunas.tracing.labels import Work
from prunas.tracing.ledger import Grouping, Ledger
from prunas.tracing.operations import CONVOLUTIONS, TRANSPOSED
from prunas.tracing.propagate import LabelPass
from prunas.tracing.refusals import unfollowed
from prunas.tracing.stages import Stages, find_stages
from prunas.tracing.terms import Terms

__all__ = ["describe"]


def describe(
    net: nn.Module,
    order: tuple[str, ...],
    inputs: Inputs,
    ledger: Ledger,
    grouping: Grouping,
    passes: Sequence[LabelPass],
    work: Work,
    standing: Mapping[str, str],
    closed: Mapping[str, Frozen],
) -> Survey:
    """The survey of a network.

    Args:
        net: The network.
        order: Module path of every layer with channel counts in the order of construction.
        inputs: What it is called with.
        ledger: The labels.
        grouping: What they condense to.
        passes: The last one is the one in eval mode.
        work: What the network does for one image.
        standing: Blocks that cannot be removed, and why.
        closed: Gates that cannot select, and why.
    """
    forms: dict[ChannelMap, int] = {}

    def form(channels: ChannelMap) -> int:
        """The index of a form; equal ones share it."""
        return forms.setdefault(channels, len(forms))

    branches, standing_blocks = find_blocks(net, ledger, passes, standing)
    called = list(dict.fromkeys(path for labelled in passes for path in labelled.called))
    stages = find_stages(passes[-1], called)
    blocks = []
    for branch in branches:
        numbers = [stages.number[path] for path in branch.weights if path in stages.number]
        stage = numbers[0] if numbers else len(stages.maps)
        blocks.append(Block(branch.name, stage, branch.weights, branch.chain))
    layers = []
    for path in called:
        reads, writes = (form(grouping.forms[path, side]) for side in ("reads", "writes"))
        module, positions = passes[-1].modules[path], work.positions.get(path, 0)
        depthwise = isinstance(module, CONVOLUTIONS + TRANSPOSED) and ledger.is_depthwise(path, module)
        layers.append(_layer(path, module, stages.of(path), reads, writes, depthwise, positions))
    norms, closed_gates = find_gates(called, ledger, grouping, passes, closed)
    gates = [
        Gate(path, norm, form(grouping.forms[path, "reads"]), stages.of(path)) for path, norm in norms.items()
    ]
    terms = Terms(net, grouping, form, gates, blocks, work.read)
    for layer in layers:
        terms.add_layer(layer)
    terms.add_rest()
    terms.add_operations(work.macs, [branch.branch.nodes for branch in branches])
    attributes = _attributes(grouping, form)
    surveyed = {axis.tensor for axis in terms.axes}
    return Survey(
        input=inputs.shapes[0],
        inputs=None if inputs.plain else inputs,
        fingerprint=fingerprint(net),
        order=order,
        groups=tuple(_groups(grouping, stages)),
        gates=tuple(gates),
        blocks=tuple(blocks),
        frozen=(
            *_with_shares(grouping, terms.products, tuple(forms)),
            *standing_blocks,
            *closed_gates,
            *unfollowed(net, ledger, passes, surveyed),
        ),
        stages=(*stages.maps, ()),
        forms=tuple(forms),
        layers=tuple(layers),
        sites=tuple(terms.axes),
        rows=tuple(terms.products),
        attributes=attributes,
    )


def _with_shares(
    grouping: Grouping, products: Sequence[CostTerm], forms: Sequence[ChannelMap]
) -> list[Frozen]:
    """What is held, with the parameters and multiply-accumulates that never vary for it."""
    params, macs = [Counter[int]() for _ in range(2)]
    for product in products:
        factors = [forms[i] for i in (product.reads, product.writes) if i != FIXED]
        if product.gate_reads or product.gate_writes or any(run.group != FIXED for f in factors for run in f):
            continue
        sides = ("writes", "reads", "inner", "0", "1")
        holders = (grouping.holders.get((product.layer, side)) for side in sides)
        if (holder := next((i for i in holders if i is not None), None)) is not None:
            size = math.prod(sum(run.length * run.repeat for run in factor) for factor in factors)
            params[holder] += product.params * size
            macs[holder] += product.macs * size
    return [
        dataclasses.replace(frozen, params=params[i], macs=macs[i])
        for i, frozen in enumerate(grouping.frozen)
    ]


def _attributes(grouping: Grouping, form: Callable[[ChannelMap], int]) -> tuple[Attribute, ...] | None:
    """The attributes of modules that count channels which vary."""
    attributes = tuple(
        Attribute(path, side.removeprefix("attribute "), form(channels))
        for (path, side), channels in grouping.forms.items()
        if side.startswith("attribute ") and any(run.group != FIXED for run in channels)
    )
    return attributes or None


def _groups(grouping: Grouping, stages: Stages) -> list[Group]:
    """The groups, each named after the first layer that produces its channels."""
    names: Counter[str] = Counter()
    groups = []
    for i, condensed in enumerate(grouping.groups):
        first = condensed.origins[0]
        names[first] += 1
        name = first if names[first] == 1 else f"{first}#{names[first]}"
        group, unit = grouping.axes[first, "writes"]
        occurs = max(1, int(((group == i) & (unit == 0)).sum()))  # what is inside a layer is not written
        role: Literal["plain", "residual", "concatenated"] = "plain"
        if len(condensed.origins) > 1:
            role = "residual"
        elif condensed.concatenated:
            role = "concatenated"
        groups.append(Group(name, condensed.units, occurs, stages.of(first), role, not condensed.mixed))
    return groups


def _layer(
    path: str, module: nn.Module, stage: int, reads: int, writes: int, depthwise: bool, positions: int
) -> Layer:
    """One layer; only a convolution is depthwise, and only what multiplies has positions."""
    if isinstance(module, CONVOLUTIONS):
        kernel = tuple(module.kernel_size)
        return Layer(path, "conv", stage, reads, writes, kernel, module.groups, depthwise, positions)
    if isinstance(module, TRANSPOSED):
        return Layer(
            path,
            "transposed",
            stage,
            reads,
            writes,
            tuple(module.kernel_size),
            module.groups,
            depthwise,
            positions,
        )
    if isinstance(module, nn.Linear):
        return Layer(path, "linear", stage, reads, writes, positions=positions)
    if isinstance(module, nn.Embedding):
        return Layer(path, "embedding", stage, reads, writes)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return Layer(path, "recurrent", stage, reads, writes)
    if isinstance(module, ChannelPad):
        return Layer(path, "pad", stage, reads, writes)
    return Layer(path, "prelu" if isinstance(module, nn.PReLU) else "norm", stage, reads, writes)
