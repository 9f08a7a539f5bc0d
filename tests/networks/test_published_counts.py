"""The study's architectures by their computed counts: literals, found by building them in plain torch."""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import nn

from prunas import networks
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.survey import Survey
from prunas.tracing.survey import survey

FACTORIES = {
    "VGG-16 (L1)": partial(networks.vgg16, head="hidden"),
    "VGG-16 (slimming)": networks.vgg16,
    "VGG-19": networks.vgg19,
    "VGG-19/100": partial(networks.vgg19, classes=100),
    "VGG-19 (unstructured)": partial(networks.vgg19, conv_bias=True, gamma=1.0, fan="in"),
    "ResNet-56": networks.resnet56,
    "ResNet-110": networks.resnet110,
    "PreResNet-164": networks.preresnet164,
    "PreResNet-164/100": partial(networks.preresnet164, classes=100),
    "PreResNet-110": partial(networks.preresnet110, gamma=1.0),
    "DenseNet-40": networks.densenet40,
    "DenseNet-40/100": partial(networks.densenet40, classes=100),
    "DenseNet-BC-100": networks.densenetbc100,
    "DenseNet-100 as the released code builds it": partial(networks.DenseNet, 100, compression=0.5),
}


@cache
def surveyed(name: str) -> Survey:
    return survey(FACTORIES[name], (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("VGG-16 (L1)", 14_987_722, 313_463_808),
        ("VGG-16 (slimming)", 14_724_042, 313_201_664),
        ("VGG-19", 20_035_018, 398_136_320),
        ("VGG-19/100", 20_081_188, 398_182_400),
        ("VGG-19 (unstructured)", 20_040_522, 398_136_320),
        ("ResNet-56", 853_018, 125_485_696),
        ("ResNet-110", 1_727_962, 252_887_680),
        ("PreResNet-164", 1_703_258, 247_646_720),
        ("PreResNet-164/100", 1_726_388, 247_669_760),
        ("PreResNet-110", 1_146_842, 167_430_656),
        ("DenseNet-40", 1_059_298, 282_917_328),
        ("DenseNet-40/100", 1_100_428, 282_958_368),
        ("DenseNet-BC-100", 769_162, 287_929_692),
        ("DenseNet-100 as the released code builds it", 4_068_490, 1_324_548_732),
    ],
)
def test_dense_counts(name: str, params: int, macs: int) -> None:
    model = CostModel(surveyed(name))
    assert model.of(Architecture("test", surveyed(name).fingerprint)) == (params, macs, params, macs)


def of_widths(name: str, widths: list[int]) -> Architecture:
    """Widths of every convolution of a VGG, in order."""
    groups = [group.name for group in surveyed(name).groups if group.name.startswith("features")]
    return Architecture("test", surveyed(name).fingerprint, tuple(sorted(zip(groups, widths, strict=True))))


STAGES = ("layer1", "layer2", "layer3")


def of_stages(name: str, kept: tuple[int, int, int], skip: tuple[int, ...]) -> Architecture:
    """The first convolution of every block at its stage's width, except in skipped layers (stem 1)."""
    blocks = [block.name for block in surveyed(name).blocks]
    widths = {
        f"{block}.conv1": kept[STAGES.index(block.split(".")[0])]
        for i, block in enumerate(blocks, 1)
        if not {2 * i, 2 * i + 1} & set(skip)
    }
    return Architecture("test", surveyed(name).fingerprint, tuple(sorted(widths.items())))


@pytest.mark.parametrize(
    ("name", "widths", "params", "macs"),
    [
        # VGG-16-A (Li et al. 2017)
        ("VGG-16 (L1)", [32, 64, 128, 128, *[256] * 9], 5_397_034, 206_279_680),
        # table 8 of the study, rounded means of five runs
        (
            "VGG-16 (slimming)",
            [39, 64, 128, 128, 255, 250, 226, 217, 120, 63, 48, 62, 89],
            2_472_429,
            181_085_138,
        ),
        # transferred: the stage means of table 8 on VGG-19, and its uniform counterpart at 40 %
        ("VGG-19/100", [52] * 2 + [128] * 2 + [244] * 4 + [133] * 4 + [66] * 4, 3_098_909, 213_417_552),
        ("VGG-19/100", [26] * 2 + [51] * 2 + [102] * 4 + [205] * 8, 3_230_624, 64_209_076),
    ],
)
def test_vgg_shapes(name: str, widths: list[int], params: int, macs: int) -> None:
    cost = CostModel(surveyed(name)).of(of_widths(name, widths))
    assert (cost.dense_params, cost.dense_macs) == (params, macs)


@pytest.mark.parametrize(
    ("name", "kept", "skip", "params", "macs"),
    [
        ("ResNet-56", (14, 28, 57), (16, 20, 38, 54), 773_336, 112_435_840),
        ("ResNet-56", (6, 22, 57), (16, 18, 20, 34, 38, 54), 735_712, 90_907_264),
        ("ResNet-110", (8, 32, 64), (36,), 1_688_522, 212_779_648),
        ("ResNet-110", (8, 19, 44), (36, 38, 74), 1_168_424, 155_124_352),
    ],
)
def test_resnet_shapes(
    name: str, kept: tuple[int, int, int], skip: tuple[int, ...], params: int, macs: int
) -> None:
    cost = CostModel(surveyed(name)).of(of_stages(name, kept, skip))
    assert (cost.dense_params, cost.dense_macs) == (params, macs)


@pytest.mark.parametrize(
    ("name", "groups", "gates", "blocks"),
    [
        ("VGG-16 (L1)", 14, 0, 0),
        ("VGG-19", 16, 0, 0),
        ("ResNet-56", 30, 28, 27),
        ("PreResNet-164", 112, 58, 54),
        ("DenseNet-40", 39, 39, 0),
    ],
)
def test_what_can_vary(name: str, groups: int, gates: int, blocks: int) -> None:
    made = surveyed(name)
    assert (len(made.groups), len(made.gates), len(made.blocks)) == (groups, gates, blocks)
    assert [(f.what, f.why) for f in made.frozen] == [(made.layers[-1].path, "the network's output")]
    assert all(group.maskable and group.unit == 1 for group in made.groups)


def test_the_population_that_slimming_thresholds() -> None:
    def gated(name: str) -> int:
        model = CostModel(surveyed(name))
        inputs = model.gate_inputs(model.dense_widths[None])[0]
        return int(sum(n for gate, n in zip(surveyed(name).gates, inputs, strict=True) if gate.norm))

    def plain(name: str) -> int:
        return sum(group.units for group in surveyed(name).groups if group.role == "plain")

    assert plain("VGG-19") == 5504
    assert plain("VGG-16 (slimming)") == 4224
    assert gated("DenseNet-40") == 9360
    stem = 16  # its norm is the gate of the first block
    assert gated("PreResNet-164") + plain("PreResNet-164") - stem == 12112


@pytest.mark.parametrize(
    ("name", "sizes", "convolutions"),
    [
        ("VGG-16 (L1)", [32, 16, 8, 4, 2], [2, 2, 3, 3, 3]),
        ("VGG-19", [32, 16, 8, 4, 2], [2, 2, 4, 4, 4]),
        ("ResNet-56", [32, 16, 8], [19, 18, 18]),
        ("PreResNet-164", [32, 16, 8], [56, 55, 55]),
        ("DenseNet-40", [32, 16, 8], [14, 13, 12]),
    ],
)
def test_stages(name: str, sizes: list[int], convolutions: list[int]) -> None:
    made = surveyed(name)
    assert made.stages == (*((size, size) for size in sizes), ())
    counts = Counter(layer.stage for layer in made.layers if layer.kind == "conv")
    assert [counts[stage] for stage in range(len(sizes))] == convolutions
    assert all(layer.stage == len(sizes) for layer in made.layers if layer.kind == "linear")


def test_roles_and_names() -> None:
    assert {g.name: (g.role, g.units) for g in surveyed("ResNet-56").groups if g.role != "plain"} == {
        "conv1": ("residual", 16),
        "layer2.0.conv2": ("residual", 16),
        "layer3.0.conv2": ("residual", 32),
    }
    assert all(group.role == "concatenated" for group in surveyed("DenseNet-40").groups)
    streams = [g.name for g in surveyed("PreResNet-164").groups if g.role == "residual"]
    assert streams == ["layer1.0.conv3", "layer2.0.conv3", "layer3.0.conv3"]


@pytest.mark.parametrize(
    "factory",
    [
        partial(networks.vgg11, head="hidden", conv_bias=True),
        networks.resnet20,
        networks.preresnet20,
        partial(networks.DenseNet, 10),
        partial(networks.DenseNet, 16, bottleneck=True, compression=0.5),
    ],
)
def test_networks_learn_from_every_weight(factory: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = factory()
    nn.functional.cross_entropy(net(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters() if p.ndim > 1)


def test_resnet_shortcut_pools_and_pads() -> None:
    block = networks.resnet20().layer2[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 16, 8, 8).abs()
    expected = torch.nn.functional.avg_pool2d(x, 2)
    with torch.no_grad():
        y = block(x)
    torch.testing.assert_close(y[:, :16], expected)
    assert not bool(y[:, 16:].any())


@pytest.mark.parametrize(("fan", "channels"), [("in", 64), ("out", 128)])
def test_convolutions_start_from_a_normal_distribution(fan: str, channels: int) -> None:
    torch.manual_seed(0)
    weight = networks.vgg11(fan=fan).features[4].weight.detach()
    assert weight.shape == (128, 64, 3, 3)
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (9 * channels)), rel=0.015)
    standard = (weight / weight.std()).ravel()
    assert float((standard.abs() < 1).float().mean()) == pytest.approx(
        0.6827, abs=0.01
    )  # a uniform one has 0.577
