import pytest
import torch
from torch import nn

from prunas import designs
from prunas.experiments.forecast import forecast
from prunas.experiments.plan import make_plan, make_setting
from prunas.recipe import recipe
from prunas.runs.driver import Driver
from prunas.runs.execute import execute
from prunas.runs.executors import chosen, executor
from prunas.runs.pools.serial import Serial
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.works import processor, runtime
from prunas.works import train as work


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setenv("PRUNAS_DEVICE", "cpu")


def test_cores_are_those_the_process_may_use(monkeypatch, two_cores):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert processor.cores() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")  # OpenMP takes a list, by level of nesting
    assert processor.cores() == 3


def test_small_trainings_get_one_thread_each_and_run_side_by_side(monkeypatch, two_cores):
    assert (processor.threads(400_000_000), processor.threads(600_000_000)) == (1, 2)
    assert processor.workers(400_000_000, 100_000) == 2
    assert processor.workers(600_000_000, 100_000) == 1  # it uses both cores by itself
    assert processor.workers(400_000_000, 1000) == 1  # over before a second process has started
    assert processor.workers(400_000_000, 0) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "8")  # more than there are
    assert processor.workers(400_000_000, 100_000) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert processor.workers(400_000_000, 100_000) == 1


def test_the_default_search_uses_both_cores_and_a_short_one_does_not(two_cores):
    setting = make_setting(load_space("vgg11-digits"))
    plan = make_plan(setting, ["slimming"])
    assert forecast(plan).workers(plan) == 2
    assert forecast(plan).epochs == 54 * 15
    plan = make_plan(setting, ["slimming"], seeds=1, keep=[0.02], dense=False, controls=False)
    assert forecast(plan).workers(plan) == 1


def test_worker_processes_are_what_a_cpu_gets_where_nothing_else_was_said(tmp_path, two_cores, monkeypatch):
    def made(name=None, workers=None, settings=(), side_by_side=2):
        named, options = chosen(name, workers, dict(settings), side_by_side)
        with executor(named, Store(tmp_path), **options) as made:
            return type(made), made.capacity

    assert made() == (Driver, 2)
    assert made(side_by_side=1) == (Serial, 1)
    assert made("serial") == (Serial, 1)
    assert made(workers=1) == (Driver, 1)
    monkeypatch.setenv("PRUNAS_DEVICE", "mps")  # one device, which they would have to share
    assert made() == (Serial, 1)


def grouped():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def test_onednn_is_for_large_convolutions_and_all_but_the_plain_ones():
    space, digits = load_space("vgg11-digits"), recipe("digits")
    small = designs.uniform(space, space.target(keep=0.01))
    assert processor.onednn_pays(space, space.dense, digits)
    assert not processor.onednn_pays(space, small, digits)
    assert processor.onednn_pays(space, small, digits.replace(batch=512))
    assert processor.onednn_pays(space, small, digits.replace(precision="bf16"))
    assert processor.onednn_pays(space, small, digits.replace(channels_last=True))
    other = SearchSpace.from_model(grouped, (1, 8, 8), name="grouped")
    assert processor.onednn_pays(other, other.dense, digits)


def test_the_choice_of_kernels_ends_with_the_training():
    before = torch.backends.mkldnn.enabled
    with processor.convolutions(False):
        assert not torch.backends.mkldnn.enabled
        with processor.convolutions(True):  # where somebody has switched it off, it stays off
            assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled is before
    with pytest.raises(RuntimeError), processor.convolutions(False):
        raise RuntimeError
    assert torch.backends.mkldnn.enabled is before


def test_a_training_that_waits_for_another_keeps_its_kernels():
    def other() -> bool:
        torch.backends.mkldnn.enabled = True
        return False

    with runtime.side_by_side(torch.device("cpu"), other) as (_, stop), processor.convolutions(False):
        assert not stop()
        assert not torch.backends.mkldnn.enabled


def test_a_neighbour_does_not_inherit_the_kernels_of_a_training():
    usual, seen = torch.backends.mkldnn.enabled, []

    def neighbour():
        seen.append(torch.backends.mkldnn.enabled)
        return False

    with runtime.side_by_side(torch.device("cpu"), neighbour) as (_, stepped), processor.convolutions(False):
        assert not stepped()
        assert not torch.backends.mkldnn.enabled
    assert seen == [usual]
    assert torch.backends.mkldnn.enabled is usual


def test_a_result_says_which_kernels_it_was_computed_with(tmp_path, monkeypatch):
    space = load_space("vgg11-digits")
    setting = make_setting(space, changes={"epochs": 1, "images": 64})
    plan = make_plan(setting, ["uniform"], keep=[0.01], seeds=1, dense=False)
    (target,) = plan.targets
    used = []
    real = work.train

    def noting(*args, **how):
        used.append(torch.backends.mkldnn.enabled)
        return real(*args, **how)

    monkeypatch.setattr(work, "train", noting)
    for arch in (space.dense, designs.uniform(space, target)):
        job = setting.candidate(arch, 0).job
        result = execute(job, Store(tmp_path)).result
        assert result is not None
        assert result.values["execution"]["onednn"] is used[-1]
    assert used == [torch.backends.mkldnn.is_available(), False]
