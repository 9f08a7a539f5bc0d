"""Captured steps: the same numbers, one capture per architecture, and what happens where there can be none."""

import itertools
import os
from functools import partial

import pytest
import torch
from torch import nn

from prunas.errors import InputError
from prunas.proposers.pruning.slimming import ScalePenalty
from prunas.proposers.pruning.sss import BranchScales
from prunas.training.capture import StepCache, eager
from prunas.training.distillation import Teacher
from prunas.training.loop import Preempted
from prunas.training.phases import DenseSparseDense
from tests.training.tape import TapeRecorder
from tests.training.test_loop import RECIPE, Pull, Reads, counted, logged, network, resumable, run, same

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch reads it once in a process
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def recorders():
    return []


@pytest.fixture
def benches(recorders):
    """As on a GPU, with one tape recorder for each bench."""

    def recorder(device):
        recorders.append(TapeRecorder())
        return recorders[-1]

    return StepCache(recorder)


def result(trained):
    """What may not depend on how steps were taken."""
    return {name: value for name, value in counted(trained).items() if name != "execution"}


MASKS = {"3.weight": torch.arange(180).view(4, 5, 3, 3) % 2}
ADAMW = RECIPE.replace(optimizer="adamw", lr=0.01, weight_decay=0.1)
CASES = {
    "plain": {},
    "dropout": {"dropout": 0.5},
    "nesterov": {"recipe": RECIPE.replace(nesterov=True, schedule="one-cycle")},
    "masks": {"masks": MASKS},
    "bf16": {"recipe": RECIPE.replace(precision="bf16", channels_last=True)},
    "dsd": {"phases": partial(DenseSparseDense, 0.3), "masks": MASKS, "epochs": 6},
    "slimming": {"regulariser": partial(ScalePenalty, 0.01)},
    "sss": {"regulariser": partial(BranchScales, 0.01, 0.9, ["3"]), "dropout": 0.2},
    "unfused": {"recipe": RECIPE.replace(fused=False)},
    "adamw": {"recipe": ADAMW.replace(schedule="linear"), "dropout": 0.2, "masks": MASKS},
    "adamw-unfused": {"recipe": ADAMW.replace(fused=False)},
    "adamw-dsd": {"recipe": ADAMW, "phases": partial(DenseSparseDense, 0.3), "masks": MASKS, "epochs": 6},
    "smoothed": {"recipe": RECIPE.replace(label_smoothing=0.1)},
    "taught": {"recipe": RECIPE.replace(label_smoothing=0.1), "teacher": Teacher(network(5), 2.0, 0.5)},
    "taught-bf16": {"recipe": RECIPE.replace(precision="bf16"), "teacher": Teacher(network(5), 4.0, 0.9)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_replayed_step_gives_the_bits_of_an_eager_one(benches, recorders, case):
    case = dict(case)
    dropout, regulariser = case.pop("dropout", 0.0), case.pop("regulariser", lambda: None)
    phases = case.pop("phases", lambda: None)
    nets, trained = [], []
    for how in ({}, {"prepare": partial(benches.bench, "network")}):
        nets.append(network(dropout=dropout))
        hooks = {"regulariser": regulariser(), "phases": phases()}
        trained.append(run(nets[-1], score="val", every_epoch=True, **hooks, **case, **how))
    assert same(*nets)
    assert result(trained[0]) == result(trained[1])
    assert [t.execution["step"] for t in trained] == ["eager", "captured"]
    steps = 6 * case.get("epochs", 3)
    # One capture for full batches, one for the last of an epoch.
    assert recorders[0].counts == {"warm-ups": 4, "captures": 2, "replays": steps}


def test_all_seeds_share_the_capture_of_an_architecture(benches, recorders):
    mask = [{"3.weight": (MASKS["3.weight"] + i) % 2} for i in range(2)]
    jobs = [
        {"seed": 1},
        {"seed": 2, "epochs": 2},
        {"seed": 3, "recipe": RECIPE.replace(lr=0.01, schedule="constant")},
        {"seed": 4, "masks": mask[0]},
        {"seed": 5, "masks": mask[1]},
    ]
    for job in jobs:
        alone, shared = network(seed=job["seed"], dropout=0.5), network(seed=job["seed"], dropout=0.5)
        expected = run(alone, score="test", **job)
        found = run(shared, score="test", prepare=partial(benches.bench, "network"), **job)
        assert same(alone, shared)
        assert result(found) == result(expected)
    # Without a mask and with one are two different steps; the masks themselves are not.
    assert [recorder.counts["captures"] for recorder in recorders] == [2, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": RECIPE.replace(weight_decay=0.1)},
        {"recipe": RECIPE.replace(optimizer="adamw")},
        {"recipe": RECIPE.replace(label_smoothing=0.1)},
        {"recipe": RECIPE.replace(precision="bf16")},
        {"recipe": RECIPE.replace(augment=False)},
        {"shape": "another"},
    ],
    ids=["decay", "optimiser", "smoothing", "precision", "augmentation", "architecture"],
)
def test_what_kernels_depend_on_is_not_shared(benches, recorders, other):
    run(network(), prepare=partial(benches.bench, "network"))
    shape = {"shape": "network"} | other
    run(network(), prepare=partial(benches.bench, shape.pop("shape")), **shape)
    assert len(recorders) == 2


def test_a_step_in_use_is_not_lent_twice(benches, recorders):
    nets, inner = [network(seed=1), network(seed=2)], []

    def meanwhile():
        if not inner:
            inner.append(run(nets[1], seed=2, prepare=partial(benches.bench, "network")))
        return False

    run(nets[0], stop=meanwhile, prepare=partial(benches.bench, "network"))
    for seed, net in enumerate(nets, 1):
        run(alone := network(seed=seed), seed=seed)
        assert same(alone, net)
    assert len(recorders) == 2


def test_regularised_and_broken_trainings_leave_nothing_to_share(benches, recorders):
    prepare = partial(benches.bench, "network")
    run(network(), regulariser=Pull(), prepare=prepare)
    stops = iter([False, True])
    with pytest.raises(Preempted):
        run(network(), stop=lambda: next(stops), prepare=prepare)
    assert not benches.drop()
    run(network(), prepare=prepare)
    assert benches.drop()
    assert not benches.drop()
    assert len(recorders) == 3


def test_idle_steps_are_bounded_and_the_oldest_goes_first(benches, recorders, monkeypatch):
    monkeypatch.setattr("prunas.training.capture.IDLE", 2)
    for shape in ("a", "b", "c", "b", "a"):
        run(network(), epochs=1, prepare=partial(benches.bench, shape))
    assert len(recorders) == 4  # b was still there, a was not


def test_the_oldest_idle_steps_make_room_when_memory_is_short(benches, recorders, monkeypatch):
    for shape in ("a", "b", "c"):
        run(network(), epochs=1, prepare=partial(benches.bench, shape))
    free = iter([10, 20, 30])  # of 100, after each that went
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free), 100))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    benches._make_room(torch.device("cuda"))
    run(network(), epochs=1, prepare=partial(benches.bench, "c"))
    assert len(recorders) == 3
    run(network(), epochs=1, prepare=partial(benches.bench, "b"))
    assert len(recorders) == 4


class Stubborn(nn.Module):
    """Reads a value back in every forward pass, as some networks do."""

    def forward(self, x):
        return x * (2.0 if x.sum().item() > -1e9 else 1.0)


def test_a_step_that_cannot_be_captured_runs_eagerly_with_the_same_numbers(tmp_path, benches, recorders):
    nets = [network(dropout=0.5).append(Stubborn()) for _ in range(2)]
    expected = run(nets[0])
    found = run(nets[1], folder=tmp_path, prepare=partial(benches.bench, "stubborn"))
    assert same(*nets)
    assert result(found) == result(expected)
    assert found.execution["step"] == "eager"
    assert found.execution["notice"].endswith("called a synchronizing CUDA operation")
    notes = [line for line in logged(tmp_path) if "warning" in line]
    assert notes == [{"warning": found.execution["notice"]}]
    assert recorders[0].counts == {"warm-ups": 2}  # what waits never gets as far as a capture
    assert not benches.drop()


def test_algorithms_are_searched_for_full_batches_only(benches, recorders, monkeypatch):
    asked = set()

    class Asks(nn.Module):
        def forward(self, x):
            asked.add((self.training, len(x), torch.backends.cudnn.benchmark))
            return x

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    for prepare in (eager, partial(benches.bench, "asks")):
        asked.clear()
        run(network().append(Asks()), score="val", prepare=prepare)
        # 44 images in batches of 8; 8 more to score.
        assert asked == {(True, 8, True), (True, 4, False), (False, 8, False)}
    assert torch.backends.cudnn.benchmark


class Irreproducible(torch.autograd.Function):
    """Forward like the identity, backward like a CUDA kernel that has no deterministic form."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
        )


class Pool(nn.Module):
    def forward(self, x):
        return Irreproducible.apply(x)


class Unpool(nn.Module):
    """torch has no deterministic form of this one on any device."""

    def __init__(self):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x):
        return self.unpool(*self.pool(x))


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (Pool, "adaptive_avg_pool2d_backward_cuda (layer '3') gives other bits"),
        (Unpool, "max_unpooling2d_forward_out (layer '3.unpool') gives other bits"),
    ],
)
def test_what_cannot_be_deterministic_is_named(benches, layer, line, captured):
    net = network().insert(3, layer())
    prepare = partial(benches.bench, "network") if captured else eager
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(InputError) as raised:
            run(net, prepare=prepare)
    finally:
        torch.use_deterministic_algorithms(False)
    assert str(raised.value).startswith(line)
    assert "--deterministic" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_errors_of_a_step_stay_what_they_are(benches):
    net = network().insert(3, nn.Conv2d(7, 5, 1))
    with pytest.raises(RuntimeError, match="expected input"):
        run(net, prepare=partial(benches.bench, "network"))


def test_attempts_to_capture_are_counted(benches):
    for shape, captures in (("a", 2), ("b", 4), ("a", 4)):
        run(network(), prepare=partial(benches.bench, shape))
        assert benches.captures == captures


def test_too_little_memory_is_not_mistaken_for_a_failed_capture(benches, recorders, monkeypatch):
    def record(self, work):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TapeRecorder, "record", record)
    with pytest.raises(torch.OutOfMemoryError):
        run(network(), prepare=partial(benches.bench, "network"))


@pytest.mark.parametrize("at", [1, 6, 8])
def test_a_captured_training_continues_to_the_bits_of_an_eager_one(tmp_path, benches, at):
    asked = itertools.count(1)
    prepare = partial(benches.bench, "network")
    with pytest.raises(Preempted):
        resumable(tmp_path, network(dropout=0.5), stop=lambda: next(asked) == at, prepare=prepare)
    net, alone = network(seed=9, dropout=0.5), network(dropout=0.5)
    found = resumable(tmp_path, net, prepare=prepare)
    (tmp_path / "alone").mkdir()
    assert result(found) == result(resumable(tmp_path / "alone", alone))
    assert same(net, alone)


def test_nothing_is_read_back_inside_an_epoch_and_few_operators_make_a_step(benches, recorders):
    with Reads() as reads:
        run(network(), epochs=4, masks=MASKS, prepare=partial(benches.bench, "network"))
    assert reads.seen[torch.ops.aten._local_scalar_dense] == 0
    for step in recorders[0].operators:
        assert step["aten.convolution"] == 2
        assert step["aten.convolution_backward"] == 2
        assert step["aten._fused_sgd_"] == 1
        assert step["aten._foreach_mul_"] == 1  # the mask, once for all weights
        assert step["aten.index"] == 2  # images and labels, each in one go
        assert step["aten._local_scalar_dense"] == 0
        # Views cost nothing; the tape keeps gradients alive, which therefore are copied once more than usual.
        free = {"detach", "view", "t", "unbind", "empty", "new_empty_strided", "copy_"}
        assert sum(n for name, n in step.items() if name.removeprefix("aten.") not in free) <= 44


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_cuda_graph_gives_the_bits_of_eager_steps(case):
    case, cuda, shared = dict(case), torch.device("cuda"), StepCache()
    dropout, regulariser = case.pop("dropout", 0.0), case.pop("regulariser", lambda: None)
    phases = case.pop("phases", lambda: None)
    torch.use_deterministic_algorithms(True)
    try:
        nets, trained = [], []
        for how in ({}, *[{"prepare": partial(shared.bench, "network")}] * 2):
            nets.append(network(dropout=dropout))
            hooks = {"regulariser": regulariser(), "phases": phases()}
            trained.append(run(nets[-1], device=cuda, score="val", **hooks, **case, **how))
    finally:
        torch.use_deterministic_algorithms(False)
    assert [t.execution["step"] for t in trained] == ["eager", "captured", "captured"]
    assert same(nets[0], nets[1])
    assert same(nets[0], nets[2])  # a capture that was taken up again, unless there is a regulariser
    assert result(trained[0]) == result(trained[1]) == result(trained[2])


@pytest.mark.gpu
@GPU
def test_a_network_that_reads_back_falls_back_on_cuda():
    nets = [network(dropout=0.5).append(Stubborn()) for _ in range(2)]
    run(nets[0], device=torch.device("cuda"))
    found = run(nets[1], device=torch.device("cuda"), prepare=partial(StepCache().bench, "stubborn"))
    assert found.execution["step"] == "eager"
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(nets[1].state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@GPU
def test_preempted_and_resumed_on_cuda_with_dropout(tmp_path):
    asked = itertools.count(1)
    prepare = partial(StepCache().bench, "network")
    cuda = {"device": torch.device("cuda"), "prepare": prepare}
    with pytest.raises(Preempted):
        resumable(tmp_path, network(dropout=0.5), stop=lambda: next(asked) == 8, **cuda)
    net, alone = network(seed=9, dropout=0.5), network(dropout=0.5)
    resumable(tmp_path, net, **cuda)
    (tmp_path / "alone").mkdir()
    resumable(tmp_path / "alone", alone, **cuda)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-4, atol=1e-5)
