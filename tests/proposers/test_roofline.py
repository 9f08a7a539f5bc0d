"""MorphNet where a channel costs latency: the longer of operations and bytes."""

import numpy as np
import pytest
import torch
from torch import nn

from prunas import networks
from prunas.errors import InputError
from prunas.proposers.pruning.morphnet import LatencyWeightedScales, MorphNet, places, pulls
from prunas.proposers.pruning.roofline import DEVICES, Device, input_positions, roofline
from prunas.proposers.registry import entry
from prunas.spaces.space import SearchSpace
from tests.proposers.test_morphnet import Two

FAMILIES = ["vgg", "preresnet", "densenet", "streams", "stemmed"]


@pytest.fixture
def golden():
    """The network of the penalty's golden example, on a device of 1000 operations and 500 bytes a nanosecond."""
    space = SearchSpace.from_model(Two, (3, 8, 8), name="two")
    net = Two()
    net.na.weight.data = torch.tensor([0.5, -0.2, 0.005, 0.1])
    net.nb.weight.data = torch.tensor([0.3, 0.0, 0.4])
    bound = roofline(space, Device(1000, 500), 1)
    acting = LatencyWeightedScales(1.0, bound.to_json(), places(space))
    acting.attach(net)
    return space, net, bound, acting


A = 1152 * 3 * 3 / 1000
"""Of the first convolution the operations are longer: 3 channels in, 3 alive, 2 * 64 * 9 operations each."""
B = (4 * 3 * 2 + 256 * 3 + 256 * 2) / 500
"""Of the second one the bytes are: weights, and maps of 64 numbers of 4 bytes."""
FC = (4 * 2 * 2 + 4 * 2 + 4 * 2) / 500


def test_a_layer_takes_as_long_as_the_longer_of_its_terms(golden):
    _, _, bound, _ = golden
    operations, moved = bound.times([3, 2])
    assert operations.tolist() == pytest.approx([A, 128 * 3 * 2 / 1000, 2 * 2 * 2 / 1000])
    assert moved.tolist() == pytest.approx([(36 * 9 + 256 * 3 + 256 * 3) / 500, B, FC])
    assert bound.time([3, 2]) == pytest.approx(A + B + FC)


def test_only_the_longer_term_is_pulled(golden):
    """S_a = 0.805, S_b = 0.7; the image and the outputs have no scales."""
    _, net, _, acting = golden
    of_a = 1152 * 3 * 0.805 / 1000
    of_b = (4 * (3 * 0.7 + 2 * 0.805) + 256 * 0.805 + 256 * 0.7) / 500
    of_fc = (4 * 2 * 0.7 + 4 * 0.7) / 500
    assert float(acting.value()) == pytest.approx(of_a + of_b + of_fc, rel=1e-6)
    for norm in (net.na, net.nb):
        norm.weight.grad = torch.zeros_like(norm.weight)
    acting.gradients()
    a = 1152 * 3 / 1000 + (4 * 2 + 256) / 500
    b = (4 * 3 + 256) / 500 + (4 * 2 + 4) / 500
    assert net.na.weight.grad.tolist() == pytest.approx([a, -a, a, a])
    assert net.nb.weight.grad.tolist() == pytest.approx([b, 0, b])


def test_which_term_is_longer_changes_with_what_is_alive(golden):
    """At a higher peak the first convolution waits for bytes once a single channel of its is left."""
    space, net, _, _ = golden
    bound = roofline(space, Device(2400, 500), 1)
    acting = LatencyWeightedScales(1.0, bound.to_json(), places(space))
    acting.attach(net)
    by_operations, by_bytes = 1152 * 3 / 2400, (36 * 3 + 256) / 500
    for scales, alive, own in (
        ([0.5, 0.4, 0.3, 0.2], 4, by_operations),
        ([0.5, 0.0, 0.0, 0.0], 1, by_bytes),
    ):
        net.na.weight.data = torch.tensor(scales)
        operations, moved = bound.times([alive, 2])
        assert (moved[0] > operations[0]) == (own == by_bytes)
        net.na.weight.grad, net.nb.weight.grad = torch.zeros(4), torch.zeros(3)
        acting.gradients()
        assert float(net.na.weight.grad[0]) == pytest.approx(own + (4 * 2 + 256) / 500)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_bound_of_bytes_it_is_the_penalty_by_operations(family, spaces):
    space = spaces[family]
    bound = roofline(space, Device(1000, 1e20), 3)
    counts = 0.6 * space.dense_counts
    expected = 2 * 3 * pulls(space, "macs") @ np.append(counts, 1.0) / 1000
    assert bound.pulls(counts) == pytest.approx(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pulls_are_slopes_of_the_time_but_for_depthwise_layers(family, spaces):
    """G takes the counts of the other side as constants, which is the derivative of a product."""
    space = spaces[family]
    for device in (*DEVICES.values(), Device(1000, 500)):
        bound = roofline(space, device, 8)
        counts = 0.7 * space.dense_counts
        felt = bound.pulls(counts)
        for i in range(len(counts)):
            step = np.zeros(len(counts))
            step[i] = 1e-4 * counts[i]
            slope = (bound.time(counts + step) - bound.time(counts - step)) / (2 * step[i])
            assert felt[i] == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_training_it_pulls_as_the_roofline_says(family, spaces):
    space = spaces[family]
    bound = roofline(space, Device(1000, 500), 1)
    acting = LatencyWeightedScales(1.0, bound.to_json(), places(space))
    acting.attach(space.build())
    for share in (1.0, 0.4):
        counts = np.floor(share * space.dense_counts)
        alive = torch.tensor(np.append(counts, 1.0), dtype=torch.float32)
        assert acting.pull(alive).numpy() == pytest.approx(bound.pulls(counts), rel=1e-5)


def test_a_depthwise_layer_has_its_weights_once_a_channel():
    def depthwise():
        return nn.Sequential(
            nn.Conv2d(3, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.Flatten(),
            nn.Linear(8 * 9, 2, bias=False),
        )

    space = SearchSpace.from_model(depthwise, (3, 6, 6), name="depthwise")
    bound = roofline(space, Device(1e9, 1), 2)
    _, moved = bound.times([5])
    assert moved.tolist() == [
        4 * 3 * 5 + 2 * 4 * 36 * (3 + 5),
        4 * 9 * 5 + 2 * 4 * 5 * (36 + 9),
        4 * 45 * 2 + 2 * 4 * (45 + 2),
    ]
    assert bound.pulls([5]) == pytest.approx(
        [4 * 3 + 2 * 4 * 36 + 2 * 4 * 9 + 2 * 4 * (36 + 9) + 4 * 9 * 2 + 2 * 4 * 9]
    )


def test_positions_of_inputs_are_those_in_front_of_a_stride():
    space = SearchSpace.from_model(networks.resnet20, (3, 32, 32), name="resnet20")
    positions = input_positions(space)
    assert positions["layer2.0.conv1"] == 32 * 32
    assert positions["layer2.0.conv2"] == 16 * 16
    assert positions["fc"] == 1


def test_larger_batches_share_the_weights():
    """At batch 1 the late, wide layers of a VGG read weights; at batch 1024 they compute."""
    space = SearchSpace.from_model(networks.vgg16, (3, 32, 32), name="vgg16")
    late = -2  # the last convolution; the classifier comes behind it
    for batch, reads in ((1, True), (1024, False)):
        operations, moved = roofline(space, DEVICES["V100"], batch).times(space.dense_counts)
        assert (moved[late] > operations[late]) == reads


def test_the_mean_channel_feels_the_pull_by_latency(spaces):
    space = spaces["vgg"]
    penalty = MorphNet(pull=2.0, cost="latency", device="T4", batch=4).penalty(space, 100.0, 0.9)
    assert penalty.name == "morphnet/latency"
    felt = roofline(space, DEVICES["T4"], 4).pulls(space.dense_counts)
    mean = penalty.options["strength"] * (space.dense_counts @ felt) / space.dense_counts.sum()
    assert mean * 100.0 / (1 - 0.9) == pytest.approx(2.0)
    other = MorphNet(pull=2.0, cost="latency", peak=10, bandwidth=20).penalty(space, 100.0, 0.9)
    assert other.options["roofline"] == roofline(space, Device(10, 20), 1).to_json()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "V10"}, "morphnet: device .*'V10'; did you mean V100"),
        ({"peak": 0}, "morphnet: peak must be above 0, not 0"),
        ({"bandwidth": -1.0}, "morphnet: bandwidth must be above 0"),
        ({"batch": 0}, "morphnet: batch must be at least 1"),
        ({"cost": "latencies"}, "morphnet: cost .*'latencies'; did you mean latency"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        entry("morphnet").build(**values)
