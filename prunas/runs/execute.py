"""Executes one job, at most once, whoever else wants it too."""

import importlib.metadata
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from prunas import __version__
from prunas.errors import InputError
from prunas.files import canonical
from prunas.plugins import resolve
from prunas.runs.job import Job
from prunas.runs.store import Result, Store, now

__all__ = ["Outcome", "Progress", "Status", "Stop", "execute", "never"]

Status = Literal["finished", "cached", "failed", "lost", "preempted", "cancelled"]
Progress = Callable[[Mapping[str, Any]], object]
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt at a job ended.

    Attributes:
        job: Which.
        status: `finished` now or `cached` from before (both have a result); `failed` with an exception;
            `lost` with the process that ran it; `preempted` or `cancelled`: stopped as asked, to be continued
            by the same job.
        result: Of `finished` and `cached`.
        error: One line for the user, of `failed` and `lost`.
        traceback: Of `failed`.
        losses: How many workers died over it before.
    """

    job: Job
    status: Status
    result: Result | None = None
    error: str | None = None
    traceback: str | None = None
    losses: int = 0


def never() -> bool:
    """The `stop` of those who do not stop."""
    return False


def execute(
    job: Job,
    store: Store,
    progress: Progress = lambda message: None,
    stop: Stop = never,
    crowded: Callable[[], bool] = never,
) -> Outcome:
    """Runs `job` in this process, or fetches its result.

    The work is called as `work(job.task, folder=..., progress=..., stop=...)` with `folder` an existing path of
    its own, where a checkpoint of an earlier attempt may lie. It returns a mapping of JSON values. When
    `stop()` turns true it saves its state and returns None; it may ask after every step.

    Args:
        job: What to do.
        store: Where the run lives.
        progress: Told what the work tells, and `{"waiting": ...}` once if another process has the run.
        stop: Whether to stop.
        crowded: Asked when the work raises MemoryError: whether it shared its memory, so that the same job may fit
            later. It is `preempted` then.

    Raises:
        InputError: The store cannot be used: full, not writable, or of another format version. What the work
            raises is a `failed` outcome instead.
    """
    told = False

    def waiting() -> None:
        nonlocal told
        if stop():
            raise _Stopped
        if not told:
            told = True
            progress({"waiting": "another process has this run"})

    if (found := store.result(job)) is not None:
        return Outcome(job, "cached", found)
    with suppress(_Stopped), store.lock(job, waiting):
        if (found := store.result(job)) is not None:
            return Outcome(job, "cached", found)
        if not stop():
            return _attempt(job, store, progress, stop, crowded)
    return Outcome(job, "preempted")


class _Stopped(Exception):
    pass


def _attempt(job: Job, store: Store, progress: Progress, stop: Stop, crowded: Callable[[], bool]) -> Outcome:
    folder = store.begin(job)
    started = time.monotonic()
    try:
        values = resolve("prunas.works", job.work)(job.task, folder=folder, progress=progress, stop=stop)
        if values is None and stop():
            return Outcome(job, "preempted")
        if not isinstance(values, Mapping):
            raise TypeError(f"{job.work} returned {type(values).__name__}, not a mapping")
        values = json.loads(canonical(dict(values)))  # what a later call will read, not what was passed
    except (Exception, SystemExit) as error:
        if isinstance(error, MemoryError) and crowded():
            return Outcome(job, "preempted")
        line = str(error) if isinstance(error, InputError) else _one_line(error)
        text = traceback.format_exc()
        with suppress(InputError):  # a full disk must not hide what went wrong
            store.fail(job, line, text)
        return Outcome(job, "failed", error=line, traceback=text)
    result = Result(job, values, round(time.monotonic() - started, 3), now(), machine())
    store.finish(result)
    return Outcome(job, "finished", result)


def _one_line(error: BaseException) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())


def machine() -> dict[str, Any]:
    """What stands in a result about where it came from."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "prunas": __version__,
        "torch": _version("torch"),
        "numpy": _version("numpy"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
