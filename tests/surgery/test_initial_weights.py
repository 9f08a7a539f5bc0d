"""Promise 9: a built network starts from the factory's own distribution at its own shape."""

import math
import random
from functools import partial

import pytest
import torch
from torch import nn

from prunas import networks
from prunas.architecture import Architecture, KernelPattern
from prunas.surgery.assemble import build
from prunas.tracing.survey import survey
from tests.surgery.bundled import FACTORIES, point, random_kept, surveyed


def halved(name: str, **options: object) -> Architecture:
    made = surveyed(name)
    return Architecture(
        "test", made.fingerprint, tuple(sorted((g.name, g.units // 2) for g in made.groups)), **options
    )


@pytest.mark.parametrize("name", FACTORIES)
def test_the_dense_point_is_the_factory_itself(name: str) -> None:
    torch.manual_seed(7)
    expected = FACTORIES[name]().state_dict()
    torch.manual_seed(7)
    actual = build(FACTORIES[name], surveyed(name), point(surveyed(name), {})).state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize(("name", "fan"), [("vgg16", "out"), ("vgg19-bias", "in"), ("resnet56", "out")])
def test_convolutions_have_the_deviation_of_their_own_shape(name: str, fan: str) -> None:
    torch.manual_seed(0)
    net = build(FACTORIES[name], surveyed(name), halved(name))
    wide = 0
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and (count := module.weight.numel()) > 2000:
            weight = module.weight.detach()
            channels = module.out_channels if fan == "out" else module.in_channels
            expected = math.sqrt(2 / (9 * channels))
            # The deviation of n normal numbers has a relative standard error of 1 / sqrt(2 n). A slice of the
            # dense network would be 29 % too small, torch's own initialisation 59 %.
            error = 1 / math.sqrt(2 * count)
            assert float(weight.std()) == pytest.approx(expected, rel=5 * error)
            assert abs(float(weight.mean())) < 5 * expected / math.sqrt(count)
            wide += 1
            assert 5 * error < 0.1
    assert wide >= 10


def test_scales_shifts_and_linear_layers_of_a_narrow_vgg() -> None:
    torch.manual_seed(0)
    net = build(FACTORIES["vgg16-l1-bias"], surveyed("vgg16-l1-bias"), halved("vgg16-l1-bias"))
    for module in net.modules():
        if isinstance(
            module, nn.BatchNorm1d | nn.BatchNorm2d
        ):  # the study's code sets the scales of maps only
            scale = 0.5 if isinstance(module, nn.BatchNorm2d) else 1.0
            assert bool((module.weight == scale).all()) and bool((module.bias == 0).all())
        if isinstance(module, nn.Conv2d):
            assert bool((module.bias == 0).all())
        if isinstance(module, nn.Linear):
            error = 1 / math.sqrt(2 * module.weight.numel())
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=5 * error)


def test_a_layer_with_torchs_own_initialisation_has_that_of_its_own_width() -> None:
    made = surveyed("resnet20")
    arch = Architecture("test", made.fingerprint, (("layer3.0.conv2", 16),))
    drawn = []
    for seed in range(20):
        torch.manual_seed(seed)
        drawn.append(build(FACTORIES["resnet20"], made, arch).get_submodule("fc").weight.detach().ravel())
    values = torch.cat(drawn)
    inputs = 16 + 32  # what the shortcut pads, and the stream of stage 2
    assert drawn[0].numel() == 10 * inputs
    bound = 1 / math.sqrt(inputs)  # torch: uniform in +- 1 / sqrt(inputs); the dense layer has 64 of them
    assert 0.99 * bound < float(values.abs().max()) <= bound
    assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_a_gated_layer_is_born_as_narrow_as_its_selection() -> None:
    made = surveyed("densenet40")
    arch = point(made, {}).replace(selected=(("fc", tuple(range(0, 456, 4))),))
    torch.manual_seed(0)
    net = build(FACTORIES["densenet40"], made, arch)
    weight = net.get_parameter("fc.weight").detach()
    assert weight.shape == (10, 114)
    bound = 1 / math.sqrt(114)
    assert 0.98 * bound < float(weight.abs().max()) <= bound
    assert bool((net.get_submodule("bn").weight == 0.5).all()) and net.get_submodule("bn").num_features == 114


def test_a_bare_scale_keeps_its_constant() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.scale = nn.Parameter(torch.full((8, 1, 1), 0.25))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x) * self.scale)

    made = survey(Scaled, (3, 4, 4))
    net = build(Scaled, made, Architecture("test", made.fingerprint, (("first", 3),)))
    assert torch.equal(net.get_parameter("scale"), torch.full((3, 1, 1), 0.25))


def test_kernel_masks_zero_weights_and_scale_the_rest_by_their_density() -> None:
    name = "vgg11-digits"
    pattern = KernelPattern(frequencies=(("0/3x3", (1.0, 0, 0, 0, 1.0, 0, 0, 0, 0.5)),))
    torch.manual_seed(5)
    dense = build(FACTORIES[name], surveyed(name), point(surveyed(name), {}))
    torch.manual_seed(5)
    sparse = build(FACTORIES[name], surveyed(name), point(surveyed(name), {}).replace(kernels=pattern))
    weight, drawn = sparse.get_submodule("features.0").weight, dense.get_submodule("features.0").weight
    kept = weight != 0
    # The study draws the weights that exist with a standard deviation of sqrt(2 / n), n counting those that exist.
    torch.testing.assert_close(weight[kept], drawn[kept] * (kept.numel() / int(kept.sum())) ** 0.5)
    assert (kept.sum((0, 1)).ravel().tolist()) == [16, 0, 0, 0, 16, 0, 0, 0, 8]
    later = [k for k in sparse.state_dict() if k.endswith("features.4.weight")]
    assert all(torch.equal(sparse.state_dict()[k], dense.state_dict()[k]) for k in later)


def test_the_network_options_reach_their_weights() -> None:
    net = partial(networks.vgg11, gamma=1.0, fan="in")()
    assert all(bool((m.weight == 1).all()) for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    conv = net.features[4]
    assert float(conv.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * conv.in_channels)), rel=0.02)


def test_random_points_differ_by_seed_and_repeat_with_it() -> None:
    name = "resnet20"
    arch = point(surveyed(name), random_kept(surveyed(name), random.Random(0)))
    torch.manual_seed(1)
    first = build(FACTORIES[name], surveyed(name), arch).state_dict()
    torch.manual_seed(1)
    again = build(FACTORIES[name], surveyed(name), arch).state_dict()
    other = build(FACTORIES[name], surveyed(name), arch).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
