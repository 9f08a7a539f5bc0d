"""What a network is made of, as plain data: the outcome of a survey.

Nothing here needs torch. `prunas.tracing` makes a `Survey`; `prunas.costs.counted` does arithmetic on it,
`prunas.surgery` builds networks by it, `prunas.spaces.space` bounds it.

The one idea to know is the *form*: how the channels along one axis of a tensor come from groups. A form is a
sequence of runs (group, start, length, repeat): units start, start+1, ... start+length-1 of the group, each
`repeat` times in a row. Group -1 stands for channels that never vary. A flatten of 512 channels of 7 x 7 is one
run with repeat 49; the input of a grouped convolution is one run per convolution group over the same units.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from prunas.errors import InputError, unknown
from prunas.files import digest
from prunas.inputs import Inputs

__all__ = [
    "FIXED",
    "Attribute",
    "Block",
    "ChannelAxis",
    "ChannelMap",
    "CostTerm",
    "Frozen",
    "Gate",
    "Group",
    "Layer",
    "Part",
    "Span",
    "Survey",
]

FORMAT = 1
FIXED = -1
"""The group index of channels that never vary."""


class Span(NamedTuple):
    """Consecutive channels of one group along an axis; see the module's docstring."""

    group: int
    start: int
    length: int
    repeat: int


ChannelMap = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that must be narrowed together, wherever they occur.

    Attributes:
        name: Module path of its first producer, with `#2`, `#3` for further groups of the same producer.
        units: Width in the dense network.
        unit: Channels of the first producer that one unit stands for (one per group of a grouped convolution).
        stage: Ordinal of the feature-map size its first producer writes, from 0.
        role: `residual` when sums tie several producers, `concatenated` when a concatenation reads it, else
            `plain`. Stage means are taken per role.
        maskable: False when a norm runs over the channels (layer norm): then narrowing changes its statistics
            and no masked dense network computes the same function.
    """

    name: str
    units: int
    unit: int
    stage: int
    role: Literal["plain", "residual", "concatenated"]
    maskable: bool = True


@dataclass(frozen=True, slots=True)
class Gate:
    """The input side of a layer that reads a stream which other layers read too.

    Attributes:
        name: Module path of the reading convolution or linear layer.
        norm: Module path of the norm that serves this reader alone and is selected with it, or None.
        form: Index of the form of its input.
        stage: Stage of the reading layer.
    """

    name: str
    norm: str | None
    form: int
    stage: int


@dataclass(frozen=True, slots=True)
class Block:
    """A shortcut plus a branch; the branch can be removed.

    Attributes:
        name: Module path of the enclosing module; of a module with several branches, that path and the modules of
            this one, as in `layers.0.norm2+mlp`.
        stage: Stage of its output.
        branch: Module paths inside the branch, which go with it.
        chain: Of a module with several branches, the module paths that make this one, in order: without it they
            pass their input on, and the last one adds nothing.
    """

    name: str
    stage: int
    branch: tuple[str, ...]
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frozen:
    """Something that cannot vary, and why.

    Attributes:
        what: The layers whose channels stay as they are.
        why: The operation or rule that holds them.
        where: Module path and source line.
        params: Parameters that never vary for this reason.
        macs: Multiply-accumulates for one image, likewise.
    """

    what: str
    why: str
    where: str
    params: int = 0
    macs: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A module whose constructor takes channel counts.

    Attributes:
        path: Module path.
        kind: `conv`, `linear`, `norm`, `prelu`, `pad`, `embedding`, `transposed` (a transposed convolution) or
            `recurrent` (an LSTM, a GRU, an RNN of Elman's, or a cell of one).
        stage: Its stage; layers behind the last feature map have the last stage plus one.
        reads: Index of the form of its input channels.
        writes: Index of the form of its output channels.
        kernel: Kernel extent per spatial axis, empty where there is none.
        groups: For convolutions, convolution groups in the dense network; else 1.
        depthwise: Whether the number of convolution groups follows the width.
        positions: Output positions per image, summed over all calls in eval mode.
    """

    path: str
    kind: Literal["conv", "linear", "norm", "prelu", "pad", "embedding", "transposed", "recurrent"]
    stage: int
    reads: int
    writes: int
    kernel: tuple[int, ...] = ()
    groups: int = 1
    depthwise: bool = False
    positions: int = 0


@dataclass(frozen=True, slots=True)
class ChannelAxis:
    """One channel axis of one tensor of the state dict.

    Attributes:
        tensor: Name in the state dict.
        axis: The axis.
        form: Index of the form along it.
    """

    tensor: str
    axis: int
    form: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """A number of channels, or of heads, that a module keeps and its `forward` reads.

    Attributes:
        module: Module path.
        name: Name of the attribute; of a list, with the place, as in `splits[1]`.
        form: Index of the form that it counts.
    """

    module: str
    name: str
    form: int


@dataclass(frozen=True, slots=True)
class CostTerm:
    """One product of the cost: params * size(reads) * size(writes) while no block in `blocks` is removed.

    Attributes:
        layer: Module path, or the name of an operation without parameters.
        reads: Index of the form of the first factor, or -1 for the constant 1.
        writes: Index of the form of the second factor, or -1.
        params: Parameters per product.
        macs: Multiply-accumulates per product and image, eval mode.
        gate_reads: Name of the gate that replaces the first factor, or None.
        gate_writes: Name of the gate that replaces the second factor, or None.
        blocks: Indices of the blocks whose removal takes the row away.
        weight: Whether the row counts the weights of a convolution, which a kernel pattern thins.
    """

    layer: str
    reads: int
    writes: int
    params: int
    macs: int
    gate_reads: str | None = None
    gate_writes: str | None = None
    blocks: tuple[int, ...] = ()
    weight: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """The submodule that varies, and what the rest of the network is.

    Attributes:
        path: Its module path; names in the survey begin with it.
        params: Parameters of the rest.
        macs: Multiply-accumulates of the rest for one image in eval mode, those of `uncounted` left out.
        activations: Outputs of the rest's convolutions and linear layers, likewise.
        uncounted: Modules of the rest whose work is not counted.
        why: It is not.
    """

    path: str
    params: int
    macs: int
    activations: int
    uncounted: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        """What a reader of a cost or a target should know."""
        missing = f"; {', '.join(self.uncounted)} not counted: {self.why}" if self.uncounted else ""
        return (
            f"only {self.path} varies; params, MACs and targets are the whole network's, {self.params:,} params "
            f"and {self.macs:,} MACs of which lie outside it{missing}"
        )


@dataclass(frozen=True)
class Survey:
    """Everything that can vary in a network, what is tied to what, and what it costs.

    Attributes:
        input: Shape of one input, without the batch; of the first one if there are several.
        fingerprint: Digest of the dense network's parameter and buffer names and shapes.
        order: Module path of every layer with channel counts in the order of construction, see `prunas.surgery`.
        groups: In the order of their first producers.
        gates: In the order of the reading layers.
        blocks: In the order of their sums.
        frozen: What cannot vary.
        stages: Feature-map size per stage, largest map first; a last empty entry for layers behind the last map.
        forms: See the module's docstring; others refer to them by index.
        layers: Modules with channel counts, in the order of execution.
        sites: Every channel axis in the state dict.
        rows: The cost.
        inputs: What the network is called with, where that is more than one tensor of its own type.
        part: The submodule that varies, where that is not the network.
        attributes: Numbers that modules keep and that follow their channels, if there are any.
    """

    input: tuple[int, ...]
    fingerprint: str
    order: tuple[str, ...]
    groups: tuple[Group, ...]
    gates: tuple[Gate, ...]
    blocks: tuple[Block, ...]
    frozen: tuple[Frozen, ...]
    stages: tuple[tuple[int, ...], ...]
    forms: tuple[ChannelMap, ...]
    layers: tuple[Layer, ...]
    sites: tuple[ChannelAxis, ...]
    rows: tuple[CostTerm, ...]
    inputs: Inputs | None = None
    part: Part | None = None
    attributes: tuple[Attribute, ...] | None = None

    @property
    def called_with(self) -> Inputs:
        """What the network is called with."""
        return self.inputs or Inputs((self.input,))

    @cached_property
    def group_index(self) -> Mapping[str, int]:
        """Position of each group by name."""
        return {group.name: i for i, group in enumerate(self.groups)}

    @cached_property
    def gate_named(self) -> Mapping[str, Gate]:
        """Gates by name."""
        return {gate.name: gate for gate in self.gates}

    @cached_property
    def layer_at(self) -> Mapping[str, Layer]:
        """Layers by module path."""
        return {layer.path: layer for layer in self.layers}

    @cached_property
    def block_index(self) -> Mapping[str, int]:
        """Position of each block by name."""
        return {block.name: i for i, block in enumerate(self.blocks)}

    @cached_property
    def blocks_of(self) -> Mapping[str, frozenset[int]]:
        """For each module path inside a branch, the blocks whose removal takes it away."""
        inside: dict[str, set[int]] = {}
        for i, block in enumerate(self.blocks):
            for path in block.branch:
                inside.setdefault(path, set()).add(i)
        return {path: frozenset(blocks) for path, blocks in inside.items()}

    @cached_property
    def group_blocks(self) -> tuple[frozenset[int], ...]:
        """For each group, the blocks that hold all its layers: removing one leaves nothing of the group."""
        held: dict[int, frozenset[int]] = {}
        for layer in self.layers:
            blocks = self.blocks_of.get(layer.path, frozenset())
            for run in (*self.forms[layer.reads], *self.forms[layer.writes]):
                held[run.group] = held.get(run.group, blocks) & blocks
        return tuple(held.get(i, frozenset()) for i in range(len(self.groups)))

    def size(self, form: int, widths: Sequence[int]) -> int:
        """Channels along an axis.

        Args:
            form: Index of the form.
            widths: Units of every group, in the order of `groups`.
        """
        return sum(
            run.repeat
            * (
                run.length
                if run.group == FIXED
                else _overlap(run, widths[run.group], self.groups[run.group].units)
            )
            for run in self.forms[form]
        )

    def positions(self, form: int, kept: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """Which positions of a dense axis survive, ascending.

        Args:
            form: Index of the form.
            kept: For every group, in the order of `groups`, the units that are kept.
        """
        parts, offset = [np.empty(0, np.int64)], 0
        for run in self.forms[form]:
            units = np.arange(run.length)
            if run.group != FIXED:
                units = kept[run.group]
                units = np.sort(units[(units >= run.start) & (units < run.start + run.length)]) - run.start
            parts.append(offset + (units[:, None] * run.repeat + np.arange(run.repeat)).ravel())
            offset += run.length * run.repeat
        return np.concatenate(parts)

    def to_json(self) -> dict[str, Any]:
        """A compact JSON document; what is not there is left out."""
        fields = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}
        return {"format": FORMAT} | {
            name: _plain(value) for name, value in fields.items() if value is not None
        }

    @classmethod
    def from_json(cls, document: Any, source: str = "survey") -> "Survey":
        """The survey `to_json` wrote.

        Args:
            document: The parsed JSON.
            source: What to call the document in an error, usually its path.

        Raises:
            InputError: A field is unknown, missing or damaged, or the format is not this one's.
        """
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InputError(f"{source}: not a survey of format {FORMAT}; survey the network again")
        known = [spec.name for spec in dataclasses.fields(cls)]
        values: dict[str, Any] = {}
        try:
            for name, value in document.items():
                if name in RECORDS:
                    values[name] = tuple(RECORDS[name](*map(_frozen, fields)) for fields in value)
                elif name in SINGLE:
                    values[name] = SINGLE[name](*map(_frozen, value))
                elif name == "forms":
                    values[name] = tuple(tuple(Span(*run) for run in form) for form in value)
                elif name in known:
                    values[name] = _frozen(value)
                elif name != "format":
                    raise unknown("survey field", name, known)
            return cls(**values)
        except TypeError as error:
            raise InputError(f"{source}: damaged ({error}); survey the network again") from error

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits over the whole survey."""
        return digest(self.to_json())


RECORDS: Mapping[str, type] = {
    "groups": Group,
    "gates": Gate,
    "blocks": Block,
    "frozen": Frozen,
    "layers": Layer,
    "sites": ChannelAxis,
    "rows": CostTerm,
    "attributes": Attribute,
}
"""Fields of a survey that hold records, which JSON keeps as lists."""


SINGLE: Mapping[str, type] = {"inputs": Inputs, "part": Part}
"""Fields that are one record."""


def _overlap(run: Span, width: int, units: int) -> int:
    """Units of a run that exist when the group has `width` instead of `units`; the last run has what is more.

    A group's runs always cover it whole within an axis, so that which units are kept does not matter to the sum.
    """
    end = run.start + run.length
    return max(0, min(max(end, width) if end == units else end, width) - run.start)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return [_plain(getattr(value, spec.name)) for spec in dataclasses.fields(value)]
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
