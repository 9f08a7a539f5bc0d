"""Weights that make up for channels that go: least squares, layer after layer, on inputs of the pruned network.

References:
    He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017,
    https://arxiv.org/abs/1707.06168, sections 3.1 to 3.3.
    Luo et al., ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression, ICCV 2017,
    https://arxiv.org/abs/1707.06342, equation 7.

The layers are visited in the order of execution. Each is given the inputs that the network pruned so far
gives it, and solved for the response of the dense network, so that it makes up for what the layers before it
have lost too. `refitted` solves for all weights (He et al., equation 1 with the channels fixed), `rescaled`
for one factor per input channel (Luo et al.).

A layer whose output goes straight into a sum, or through one batch norm, is solved for the sum: what the
other summand has lost by then is made up for too, as in the last layer of a residual branch (He et al.,
section 3.3).

Where it stops: only layers that lost inputs are solved; depthwise convolutions, which mix no channels, biases
and norms stay as they are; behind an activation, a layer scale or squeeze-and-excitation a layer is solved
for its own response, not for the sum.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from prunas.architecture import Architecture
from prunas.graphs.layers import SELECTING
from prunas.proposers.brief import Rebuild
from prunas.proposers.pruning.channels import parts
from prunas.proposers.pruning.responses import unrolled
from prunas.spaces.space import SearchSpace
from prunas.surgery.weights import inherit
from prunas.survey import FIXED, Layer, Survey

__all__ = ["RIDGE", "least_squares", "rebuild", "refitted", "rescaled"]

Calibration = Callable[[int], Iterable[tuple[Tensor, Tensor]]]

RIDGE = 1e-3
"""Of the least squares, in units of the mean energy of a column: weights stay near the inherited ones where
the sampled inputs say nothing."""

OUTPUTS = 64
"""Factors are solved from so many output channels of a sample at most, drawn anew for every `TOGETHER`
samples."""

TOGETHER = 64

LEAST_SCALE = 1e-3
"""Of a layer's largest batch-norm scale: what is smaller carries too little into a sum to be solved for it."""


def rebuild(
    name: Literal["reconstruction/refitted", "thinet/rescaled"], images: int, places: int, seed: int
) -> Rebuild:
    """`refitted` or `rescaled` by registered name, with its options."""
    return Rebuild(name, {"images": images, "places": places, "seed": seed})


def refitted(
    space: SearchSpace,
    arch: Architecture,
    weights: Mapping[str, Tensor],
    kept: Mapping[str, Sequence[int]],
    calibration: Calibration,
    *,
    images: int,
    places: int,
    seed: int,
    ridge: float = RIDGE,
) -> dict[str, Tensor]:
    """Dense weights in which every layer that lost inputs is solved for the response of the dense network.

    Args:
        space: The space.
        arch: The point that will inherit.
        weights: State dict of the dense network, on the CPU; not changed. The forward passes are in its
            dtype, the least squares in float64.
        kept: Units of each narrowed group that stay.
        calibration: See `Brief`.
        images: How many images of the training split are looked at.
        places: Places in the map of every layer, drawn per image; a smaller map is taken whole.
        seed: Decides the places.
        ridge: See `RIDGE`.

    Returns:
        A state dict of the dense network. What the point inherits from it is what was solved for; all else is
        as in `weights`.
    """
    shape = _Sampling(images, places, seed)
    return _layer_after_layer(
        space, arch, weights, kept, calibration, shape, lambda sample, labels: _all_weights(sample, ridge)
    )


def rescaled(
    space: SearchSpace,
    arch: Architecture,
    weights: Mapping[str, Tensor],
    kept: Mapping[str, Sequence[int]],
    calibration: Calibration,
    *,
    images: int,
    places: int,
    seed: int,
    ridge: float = RIDGE,
) -> dict[str, Tensor]:
    """Dense weights in which every layer that lost inputs has the rest multiplied by a factor each.

    One factor per unit of a group and one per channel of a gate, the same for all outputs of the layer and all
    channels of the unit that it reads. Arguments and result are those of `refitted`.
    """
    shape = _Sampling(images, places, seed)
    return _layer_after_layer(
        space,
        arch,
        weights,
        kept,
        calibration,
        shape,
        lambda sample, labels: _factors(sample, labels, ridge, seed),
    )


class _Sampling(NamedTuple):
    images: int
    places: int
    seed: int


class _Sample(NamedTuple):
    """What a layer of the pruned network is solved from.

    Attributes:
        inputs: What every output sees, shape (samples, convolution groups, inputs per group, kernel).
        weight: Its weight, shape (convolution groups, outputs per group, inputs per group, kernel).
        missing: Response of the dense network less its own, shape (samples, convolution groups, outputs per
            group), float64.
    """

    inputs: Tensor
    weight: Tensor
    missing: Tensor


Solve = Callable[[_Sample, npt.NDArray[np.int64]], Tensor]
"""The new weight of a layer, given its sample and for every input channel, shape (convolution groups, inputs per
group), the number of the unit it belongs to."""


def _layer_after_layer(
    space: SearchSpace,
    arch: Architecture,
    weights: Mapping[str, Tensor],
    kept: Mapping[str, Sequence[int]],
    calibration: Calibration,
    sampling: _Sampling,
    solve: Solve,
) -> dict[str, Tensor]:
    """See `refitted`."""
    survey = space.survey
    changed = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
    removed = {survey.block_index[block] for block in arch.removed}
    mixing = [
        layer
        for layer in survey.layers
        if layer.kind in ("conv", "linear") and not layer.depthwise
        if f"{layer.path}.weight" in changed and not removed & survey.blocks_of.get(layer.path, frozenset())
    ]
    dense_weights = {layer.path: changed[f"{layer.path}.weight"] for layer in mixing}
    numbers = {f"{path}.weight": _numbered(weight) for path, weight in dense_weights.items()}
    inherited = inherit(survey, arch, numbers, kept)
    # Where each number of the pruned network's weights stands in the dense ones.
    origin = {path: inherited[f"{path}.weight"] for path in dense_weights}
    lossy = [n for n in mixing if origin[n.path].shape[1] < dense_weights[n.path].shape[1]]
    if not lossy:
        return changed

    dtype = dense_weights[lossy[0].path].dtype
    with torch.random.fork_rng(devices=[]):
        dense, small = space.build(), space.build(arch, changed, kept)
    dense, small = dense.to(dtype).eval(), small.to(dtype).eval()
    dense.load_state_dict(changed)

    def listen(net: nn.Module, *observed: _Observed) -> None:
        with torch.no_grad(), _listening(net, observed):
            for batch, _ in calibration(sampling.images):
                net(batch.to(dtype))

    seeds = [[sampling.seed, i] for i in range(len(lossy))]
    goals = []
    for layer, seed in zip(lossy, seeds, strict=True):
        stay = origin[layer.path].flatten(1)[:, 0] // dense_weights[layer.path][0].numel()
        goals.append(_Observed(layer.path, sampling.places, seed, outputs=stay))
    listen(dense, *goals)
    for layer, seed, goal in zip(lossy, seeds, goals, strict=True):
        so_far = _Observed(layer.path, sampling.places, seed, with_inputs=True)
        listen(small, so_far)
        missing = goal.total() - so_far.total()
        module = small.get_submodule(layer.path)
        groups = getattr(module, "groups", 1)
        weight = module.get_parameter("weight").detach()
        by_group = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        inputs = torch.cat(so_far.inputs).reshape(len(missing), groups, weight.shape[1], -1)
        sample = _Sample(inputs, by_group, missing.reshape(len(missing), groups, -1))
        labels = _labels(survey, layer, origin[layer.path], groups, gated=layer.path in dict(arch.selected))
        solved = solve(sample, labels).to(dtype).reshape(weight.shape)
        weight.copy_(solved)
        dense_weights[layer.path].view(-1)[origin[layer.path].flatten()] = solved.flatten()
    return changed


def _numbered(tensor: Tensor) -> Tensor:
    return torch.arange(tensor.numel()).reshape(tensor.shape)


def _labels(
    survey: Survey, layer: Layer, origin: Tensor, groups: int, *, gated: bool
) -> npt.NDArray[np.int64]:
    """The unit that each input channel of a pruned layer belongs to, shape (groups, inputs per group).

    Args:
        survey: The dense network.
        layer: The layer.
        origin: Where each of its weights stands in the dense weight.
        groups: Convolution groups.
        gated: Whether its inputs are selected: then every channel is a unit of its own.
    """
    dense = survey.size(layer.reads, [group.units for group in survey.groups])
    unit = np.arange(dense)
    if not gated:
        ends = np.cumsum([dense, *(group.units for group in survey.groups)])
        for run, part in parts(survey.forms[layer.reads], unit):
            if run.group != FIXED:
                part[:] = ends[run.group] + np.arange(run.start, run.start + run.length)[:, None]
    kernel = origin[0, 0].numel()
    first = origin.reshape(groups, len(origin) // groups, origin.shape[1], -1)[:, 0, :, 0].numpy()
    inner = dense // groups
    channel = first // kernel % inner + inner * np.arange(groups)[:, None]
    return np.unique(unit[channel], return_inverse=True)[1].reshape(channel.shape)


# Solving


def least_squares(design: Tensor, response: Tensor, ridge: float) -> Tensor:
    """The coefficients that make up responses best: min |design x - response|^2 + penalty |x|^2, in float64.

    Solved in the columns or in the rows, whichever are fewer.

    Args:
        design: Shape (rows, columns).
        response: Shape (rows, responses).
        ridge: The penalty, in units of the mean squared length of a column.

    Returns:
        Shape (columns, responses); 0 where all inputs are 0.
    """
    design, response = design.double(), response.double()
    penalty = ridge * float((design**2).sum()) / design.shape[1] + np.finfo(float).tiny
    fewer_rows = len(design) < design.shape[1]
    gram = design @ design.T if fewer_rows else design.T @ design
    gram.diagonal().add_(penalty)
    factor = torch.linalg.cholesky(gram)
    if fewer_rows:
        return design.T @ torch.cholesky_solve(response, factor)
    return torch.cholesky_solve(design.T @ response, factor)


def _all_weights(sample: _Sample, ridge: float) -> Tensor:
    """The weight inherited and what least squares add to it."""
    solved = [
        least_squares(sample.inputs[:, g].flatten(1), sample.missing[:, g], ridge).T.reshape(weight.shape)
        for g, weight in enumerate(sample.weight.double())
    ]
    return sample.weight.double() + torch.stack(solved)


def _factors(sample: _Sample, labels: npt.NDArray[np.int64], ridge: float, seed: int) -> Tensor:
    """The weight inherited, each unit's part times a factor: least squares for its difference from 1."""
    generator = np.random.default_rng(seed)
    units = int(labels.max()) + 1
    gram, product = torch.zeros(units, units, dtype=torch.float64), torch.zeros(units, 1, dtype=torch.float64)
    for g, weight in enumerate(sample.weight):
        unit = torch.as_tensor(labels[g])
        for start in range(0, len(sample.inputs), TOGETHER):
            some = slice(start, start + TOGETHER)
            drawn = torch.as_tensor(generator.permutation(len(weight))[:OUTPUTS])
            added = torch.einsum("nck,ock->noc", sample.inputs[some, g], weight[drawn]).flatten(0, 1).double()
            rows = added.new_zeros(len(added), units).index_add_(1, unit, added)
            gram += rows.T @ rows
            product += rows.T @ sample.missing[some, g][:, drawn].reshape(-1, 1)
    gram.diagonal().add_(ridge * float(gram.trace()) / units + np.finfo(float).tiny)
    factor = 1 + torch.linalg.solve(gram, product).squeeze(1)
    by_input = factor[torch.as_tensor(labels)]
    solved: Tensor = sample.weight.double() * by_input[:, None, :, None]
    return solved


# Listening


@dataclass(slots=True)
class _Observed:
    """What one layer of a network was given and answered, at places drawn in its map.

    The same seed draws the same places in the dense network and in a pruned one, whose maps are as large.

    Attributes:
        path: The layer.
        places: How many per image.
        seed: Of the places.
        outputs: Output channels that are kept of what is observed; None keeps all.
        with_inputs: Whether inputs are observed.
        inputs: Per call, shape (samples, channels, *kernel).
        responses: Per call, shape (samples, outputs).
        summands: By call, what else goes into the sum that the response goes into, in units of the response,
            shape (samples, outputs).
    """

    path: str
    places: int
    seed: list[int]
    outputs: Tensor | None = None
    with_inputs: bool = False
    inputs: list[Tensor] = field(default_factory=list)
    responses: list[Tensor] = field(default_factory=list)
    summands: dict[int, Tensor] = field(default_factory=dict)
    generator: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Starts drawing."""
        self.generator = np.random.default_rng(self.seed)

    def total(self) -> Tensor:
        """Responses, with what else goes into their sum, in float64, shape (samples, outputs)."""
        return torch.cat(
            [response.double() + self.summands.get(call, 0) for call, response in enumerate(self.responses)]
        )

    def draw(self, batch: int, extent: Sequence[int]) -> tuple[Tensor, ...]:
        """Places in the maps of a batch: an index of the image, and one per axis of the map."""
        size = int(np.prod(extent))
        count = min(self.places, size)
        flat = np.tile(np.arange(size), batch)
        if size > count:
            flat = self.generator.integers(0, size, batch * count)
        places = np.unravel_index(flat, tuple(extent)) if extent else ()
        return (torch.arange(batch).repeat_interleave(count), *map(torch.as_tensor, places))

    def pick(self, output: Tensor, where: tuple[Tensor, ...]) -> Tensor:
        """What an output, channels last, holds at some places, shape (samples, outputs)."""
        picked = output[where]
        return picked if self.outputs is None else picked[:, self.outputs]


class _Summand(NamedTuple):
    """An output that may go into a sum.

    Attributes:
        observed: Whose output it is.
        call: In which of its calls.
        where: The places it is observed at.
        scale: What it was multiplied by since the layer, per channel, or None.
        axis: Of its channels.
        version: Of the tensor: what is changed in place since then is another output.
    """

    observed: _Observed
    call: int
    where: tuple[Tensor, ...]
    scale: Tensor | None
    axis: int
    version: int


class _Sums(TorchFunctionMode):
    """Notes the other summand when an output of `known` is added to something of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.known: MutableMapping[Tensor, _Summand] = WeakIdKeyDictionary()

    def remember(self, output: Tensor, summand: _Summand) -> None:
        """An output to look out for."""
        self.known[output] = summand

    def recall(self, value: Any) -> _Summand | None:
        """What is known of a tensor, if it is still what it was."""
        summand = self.known.get(value) if isinstance(value, Tensor) else None
        return summand if summand is not None and value._version == summand.version else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Listens, then does what was asked for."""
        if func in (torch.add, Tensor.add, Tensor.add_) and len(args) == 2 and not kwargs:
            for value, other in (args, args[::-1]):
                summand = self.recall(value)
                if summand is None or not _alike(value, other):
                    continue
                observed, call, where, scale, axis, _ = summand
                picked = observed.pick(other.movedim(axis, -1), where)
                if scale is not None:
                    kept = scale if observed.outputs is None else scale[observed.outputs]
                    carried = kept.abs() > LEAST_SCALE * kept.abs().max()
                    picked = torch.where(carried, picked / torch.where(carried, kept, 1), 0)
                observed.summands.setdefault(call, picked)
        return func(*args, **(kwargs or {}))


def _alike(value: Tensor, other: Any) -> bool:
    """Whether a summand is another tensor of the same shape."""
    return isinstance(other, Tensor) and other is not value and other.shape == value.shape


@contextmanager
def _listening(net: nn.Module, observed: Iterable[_Observed]) -> Iterator[None]:
    """Listens to some layers of a network in eval mode while it is called."""
    sums = _Sums()
    hooks = []

    def layer_hook(listener: _Observed) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            axis = -1 if isinstance(module, nn.Linear) else 1
            last = output.movedim(axis, -1)
            where = listener.draw(len(last), last.shape[1:-1])
            sums.remember(
                output, _Summand(listener, len(listener.responses), where, None, axis, output._version)
            )
            listener.responses.append(listener.pick(last, where))
            if listener.with_inputs:
                x = args[0] if args else kwargs["input"]
                if isinstance(module, tuple(SELECTING.values())):
                    x = x.index_select(axis, module.get_buffer("index"))
                listener.inputs.append(unrolled(module, x)[where])

        return hook

    def norm_hook(module: _BatchNorm, args: tuple[Any, ...], output: Tensor) -> None:
        summand = sums.recall(args[0])
        if summand is None or module.running_var is None:
            return
        scale = (module.running_var + module.eps).rsqrt()
        if module.weight is not None:
            scale = scale * module.weight
        if summand.scale is not None:
            scale = scale * summand.scale
        sums.remember(output, summand._replace(scale=scale, version=output._version))

    for listener in observed:
        module = net.get_submodule(listener.path)
        hooks.append(module.register_forward_hook(layer_hook(listener), with_kwargs=True))
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    hooks += [norm.register_forward_hook(norm_hook) for norm in norms]
    try:
        with sums:
            yield
    finally:
        for hook in hooks:
            hook.remove()
