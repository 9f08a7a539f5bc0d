"""Promise 2: the counted cost is what torch counts of the built network, to the unit."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.counted import CostModel
from prunas.surgery.assemble import build
from prunas.surgery.masks import kernel_masks
from tests.surgery.bundled import FACTORIES, SHAPES, point, random_kept, surveyed


def counted(net: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Parameters and multiply-accumulates of one image, by torch."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.empty(1, *shape, device="meta"))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2


def check(name: str, arch: Architecture) -> None:
    with torch.device("meta"):
        net = build(FACTORIES[name], surveyed(name), arch)
    cost = CostModel(surveyed(name)).of(arch)
    assert (cost.dense_params, cost.dense_macs) == counted(net, SHAPES[name])
    assert (cost.params, cost.macs) == (cost.dense_params, cost.dense_macs)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = sum(module.weight.numel() for module in net.modules() if isinstance(module, kinds))
    assert CostModel(surveyed(name)).conv_params(arch) == weights


@pytest.mark.parametrize("name", FACTORIES)
def test_dense(name: str) -> None:
    check(name, point(surveyed(name), {}))


@pytest.mark.parametrize("name", FACTORIES)
def test_groups(name: str) -> None:
    survey = surveyed(name)
    check(name, point(survey, random_kept(survey, random.Random(name))))


@pytest.mark.parametrize("name", [name for name in FACTORIES if "vgg" not in name])
def test_groups_gates_and_blocks_combined(name: str) -> None:
    survey, chance = surveyed(name), random.Random(name)
    names = [block.name for block in survey.blocks]
    removed = tuple(chance.sample(names, len(names) // 3))
    check(name, point(survey, random_kept(survey, chance), removed, chance))


def stage_frequencies(name: str, chance: random.Random) -> KernelPattern:
    keys = {
        f"{layer.stage}/{layer.kernel[0]}x{layer.kernel[1]}": layer.kernel[0] * layer.kernel[1]
        for layer in surveyed(name).layers
        if layer.kind == "conv"
    }
    return KernelPattern(
        frequencies=tuple((key, tuple(chance.random() for _ in range(count))) for key, count in keys.items()),
        seed=3,
    )


def exact_masks(name: str, chance: random.Random) -> KernelPattern:
    arch = point(surveyed(name), {}, gates=chance).replace(kernels=stage_frequencies(name, chance))
    every = kernel_masks(surveyed(name), arch).items()
    return KernelPattern(
        masks=tuple((key.removesuffix(".weight"), KernelPattern.pack(mask)) for key, mask in every)[::2]
    )


@pytest.mark.parametrize("name", ["vgg11-digits", "resnet20", "preresnet20"])
@pytest.mark.parametrize("pattern", [stage_frequencies, exact_masks])
def test_masks(name: str, pattern: Callable[[str, random.Random], KernelPattern]) -> None:
    survey = surveyed(name)
    arch = point(survey, {}, gates=random.Random(name)).replace(kernels=pattern(name, random.Random(name)))
    torch.manual_seed(0)  # a drawn weight may be exactly 0, once in some millions
    net = build(FACTORIES[name], survey, arch)
    convolutions = {path: module for path, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    living = {path: int((module.weight != 0).sum()) for path, module in convolutions.items()}
    gone = {path: module.weight.numel() - living[path] for path, module in convolutions.items()}
    assert any(gone.values())
    sizes: dict[str, int] = {}
    for path, module in convolutions.items():
        module.register_forward_hook(
            lambda module, inputs, output, path=path: sizes.update({path: output[0, 0].numel()})
        )
    with torch.no_grad():
        net.eval()(torch.zeros(1, *SHAPES[name]))
    cost = CostModel(survey).of(arch)
    assert cost.params == cost.dense_params - sum(gone.values())
    assert cost.macs == cost.dense_macs - sum(gone[path] * sizes[path] for path in gone)
    assert all(
        int(mask.sum()) == living[path.removesuffix(".weight")]
        for path, mask in kernel_masks(survey, arch).items()
    )
