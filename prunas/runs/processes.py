"""Jobs in worker processes on this machine."""

import json
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from prunas.errors import InputError
from prunas.runs.execute import Outcome, Status, Stop, execute, never
from prunas.runs.executors import Base, Report, silent
from prunas.runs.job import Job
from prunas.runs.store import Store

__all__ = ["Processes"]

PREEMPTED = 75
"""Exit code of a worker that was asked to stop and saved its state."""

_POLL = 0.2  # seconds between two looks at `stop` and at the workers' progress
_TELL = 0.2  # seconds between two messages of one worker

_Answer = tuple[Outcome, list[str]]  # and what the store had to say


class _Slot:
    """One worker process, in a pool of its own: when it dies, no other shares a pipe or a lock with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.pool: ProcessPool | None = None
        self.future: Future[_Answer] | None = None
        self.job: Job | None = None
        self.told = ""

    def start(self, job: Job, root: Path, messages: Path) -> None:
        with _children_ignore_ctrl_c():
            if self.pool is None or not self.pool.active:
                self.stop()
                self.pool = ProcessPool(
                    1, initializer=_prepare, initargs=(self.environment,), context=get_context("spawn")
                )
            self.future = self.pool.schedule(_run, (job, root, messages, os.getpid()))
        self.job, self.told = job, ""

    def stop(self) -> None:
        """Asks the worker to save and stop; it is killed if it does not within three seconds."""
        if self.pool is not None:
            self.pool.stop()  # type: ignore[no-untyped-call]
            self.pool.join()
        self.pool = self.future = self.job = None


class Processes(Base):
    """Runs jobs in worker processes that live on from job to job, because importing torch costs seconds.

    A worker that dies takes only its own job with it, and that job starts again. A worker that receives
    SIGTERM lets its work save and hands the job back, which does not count as a death. A worker whose driver
    has died stops likewise.
    """

    def __init__(
        self,
        store: Store,
        report: Report = silent,
        stop: Stop = never,
        *,
        workers: int | None = None,
        threads: int = 1,
        retries: int = 1,
        environments: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Starts no process yet; they start with the first jobs that are not in the store.

        Args:
            store: Where the runs live.
            report: Told (job, message) while `completed` is iterated: the latest message of each worker, at
                most five a second.
            stop: When it turns true, running jobs save and stop; all outstanding ones are `preempted`.
            workers: How many processes; by default one for each `threads` cores, or for each environment.
            threads: OMP_NUM_THREADS and MKL_NUM_THREADS of each.
            retries: How often a job is started again after its worker died, before it is `lost`.
            environments: Variables of each worker, set before the work is imported (CUDA_VISIBLE_DEVICES).

        Raises:
            InputError: A number is too small, or there are more workers than environments.
        """
        super().__init__(store, report, stop)
        if threads < 1 or retries < 0 or (workers is not None and workers < 1):
            raise InputError(
                "executor 'processes': workers and threads must be 1 or more, retries 0 or more, "
                f"not {workers}, {threads} and {retries}"
            )
        slots = list(environments) or [{}] * (workers or max(1, (os.cpu_count() or 1) // threads))
        if workers is not None and workers > len(slots):
            raise InputError(
                f"executor 'processes': {workers} workers but slots for {len(slots)}; lower workers"
            )
        pinned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._slots = [_Slot(pinned | dict(environment)) for environment in slots[:workers]]
        self._messages = tempfile.TemporaryDirectory(prefix="prunas-")
        self._retries = retries
        self._losses: dict[str, int] = {}
        self._begun: set[str] = set()
        self.capacity = len(self._slots)

    def submit(self, job: Job) -> None:
        """Queues a job and starts it if a worker is idle."""
        super().submit(job)
        self._dispatch()

    def completed(self) -> Iterator[Outcome]:
        """Yields outcomes, starts what waits, and relays messages meanwhile."""
        while self._answers or self._outstanding:
            if self._answers:
                yield self._answers.popleft()
            elif self._stop():
                self._preempt()
            else:
                self._dispatch()
                self._wait()

    def cancel(self, job: Job) -> None:
        """Drops a waiting job; stops the worker of a running one, which may take three seconds."""
        if job.id not in self._outstanding:
            return
        for slot in self._slots:
            if slot.job is not None and slot.job.id == job.id:
                slot.stop()
        self._waiting = deque(other for other in self._waiting if other.id != job.id)
        self._settle(job, Outcome(job, "cancelled"))

    def close(self, wait: bool) -> None:
        """Stops the workers, at once or when what they do is done."""
        super().close(wait)
        try:
            if wait:
                wait_for(self._running())
        finally:
            self._stop_slots()
            self._messages.cleanup()

    def _running(self) -> dict[Future[_Answer], _Slot]:
        return {slot.future: slot for slot in self._slots if slot.future is not None}

    def _stop_slots(self) -> None:
        with ThreadPoolExecutor(len(self._slots)) as threads:  # all grace periods at once
            list(threads.map(_Slot.stop, self._slots))

    def _dispatch(self) -> None:
        idle = deque(slot for slot in self._slots if slot.job is None)
        while self._waiting and idle and not self._stop():
            job = self._waiting[0]
            if self._store.result(job) is None:
                idle.popleft().start(job, self._store.root, self._message(job))
                self._begun.add(job.id)
            else:
                self._settle(job, Outcome(job, "cached"))
            self._waiting.popleft()

    def _wait(self) -> None:
        running = self._running()
        done, _ = wait_for(running, timeout=_POLL, return_when=FIRST_COMPLETED)
        for slot in running.values():
            self._relay(slot)
        for future in done:
            if running[future].future is future:  # else it was cancelled while messages were relayed
                self._collect(running[future])

    def _message(self, job: Job) -> Path:
        return Path(self._messages.name) / f"{job.id}.json"

    def _relay(self, slot: _Slot) -> None:
        if slot.job is None:
            return
        with suppress(FileNotFoundError):
            text = self._message(slot.job).read_text(encoding="utf-8")
            if text != slot.told:
                slot.told = text
                self._report(slot.job, json.loads(text))

    def _collect(self, slot: _Slot) -> None:
        job, future = slot.job, slot.future
        assert job is not None and future is not None
        slot.job = slot.future = None
        self._message(job).unlink(missing_ok=True)
        try:
            outcome, notices = future.result()
        except ProcessExpired as death:
            if death.exitcode == PREEMPTED:
                self._waiting.appendleft(job)
            else:
                self._lose(job, _how(death.exitcode))
        except BrokenProcessPool:
            self._lose(job, "before it began")
        else:
            for notice in notices:
                self._store.notice(notice)
            self._answer(outcome)

    def _lose(self, job: Job, how: str) -> None:
        self._losses[job.id] = self._losses.get(job.id, 0) + 1
        if self._losses[job.id] <= self._retries:
            self._waiting.appendleft(job)
            return
        times = self._losses.pop(job.id)
        line = f"its process died {times} times, the last time {how}; is there enough memory?"
        self._settle(job, Outcome(job, "lost", error=line))

    def _preempt(self) -> None:
        self._stop_slots()
        self._waiting.clear()
        for job, *_ in list(self._outstanding.values()):
            self._settle(job, Outcome(job, "preempted"))

    def _settle(self, job: Job, otherwise: Outcome) -> None:
        """Answers with the stored result if there is one: a worker may write it just before it dies."""
        found = self._store.result(job)
        status: Status = "finished" if job.id in self._begun else "cached"
        self._answer(otherwise if found is None else Outcome(job, status, found))


@contextmanager
def _children_ignore_ctrl_c() -> Iterator[None]:
    """What starts inside never receives SIGINT: a driver at the terminal decides when its workers stop."""
    resource_tracker.ensure_running()  # started along with the first worker, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


def _run(job: Job, root: Path, messages: Path, driver: int) -> _Answer:
    """What a worker does with one job."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    def stop() -> bool:
        return asked or os.getppid() != driver

    notices: list[str] = []
    before = signal.signal(signal.SIGTERM, ask)
    try:
        outcome = execute(job, Store(root, notices.append), _teller(messages), stop)
    finally:
        if stop():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(PREEMPTED)
        signal.signal(signal.SIGTERM, before)
    return outcome, notices


def _teller(path: Path) -> Callable[[Mapping[str, Any]], None]:
    """Leaves the latest message in a file, where a reader that is slow or dead cannot hold up the work."""
    last = -_TELL

    def tell(message: Mapping[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last < _TELL:
            return
        last = time.monotonic()
        part = path.with_suffix(".part")
        text = json.dumps(dict(message))
        with suppress(OSError):
            part.write_text(text, encoding="utf-8")
            part.replace(path)

    return tell


def _how(exitcode: int) -> str:
    return f"of {signal.Signals(-exitcode).name}" if exitcode < 0 else f"with exit code {exitcode}"
