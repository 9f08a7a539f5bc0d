"""Promise 1: a smaller network computes what the dense one computes with its readers' input slices zeroed."""

import random
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from benchmarks.support.oracle import Point, masked
from prunas.architecture import Architecture
from prunas.surgery.assemble import build
from prunas.surgery.weights import inherit
from tests.surgery.bundled import FACTORIES, SMALL, Kept, point, random_kept, surveyed

BATCH = 4
TOLERANCE = 1e-9

EVERY = sorted(FACTORIES)
GATED = [name for name in EVERY if "vgg" not in name]
RESIDUAL = [name for name in EVERY if "resnet" in name]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomise(net: nn.Module) -> None:
    """Initial scales, shifts and statistics are constants, which hide errors."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@cache
def dense_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = FACTORIES[name]()
    randomise(net)
    return net


def assert_close(actual: Tensor, expected: Tensor, scale: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    assert float((actual - expected).detach().abs().max()) <= TOLERANCE * scale, what


def check(name: str, arch: Architecture, kept: Kept, gradients: bool = True) -> None:
    survey, dense = surveyed(name), dense_network(name)
    torch.manual_seed(1)
    images = torch.randn(BATCH, *SMALL[name])
    built = build(FACTORIES[name], survey, arch, weights=dense.state_dict(), kept=kept)
    assert sum(p.numel() for p in built.parameters()) < sum(p.numel() for p in dense.parameters())
    with masked(dense, survey, Point(arch, kept)) as reference:
        with torch.no_grad():
            expected, _ = reference(False, [images])
            assert_close(built.eval()(images), expected, float(expected.abs().max()), "eval")

        expected, buffers = reference(True, [images])
        actual = built.train()(images)
        assert_close(actual, expected, float(expected.detach().abs().max()), "train")
        statistics = inherit(survey, arch, buffers, kept)
        for buffer, value in built.named_buffers():
            if "running" in buffer:
                assert_close(value, statistics[buffer], float(statistics[buffer].abs().max()), buffer)
        if not gradients:
            return
        weights = torch.randn_like(expected)
        dense.zero_grad()
        (expected * weights).sum().backward()
        (actual * weights).sum().backward()
        dense_gradients = {n: p.grad for n, p in dense.named_parameters() if p.grad is not None}
        scale = max(float(gradient.abs().max()) for gradient in dense_gradients.values())
        slices = inherit(survey, arch, dense_gradients, kept)
        for parameter, value in built.named_parameters():
            assert value.grad is not None, parameter
            assert_close(value.grad, slices[parameter], scale, f"gradient of {parameter}")


@pytest.mark.parametrize("name", EVERY)
def test_all_groups_at_once(name: str) -> None:
    kept = random_kept(surveyed(name), random.Random(name))
    check(name, point(surveyed(name), kept), kept)


@pytest.mark.parametrize("name", GATED)
def test_all_gates_at_once(name: str) -> None:
    check(name, point(surveyed(name), {}, gates=random.Random(name)), {})


@pytest.mark.parametrize("name", RESIDUAL)
def test_half_of_the_blocks(name: str) -> None:
    names = [block.name for block in surveyed(name).blocks]
    check(name, point(surveyed(name), {}, tuple(random.Random(name).sample(names, len(names) // 2))), {})


@pytest.mark.parametrize("name", RESIDUAL)
def test_all_blocks(name: str) -> None:
    check(name, point(surveyed(name), {}, tuple(block.name for block in surveyed(name).blocks)), {})


@pytest.mark.parametrize("name", GATED)
def test_groups_gates_and_blocks_combined(name: str) -> None:
    survey, chance = surveyed(name), random.Random(name)
    names = [block.name for block in survey.blocks]
    kept = random_kept(survey, chance)
    check(name, point(survey, kept, tuple(chance.sample(names, len(names) // 3)), chance), kept)


@pytest.mark.parametrize("name", ["vgg11-digits", "resnet20", "preresnet20"])
def test_every_group_singly(name: str) -> None:
    survey, chance = surveyed(name), random.Random(name)
    assert survey.groups
    for group in survey.groups:
        kept = {group.name: random_kept(survey, chance)[group.name]}
        check(name, point(survey, kept), kept, gradients=False)


@pytest.mark.parametrize("name", ["resnet20", "preresnet20"])
def test_every_gate_singly(name: str) -> None:
    survey = surveyed(name)
    every = point(survey, {}, gates=random.Random(name))
    assert len(every.selected) == len(survey.gates) > 0
    for selected in every.selected:
        if len(selected[1]) < max(selected[1]) + 1:  # not a full selection
            check(name, every.replace(selected=(selected,)), {}, gradients=False)


@pytest.mark.parametrize("name", ["resnet20", "preresnet20"])
def test_every_block_singly(name: str) -> None:
    survey = surveyed(name)
    assert survey.blocks
    for block in survey.blocks:
        check(name, point(survey, {}, (block.name,)), {}, gradients=False)


def test_the_comparison_notices_wrong_units() -> None:
    survey = surveyed("resnet20")
    kept = random_kept(survey, random.Random(0))
    group = survey.groups[0]
    other = kept | {group.name: tuple(range(len(kept[group.name])))}
    assert kept[group.name] != other[group.name]
    dense = dense_network("resnet20")
    built = build(FACTORIES["resnet20"], survey, point(survey, kept), weights=dense.state_dict(), kept=other)
    images = torch.randn(BATCH, *SMALL["resnet20"])
    with torch.no_grad(), masked(dense, survey, Point(point(survey, kept), kept)) as reference:
        expected, _ = reference(False, [images])
        assert float((built.eval()(images) - expected).abs().max()) > 1e-3
