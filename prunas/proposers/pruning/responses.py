"""What channels contribute to the layers that read them, measured on training images.

A response of a reading layer, without its bias, is a sum over its input channels. For sampled responses y and the
channels' contributions X to them, X.sum(1) == y. All that is asked of them here is how well some channels, each
with a factor of its own, make up y; and that only depends on the Gram matrix X^T X, so that it alone is kept: it
is exact, small, and sums over samples and over the layers that read the same channels. What is lost is made up
for in the weights that fine-tuning inherits: see `prunas.proposers.pruning.refit`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.proposers.brief import Brief
from prunas.proposers.pruning.channels import by_unit, readers
from prunas.spaces.space import SearchSpace
from prunas.survey import ChannelMap

__all__ = ["Matrix", "Sampling", "check", "contributions", "errors", "grams", "root", "unrolled"]

Matrix = npt.NDArray[np.float64]


Calibration = Callable[[int], Iterable[tuple[Tensor, Tensor]]]

CHUNK = 2**23
"""Products held at once."""


class Sampling(NamedTuple):
    """Which responses are sampled.

    Attributes:
        images: How many images of the training split.
        places: Places in the map of every reading layer, drawn per image.
        entries: Output channels drawn at each of them; a layer with no more has all.
    """

    images: int
    places: int
    entries: int


def check(brief: Brief, method: str) -> None:
    """Refuses a brief that cannot be served, before anything is trained.

    Raises:
        InputError: There are no images, or a dimension that no layer reads.
    """
    if brief.calibration is None:
        raise InputError(
            f"{method} measures responses to training images, and space {brief.space.name!r} has none"
        )
    readers(brief.space, method)


def grams(brief: Brief, weights: Mapping[str, Tensor], sampling: Sampling, method: str) -> list[Matrix]:
    """Gram matrix of the contributions of each dimension's units, shape (units, units), per dimension.

    Every reading layer's is divided by the energy of its whole response, and layers that read the same channels
    are averaged: the entries of a matrix sum to the share of its readers' response energy that its channels make
    up, 1 where they are all the input.

    Args:
        brief: What is asked.
        weights: State dict of the dense network, on the CPU.
        sampling: Which responses are sampled; `brief.seed` decides the draws.
        method: Its name, for a message.

    Raises:
        InputError: See `check`.
    """
    check(brief, method)
    assert brief.calibration is not None
    measured = _measured(brief.space, weights, brief.calibration, sampling, brief.seed, method)
    matrices = [np.zeros((d.dense, d.dense)) for d in brief.space.dimensions]
    for i, layers in enumerate(readers(brief.space, method)):
        for layer in layers:
            reader = measured[layer.path]
            matrices[i] += reader.grams[i] / max(reader.energy, np.finfo(float).tiny) / len(layers)
    return matrices


def _measured(
    space: SearchSpace,
    weights: Mapping[str, Tensor],
    calibration: Calibration,
    sampling: Sampling,
    seed: int,
    method: str,
) -> dict[str, "_Reader"]:
    """Contributions to every reading layer of the dense network, by module path."""
    survey = space.survey
    with torch.random.fork_rng(devices=[]):
        net = space.build()
    net.load_state_dict(dict(weights))
    net.eval()
    wanted: dict[str, _Reader] = {}
    for i, (d, layers) in enumerate(zip(space.dimensions, readers(space, method), strict=True)):
        group = survey.group_index[d.name] if d.kind == "group" else None
        for layer in layers:
            if layer.path not in wanted:
                generator = np.random.default_rng([seed, len(wanted)])
                wanted[layer.path] = _Reader(survey.forms[layer.reads], sampling, generator)
                module = net.get_submodule(layer.path)
                module.register_forward_pre_hook(wanted[layer.path], with_kwargs=True)
            wanted[layer.path].grams[i] = np.zeros((d.dense, d.dense))
            wanted[layer.path].groups[i] = group
    with torch.inference_mode():
        for images, _ in calibration(sampling.images):
            net(images)
    return wanted


class _Reader:
    """A hook on one layer that adds up what the channels of its input contribute."""

    def __init__(self, form: ChannelMap, sampling: Sampling, generator: np.random.Generator) -> None:
        self.form = form
        self.sampling = sampling
        self.generator = generator
        self.grams: dict[int, Matrix] = {}
        self.groups: dict[int, int | None] = {}
        self.energy = 0.0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        for rows in contributions(module, x, self.sampling, self.generator):
            self.energy += float((rows.sum(1) ** 2).sum())
            for i, gram in self.grams.items():
                group = self.groups[i]
                contributed = rows if group is None else by_unit(self.form, group, len(gram), rows)
                gram += contributed.T @ contributed


def contributions(
    module: nn.Module, x: Tensor, sampling: Sampling, generator: np.random.Generator
) -> Iterator[Matrix]:
    """What each input channel of a layer adds to responses at random places.

    Args:
        module: A convolution or a linear layer.
        x: Its input.
        sampling: How many places and entries.
        generator: Draws them.

    Yields:
        Some of the entries drawn, shape (entries, input channels), without the bias; place by place.
    """
    patches, weight = unrolled(module, x), _ungrouped(module)
    kernel = 1 if isinstance(module, nn.Linear) else weight.ndim - 2
    batch, *extent = patches.shape[: patches.ndim - 1 - kernel]
    image = torch.arange(batch).repeat_interleave(sampling.places)
    place = [torch.as_tensor(generator.integers(0, n, len(image))) for n in extent]
    drawn, weight = patches[(image, *place)].flatten(2), weight.flatten(2)
    out = len(weight)
    entries = None
    if out > sampling.entries:
        entries = torch.as_tensor(generator.integers(0, out, (len(image), sampling.entries)))
    at_once = max(1, CHUNK // (weight[0].numel() * min(out, sampling.entries)))
    for start in range(0, len(image), at_once):
        here = drawn[start : start + at_once]
        if entries is None:
            rows = torch.einsum("pck,ock->poc", here, weight)
        else:
            rows = torch.einsum("pck,pock->poc", here, weight[entries[start : start + at_once]])
        yield rows.flatten(0, 1).double().numpy()


def unrolled(module: nn.Module, x: Tensor) -> Tensor:
    """The input channels of a layer as seen from every place.

    Returns:
        A view of shape (batch, *map, channels, *kernel). A linear layer's kernel is one element.
    """
    if isinstance(module, nn.Linear):
        return x.unsqueeze(-1)
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    spatial = range(len(module.kernel_size))
    padding: list[int] = []
    for axis in reversed(spatial):  # F.pad wants the last axis first
        if isinstance(module.padding, str):
            total = module.dilation[axis] * (module.kernel_size[axis] - 1) if module.padding == "same" else 0
            padding += [total // 2, total - total // 2]
        else:
            padding += [module.padding[axis]] * 2
    x = F.pad(x, padding, "constant" if module.padding_mode == "zeros" else module.padding_mode)
    for axis in spatial:
        extent = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        x = x.unfold(2 + axis, extent, module.stride[axis])[..., :: module.dilation[axis]]
    return x.movedim(1, 1 + len(spatial))


def _ungrouped(module: nn.Module) -> Tensor:
    """What each input channel is multiplied with, shape (outputs, channels, *kernel).

    Zero where a grouped convolution does not look.
    """
    weight = module.weight
    assert isinstance(weight, Tensor)
    weight = weight.detach()
    if isinstance(module, nn.Linear):
        return weight.unsqueeze(-1)
    groups = module.groups
    assert isinstance(groups, int)
    if groups == 1:
        return weight
    out, inner = len(weight) // groups, weight.shape[1]
    full = weight.new_zeros(len(weight), inner * groups, *weight.shape[2:])
    for g in range(groups):
        full[g * out : (g + 1) * out, g * inner : (g + 1) * inner] = weight[g * out : (g + 1) * out]
    return full


def root(gram: Matrix) -> Matrix:
    """An upper triangular X with X^T X the Gram matrix: as many responses as channels hold all of it."""
    ridge = (
        1e-10 * np.trace(gram) / len(gram) + 1e-200
    )  # of channels that contribute the same, the first counts
    return np.linalg.cholesky(gram + ridge * np.eye(len(gram))).T


def errors(gram: Matrix, best_first: npt.NDArray[np.int64]) -> Matrix:
    """How much of the response is lost when the channels go, the last of `best_first` first.

    The rest is scaled by least squares each time. The errors fall along the order, so that they can serve as
    scores: the channels with scores above t are the fewest of this order that lose at most t.

    Args:
        gram: As `grams` returns it.
        best_first: An order of all channels.

    Returns:
        For each channel, the relative squared error once it and all behind it have gone.
    """
    ordered = gram[np.ix_(best_first, best_first)]
    explained = scipy.linalg.solve_triangular(root(ordered).T, ordered.sum(1), lower=True) ** 2
    left = np.maximum(gram.sum() - np.concatenate([[0.0], np.cumsum(explained)[:-1]]), 0.0)
    lost = np.empty(len(gram))
    lost[best_first] = left + 1e-12 * np.arange(len(gram))[::-1]  # keeps the order among equals
    return lost
