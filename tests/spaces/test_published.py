"""Published shapes of `search_spaces/found/` cost what they should."""

import json
from functools import cache

import pytest
import torch
from torch import nn

from prunas.architecture import Architecture
from prunas.experiments.transfer import load_source
from prunas.spaces.load import load_space, space_folder

FILES = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((space_folder() / "found").glob("*.json"))
}
POINTS = {
    point["name"]: (document, point)
    for document in FILES.values()
    for point in document["points"]
    if "published" in point
}

GOLDEN_MACS = {
    "AMC MobileNet-V1 50 % FLOPs": 293_870_000,
    "MobileNet-V1 x0.75": 325_400_448,
    "AutoSlim MobileNet-V1 150M": 149_825_128,
    "AutoSlim MobileNet-V1 325M": 324_756_536,
    "TAS ResNet-20": 22_444_472,
    "TAS ResNet-20 CIFAR-100": 22_433_792,
    "TAS ResNet-32": 34_945_344,
    "TAS ResNet-56": 59_858_430,
    "FilterSketch ResNet-56 0.6": 73_360_000,
}
"""Counted elsewhere."""

WEIGHTS = {
    "AMC MobileNet-V1 50 % FLOPs": 2_392_680,
    "MobileNet-V1 x0.75": 2_569_144,
    "AutoSlim MobileNet-V1 150M": 1_875_776,
    "AutoSlim MobileNet-V1 325M": 3_983_064,
    "TAS ResNet-20": 226_808 + 10,  # the source leaves out the biases of the classifier
}
"""Parameters without those of batch norms, counted elsewhere."""

OTHERWISE = {
    "AMC MobileNet-V1 50 % FLOPs": (285_000_000, 293_870_000),
    "AMC MobileNet-V1 50 % time": (272_000_000, 273_976_912),
    "AMC MobileNet-V2 70 % FLOPs": (210_000_000, 210_620_528),
    "CHIP ResNet-50 2.19G": (2_190_000_000, 2_090_549_079),
    "DMCP ResNet-50 2.07G": (2_070_000_000, 2_194_130_032),
    "FilterSketch ResNet-110": (92_840_000, 100_067_968),
    "Group Fisher MobileNet-V2 by flops": (207_000_000, 198_986_131),
    "Group Fisher MobileNet-V2 by act": (207_000_000, 200_469_704),
    "MetaPruning MobileNet-V1": (316_000_000, 311_663_518),
    "MetaPruning ResNet-50": (1_000_000_000, 1_027_554_986),
    "ThiNet ResNet-50 70 %": (2_440_000_000, 2_601_392_356),
}
"""MACs as published, and as we count the network of the published list: they cannot be brought together."""

OTHER_PARAMETERS = {
    "DCFF VGG-16": (1_060_000, 1_070_078),
    "ThiNet ResNet-50 70 %": (16_940_000, 16_949_086),
}
"""Parameters as published, and as we count them."""

LAST_LISTED = {
    "TAS ResNet-56": (4, 9, 25),
    "TAS ResNet-56 CIFAR-100": (4, 9, 19),
    "TAS ResNet-110": (4, 9, 51),
    "TAS ResNet-110 CIFAR-100": (4, 9, 19),
}
"""Width of the last block that the source lists for each stage, which its shape has removed."""


@cache
def outputs(name, kinds):
    """Elements of the outputs of the batch norms or convolutions of a point's network, for one image."""
    document, point = POINTS[name]
    space = load_space(document["space"])
    arch = Architecture.from_json(point["architecture"])
    with torch.device("meta"):
        net = space.build(arch).eval()
    elements = []
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, inputs, output: elements.append(output[0].numel()))
    with torch.no_grad():
        net(torch.empty(2, *space.survey.input, device="meta"))
    return sum(elements)


def norm_parameters(space, arch):
    norms = {layer.path for layer in space.survey.layers if layer.kind == "norm"}
    rows = [row for row in space.survey.rows if row.layer in norms]
    widths = space.costs.widths(arch).tolist()
    return sum(row.params * space.survey.size(row.writes, widths) for row in rows)


def half_a_digit(number):
    """Half of the last digit that is not 0, at most 0.6 %."""
    digits = str(number)
    return min(10 ** (len(digits) - len(digits.rstrip("0"))) / 2, 0.006 * number)


def test_there_are_as_many_as_are_said_to_be():
    assert len(POINTS) == 62
    assert set(GOLDEN_MACS) | set(OTHERWISE) | set(OTHER_PARAMETERS) | set(LAST_LISTED) <= set(POINTS)
    assert all(document["source"] and point["cost"] for document, point in POINTS.values())
    assert sum(len(d["points"]) for d in FILES.values() if "published" in d["points"][0]) == len(POINTS)


@pytest.mark.parametrize("name", sorted(POINTS))
def test_it_lies_in_its_space_at_the_cost_that_is_written_down(name):
    document, point = POINTS[name]
    space = load_space(document["space"])
    arch = Architecture.from_json(point["architecture"])
    space.check(arch)
    assert space.canonical(arch) == arch
    cost = space.cost(arch)
    assert {"params": cost.params, "macs": cost.macs} == point["cost"]
    if name in GOLDEN_MACS:
        assert cost.macs == GOLDEN_MACS[name]
    if name in WEIGHTS:
        assert cost.params - norm_parameters(space, arch) == WEIGHTS[name]


@pytest.mark.parametrize("name", sorted(POINTS))
def test_its_macs_are_the_published_ones_or_both_are_listed(name):
    """Some sources count operations of norms and biases too, and say so in `counted_with`."""
    published, counted = POINTS[name][1]["published"], POINTS[name][1]["cost"]["macs"]
    macs = published.get("macs")
    if name in OTHERWISE:
        assert (macs, counted) == OTHERWISE[name]
    elif name not in LAST_LISTED and macs is not None:
        operations = published.get("counted_with", {})
        if "norms" in operations:
            counted += operations["norms"] * outputs(name, (nn.BatchNorm1d, nn.BatchNorm2d))
        if "biases" in operations:
            counted += operations["biases"] * outputs(name, nn.Conv2d)
        assert abs(counted - macs) <= max(0.0005 * macs, half_a_digit(macs))


@pytest.mark.parametrize("name", sorted(LAST_LISTED))
def test_where_blocks_went_the_published_macs_read_the_width_of_a_removed_one(name):
    """What follows a shortened stage is published as if it read the last listed block, not the last kept one."""
    document, point = POINTS[name]
    with torch.device("meta"):
        net = load_space(document["space"]).build(Architecture.from_json(point["architecture"]))
    readers = [block for block in net.blocks if block.conv1.stride == (2, 2)]
    excess = 0
    for block, listed, pixels in zip(readers, LAST_LISTED[name], (16 * 16, 8 * 8), strict=False):
        spared = block.conv1.in_channels - listed
        excess += spared * (9 * block.conv1.out_channels + block.conv2.out_channels) * pixels
    excess += (net.fc.in_features - LAST_LISTED[name][-1]) * net.fc.out_features
    assert point["cost"]["macs"] - excess == point["published"]["macs"]


@pytest.mark.parametrize(
    "name", [name for name in sorted(POINTS) if "params" in POINTS[name][1]["published"]]
)
def test_its_parameters_are_the_published_ones_or_both_are_listed(name):
    """Some sources leave out norms and biases."""
    document, point = POINTS[name]
    published, counted = point["published"]["params"], point["cost"]["params"]
    if name in OTHER_PARAMETERS:
        assert (published, counted) == OTHER_PARAMETERS[name]
        return
    arch = Architecture.from_json(point["architecture"])
    with torch.device("meta"):
        net = load_space(document["space"]).build(arch)
    weights = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert min(abs(counted - published), abs(weights - published)) <= half_a_digit(published)


@pytest.mark.parametrize(
    ("space", "proposer"),
    sorted({(document["space"], document["proposer"]) for document, _ in POINTS.values()}),
)
def test_transfers_take_them(space, proposer):
    source = load_source(load_space(space), proposer)
    assert source.shipped
    assert source.points
