"""The algebra of a space's points: what lies in it, canonical form, counts, targets."""

import fnmatch
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.target import Target
from prunas.errors import InputError, unknown
from prunas.recipe import finite
from prunas.spaces.presets import evenly_spaced
from prunas.survey import Survey

if TYPE_CHECKING:
    from prunas.spaces.space import SearchSpace

__all__ = [
    "canonical_point",
    "check_patterns",
    "check_point",
    "counted_point",
    "counts_of",
    "inside_removed",
    "target_of",
]


def check_patterns(space: "SearchSpace") -> None:
    """Refuses patterns of [vary] that match nothing in the network.

    Raises:
        InputError: The message names the pattern.
    """
    survey = space.survey
    groups, gates, blocks = (
        [part.name for part in parts] for parts in (survey.groups, survey.gates, survey.blocks)
    )
    for key, patterns, names in (
        ("groups", space.groups, groups),
        ("gates", space.gates, gates),
        ("blocks", space.blocks, blocks),
        ("exclude", space.exclude, [*groups, *gates, *blocks]),
    ):
        for pattern in patterns:
            if pattern != "*" and not fnmatch.filter(names, pattern):
                raise InputError(
                    f"space {space.name!r}: vary.{key} pattern {pattern!r} matches nothing; "
                    f"`prunas show {space.name}` lists the names"
                )


def check_point(space: "SearchSpace", arch: Architecture) -> None:
    """See `SearchSpace.check`."""
    survey = space.survey
    if arch.space != space.name:
        raise InputError(f"the architecture belongs to space {arch.space!r}, not to {space.name!r}")
    if arch.network != survey.fingerprint:
        raise InputError(
            f"the architecture was made for another network ({arch.network}) than space {space.name!r} "
            f"has now ({survey.fingerprint}); make it anew"
        )
    groups, gates = space.varying["group"], space.varying["gate"]
    for group, width in arch.widths:
        if group not in groups:
            raise _outside(space, "group", group, groups, survey.group_index)
        if not space.floor <= width <= space.widest[group] or (width % space.step and width != groups[group]):
            raise InputError(
                f"group {group!r} cannot have {width} units; {space.floor} to {space.widest[group]} "
                f"in steps of {space.step} are in space {space.name!r}"
            )
    inputs = space.gate_inputs(arch) if arch.selected else {}
    for gate, positions in arch.selected:
        if gate not in gates:
            raise _outside(space, "gate", gate, gates, inputs)
        if len(positions) < min(space.floor, inputs[gate]):
            raise InputError(f"gate {gate!r} lets too few channels through; {space.floor} is the least")
        if list(positions) != sorted(set(positions)) or not 0 <= positions[0] <= positions[-1] < inputs[gate]:
            raise InputError(
                f"gate {gate!r} selects among {inputs[gate]} channels of this point; positions must "
                "ascend without repetition and lie below that"
            )
    for block in arch.removed:
        if block not in space.removable:
            raise _outside(space, "block", block, space.removable, survey.block_index)
    if arch.kernels is not None:
        _check_kernels(space, arch, arch.kernels)


def _outside(
    space: "SearchSpace", kind: str, name: str, varying: Collection[str], existing: Collection[str]
) -> InputError:
    """The refusal of a name that does not vary, or does not exist at all."""
    if name in existing:
        return InputError(f"{kind} {name!r} does not vary in space {space.name!r}; its [vary] decides")
    return unknown(f"{kind} of space {space.name!r}:", name, varying)


def _check_kernels(space: "SearchSpace", arch: Architecture, kernels: KernelPattern) -> None:
    convolutions = [layer for layer in space.survey.layers if layer.kind == "conv"]
    paths = {layer.path for layer in convolutions}
    keys = {f"{layer.stage}/{'x'.join(map(str, layer.kernel))}" for layer in convolutions}
    for path, _ in kernels.masks:
        if path not in paths:
            raise unknown(f"convolution of space {space.name!r}:", path, paths)
    for key, _ in kernels.frequencies:
        if key not in keys | paths:
            raise unknown(f"kernel key of space {space.name!r}:", key, keys | paths)
    space.cost(arch)  # a pattern that does not fit raises


def canonical_point(space: "SearchSpace", arch: Architecture) -> Architecture:
    """See `SearchSpace.canonical`."""
    dense, inputs = space.varying["group"], space.gate_inputs(arch) if arch.selected else {}
    groups, layers = inside_removed(space.survey, arch)
    kernels = arch.kernels
    if kernels is not None:
        frequencies = tuple((key, values) for key, values in kernels.frequencies if set(values) != {1.0})
        masks = tuple((path, mask) for path, mask in kernels.masks if path not in layers)
        kernels = KernelPattern(frequencies, masks, kernels.seed) if frequencies or masks else None
    return arch.replace(
        widths=tuple((g, n) for g, n in arch.widths if n != dense[g] and g not in groups),
        selected=tuple((g, ps) for g, ps in arch.selected if len(ps) != inputs[g] and g not in layers),
        kernels=kernels,
    )


def inside_removed(survey: Survey, arch: Architecture) -> tuple[set[str], set[str]]:
    """Names of the groups, and paths of the layers, that go with the removed branches."""
    if not arch.removed:
        return set(), set()
    blocks = {survey.block_index[block] for block in arch.removed}
    groups = {g.name for g, held in zip(survey.groups, survey.group_blocks, strict=True) if held & blocks}
    return groups, {path for path, held in survey.blocks_of.items() if held & blocks}


def counted_point(space: "SearchSpace", counts: npt.ArrayLike) -> Architecture:
    """See `SearchSpace.counted`."""
    numbers = list(zip(space.dimensions, np.asarray(counts).tolist(), strict=True))
    widths = {d.name: n for d, n in numbers if d.kind == "group"}
    if not space.varying["gate"]:
        return space.point(widths)
    inputs = space.gate_inputs(space.dense.replace(widths=tuple(widths.items())))
    selected = {
        d.name: evenly_spaced(n, inputs[d.name])
        for d, n in numbers
        if d.kind == "gate" and n < inputs[d.name]
    }
    return space.point(widths, selected)


def counts_of(space: "SearchSpace", arch: Architecture) -> npt.NDArray[np.int64]:
    """See `SearchSpace.counts`."""
    widths = dict(arch.widths)
    passing = {gate: len(positions) for gate, positions in arch.selected}
    inputs = space.gate_inputs(arch) if space.varying["gate"] else {}
    return np.array(
        [
            widths.get(d.name, d.dense) if d.kind == "group" else passing.get(d.name, inputs[d.name])
            for d in space.dimensions
        ],
        np.int64,
    )


def target_of(space: "SearchSpace", keep: float | None, budget: int | None, metric: str) -> Target:
    """See `SearchSpace.target`."""
    if keep is not None and budget is not None:
        raise InputError("a budget is a fraction or a number, not both")
    dense = space.measure(space.dense, metric)
    if keep is not None:
        if not (finite(keep) and 0 < keep <= 1):
            raise InputError(f"keep must lie in (0, 1], not {keep}")
        value = round(keep * dense)
        if metric == "channels" and keep < 1:
            pruned = round(1 - keep, 9)  # 1 - 0.9 is a little less than 0.1
            value = dense - int(dense * pruned) - 1
    else:
        value = dense if budget is None else budget
    least, most = space.least(metric), space.most(metric)
    if not least <= value <= most:
        raise InputError(
            f"no architecture of space {space.name!r} has {value:,} {metric}; "
            f"{least:,} to {most:,} can be reached"
        )
    return Target(metric, value, keep)
