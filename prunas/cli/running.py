"""What a command needs while trainings run: their store, an executor, signals, a progress bar."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas.cli.output import say
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.runs.executors import Executor, Report
    from prunas.runs.store import Store

__all__ = ["check_executor", "executor_of", "progress", "stopping", "store_at"]


def store_at(out: Path) -> "Store":
    """The store of a folder; what it has to say goes to standard error."""
    from prunas.runs.store import Store

    return Store(out, notice=say)


def executor_of(
    name: str | None,
    workers: int | None,
    settings: Sequence[str] | None,
    store: "Store",
    report: "Report",
    stop: Callable[[], bool],
) -> "Executor":
    """The executor of that name, with `KEY=VALUE` settings; several workers at a serial one mean processes.

    Without a name: streams on a machine with a GPU (processes for several workers on several GPUs), else serial.
    """
    from prunas.runs.executors import executor

    named, options = _executor_named(name, workers, settings)
    return executor(named, store, report, stop, **options)


def check_executor(
    name: str | None, workers: int | None, settings: Sequence[str] | None, store: "Store"
) -> None:
    """Refuses an executor that cannot be had; starts nothing."""
    from prunas.runs.executors import check

    named, options = _executor_named(name, workers, settings)
    check(named, store, **options)


def _executor_named(
    name: str | None, workers: int | None, settings: Sequence[str] | None
) -> tuple[str, dict[str, Any]]:
    """See `executor_of`."""
    from prunas.runs.processes import visible_gpus

    options: dict[str, Any] = {} if workers is None else {"workers": workers}
    for text in settings or ():
        key, _, value = text.partition("=")
        if not (key and value):
            raise InputError(f"--executor-set {text!r} does not read SETTING=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    if name is None:
        gpus = len(visible_gpus())
        name = "serial" if not gpus else "processes" if gpus > 1 and workers is not None else "streams"
    if name == "serial" and workers is not None:
        name = "processes"
    return name, options


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """While active, SIGTERM and SIGHUP only ask: the training saves at its next step.

    A SIGHUP that is ignored, as under `nohup`, stays ignored.
    """
    asked = False
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def note(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        if number == signal.SIGHUP:  # to write to a terminal that is gone is an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in terminals:
                os.dup2(nowhere, stream)
            os.close(nowhere)

    leave = (signal.SIGTERM, signal.SIGHUP)
    before = {
        number: signal.signal(number, note) for number in leave if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress(total: int) -> Iterator["Report"]:
    """A live bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    seen: dict[str, int] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)

        def report(job: Any, message: Mapping[str, Any]) -> None:
            seen.setdefault(job.id, len(seen))
            done = max(0, len(seen) - 1)
            if "epoch" in message:
                state = f"epoch {message['epoch']}/{message['epochs']} loss {message['loss']:.3f}"
            else:
                state = str(message.get("waiting", ""))
            bar.update(task, completed=done, total=max(total, len(seen)), description=f"{job.label} {state}")

        yield report
