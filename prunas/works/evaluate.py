"""The work `evaluate`: score one point with the weights it inherits, without training it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas.architecture import Architecture
from prunas.recipe import Recipe
from prunas.spaces.space import SearchSpace
from prunas.tasks.base import Split, Task
from prunas.training.evaluate import evaluate
from prunas.works import processor
from prunas.works.runtime import (
    calibration,
    choose_algorithms,
    device,
    network,
    side_by_side,
    space_of_spec,
    task_of_spec,
)

__all__ = ["computing", "estimate_norms", "measure", "pays_last", "run", "score_network"]


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Validation score of a point, as `prunas.works.trainings.Setting.work` writes it down.

    Its options, which `prunas.proposers.evaluators.Evaluator.request` writes: `architecture`; `inherit` as of a
    training, or with a rule `select` instead of `kept`; `norms`: so many training images, without augmentation,
    from which statistics of batch norms are estimated anew first, 0 keeps the inherited ones; `images`: so many of
    the validation split are scored, all if it is missing.

    Returns:
        `score` on the validation split, the `macs` and `seconds` it took; None if `stop` said so.
    """
    options, recipe = spec["options"], Recipe.from_json(spec["recipe"])
    arch = Architecture.from_json(options["architecture"])

    def make(space: SearchSpace, task: Task) -> nn.Module:
        return network(spec["seed"], space, arch, options["inherit"], task, recipe.images, folder)

    images = options.get("images", 0)
    return score_network(spec, arch, make, options["norms"], stop, images=images, quick=True)


def score_network(
    spec: Mapping[str, Any],
    arch: Architecture,
    make: Callable[[SearchSpace, Task], nn.Module],
    norms: int,
    stop: Callable[[], bool],
    split: Split = "val",
    images: int = 0,
    quick: bool = False,
) -> dict[str, Any] | None:
    """Score of a network that is not trained.

    Args:
        spec: With the space, the recipe, the data and the seed of a job.
        arch: The point.
        make: Makes its network on the CPU, with weights.
        norms: Training images from which statistics of batch norms are estimated anew first; 0 keeps them.
        stop: Whether to stop.
        split: What it is scored on.
        images: How many samples of the split; 0 means all.
        quick: Whether the network has the memory layout that is fast, and not that of the recipe.

    Returns:
        As `run`.
    """
    where, started = device(), time.perf_counter()
    choose_algorithms(where)
    space, recipe, task = space_of_spec(spec), Recipe.from_json(spec["recipe"]), task_of_spec(spec)
    macs = space.cost(arch).macs
    with side_by_side(where, stop), computing(space, arch, recipe, where):
        net = make(space, task)
        batches = calibration(task, norms, spec["seed"], recipe.images) if norms else ()
        last = pays_last(recipe, space, arch, where) if quick else recipe.channels_last
        measured = measure(net, task, recipe, where, batches, split, images, stop, channels_last=last)
    if measured is None:
        return None
    score, passed = measured
    return {"score": score, "macs": macs * passed, "seconds": time.perf_counter() - started}


def pays_last(recipe: Recipe, space: SearchSpace, arch: Architecture, where: torch.device) -> bool:
    """Whether an evaluation has its network's channels last: where oneDNN's convolutions are used.

    They take two thirds of the time so, and an evaluation has no training whose bits it would change.
    """
    return recipe.channels_last or (where.type == "cpu" and processor.onednn_pays(space, arch, recipe))


@contextmanager
def computing(space: SearchSpace, arch: Architecture, recipe: Recipe, where: torch.device) -> Iterator[None]:
    """Inside, the process computes as suits the size of a point's network."""
    onednn = where.type != "cpu" or processor.onednn_pays(space, arch, recipe)
    with processor.convolutions(onednn):
        torch.set_num_threads(processor.threads(space.cost(arch).macs * recipe.batch))
        yield


def measure(
    net: nn.Module,
    task: Task,
    recipe: Recipe,
    where: torch.device,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]] = (),
    split: Split = "val",
    images: int = 0,
    stop: Callable[[], bool] = lambda: False,
    *,
    channels_last: bool,
) -> tuple[float, int] | None:
    """Score of a network, its batch norms measured again first.

    Args:
        net: With weights; it is moved to `where`.
        task: What is judged.
        recipe: Gives the precision, and the memory layout of images.
        where: The device.
        batches: On which batch norms are measured again; none keeps what they have.
        split: What it is scored on.
        images: How many samples of the split; 0 means all.
        stop: Whether to stop.
        channels_last: Memory layout of the network.

    Returns:
        The score, and how many images were passed; None if `stop` said so.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net.to(device=where, memory_format=layout)  # type: ignore[call-overload]  # a documented overload
    passed = estimate_norms(net, batches, where) if batches else 0
    if stop():
        return None
    scored = len(task.members(split, 0))
    if 0 < images < scored:
        scored = images
    else:
        images = 0
    return evaluate(net, task, split, device=where, recipe=recipe, images=images), passed + scored


@torch.no_grad()
def estimate_norms(
    net: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], where: torch.device
) -> int:
    """Replaces the running statistics of all batch norms by the mean of those of some batches.

    Args:
        net: On `where`; every module's mode is as before afterwards.
        batches: Images and labels.

    Returns:
        How many images were passed.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    modes = [(module, module.training) for module in net.modules()]
    momenta, images = [norm.momentum for norm in norms], 0
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    try:
        for x, _ in batches:
            net(x.to(where))
            images += len(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
    return images
