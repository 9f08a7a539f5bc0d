"""Lanes: turns in a fixed order, results of trainings as if each were alone, and what happens without memory."""

import os
import signal
import threading
from collections import Counter
from functools import partial

import pytest
import torch

from prunas.cli.options import computing
from prunas.experiments.plan import make_setting
from prunas.proposers.brief import Proposal
from prunas.protocols import PROTOCOLS
from prunas.runs.driver import Driver
from prunas.runs.execute import execute
from prunas.runs.executors import chosen, executor
from prunas.runs.job import Job
from prunas.runs.pools.lanes import Pace, _Lanes
from prunas.runs.pools.processes import _listed
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.works import train as work
from prunas.works.runtime import STEP_CACHE
from tests.runs.light_work import starts

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch reads it once in a process
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run(root, jobs, workers, **options):
    notices = []
    with executor("streams", Store(root, notices.append), workers=workers, **options) as running:
        for job in jobs:
            running.submit(job)
        found = {outcome.job: outcome for outcome in running.completed()}
    return [found[job] for job in jobs], notices


# --- turns


@pytest.fixture
def diary(tmp_path):
    return tmp_path / "diary"


@pytest.fixture
def pacing(diary):
    def make(name, steps):
        return Job("light/paces", {"name": name, "steps": steps, "diary": str(diary)}, "space", name)

    return make


def test_lanes_take_turns_step_by_step_and_one_that_ends_makes_room(tmp_path, diary, pacing):
    jobs = [pacing("a", 2), pacing("b", 5), pacing("c", 4), pacing("d", 3)]
    outcomes, _ = run(tmp_path / "runs", jobs, 3)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4
    # a ends in the third round; d takes its place, behind the others, and is first asked whether to begin at all.
    assert diary.read_text() == "abc" + "abc" + "bc" + "bcd" + "bd" + "d"


def test_one_lane_is_one_after_another(tmp_path, diary, pacing):
    run(tmp_path / "runs", [pacing("a", 3), pacing("b", 2)], None, report=lambda *_: None)
    assert diary.read_text() == "aaabb"


def test_stopped_lanes_save_and_continue(tmp_path, diary, pacing):
    # More steps than a lane can take between two looks of the driver.
    jobs = [pacing("a", 20_000), pacing("b", 30_000)]
    outcomes, _ = run(tmp_path / "runs", jobs, 2, stop=lambda: diary.exists() and diary.stat().st_size > 50)
    assert [outcome.status for outcome in outcomes] == ["preempted"] * 2
    outcomes, _ = run(tmp_path / "runs", jobs, 2)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 2
    assert Counter(diary.read_text()) == {"a": 20_000, "b": 30_000}  # no step twice


def test_ctrl_c_lets_lanes_save_after_their_step(tmp_path, diary, pacing):
    jobs = [pacing("a", 100_000), pacing("b", 100_000)]

    def interrupt():
        if diary.exists() and len(diary.read_text()) > 50:
            signal.raise_signal(signal.SIGINT)
        return False

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", jobs, 2, stop=interrupt)
    taken = Counter(diary.read_text())
    saved = {job.label: int((Store(tmp_path / "runs").folder(job) / "done").read_text()) for job in jobs}
    assert saved == taken
    assert all(0 < steps < 100_000 for steps in saved.values())


def test_threads_live_on_from_job_to_job(tmp_path):
    jobs = [Job("light/thread", {"number": i}, "space", str(i)) for i in range(6)]
    before = threading.active_count()
    outcomes, _ = run(tmp_path / "runs", jobs, 2)
    threads = Counter(outcome.result.values["thread"] for outcome in outcomes)
    assert sorted(threads.values()) == [3, 3]
    assert threading.get_ident() not in threads
    assert threading.active_count() == before  # and no longer than the executor


# --- memory


@pytest.fixture
def hungry(tmp_path):
    def make(name, needs, steps=50):
        spec = {"needs": needs, "steps": steps, "name": name, "starts": str(tmp_path / f"starts-{name}")}
        return Job("light/hungry", spec, "space", name)

    return make


def test_too_little_memory_lowers_the_number_and_goes_on(tmp_path, hungry):
    jobs = [hungry(name, 0.4) for name in "abcd"]
    outcomes, notices = run(tmp_path / "runs", jobs, 3)
    assert [(outcome.status, outcome.losses) for outcome in outcomes] == [("finished", 0)] * 4
    assert [starts(job.spec["starts"]) for job in jobs] == [1, 1, 2, 1]
    assert notices == [f"{jobs[2].name}: too little memory for 3 trainings at once; going on with 2"]
    assert not list(Store(tmp_path / "runs").root.glob("*/*/failure.json"))


def test_only_what_does_not_fit_alone_fails_in_one_line(tmp_path, hungry):
    jobs = [hungry("small", 0.4), hungry("large", 1.4), hungry("other", 0.4)]
    outcomes, notices = run(tmp_path / "runs", jobs, 2)
    assert [outcome.status for outcome in outcomes] == ["finished", "failed", "finished"]
    assert outcomes[1].error == "MemoryError: CUDA out of memory; lower --batch"
    assert starts(jobs[1].spec["starts"]) == 2
    assert len(notices) == 1


def test_in_a_single_process_it_fails_at_once(tmp_path, hungry):
    outcome = execute(hungry("large", 1.4), Store(tmp_path / "runs"))
    assert (outcome.status, outcome.error) == ("failed", "MemoryError: CUDA out of memory; lower --batch")


# --- how many at once


class Device:
    """Lanes on a device that does so many steps a second, by the number of lanes."""

    def __init__(self, rates, share):
        self.now, self.rates, self.pace = 0.0, rates, Pace(None, lambda: self.now)
        if share:
            self.pace.memory(share)

    def run(self, seconds, waiting=99):
        end = self.now + seconds
        while self.now < end:
            lanes = min(self.pace.lanes, waiting)
            self.now += 1 / self.rates[lanes]
            self.pace.step(lanes, warm=True)
        return self.pace.lanes


@pytest.mark.parametrize(
    ("rates", "share", "lanes"),
    [
        ({1: 100, 2: 190, 3: 260, 4: 265, 5: 900}, 0.01, 3),  # the fourth brings 2 %
        ({1: 100, 2: 103}, 0.01, 1),
        ({1: 100, 2: 190, 3: 280, 4: 370}, 0.3, 3),  # a fourth would not fit
        ({1: 100, 2: 190}, 0.6, 1),
        ({1: 100, 2: 190}, None, 1),  # nobody knows what fits
    ],
)
def test_as_many_as_pay_and_fit(rates, share, lanes):
    assert Device(rates, share).run(60) == lanes


def test_rates_are_not_judged_while_lanes_are_idle_cold_or_changing():
    device = Device({1: 100, 2: 190, 3: 100}, 0.1)
    assert device.run(4) == 2
    assert device.run(60, waiting=1) == 2  # one of two lanes has nothing to do
    for _ in range(1000):
        device.now += 1.0
        device.pace.step(2, warm=False)
    assert device.pace.lanes == 2
    for _ in range(1000):
        device.now += 1.0
        device.pace.step(2, warm=True)
        device.pace.restart()
    assert device.pace.lanes == 2
    assert device.run(4) == 3
    assert device.run(60) == 2


@pytest.mark.parametrize(("dips", "lanes"), [(1, 3), (2, 2)])
def test_two_windows_in_a_row_must_be_slow(dips, lanes):
    device = Device({1: 100, 2: 190, 3: 280}, 0.3)
    assert device.run(3.5) == 2
    usual, device.rates[2] = device.rates[2], 50
    device.run(3.5 * dips)
    device.rates[2] = usual
    device.run(60)
    assert device.pace.lanes == (lanes if dips == 1 else 1)


class Noting(Pace):
    """Notes what it is told."""

    def __init__(self):
        super().__init__(None)
        self.told = []

    def memory(self, share):
        self.told.append(share)

    def step(self, lanes, warm):
        self.told.append(warm)

    def restart(self):
        self.told.append("restart")


@pytest.fixture
def noting(tmp_path):
    def tell(*jobs):
        """What a pace is told while jobs run one after another."""
        pool = _Lanes(tmp_path / "runs", pace := Noting())
        for number, spec in enumerate(jobs):
            pool.start(Job("light/tells", {"number": number} | spec, "space", str(number)))
            while not pool.wait(60.0):
                pass
        pool.close()
        return pace.told

    return tell


def test_a_lane_is_warm_once_an_epoch_is_over(noting):
    told = noting({"messages": [{"waiting": 1}, {"epoch": 1}, {"epoch": 2}]})
    # Begins, is asked whether to, takes three steps, ends.
    assert told == ["restart", False, False, True, True, "restart"]


def test_a_capture_restarts_the_window(noting):
    messages = [{"epoch": 1, "captures": 2}, {"epoch": 2, "captures": 2}, {"epoch": 3, "captures": 3}]
    told = noting({"messages": [*messages, {"epoch": 4}]})
    assert told[2:-1] == ["restart", True, True, "restart", True, True]


def test_the_first_training_that_tells_its_memory_is_the_measure(noting):
    dense = {"messages": [{"epoch": 1, "memory": 0.2}, {"epoch": 2, "memory": 0.3}]}
    other = {"messages": [{"epoch": 1, "memory": 0.9}]}
    told = noting({"messages": [], "fails": True}, dense, other)
    assert [share for share in told if type(share) is float] == [0.2, 0.3]


def test_what_was_asked_for_stays_but_for_memory():
    pace = Pace(4)
    pace.memory(0.9)
    assert pace.lanes == 4
    pace.crowded(4)
    assert pace.lanes == 3
    pace.crowded(1)
    assert pace.lanes == 1


# --- trainings


NETWORK = """
from torch import nn


def make(width=6, p=0.3):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(p),
        nn.Conv2d(width, 2 * width, 3, stride=2), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(p), nn.Linear(2 * width, 10),
    )
"""
SPACE = """
network = "net.py:make"
input = [1, 8, 8]
data = "digits"
recipe = "tiny"
keep = [0.4]
"""


@pytest.fixture
def trainings(tmp_path):
    """Four small networks with dropout: three shapes, one of them with two seeds."""
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "own.toml").write_text(SPACE)
    space = load_space(str(tmp_path / "own.toml"))
    setting = make_setting(space, changes={"epochs": 2, "images": 320})
    names = [dimension.name for dimension in space.dimensions]
    points = [space.point(), space.point({names[0]: 3}), space.point({names[0]: 2, names[1]: 7})]
    target = space.target(keep=1.0)
    return [
        setting.final(Proposal(target, points[i]), PROTOCOLS["scratch-e"], seed, None, True).job
        for i, seed in ((0, 0), (1, 0), (1, 1), (2, 2))
    ]


def bits(root, job, outcome):
    """What a training left, but for the clock and how it was carried out."""
    values = {k: v for k, v in outcome.result.values.items() if k in ("score", "losses", "train_scores")}
    folder = Store(root).folder(job)
    return values, (folder / "weights.safetensors").read_bytes()


def alone(root, jobs):
    return [bits(root, job, execute(job, Store(root))) for job in jobs]


def test_trainings_at_once_end_in_the_bits_of_each_alone(tmp_path, trainings, monkeypatch):
    expected = alone(tmp_path / "alone", trainings)
    order = []
    real = work.train

    def noting(*args, stop, **how):
        return real(*args, stop=lambda: order.append(how["seed"]) or stop(), **how)

    monkeypatch.setattr(work, "train", noting)
    before = torch.get_rng_state()
    outcomes, _ = run(tmp_path / "runs", trainings, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert [bits(tmp_path / "runs", j, o) for j, o in zip(trainings, outcomes, strict=True)] == expected
    assert order[:9] == [0, 0, 1] * 3  # they did take turns
    # The first three end in the same round, so the fourth is alone.
    assert [o.result.values["execution"]["at_once"] for o in outcomes] == [3, 3, 3, 1]
    assert len({weights for _, weights in expected}) == 4


@pytest.mark.parametrize("steps", [5, 9, 17])
def test_trainings_at_once_continue_to_the_same_bits(tmp_path, trainings, monkeypatch, steps):
    expected = alone(tmp_path / "alone", trainings)
    monkeypatch.setattr("prunas.runs.pools.lanes.Driver", partial(Driver, poll=0.0))  # looks after every step
    real, taken = work.train, []

    def counting(*args, stop, **how):
        return real(*args, stop=lambda: taken.append(1) or stop(), **how)

    monkeypatch.setattr(work, "train", counting)
    outcomes, _ = run(tmp_path / "runs", trainings, 3, stop=lambda: len(taken) >= steps)
    unfinished = [outcome.status for outcome in outcomes].count("preempted")
    saved = list((tmp_path / "runs").glob("*/*/checkpoint.pt"))
    assert 0 < len(saved) <= min(3, unfinished)
    outcomes, _ = run(tmp_path / "runs", trainings, 2)
    assert [bits(tmp_path / "runs", j, o) for j, o in zip(trainings, outcomes, strict=True)] == expected


def test_too_little_memory_drops_idle_steps_before_anything_else(tmp_path, trainings, monkeypatch):
    real, left = work.train, [2]

    def short(*args, **how):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
        return real(*args, **how)

    monkeypatch.setattr(work, "train", short)
    idle = iter([True, False])
    monkeypatch.setattr(STEP_CACHE, "drop", lambda: next(idle))
    [outcome] = [execute(trainings[0], Store(tmp_path / "runs"))]
    assert outcome.error == ("MemoryError: CUDA out of memory; lower --batch, or take a GPU with more memory")
    assert list(idle) == []
    assert execute(trainings[0], Store(tmp_path / "runs")).status == "finished"


def test_memory_that_only_a_cache_held_is_tried_once_more(tmp_path, trainings, monkeypatch):
    real, left = work.train, [1]

    def short(*args, **how):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
        return real(*args, **how)

    emptied = []
    monkeypatch.setattr(work, "train", short)
    monkeypatch.setattr(STEP_CACHE, "drop", lambda: False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    assert execute(trainings[0], Store(tmp_path / "runs")).status == "finished"
    assert emptied == [1]


# --- what a command line says


def test_a_divided_gpu_is_its_instances():
    plain = "GPU 0: NVIDIA H200 (UUID: GPU-11)\nGPU 1: NVIDIA H200 (UUID: GPU-22)\n"
    assert _listed(plain) == ["0", "1"]
    divided = (
        "GPU 0: NVIDIA H200 (UUID: GPU-11)\n"
        "  MIG 3g.71gb     Device  0: (UUID: MIG-aa)\n"
        "  MIG 3g.71gb     Device  1: (UUID: MIG-bb)\n"
        "GPU 1: NVIDIA H200 (UUID: GPU-22)\n"
    )
    assert _listed(divided) == ["MIG-aa", "MIG-bb", "1"]
    assert _listed("No devices found.\n") == []


@pytest.mark.parametrize(
    ("gpus", "named", "workers", "lanes"),
    [
        ("0", None, None, 1),  # and more when measurements say so
        ("0", None, 3, 3),
        ("0,1", None, None, 1),
        ("0,1", None, 2, None),
        ("", None, None, None),
        ("", "streams", None, 1),
        ("", "streams", 2, 2),
        ("0", "serial", None, None),
    ],
)
def test_a_gpu_gets_streams_unless_told_otherwise(tmp_path, monkeypatch, gpus, named, workers, lanes):
    monkeypatch.delenv("PRUNAS_DEVICE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    name, options = chosen(named, workers, {})
    with executor(name, Store(tmp_path / "runs"), **options) as made:
        pool = getattr(made, "_pool", None)
        assert isinstance(pool, _Lanes) is (lanes is not None)
        assert lanes is None or made.capacity == lanes


def test_switches_reach_trainings_and_are_recorded(tmp_path, trainings, monkeypatch):
    def execution(job):
        return execute(job, Store(tmp_path / "runs")).result.values["execution"]

    plain = execution(trainings[0])
    for name in ("PRUNAS_DETERMINISTIC", "PRUNAS_EAGER"):
        monkeypatch.setenv(name, "0")  # so that what the command sets is undone
    computing(deterministic=True, eager=True)
    try:
        exact = execution(trainings[1])
        assert STEP_CACHE._recorder(torch.device("cuda")) is None
    finally:
        torch.use_deterministic_algorithms(False)
    assert (plain["deterministic"], exact["deterministic"]) == (False, True)
    assert plain["step"] == exact["step"] == "eager"  # a CPU captures nothing
    assert plain["notice"] is None


@pytest.mark.gpu
@GPU
def test_trainings_at_once_on_a_gpu_end_in_the_bits_of_each_alone(tmp_path, trainings, monkeypatch):
    monkeypatch.setenv("PRUNAS_DETERMINISTIC", "1")
    try:
        expected = alone(tmp_path / "alone", trainings)
        outcomes, _ = run(tmp_path / "runs", trainings, 3)
    finally:
        torch.use_deterministic_algorithms(False)
    assert [bits(tmp_path / "runs", j, o) for j, o in zip(trainings, outcomes, strict=True)] == expected
    executions = [outcome.result.values["execution"] for outcome in outcomes]
    assert {(e["step"], e["deterministic"]) for e in executions} == {("captured", True)}


@pytest.mark.gpu
@GPU
def test_streams_settle_on_a_gpu(tmp_path, trainings, monkeypatch):
    monkeypatch.setattr("prunas.runs.pools.lanes.WINDOW", 0.2)
    outcomes, _ = run(tmp_path / "runs", trainings, None)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4
