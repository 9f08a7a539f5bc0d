"""A finished training read back: the network with its weights, and what is known of it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunas.architecture import Architecture
from prunas.costs.counted import Cost
from prunas.errors import InputError
from prunas.files import read_stored
from prunas.inspection.runs import run_folder
from prunas.plugins import resolve
from prunas.recipe import Recipe
from prunas.runs.job import Job
from prunas.runs.store import Result
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.works.runtime import weights

__all__ = ["TrainedRun", "load_run"]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRun:
    """A finished training.

    Attributes:
        network: With the weights it ended with, in evaluation mode, on the CPU.
        space: Its search space, as the training knew it: without data, recipe and targets.
        architecture: The point.
        cost: Of the point.
        score: On the split `split`, after the last epoch.
        score_name: What the score is called, such as `accuracy`; "" where the run does not say.
        split: `val`, or `test` for a final training.
        protocol: What the run's folder is called by: `scratch-e`, ..., or `dense`, `trial`, `given`.
        recipe: The rest of the training, resolved; its name is not kept.
        epochs: Passes over the training split; 0 for given weights.
        seed: Of initial weights and batches.
        data: Name of the data set; "" if the task needs none.
        name: Of the run, unique in its store.
        folder: Of the run.
        values: All that the training answered: losses, seconds, notes, ...
    """

    network: nn.Module = field(repr=False)
    space: SearchSpace = field(repr=False)
    architecture: Architecture
    cost: Cost
    score: float
    score_name: str
    split: str
    protocol: str
    recipe: Recipe = field(repr=False)
    epochs: int
    seed: int
    data: str
    name: str
    folder: Path
    values: Mapping[str, Any] = field(repr=False)


def load_run(what: str | Path, root: Path | str = "runs") -> TrainedRun:
    """A finished training, by its folder.

    Args:
        what: The run's folder, its id, or the name of its folder.
        root: The folder that holds all runs, for an id or a name.

    Raises:
        InputError: There is no such run, it is not finished, it kept no weights, or it was trained with more than
            the network.
    """
    folder = run_folder(str(what), Path(root))
    job = Job.from_json(read_stored(folder / "job.json"))
    spec = job.spec
    if "architecture" not in spec:
        raise InputError(f"run {job.name} is {job.work!r} and leaves no network; name a training")
    if not (folder / "result.json").is_file():
        raise InputError(f"run {job.name} is not finished; repeat the command that began it")
    if not (folder / "weights.safetensors").is_file():
        raise InputError(
            f"run {job.name} kept no weights; repeat its search with --keep-weights, or use `prunas train`, which "
            "keeps them"
        )
    values = Result.from_json(read_stored(folder / "result.json")).values
    space, arch = load_space(spec["space"]), Architecture.from_json(spec["architecture"])
    with torch.random.fork_rng(devices=[]):
        net = space.build(arch)
    if spec["penalty"] is not None:
        _refuse_changed(net, spec["penalty"], job.name)
    try:
        net.load_state_dict(weights(folder))
    except RuntimeError as error:
        raise InputError(f"run {job.name}: its weights do not fit its network; delete {folder}") from error
    return TrainedRun(
        network=net.eval(),
        space=space,
        architecture=arch,
        cost=space.cost(arch),
        score=values["score"],
        score_name=values.get("score_name", ""),
        split=spec["score"],
        protocol=job.label,
        recipe=Recipe.from_json(spec["recipe"]),
        epochs=spec["epochs"],
        seed=spec["seed"],
        data=spec["data"]["name"],
        name=job.name,
        folder=folder,
        values=values,
    )


def _refuse_changed(net: nn.Module, penalty: Mapping[str, Any], run: str) -> None:
    """Some penalties are trained with more than the network itself, such as a scale on every branch."""
    attached = copy.deepcopy(net)
    resolve("prunas.penalties", penalty["name"])(**penalty["options"]).attach(attached)
    if any(module._forward_hooks or module._forward_pre_hooks for module in attached.modules()):
        raise InputError(
            f"run {run} was trained with scales on its branches that are no part of the network; "
            "take the final training of a point instead"
        )
