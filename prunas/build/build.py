"""A network from a point: the factory's layers at the new widths, then selections, removals, masks, weights."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunas.architecture import Architecture
from prunas.build.construct import Factory, construct
from prunas.build.layers import select
from prunas.build.masks import kernel_masks
from prunas.build.residual import without_branch
from prunas.costs import CostModel
from prunas.errors import InputError
from prunas.files import digest
from prunas.structure import Survey

__all__ = ["Kept", "build", "fingerprint", "inherit", "shrink"]

Kept = Mapping[str, Sequence[int]]
"""Which units of each group stay, ascending, by group name; a group that is missing keeps all."""


def fingerprint(net: nn.Module) -> str:
    """Twelve hex digits over the names and shapes of a network's parameters and buffers."""
    return digest({name: list(tensor.shape) for name, tensor in net.state_dict().items()})


def build(
    factory: Factory,
    survey: Survey,
    arch: Architecture,
    weights: Mapping[str, Tensor] | None = None,
    kept: Kept | None = None,
) -> nn.Module:
    """Builds the network of a point.

    The global random state decides the initial weights, as it does for the factory itself.

    Args:
        factory: The dense network's factory.
        survey: Its survey.
        arch: A checked point.
        weights: State dict of a dense network to inherit from; None leaves the factory's own initialisation.
        kept: With `weights`, which units of each narrowed group they are inherited from.

    Returns:
        A network of the factory's own class, in training mode, on the factory's device.

    Raises:
        InputError: The factory no longer makes the network that was surveyed, or `kept` does not fit `arch`.
    """
    model = CostModel(survey)
    units = model.widths(arch)
    net = shrink(factory, survey, units.tolist(), {gate: len(p) for gate, p in arch.selected})
    for gate, positions in arch.selected:
        path = survey.gate_named[gate].norm or gate
        select(net.get_submodule(path), positions)
    for block in arch.removed:
        parent, _, name = block.rpartition(".")
        setattr(net.get_submodule(parent), name, without_branch(net.get_submodule(block)))
    if weights is not None:
        inherited = inherit(survey, arch, weights, kept or {})
        net.load_state_dict(
            {name: inherited[name] for name in net.state_dict() if name in inherited}, strict=False
        )
    with torch.no_grad():
        for name, mask in kernel_masks(survey, arch).items():
            parameter = net.get_parameter(name)
            parameter.mul_(torch.as_tensor(mask, device=parameter.device))
    return net


def shrink(
    factory: Factory, survey: Survey, widths: Sequence[int], selected: Mapping[str, int] | None = None
) -> nn.Module:
    """Runs the factory so that its layers have `widths`.

    Args:
        factory: The dense network's factory.
        survey: Its survey.
        widths: Units of every group, in the survey's order.
        selected: How many channels pass each gate that selects; its layers are born that narrow.
    """
    selected = selected or {}
    norms = {survey.gate_named[gate].norm: count for gate, count in selected.items()}
    counts: dict[str, dict[str, int]] = {}
    for layer in survey.layers:
        reads, writes = survey.size(layer.reads, widths), survey.size(layer.writes, widths)
        reads = selected.get(layer.path, reads)
        if layer.kind == "conv":
            counts[layer.path] = {"in_channels": reads, "out_channels": writes}
            if layer.depthwise:
                counts[layer.path]["groups"] = reads
        elif layer.kind == "linear":
            counts[layer.path] = {"in_features": reads, "out_features": writes}
        elif layer.kind == "norm":
            width = norms.get(layer.path, writes)
            counts[layer.path] = {"num_features": width, "num_channels": width, "normalized_shape": width}
        elif layer.kind == "prelu":
            counts[layer.path] = {"num_parameters": writes}
        else:
            counts[layer.path] = {"extra": writes}
    net = construct(factory, survey.order, counts)
    _fit_bare(net, survey, widths)
    return net


def _fit_bare(net: nn.Module, survey: Survey, widths: Sequence[int]) -> None:
    """Slices parameters and buffers that no constructor knows of, such as a layer scale."""
    layers = survey.layer_at
    for site in survey.sites:
        path, _, name = site.tensor.rpartition(".")
        if path in layers:
            continue
        owner = net.get_submodule(path)
        tensor = getattr(owner, name)
        narrow = tensor.detach().narrow(site.axis, 0, survey.size(site.form, widths)).clone()
        if isinstance(tensor, nn.Parameter):
            setattr(owner, name, nn.Parameter(narrow, tensor.requires_grad))
        else:
            owner.register_buffer(name, narrow, name not in owner._non_persistent_buffers_set)


def inherit(
    survey: Survey, arch: Architecture, weights: Mapping[str, Tensor], kept: Kept
) -> dict[str, Tensor]:
    """The slices of a dense network's weights that a point keeps.

    Args:
        survey: The network.
        arch: A checked point.
        weights: State dict of the dense network.
        kept: Units of each narrowed group that stay.

    Returns:
        Tensors by name; those of removed branches are among them, unchanged in meaning.

    Raises:
        InputError: `kept` does not name as many units of a group as `arch` keeps.
    """
    units: list[npt.NDArray[np.int64]] = []
    for group in survey.groups:
        width = arch.width(group.name, group.units)
        chosen = np.array(sorted(set(kept.get(group.name, range(group.units)))), np.int64)
        if len(chosen) != width or (width and not 0 <= chosen[0] <= chosen[-1] < group.units):
            raise InputError(
                f"group {group.name!r} keeps {width} of {group.units} units, but {len(chosen)} are named; "
                "pass `kept` as the proposal gives it"
            )
        units.append(chosen)
    gated: dict[tuple[str, int], tuple[int, ...]] = {}
    for name, positions in arch.selected:
        gate = survey.gate_named[name]
        gated[f"{name}.weight", 1] = positions
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            if gate.norm:
                gated[f"{gate.norm}.{tensor}", 0] = positions
    slices = dict(weights)
    for site in survey.sites:
        if site.tensor not in slices:
            continue
        index = survey.positions(site.form, units)
        if (site.tensor, site.axis) in gated:
            index = index[list(gated[site.tensor, site.axis])]
        tensor = slices[site.tensor]
        slices[site.tensor] = tensor.index_select(site.axis, torch.as_tensor(index, device=tensor.device))
    return slices
