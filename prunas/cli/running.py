"""What a command needs while trainings run: their store, an executor, signals."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas.cli.output import say
from prunas.cli.progress import Tally
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.runs.executors import Executor
    from prunas.runs.store import Store

__all__ = ["check_executor", "executor_of", "stopping", "store_at"]


def store_at(out: Path) -> "Store":
    """The store of a folder; what it has to say goes to standard error."""
    from prunas.runs.store import Store

    return Store(out, notice=say)


def executor_of(
    name: str | None,
    workers: int | None,
    settings: Sequence[str] | None,
    store: "Store",
    tally: Tally,
    stop: Callable[[], bool],
    side_by_side: int = 1,
) -> "Executor":
    """The executor of that name, with `KEY=VALUE` settings; several workers at a serial one mean processes.

    Without a name: streams on a machine with a GPU (processes for several workers on several GPUs); on a CPU
    `side_by_side` worker processes, or serial if that is 1 or anything else was said.
    """
    from prunas.runs.executors import executor

    named, options = _executor_named(name, workers, settings, side_by_side)
    return tally.watch(executor(named, store, tally, stop, **options))


def check_executor(
    name: str | None, workers: int | None, settings: Sequence[str] | None, store: "Store"
) -> None:
    """Refuses an executor that cannot be had; starts nothing."""
    from prunas.runs.executors import check

    named, options = _executor_named(name, workers, settings)
    check(named, store, **options)


def _executor_named(
    name: str | None, workers: int | None, settings: Sequence[str] | None, side_by_side: int = 1
) -> tuple[str, dict[str, Any]]:
    """See `executor_of`."""
    from prunas.runs.pools.processes import visible_gpus

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
        on_cpu = os.environ.get("PRUNAS_DEVICE", "cpu") == "cpu"
        gpus = len(visible_gpus())
        name = "serial" if not gpus else "processes" if gpus > 1 and workers is not None else "streams"
        if name == "serial" and not options and on_cpu and side_by_side > 1:
            name, options = "processes", {"workers": side_by_side}
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
