"""The work `train`: build one network, train it, say how it went."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunas.architecture import Architecture
from prunas.files import canonical
from prunas.plugins import resolve
from prunas.recipe import Recipe
from prunas.runs.job import PLACES
from prunas.surgery.masks import kernel_masks
from prunas.tasks.base import Task
from prunas.training.evaluate import evaluate
from prunas.training.loop import EpochReport, Preempted, train
from prunas.works import processor
from prunas.works.runtime import (
    STEP_CACHE,
    Concurrency,
    checkpoint_seconds,
    choose_algorithms,
    device,
    network,
    side_by_side,
    space_of_spec,
    task_of_spec,
    teacher,
)
from prunas.works.supernet import options_of, sandwich

__all__ = ["KEPT_UP_TO", "run"]

KEPT_UP_TO = 64 << 20
"""Bytes of the weights that a final training keeps unasked. All, because nothing but its test score tells which is
best, and that must choose nothing."""


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """One training, as `prunas.works.trainings` writes it down.

    Other trainings may run in this process while `stop` is asked; neither sees a trace of the other in its result.

    Returns:
        What happened, as JSON values, with `pruned_score` where weights of a run are inherited; None if `stop`
        ended it and the same job will continue.

    Raises:
        MemoryError: The GPU's memory does not suffice, maybe because other trainings are on it.
    """
    where = device()
    choose_algorithms(where)
    with side_by_side(where, stop) as (seat, stepped):
        again = (
            True  # once even if nothing was idle: memory in the cache of another stream is free after this
        )
        while True:
            try:
                return _run(spec, where, folder, progress, stepped, seat)
            except torch.OutOfMemoryError as error:
                shortage = str(error).partition(". ")[0]
            # Not in the handler: the traceback holds the tensors of the attempt.
            idle = STEP_CACHE.drop()
            torch.cuda.empty_cache()
            if not (idle or again):
                raise MemoryError(f"{shortage}; lower --batch, or take a GPU with more memory")
            again = False


def _run(
    spec: Mapping[str, Any],
    where: torch.device,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
    seat: "Concurrency",
) -> dict[str, Any] | None:
    space = space_of_spec(spec)
    arch = Architecture.from_json(spec["architecture"])
    recipe = Recipe.from_json(spec["recipe"])
    torch.set_num_threads(processor.threads(space.cost(arch).macs * recipe.batch))
    onednn = where.type != "cpu" or processor.onednn_pays(space, arch, recipe)
    task = task_of_spec(spec)
    net = network(spec["seed"], space, arch, spec["inherit"], task, recipe.images, folder)
    penalty = spec["penalty"]
    regulariser = resolve("prunas.penalties", penalty["name"])(**penalty["options"]) if penalty else None
    division = spec.get("phases")
    phases = resolve("prunas.phases", division["name"])(**division["options"]) if division else None
    taught = spec.get("teacher")
    masks = kernel_masks(space.survey, arch)
    slices = options_of(spec)
    learnt = task if slices is None else sandwich(task, space, net, recipe, where, **slices)

    def tell(state: EpochReport) -> None:
        message: dict[str, Any] = {"epoch": state.epoch, "epochs": state.epochs}
        message |= {"loss": state.loss, "score": state.score, "score_name": state.score_name}
        if where.type == "cuda":
            total = torch.cuda.get_device_properties(where).total_memory
            message["memory"] = torch.cuda.max_memory_reserved(where) / total
            message["captures"] = STEP_CACHE.captures
        progress(message)

    inherits = spec["inherit"] is not None and spec["inherit"]["run"] is not None
    pruned_score: float | None = None
    try:
        with processor.convolutions(onednn):
            if inherits:  # of every session, for a checkpoint does not keep it; the same each time
                pruned_score = _score_before(net, task, recipe, where)
            trained = train(
                net,
                learnt,
                recipe,
                epochs=spec["epochs"],
                seed=spec["seed"],
                split=spec["split"],
                score=spec["score"],
                device=where,
                regulariser=regulariser,
                phases=phases,
                teacher=teacher(space, taught, folder),
                masks={name: torch.as_tensor(mask) for name, mask in masks.items()} or None,
                folder=folder,
                checkpoint_every=checkpoint_seconds(),
                keep_weights=_keeps_weights(spec, net),
                progress=tell,
                stop=stop,
                prepare=partial(
                    STEP_CACHE.bench,
                    (space.name, arch.digest, task.identity, canonical(taught), canonical(slices)),
                ),
            )
    except Preempted:
        return None
    return {
        "score": trained.score,
        **({"pruned_score": pruned_score} if inherits else {}),
        "score_name": trained.score_name,
        "seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
        "losses": list(trained.losses),
        "train_scores": list(trained.train_scores),
        "penalty": dict(trained.regulariser),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "notes": list(task.notes),
        "execution": {
            **trained.execution,
            "onednn": torch.backends.mkldnn.enabled and onednn if where.type == "cpu" else None,
            "at_once": seat.most,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark if where.type == "cuda" else None,
            "cudnn": torch.backends.cudnn.version() if where.type == "cuda" else None,  # type: ignore[no-untyped-call]
            "cuda": torch.version.cuda if where.type == "cuda" else None,
        },
    }


def _keeps_weights(spec: Mapping[str, Any], net: nn.Module) -> bool:
    """Whether the weights of a training are kept: those that its job names, and final ones up to `KEPT_UP_TO`."""
    if spec["keep_weights"] or spec["score"] != "test":
        return bool(spec["keep_weights"])
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    return bool(size <= KEPT_UP_TO) and spec.get(PLACES, {}).get("weights_of_finals") != "dropped"


def _score_before(net: nn.Module, task: Task, recipe: Recipe, where: torch.device) -> float:
    """Validation score of a network that inherited weights, before its first step; the test split is not met."""
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    net.to(device=where, memory_format=layout)  # type: ignore[call-overload]  # a documented overload
    return evaluate(net, task, "val", device=where, recipe=recipe)
