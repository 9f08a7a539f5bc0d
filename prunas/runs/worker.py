"""What a worker does with a job, wherever it runs, and how it talks with its driver."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunas.errors import InputError
from prunas.runs.execute import Outcome, Stop, execute, never
from prunas.runs.job import Job
from prunas.runs.store import Store

__all__ = ["Answer", "Mailbox", "attempt"]

_TELL = 0.2  # seconds between two messages of one worker
_LEAVE = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
_ASK = 0.5  # seconds between two looks for a request to stop


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker hands back.

    Attributes:
        outcome: Of the attempt; an `InputError` if the store cannot be used from there.
        notices: What the store had to say.
    """

    outcome: Outcome | InputError
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Small files between a driver and its workers, in a folder that all of them see.

    Files, because a reader that is slow, dead or on another machine cannot hold up the work.

    Attributes:
        folder: Of one driver.
    """

    folder: Path

    def said(self, job: Job) -> str:
        """The latest sign of life, as JSON text; empty before the first."""
        try:
            return self._sign(job).read_text(encoding="utf-8")
        except OSError:
            return ""

    def say(self, job: Job, text: str) -> None:
        """Replaces the sign of life; trouble with it must not end the work."""
        part = self._sign(job).with_suffix(".part")
        with suppress(OSError):
            part.write_text(text, encoding="utf-8")
            part.replace(self._sign(job))

    def ask_to_stop(self, job: Job) -> None:
        """Leaves word for the worker."""
        self._request(job).touch()

    def asked_to_stop(self, job: Job) -> bool:
        """Whether there is word."""
        return self._request(job).exists()

    def clear(self, job: Job) -> None:
        """Removes what is there about a job, before and after an attempt."""
        self._sign(job).unlink(missing_ok=True)
        self._request(job).unlink(missing_ok=True)

    def _sign(self, job: Job) -> Path:
        return self.folder / f"{job.id}.json"

    def _request(self, job: Job) -> Path:
        return self.folder / f"{job.id}.stop"


def attempt(
    document: Mapping[str, Any],
    root: Path,
    mailbox: Path,
    beat: float,
    environment: Mapping[str, str],
    stop: Stop = never,
) -> Answer:
    """One attempt at a job, in a worker process.

    It is `preempted` when the driver asks for that through the mailbox, when `stop` says so, or on SIGTERM,
    SIGUSR2 or SIGINT, which is how schedulers take a machine back, or on SIGHUP, when a terminal closes. The
    work then saves and returns.

    Args:
        document: The job, as JSON values.
        root: Of the store.
        mailbox: Folder of the driver's `Mailbox`.
        beat: Seconds between two signs of life; the work gives them by asking whether to stop.
        environment: Variables set before the work is imported.
        stop: Another reason to stop.
    """
    os.environ.update(environment)
    job, notices = Job.from_json(document), list[str]()
    if not mailbox.is_dir():
        where = f"{os.uname().nodename} does not see {mailbox.parent}"
        return Answer(InputError(f"{where}; choose an --out that all machines share"))
    voice = _Voice(Mailbox(mailbox), job, beat)
    with _told_to_leave() as leaving:

        def stopping() -> bool:
            voice.beat()
            return leaving() or voice.asked_to_stop() or stop()

        try:
            store = Store(root, notices.append)
            return Answer(execute(job, store, voice.tell, stopping), tuple(notices))
        except InputError as error:
            return Answer(error, tuple(notices))


class _Voice:
    """The worker's end of the mailbox; looks at the clock, so that it may be used after every step."""

    def __init__(self, mailbox: Mailbox, job: Job, beat: float) -> None:
        self._mailbox, self._job, self._every = mailbox, job, beat
        self._beats, self._said, self._looked = 0, 0.0, 0.0
        self._message: Mapping[str, Any] | None = None
        self._asked = False
        self._say()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Passes a message on; of several within a moment only the first."""
        if self._message is None or time.monotonic() - self._said >= _TELL:
            self._message = dict(message)
            self._say()

    def beat(self) -> None:
        """Shows that the work goes on."""
        if time.monotonic() - self._said >= self._every:
            self._say()

    def asked_to_stop(self) -> bool:
        """Whether the driver wants the worker to stop."""
        now = time.monotonic()
        if not self._asked and now - self._looked >= _ASK:
            self._looked = now
            self._asked = self._mailbox.asked_to_stop(self._job)
        return self._asked

    def _say(self) -> None:
        self._said = time.monotonic()
        self._beats += 1
        self._mailbox.say(self._job, json.dumps({"beat": self._beats, "message": self._message}))


@contextmanager
def _told_to_leave() -> Iterator[Callable[[], bool]]:
    """While active, signals to leave only make a note."""
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    before = {
        number: signal.signal(number, note)
        for number in _LEAVE
        # Under `nohup` a closing terminal is no reason to leave; the others always are.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
