"""The process a work runs in: device, threads, trainings side by side, weights and calibration images."""

import ctypes
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from prunas.architecture import Architecture
from prunas.data.dataset import stream_seed
from prunas.data.find import load_data
from prunas.errors import InputError
from prunas.plugins import resolve
from prunas.proposers.pruning.channels import highest
from prunas.proposers.pruning.l1 import sums
from prunas.spaces.load import load_space
from prunas.spaces.reference import Reference
from prunas.spaces.space import SearchSpace
from prunas.tasks.base import Task
from prunas.tasks.load import CLASSIFICATION, TaskReference, load_task
from prunas.training.capture import StepCache, cuda_recorder
from prunas.training.distillation import Teacher
from prunas.training.precision import SEARCHED
from prunas.works import processor

__all__ = [
    "STEP_CACHE",
    "calibration",
    "check_environment",
    "checkpoint_seconds",
    "choose_algorithms",
    "chosen_units",
    "data_root",
    "device",
    "initial",
    "network",
    "side_by_side",
    "space_of",
    "space_of_spec",
    "task_of",
    "task_of_spec",
    "teacher",
    "weights",
]

CALIBRATION_BATCH = 64
"""Images a method sees at once: a large network's activations of a few hundred would not fit a small machine."""

STEP_CACHE = StepCache(lambda where: None if _switch("PRUNAS_EAGER") else cuda_recorder(where))
_STREAMS: list[torch.cuda.Stream] = []
"""Those that no training uses now. Few and used again, because memory freed on one serves no other."""


def device() -> torch.device:
    """Where trainings run: PRUNAS_DEVICE, else a CUDA device if there is one, else the CPU."""
    if _switch(
        "PRUNAS_DETERMINISTIC"
    ):  # here, because torch reads it once, when it first multiplies on a GPU
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device(os.environ.get("PRUNAS_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def check_environment() -> None:
    """Refuses environment variables that no training could follow.

    Raises:
        InputError: PRUNAS_DEVICE is no device of this machine, or a number cannot be read.
    """
    checkpoint_seconds()
    processor.cores()
    try:
        torch.empty(1, device=device())
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise InputError(
            f"PRUNAS_DEVICE={os.environ.get('PRUNAS_DEVICE', '')} cannot be used here ({why}); try cpu or cuda"
        ) from error


def _switch(name: str) -> bool:
    """Whether an environment variable is set to something other than 0; how commands tell workers."""
    return os.environ.get(name, "0") not in ("", "0")


def choose_algorithms(where: torch.device) -> None:
    """How this process computes: reproducibly to the bit under PRUNAS_DETERMINISTIC, else as fast as it can."""
    if _switch("PRUNAS_DETERMINISTIC"):
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
    if where.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        torch.backends.cudnn.benchmark_limit = SEARCHED


@dataclass(eq=False, slots=True)
class Concurrency:
    """One training among those of this process.

    Attributes:
        most: How many there were at the same time, at most.
    """

    most: int = 0


_RUNNING: list[Concurrency] = []
"""Those taken."""


def _trim() -> None:
    """Hands freed memory back to the system, which glibc alone does not.

    A worker that trains networks of many shapes in a row grows without this: `benchmarks/speed/memory.py`.
    """
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def side_by_side(
    where: torch.device, stop: Callable[[], bool]
) -> Iterator[tuple[Concurrency, Callable[[], bool]]]:
    """Keeps a training apart from those that run while it asks whether to stop.

    On a CUDA device it gets a stream of its own, so that what several have launched runs side by side.

    Returns:
        Its seat, and what to ask instead of `stop`: random state, threads, kernels and with them results are as
        without it.
    """
    cuda = torch.cuda.default_generators[where.index or 0] if where.type == "cuda" else None
    outside = torch.get_rng_state(), cuda.graphsafe_get_state() if cuda else None
    onednn_outside = torch.backends.mkldnn.enabled

    def swap(
        state: tuple[torch.Tensor, torch.Generator | None],
    ) -> tuple[torch.Tensor, torch.Generator | None]:
        """Puts a random state in place of the present one, which is returned."""
        before = torch.get_rng_state(), cuda.graphsafe_get_state() if cuda else None
        torch.set_rng_state(state[0])
        if cuda is not None and state[1] is not None:
            cuda.graphsafe_set_state(state[1])
        return before

    def stepped() -> bool:
        nonlocal outside
        threads, onednn = torch.get_num_threads(), torch.backends.mkldnn.enabled
        mine = swap(outside)
        torch.backends.mkldnn.enabled = (
            onednn_outside  # a neighbour that begins now chooses its kernels by itself
        )
        answer = stop()
        outside = swap(mine)
        torch.backends.mkldnn.enabled = onednn
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return answer

    _RUNNING.append(seat := Concurrency())
    for other in _RUNNING:
        other.most = max(other.most, len(_RUNNING))
    stream = None
    if where.type == "cuda":
        stream = _STREAMS.pop() if _STREAMS else torch.cuda.Stream(where)  # type: ignore[no-untyped-call]
    try:
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            yield seat, stepped
    finally:
        _RUNNING.remove(seat)
        _trim()
        if stream is not None:
            _STREAMS.append(stream)


def checkpoint_seconds() -> float:
    """PRUNAS_CHECKPOINT_SECONDS: what a training repeats at most when its process is killed; 30 by default."""
    text = os.environ.get("PRUNAS_CHECKPOINT_SECONDS", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"PRUNAS_CHECKPOINT_SECONDS must be a number above 0, not {text!r}")
    return seconds


def initial(space: SearchSpace, seed: int) -> dict[str, torch.Tensor]:
    """The weights that a training of the dense network with this seed starts from, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("weights", seed))
        return {name: tensor.detach() for name, tensor in space.build().state_dict().items()}


def data_root(spec: Mapping[str, Any]) -> Path | None:
    """The folder of data sets that a job was given, see `prunas.runs.job.Job`; None leaves it to each machine."""
    root = spec.get("places", {}).get("data")
    return Path(root) if root else None


def task_of(reference: TaskReference, data: Reference | None, root: Path | None = None) -> Task:
    """The task of a job.

    Args:
        reference: As the job says.
        data: Of the data set; None if the task needs none.
        root: Folder of the data sets, see `prunas.data.data_folder`.

    Raises:
        InputError: It cannot be loaded, or is not the one the job was planned with.
    """
    return load_task(reference, None if data is None else load_data(data, root))


def task_of_spec(spec: Mapping[str, Any]) -> Task:
    """The task that the run was planned with.

    Raises:
        InputError: It, or its data, is another one by now.
    """
    planned = Reference.from_json({key: value for key, value in spec["data"].items() if key != "images"})
    task = TaskReference.from_json(spec["task"]) if "task" in spec else CLASSIFICATION
    return task_of(task, planned if planned.name else None, data_root(spec))


def calibration(
    task: Task, images: int, seed: int, subset: int
) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Training images as they are, on the CPU.

    Args:
        task: Whose images.
        images: How many at most; training sets smaller than that are passed over whole.
        seed: Which ones.
        subset: How many training images the trainings see (`Recipe.images`); 0 means all.
    """
    cpu = torch.device("cpu")
    return task.calibration(images, seed=seed, device=cpu, batch=CALIBRATION_BATCH, subset=subset)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights a finished run kept.

    Raises:
        InputError: It kept none, or they are gone or damaged.
    """
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} holds no weights; delete that folder and repeat the command")
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise InputError(
            f"{path} is damaged ({error}); repeat the command that trained it, which trains it again"
        ) from error


def network(
    seed: int,
    space: SearchSpace,
    arch: Architecture,
    inherited: Mapping[str, Any] | None,
    task: Task,
    subset: int,
    folder: Path,
) -> nn.Module:
    """The network of a job with the weights it starts from, on the CPU; the random state is left alone.

    Args:
        seed: Of initial weights.
        space: The search space.
        arch: The point.
        inherited: As `prunas.protocols.Protocol.inherits` writes it down, or with a rule `select` instead of
            `kept`, see `chosen_units`; None draws initial weights.
        task: From whose training split a rebuild takes calibration images.
        subset: How many training images the trainings see (`Recipe.images`); 0 means all.
        folder: Of the job; the runs it inherits from lie beside it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("weights", seed))
        if inherited is None:
            return space.build(arch)
        if inherited["run"] is None:
            return space.build(arch, space.build().state_dict(), inherited["kept"])
        state = weights(folder.parent / inherited["run"])
        kept = inherited.get("kept")
        if kept is None:
            kept = chosen_units(space, arch, state, inherited["select"])
        if how := inherited.get("rebuild"):
            images = partial(calibration, task, seed=how["options"]["seed"], subset=subset)
            rebuild = resolve("prunas.rebuilds", how["name"])
            state = rebuild(space, arch, state, kept, images, **how["options"])
        return space.build(arch, state, kept)


def chosen_units(
    space: SearchSpace, arch: Architecture, state: Mapping[str, torch.Tensor], select: str
) -> dict[str, list[int]]:
    """Units of each narrowed group that a point keeps where only its shape is known.

    Args:
        space: The search space.
        arch: The point.
        state: State dict of the dense network, on the CPU.
        select: `largest`: those of the largest absolute weights (Li et al., ICLR 2017); `first`: the first ones.
    """
    if select == "first" or not arch.widths:
        return {group: list(range(width)) for group, width in arch.widths}
    totals, _ = sums(space, state)
    scores = dict(zip((d.name for d in space.dimensions), totals, strict=True))
    return {group: highest(scores[group], width).tolist() for group, width in arch.widths}


def teacher(space: SearchSpace, taught: Mapping[str, Any] | None, folder: Path) -> Teacher | None:
    """The dense network that teaches in a job, on the CPU; the random state is left alone.

    Args:
        space: The search space.
        taught: As `prunas.protocols.Protocol.teaching` writes it down; None: nobody teaches.
        folder: Of the job; the run of the dense network lies beside it.
    """
    if taught is None:
        return None
    state = weights(folder.parent / taught["run"])
    with torch.random.fork_rng(devices=[]):
        return Teacher(space.build(space.dense, state, {}), taught["temperature"], taught["weight"])


def space_of_spec(spec: Mapping[str, Any]) -> SearchSpace:
    """The space of a job; kept for the next job."""
    return space_of(json.dumps(spec["space"]))


@lru_cache(maxsize=8)
def space_of(reference: str) -> SearchSpace:
    """The space of a job, by its reference as canonical JSON; kept for the next job."""
    return load_space(json.loads(reference))
