"""What workers on other machines have in common: one shared folder, and answers that may be long in coming."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from prunas.errors import InputError
from prunas.runs.driver import Ended
from prunas.runs.job import Job
from prunas.runs.worker import Mailbox

__all__ = ["Remote"]

BEAT = 10.0
"""Seconds between two signs of life, at most: each is a file on a shared disk."""

Handle = TypeVar("Handle")


class Remote(Generic[Handle]):
    """The part of a pool that is the same wherever its workers are.

    A job travels as JSON, `root` must be the same folder on every machine, and driver and workers talk through
    files in it. Nobody opens a database.
    """

    grace = 30.0
    """Seconds to save in; a shared disk may show a request late."""

    def __init__(self, root: Path, timeout: float, threads: int) -> None:
        self.root = root.absolute()
        self._mailbox = Mailbox(self.root / f".driver-{uuid4().hex[:12]}")
        try:
            self._mailbox.folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot write {root}: {error.strerror}; choose another --out") from error
        self._beat = min(BEAT, timeout / 4)
        own = {name: value for name, value in os.environ.items() if name.startswith("PRUNAS_")}
        self._environment = own | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.under_way: dict[str, tuple[Job, Handle]] = {}

    def arguments(self, job: Job) -> tuple[Mapping[str, Any], Path, Path, float, Mapping[str, str]]:
        """What `worker.attempt` is called with."""
        return job.to_json(), self.root, self._mailbox.folder, self._beat, self._environment

    def launch(self, job: Job) -> Handle:
        """Hands a job to the cluster."""
        raise NotImplementedError

    def force(self, handles: Sequence[Handle]) -> None:
        """Ends attempts at once, or takes them out of the cluster's queue."""
        raise NotImplementedError

    def ready(self, seconds: float) -> Sequence[str]:
        """Ids of the attempts that ended, waiting at most so long for the first."""
        raise NotImplementedError

    def ended(self, job: Job, handle: Handle) -> Ended:
        """What came of an attempt that `ready` has named."""
        raise NotImplementedError

    def start(self, job: Job) -> None:
        """Begins an attempt."""
        self._mailbox.clear(job)
        self.under_way[job.id] = (job, self.launch(job))

    def wait(self, seconds: float) -> list[Ended]:
        """Attempts that ended."""
        return [self.ended(*self.under_way.pop(name)) for name in self.ready(seconds)]

    def said(self, job: Job) -> str:
        """The latest sign of life."""
        return self._mailbox.said(job)

    def stop(self, jobs: Sequence[Job]) -> None:
        """Asks those that have begun to save; all others, and those that linger, are ended at once."""
        for job in jobs:
            if self.said(job):
                self._mailbox.ask_to_stop(job)
            else:
                self.kill(job)
        names = {job.id for job in jobs}
        deadline = time.monotonic() + self.grace
        while names & self.under_way.keys() and time.monotonic() < deadline:
            for name in set(self.ready(0.1)) & names:
                del self.under_way[name]
        self.force([self.under_way.pop(name)[1] for name in names & self.under_way.keys()])

    def kill(self, job: Job) -> None:
        """Ends an attempt at once."""
        if (there := self.under_way.pop(job.id, None)) is not None:
            self.force([there[1]])

    def close(self) -> None:
        """Removes the mailbox."""
        shutil.rmtree(self._mailbox.folder, ignore_errors=True)


def poll(look: Callable[[], Sequence[str]], seconds: float, every: float) -> Sequence[str]:
    """What `look` finds, asked again until it finds something or the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(every)
    return found
