"""Who executes jobs: one seam, and the table of what stands behind it."""

import importlib
import json
import os
import pkgutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, Self

from prunas.errors import InputError, unknown
from prunas.runs.execute import Outcome, Stop, never
from prunas.runs.job import Job
from prunas.runs.store import Store

__all__ = [
    "EXECUTORS",
    "Base",
    "Executor",
    "ExecutorEntry",
    "Report",
    "chosen",
    "executor",
    "number",
    "package",
    "parsed_options",
    "silent",
    "whole",
]

Report = Callable[[Job, Mapping[str, Any]], object]


def silent(job: Job, message: Mapping[str, Any]) -> None:
    """The `report` of those who do not listen."""


class Executor(Protocol):
    """Takes jobs and answers every `submit` with exactly one `Outcome`.

    A job whose id is already outstanding is executed once and answered twice, the second time as `cached`.
    On leaving the context normally what runs is finished; on an exception it is stopped. Either way the same
    jobs continue when they are submitted again, here or to another executor on the same store.
    """

    @property
    def capacity(self) -> int:
        """Jobs that can run at the same time, now."""

    def submit(self, job: Job) -> None:
        """Adds a job; allowed at any time, also between two outcomes."""

    def completed(self) -> Iterator[Outcome]:
        """Yields outcomes as jobs end, until nothing submitted is outstanding.

        Raises:
            InputError: The store cannot be used: full, not writable, or of another format version.
        """

    def cancel(self, job: Job) -> None:
        """Drops a waiting job or stops a running one; it is `cancelled` unless its result is there."""

    def close(self, wait: bool) -> None:
        """Ends the executor; jobs not begun are dropped.

        Args:
            wait: Whether running jobs are finished; otherwise they are asked to save and stop.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None: ...


class Base:
    """The books: what is outstanding, in which order it starts, and what nobody has fetched yet."""

    def __init__(self, store: Store, report: Report, stop: Stop) -> None:
        self._store = store
        self._report = report
        self._stop = stop
        self._outstanding: dict[str, list[Job]] = {}
        self._waiting: deque[Job] = deque()
        self._answers: deque[Outcome] = deque()

    def submit(self, job: Job) -> None:
        """Queues a job, or joins it to the outstanding one of the same id."""
        same = self._outstanding.setdefault(job.id, [])
        same.append(job)
        if len(same) == 1:
            self._waiting.append(job)

    def _answer(self, outcome: Outcome) -> None:
        again = "cached" if outcome.status == "finished" else outcome.status
        first, *others = self._outstanding.pop(outcome.job.id)
        self._answers.append(replace(outcome, job=first))
        self._answers.extend(replace(outcome, job=job, status=again) for job in others)

    def close(self, wait: bool) -> None:
        """Drops the jobs not begun."""
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(wait=kind is None)


@dataclass(frozen=True, slots=True)
class ExecutorEntry:
    """One line of the table of executors.

    Attributes:
        path: Import path of what is called as (store, report, stop, **options) and answers an `Executor`.
        description: For listings.
        options: Keywords it takes.
        local: Whether it can be opened without asking another machine.
        in_process: Whether it trains in this process, where live objects are; see `prunas.live`.
    """

    path: str
    description: str
    options: tuple[str, ...] = ()
    local: bool = True
    in_process: bool = False


_COMMON = ("workers", "retries", "timeout")

EXECUTORS: Mapping[str, ExecutorEntry] = MappingProxyType(
    {
        "serial": ExecutorEntry(
            "prunas.runs.pools.serial:Serial", "one job after another, in this process", in_process=True
        ),
        "streams": ExecutorEntry(
            "prunas.runs.pools.lanes:streams",
            "several trainings at once in this process, for one GPU",
            ("workers",),
            in_process=True,
        ),
        "processes": ExecutorEntry(
            "prunas.runs.pools.processes:processes",
            "worker processes on this machine, one for each core or GPU",
            (*_COMMON, "threads", "per_gpu"),
        ),
        "ray": ExecutorEntry(
            "prunas.runs.pools.ray_cluster:ray_cluster",
            "tasks on the machines of a ray cluster",
            (*_COMMON, "address", "cpus", "gpus"),
            local=False,
        ),
        "slurm": ExecutorEntry(
            "prunas.runs.pools.slurm:slurm",
            "jobs of a SLURM cluster, by submitit",
            (*_COMMON, "cluster", "cpus", "gpus", "minutes", "memory", "partition", "account"),
            local=False,
        ),
    }
)


def executor(
    name: str,
    store: Store,
    report: Report = silent,
    stop: Stop = never,
    **options: Any,
) -> Executor:
    """The executor called `name`.

    Raises:
        InputError: There is none, or it does not take one of the options.
    """
    entry = _entry(name, options)
    made: Executor = pkgutil.resolve_name(entry.path)(store, report, stop, **options)
    return made


def chosen(
    name: str | None, workers: int | None, options: Mapping[str, Any], side_by_side: int = 1
) -> tuple[str, dict[str, Any]]:
    """The name of an executor and all its options; several workers at a serial one mean processes.

    Without a name: streams on a machine with a GPU (processes for several workers on several GPUs); on a CPU
    `side_by_side` worker processes, or serial if that is 1 or anything else was asked for.

    Args:
        name: A key of `EXECUTORS`, or None.
        workers: Trainings at a time, or None.
        options: Further settings of the executor.
        side_by_side: Worker processes where nothing else is asked for and there is no GPU.
    """
    from prunas.runs.pools.processes import visible_gpus

    options = dict(options) if workers is None else {"workers": workers, **options}
    if name is None:
        on_cpu = os.environ.get("PRUNAS_DEVICE", "cpu") == "cpu"
        gpus = len(visible_gpus())
        name = "serial" if not gpus else "processes" if gpus > 1 and workers is not None else "streams"
        if name == "serial" and not options and on_cpu and side_by_side > 1:
            name, options = "processes", {"workers": side_by_side}
    if name == "serial" and workers is not None:
        name = "processes"
    return name, options


def parsed_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Settings of an executor as people type them: `gpus=0.5` and the like.

    Raises:
        InputError: One of them does not read SETTING=VALUE.
    """
    options: dict[str, Any] = {}
    for text in texts or ():
        key, _, value = text.partition("=")
        if not (key and value):
            raise InputError(f"--executor-set {text!r} does not read SETTING=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def check(name: str, store: Store, live: Sequence[str] = (), **options: Any) -> None:
    """Refuses an executor that cannot be had; of a cluster's only the names are looked at, for it is not asked.

    Args:
        name: Of the executor.
        store: Where runs live.
        live: Names of what exists in this process alone and will be trained.
        options: Of the executor.

    Raises:
        InputError: As `executor`, or it trains in other processes, and there are live objects.
    """
    if live and not _entry(name, options).in_process:
        raise InputError(
            f"executor {name!r} trains in other processes, which cannot make {' and '.join(live)} of this one; "
            'use executor="serial", or name it by an import path or a file, such as mine.py:make'
        )
    if _entry(name, options).local:
        executor(name, store, **options).close(wait=False)  # starts no worker before there is a job


def _entry(name: str, options: Mapping[str, Any]) -> ExecutorEntry:
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    entry = EXECUTORS[name]
    for option in options:
        if option not in entry.options:
            raise unknown(f"option of executor {name!r}:", option, entry.options)
    return entry


def whole(executor: str, option: str, value: Any, least: int) -> int:
    """`value`, if it is a whole number of at least `least`; an `InputError` that names the option otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"executor {executor!r}: {option} must be a whole number from {least}, not {value!r}"
        )
    return value


def number(executor: str, option: str, value: Any) -> float:
    """`value`, if it is a number above 0; an `InputError` that names the option otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"executor {executor!r}: {option} must be a number above 0, not {value!r}")
    return float(value)


def package(executor: str, name: str, extra: str) -> Any:
    """An optional package; an `InputError` with the command that installs it if it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise InputError(
            f"executor {executor!r} needs the package {name}; pip install 'prunas[{extra}]'"
        ) from error
