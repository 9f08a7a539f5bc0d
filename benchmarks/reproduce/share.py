"""One executor for all cells: what several searches share, and what is finished without any training."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Self

from prunas.runs.execute import Outcome, never
from prunas.runs.executors import Base, Executor, silent
from prunas.runs.job import Job
from prunas.runs.store import Store

__all__ = ["Share", "Shared", "Stored"]


class Stored(Base):
    """Answers with what the store holds and trains nothing: jobs without a result are `preempted`.

    Attributes:
        asked: Jobs that were asked for.
        missing: Those of them without a result.
    """

    capacity = 1

    def __init__(self, store: Store) -> None:
        """Of one store."""
        super().__init__(store, silent, never)
        self.asked: list[Job] = []
        self.missing: list[Job] = []

    def submit(self, job: Job) -> None:
        """Notes and queues a job."""
        self.asked.append(job)
        super().submit(job)

    def completed(self) -> Iterator[Outcome]:
        """Answers everything that is outstanding."""
        while self._answers or self._waiting:
            if self._answers:
                yield self._answers.popleft()
                continue
            job = self._waiting.popleft()
            result = self._store.result(job)
            if result is None:
                self.missing.append(job)
            self._answer(Outcome(job, "preempted" if result is None else "cached", result))

    def cancel(self, job: Job) -> None:
        """Nothing runs."""


class Shared:
    """An executor that outlives a search, so that no worker waits where one search ends and the next begins.

    While a search has fewer jobs outstanding than there are workers, jobs of later cells run beside them.
    """

    def __init__(
        self, inner: Executor, later: Callable[[], Iterator[Job]], ended: Callable[[Job], object]
    ) -> None:
        """Shares an executor.

        Args:
            inner: Who executes; whoever opened it closes it.
            later: Begins to list jobs that later searches will ask for and that can run now.
            ended: Told of every job that was finished.
        """
        self.inner, self.ended = inner, ended
        self._later = later
        self._spare: deque[Job] | None = None
        self._beside: Counter[str] = Counter()
        self._submitted: set[str] = set()

    def share(self) -> "Share":
        """The executor as one search sees it; what later ones will ask for is listed anew."""
        self._spare = None
        return Share(self)

    def submit(self, job: Job) -> None:
        """Adds a job."""
        self._submitted.add(job.id)
        self.inner.submit(job)

    def fill(self, own: int) -> None:
        """Starts jobs of later cells, while the search at work has fewer than there are workers, but has some."""
        while own > 0 and own + self._beside.total() < self.inner.capacity:
            if self._spare is None:
                self._spare = deque(self._later())
            if not self._spare:
                return
            job = self._spare.popleft()
            if job.id in self._submitted:
                continue  # it is under way or done, and would keep no worker busy
            self._beside[job.id] += 1
            self.submit(job)

    def beside(self, job: Job) -> None:
        """Notes the end of a job that no search waits for."""
        self._beside[job.id] -= 1
        self._beside += Counter()  # forgets those that have ended


class Share:
    """What one search sees of a shared executor: its own jobs."""

    def __init__(self, shared: Shared) -> None:
        """Of a shared executor."""
        self._shared = shared
        self._own: Counter[str] = Counter()

    @property
    def capacity(self) -> int:
        """Jobs that can run at the same time, now."""
        return self._shared.inner.capacity

    def submit(self, job: Job) -> None:
        """Adds a job."""
        self._own[job.id] += 1
        self._shared.submit(job)

    def completed(self) -> Iterator[Outcome]:
        """Outcomes of own jobs until none is outstanding; the others go on running."""
        self._shared.fill(self._own.total())
        if not self._own.total():
            return
        for outcome in self._shared.inner.completed():
            if self._own[outcome.job.id] > 0:
                self._own[outcome.job.id] -= 1
                yield outcome
            else:
                self._shared.beside(outcome.job)
            if outcome.status == "finished":
                self._shared.ended(outcome.job)
            if not self._own.total():
                return
            self._shared.fill(self._own.total())

    def cancel(self, job: Job) -> None:
        """Drops a waiting job or stops a running one."""
        self._shared.inner.cancel(job)

    def close(self, wait: bool) -> None:
        """Leaves the shared executor open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(wait=kind is None)
