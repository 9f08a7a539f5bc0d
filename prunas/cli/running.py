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

__all__ = ["executor_of", "stopping", "store_at"]


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
        on_cpu = os.environ.get("PRUNAS_DEVICE", "cpu") == "cpu"
        gpus = len(visible_gpus())
        name = "serial" if not gpus else "processes" if gpus > 1 and workers is not None else "streams"
        if name == "serial" and not options and on_cpu and side_by_side > 1:
            name, options = "processes", {"workers": side_by_side}
    if name == "serial" and workers is not None:
        name = "processes"
    return tally.watch(executor(name, store, tally, stop, **options))


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """While active, SIGTERM only asks: the training saves at its next step."""
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        asked = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, before)
