"""What a training writes down: its state to continue from, its progress, and how it is interrupted."""

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from prunas.files import digest, write_atomic
from prunas.training.checkpoint import Unusable, read_checkpoint, write_checkpoint
from prunas.training.step import Step

__all__ = ["Journal", "interrupts"]


class Journal:
    """The part of a training that outlives its process: the log, the checkpoint, and where the training is.

    Attributes:
        done: Steps taken.
        spent: Seconds spent on the epoch that is under way.
        last: The checkpoint, once this process has read or written it.
    """

    def __init__(self, folder: Path | None, key: list[Any], step: Step, device: torch.device) -> None:
        self._checkpoint = folder / "checkpoint.pt" if folder else None
        self._log = folder / "log.jsonl" if folder else None
        shapes = {name: list(tensor.shape) for name, tensor in step.state().items()}
        self._key = digest([key, device.type, shapes])
        self._step, self._device = step, device
        self._lines: list[dict[str, Any]] = []
        self.done = 0
        self.spent = 0.0
        self.last: Path | None = None

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The log's lines about epochs."""
        return [line for line in self._lines if "epoch" in line]

    def resume(self) -> None:
        """Takes up a checkpoint if there is one, and makes the log say what it said then."""
        if self._checkpoint is None or self._log is None:
            return
        try:
            found = read_checkpoint(self._checkpoint, self._key)
        except Unusable as problem:
            found = None
            self._lines = [{"warning": f"{problem}; starting over"}]
        if found is not None:
            tensors, facts = found
            with torch.no_grad():
                for name, tensor in self._step.state().items():
                    tensor.copy_(tensors[name])
            torch.set_rng_state(tensors["random"])
            if self._device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self._device)
            self.done, self.spent, self._lines = facts["done"], facts["spent"], facts["lines"]
            self.last = self._checkpoint
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        write_atomic(self._log, lambda file: file.write(text.encode()))

    def save(self) -> None:
        """Writes a checkpoint, unless there is no folder or the training has already diverged."""
        tensors = self._step.state()
        if self._checkpoint is None or not all(bool(t.isfinite().all()) for t in tensors.values()):
            return
        tensors["random"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._device)
        facts = {"done": self.done, "spent": self.spent, "lines": self._lines}
        write_checkpoint(self._checkpoint, self._key, tensors, facts)
        self.last = self._checkpoint

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Adds a line to the log."""
        self.spent = 0.0
        self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def warn(self, text: str) -> None:
        """Adds a warning to the log, once."""
        if {"warning": text} not in self._lines:
            self._add({"warning": text})

    def finish(self) -> None:
        """Removes the checkpoint."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)


@contextlib.contextmanager
def interrupts(*, enabled: bool) -> Iterator[Callable[[], bool]]:
    """Holds Ctrl-C back until somebody asks, so that no step is cut in two; a second one is not held back."""
    pressed = False

    def note(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    # Only the main thread may do this, and only where nobody else has decided what Ctrl-C means.
    here = threading.current_thread() is threading.main_thread()
    if not (enabled and here and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
