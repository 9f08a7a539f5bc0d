"""What a point must compute, told by the dense network alone.

A point keeps some units of every group, some inputs of every gate, and some blocks. The dense network computes
the same function when the weight slices that read a dropped channel are zero, when a norm over channels runs over
the kept ones only, and when the branch of a removed block is multiplied by zero at its sum. All of that happens
while it runs as it is, so that what traces networks elsewhere has no say in it. `Oracle.difference` compares it
with the network that `prunas.surgery.assemble.build` makes, in float64.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d

from benchmarks.support.modes import KeptNorms, RemovedBranches, kept_columns
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.surgery.assemble import build
from prunas.surgery.weights import inherit
from prunas.survey import Survey

__all__ = [
    "Difference",
    "Factory",
    "Kept",
    "Oracle",
    "Point",
    "batch_of",
    "counted",
    "dense_network",
    "masked",
    "point",
    "quick",
    "random_kept",
    "random_selection",
    "relative",
    "tensors",
]

Factory = Callable[[], nn.Module]
Kept = Mapping[str, Sequence[int]]
READERS = (_ConvNd, nn.Linear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, DeformConv2d)
MIXING = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


RATES = (
    "p",
    "drop_prob",
    "drop_path",
    "dropout",
    "attention_dropout",
    "dropout_prob",
    "dropout_rate",
    "attn_drop",
    "drop_rate",
)
"""What modules call the probabilities of dropout and stochastic depth."""


class Point(NamedTuple):
    """An architecture, and which units of its groups stay."""

    arch: Architecture
    kept: Kept


# Points


def random_kept(survey: Survey, chance: random.Random) -> dict[str, tuple[int, ...]]:
    """Some units of every group, anywhere among them, between a third and all but one."""
    return {
        group.name: tuple(
            sorted(chance.sample(range(group.units), chance.randint(-(-group.units // 3), group.units - 1)))
        )
        for group in survey.groups
    }


def point(survey: Survey, kept: Kept, removed: Sequence[str] = ()) -> Point:
    """The point that keeps `kept`, without the branches of `removed` and what lies in them."""
    gone = {survey.block_index[name] for name in removed}
    widths = {
        name: len(units)
        for name, units in kept.items()
        if not survey.group_blocks[survey.group_index[name]] & gone
    }
    arch = Architecture(
        "support", survey.fingerprint, tuple(sorted(widths.items())), (), tuple(sorted(removed))
    )
    return Point(arch, kept)


def random_selection(survey: Survey, chosen: Point, chance: random.Random) -> Point:
    """The same point, every gate that is left selecting between a third and all of its inputs."""
    model = CostModel(survey)
    gone = {survey.block_index[name] for name in chosen.arch.removed}
    inputs = model.gate_inputs(model.widths(chosen.arch)[None])[0].tolist()
    selected = {
        gate.name: tuple(sorted(chance.sample(range(count), chance.randint(-(-count // 3), count))))
        for gate, count in zip(survey.gates, inputs, strict=True)
        if not survey.blocks_of.get(gate.name, frozenset()) & gone
    }
    return Point(chosen.arch.replace(selected=tuple(sorted(selected.items()))), chosen.kept)


# Networks


def quick(factory: Factory) -> Factory:
    """`factory` in float64, without its initialisation, whose weights nobody reads, and without random layers."""
    initialisers = [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]

    def make() -> nn.Module:
        with ExitStack() as stack:
            for name in initialisers:
                stack.enter_context(mock.patch.object(nn.init, name, _leave))
            net = factory()
        for module in net.modules():
            for name in RATES:
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        return net.double()

    return make


def _leave(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return tensor


def dense_network(factory: Factory, images: Sequence[Tensor]) -> nn.Module:
    """The dense network with weights that hide nothing, always the same.

    Weights are uniform with the variance of a rectifier's initialisation, scales lie in [0.5, 1.5], shifts in
    [-0.5, 0.5]; nothing is constant or zero. Running statistics are those of a batch, disturbed, so that neither
    mode saturates.

    Args:
        factory: Made by `quick`.
        images: A batch of its inputs.
    """
    net = factory()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not parameter.numel():
                continue
            if parameter.ndim > 1:
                bound = (6 * parameter.shape[0] / parameter.numel()) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.uniform_(-0.5, 0.5, generator=generator).add_(float(name.endswith("weight")))
        norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            net.train()(*images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            assert norm.running_mean is not None and norm.running_var is not None
            spread = norm.running_var.clamp(min=1e-6)
            norm.running_mean.add_(spread.sqrt() * _noise(spread, generator))
            norm.running_var.copy_(spread * (1 + _noise(spread, generator)))
    return net


def batch_of(shapes: Sequence[Sequence[int]], count: int, below: int = 0) -> list[Tensor]:
    """Random inputs of these shapes, always the same; integers below a bound, if there is one."""
    generator = torch.Generator().manual_seed(1)
    if below:
        return [torch.randint(below, (count, *shape), generator=generator) for shape in shapes]
    return [torch.randn(count, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(like).uniform_(-0.5, 0.5, generator=generator)


# The reference


class Difference(NamedTuple):
    """Largest relative differences between a built network and what the dense one says it computes.

    Attributes:
        eval: Of the outputs, in eval mode.
        train: Of the outputs and of the running statistics, in train mode.
        effect: Of the outputs of the dense network itself, in eval mode: near 0, the comparison says nothing.
    """

    eval: float
    train: float
    effect: float


class Oracle:
    """Knows what every point of a network computes.

    Args:
        factory: Makes the network.
        survey: Its survey.
        images: A batch of its inputs, see `batch_of`.
    """

    def __init__(self, factory: Factory, survey: Survey, images: Sequence[Tensor]) -> None:
        self.factory, self.survey, self.images = quick(factory), survey, images
        self.dense = dense_network(self.factory, self.images)
        with torch.no_grad():
            self.output = self.dense.eval()(*self.images)

    def difference(self, chosen: Point) -> Difference:
        """How far what `prunas.surgery.assemble.build` makes of a point is from what it must be."""
        arch, kept = chosen
        built = build(self.factory, self.survey, arch, weights=self.dense.state_dict(), kept=kept)
        with torch.no_grad(), masked(self.dense, self.survey, chosen) as reference:
            expected, _ = reference(False, self.images)
            apart = relative(built.eval()(*self.images), expected)
            effect = relative(self.output, expected)
            expected, buffers = reference(True, self.images)
            apart_in_training = relative(built.train()(*self.images), expected)
        statistics = {name: buffer for name, buffer in built.named_buffers() if "running_" in name}
        slices = inherit(self.survey, arch, {name: buffers[name] for name in statistics}, kept)
        drifts = (relative(buffer, slices[name]) for name, buffer in statistics.items())
        return Difference(apart, max([apart_in_training, *drifts]), effect)


def relative(actual: Any, expected: Any) -> float:
    """Largest difference over all tensors, relative to the largest value of each; infinite if they do not fit."""
    pairs = list(zip(*(map(tensors, (actual, expected))), strict=False))
    if not pairs or len(tensors(actual)) != len(tensors(expected)):
        return float("inf")
    return max(_apart(a, b) for a, b in pairs)


def tensors(value: Any) -> list[Tensor]:
    """The tensors of what a network returns."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _apart(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    apart = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-300))
    return apart if apart == apart else float("inf")  # not a number is no agreement


Reference = Callable[[bool, Sequence[Tensor]], tuple[Any, dict[str, Tensor]]]


def _computes(layer: nn.Module) -> bool:
    """Whether a convolution may compute the weight that it uses, from all of the columns that it has."""
    own = type(layer).__module__.startswith("torch.nn.")
    return isinstance(layer, _ConvNd) and layer.groups == 1 and not own


@contextmanager
def masked(dense: nn.Module, survey: Survey, chosen: Point) -> Iterator[Reference]:
    """While active, the dense network computes what the point must compute.

    Yields:
        A function of the mode and the inputs that returns the outputs and the buffers after the call. The buffers
        are put back after every call, the weights in the end.
    """
    arch, kept = chosen
    units = [np.array(kept.get(group.name, range(group.units)), np.int64) for group in survey.groups]
    selected = {f"{gate}.weight": list(positions) for gate, positions in arch.selected}
    saved: list[tuple[Tensor, Tensor]] = []
    norms: dict[int, Tensor] = {}
    inside: dict[nn.Module, dict[int, Tensor]] = {}
    columns: dict[nn.Module, Tensor] = {}
    everywhere: dict[int, Tensor | None] = {}  # by the number of channels; None where it tells nothing
    normed = {i for i, group in enumerate(survey.groups) if not group.maskable}
    for site in survey.sites:
        path, _, name = site.tensor.rpartition(".")
        owner = dense.get_submodule(path)
        tensor = getattr(owner, name)
        positions = survey.positions(site.form, units)
        axis = 0 if isinstance(owner, _ConvTransposeNd) else 1
        if (
            isinstance(owner, READERS)
            and isinstance(tensor, Tensor)
            and tensor.ndim > 1
            and site.axis == axis
        ):
            positions = positions[selected.get(site.tensor, slice(None))]
            if _computes(owner) and len(positions) < tensor.shape[axis]:
                columns[owner] = torch.as_tensor(positions)
            elif len(positions) < tensor.shape[axis]:
                dropped = np.setdiff1d(np.arange(tensor.shape[axis]), positions)
                saved.append((tensor.data, tensor.data.clone()))
                tensor.data.index_fill_(axis, torch.as_tensor(dropped), 0.0)
        elif isinstance(owner, MIXING) and name == "weight" and len(positions) < len(tensor):
            norms[id(tensor)] = torch.as_tensor(positions)
        elif not isinstance(owner, (*READERS, nn.Embedding)):
            inside.setdefault(owner, {})[tensor.shape[site.axis]] = torch.as_tensor(positions)
        if normed & {span.group for span in survey.forms[site.form]}:
            channels = torch.as_tensor(survey.positions(site.form, units))
            before = everywhere.setdefault(tensor.shape[site.axis], channels)
            if before is None or not torch.equal(before, channels):
                everywhere[tensor.shape[site.axis]] = None
    known = {size: channels for size, channels in everywhere.items() if channels is not None}
    buffers = {name: buffer.clone() for name, buffer in dense.named_buffers()}

    def reference(training: bool, images: Sequence[Tensor]) -> tuple[Any, dict[str, Tensor]]:
        dense.train(training)
        with (
            kept_columns(columns),
            KeptNorms(norms, inside, known),
            RemovedBranches(dense, survey, arch.removed),
        ):
            output = dense(*images)
        after = {name: buffer.clone() for name, buffer in dense.named_buffers()}
        for name, buffer in dense.named_buffers():
            buffer.data.copy_(buffers[name])  # a backward pass may still follow
        return output, after

    try:
        yield reference
    finally:
        for tensor, before in saved:
            tensor.copy_(before)


def counted(
    net: nn.Module, shapes: Sequence[Sequence[int]], integers: bool = False, device: str = "meta"
) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one image in eval mode, of a network, by torch.

    Args:
        net: The network, which moves to the device.
        shapes: Of its inputs, without the batch.
        integers: Whether they are.
        device: `cpu` for a network that asks tensors for their numbers.
    """
    net.to(device).eval().requires_grad_(False)  # torch's counter stumbles over parameters given to modules
    dtype = torch.int64 if integers else torch.float32
    images = [torch.ones(1, *shape, dtype=dtype, device=device) for shape in shapes]  # 0 often is padding
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(*images)
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2
