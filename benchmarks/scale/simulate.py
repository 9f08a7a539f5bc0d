"""Does the driver keep a thousand workers busy? The real driver loop, simulated workers, a simulated clock.

Workers take jobs of 1 to 60 minutes, crash and fall silent at random, and come back after a repair. The clock
goes forward with the simulated work *and* with every second the driver itself spends, so a driver too slow for
its workers would show as idle workers.

    python benchmarks/scale/simulate.py --json benchmarks/scale/simulate.json
"""

import argparse
import heapq
import json
import platform
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prunas.runs.driver import Driver, Ended
from prunas.runs.execute import Outcome, never
from prunas.runs.executors import silent
from prunas.runs.job import Job
from prunas.runs.store import Result, Store
from prunas.runs.worker import Answer

BEAT = 10.0  # seconds between two signs of life, as `prunas.runs.pools.remote` has it


class Workers:
    """A pool that lives in a heap of events.

    Args:
        count: Workers at the start, and as many once all are repaired.
        mean_life: Seconds between two failures of a worker, on average.
        hangs: Share of failures in which a worker falls silent instead of dying.
        repair: Seconds until a worker is back, on average.
        start: Seconds from the driver's word to the work's first step.
        seed: Of everything random.
        own_time: What the driver's own time is measured with.
    """

    def __init__(
        self,
        count: int,
        *,
        mean_life: float,
        hangs: float,
        repair: float,
        start: float,
        seed: int,
        own_time: Callable[[], float],
    ) -> None:
        self._random = random.Random(seed)
        self._mean_life, self._hangs, self._repair, self._start = mean_life, hangs, repair, start
        self._own_time = own_time
        self.now, self._left = 0.0, own_time()
        self._events: list[tuple[float, int, str, int, int]] = []  # when, order, what, worker, its turn
        self._order = 0
        self._idle = list(range(count))
        self._turn = [0] * count  # events of an earlier turn of a worker no longer count
        self._at: dict[int, Job] = {}
        self._where: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._hung: dict[str, float] = {}
        self.alive, self.count = count, Counter[str]()
        self.starts = Counter[str]()
        self.driver_seconds = 0.0
        # Worker-seconds, in all and while there was a job for every worker.
        self.total = {"live": 0.0, "busy": 0.0}
        self.loaded = {"live": 0.0, "busy": 0.0}
        self.left_to_do = 0
        for worker in range(count):
            self._fail_some_day(worker)

    @property
    def capacity(self) -> int:
        """Workers alive, as far as the driver can know."""
        return self.alive

    def clock(self) -> float:
        """The simulated time, which the driver's own time is part of."""
        return self.now + self._own_time() - self._left

    def start(self, job: Job) -> None:
        """Gives an idle worker a job."""
        self._enter()
        worker = self._idle.pop()
        self._at[worker], self._where[job.id] = job, worker
        self._began[job.id] = self.now + self._start
        self.starts[job.id] += 1
        self._after(self._start + 60 * job.spec["minutes"], "end", worker)
        self._leave()

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Lets time pass to the next end, or so many seconds."""
        self._enter()
        until = self.now + seconds
        found: list[Ended] = []
        while self._events and self._events[0][0] <= (self.now if found else until):
            when, _, what, worker, turn = heapq.heappop(self._events)
            self._pass(max(self.now, when))
            if what == "back" or turn == self._turn[worker]:
                found += getattr(self, f"_{what}")(worker)
        if not found:
            self._pass(until)
        self._leave()
        return found

    def said(self, job: Job) -> str:
        """A beat every ten seconds, until the worker hangs."""
        seen = min(self.clock(), self._hung.get(job.id, float("inf")))
        beat = int((seen - self._began[job.id]) // BEAT)
        return "" if beat < 0 else f'{{"beat": {beat}, "message": null}}'

    def stop(self, jobs: Sequence[Job]) -> None:
        """Ends attempts."""
        for job in jobs:
            self.kill(job)

    def kill(self, job: Job) -> None:
        """Ends an attempt and its worker, which comes back after a repair."""
        self._enter()
        if job.id in self._where:
            self._down(self._where[job.id])
            self.count["killed"] += 1
        self._leave()

    def close(self) -> None:
        """Nothing is left to let go of."""

    def _enter(self) -> None:
        spent = self._own_time() - self._left
        self.driver_seconds += spent
        self._pass(self.now + spent)

    def _leave(self) -> None:
        self._left = self._own_time()

    def _pass(self, now: float) -> None:
        busy = len(self._at) - len(self._hung)
        for sums in (self.total, self.loaded) if self.left_to_do >= self.alive else (self.total,):
            sums["live"] += self.alive * (now - self.now)
            sums["busy"] += busy * (now - self.now)
        self.now = now

    def _after(self, seconds: float, what: str, worker: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now + seconds, self._order, what, worker, self._turn[worker]))

    def _fail_some_day(self, worker: int) -> None:
        life = self._random.expovariate(1 / self._mean_life)
        self._after(life, "hang" if self._random.random() < self._hangs else "crash", worker)

    def _end(self, worker: int) -> list[Ended]:
        job = self._at.pop(worker)
        del self._where[job.id]
        self._idle.append(worker)
        self.left_to_do -= 1
        self.count["finished"] += 1
        result = Result(job, {}, 60 * job.spec["minutes"], "", {})
        return [Ended(job, Answer(Outcome(job, "finished", result)))]

    def _crash(self, worker: int) -> list[Ended]:
        job = self._at.get(worker)
        self.count["crashed"] += 1
        self._down(worker)
        return [Ended(job, "with the machine")] if job is not None else []

    def _hang(self, worker: int) -> list[Ended]:
        if worker not in self._at:
            return self._crash(worker)
        self.count["hung"] += 1
        self._hung[self._at[worker].id] = self.now
        self._turn[worker] += 1  # what it was doing will never end
        return []

    def _down(self, worker: int) -> None:
        if (job := self._at.pop(worker, None)) is not None:
            del self._where[job.id]
            self._hung.pop(job.id, None)
        else:
            self._idle.remove(worker)
        self._turn[worker] += 1
        self.alive -= 1
        self._after(self._random.expovariate(1 / self._repair), "back", worker)

    def _back(self, worker: int) -> list[Ended]:
        self.alive += 1
        self._idle.append(worker)
        self._turn[worker] += 1
        self._fail_some_day(worker)
        return []


def simulate(
    folder: Path,
    *,
    workers: int,
    jobs: int,
    mean_life: float,
    hangs: float = 0.1,
    repair: float = 1800.0,
    start: float = 2.0,
    retries: int = 5,
    timeout: float = 1800.0,
    poll: float = 0.2,
    seed: int = 0,
    own_time: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """What the driver makes of so many workers and jobs; seconds are simulated unless they say otherwise."""
    draw = random.Random(f"jobs {seed}")
    settings = {"epochs": 160, "batch": 64, "lr": 0.1, "momentum": 0.9, "decay": 1e-4, "recipe": "paper"}
    todo = [
        Job(
            "nothing",
            {
                "minutes": draw.uniform(1, 60),
                "seed": number,
                "widths": {f"features.{i}": draw.randrange(8, 512) for i in range(16)},
                **settings,
            },
            "simulated",
            "scratch-e",
        )
        for number in range(jobs)
    ]
    losses: list[str] = []
    fate: dict[str, Any] = {"mean_life": mean_life, "hangs": hangs, "repair": repair, "start": start}
    pool = Workers(workers, **fate, seed=seed, own_time=own_time)
    limits = {"retries": retries, "timeout": timeout, "poll": poll}
    driver = Driver(Store(folder, losses.append), pool, silent, never, clock=pool.clock, **limits)
    pool.left_to_do = jobs
    began, processor = time.perf_counter(), time.process_time()
    ends = Counter[tuple[str, str]]()
    statuses = Counter[str]()
    with driver:
        for job in todo:
            driver.submit(job)
        for outcome in driver.completed():
            ends[outcome.job.id, outcome.status] += 1
            statuses[outcome.status] += 1
    return {
        "workers": workers,
        "jobs": jobs,
        "mean hours between two failures of a worker": mean_life / 3600,
        "outcomes": dict(statuses),
        "answered twice or never": jobs - sum(1 for count in ends.values() if count == 1),
        "starts": sum(pool.starts.values()),
        "losses told": len(losses),
        "workers crashed": pool.count["crashed"],
        "workers hung": pool.count["hung"],
        "hung workers killed by the driver": pool.count["killed"],
        "simulated hours": round(pool.now / 3600, 3),
        "busy share while there was work for all": round(pool.loaded["busy"] / pool.loaded["live"], 5),
        "busy share with the last hour": round(pool.total["busy"] / pool.total["live"], 5),
        "driver, seconds": round(pool.driver_seconds, 1),
        "driver, milliseconds per job": round(1000 * pool.driver_seconds / jobs, 3),
        "simulation, seconds": round(time.perf_counter() - began, 1),
        "simulation, processor seconds": round(time.process_time() - processor, 1),
        "largest memory, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Prints what the simulation found and keeps it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument(
        "--mean-life", type=float, default=24.0, help="hours between two failures of a worker"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(
            Path(folder),
            workers=given.workers,
            jobs=given.jobs,
            mean_life=3600 * given.mean_life,
            seed=given.seed,
        )
    found |= {"seed": given.seed, "python": platform.python_version(), "machine": platform.platform()}
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
