"""How far the work of a command is: a bar on a terminal, elsewhere a line of text every half minute."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from prunas.cli.output import say

if TYPE_CHECKING:
    from prunas.runs.execute import Outcome
    from prunas.runs.executors import Executor
    from prunas.runs.job import Job

__all__ = ["Tally", "lines", "progress", "span"]

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class Tally:
    """Counts the trainings and epochs of a command, and estimates the time that is left.

    The estimate takes all epochs for equally long. What finished runs already hold costs no time and does not
    count as speed. Called as (job, message), it is the `report` of an executor.
    """

    def __init__(self, trainings: int, epochs: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts the clock.

        Args:
            trainings: How many are expected.
            epochs: Of all of them together.
            clock: Seconds.
        """
        self._trainings, self._epochs, self._clock = trainings, epochs, clock
        self._start = clock()
        self._running: dict[str, tuple[int, int]] = {}  # by job: epochs at its first message, and now
        self._ended = 0
        self._behind = 0  # epochs of the trainings that ended, however they did
        self._made = 0  # epochs trained by this command in trainings that ended
        self._state = "starting"
        self.changed: Callable[[], object] = lambda: None

    def __call__(self, job: "Job", message: Mapping[str, Any]) -> None:
        """Takes a message of a running training."""
        if "epoch" in message:
            epoch = int(message["epoch"])
            first, _ = self._running.get(job.id, (epoch - 1, epoch))
            self._running[job.id] = first, epoch
            self._state = f"{job.label} epoch {epoch}/{message['epochs']} loss {message['loss']:.3f}"
        elif "steps" in message:
            self._state = f"{job.label} step {message['step']}/{message['steps']}"
        elif "waiting" in message:
            self._state = f"{job.label} {message['waiting']}"
        self.changed()

    def end(self, outcome: "Outcome") -> None:
        """Takes the end of a training."""
        job = outcome.job
        first, last = self._running.pop(job.id, (0, 0))
        self._made += last - first
        self._behind += int(job.spec.get("epochs", last))
        self._ended += 1
        self.changed()

    @property
    def ended(self) -> int:
        """Trainings that ended, those fetched from finished runs included."""
        return self._ended

    @property
    def trainings(self) -> int:
        """How many there will be, as far as is known."""
        return max(self._trainings, self._ended + len(self._running))

    @property
    def left(self) -> float | None:
        """Seconds until all is done, estimated; None before the first epoch."""
        running = list(self._running.values())
        made = self._made + sum(now - first for first, now in running)
        behind = self._behind + sum(now for _, now in running)
        if not made:
            return None
        return max(0, self._epochs - behind) * (self._clock() - self._start) / made

    @property
    def text(self) -> str:
        """What is under way, and the estimate."""
        left = self.left
        return self._state if left is None else f"{self._state}, about {span(left)} left"

    @property
    def line(self) -> str:
        """One line that says how far the work is."""
        so_far = span(self._clock() - self._start)
        return f"{self.ended} of {self.trainings} trainings in {so_far}; {self.text}"

    def watch(self, executor: "Executor") -> "Executor":
        """The executor, with every outcome it yields counted here."""
        return _Watched(executor, self)


class _Watched:
    """See `Tally.watch`."""

    def __init__(self, executor: "Executor", tally: Tally) -> None:
        self._executor, self._tally = executor, tally

    @property
    def capacity(self) -> int:
        return self._executor.capacity

    def submit(self, job: "Job") -> None:
        self._executor.submit(job)

    def completed(self) -> "Iterator[Outcome]":
        for outcome in self._executor.completed():
            self._tally.end(outcome)
            yield outcome

    def cancel(self, job: "Job") -> None:
        self._executor.cancel(job)

    def close(self, wait: bool) -> None:
        self._executor.close(wait)

    def __enter__(self) -> Self:
        self._executor.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._executor.__exit__(kind, *rest)


def span(seconds: float) -> str:
    """A length of time as people say it: `50 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def lines(tally: Tally, wait: Callable[[float], bool], tell: Callable[[str], object] = say) -> None:
    """Tells a tally's line every half minute.

    Args:
        tally: What to tell of.
        wait: Waits for so many seconds; True when the work is over.
        tell: Told each line.
    """
    while not wait(EVERY):
        tell(tally.line)


@contextmanager
def progress(trainings: int, epochs: int) -> Iterator[Tally]:
    """A live bar on standard error, or lines now and then if that is not a terminal.

    Args:
        trainings: How many are expected.
        epochs: Of all of them together.
    """
    from rich.console import Console

    tally = Tally(trainings, epochs)
    console = Console(stderr=True)
    if console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting", total=trainings)
            tally.changed = lambda: bar.update(
                task, completed=tally.ended, total=tally.trainings, description=tally.text
            )
            yield tally
        return
    over = threading.Event()
    # A thread, because one epoch of a large network takes longer than people wait for a line.
    teller = threading.Thread(target=lines, args=(tally, over.wait), daemon=True)
    teller.start()
    try:
        yield tally
    finally:
        over.set()
        teller.join()
