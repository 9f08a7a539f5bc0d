"""Promise 8: the study's architectures, as presets of the bundled spaces, have the counts computed elsewhere."""

import dataclasses
import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunas.errors import InputError
from prunas.networks import imagenet
from prunas.recipe import recipe, scratch_b_epochs
from prunas.spaces.load import bundled_spaces, load_point, load_space
from prunas.spaces.space import SearchSpace

# Parameters and MACs, counted on plain networks written for that alone.
PRESETS = {
    ("densenet40-c10", "DenseNet-40"): (1_059_298, 282_917_328),
    ("densenet40-c100", "DenseNet-40 (100 classes)"): (1_100_428, 282_958_368),
    ("densenetbc100-c10", "DenseNet-BC-100"): (769_162, 287_929_692),
    ("preresnet110-c10", "PreResNet-110 (unstructured)"): (1_146_842, 167_430_656),
    ("preresnet164-c10", "PreResNet-164"): (1_703_258, 247_646_720),
    ("preresnet164-c100", "PreResNet-164 (100 classes)"): (1_726_388, 247_669_760),
    ("preresnet50-imagenet", "SSS ResNet-50 (parent)"): (25_549_480, 4_089_184_256),
    ("preresnet50-imagenet", "SSS ResNet-41"): (25_351_080, 3_472_621_568),
    ("preresnet50-imagenet", "SSS ResNet-32"): (14_261_928, 2_817_523_712),
    ("preresnet50-imagenet", "SSS ResNet-26"): (14_915_496, 2_278_031_360),
    ("resnet110-c10", "ResNet-110"): (1_727_962, 252_887_680),
    ("resnet110-c10", "ResNet-110-A"): (1_688_522, 212_779_648),
    ("resnet110-c10", "ResNet-110-B"): (1_168_424, 155_124_352),
    ("resnet34-imagenet", "ResNet-34"): (21_797_672, 3_663_761_408),
    ("resnet34-imagenet", "ResNet-34-A"): (20_151_764, 3_100_184_576),
    ("resnet34-imagenet", "ResNet-34-B"): (19_469_372, 2_782_269_440),
    ("resnet50-imagenet", "ResNet-50"): (25_557_032, 4_089_184_256),
    ("resnet50-regression-imagenet", "ResNet-50-2x"): (19_697_424, 2_730_129_076),
    ("resnet50-thinet-imagenet", "ResNet50-30%"): (8_669_158, 1_166_283_835),
    ("resnet50-thinet-imagenet", "ResNet50-50%"): (12_385_704, 1_822_031_872),
    ("resnet50-thinet-imagenet", "ResNet50-70%"): (16_949_086, 2_601_392_356),
    ("resnet56-c10", "ResNet-56"): (853_018, 125_485_696),
    ("resnet56-c10", "ResNet-56-A"): (773_336, 112_435_840),
    ("resnet56-c10", "ResNet-56-B"): (735_712, 90_907_264),
    ("vgg11-imagenet", "VGG-11-BN (slimming)"): (132_885_224, 7_609_090_048),
    ("vgg16-bn-imagenet", "VGG-16-BN (ImageNet, unstructured)"): (138_365_992, 15_470_264_320),
    ("vgg16-c10", "VGG-16 (slimming)"): (14_724_042, 313_201_664),
    ("vgg16-c10", "VGG-16 table 8 mean widths (rounded)"): (2_472_429, 181_085_138),
    ("vgg16-gap-imagenet", "VGG-GAP"): (8_322_696, 4_668_084_224),
    ("vgg16-gap-imagenet", "VGG-Tiny"): (1_325_368, 1_004_578_816),
    ("vgg16-imagenet", "VGG-16 (ImageNet, no BN)"): (138_357_544, 15_470_264_320),
    ("vgg16-imagenet", "VGG-Conv"): (131_452_552, 4_791_205_888),
    ("vgg16-imagenet", "VGG-16-5x"): (130_879_294, 3_515_283_520),
    ("vgg16-l1-c10", "VGG-16 (L1)"): (14_987_722, 313_463_808),
    ("vgg16-l1-c10", "VGG-16-A"): (5_397_034, 206_279_680),
    ("vgg19-bias-c10", "VGG-19 (unstructured)"): (20_040_522, 398_136_320),
    ("vgg19-c10", "VGG-19 (slimming)"): (20_035_018, 398_136_320),
    ("vgg19-c100", "VGG-19 (slimming, 100 classes)"): (20_081_188, 398_182_400),
}
WITHOUT_PRESETS = {"preresnet20-digits", "preresnet20-c10", "resnet20-c10", "vgg11-digits"} | {
    *("mobilenet-v1-imagenet", "mobilenet-v1-wide-imagenet", "resnet50-streams-imagenet"),
    *("mobilenet-v2-imagenet", "mobilenet-v2-wide-imagenet", "mnasnet-wide-imagenet"),
    *("tas-resnet20-c10", "tas-resnet20-c100", "tas-resnet32-c10", "tas-resnet32-c100"),
    *("tas-resnet32-widths-c10", "tas-resnet36-c100", "tas-resnet64-c10", "tas-resnet68-c100"),
}
IMAGENET = sorted({space for space, _ in PRESETS if space.endswith("imagenet")})


def built(space: SearchSpace, name: str) -> nn.Module:
    """A preset's network, without memory for its weights."""
    with torch.device("meta"):
        return space.build(space.preset(name).architecture).eval()


def test_every_bundled_space_and_preset_is_known_here() -> None:
    assert set(bundled_spaces()) == {space for space, _ in PRESETS} | WITHOUT_PRESETS
    found = [(name, preset.name) for name in bundled_spaces() for preset in load_space(name).presets]
    assert sorted(found) == sorted(PRESETS)


def test_names_and_slugs_are_unique_and_slugs_need_no_quoting() -> None:
    presets = [preset for name in bundled_spaces() for preset in load_space(name).presets]
    slugs = {preset.slug for preset in presets}
    assert len({preset.name for preset in presets}) == len(slugs) == len(presets) == len(PRESETS)
    assert all(re.fullmatch(r"[a-z0-9.-]+", slug) for slug in slugs)
    assert all(preset.source for preset in presets)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_counted_cost(name: str, preset: str) -> None:
    space, arch = load_point(f"{name}:{preset}")
    expected = PRESETS[name, preset]
    assert space.cost(arch) == (*expected, *expected)
    assert load_point(f"{name}:{space.preset(preset).slug}")[1] == arch


@pytest.mark.parametrize(("name", "preset"), [point for point in PRESETS if point[0] in IMAGENET])
def test_cost_by_torch(name: str, preset: str) -> None:
    net = built(load_space(name), preset)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = net(torch.empty(1, 3, 224, 224, device="meta"))
    assert logits.shape == (1, 1000)
    params = sum(parameter.numel() for parameter in net.parameters())
    assert (params, counter.get_total_flops() // 2) == PRESETS[name, preset]


@pytest.mark.parametrize(
    ("name", "preset", "epochs"),
    [
        ("vgg16-l1-c10", "VGG-16-A", 243),
        ("resnet56-c10", "ResNet-56-A", 178),
        ("resnet56-c10", "ResNet-56-B", 220),
        ("resnet110-c10", "ResNet-110-A", 190),
        ("resnet110-c10", "ResNet-110-B", 260),
        ("resnet34-imagenet", "ResNet-34-A", 106),
        ("resnet34-imagenet", "ResNet-34-B", 118),
        ("vgg16-imagenet", "VGG-Conv", 180),
        ("vgg16-gap-imagenet", "VGG-GAP", 180),
        ("vgg16-gap-imagenet", "VGG-Tiny", 180),
        ("resnet50-thinet-imagenet", "ResNet50-30%", 180),
        ("resnet50-thinet-imagenet", "ResNet50-50%", 180),
        ("resnet50-thinet-imagenet", "ResNet50-70%", 141),
        ("vgg16-imagenet", "VGG-16-5x", 180),
        ("resnet50-regression-imagenet", "ResNet-50-2x", 134),
        ("preresnet50-imagenet", "SSS ResNet-41", 117),
        ("preresnet50-imagenet", "SSS ResNet-32", 145),
        ("preresnet50-imagenet", "SSS ResNet-26", 179),
    ],
)
def test_scratch_b_epochs(name: str, preset: str, epochs: int) -> None:
    space, arch = load_point(f"{name}:{preset}")
    dense, macs = space.cost(space.dense).dense_macs, space.cost(arch).dense_macs
    assert scratch_b_epochs(recipe(space.study.recipe).epochs, dense, macs, space.study.cap) == epochs


def test_recipes_and_caps() -> None:
    found = {name: load_space(name) for name in IMAGENET}
    assert all(space.study.data == "folder" for space in found.values())
    assert {name: (space.study.recipe, space.study.cap) for name, space in found.items()} == {
        "preresnet50-imagenet": ("sss", None),
        "resnet34-imagenet": ("imagenet", 2),
        "resnet50-imagenet": ("imagenet", None),
        "resnet50-regression-imagenet": ("imagenet", 2),
        "resnet50-thinet-imagenet": ("imagenet", 2),
        "vgg11-imagenet": ("imagenet", None),
        "vgg16-bn-imagenet": ("imagenet", None),
        "vgg16-gap-imagenet": ("imagenet-vgg", 2),
        "vgg16-imagenet": ("imagenet-vgg", 2),
    }
    assert all(load_space(name).study.cap is None for name in bundled_spaces() if name not in IMAGENET)


@pytest.mark.parametrize(
    ("name", "groups", "gates", "blocks"),
    [
        ("preresnet50-imagenet", 0, 0, 16),
        ("resnet34-imagenet", 16, 0, 0),
        ("resnet50-imagenet", 32, 0, 0),
        ("resnet50-regression-imagenet", 32, 16, 0),
        ("resnet50-thinet-imagenet", 32, 0, 0),
        ("vgg11-imagenet", 10, 0, 0),
        ("vgg16-bn-imagenet", 13, 0, 0),
        ("vgg16-gap-imagenet", 13, 0, 0),
        ("vgg16-imagenet", 13, 0, 0),
    ],
)
def test_what_varies(name: str, groups: int, gates: int, blocks: int) -> None:
    space = load_space(name)
    kinds = [dimension.kind for dimension in space.dimensions]
    assert (kinds.count("group"), kinds.count("gate"), len(space.removable)) == (groups, gates, blocks)


def test_the_channels_that_slimming_thresholds_in_vgg11() -> None:
    assert sum(dimension.dense for dimension in load_space("vgg11-imagenet").dimensions) == 10_944


def test_sampled_inputs_leave_the_shortcut_whole() -> None:
    block = built(load_space("resnet50-regression-imagenet"), "ResNet-50-2x").layer2[0]
    assert block.conv1.weight.shape == (128, 144, 1, 1)
    assert block.conv1.index.shape == (144,)
    assert block.conv3.weight.shape == (512, 106, 1, 1)
    assert block.downsample[0].weight.shape == (512, 256, 1, 1)
    assert block.downsample[0].bias.shape == (512,)


def test_a_removed_first_block_leaves_its_projection() -> None:
    net = built(load_space("preresnet50-imagenet"), "SSS ResNet-26")
    assert {name for name, _ in net.layer3[0].named_parameters()} == {
        "bn1.weight",
        "bn1.bias",
        "shortcut.weight",
    }
    assert isinstance(net.layer1[1], nn.Identity)
    assert not list(net.layer4[1].parameters())


def small(name: str, count: int) -> nn.Module:
    """A network of a few units per group, on a real device."""
    space = load_space(name)
    space = dataclasses.replace(space, groups=("*",), exclude=())
    torch.manual_seed(0)
    return space.build(space.point({dimension.name: count for dimension in space.dimensions}))


@pytest.mark.parametrize(
    "name", ["preresnet50-imagenet", "resnet50-thinet-imagenet", "vgg11-imagenet", "vgg16-gap-imagenet"]
)
def test_networks_learn_from_every_weight(name: str) -> None:
    net = small(name, 8)
    nn.functional.cross_entropy(net(torch.randn(4, 3, 64, 64)), torch.arange(4)).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters() if p.ndim > 1)


def test_the_projection_reads_the_activated_input_and_the_identity_the_raw_one() -> None:
    net = small("preresnet50-imagenet", 8).eval()
    x = torch.randn(2, 8, 8, 8)
    first, second = net.layer2[0], net.layer2[1]
    nn.init.zeros_(first.conv3.weight)
    nn.init.zeros_(second.conv3.weight)
    nn.init.normal_(first.bn1.bias)
    with torch.no_grad():
        torch.testing.assert_close(first(x), first.shortcut(first.bn1(x).relu()))
        torch.testing.assert_close(second(x), x)


def test_initial_weights() -> None:
    net = small("vgg11-imagenet", 8)
    norms = [m.weight.detach() for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == 10
    assert all(bool((scale == 0.5).all()) for scale in norms)
    assert float(net.classifier[6].weight.detach().std()) == pytest.approx(0.01, rel=0.03)
    with torch.device("meta"):
        dense = imagenet.resnet50()
    biased = [path for path, m in dense.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert biased == [f"layer{stage}.0.downsample.0" for stage in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def streams() -> SearchSpace:
    """A space in which streams vary too, so that fewer channels reach a gate than in the dense network."""
    return dataclasses.replace(load_space("preresnet20-c10"), groups=("*",))


def test_a_number_selects_evenly_among_the_channels_that_are_there(streams: SearchSpace) -> None:
    entry = {"widths": {"layer1.0.conv3": 10}, "selected": {"layer1.1.conv1": 4, "fc": [3, 5]}}
    space = dataclasses.replace(streams, raw_presets={"some": entry})
    assert dict(space.preset("some").architecture.selected) == {
        "layer1.1.conv1": (0, 2, 5, 7),
        "fc": (3, 5),
    }


@pytest.mark.parametrize(
    ("selected", "message"),
    [
        ({"layer1.1.conv1": 65}, "preset 'some': gate 'layer1.1.conv1' selects among 64 channels"),
        ({"layer1.1.conv1": 0}, "preset 'some': gate 'layer1.1.conv1' lets too few channels through"),
        ({"layer1.1.conv": 3}, "preset 'some': unknown gate .*'layer1.1.conv'; did you mean layer1.1.conv1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    streams: SearchSpace, selected: dict[str, int], message: str
) -> None:
    space = dataclasses.replace(streams, raw_presets={"some": {"selected": selected}})
    with pytest.raises(InputError, match=message):
        _ = space.presets
