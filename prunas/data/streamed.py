"""Data sets that are read as they are needed, by worker processes of torch's DataLoader.

What a sample is depends on the seed, the epoch and the sample alone: neither on the number of workers nor on where
an epoch is resumed. Images travel as bytes and are normalised on the device, inside the step.
"""

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from prunas.data.dataset import DataSet, Draw, Indices, stream_seed
from prunas.data.samples import Form, TargetForm, Targets, sample, seen, stack
from prunas.errors import InputError

__all__ = ["Part", "Reader", "Stream", "Streamed", "cores", "seeded", "usual_workers"]

STARTING = 1000
"""Samples for which it pays to start one more worker: that takes longer than to decode a few hundred."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the Datasets that a data set is made of.

    Attributes:
        name: What the user calls it, for messages.
        plain: Map-style Dataset of pairs (inputs, target).
        augmented: The same samples with the random transforms of training; None where `plain` has none.
    """

    name: str
    plain: Any
    augmented: Any = None


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_workers(samples: int) -> int:
    """Worker processes for so many samples.

    None where processes are not forked: a Dataset of a user's file cannot be sent to another process there.
    """
    return min(8, cores(), samples // STARTING) if sys.platform == "linux" else 0


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Whatever draws from torch, numpy or `random` inside draws from `seed`; afterwards all is as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  # users' transforms
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


class Reader(Dataset[Any]):
    """Reads batches of samples. What cannot be read is told as a text: errors lose their form between processes.

    Attributes:
        parts: What is read; positions count through them.
        augment: Whether random transforms are wanted.
        inputs: Form of every sample's inputs; None takes any.
        targets: Form of every sample's targets; None takes any.
        transform: A further augmentation, of images that are bytes.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        augment: bool,
        inputs: Form | None = None,
        targets: TargetForm | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.parts, self.augment, self.inputs, self.targets = parts, augment, inputs, targets
        self.transform = transform
        self._ends = np.cumsum([len(part.plain) for part in parts])

    def place(self, position: int) -> tuple[Part, int]:
        """The part that holds a position, and the position in it."""
        k = int(np.searchsorted(self._ends, position, "right"))
        return self.parts[k], position - int(self._ends[k - 1] if k else 0)

    def __getitems__(self, plan: Sequence[tuple[int, int]]) -> tuple[Tensor, ...] | str:
        """A batch as it travels: inputs, then the tensors of the targets.

        Args:
            plan: Position and seed of each sample; below 0 it is read as it is.

        Returns:
            A text if a sample cannot be read, or has another form than the others.
        """
        samples: list[tuple[Tensor, Targets]] = []
        inputs, targets = self.inputs, self.targets
        for position, seed in plan:
            part, index = self.place(position)
            try:
                x, y = self._read(part, index, seed)
                form = _form(y)
                inputs, targets = inputs or Form.of(x[None]), targets or form
                self._compare(Form.of(x[None]), form, inputs, targets)
            except InputError as error:
                return f"sample {index} of {part.name} {error}"
            except Exception as error:  # whatever a user's Dataset raises
                why = " ".join(f"{type(error).__name__}: {error}".split())
                return f"sample {index} of {part.name} cannot be read: {why}"
            samples.append((x, y))
        objects = self.targets["labels"].shape[0] if isinstance(self.targets, Mapping) else None
        x, y = stack(samples, objects)
        return (x, *(y.values() if isinstance(y, dict) else (y,)))

    def _read(self, part: Part, index: int, seed: int) -> tuple[Tensor, Targets]:
        random = seed >= 0
        source = part.augmented if random and self.augment and part.augmented is not None else part.plain
        with seeded(seed if random else index):
            x, y = sample(source[index])
            return (self.transform(x) if random and self.transform is not None else x), y

    def _compare(self, x: Form, y: TargetForm, inputs: Form, targets: TargetForm) -> None:
        if x != inputs:
            raise InputError(f"has inputs of {x}, and the others have {inputs}; give all samples one shape")
        if isinstance(y, Mapping) and isinstance(targets, Mapping):
            count, room = y["labels"].shape[0], targets["labels"].shape[0]
            if self.targets is not None and count > room:
                raise InputError(f"has {count} objects, and there is room for {room}; give objects={count}")
        elif y != targets:
            raise InputError(
                f"has a target of {y}, and the others have {targets}; give all samples one shape"
            )


def _form(y: Targets) -> TargetForm:
    if isinstance(y, dict):
        return {key: Form.of(part[None]) for key, part in y.items()}
    return Form.of(seen(y[None]))  # type: ignore[arg-type]  # a tensor stays one


class _Plan(Sampler[list[tuple[int, int]]]):
    """The batches of the epoch to come, as positions and seeds; workers live on from epoch to epoch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.positions: Indices = np.empty(0, np.int64)
        self.seeds: Indices = np.empty(0, np.int64)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.positions), self.batch):
            part = slice(start, start + self.batch)
            yield list(zip(self.positions[part].tolist(), self.seeds[part].tolist(), strict=True))

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch)


class Stream:
    """Batches of a `Reader`, on a device."""

    def __init__(self, name: str, reader: Reader, batch: int, workers: int, device: torch.device) -> None:
        """Starts no worker yet.

        Args:
            name: Of the data set, for messages.
            reader: What is read.
            batch: Samples of a batch.
            workers: Processes that read; 0 reads in this one.
            device: Where batches are wanted.
        """
        self._name, self._device = name, device
        self._plan = _Plan(batch)
        # torch warns of more workers than cores
        self._workers = min(workers, cores())
        self._loader: DataLoader[Any] = DataLoader(
            reader,
            batch_sampler=self._plan,
            num_workers=self._workers,
            collate_fn=_same,
            persistent_workers=self._workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else the loader would draw from the training's own stream
            multiprocessing_context="fork" if self._workers and sys.platform == "linux" else None,
        )

    def batches(self, positions: Indices, seeds: Indices, layout: torch.memory_format) -> Iterator[Draw]:
        """Inputs and tensors of the targets, batch by batch.

        Raises:
            InputError: A sample cannot be read or has another form, or a worker died.
        """
        self._plan.positions, self._plan.seeds = positions, seeds
        on_gpu = self._device.type == "cuda"
        try:
            with _deaths_are_told_here():
                batches = iter(self._loader)
            for batch in batches:
                if isinstance(batch, str):
                    raise InputError(f"data set {self._name!r}: {batch}")
                x, *targets = batch
                form = layout if x.ndim == 4 else torch.preserve_format
                moved = x.to(self._device, non_blocking=on_gpu, memory_format=form)
                yield moved, *(part.to(self._device, non_blocking=on_gpu) for part in targets)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"data set {self._name!r}: a process that reads samples died "
                f"({str(error).splitlines()[0].rstrip('.')}), mostly because memory ran out; repeat the command, "
                "with fewer workers if it dies again (workers = 0 reads without any)"
            ) from error


@contextmanager
def _deaths_are_told_here() -> Iterator[None]:
    """Undoes a signal handler of torch, which raises the death of a worker wherever the process is at that moment.

    Without it, the death is noticed where a batch is waited for.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


def _same(batch: Any) -> Any:
    return batch


class _StreamedFeed:
    """See `Feed`. A draw holds the batch: inputs as bytes or floats, then the tensors of the targets."""

    def __init__(
        self,
        data: "Streamed",
        members: Indices,
        batch: int,
        device: torch.device,
        augment: bool,
        layout: torch.memory_format,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._data, self._members, self._batch = data, members, batch
        self._layout, self._augment, self._device = layout, augment, device
        self._random = augment or transform is not None
        reader = Reader(
            data.parts, augment=augment, inputs=data.inputs, targets=data.targets, transform=transform
        )
        workers = min(data.workers, -(-len(members) // batch))
        self._stream = Stream(data.name, reader, batch, workers, device)
        self._scale = tuple(torch.tensor(v, device=device).view(-1, 1, 1) for v in (data.mean, data.std))

    def transformed(self, transform: Callable[[Tensor], Tensor]) -> "_StreamedFeed":
        """See `prunas.data.transforms.Transformable`."""
        if self._data.inputs.dtype != "uint8":
            raise InputError(
                f"transforms take images of bytes, and data set {self._data.name!r} gives {self._data.inputs}; "
                "leave them out, or have the Dataset give bytes"
            )
        return _StreamedFeed(
            self._data, self._members, self._batch, self._device, self._augment, self._layout, transform
        )

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        """What the workers read, moved to the device."""
        members = self._members
        seeds = np.full(len(self._data.labels), -1)
        if seed is not None:
            generator = torch.Generator().manual_seed(stream_seed("epoch", seed, epoch))
            members = members[torch.randperm(len(members), generator=generator).numpy()]
            if self._random:
                seeds = torch.randint(2**62, (len(seeds),), generator=generator).numpy()
        at = members[start * self._batch :]
        return self._stream.batches(at, seeds[at], self._layout)

    def gather(self, draw: Draw) -> tuple[Tensor, Any]:
        """Inputs, normalised if they are bytes, and targets."""
        x, *targets = draw
        if x.dtype == torch.uint8:
            mean, std = self._scale
            x = x.float().div_(255).sub_(mean).div_(std)
        if isinstance(self._data.targets, Mapping):
            return x, dict(zip(self._data.targets, targets, strict=True))
        return x, seen(targets[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Streamed(DataSet):
    """Samples of map-style Datasets, read as they are needed.

    Attributes:
        parts: The Datasets; positions count through them.
        inputs: Form of a sample's inputs as the Datasets give them.
        mean: Per channel, of pixels in [0, 1]; of images that are bytes.
        std: Per channel, of pixels in [0, 1].
        workers: Processes that read; 0 reads in this one. Changes no result.
    """

    parts: Sequence[Part] = field(repr=False)
    inputs: Form
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    workers: int = 0

    def feed(
        self,
        members: Indices,
        batch: int,
        *,
        device: torch.device,
        augment: bool = False,
        channels_last: bool = False,
    ) -> _StreamedFeed:
        """Batches of the samples at `members`."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return _StreamedFeed(self, members, batch, device, augment, layout)
