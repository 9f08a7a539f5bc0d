"""Several trainings at once in this process: lanes that take turns after every step, so that one GPU stays busy.

One small network leaves a GPU idle most of the time. A lane is a thread, and only the lane that holds the baton
runs Python; it hands the baton on whenever its work asks whether to stop, which the training loop does after
every step. What lanes have put into their streams by then runs side by side on the device. The order of steps
is fixed, and no training code needs a lock.
"""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunas.errors import InputError
from prunas.runs.driver import Driver, Ended
from prunas.runs.execute import Stop, execute, never
from prunas.runs.executors import Report, silent, whole
from prunas.runs.job import Job
from prunas.runs.pools.processes import visible_gpus
from prunas.runs.store import Store
from prunas.runs.worker import Answer

__all__ = ["Pace", "streams"]

WORTH = 1.05
"""One more training at once must raise the steps per second of all together by this factor."""

WINDOW = 3.0
"""Seconds over which a rate is taken."""

FULL = 0.9
"""Share of the device's memory that may be planned with."""


class Pace:
    """How many lanes there are: as many as was asked for, or as many as measurements say.

    It begins with one. While more of them do more than 5 % more steps per second and fit into memory, there is
    one more; the first that does not pay in two windows is taken back, and the number stays. Lanes are of one
    experiment, so their steps are of one batch size. Networks differ in size, so this is a rule of thumb; being
    wrong by one costs little.

    Attributes:
        lanes: How many there may be.
    """

    def __init__(self, asked: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins with what was asked for, or with one.

        Args:
            asked: How many; None lets measurements decide.
            clock: Seconds.
        """
        self.lanes = asked or 1
        self._settled = asked is not None
        self._clock = clock
        self._fit = 1
        self._best = 0.0
        self._doubted = False
        self._steps, self._since = 0, math.nan

    def memory(self, share: float) -> None:
        """Says what one training, alone, takes of the device's memory, in (0, 1]."""
        self._fit = max(1, int(FULL / share))

    def restart(self) -> None:
        """Forgets the steps counted: the lanes are other ones now, or one of them has captured a step."""
        self._since = math.nan

    def step(self, lanes: int, warm: bool) -> None:
        """Counts one step of any lane.

        Args:
            lanes: How many there are.
            warm: Whether all of them have finished an epoch: until then they warm up and capture their steps.
        """
        if self._settled:
            return
        if not warm or lanes != self.lanes:
            self.restart()
            return
        now = self._clock()
        if math.isnan(self._since):
            self._steps, self._since = 0, now
            return
        self._steps += 1
        if now - self._since >= WINDOW:
            self._judge(self._steps / (now - self._since))
            self.restart()

    def _judge(self, rate: float) -> None:
        if rate > WORTH * self._best:
            self._doubted = False
            if self.lanes < self._fit:
                self._best = rate
                self.lanes += 1
        elif not self._doubted:
            self._doubted = True  # an evaluation, or an epoch of odd length, may have fallen into the window
        else:
            self.lanes -= 1
            self._settled = True

    def crowded(self, lanes: int) -> None:
        """Memory did not suffice for so many: from now on there is one less."""
        self.lanes = max(1, min(self.lanes, lanes - 1))
        self._settled = True


class _Thread:
    """Makes one attempt after another. cuDNN keeps its plans by thread: a new one would build them all again."""

    def __init__(self, run: Callable[["_Lane"], None]) -> None:
        self.go = threading.Lock()
        self.go.acquire()
        self.lane: _Lane | None = None
        self._run = run
        # A daemon: a driver that was interrupted twice must not wait for it.
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        while True:
            self.go.acquire()
            if self.lane is None:
                return
            self._run(self.lane)

    def end(self) -> None:
        """Ends the thread, which has nothing to do."""
        self.lane = None
        self.go.release()
        self._thread.join()


class _Lane:
    """One attempt at a job, in a thread that makes no other meanwhile."""

    def __init__(self, job: Job, thread: _Thread) -> None:
        self.job, self.thread = job, thread
        self.asked = False
        self.steps = 0
        self.warm = False  # has finished an epoch
        self.message: Mapping[str, Any] | None = None
        thread.lane = self


class _Lanes:
    """A pool of them. Whoever holds the baton may touch everything here, and nobody else runs."""

    def __init__(self, root: Path, pace: Pace) -> None:
        self._root, self._pace = root, pace
        self._ring: deque[_Lane] = deque()  # the first is at work, or next
        self._idle: list[_Thread] = []
        self._last: dict[str, _Lane] = {}
        self._measured: str | None = None  # the job whose memory, alone, is known
        self._captures = 0
        self._ended: list[tuple[_Lane, Ended]] = []
        self._holder: _Lane | None = None  # None: the driver
        self._back = threading.Event()
        self._until = 0.0

    @property
    def capacity(self) -> int:
        return self._pace.lanes

    def start(self, job: Job) -> None:
        lane = self._last[job.id] = _Lane(job, self._idle.pop() if self._idle else _Thread(self._run))
        self._ring.append(lane)
        self._pace.restart()

    def wait(self, seconds: float) -> list[Ended]:
        if not self._ring:
            time.sleep(seconds)
            return []
        self._let_run(self._ring[0], time.monotonic() + seconds)
        return self._collected()

    def said(self, job: Job) -> str:
        lane = self._last[job.id]
        begun = lane.steps or lane.message
        return json.dumps({"beat": lane.steps, "message": lane.message}) if begun else ""

    def stop(self, jobs: Sequence[Job]) -> None:
        names = {job.id for job in jobs}
        for lane in [lane for lane in self._ring if lane.job.id in names]:
            lane.asked = True
            while lane in self._ring:
                self._let_run(lane, 0.0)
        self._ended = [(lane, ended) for lane, ended in self._ended if lane.job.id not in names]

    def kill(self, job: Job) -> None:
        self.stop([job])

    def close(self) -> None:
        self.stop([lane.job for lane in self._ring])
        while self._idle:
            self._idle.pop().end()

    def _collected(self) -> list[Ended]:
        found, self._ended = self._ended, []
        return [ended for _, ended in found]

    def _let_run(self, lane: _Lane, until: float) -> None:
        """The driver gives the baton away until then, or until a lane ends."""
        self._until = until
        try:
            if self._holder is None:
                self._back.clear()
                self._give(lane)
            self._await()
        except BaseException:  # Ctrl-C reaches the driver's thread while a lane works: let it end its step
            self._until = 0.0
            self._await()
            raise

    def _await(self) -> None:
        while self._holder is not None:
            self._back.wait()

    def _give(self, lane: _Lane | None) -> None:
        self._holder = lane
        if lane is None:
            self._back.set()
        else:
            lane.thread.go.release()

    def _step_done(self, lane: _Lane) -> bool:
        """What a lane's work asks after every step: whether to stop. Meanwhile the others have their turns."""
        lane.steps += 1
        self._pace.step(len(self._ring), all(other.warm for other in self._ring))
        if not lane.asked:
            self._ring.rotate(-self._ring.index(lane) - 1)
            following = None if time.monotonic() >= self._until else self._ring[0]
            if following is not lane:
                self._give(following)
                lane.thread.go.acquire()
        return lane.asked

    def _run(self, lane: _Lane) -> None:
        """What a lane's thread does, once it has the baton."""
        answer: Answer | str
        try:
            answer = self._attempt(lane)
        except BaseException as error:
            answer = f"with {type(error).__name__}: {error}"
        self._ring.remove(lane)
        self._pace.restart()
        self._idle.append(lane.thread)
        self._ended.append((lane, Ended(lane.job, answer)))
        self._give(None)

    def _attempt(self, lane: _Lane) -> Answer:
        notices: list[str] = []

        def tell(message: Mapping[str, Any]) -> None:
            lane.message = dict(message)
            lane.warm = lane.warm or "epoch" in message
            # While there may be one lane only, all that took memory before has ended; the first to tell counts.
            if "memory" in message and self._pace.lanes == 1 and self._measured in (None, lane.job.id):
                self._measured = lane.job.id
                self._pace.memory(message["memory"])
            if (captures := message.get("captures", self._captures)) != self._captures:
                self._captures = captures
                self._pace.restart()

        def crowded() -> bool:
            if len(self._ring) == 1:
                return False
            self._pace.crowded(len(self._ring))
            notices.append(
                f"{lane.job.name}: too little memory for {len(self._ring)} trainings at once; "
                f"going on with {self._pace.lanes}"
            )
            return True

        try:
            store = Store(self._root, notices.append)
            outcome = execute(lane.job, store, tell, lambda: self._step_done(lane), crowded)
            return Answer(outcome, tuple(notices))
        except InputError as error:
            return Answer(error, tuple(notices))


def streams(
    store: Store, report: Report = silent, stop: Stop = never, *, workers: int | None = None
) -> Driver:
    """An executor that trains several networks at once in this process, for one GPU.

    A training that finds too little memory is handed back and waits until there are fewer; only one that does
    not fit alone fails. A lane cannot be killed, so there is no timeout.

    Args:
        store: Where the runs live.
        report: Told (job, message) while `completed` is iterated.
        stop: When it turns true, running jobs save and stop; all outstanding ones are `preempted`.
        workers: How many at once. By default 1 without a GPU; with one, as many as raise the steps per second of
            all together by more than 5 % and fit into its memory.

    Raises:
        InputError: `workers` is too small.
    """
    if workers is not None:
        whole("streams", "workers", workers, 1)
    elif not visible_gpus():
        workers = 1
    return Driver(store, _Lanes(store.root, Pace(workers)), report, stop, retries=0, timeout=math.inf)
