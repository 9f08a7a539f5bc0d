import io
import itertools
import json
import signal
from collections import Counter

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunas.data import load
from prunas.data.resident import Resident, resident
from prunas.errors import InputError
from prunas.recipe import Recipe
from prunas.tasks.classification import Classification
from prunas.training import journal, loop
from prunas.training.checkpoint import write_checkpoint
from prunas.training.hooks import Regulariser
from prunas.training.loop import Diverged, Preempted, train
from prunas.training.optimiser import make_optimiser
from prunas.training.step import Step

CPU = torch.device("cpu")
# 44 training images in batches of 8: five steps and a partial sixth.
RECIPE = Recipe(name="test", epochs=99, batch=8, lr=0.1, weight_decay=1e-3)


def data(n=60, kind=None):
    """Random images of three classes, each with a brightness of its own."""
    draw, labels = np.random.default_rng(0), np.arange(n) % 3
    pixels = draw.integers(0, 100, (n, 6, 6, 3)) + 75 * labels[:, None, None, None]
    made = resident(
        "test",
        pixels.astype(np.uint8),
        labels,
        {"train": np.arange(44), "val": np.arange(44, 52), "test": np.arange(52, n)},
        peak=255,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        pad=1,
        flip=True,
    )
    return made if kind is None else kind(**{name: getattr(made, name) for name in made.__dataclass_fields__})


def network(seed=0, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Conv2d(5, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AvgPool2d(6),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4, 3),
        )


def run(net, recipe=RECIPE, images=None, **changes):
    options = {"epochs": 3, "seed": 1, "split": "train", "score": None, "device": CPU} | changes
    return train(net, Classification(images or data()), recipe, **options)


def same(net, other):
    ours, theirs = net.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def counted(trained):
    """All of a result that the clock does not touch."""
    return {k: getattr(trained, k) for k in trained.__slots__ if k not in ("seconds", "images_per_second")}


def logged(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


class Double(Resident):
    """Its images in float64."""

    def feed(self, *args, **kwargs):
        made = super().feed(*args, **kwargs)

        class Feed:
            draws = made.draws

            def gather(self, draw):
                x, y = made.gather(draw)
                return x.double(), y

        return Feed()


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        RECIPE.replace(nesterov=True, momentum=0.5),
        RECIPE.replace(momentum=0.0, augment=False),
        RECIPE.replace(channels_last=True),
        RECIPE.replace(fused=False, nesterov=True),
    ],
    ids=["plain", "nesterov", "no-momentum", "channels-last", "unfused"],
)
@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_a_plain_pytorch_loop(recipe, masked):
    images, recipe = data(kind=Double), recipe.replace(milestones=(0.5,))
    masks = {"3.weight": torch.rand(4, 5, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5}
    masks = masks if masked else {}
    ours, net = network().double().eval(), network().double()
    trained = run(ours, recipe, images, epochs=2, masks=masks)

    sgd = torch.optim.SGD(
        net.parameters(), 0.1, recipe.momentum, 0, recipe.weight_decay, recipe.nesterov, foreach=False
    )
    weights, losses, hits = dict(net.named_parameters()), [], []
    for epoch, rate in enumerate((0.1, 0.01)):  # one drop, at 50 % of two epochs
        for name, mask in masks.items():
            weights[name].data *= mask
        sgd.param_groups[0]["lr"] = float(np.float32(rate))
        loss_sum = correct = 0
        for x, y in images.batches("train", 8, device=CPU, seed=1, epoch=epoch, augment=recipe.augment):
            sgd.zero_grad()
            output = net(x)
            loss = F.cross_entropy(output, y)
            loss.backward()
            sgd.step()
            for name, mask in masks.items():
                weights[name].data *= mask
            loss_sum += loss.item() * len(y)
            correct += (output.argmax(1) == y).sum().item()
        losses.append(loss_sum / 44)
        hits.append(100 * correct / 44)

    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-11)
    for name, mask in masks.items():
        kept = ours.state_dict()[name][mask]
        assert torch.count_nonzero(ours.state_dict()[name]) == mask.sum() == torch.count_nonzero(kept)
    assert trained.losses == pytest.approx(losses, rel=1e-6)  # summed in float32
    assert trained.train_scores == pytest.approx(hits)
    assert (trained.epochs, trained.steps) == (2, 12)


# Powers of two: a rate and a decay that float32 holds exactly, so that float64 can be compared.
ADAMW = RECIPE.replace(optimizer="adamw", lr=2.0**-6, weight_decay=2.0**-4, schedule="constant")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_adamw_and_smoothing_agree_with_torch_step_by_step(fused, smoothing):
    recipe, images = ADAMW.replace(fused=fused, label_smoothing=smoothing), data(kind=Double)
    ours, net = network().double(), network().double()
    for made in (
        ours,
        net,
    ):  # before a norm, the gradient of a bias is 0, and Adam would enlarge its rounding
        made[0].register_parameter("bias", None)
    task = Classification(images)
    feed = task.feed(task.members("train"), 8, device=CPU)
    step = Step(ours, task, feed.gather, recipe, CPU)
    step.set_lr(recipe.lr)
    adamw = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, foreach=False)
    cross_entropy, losses = nn.CrossEntropyLoss(label_smoothing=smoothing), []
    for draw in (draw for epoch in range(3) for draw in feed.draws(1, epoch)):
        step(draw)
        x, y = feed.gather(draw)
        adamw.zero_grad()
        loss = cross_entropy(net(x), y)
        loss.backward()
        adamw.step()
        losses.append(loss.item() * len(y))
        for name, value in net.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-11)
    assert len(losses) == 18
    assert step.totals()[0] == pytest.approx(sum(losses), rel=1e-6)  # summed in float32


@pytest.mark.parametrize("fused", [True, False])
def test_adamw_counts_the_steps_of_each_parameter_and_exempts_some(fused):
    """torch's own, with a parameter that has no gradient in the first steps and one that does not decay."""
    start = {"a": torch.linspace(-1, 1, 5).double(), "b": torch.linspace(2, 3, 4).double()}
    ours = {name: value.clone().requires_grad_() for name, value in start.items()}
    theirs = {name: value.clone().requires_grad_() for name, value in start.items()}
    mine = make_optimiser(ours, ADAMW.replace(fused=fused), CPU, {id(ours["a"])})
    groups = [{"params": [theirs["a"]], "weight_decay": 0.0}, {"params": [theirs["b"]]}]
    adamw = torch.optim.AdamW(groups, lr=ADAMW.lr, weight_decay=ADAMW.weight_decay, foreach=False)
    for at in range(6):
        for params in (ours, theirs):
            params["a"].grad = torch.full((5,), 0.5 - at).double()
            params["b"].grad = None if at < 3 else torch.full((4,), 0.25 * at).double()
        mine(torch.tensor(ADAMW.lr))
        adamw.step()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-14)
    assert mine.state()["steps.a"] == 6
    assert mine.state()["steps.b"] == 3
    mine.forget()
    assert not any(tensor.any() for tensor in mine.state().values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_trains_as_a_cpu_does(channels_last):
    nets, images = [network().double(), network().double()], data(kind=Double)
    recipe = RECIPE.replace(channels_last=channels_last)
    losses = [
        run(net, recipe, images, device=torch.device(device)).losses
        for net, device in zip(nets, ("cpu", "cuda"), strict=True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(nets[1].state_dict()[name].cpu(), value, rtol=1e-6, atol=1e-8)


def test_learns_digits():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10)
    )
    recipe = RECIPE.replace(batch=64, schedule="one-cycle")
    trained = train(
        net,
        Classification(load("digits")),
        recipe,
        epochs=4,
        seed=0,
        split="train",
        score="val",
        device=CPU,
        every_epoch=True,
    )
    assert trained.score > 80  # chance is 10
    assert len(trained.val_scores) == 4
    assert trained.val_scores[-1] == trained.score
    assert trained.losses[-1] < trained.losses[0] / 2
    assert not net.training


class Reads(TorchDispatchMode):
    """Counts operators that hand a value to Python."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket] += 1
        return func(*args, **(kwargs or {}))


def test_one_read_back_per_epoch(monkeypatch):
    lists = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: lists.append(self) or original(self))
    with Reads() as reads:
        run(network(), epochs=4, masks={"3.weight": torch.ones(4, 5, 3, 3)})
    assert [tuple(values.shape) for values in lists] == [(3,)] * 4  # loss, hits, images
    assert reads.seen[torch.ops.aten._local_scalar_dense] == 0
    assert reads.seen[torch.ops.aten.convolution] == 2 * 6 * 4  # the counter does count


def test_the_random_state_of_the_caller_neither_matters_nor_changes():
    results = []
    for state in (3, 4):
        torch.manual_seed(state)
        before, net = torch.get_rng_state(), network(dropout=0.5)
        run(net)
        assert torch.equal(before, torch.get_rng_state())
        results.append(net)
    assert same(*results)
    other = network(dropout=0.5)
    run(other, seed=2)
    assert not same(results[0], other)


class Pull(Regulariser):
    """Pulls a layer's scales towards zero with a momentum of its own, and notes what it is asked."""

    def __init__(self):
        self.calls, self.rates, self.at_step = [], [], {}

    def attach(self, net):
        self.scale = net[1].weight
        self.speed = torch.zeros_like(self.scale)
        self.calls.append("attach")

    def gradients(self):
        self.calls.append("gradients")
        self.scale.grad.add_(self.scale.detach().sign(), alpha=0.01)
        if act := self.at_step.get(self.calls.count("gradients")):
            act()

    @torch.no_grad()
    def after_step(self, lr):
        self.calls.append("after_step")
        self.rates.append(lr.item())
        self.speed.mul_(0.5).add_(self.scale)
        self.scale.sub_(self.speed * lr, alpha=0.1)

    def state(self):
        return {"speed": self.speed}

    def record(self):
        self.calls.append("record")
        return {"pull": 2.5}


def test_a_regulariser_is_called_around_every_step_with_its_rate():
    pull, net = Pull(), network()
    recipe = RECIPE.replace(schedule="one-cycle")
    trained = run(net, recipe, epochs=2, regulariser=pull)
    assert pull.calls == ["attach", *["gradients", "after_step"] * 12, "record"]
    # Up to the peak at a quarter of 12 steps, then down to zero.
    assert pull.rates == pytest.approx(
        [0.1 * k / 3 for k in (1, 2, 3)] + [0.1 * k / 9 for k in range(9, 0, -1)]
    )
    assert trained.regulariser == {"pull": 2.5}
    plain = network()
    run(plain, recipe, epochs=2)
    assert net[1].weight.sum() < plain[1].weight.sum()


@pytest.mark.parametrize("exempt", [False, True])
def test_exempt_parameters_are_not_decayed(exempt):
    class Free(Regulariser):
        def attach(self, net):
            self.net = net

        def exempt(self):
            return [self.net[3].weight] if exempt else []

        def gradients(self):
            self.net[3].weight.grad.zero_()  # all that is left to move it is decay

    net = network()
    start = net[3].weight.detach().clone()
    recipe = RECIPE.replace(schedule="constant", momentum=0.0)
    run(net, recipe, epochs=2, regulariser=Free())
    factor = 1.0 if exempt else (1 - 0.1 * 1e-3) ** 12
    torch.testing.assert_close(net[3].weight.detach(), start * factor)
    assert factor == 1 or not torch.equal(net[3].weight, start)


def resumable(folder, net, *, regulariser=None, **changes):
    masks = {"3.weight": torch.arange(180).view(4, 5, 3, 3) % 2}
    return run(
        net,
        regulariser=regulariser or Pull(),
        masks=masks,
        folder=folder,
        score="val",
        every_epoch=True,
        **changes,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder, net = tmp_path_factory.mktemp("undisturbed"), network(dropout=0.5)
    return net, resumable(folder, net), logged(folder)


@pytest.mark.parametrize("at", [1, 6, 8, 15, 18])
def test_a_stopped_training_continues_to_the_same_bits(tmp_path, undisturbed, at):
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked == at

    with pytest.raises(Preempted, match=f"after {at} of 18 steps"):
        resumable(tmp_path, network(dropout=0.5), stop=stop)
    net, (expected, trained, log) = network(seed=9, dropout=0.5), undisturbed
    pull = Pull()
    continued = resumable(tmp_path, net, regulariser=pull)
    assert pull.calls.count("gradients") == 18 - at  # it did continue
    assert same(net, expected)
    assert counted(continued) == counted(trained)
    assert logged(tmp_path) == log
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("at", [1, 8, 15])
def test_a_stopped_training_with_adamw_continues_to_the_same_bits(tmp_path, at, fused):
    recipe, asked = ADAMW.replace(fused=fused, schedule="linear", label_smoothing=0.1), itertools.count(1)
    undisturbed, net = network(dropout=0.5), network(seed=9, dropout=0.5)
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    alone.mkdir()
    stopped.mkdir()
    trained = resumable(alone, undisturbed, recipe=recipe)
    with pytest.raises(Preempted, match=f"after {at} of 18 steps"):
        resumable(stopped, network(dropout=0.5), recipe=recipe, stop=lambda: next(asked) == at)
    pull = Pull()
    continued = resumable(stopped, net, recipe=recipe, regulariser=pull)
    assert pull.calls.count("gradients") == 18 - at  # it did continue
    assert same(net, undisturbed)
    assert counted(continued) == counted(trained)


def test_checkpoints_by_the_clock_change_nothing(tmp_path, undisturbed, monkeypatch):
    written = []
    monkeypatch.setattr(
        journal, "write_checkpoint", lambda *args: written.append(args[3]["done"]) or write_checkpoint(*args)
    )
    net = network(dropout=0.5)
    resumable(tmp_path, net, checkpoint_every=0.0)
    assert written == list(range(1, 18))  # not after the last step
    assert same(net, undisturbed[0])


@pytest.mark.parametrize("at", [4, 18])
def test_ctrl_c_waits_for_the_step_and_saves(tmp_path, undisturbed, at):
    pull = Pull()
    pull.at_step[at] = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        resumable(tmp_path, network(dropout=0.5), regulariser=pull)
    assert pull.calls[-1] == "after_step"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    net, again = network(seed=9, dropout=0.5), Pull()
    resumable(tmp_path, net, regulariser=again)
    assert again.calls.count("gradients") == 18 - at
    assert same(net, undisturbed[0])


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    pull = Pull()
    pull.at_step[4] = lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        resumable(tmp_path, network(), regulariser=pull)
    assert pull.calls[-1] == "gradients"


@pytest.mark.parametrize("damage", ["one bit", "cut short", "empty"])
def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path, undisturbed, damage):
    with pytest.raises(Preempted):
        resumable(tmp_path, network(dropout=0.5), stop=lambda: True)
    path = tmp_path / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"one bit": content, "cut short": content[:-9], "empty": b""}[damage])
    net = network(dropout=0.5)
    resumable(tmp_path, net)
    assert same(net, undisturbed[0])
    assert logged(tmp_path) == [
        {"warning": "the checkpoint is damaged; starting over"},
        *undisturbed[2],
    ]


def test_the_checkpoint_of_another_training_is_not_taken(tmp_path):
    with pytest.raises(Preempted):
        run(network(), folder=tmp_path, stop=lambda: True)
    pull = Pull()
    run(network(), folder=tmp_path, seed=2, regulariser=pull)
    assert pull.calls.count("gradients") == 18
    assert logged(tmp_path)[0] == {"warning": "the checkpoint belongs to another training; starting over"}


def test_divergence_names_the_epoch_and_the_checkpoint(tmp_path):
    with pytest.raises(Preempted):
        run(network(), RECIPE, folder=tmp_path, stop=lambda: True)
    pull = Pull()
    pull.at_step[8] = lambda: pull.scale.grad.fill_(torch.nan)
    with pytest.raises(Diverged) as diverged:
        run(network(), RECIPE, folder=tmp_path, regulariser=pull, checkpoint_every=0.0)
    assert str(diverged.value) == (
        "the loss is nan in epoch 2 of 3, try a lower learning rate "
        f"(last good checkpoint: {tmp_path / 'checkpoint.pt'})"
    )
    saved = torch.load(io.BytesIO((tmp_path / "checkpoint.pt").read_bytes()[32:]), weights_only=True)
    assert saved["facts"]["done"] == 7
    assert all(value.isfinite().all() for value in saved["tensors"].values())


def test_the_log_says_what_happened(tmp_path):
    seen = []
    trained = run(network(), epochs=4, folder=tmp_path, progress=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert tuple(line["loss"] for line in lines) == trained.losses
    assert tuple(line["train_score"] for line in lines) == trained.train_scores
    assert sum(line["seconds"] for line in lines) == pytest.approx(trained.seconds)
    assert trained.images_per_second == pytest.approx(4 * 44 / trained.seconds)
    assert [(p.epoch, p.epochs, p.loss) for p in seen] == [(k + 1, 4, trained.losses[k]) for k in range(4)]


def test_the_test_set_is_met_once_and_only_if_asked(monkeypatch):
    met = []
    monkeypatch.setattr(loop, "evaluate", lambda net, data, split, **_: met.append(split) or 50.0)
    assert run(network(), score=None).score is None
    assert met == []
    assert run(network(), split="train+val", score="test").score == 50
    assert met == ["test"]
    run(network(), score="val")
    assert met == ["test", "val"]


def test_train_plus_val_reads_both():
    trained = run(network(), split="train+val", epochs=1)
    assert trained.steps == 7  # 52 images
    assert run(network(), RECIPE.replace(images=20), epochs=1).steps == 3


def test_weights_are_kept_on_request_only(tmp_path):
    net = network()
    run(net, folder=tmp_path / "a", keep_weights=True)
    run(network(), folder=tmp_path / "b")
    stored = safetensors.torch.load_file(tmp_path / "a" / "weights.safetensors")
    assert stored.keys() == net.state_dict().keys()
    assert all(torch.equal(stored[k], v) for k, v in net.state_dict().items())
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["log.jsonl", "weights.safetensors"]
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["log.jsonl"]


def test_bf16_keeps_weights_and_losses_in_fp32():
    net, exact = network(), network()
    half = run(net, RECIPE.replace(precision="bf16"))
    full = run(exact)
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert half.losses != full.losses
    assert half.losses[0] == pytest.approx(full.losses[0], rel=0.05)  # bf16 has 8 bits


def test_unused_and_frozen_parameters_stay():
    net = network()
    net[0].weight.requires_grad_(False)
    net.register_parameter("unused", nn.Parameter(torch.ones(2)))
    net.forward = lambda x: nn.Sequential.forward(net, x)
    start = net[0].weight.clone()
    run(net)
    assert torch.equal(net[0].weight, start)
    assert torch.equal(net.unused, torch.ones(2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "train+val", "score": "val"}, "validation images are in the training split"),
        ({"every_epoch": True, "score": "test"}, "for validation only"),
        ({"epochs": 0}, "at least 1 epoch"),
        ({"recipe": RECIPE.replace(batch=43)}, "44 images in batches of 43 leave a batch of one"),
        ({"recipe": RECIPE.replace(images=45)}, "test has 44 train images, not 45"),
        ({"masks": {"3.weigth": torch.ones(4, 5, 3, 3)}}, "did you mean 3.weight"),
    ],
)
def test_arguments_that_do_not_fit(changes, words):
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(InputError, match=words):
        run(net, **changes)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
