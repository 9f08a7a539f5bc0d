import math

import numpy as np
import pytest
import torch
from torch import nn

from prunas.data import load
from prunas.errors import InputError
from prunas.proposers.brief import DenseNetwork
from prunas.proposers.pruning.sss import BranchScales
from prunas.proposers.registry import entry
from prunas.recipe import recipe
from prunas.spaces.load import load_space
from prunas.tasks.classification import Classification
from prunas.training.loop import train


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.branch(x)


def test_the_step_is_the_accelerated_proximal_gradient_of_the_paper():
    """Equations 10 to 12 in float64, written out with a given gradient; the scale alone is held at 0 or more.

    Two large gradients push the step below zero: a momentum of what is clipped would forget by how much.
    """
    net = Sum()
    scales = BranchScales(strength=0.3, momentum=0.9, branches=["branch"])
    scales.attach(net)
    value, velocity, below = 1.0, 0.0, 0
    for step in range(60):
        gradient = float(np.cos(step)) + 8.0 * (step in (10, 11))
        scales.scales.grad = torch.tensor([gradient])
        scales.after_step(torch.tensor(0.1))
        z = value - 0.1 * gradient
        shrunk = math.copysign(max(abs(z) - 0.1 * 0.3, 0.0), z)
        below += shrunk < 0
        velocity = shrunk - value + 0.9 * velocity
        value = max(shrunk + 0.9 * velocity, 0.0)
        assert scales.scales.item() == pytest.approx(value, abs=1e-5)
    assert below > 0


def test_a_scale_multiplies_its_branch():
    net, x = Sum(), torch.randn(2, 3)
    with torch.no_grad():
        before = net(x)
    scales = BranchScales(0.0, 0.9, ["branch"])
    scales.attach(net)
    with torch.no_grad():
        torch.testing.assert_close(net(x), before)
        scales.scales.fill_(0.25)
        torch.testing.assert_close(net(x), x + 0.25 * (before - x))


def test_sss_removes_a_planted_useless_block_and_a_shuffled_record_does_not(brief):
    space = load_space("preresnet20-digits")
    made, data = recipe("digits").replace(epochs=4), load("digits")
    records = []

    def dense(penalty):
        torch.manual_seed(0)
        net = space.build()
        # Whatever this branch learns, it adds noise.
        branch = net.get_submodule("layer1.1.conv3")
        branch.register_forward_hook(lambda module, inputs, output: 3 * torch.randn_like(output))
        scales = BranchScales(**penalty.options)
        cpu = torch.device("cpu")
        train(
            net,
            Classification(data),
            made,
            epochs=4,
            seed=0,
            split="train",
            score=None,
            device=cpu,
            regulariser=scales,
        )
        records.append(scales.record())
        return DenseNetwork("dense", dict, records[-1])

    lr_sum = made.lr_sum(data.steps("train", made.batch), 4)
    target = space.target(budget=space.measure(space.point(removed=["layer1.1"]), "params"))
    told = brief(space, targets=(target,), dense=dense, lr_sum=lr_sum)
    (found,) = entry("sss").build(pull=1.0).propose(told, [])
    assert found.architecture.removed == ("layer1.1",)
    assert "penalty_not_acted" not in found.flags

    def shuffled(penalty):
        moved = dict(zip(records[0], np.roll(list(records[0].values()), 1).tolist(), strict=True))
        return DenseNetwork("dense", dict, moved)

    (found,) = entry("sss").build(pull=1.0).propose(brief(space, targets=(target,), dense=shuffled), [])
    assert "layer1.1" not in found.architecture.removed


def test_blocks_go_in_the_order_in_which_their_scales_reached_zero(spaces, brief):
    space = spaces["blocks"]
    names = [block.name for block in space.survey.blocks]

    def dense(penalty):
        paths = penalty.options["branches"]
        record = dict(zip((f"until {path}" for path in paths), [0.9, 0.2, 1.0, 0.5, 1.0, 1.0], strict=True))
        record |= dict(zip((f"scale {path}" for path in paths), [0.0, 0.0, 0.7, 0.0, 0.1, 0.9], strict=True))
        return DenseNetwork("dense", dict, record)

    order = [names[i] for i in (1, 3, 0, 4, 2, 5)]
    targets = tuple(
        space.target(budget=space.measure(space.point(removed=order[:count]), "params"))
        for count in (1, 2, 3, 4)
    )
    proposals = entry("sss").build().propose(brief(space, targets=targets, dense=dense), [])
    assert [set(p.architecture.removed) for p in proposals] == [set(order[:count]) for count in (1, 2, 3, 4)]
    assert [("penalty_not_acted" in p.flags) for p in proposals] == [False, False, False, True]


def test_a_network_without_branches_is_refused_with_an_alternative(spaces, brief):
    with pytest.raises(InputError, match="slimming"):
        entry("sss").build().propose(brief(spaces["vgg"], targets=(spaces["vgg"].target(keep=0.5),)), [])
