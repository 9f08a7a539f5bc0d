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
from prunas.build.residual import pass_through, without_branch
from prunas.costs import CostModel
from prunas.errors import InputError, unknown
from prunas.files import digest
from prunas.structure import Survey

__all__ = ["Kept", "build", "fingerprint", "gated_axes", "inherit", "select_inputs", "shrink"]

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
        weights: State dict of a dense network to inherit from; None leaves the factory's own initialisation, which
            under a kernel pattern is scaled by 1 / sqrt(density) in each convolution (the study, section 4.3).
        kept: With `weights`, which units of each narrowed group they are inherited from.

    Returns:
        A network of the factory's own class, in training mode, on the factory's device.

    Raises:
        InputError: The factory no longer makes the network that was surveyed, or `weights` or `kept` do not fit.
    """
    model = CostModel(survey)
    units = model.widths(arch)
    net = shrink(factory, survey, units.tolist(), {gate: len(p) for gate, p in arch.selected})
    selecting = select_inputs(net, survey, dict(arch.selected))
    for block in arch.removed:
        if chain := survey.blocks[survey.block_index[block]].chain:
            pass_through(net, chain)
            continue
        parent, _, name = block.rpartition(".")
        setattr(net.get_submodule(parent), name, without_branch(net.get_submodule(block)))
    if weights is not None:
        _load(net, inherit(survey, arch, weights, kept or {}), {f"{path}.index" for path in selecting})
    with torch.no_grad():
        for name, mask in kernel_masks(survey, arch).items():
            parameter = net.get_parameter(name)
            exists = torch.as_tensor(mask, device=parameter.device)
            if weights is None and mask.any():
                # Fewer summands need larger weights: the study draws them with the fan of those that exist.
                parameter.mul_(mask.mean() ** -0.5)
            parameter.mul_(exists)
    return net


def _load(net: nn.Module, weights: Mapping[str, Tensor], own: set[str]) -> None:
    """Copies weights into a network, all but its `own`; what is left over in `weights` does not matter."""
    for name, tensor in net.state_dict().items():
        if name in own:
            continue
        if name not in weights or weights[name].shape != tensor.shape:
            problem = "have another shape of" if name in weights else "have no"
            raise InputError(f"the weights {problem} {name!r}; give the state dict of the dense network")
        tensor.copy_(weights[name])


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
    dense = [group.units for group in survey.groups]
    net = construct(
        factory, survey.order, _counts(survey, widths, selected or {}), _counts(survey, dense, {})
    )
    _fit_bare(net, survey, widths)
    return net


def select_inputs(
    net: nn.Module, survey: Survey, selected: Mapping[str, Sequence[int]]
) -> Mapping[str, Sequence[int]]:
    """Turns layers of a network, born as narrow as their gates, into their selecting subclasses.

    Args:
        net: The network, changed in place.
        survey: Of the dense network.
        selected: Positions that pass each gate that selects, ascending.

    Returns:
        The positions by the module path of the layer that selects them.
    """
    selecting = {survey.gate_named[gate].norm or gate: positions for gate, positions in selected.items()}
    for path, positions in selecting.items():
        select(net.get_submodule(path), positions)
    return selecting


def gated_axes(survey: Survey, selected: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], Sequence[int]]:
    """Every axis, as (tensor, axis), that gates narrow, with the positions that stay."""
    axes: dict[tuple[str, int], Sequence[int]] = {}
    for name, positions in selected.items():
        axes[f"{name}.weight", 1] = positions
        if norm := survey.gate_named[name].norm:
            for part in ("weight", "bias", "running_mean", "running_var"):
                axes[f"{norm}.{part}", 0] = positions
    return axes


def _counts(survey: Survey, widths: Sequence[int], selected: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Constructor arguments of every layer."""
    norms = {survey.gate_named[gate].norm: count for gate, count in selected.items()}
    sizes = [survey.size(form, widths) for form in range(len(survey.forms))]
    counts: dict[str, dict[str, int]] = {}
    for layer in survey.layers:
        reads, writes = selected.get(layer.path, sizes[layer.reads]), sizes[layer.writes]
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
    return counts


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
