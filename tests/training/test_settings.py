"""Settings of a recipe that change what a step does, beside torch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunas.errors import InputError
from prunas.recipe import recipe as named_recipe
from prunas.tasks.classification import Classification
from prunas.training.feeds import training_feed
from prunas.training.optimiser import norms_and_biases
from prunas.training.step import Step
from tests.training.test_loop import CPU, RECIPE, Double, data, network, run


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
