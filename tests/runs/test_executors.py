"""The contract of every executor, and what only worker processes promise."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from light_work import starts

from prunas.errors import InputError
from prunas.runs.execute import execute
from prunas.runs.executors import EXECUTORS, executor
from prunas.runs.job import Job
from prunas.runs.store import Store

DRIVE = Path(__file__).with_name("drive.py")


@pytest.fixture
def notices():
    return []


@pytest.fixture
def store(tmp_path, notices):
    return Store(tmp_path / "runs", notices.append)


@pytest.fixture
def new_job(tmp_path):
    def make(work, x=3, **spec):
        spec |= {"x": x, "starts": str(tmp_path / f"starts-{work}-{x}")}
        return Job(f"light_work:{work}", spec, "space", "dense")

    return make


def begun(job):
    return starts(job.spec["starts"])


@pytest.fixture(params=sorted(EXECUTORS))
def name(request):
    return request.param


@pytest.fixture
def start(name, store):
    def make(**options):
        return executor(name, store, **options, **({"workers": 1} if name == "processes" else {}))

    return make


def run(running, *jobs):
    """Outcomes in the order of the jobs."""
    with running:
        for job in jobs:
            running.submit(job)
        found = list(running.completed())
    assert len(found) == len(jobs)
    return sorted(found, key=lambda outcome: jobs.index(outcome.job))


def drive(store, name, *jobs, options=(), **settings):
    arguments = [str(store.root), name, json.dumps([job.to_json() for job in jobs]), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(DRIVE), *arguments], **pipes, **settings)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


# --- every executor


def test_a_result_is_returned_and_stored(start, store, new_job):
    told = []
    job = new_job("square", x=3)
    [outcome] = run(start(report=lambda *message: told.append(message)), job)
    assert (outcome.status, outcome.error, outcome.traceback) == ("finished", None, None)
    assert outcome.result.values == {"square": 9, "pair": [1, 2]}
    assert store.result(job) == outcome.result
    assert told == [(job, {"epoch": 1})]
    machine = outcome.result.machine
    assert machine["python"] == ".".join(map(str, sys.version_info[:3]))
    assert machine.keys() == {"python", "platform", "cpus", "prunas", "torch", "numpy"}


def test_what_is_finished_never_starts_again(start, new_job):
    jobs = [new_job("square", x) for x in range(3)]
    first = run(start(), *jobs)
    second = run(start(), *jobs)
    assert [outcome.status for outcome in first] == ["finished"] * 3
    assert [outcome.status for outcome in second] == ["cached"] * 3
    assert [outcome.result for outcome in first] == [outcome.result for outcome in second]
    assert [begun(job) for job in jobs] == [1, 1, 1]


def test_failures_are_answers_and_harm_no_other_job(start, store, new_job):
    jobs = [new_job(work) for work in ("raises", "bad_input", "leaves", "nowhere", "square")]
    raised, refused, left, unknown, good = run(start(), *jobs)
    assert {o.status for o in (raised, refused, left, unknown)} == {"failed"}
    assert raised.error == "ZeroDivisionError: planted failure"
    assert "light_work.py" in raised.traceback
    assert refused.error == "no such data set; pass --data"
    assert left.error == "SystemExit: 3"
    assert "nowhere" in unknown.error
    assert good.status == "finished"
    assert [begun(job) for job in jobs] == [1, 1, 1, 0, 1]
    record = json.loads((store.folder(jobs[0]) / "failure.json").read_text())
    assert (record["attempts"], record["error"]) == (1, raised.error)
    assert record["traceback"] == raised.traceback
    assert not (store.folder(jobs[0]) / "result.json").exists()


def test_a_failed_job_can_be_tried_again(start, store, new_job):
    job = new_job("raises")
    with start() as running:
        for attempt in (1, 2):
            running.submit(job)
            [outcome] = running.completed()
            assert (outcome.status, begun(job)) == ("failed", attempt)
    assert json.loads((store.folder(job) / "failure.json").read_text())["attempts"] == 2


def test_a_duplicate_is_executed_once_and_answered_twice(start, new_job):
    job, other = new_job("square", x=2), new_job("square", x=5)
    outcomes = run(start(), job, other, job)
    assert sorted(o.status for o in outcomes if o.job == job) == ["cached", "finished"]
    assert {o.result.values["square"] for o in outcomes if o.job == job} == {4}
    assert (begun(job), begun(other)) == (1, 1)


def test_jobs_may_be_submitted_between_outcomes(start, new_job):
    found = []
    with start() as running:
        running.submit(new_job("square", x=0))
        for outcome in running.completed():
            found.append(outcome.result.values["square"])
            if len(found) < 4:
                running.submit(new_job("square", x=len(found)))
    assert found == [0, 1, 4, 9]


def test_a_waiting_job_can_be_cancelled(start, new_job):
    first, second, third = (new_job("square", x) for x in range(3))
    with start() as running:
        for job in (first, second, third):
            running.submit(job)
        running.cancel(second)
        statuses = {outcome.job.spec["x"]: outcome.status for outcome in running.completed()}
    assert statuses == {0: "finished", 1: "cancelled", 2: "finished"}
    assert begun(second) == 0


def test_a_running_job_can_be_cancelled_and_continued(start, new_job):
    patient, other = new_job("patient"), new_job("square")
    with start(report=lambda job, message: running.cancel(patient)) as running:
        running.submit(patient)
        running.submit(other)
        statuses = {outcome.job: outcome.status for outcome in running.completed()}
        assert statuses == {patient: "cancelled", other: "finished"}
        running.submit(patient)
        [outcome] = running.completed()
    assert outcome.result.values == {"square": 9, "continued": "half"}
    assert begun(patient) == 2


def test_stop_preempts_everything_and_the_same_jobs_continue(start, new_job):
    asked = threading.Event()
    jobs = [new_job("square", x=1), new_job("patient"), new_job("square", x=2)]

    def report(job, message):
        if job == jobs[1]:
            asked.set()

    outcomes = run(start(report=report, stop=asked.is_set), *jobs)
    assert [outcome.status for outcome in outcomes] == ["finished", "preempted", "preempted"]
    outcomes = run(start(), *jobs)
    assert [outcome.status for outcome in outcomes] == ["cached", "finished", "finished"]
    assert outcomes[1].result.values["continued"] == "half"
    assert [begun(job) for job in jobs] == [1, 2, 1]


def test_a_damaged_result_is_told_and_trained_again(start, store, notices, new_job):
    job = new_job("square")
    run(start(), job)
    path = store.folder(job) / "result.json"
    path.write_text(path.read_text()[:50])
    [outcome] = run(start(), job)
    assert (outcome.status, begun(job)) == ("finished", 2)
    assert store.result(job).values["square"] == 9
    assert len(notices) == 1
    assert f"{path} is damaged" in notices[0]
    assert len((path.parent / "result.json.damaged-1").read_text()) == 50


def test_a_run_of_another_version_is_bad_input(start, store, new_job):
    job = new_job("square")
    run(start(), job)
    path = store.folder(job) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(
        InputError, match=f"{path.parent} was written in format 2, this prunas reads format 1"
    ):
        run(start(), job)
    assert begun(job) == 1


def test_a_store_that_cannot_be_written_is_bad_input(start, store, new_job):
    job = new_job("square")
    store.root.mkdir()
    (store.root / "space").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"cannot write .*; choose another --out"):
        run(start(), job)
    assert begun(job) == 0


def test_a_killed_driver_loses_only_what_was_running(name, start, store, new_job):
    done, dying = new_job("square"), new_job("killed", deaths=1) if name == "serial" else new_job("patient")
    driver = drive(store, name, done, dying, options=["die"])
    driver.communicate(timeout=30)
    assert driver.returncode == -signal.SIGKILL
    outcomes = run(start(), done, dying)
    assert outcomes[1].status == "finished"
    assert [outcome.result.values["square"] for outcome in outcomes] == [9, 9]
    assert (begun(done), begun(dying)) == (1, 2)


def test_two_identical_drivers_do_each_job_once(name, store, new_job):
    jobs = [new_job("slow", x, seconds=0.1) for x in range(4)]
    drivers = [drive(store, name, *jobs) for _ in range(2)]
    found = [lines(driver.communicate(timeout=30)[0]) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0]
    for job in jobs:
        ends = [line["status"] for out in found for line in out if line["id"] == job.id and "status" in line]
        assert sorted(ends) == ["cached", "finished"]
        assert begun(job) == 1


def test_ctrl_c_stops_workers_and_the_same_command_continues(name, start, store, new_job):
    patient = new_job("patient")
    driver = drive(store, name, patient, start_new_session=True)
    assert json.loads(driver.stdout.readline())["message"] == {"epoch": 1}
    os.killpg(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=30)
    assert (driver.returncode, errors) == (130, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path(patient.spec["starts"]).read_text()), 0)
    assert store.result(patient) is None
    asked = threading.Event()
    [outcome] = run(start(report=lambda *_: asked.set(), stop=asked.is_set), patient)
    assert outcome.status == ("preempted" if name == "serial" else "finished")
    assert begun(patient) == 2


# --- worker processes


@pytest.fixture
def workers(store):
    def make(count=1, **options):
        return executor("processes", store, **{"workers": count} | options)

    return make


def test_a_killed_worker_loses_only_its_own_job(workers, new_job):
    dying, others = new_job("killed", deaths=1), [new_job("square", x) for x in range(3)]
    outcomes = run(workers(2), dying, *others)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4
    assert begun(dying) == 2
    assert [begun(job) for job in others] == [1, 1, 1]


def test_a_job_that_kills_every_worker_is_lost(workers, new_job):
    deadly, good = new_job("killed", deaths=9), new_job("square")
    lost, other = run(workers(retries=2), deadly, good)
    assert (lost.status, lost.result, begun(deadly)) == ("lost", None, 3)
    assert lost.error.startswith("its process died 3 times, the last time of SIGKILL")
    assert other.status == "finished"


def test_a_worker_that_is_told_to_leave_hands_its_job_back(workers, new_job):
    job = new_job("terminated")
    [outcome] = run(workers(retries=0), job)
    assert (outcome.status, begun(job)) == ("finished", 2)
    assert outcome.result.values == {"square": 9, "continued": "half"}


def test_an_idle_worker_that_dies_is_replaced(workers, new_job):
    look = [new_job("environment", x, names=[]) for x in range(2)]
    with workers() as running:
        running.submit(look[0])
        [first] = running.completed()
        os.kill(first.result.values["pid"], signal.SIGKILL)
        running.submit(look[1])
        [second] = running.completed()
    assert second.status == "finished"
    assert second.result.values["pid"] != first.result.values["pid"]


def test_workers_live_on_with_threads_and_an_environment_of_their_own(workers, new_job):
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"]
    jobs = [new_job("environment", x, names=names) for x in range(3)]
    running = workers(threads=2, environments=[{"CUDA_VISIBLE_DEVICES": "5"}])
    assert running.capacity == 1
    seen = [outcome.result.values for outcome in run(running, *jobs)]
    assert len({values.pop("pid") for values in seen} | {os.getpid()}) == 2
    assert seen == [dict(zip(names, ("2", "2", "5"), strict=True))] * 3


def test_workers_are_deaf_to_ctrl_c_from_birth_and_the_driver_is_not(workers, new_job):
    dying, asking = (
        new_job("killed", deaths=1),
        new_job("deaf_to_ctrl_c"),
    )  # the second worker is a replacement
    assert run(workers(), dying, asking)[1].result.values == {"blocked": True}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_nothing_starts_when_everything_is_stored(workers, store, new_job, monkeypatch):
    job = new_job("square")
    execute(job, store)
    monkeypatch.setattr("prunas.runs.processes.ProcessPool", None)
    [outcome] = run(workers(), job)
    assert outcome.status == "cached"


def test_leaving_normally_finishes_what_runs_and_drops_what_waits(workers, store, new_job):
    running_job, waiting_job = new_job("slow", seconds=0.3), new_job("square")
    with workers() as running:
        running.submit(running_job)
        running.submit(waiting_job)
    assert store.result(running_job).values == {"square": 9}
    assert begun(waiting_job) == 0


def test_an_exception_in_the_driver_stops_the_jobs(workers, new_job):
    class Bug(Exception):
        pass

    patient = new_job("patient")

    def report(job, message):
        raise Bug

    with pytest.raises(Bug), workers(report=report) as running:
        running.submit(patient)
        list(running.completed())
    [outcome] = run(workers(), patient)
    assert outcome.result.values["continued"] == "half"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers and threads must be 1 or more"),
        ({"threads": 0}, "workers and threads must be 1 or more"),
        ({"retries": -1}, "retries 0 or more"),
        ({"workers": 2, "environments": [{}]}, "2 workers but slots for 1"),
    ],
)
def test_unusable_numbers_of_workers(store, options, words):
    with pytest.raises(InputError, match=words):
        executor("processes", store, **options)


def test_unknown_executors_and_options(store):
    with pytest.raises(InputError, match=r"unknown executor 'proceses'; did you mean processes"):
        executor("proceses", store)
    with pytest.raises(InputError, match=r"option .*'serial'.* 'workers'; there are: none"):
        executor("serial", store, workers=2)


# --- this process


def test_a_full_disk_at_the_end_is_bad_input_and_the_run_can_be_repeated(store, new_job, monkeypatch):
    job = new_job("square")

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left on device"):
        execute(job, store, progress=lambda message: patch.setattr("os.fsync", full))
    assert store.result(job) is None
    assert [path.name for path in store.folder(job).glob("*result*")] == []
    assert execute(job, store).status == "finished"
    assert begun(job) == 2


@pytest.mark.parametrize(
    ("work", "words"), [("returns_a_number", "int, not a mapping"), ("returns_nan", "JSON")]
)
def test_what_cannot_be_stored_is_a_failure(store, new_job, work, words):
    outcome = execute(new_job(work), store)
    assert outcome.status == "failed"
    assert words in outcome.error


def test_ctrl_c_in_this_process_leaves_a_run_that_can_be_repeated(store, new_job):
    job = new_job("interrupted_once")
    with pytest.raises(KeyboardInterrupt), executor("serial", store) as running:
        running.submit(job)
        list(running.completed())
    [left] = store.runs()
    assert (left.status, left.job) == ("unfinished", job)
    assert {path.name for path in left.folder.iterdir()} == {"job.json", ".lock"}
    [outcome] = run(executor("serial", store), job)
    assert (outcome.status, begun(job)) == ("finished", 2)


def test_who_waits_for_another_process_says_so_once_and_may_stop(store, new_job):
    job, told = new_job("square"), []
    with store.lock(job):
        outcome = execute(job, store, told.append, stop=lambda: bool(told))
    assert (outcome.status, begun(job)) == ("preempted", 0)
    assert told == [{"waiting": "another process has this run"}]


def test_importing_the_room_imports_no_torch():
    code = "import sys, prunas.runs.processes, prunas.runs.serial; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
