"""A network from a point: the factory's layers at the new widths, then selections, removals, masks, weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.errors import InputError
from prunas.files import digest
from prunas.graphs.layers import refit_attention, select
from prunas.surgery.construct import Factory, construct
from prunas.surgery.masks import kernel_masks
from prunas.surgery.remove import pass_through, without_branch
from prunas.surgery.weights import Kept, inherit
from prunas.survey import Survey

__all__ = ["build", "fingerprint", "select_inputs", "shrink"]


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


def _load(net: nn.Module, weights: Mapping[str, Tensor], indices: set[str]) -> None:
    """Copies weights into a network, all but the `indices` of its selections; others in `weights` are ignored."""
    for name, tensor in net.state_dict().items():
        if name in indices:
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
        selected: How many channels pass each gate that selects; its layers are constructed that narrow.
    """
    dense = [group.units for group in survey.groups]
    net = construct(
        factory, survey.order, _counts(survey, widths, selected or {}), _counts(survey, dense, {})
    )
    _fit(net, survey, widths)
    _fit_attributes(net, survey, widths)
    return net


def select_inputs(
    net: nn.Module, survey: Survey, selected: Mapping[str, Sequence[int]]
) -> Mapping[str, Sequence[int]]:
    """Turns layers of a network, constructed as narrow as their gates, into their selecting subclasses.

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


def _counts(survey: Survey, widths: Sequence[int], selected: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Constructor arguments of every layer."""
    norms = {survey.gate_named[gate].norm: count for gate, count in selected.items()}
    sizes = [survey.size(form, widths) for form in range(len(survey.forms))]
    counts: dict[str, dict[str, int]] = {}
    for layer in survey.layers:
        reads, writes = selected.get(layer.path, sizes[layer.reads]), sizes[layer.writes]
        if layer.kind in ("conv", "transposed"):
            counts[layer.path] = {"in_channels": reads, "out_channels": writes}
            if layer.depthwise:
                counts[layer.path]["groups"] = reads
        elif layer.kind == "linear":
            counts[layer.path] = {"in_features": reads, "out_features": writes}
        elif layer.kind == "norm":
            width = norms.get(layer.path, writes)
            counts[layer.path] = {"num_features": width, "num_channels": width, "normalized_shape": width}
        elif layer.kind == "embedding":
            counts[layer.path] = {"embedding_dim": writes}
        elif layer.kind == "recurrent":
            counts[layer.path] = {
                attribute.name: sizes[attribute.form]
                for attribute in survey.attributes or ()
                if attribute.module == layer.path
            }
        elif layer.kind == "prelu":
            counts[layer.path] = {"num_parameters": writes}
        else:
            counts[layer.path] = {"extra": writes}
    return counts


def _fit(net: nn.Module, survey: Survey, widths: Sequence[int]) -> None:
    """Slices what no constructor made as wide: parameters such as a layer scale, and layers that were copied."""
    dense = [group.units for group in survey.groups]
    counts, made = _counts(survey, widths, {}), set(survey.order)
    for site in survey.sites:
        path, _, name = site.tensor.rpartition(".")
        owner = net.get_submodule(path)
        tensor, size = getattr(owner, name), survey.size(site.form, widths)
        if tensor.shape[site.axis] == size or tensor.shape[site.axis] != survey.size(site.form, dense):
            continue
        if path in survey.layer_at and path in made:
            continue  # the factory gave it another size, which is for the verification to see
        if size > tensor.shape[site.axis]:
            raise InputError(f"{site.tensor!r} belongs to no layer of torch's and cannot be wider than it is")
        narrow = tensor.detach().narrow(site.axis, 0, size).clone()
        if isinstance(tensor, nn.Parameter):
            setattr(owner, name, nn.Parameter(narrow, tensor.requires_grad))
        else:
            owner.register_buffer(name, narrow, name not in owner._non_persistent_buffers_set)
        for argument, count in counts.get(path, {}).items():
            if isinstance(before := getattr(owner, argument, None), tuple):
                setattr(owner, argument, (*before[:-1], count))
            elif before is not None:
                setattr(owner, argument, count)


def _fit_attributes(net: nn.Module, survey: Survey, widths: Sequence[int]) -> None:
    """Sets the numbers that modules keep, and lets attentions run with them."""
    for attribute in survey.attributes or ():
        module, size = net.get_submodule(attribute.module), survey.size(attribute.form, widths)
        name, _, place = attribute.name.rstrip("]").partition("[")
        before = getattr(module, name)
        if place:
            items = [*before[: int(place)], size, *before[int(place) + 1 :]]
            setattr(module, name, type(before)(items))
        else:
            setattr(module, name, size)
    for path in {site.tensor.rpartition(".")[0] for site in survey.sites}:
        if isinstance(module := net.get_submodule(path), nn.MultiheadAttention):
            refit_attention(module)
