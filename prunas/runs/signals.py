"""Signals of a driver: a process that is told to leave lets its trainings save first."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stopping"]


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
