"""The loop behind every executor with workers: what starts next, who has fallen silent, what is tried again."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from prunas.errors import InputError
from prunas.runs.execute import Outcome, Status, Stop
from prunas.runs.executors import Base, Report
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.runs.worker import Answer

__all__ = ["Driver", "Ended", "Pool"]


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that is over.

    Attributes:
        job: Which.
        answer: What the worker handed back, or how it died.
    """

    job: Job
    answer: Answer | str


class Pool(Protocol):
    """Workers, wherever they are; each makes one attempt at one job at a time.

    Jobs that have no attempt under way may be named everywhere; there is nothing to do about them.
    """

    @property
    def capacity(self) -> int:
        """Workers there are now; machines may come and go."""

    def start(self, job: Job) -> None:
        """Begins an attempt; called only while fewer than `capacity` are under way."""

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Attempts that ended since the last call; returns early as soon as there is one."""

    def said(self, job: Job) -> str:
        """The latest sign of life of the last attempt, as `worker.attempt` gives it; empty before the first."""

    def stop(self, jobs: Sequence[Job]) -> None:
        """Asks attempts to save and end, and kills those that take too long; `wait` no longer names them."""

    def kill(self, job: Job) -> None:
        """Ends an attempt at once; `wait` no longer names it."""

    def close(self) -> None:
        """Lets go of all workers; nothing is under way any more."""


@dataclass(slots=True)
class _Attempt:
    job: Job
    said: str
    since: float
    message: Mapping[str, Any] | None = None


class Driver(Base):
    """Runs jobs on the workers of a pool.

    A worker that dies, or gives no sign of life for too long, takes only its own job with it, and that job
    starts again a bounded number of times. A worker that is told to leave hands its job back, which does not
    count. Every start is recorded in the run's folder, every loss is told to the store's `notice`.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        report: Report,
        stop: Stop,
        *,
        retries: int,
        timeout: float,
        poll: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts nothing yet.

        Args:
            store: Where the runs live.
            pool: Who does the work; closed with the driver.
            report: Told (job, message) while `completed` is iterated: the latest message of each worker.
            stop: When it turns true, running jobs save and stop; all outstanding ones are `preempted`.
            retries: How often a job is started again after its worker died, before it is `lost`.
            timeout: Seconds without a sign of life after which a worker that has begun is killed.
            poll: Seconds between two looks at `stop` and at the workers' signs of life.
            clock: Seconds.
        """
        super().__init__(store, report, stop)
        self._pool = pool
        self._retries = retries
        self._timeout = timeout
        self._poll = poll
        self._clock = clock
        self._running: dict[str, _Attempt] = {}
        self._losses: dict[str, int] = {}
        self._begun: set[str] = set()
        self._looked = clock()

    @property
    def capacity(self) -> int:
        """Jobs that can run at the same time, now."""
        return self._pool.capacity

    def submit(self, job: Job) -> None:
        """Queues a job and starts it if a worker is idle."""
        super().submit(job)
        self._dispatch()

    def completed(self) -> Iterator[Outcome]:
        """Yields outcomes, starts what waits, and relays messages meanwhile."""
        while self._answers or self._outstanding:
            if self._outstanding and self._stop():
                self._preempt()
            self._dispatch()
            if self._answers:
                yield self._answers.popleft()
            else:
                self._turn()

    def cancel(self, job: Job) -> None:
        """Drops a waiting job; stops the worker of a running one, which may take some seconds."""
        if job.id not in self._outstanding:
            return
        if (attempt := self._running.pop(job.id, None)) is not None:
            self._pool.stop([attempt.job])
        self._waiting = deque(other for other in self._waiting if other.id != job.id)
        self._settle(job, Outcome(job, "cancelled"))

    def close(self, wait: bool) -> None:
        """Ends the workers, at once or when what they do is done."""
        super().close(wait)
        try:
            while wait and self._running and not self._stop():
                self._turn()
                self._waiting.clear()  # what was lost meanwhile is not begun again
        finally:
            try:
                self._stop_all()
            finally:
                self._pool.close()

    def _dispatch(self) -> None:
        while self._waiting and len(self._running) < self._pool.capacity and not self._stop():
            job = self._waiting.popleft()
            if self._store.result(job) is not None:
                self._settle(job, Outcome(job, "cached"))
                continue
            self._pool.start(job)
            self._running[job.id] = _Attempt(job, "", self._clock())
            self._begun.add(job.id)

    def _turn(self) -> None:
        for ended in self._pool.wait(self._poll):
            self._collect(ended)
        now = self._clock()
        # Many workers are asked less often: their signs of life are files, maybe on a shared disk.
        if now - self._looked >= max(self._poll, 0.01 * len(self._running)):
            self._looked = now
            for attempt in list(self._running.values()):
                self._look(attempt, now)

    def _look(self, attempt: _Attempt, now: float) -> None:
        if attempt.job.id not in self._running:
            return  # `report` has cancelled it
        text = self._pool.said(attempt.job)
        if text != attempt.said:
            attempt.said, attempt.since = text, now
            self._relay(attempt)
        elif text and now - attempt.since > self._timeout:
            del self._running[attempt.job.id]
            self._pool.kill(attempt.job)
            self._lose(attempt.job, f"after {self._timeout:g} s without a sign of life")

    def _relay(self, attempt: _Attempt) -> None:
        message = json.loads(attempt.said)["message"] if attempt.said else None
        if message is not None and message != attempt.message:
            attempt.message = message
            self._report(attempt.job, message)

    def _collect(self, ended: Ended) -> None:
        attempt, job = self._running.get(ended.job.id), ended.job
        if attempt is None:
            return
        attempt.said = self._pool.said(job)
        self._relay(attempt)
        if self._running.pop(job.id, None) is None:
            return  # `report` has cancelled it
        if isinstance(ended.answer, str):
            self._lose(job, ended.answer)
            return
        for notice in ended.answer.notices:
            self._store.notice(notice)
        outcome = ended.answer.outcome
        if isinstance(outcome, InputError):
            raise outcome
        if outcome.status == "preempted":
            self._waiting.appendleft(job)
        else:
            self._answer(outcome)

    def _lose(self, job: Job, how: str) -> None:
        times = self._losses[job.id] = self._losses.get(job.id, 0) + 1
        if times <= self._retries:
            self._store.notice(f"{job.name}: its worker ended {how}; retry {times} of {self._retries}")
            self._waiting.appendleft(job)
            return
        line = f"its worker was lost {times} times, the last time {how}; is there enough memory?"
        if self._store.result(job) is None:
            self._store.fail(job, line, "")
        self._settle(job, Outcome(job, "lost", error=line))

    def _preempt(self) -> None:
        self._stop_all()
        self._waiting.clear()
        for job, *_ in list(self._outstanding.values()):
            self._settle(job, Outcome(job, "preempted"))

    def _stop_all(self) -> None:
        if self._running:
            self._pool.stop([attempt.job for attempt in self._running.values()])
            self._running.clear()

    def _settle(self, job: Job, otherwise: Outcome) -> None:
        """Answers with the stored result if there is one: a worker may write it just before it dies."""
        found = self._store.result(job)
        status: Status = "finished" if job.id in self._begun else "cached"
        self._answer(otherwise if found is None else Outcome(job, status, found))

    def _answer(self, outcome: Outcome) -> None:
        self._begun.discard(outcome.job.id)
        super()._answer(replace(outcome, losses=self._losses.pop(outcome.job.id, 0)))
