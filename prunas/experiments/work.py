"""The work a job names: build one network, train it, say how it went. The only place that joins the rooms."""

import json
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from prunas.architecture import Architecture
from prunas.build.masks import kernel_masks
from prunas.data import load
from prunas.data.dataset import Batch, stream_seed
from prunas.errors import InputError
from prunas.recipe import Recipe
from prunas.space import SearchSpace, load_space
from prunas.training.loop import Preempted, Progress, train

__all__ = ["calibration", "device", "limit_threads", "run", "weights"]

CALIBRATION_BATCH = 64
"""Images a method sees at once: a large network's activations of a few hundred would not fit a small machine."""


def device() -> torch.device:
    """Where trainings run: PRUNAS_DEVICE, else a CUDA device if there is one, else the CPU."""
    return torch.device(os.environ.get("PRUNAS_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """One training, as `prunas.experiments.jobs` writes it down.

    Returns:
        What happened, as JSON values; None if `stop` ended it and the same job will continue.
    """
    space = _space(json.dumps(spec["space"]))
    arch = Architecture.from_json(spec["architecture"])
    recipe = Recipe.from_json(spec["recipe"])
    limit_threads(space.cost(arch).macs * recipe.batch)
    data = load(spec["data"]["name"])
    if data.identity != spec["data"]["identity"]:
        raise InputError(f"data set {data.name!r} is not the one this run was planned with; check --data")
    where = device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("weights", spec["seed"]))
        if (inherited := spec["inherit"]) is None:
            net = space.build(arch)
        elif inherited["run"] is None:
            net = space.build(arch, space.build().state_dict(), inherited["kept"])
        else:
            state, kept = weights(folder.parent / inherited["run"]), inherited["kept"]
            if how := inherited.get("rebuild"):
                images = partial(calibration, data.name, seed=how["options"]["seed"])
                state = pkgutil.resolve_name(how["path"])(space, arch, state, kept, images, **how["options"])
            net = space.build(arch, state, kept)
    penalty = spec["penalty"]
    regulariser = pkgutil.resolve_name(penalty["path"])(**penalty["options"]) if penalty else None
    masks = kernel_masks(space.survey, arch)

    def tell(state: Progress) -> None:
        progress(
            {"epoch": state.epoch, "epochs": state.epochs, "loss": state.loss, "accuracy": state.accuracy}
        )

    try:
        trained = train(
            net,
            data,
            recipe,
            epochs=spec["epochs"],
            seed=spec["seed"],
            split=spec["split"],
            score=spec["score"],
            device=where,
            regulariser=regulariser,
            masks={name: torch.as_tensor(mask) for name, mask in masks.items()} or None,
            folder=folder,
            checkpoint_every=_checkpoint_seconds(),
            keep_weights=spec["keep_weights"],
            progress=tell,
            stop=stop,
        )
    except Preempted:
        return None
    return {
        "accuracy": trained.accuracy,
        "seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
        "losses": list(trained.losses),
        "train_accuracies": list(trained.train_accuracies),
        "penalty": dict(trained.regulariser),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "notes": list(data.notes),
    }


def _checkpoint_seconds() -> float:
    """PRUNAS_CHECKPOINT_SECONDS: what a training repeats at most when its process is killed; 30 by default."""
    text = os.environ.get("PRUNAS_CHECKPOINT_SECONDS", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise InputError(f"PRUNAS_CHECKPOINT_SECONDS must be a number above 0, not {text!r}")
    return seconds


def limit_threads(macs: int) -> None:
    """Gives a training as many CPU threads as it can use.

    Args:
        macs: Of one batch, forward. Below half a billion a second thread costs more than it brings: measured on
            two cores, a small VGG on digits trains as fast with one thread and spends half the processor time.
    """
    share = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    torch.set_num_threads(1 if macs < 500_000_000 else share)


def calibration(name: str, images: int, seed: int) -> Iterator[Batch]:
    """Training images as they are, on the CPU.

    Args:
        name: Of the data set.
        images: How many at most; training sets smaller than that are passed over whole.
        seed: Which ones.
    """
    data = load(name)
    wanted = min(images, data.sizes["train"])
    return data.calibration(wanted, seed=seed, device=torch.device("cpu"), batch=CALIBRATION_BATCH)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights a finished run kept.

    Raises:
        InputError: It kept none, or they are gone.
    """
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} holds no weights; delete that folder and repeat the command")
    return safetensors.torch.load_file(path)


@lru_cache(maxsize=8)
def _space(reference: str) -> SearchSpace:
    return load_space(json.loads(reference))
