"""How far the work of a command is: bars on a terminal, elsewhere a line of text every half minute."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from prunas.cli.output import say

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from prunas.runs.execute import Outcome
    from prunas.runs.executors import Executor
    from prunas.runs.job import Job

__all__ = ["Bars", "Row", "Tally", "lines", "progress", "span"]

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""

BARS_FROM, MOST_BARS = 76, 6
"""Columns of a terminal that has room for bars, and bars of single trainings at a time."""


@dataclass(slots=True)
class _Running:
    """One training under way, or another work that counts steps instead of epochs.

    Attributes:
        text: What it is, and how far.
        epochs: Of all of it.
        first: Epochs that were behind it when it was first heard of.
        done: Epochs behind it now.
        began: When it was first heard of.
        at: When the last epoch ended.
    """

    text: str
    epochs: int
    first: int
    done: int
    began: float
    at: float

    @property
    def per_epoch(self) -> float | None:
        """Seconds of an epoch, by those heard of; None while only one was."""
        heard = self.done - self.first - 1
        return (self.at - self.began) / heard if heard > 0 and self.at > self.began else None

    def within(self, now: float) -> float:
        """Share of the epoch under way, estimated from the time since the last one ended."""
        if self.per_epoch is None or self.done >= self.epochs:
            return 0.0
        return min(0.95, (now - self.at) / self.per_epoch)

    def left(self, now: float) -> float | None:
        """Seconds until it ends, estimated; None while no epoch was timed."""
        if self.per_epoch is None:
            return None
        return max(0.0, (self.epochs - self.done) * self.per_epoch - (now - self.at))


class Tally:
    """Counts the trainings and epochs of a command, and estimates the time that is left.

    The estimate takes all epochs for equally long. What finished runs already hold costs no time and does not
    count as speed. Called as (job, message), it is the `report` of an executor.

    Attributes:
        state: The latest message, in words.
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
        self._running: dict[str, _Running] = {}
        self._works: dict[str, _Running] = {}  # what is no training counts steps, and has no epochs
        self._ended = 0
        self._behind = 0  # epochs of the trainings that ended, however they did
        self._made = 0  # epochs trained by this command in trainings that ended
        self.state = "starting"

    def __call__(self, job: "Job", message: Mapping[str, Any]) -> None:
        """Takes a message of a running training."""
        if "epoch" in message:
            epoch, epochs, loss = int(message["epoch"]), int(message["epochs"]), float(message["loss"])
            self._heard(self._running, job, epoch, epochs, f" loss {loss:.3f}", "epoch")
        elif "steps" in message:
            step, steps = int(message["step"]), int(message["steps"])
            self._heard(self._works, job, step, steps, "", "step")
        elif "waiting" in message:
            self.state = f"{job.label} {message['waiting']}"

    def _heard(
        self, jobs: "dict[str, _Running]", job: "Job", done: int, total: int, more: str, unit: str
    ) -> None:
        """Takes a sign of life of a job: so many of its epochs or steps are done."""
        now = self._clock()
        running = jobs.setdefault(job.id, _Running("", total, done - 1, done, now, now))
        running.text = f"{job.label} {unit} {done}/{total}{more}"
        running.done, running.at = done, now
        self.state = running.text

    def end(self, outcome: "Outcome") -> None:
        """Takes the end of a training."""
        job = outcome.job
        running = self._running.pop(job.id, None)
        self._works.pop(job.id, None)
        first, last = (running.first, running.done) if running else (0, 0)
        self._made += last - first
        self._behind += int(job.spec.get("epochs", last))
        self._ended += 1

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
        made = self._made + sum(each.done - each.first for each in running)
        behind = self._behind + sum(each.done for each in running)
        if not made:
            return None
        return max(0, self._epochs - behind) * (self._clock() - self._start) / made

    @property
    def share(self) -> float:
        """Of all epochs, those behind; the ones under way count by the time they have taken."""
        now = self._clock()
        under_way = sum(each.done + each.within(now) for each in list(self._running.values()))
        return min(1.0, (self._behind + under_way) / max(1, self._epochs))

    @property
    def rows(self) -> list["Row"]:
        """The trainings and other works under way, in the order in which they were heard of."""
        now = self._clock()
        return [
            Row(
                each.text,
                (each.done + each.within(now)) / max(1, each.epochs),
                each.left(now),
            )
            for each in [*self._running.values(), *self._works.values()]
        ]

    @property
    def text(self) -> str:
        """What is under way, and the estimates."""
        text = self.state
        running = list(self._running.values())
        if len(running) == 1 and (own := running[0].left(self._clock())) is not None:
            text += f", {span(own)} left of it"
        elif len(running) > 1:
            text += f", {len(running)} at a time"
        return text if self.left is None else f"{text}, about {span(self.left)} left"

    @property
    def line(self) -> str:
        """One line that says how far the work is."""
        return f"{self.count}; {self.text}"

    @property
    def count(self) -> str:
        """Trainings that ended, of how many, and the time they took."""
        return f"{self.ended} of {self.trainings} trainings in {span(self._clock() - self._start)}"

    def watch(self, executor: "Executor") -> "Executor":
        """The executor, with every outcome it yields counted here."""
        return _Watched(executor, self)


class Row(NamedTuple):
    """One training as a person watches it: what it is, the share that is done, the seconds that are left."""

    text: str
    share: float
    left: float | None


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
    with suppress(OSError):  # whoever read them has gone; the work goes on
        while not wait(EVERY):
            tell(tally.line)


class Bars:
    """A tally as rich draws it: a bar for all of the work, and below it one for each training under way.

    It moves between two epochs by the time that the last ones took. Where a window has no room for bars, shares
    stand alone.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally, rows = self._tally, self._tally.rows
        total = Row(tally.count if rows else f"{tally.count}; {tally.state}", tally.share, tally.left)
        bars = options.max_width >= BARS_FROM
        numbers = 46 if bars else 14  # columns of what stands behind the words
        table = Table.grid(padding=(0, 1), expand=False)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, options.max_width - numbers))
        if bars:
            table.add_column(width=24)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        for row in (total, *rows[:MOST_BARS]):
            bar = [ProgressBar(total=1.0, completed=row.share, width=24)] if bars else []
            left = "" if row.left is None else f"{span(row.left)} left" if bars else span(row.left)
            table.add_row(Text(row.text), *bar, f"{100 * row.share:.0f} %", left)
        yield table
        if len(rows) > MOST_BARS:
            yield Text(f"and {len(rows) - MOST_BARS} more")


@contextmanager
def progress(trainings: int, epochs: int) -> Iterator[Tally]:
    """Live bars on standard error, or lines now and then if that is no terminal that can move its cursor.

    Args:
        trainings: How many are expected.
        epochs: Of all of them together.
    """
    from rich.console import Console

    tally = Tally(trainings, epochs)
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        from rich.live import Live

        with Live(Bars(tally), console=console, transient=True, refresh_per_second=4):
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
