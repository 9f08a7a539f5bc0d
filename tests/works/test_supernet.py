"""A slice of a super-network is the small network, cut out or masked; and its training continues after a kill."""

import random
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunas.data import load
from prunas.experiments.plan import make_setting
from prunas.proposers.evaluators import evaluator
from prunas.proposers.supernet.quanta import quanta_point, quantised
from prunas.recipe import recipe
from prunas.runs.execute import execute
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.surgery.weights import inherit
from prunas.tasks.classification import Classification
from prunas.training.capture import StepCache
from prunas.training.loop import Preempted, train
from prunas.works.supernet import Masks, Slices, maskable, sandwich
from tests.surgery.bundled import FACTORIES, SMALL, surveyed
from tests.surgery.test_mask_equivalence import randomise
from tests.training.tape import TapeRecorder

CPU = torch.device("cpu")
TOLERANCE = 1e-9


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@cache
def everything(name: str, gates: bool = True) -> SearchSpace:
    """A space over a bundled network in which all varies that can."""
    survey = surveyed(name)
    return SearchSpace(
        name, survey, FACTORIES[name],
        gates=("*",) if gates and survey.gates else (), blocks=("*",) if survey.blocks else (),
    )  # fmt: skip


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = FACTORIES[name]()
    randomise(net)
    return net


def draw_of(space: SearchSpace, seed: str) -> tuple[Tensor, Tensor]:
    """Random widths, and about two thirds of the blocks."""
    chance = random.Random(seed)
    counts = [chance.choice(widths) for widths in quantised(space, 8).tolist()]
    there = [chance.random() < 0.67 for _ in space.removable]
    return torch.tensor(counts, dtype=torch.int64), torch.tensor(there, dtype=torch.bool)


def passed(run, net: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs, and the gradients of all parameters of some function of them."""
    net.zero_grad()
    output = run(images)
    (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    return output.detach(), {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def assert_close(actual: Tensor, expected: Tensor, scale: float, what: str) -> None:
    assert float((actual - expected).abs().max()) <= TOLERANCE * max(scale, 1.0), what


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_a_slice_equals_the_small_network_with_its_weights(name: str, training: bool) -> None:
    """Against a network that is built and loaded: outputs, and gradients of the super-network's own weights."""
    space, net = everything(name), network(name).train(training)
    slices = Slices(space, net)
    arch = slices.point(draw_of(space, name))
    assert arch.widths or arch.selected
    kept = {group: range(width) for group, width in arch.widths}
    before = {n: b.clone() for n, b in net.named_buffers()}
    small = space.build(arch, net.state_dict(), kept).train(training)
    images = torch.randn(3, *SMALL[name], generator=torch.Generator().manual_seed(1))
    output, gradients = passed(slices.at(arch), net, images)
    expected, of_small = passed(small, small, images)
    assert_close(output, expected, float(expected.abs().max()), "output")
    scale = max(float(g.abs().max()) for g in of_small.values())
    cut = inherit(
        space.survey,
        arch,
        {n: gradients.get(n, torch.zeros_like(p)) for n, p in net.named_parameters()},
        kept,
    )
    for parameter, gradient in of_small.items():
        assert_close(cut[parameter], gradient, scale, parameter)
    assert sum(float(g.abs().sum()) for g in gradients.values()) == pytest.approx(
        sum(float(g.abs().sum()) for g in of_small.values()), rel=1e-9
    )  # what is not in the slice has none
    assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_masks_compute_what_slices_compute(name: str) -> None:
    """The way of a GPU against the way of a processor, in training mode: outputs and gradients."""
    space, net = everything(name, gates=False), network(name).train()
    assert maskable(space)
    draw = draw_of(space, name)
    images = torch.randn(3, *SMALL[name], generator=torch.Generator().manual_seed(1))
    expected, gradients = passed(Slices(space, net).drawn(draw), net, images)
    output, of_masks = passed(Masks(space, net, CPU).drawn(draw), net, images)
    assert_close(output, expected, float(expected.abs().max()), "output")
    scale = max(float(g.abs().max()) for g in gradients.values())
    for parameter, gradient in of_masks.items():
        if parameter in gradients:
            assert_close(gradient, gradients[parameter], scale, parameter)
        else:
            assert not gradient.any(), parameter


def test_the_whole_network_is_one_of_the_slices() -> None:
    space = everything("preresnet20")
    table = quantised(space, 8)
    assert quanta_point(space, table[:, -1]) == space.dense
    assert (table[:, 0] >= 1).all() and (table[:, :-1] <= table[:, 1:]).all()


class Tasked:
    """A small space on digits, and what trains in it."""

    def __init__(self) -> None:
        self.space = load_space("vgg11-digits")
        self.task = Classification(load("digits"))
        self.recipe = recipe("tiny").replace(epochs=2, images=192, batch=64)

    def trained(self, masks: bool, folder: Path | None = None, stop=None, prepare=None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        net = self.space.build()
        learnt = sandwich(self.task, self.space, net, self.recipe, CPU, quanta=8, sampled=2, masks=masks)
        extra = {"prepare": partial(prepare, "a shape")} if prepare else {}
        train(
            net, learnt, self.recipe, epochs=2, seed=3, split="train", score="val", device=CPU, folder=folder,
            stop=stop, **extra,
        )  # fmt: skip
        return net.state_dict()


def test_a_step_can_be_captured_and_replayed_with_new_draws() -> None:
    """Masks: nothing waits for the device, and a replay draws anew, as the step itself does."""
    tasked, recorder = Tasked(), TapeRecorder()
    eager = tasked.trained(masks=True)
    cache = StepCache(lambda device: recorder)
    captured = tasked.trained(masks=True, prepare=cache.bench)
    assert recorder.counts["captures"] == 1
    assert recorder.counts["replays"] == 6
    for name, tensor in eager.items():
        torch.testing.assert_close(captured[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_masks_and_slices_train_alike() -> None:
    tasked = Tasked()
    masked, cut = tasked.trained(masks=True), tasked.trained(masks=False)
    untrained = tasked.space.build().state_dict()
    for name, tensor in cut.items():
        if tensor.is_floating_point():
            moved = float((tensor - untrained[name]).abs().max())
            assert float((masked[name] - tensor).abs().max()) < 0.02 * max(moved, 0.1), name


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_training_that_was_stopped_ends_as_an_undisturbed_one(steps: int, tmp_path: Path) -> None:
    """At any step, in the middle of an epoch or at its end: the draws go on where they were."""
    tasked = Tasked()
    undisturbed = tasked.trained(masks=False)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == steps

    with pytest.raises(Preempted):
        tasked.trained(masks=False, folder=tmp_path, stop=stop)
    continued = tasked.trained(masks=False, folder=tmp_path)
    assert all(torch.equal(continued[name], tensor) for name, tensor in undisturbed.items())


def test_the_sandwich_is_the_smallest_and_random_ones() -> None:
    tasked = Tasked()
    learnt = sandwich(
        tasked.task, tasked.space, tasked.space.build(), tasked.recipe, CPU, quanta=4, sampled=3
    )
    torch.manual_seed(0)
    table = quantised(tasked.space, 4)
    smallest, *others = learnt.draws()
    assert smallest[0].tolist() == table[:, 0].tolist()
    assert len(others) == 3
    assert all(counts.tolist()[i] in table[i] for counts, _ in others for i in range(len(table)))
    assert len({tuple(counts.tolist()) for counts, _ in others}) == 3
    again = sandwich(tasked.task, tasked.space, tasked.space.build(), tasked.recipe, CPU, quanta=4, sampled=3)
    torch.manual_seed(0)
    assert [counts.tolist() for counts, _ in again.draws()][1:] == [counts.tolist() for counts, _ in others]


def test_slices_of_a_super_network_beat_slices_of_a_dense_one(tmp_path: Path) -> None:
    """What in-place distillation is for; a network whose slices were never trained is at chance."""
    setting = make_setting(load_space("vgg11-digits"), changes={"epochs": 4, "images": 640})
    store = Store(tmp_path)
    space = setting.space
    scores = {}
    arch = quanta_point(space, quantised(space, 8)[:, 2])
    for name in ("supernet", "adaptive-bn"):
        by = evaluator(name, **({} if name == "supernet" else {"select": "first"}))
        trained = setting.supernet(0, by.supernet) if name == "supernet" else setting.dense(0, None)
        assert execute(trained.job, store).result is not None
        outcome = execute(setting.evaluation(arch, by, 0, trained.job.name).job, store)
        assert outcome.result is not None
        scores[name] = outcome.result.values["score"]
    assert scores["supernet"] > scores["adaptive-bn"] + 10
