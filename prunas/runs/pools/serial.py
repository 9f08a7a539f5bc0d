"""Jobs one after another, in this process."""

from collections.abc import Iterator
from dataclasses import replace

from prunas.runs.execute import Outcome, Stop, execute, never
from prunas.runs.executors import Base, Report, silent
from prunas.runs.job import Job
from prunas.runs.store import Store

__all__ = ["Serial"]


class Serial(Base):
    """Runs jobs in this process, one by one, while `completed` is iterated."""

    def __init__(self, store: Store, report: Report = silent, stop: Stop = never) -> None:
        """Runs nothing yet.

        Args:
            store: Where the runs live.
            report: Told (job, message) while jobs run.
            stop: When it turns true, the running job saves and stops; all outstanding ones are `preempted`.
        """
        super().__init__(store, report, stop)
        self.capacity = 1
        self._cancelled: set[str] = set()

    def completed(self) -> Iterator[Outcome]:
        """Runs what is outstanding, and yields each outcome."""
        while self._answers or self._waiting:
            if self._answers:
                yield self._answers.popleft()
            else:
                self._answer(self._next(self._waiting[0]))

    def _next(self, job: Job) -> Outcome:
        outcome = execute(
            job,
            self._store,
            progress=lambda message: self._report(job, message),
            stop=lambda: job.id in self._cancelled or self._stop(),
        )
        self._waiting.popleft()
        if job.id in self._cancelled:
            self._cancelled.remove(job.id)
            if outcome.status == "preempted":
                return replace(outcome, status="cancelled")
        return outcome

    def cancel(self, job: Job) -> None:
        """Skips a waiting job; called by `report`, also stops the running one."""
        if job.id in self._outstanding:
            self._cancelled.add(job.id)
