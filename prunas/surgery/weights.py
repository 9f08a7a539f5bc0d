"""Weights that a smaller network inherits: slices of the dense network's tensors."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunas.architecture import Architecture
from prunas.errors import InputError, unknown
from prunas.survey import Survey

__all__ = ["Kept", "gated_axes", "inherit"]

Kept = Mapping[str, Sequence[int]]
"""Which units of each group stay, ascending, by group name; a group that is missing keeps all."""


def gated_axes(survey: Survey, selected: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], Sequence[int]]:
    """Every axis, as (tensor, axis), that gates narrow, with the positions that stay."""
    axes: dict[tuple[str, int], Sequence[int]] = {}
    for name, positions in selected.items():
        axes[f"{name}.weight", 1] = positions
        if norm := survey.gate_named[name].norm:
            for part in ("weight", "bias", "running_mean", "running_var"):
                axes[f"{norm}.{part}", 0] = positions
    return axes


def inherit(
    survey: Survey, arch: Architecture, weights: Mapping[str, Tensor], kept: Kept
) -> dict[str, Tensor]:
    """The slices of a dense network's weights that a point keeps.

    Args:
        survey: The network.
        arch: A checked point.
        weights: State dict of the dense network.
        kept: Units of each narrowed group that stay; a group that went with its block may be among them.

    Returns:
        Tensors by name; those of removed branches are among them and mean nothing.

    Raises:
        InputError: `kept` does not name as many units of a group as `arch` keeps, or `weights` are not the dense
            network's.
    """
    for name in kept:
        if name not in survey.group_index:
            raise unknown("group", name, survey.group_index)
    removed = {survey.block_index[name] for name in arch.removed}
    units: list[npt.NDArray[np.int64]] = []
    for group, held in zip(survey.groups, survey.group_blocks, strict=True):
        if held & removed:
            units.append(np.arange(group.units))
            continue
        width = arch.width(group.name, group.units)
        if width > group.units:
            raise InputError(
                f"group {group.name!r} has {width} units, more than the {group.units} of the dense network, which "
                "has no weights for them; train this shape from scratch"
            )
        chosen = np.array(sorted(set(kept.get(group.name, range(group.units)))), np.int64)
        if len(chosen) != width or (width and not 0 <= chosen[0] <= chosen[-1] < group.units):
            raise InputError(
                f"group {group.name!r} keeps {width} of {group.units} units, but {len(chosen)} are named; "
                "pass `kept` as the proposal gives it"
            )
        units.append(chosen)
    gated = gated_axes(survey, dict(arch.selected))
    slices = dict(weights)
    dense = [group.units for group in survey.groups]
    for site in survey.sites:
        tensor = slices.get(site.tensor)
        if tensor is None:
            continue
        if tensor.shape[site.axis] != (size := survey.size(site.form, dense)):
            raise InputError(
                f"{site.tensor!r} has {tensor.shape[site.axis]} channels along axis {site.axis}, the dense "
                f"network {size}; give the state dict of the dense network"
            )
        index = survey.positions(site.form, units)
        if (site.tensor, site.axis) in gated:
            index = index[list(gated[site.tensor, site.axis])]
        slices[site.tensor] = tensor.index_select(site.axis, torch.as_tensor(index, device=tensor.device))
    return slices
