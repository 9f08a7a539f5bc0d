"""The driver loop at scale: a small version of `benchmarks/scale/simulate.py`."""

import importlib.util
from pathlib import Path

import pytest

from prunas.runs.driver import Driver, Ended
from prunas.runs.execute import Outcome, never
from prunas.runs.job import Job
from prunas.runs.store import Result, Store
from prunas.runs.worker import Answer

ROOT = Path(__file__).parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("hangs", [0.0, 0.3])
def test_workers_that_fail_at_random_are_kept_busy_and_no_job_is_lost(tmp_path, hangs):
    simulate = load(ROOT / "benchmarks" / "scale" / "simulate.py").simulate
    found = simulate(
        tmp_path,
        workers=40,
        jobs=800,
        mean_life=12 * 3600.0,
        hangs=hangs,
        repair=600.0,
        retries=20,
        timeout=300.0,
        poll=5.0,
        own_time=lambda: 0.0,  # a driver that takes none: the test must not depend on the machine
    )
    assert found["outcomes"] == {"finished": 800}
    assert found["answered twice or never"] == 0
    assert found["busy share while there was work for all"] >= 0.98
    # What was lost while a job ran, and nothing else, was started again.
    assert found["workers crashed"] > 10
    assert (found["workers hung"] > 5) == (hangs > 0)
    assert found["hung workers killed by the driver"] == found["workers hung"]
    assert found["starts"] == 800 + found["losses told"]


class Scripted:
    """A pool whose attempts end as told, one after another; notes what was asked of it."""

    def __init__(self, *ends, capacity=1):
        self.ends, self.capacity = list(ends), capacity
        self.under_way, self.started, self.asked = [], [], []

    def start(self, job):
        assert len(self.under_way) < self.capacity
        self.under_way.append(job)
        self.started.append(job.spec["x"])

    def wait(self, seconds):
        if not self.under_way or not self.ends:
            return []
        job, end = self.under_way.pop(0), self.ends.pop(0)
        done = Answer(Outcome(job, "finished", Result(job, {}, 0.0, "", {})))
        left = Answer(Outcome(job, "preempted"))
        return [Ended(job, {"done": done, "left": left}.get(end, end))]

    def said(self, job):
        return ""

    def stop(self, jobs):
        self.asked.append(("stop", [job.spec["x"] for job in jobs]))

    def kill(self, job):
        self.asked.append(("kill", job.spec["x"]))

    def close(self):
        self.asked.append("close")


def drive(tmp_path, pool, jobs, retries=1):
    notices = []
    jobs = [Job("light/square", {"x": x}, "space", "dense") for x in jobs]
    store = Store(tmp_path / "runs", notices.append)
    with Driver(store, pool, lambda *_: None, never, retries=retries, timeout=10.0) as running:
        for job in jobs:
            running.submit(job)
        outcomes = [(o.job.spec["x"], o.status, o.losses) for o in running.completed()]
    return outcomes, notices


def test_a_lost_job_is_next_and_its_retries_are_counted(tmp_path):
    pool = Scripted("of SIGKILL", "done", "done")
    outcomes, notices = drive(tmp_path, pool, [1, 2])
    assert pool.started == [1, 1, 2]
    assert outcomes == [(1, "finished", 1), (2, "finished", 0)]
    assert [notice.partition(": ")[2] for notice in notices] == ["its worker ended of SIGKILL; retry 1 of 1"]


def test_retries_end_and_leaving_does_not_count(tmp_path):
    pool = Scripted("left", "left", "of SIGKILL", "left", "of SIGKILL", "done")
    outcomes, _ = drive(tmp_path, pool, [1, 2])
    assert pool.started == [1, 1, 1, 1, 1, 2]
    assert outcomes == [(1, "lost", 2), (2, "finished", 0)]
    assert pool.asked == ["close"]


def test_never_more_than_the_pool_holds_while_machines_come_and_go(tmp_path):
    class Growing(Scripted):
        def wait(self, seconds):
            found = super().wait(seconds)
            self.capacity = 3 if len(self.started) < 4 else 1
            return found

    pool = Growing(*["done"] * 6)
    outcomes, _ = drive(tmp_path, pool, range(6))
    assert [x for x, _, _ in outcomes] == list(range(6))
    assert pool.started == list(range(6))


def test_silence_is_counted_from_the_last_sign_of_life(tmp_path):
    now = 0.0
    job = Job("light/square", {"x": 1}, "space", "dense")

    class Quiet(Scripted):
        def wait(self, seconds):
            nonlocal now
            now += 4.0
            if ("kill", 1) in self.asked:
                return super().wait(seconds)
            return []

        def said(self, job):  # queued until 20, then one beat a second until 50
            return "" if now < 20 else f'{{"beat": {min(int(now), 50)}, "message": null}}'

        def kill(self, job):
            super().kill(job)
            self.killed = now
            self.under_way.clear()

    pool = Quiet("done")
    store = Store(tmp_path / "runs", lambda text: None)
    running = Driver(store, pool, lambda *_: None, never, retries=1, timeout=10.0, clock=lambda: now)
    with running:
        running.submit(job)
        [outcome] = running.completed()
    assert (outcome.status, outcome.losses) == ("finished", 1)
    assert 60 < pool.killed <= 52 + 4 + 10
