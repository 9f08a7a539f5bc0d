"""Settings of a recipe that change what a step does, beside torch's own."""

from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from prunas.data import load
from prunas.errors import InputError
from prunas.recipe import recipe as named_recipe
from prunas.tasks.classification import Classification
from prunas.training.capture import StepCache
from prunas.training.evaluate import evaluate
from prunas.training.feeds import training_feed
from prunas.training.loop import Preempted
from prunas.training.optimiser import norms_and_biases
from prunas.training.step import Step
from tests.training.tape import TapeRecorder
from tests.training.test_loop import CPU, RECIPE, Double, Reads, counted, data, network, run, same


class DoubleInTurn(Double):
    """Its images in float64, and mirrored in turn."""

    def feed(self, *args, **kwargs):
        made = super().feed(*args, **kwargs)
        made.alternating = lambda: self.in_turn(*args, **kwargs)
        return made

    def in_turn(self, *args, **kwargs):
        made = super().feed(*args, **kwargs)
        made.draws = data().feed(*args, **kwargs).alternating().draws
        return made


def stepped(ours, recipe, images):
    """A step of a network, and its draws over three epochs."""
    task = Classification(images)
    feed = training_feed(task, recipe, task.members("train"), CPU)
    step = Step(ours, task, feed.gather, recipe, CPU)
    step.set_lr(recipe.lr)
    return step, feed, (draw for epoch in range(3) for draw in feed.draws(1, epoch))


@pytest.mark.parametrize("fused", [True, False])
def test_norms_and_biases_do_not_decay(fused):
    recipe = RECIPE.replace(decay_norms=False, weight_decay=2.0**-4, lr=2.0**-4, fused=fused)
    ours, net = network().double(), network().double()
    step, feed, draws = stepped(ours, recipe, data(kind=Double))
    groups = [
        {"params": [net[0].weight, net[3].weight, net[9].weight]},
        {
            "params": [
                net[0].bias, net[1].weight, net[1].bias, net[4].weight, net[4].bias, net[9].bias,
            ],
            "weight_decay": 0.0,
        },
    ]  # fmt: skip
    sgd = torch.optim.SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, foreach=False)
    for draw in draws:
        step(draw)
        x, y = feed.gather(draw)
        sgd.zero_grad()
        F.cross_entropy(net(x), y).backward()
        sgd.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-11)


def test_a_norm_of_several_axes_is_one():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm((4, 6, 6)), nn.GroupNorm(2, 4), nn.PReLU(4))
    spared = norms_and_biases(net)
    assert [name for name, p in net.named_parameters() if id(p) not in spared] == ["0.weight"]


def test_fast_trains_as_a_plain_pytorch_loop_does():
    """The recipe without its 128 images a batch: the schedule, the look-ahead, the flips and no decay of norms."""
    recipe = named_recipe("fast").replace(batch=8, label_smoothing_from=0)
    images, ours, net = data(kind=DoubleInTurn), network().double(), network().double()
    run(ours, recipe, images, epochs=5)
    spared = norms_and_biases(net)
    groups = [
        {"params": [p for p in net.parameters() if id(p) not in spared], "weight_decay": 5e-4},
        {"params": [p for p in net.parameters() if id(p) in spared], "weight_decay": 0.0},
    ]
    sgd = torch.optim.SGD(groups, 0.2, momentum=0.9, nesterov=True, foreach=False)
    feed = data().feed(images.members("train"), 8, device=CPU, augment=True).alternating()
    rates = [0.2 * min((k + 1) / 6, (30 - k) / 24) for k in range(30)]  # peak after a fifth of 30 steps
    for at, draw in enumerate(draw for epoch in range(5) for draw in feed.draws(1, epoch)):
        for group in sgd.param_groups:
            group["lr"] = float(np.float32(rates[at]))
        x, y = feed.gather(draw)
        sgd.zero_grad()
        F.cross_entropy(net(x.double()), y, label_smoothing=0.1).backward()
        sgd.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-11)


def test_data_that_cannot_be_mirrored_in_turn_are_refused():
    recipe = RECIPE.replace(flip="alternating")
    with pytest.raises(InputError, match=r'cannot be mirrored in turn, .*; set flip = "random"'):
        run(network(), recipe, data(kind=Double))
    run(network().double(), recipe.replace(augment=False), data(kind=Double), epochs=1)


def test_a_recipe_that_hangs_on_the_dense_network_is_settled_first():
    with pytest.raises(InputError, match=r"smooths labels from 300,000 parameters on; .*settled"):
        run(network(), named_recipe("fast"))


def test_clipped_gradients_are_torchs():
    recipe = RECIPE.replace(clip=2.0**-3, weight_decay=0.0, lr=2.0**-4)
    ours, net = network().double(), network().double()
    step, feed, draws = stepped(ours, recipe, data(kind=Double))
    sgd, norms = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, foreach=False), []
    for draw in draws:
        step(draw)
        x, y = feed.gather(draw)
        sgd.zero_grad()
        F.cross_entropy(net(x), y).backward()
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), recipe.clip).item())
        sgd.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-11)
    assert max(norms) > recipe.clip  # the limit mattered


def test_the_running_mean_is_torchs():
    """torch.optim.swa_utils.AveragedModel: the first weights, then the exponential moving average."""
    recipe = RECIPE.replace(ema=0.75)  # a share that float32 holds exactly
    ours = network().double()
    step, feed, draws = stepped(ours, recipe, data(kind=Double))
    mean = AveragedModel(ours, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=True)
    for draw in draws:
        step(draw)
        mean.update_parameters(ours)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with step.judged():
        inside = {name: value.clone() for name, value in ours.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    for name, value in mean.module.state_dict().items():
        if name.endswith("num_batches_tracked"):  # torch's takes a mean of whole numbers
            value = before[name]
        torch.testing.assert_close(inside[name], value, rtol=1e-9, atol=1e-11)
    assert not torch.equal(inside["0.weight"], before["0.weight"])
    assert not torch.equal(inside["1.running_var"], before["1.running_var"])
    step.forget()  # the mean begins anew: that of one step is its weights
    step(next(iter(feed.draws(1))))
    after = {name: value.clone() for name, value in ours.state_dict().items()}
    with step.judged():
        assert all(torch.equal(value, after[name]) for name, value in ours.state_dict().items())


def test_the_running_mean_is_what_is_scored_and_kept(tmp_path):
    images, recipe = data(), RECIPE.replace(ema=0.75)
    net, plain = network(), network()
    trained = run(net, recipe, images, score="val", every_epoch=True, folder=tmp_path, keep_weights=True)
    run(plain, RECIPE, images)
    assert not same(net, plain)
    task = Classification(images)
    assert trained.score == evaluate(net, task, "val", device=CPU, recipe=recipe)
    kept = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in net.state_dict().items())
    scores = []
    for epochs in (1, 2, 3):  # at a constant rate, epoch n of a longer training is the end of one of n epochs
        alone = network()
        run(alone, recipe.replace(schedule="constant"), images, epochs=epochs)
        scores.append(evaluate(alone, task, "val", device=CPU, recipe=recipe))
    constant = run(network(), recipe.replace(schedule="constant"), images, score="val", every_epoch=True)
    assert list(constant.val_scores) == scores


MANY = RECIPE.replace(
    ema=0.75, clip=0.5, flip="alternating", mixup=0.4, cutmix=1.0, nesterov=True, decay_norms=False,
    label_smoothing=0.1, warmup=0.2, schedule="linear",
)  # fmt: skip
LISTED = MANY.replace(transforms=["RandomVerticalFlip", {"name": "RandomErasing", "p": 0.5}])


@pytest.mark.parametrize("recipe", [MANY, LISTED], ids=["mixed", "transformed"])
@pytest.mark.parametrize("stop", [1, 7, 12, 17, 18])
def test_a_stopped_training_ends_in_the_same_bits(tmp_path, recipe, stop):
    straight, continued = network(), network()
    once = run(straight, recipe, score="val", every_epoch=True)
    steps = iter(range(1, 100))
    with pytest.raises(Preempted):
        run(
            network(),
            recipe,
            score="val",
            every_epoch=True,
            folder=tmp_path,
            stop=lambda: next(steps) == stop,
        )
    again = run(continued, recipe, score="val", every_epoch=True, folder=tmp_path)
    assert same(straight, continued)
    assert counted(once) == counted(again)


def test_every_setting_is_replayed_as_it_is_taken():
    """A recorded step, told apart from a taken one by nothing but rounding, of which there is none on a CPU."""
    taken, replayed, tape = network(), network(), TapeRecorder()
    run(taken, MANY)
    cache = StepCache(lambda device: tape)
    trained = run(replayed, MANY, prepare=partial(cache.bench, "net"))
    assert trained.execution == {"step": "captured", "notice": None}
    assert same(taken, replayed)
    other, alone = network(3), network(3)  # the same bench, from other weights
    run(other, MANY, prepare=partial(cache.bench, "net"))
    run(alone, MANY)
    assert same(other, alone)


def test_nothing_is_read_back_in_a_step():
    step, _, draws = stepped(network(), MANY, data())
    drawn = list(draws)
    with Reads() as reads:
        for draw in drawn:
            step(draw)
    assert reads.seen[torch.ops.aten._local_scalar_dense] == 0
    assert reads.seen[torch.ops.aten.convolution] == 2 * 18


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_batches_are_those_of_torchvision(kind):
    images = data()
    task, recipe = Classification(images), RECIPE.replace(**{kind: 1.0}, augment=False)
    feed = training_feed(task, recipe, task.members("train"), CPU)
    plain = task.feed(task.members("train"), 8, device=CPU)
    made = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind](num_classes=3)
    shares = []
    for draw, base in zip(feed.draws(1, 2), plain.draws(1, 2), strict=True):
        pixels, label, left, top, right, bottom = draw[-1].tolist()
        x, y = plain.gather(base)
        params = {"labels": y, "batch_size": len(base[0][0]), "lam": label}
        if kind == "cutmix":
            params |= {"box": tuple(map(int, (left, top, right, bottom))), "lam_adjusted": label}
            assert pixels == 1
            assert label == pytest.approx(1 - (right - left) * (bottom - top) / 36, abs=1e-6)
        mixed, targets = feed.gather(draw)
        torch.testing.assert_close(mixed, made.transform(x, params))
        torch.testing.assert_close(targets, made.transform(y, params))
        torch.testing.assert_close(
            task.smoothed_loss(network(), (mixed, targets), 0.0),
            nn.CrossEntropyLoss()(network()(mixed), targets),
        )
        shares.append(label)
    assert len(set(shares)) > 3


def test_shares_follow_the_beta_distribution():
    images = data()
    task = Classification(images)
    for alpha in (0.2, 1.0):
        feed = training_feed(task, RECIPE.replace(mixup=alpha, batch=1), task.members("train"), CPU)
        shares = torch.tensor([draw[-1][0] for epoch in range(40) for draw in feed.draws(0, epoch)])
        expected = torch.distributions.Beta(torch.tensor(alpha), torch.tensor(alpha))
        deviation = (expected.variance / len(shares)).sqrt().item()
        assert shares.mean().item() == pytest.approx(0.5, abs=5 * deviation)
        assert shares.var().item() == pytest.approx(expected.variance.item(), rel=0.15)
    both = training_feed(task, RECIPE.replace(mixup=1.0, cutmix=1.0, batch=1), task.members("train"), CPU)
    mixups = sum(draw[-1][0].item() < 1 for epoch in range(20) for draw in both.draws(0, epoch))
    assert abs(mixups - 440) < 5 * 880**0.5 / 2


def test_transforms_are_torchvisions_image_by_image():
    images = data()
    task = Classification(images)
    recipe = RECIPE.replace(augment=False, transforms=["RandomHorizontalFlip"])
    feed = training_feed(task, recipe, task.members("train"), CPU)
    plain = task.feed(task.members("train"), 8, device=CPU)
    flips = []
    for draw, base in zip(feed.draws(1), plain.draws(1), strict=True):
        x, y = plain.gather(base)
        changed, labels = feed.gather(draw)
        assert torch.equal(labels, y)
        flips += [torch.equal(one, other.flip(-1)) for one, other in zip(changed, x, strict=True)]
        assert all(
            torch.equal(one, other) or torch.equal(one, other.flip(-1))
            for one, other in zip(changed, x, strict=True)
        )
    assert 8 < sum(flips) < 36
    certain = recipe.replace(transforms=[{"name": "RandomInvert", "p": 1.0}])
    feed = training_feed(task, certain, task.members("train"), CPU)
    for draw, base in zip(feed.draws(1), plain.draws(1), strict=True):
        inverted = (255 - (plain.gather(base)[0] * 0.25 + 0.5) * 255) / 255
        torch.testing.assert_close(feed.gather(draw)[0], (inverted - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transforms": ["RandAugmnt"]}, "unknown transform 'RandAugmnt'; did you mean RandAugment"),
        ({"transforms": [{"name": "RandAugment", "strength": 7}]}, "transform RandAugment: .*strength"),
        ({"transforms": ["ToPILImage"]}, "leave out what resizes or normalises"),
        ({"transforms": [{"name": "Resize", "size": 9}]}, "leave out what resizes or normalises"),
    ],
)
def test_transforms_that_cannot_be_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        run(network(), RECIPE.replace(**changes))


def test_what_a_kind_of_data_cannot_serve_is_refused():
    class Plain:
        """A task without labels that are classes."""

        name, inputs, feed = "plain", Classification(data()).inputs, Classification(data(kind=Double)).feed

    members = data().members("train")
    for changes, words in (
        ({"mixup": 0.2}, "no images of classes to mix"),
        ({"transforms": ["RandAugment"]}, "cannot pass through transforms"),
    ):
        with pytest.raises(InputError, match=words):
            training_feed(Plain(), RECIPE.replace(**changes), members, CPU)
    digits = Classification(load("digits"))
    with pytest.raises(InputError, match="a white pixel for 255, and in these images it is 16"):
        training_feed(digits, RECIPE.replace(transforms=["RandAugment"]), members, CPU)
