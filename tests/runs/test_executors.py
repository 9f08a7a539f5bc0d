"""The contract of every executor, and what only worker processes promise."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from prunas.errors import InputError
from prunas.runs.execute import execute
from prunas.runs.executors import EXECUTORS, executor
from prunas.runs.job import Job
from prunas.runs.store import Store
from tests.runs.light_work import starts

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
        return Job(f"light/{work.replace('_', '-')}", spec, "space", "dense")

    return make


def begun(job):
    return starts(job.spec["starts"])


def attempts(store, job):
    """How often the run's own record says that it was begun."""
    return len((store.folder(job) / "attempts.jsonl").read_text().splitlines())


def no_waiting():
    raise AssertionError("another process holds this run")


@pytest.fixture(scope="session", autouse=True)
def _light_works_everywhere():
    """Workers find `light_work`, those of a ray node that joins later too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield


@pytest.fixture(scope="session")
def cluster():
    """A ray cluster of one machine with two places, and this process's connection to it."""
    ray, utils = pytest.importorskip("ray"), pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what ray says about itself
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray starts workers at niceness 15: on a busy machine they would come late, and look as if they hung.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # others' memory must not cost us workers
        head = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}
        quick = {"health_check_period_ms": 1000}  # a lost machine is noticed after five of these
        here = utils.Cluster(initialize_head=True, head_node_args=head | {"_system_config": quick})
        ray.init(address=here.address, log_to_driver=False, logging_level="ERROR")
        yield here
        ray.shutdown()
        here.shutdown()


@pytest.fixture(params=sorted(EXECUTORS))
def name(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    if request.param == "slurm":
        pytest.importorskip("submitit")
    return request.param


@pytest.fixture
def options(name, request):
    """One worker each."""
    if name == "ray":
        return {"workers": 1, "address": request.getfixturevalue("cluster").address}
    one = {"workers": 1}
    return {"serial": {}, "streams": one, "processes": one, "slurm": one | {"cluster": "local"}}[name]


@pytest.fixture
def start(name, store, options):
    def make(**more):
        return executor(name, store, **options | more)

    return make


def run(running, *jobs):
    """Outcomes in the order of the jobs."""
    with running:
        for job in jobs:
            running.submit(job)
        found = list(running.completed())
    assert len(found) == len(jobs)
    return sorted(found, key=lambda outcome: jobs.index(outcome.job))


def drive(store, name, options, *jobs, die=(), **settings):
    arguments = [
        str(store.root),
        name,
        json.dumps(options),
        json.dumps([job.to_json() for job in jobs]),
        *die,
    ]
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


def test_what_this_executor_has_finished_is_cached(start, new_job):
    job = new_job("square")
    with start() as running:
        for status in ("finished", "cached"):
            running.submit(job)
            [outcome] = running.completed()
            assert (outcome.status, begun(job)) == (status, 1)


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
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    with pytest.raises(
        InputError, match=f"{path.parent} was written in format 1, this prunas reads format 2"
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


def test_a_killed_driver_loses_only_what_was_running(name, start, store, options, new_job):
    done = new_job("square")
    dying = {
        "serial": new_job("killed", deaths=1),
        "streams": new_job("killed", deaths=1),
        "slurm": new_job("slow", seconds=1.0),  # lives on without its driver
    }.get(name, new_job("abandoned"))
    driver = drive(store, name, options, done, dying, die=["die"])
    driver.communicate(timeout=120)
    assert driver.returncode == -signal.SIGKILL
    outcomes = run(start(), done, dying)
    assert [outcome.status for outcome in outcomes] == ["cached", "cached" if name == "slurm" else "finished"]
    assert [outcome.result.values["square"] for outcome in outcomes] == [9, 9]
    assert (begun(done), begun(dying)) == (1, 1 if name == "slurm" else 2)
    assert [attempts(store, job) for job in (done, dying)] == [begun(done), begun(dying)]


# --- every executor that has workers


@pytest.fixture
def crew(name, start):
    """Makes executors whose workers may die."""
    if name in ("serial", "streams"):
        pytest.skip("dies with its workers")
    return start


def test_a_killed_worker_loses_only_its_own_job(crew, store, notices, new_job):
    dying, other = new_job("killed", deaths=1), new_job("square")
    outcomes = run(crew(), dying, other)
    assert [(outcome.status, outcome.losses) for outcome in outcomes] == [("finished", 1), ("finished", 0)]
    assert (
        [begun(job) for job in (dying, other)] == [attempts(store, job) for job in (dying, other)] == [2, 1]
    )
    [notice] = notices
    assert notice.startswith(f"{dying.name}: its worker ended ")
    assert "; retry 1 of " in notice


def test_a_job_that_kills_every_worker_is_lost(crew, store, new_job):
    deadly, good = new_job("killed", deaths=9), new_job("square")
    lost, other = run(crew(retries=1), deadly, good)
    assert (lost.status, lost.result, lost.losses, begun(deadly)) == ("lost", None, 2, 2)
    assert lost.error.startswith("its worker was lost 2 times, the last time ")
    assert other.status == "finished"
    [error] = [found.error for found in store.runs() if found.job == deadly]
    assert error == lost.error


def test_a_worker_that_leaves_without_a_word_is_noticed(crew, new_job):
    job = new_job("exits")
    [outcome] = run(crew(), job)
    assert (outcome.status, outcome.losses, begun(job)) == ("finished", 1, 2)


def test_a_worker_that_hangs_is_killed_and_one_that_is_busy_is_not(crew, notices, new_job):
    hung, busy = new_job("hangs"), new_job("busy", seconds=1.5)
    outcomes = run(crew(timeout=1.0), hung, busy)
    assert [(outcome.status, outcome.losses) for outcome in outcomes] == [("finished", 1), ("finished", 0)]
    assert (begun(hung), begun(busy)) == (2, 1)
    assert [notice.split("ended ")[1] for notice in notices] == [
        "after 1 s without a sign of life; retry 1 of " + notices[0].split()[-1]
    ]


def test_a_worker_that_is_told_to_leave_hands_its_job_back(crew, new_job):
    job = new_job("terminated")
    [outcome] = run(crew(retries=0), job)
    assert (outcome.status, outcome.losses, begun(job)) == ("finished", 0, 2)
    assert outcome.result.values == {"square": 9, "continued": "half"}


# --- worker processes


@pytest.fixture
def workers(store):
    def make(count=1, **options):
        return executor("processes", store, **{"workers": count} | options)

    return make


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


def test_workers_live_on_with_threads_and_a_gpu_of_their_own(workers, new_job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"]
    jobs = [new_job("environment", x, names=names) for x in range(3)]
    running = workers(threads=2)
    assert running.capacity == 1
    seen = [outcome.result.values for outcome in run(running, *jobs)]
    assert len({values.pop("pid") for values in seen} | {os.getpid()}) == 2
    assert seen == [dict(zip(names, ("2", "2", "5"), strict=True))] * 3


@pytest.mark.parametrize(
    ("devices", "options", "places"),
    [
        ("0,3", {}, 2),
        ("0,3", {"per_gpu": 3}, 6),
        ("0,3", {"per_gpu": 3, "workers": 4}, 4),
        ("", {"threads": 2}, 3),
    ],
)
def test_as_many_workers_as_places(store, monkeypatch, devices, options, places):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    with executor("processes", store, **options) as running:
        assert running.capacity == places


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
    monkeypatch.setattr("prunas.runs.pools.processes.get_context", None)
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
    ("name", "options", "words"),
    [
        ("processes", {"workers": 0}, "workers must be a whole number from 1, not 0"),
        ("processes", {"threads": "two"}, "threads must be a whole number from 1, not 'two'"),
        ("processes", {"retries": -1}, "retries must be a whole number from 0, not -1"),
        ("processes", {"timeout": 0}, "timeout must be a number above 0, not 0"),
        ("processes", {"workers": 5}, "5 workers, but 4 cores with threads=1 give 4; lower workers"),
        ("processes", {"workers": 3, "threads": 2}, "3 workers, but 4 cores with threads=2 give 2; lower"),
        ("ray", {"gpus": -1}, "gpus must be a number above 0, not -1"),
        ("ray", {"address": "somewhere"}, "address must read HOST:PORT or auto, not 'somewhere'"),
        ("ray", {"address": "127.0.0.1:1"}, "no cluster answers at '127.0.0.1:1'; start one with ray start"),
        ("slurm", {"cluster": "big"}, "cluster must be slurm or local, not 'big'"),
        ("slurm", {"minutes": 1.5}, "minutes must be a whole number from 1, not 1.5"),
        ("slurm", {}, "there is no sbatch here; run this on a login node"),
    ],
)
def test_unusable_options(store, monkeypatch, name, options, words):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("prunas.runs.pools.ray_cluster._connected", lambda ray: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=f"executor '{name}': .*{words}"):
        executor(name, store, **options)


@pytest.mark.parametrize(
    ("name", "missing", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")]
)
def test_a_missing_package_is_named_with_what_installs_it(store, monkeypatch, name, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    words = rf"executor '{name}' needs the package {missing}; pip install 'prunas\[{extra}\]'"
    with pytest.raises(InputError, match=words):
        executor(name, store)


def test_unknown_executors_and_options(store):
    with pytest.raises(InputError, match=r"unknown executor 'proceses'; did you mean processes"):
        executor("proceses", store)
    with pytest.raises(InputError, match=r"option .*'serial'.* 'workers'; there are: none"):
        executor("serial", store, workers=2)


# --- ray


def test_more_workers_than_a_ray_cluster_holds(cluster, store):
    with pytest.raises(
        InputError, match="the cluster has room for 2 workers of 1 CPUs and 0 GPUs, not for 3"
    ):
        executor("ray", store, workers=3)
    with pytest.raises(InputError, match=r"room for 1 workers of 1 CPUs and 0\.75 GPUs, not for 2"):
        executor("ray", store, workers=2, gpus=0.75)
    with pytest.raises(InputError, match="room for 0 workers of 4 CPUs and 0 GPUs, not for one worker"):
        executor("ray", store, cpus=4)


def test_two_workers_share_a_gpu(cluster, store, new_job):
    jobs = [new_job("environment", x, names=["CUDA_VISIBLE_DEVICES"]) for x in range(2)]
    with executor("ray", store, gpus=0.5) as running:
        assert running.capacity == 2
        for job in jobs:
            running.submit(job)
        seen = [outcome.result.values for outcome in running.completed()]
    assert [values["CUDA_VISIBLE_DEVICES"] for values in seen] == ["0", "0"]
    assert len({values["pid"] for values in seen}) == 2


def test_what_a_lost_machine_was_doing_starts_again_elsewhere(cluster, tmp_path, new_job):
    go, under_way, notices = tmp_path / "go", [], []

    def notice(text):
        notices.append(text)
        go.touch()

    def report(job, message):
        under_way.append(job)
        if len(under_way) == 3:
            assert [begun(job) for job in jobs] == [1, 1, 1]
            cluster.remove_node(extra, allow_graceful=False)

    extra = cluster.add_node(num_cpus=1, object_store_memory=80_000_000, wait=True)
    jobs = [new_job("awaits", x, file=str(go)) for x in range(3)]
    with executor("ray", Store(tmp_path / "runs", notice), report) as running:
        assert running.capacity == 3
        for job in jobs:
            running.submit(job)
        outcomes = list(running.completed())
    assert [outcome.status for outcome in outcomes] == ["finished"] * 3
    # All places were taken, so one of the three was on the machine that is gone; only that one began again.
    assert sorted(begun(job) for job in jobs) == [1, 1, 2]
    assert sorted(outcome.losses for outcome in outcomes) == [0, 0, 1]
    assert len(notices) == 1


# --- this machine

HERE = pytest.mark.parametrize("name", ["serial", "processes"], indirect=True)


@HERE
def test_two_identical_drivers_do_each_job_once(name, store, options, new_job):
    jobs = [new_job("slow", x, seconds=0.1) for x in range(2)]
    drivers = [drive(store, name, options, *jobs) for _ in range(2)]
    found = [lines(driver.communicate(timeout=60)[0]) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0]
    for job in jobs:
        ends = [line["status"] for out in found for line in out if line["id"] == job.id and "status" in line]
        assert sorted(ends) == ["cached", "finished"]
        assert begun(job) == 1


@HERE
def test_ctrl_c_stops_workers_and_the_same_command_continues(name, start, store, options, new_job):
    patient = new_job("patient")
    driver = drive(store, name, options, patient, start_new_session=True)
    assert json.loads(driver.stdout.readline())["message"] == {"epoch": 1}
    os.killpg(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=30)
    assert (driver.returncode, errors) == (130, "")
    with store.lock(patient, no_waiting):  # nobody is at it any more
        assert store.result(patient) is None
    asked = threading.Event()
    [outcome] = run(start(report=lambda *_: asked.set(), stop=asked.is_set), patient)
    assert outcome.status == ("preempted" if name == "serial" else "finished")
    assert begun(patient) == 2


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
    assert {path.name for path in left.folder.iterdir()} == {"job.json", "attempts.jsonl", ".lock"}
    [outcome] = run(executor("serial", store), job)
    assert (outcome.status, begun(job)) == ("finished", 2)


def test_who_waits_for_another_process_says_so_once_and_may_stop(store, new_job):
    job, told = new_job("square"), []
    with store.lock(job):
        outcome = execute(job, store, told.append, stop=lambda: bool(told))
    assert (outcome.status, begun(job)) == ("preempted", 0)
    assert told == [{"waiting": "another process has this run"}]


def test_importing_the_room_imports_no_torch():
    code = "import sys, prunas.runs.pools.processes, prunas.runs.pools.serial; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
