"""Promises 1 and 2 on torchvision's own networks, small ones of every kind that the bundled networks are not."""

import copy
import random
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import convnext, maxvit, swin_transformer

from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.surgery.assemble import build
from prunas.survey import Survey
from prunas.tracing.survey import survey
from tests.surgery.bundled import Kept, point, random_kept

SWIN: dict[str, object] = {
    "patch_size": [4, 4], "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 2], "window_size": [4, 4],
    "stochastic_depth_prob": 0.2, "num_classes": 5,
}  # fmt: skip
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, tuple[int, ...]]] = {
    # factory, input size, expected: groups, units, maskable groups, gates, blocks
    "shufflenet": (partial(torchvision.models.shufflenet_v2_x0_5, num_classes=5), 32, (20, 1927, 20, 6, 0)),
    "convnext": (
        partial(convnext.ConvNeXt, [convnext.CNBlockConfig(8, 12, 2), convnext.CNBlockConfig(12, None, 1)], 0.3),
        32,
        (5, 132, 3, 5, 3),
    ),
    "vit": (
        partial(
            torchvision.models.VisionTransformer,
            image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=20, num_classes=5,
        ),
        16,
        (5, 56, 4, 3, 4),
    ),
    "swin": (partial(torchvision.models.SwinTransformer, **SWIN), 32, (5, 260, 3, 5, 6)),
    "swin v2": (
        partial(
            torchvision.models.SwinTransformer,
            block=swin_transformer.SwinTransformerBlockV2,
            downsample_layer=swin_transformer.PatchMergingV2,
            **SWIN,
        ),
        32,
        (8, 1796, 6, 5, 6),
    ),
    "maxvit": (
        partial(
            maxvit.MaxVit, input_size=(32, 32), stem_channels=8, partition_size=4, block_channels=[8, 16],
            block_layers=[1, 1], head_dim=4, stochastic_depth_prob=0.2, num_classes=5,
        ),
        32,
        (11, 326, 11, 13, 10),
    ),
}  # fmt: skip


def deterministic(net: nn.Module) -> nn.Module:
    """Random layers draw masks of another shape in a narrower network."""
    for module in net.modules():
        for name in ("p", "dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return net


@cache
def surveyed(name: str) -> Survey:
    factory, size, _ = NETWORKS[name]
    return survey(factory, (3, size, size))


@cache
def dense_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = deterministic(NETWORKS[name][0]().double())
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if (
                tensor.is_floating_point() and not tensor.std() > 0.01
            ):  # constants and layer scales hide errors
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return net


def masked(name: str, arch: Architecture, kept: Kept, images: Tensor) -> nn.Module:
    """The dense network with its readers' input slices zeroed, and what every removed branch ends in zero."""
    net, made = copy.deepcopy(dense_network(name)), surveyed(name)
    units = [np.array(kept.get(group.name, range(group.units)), np.int64) for group in made.groups]
    selected = dict(arch.selected)
    for layer in made.layers:
        if layer.kind in ("conv", "linear") and not layer.depthwise:
            passing = made.positions(layer.reads, units)
            if layer.path in selected:
                passing = passing[list(selected[layer.path])]
            weight = net.get_submodule(layer.path).weight.data
            mask = torch.zeros(weight.shape[1] * layer.groups)
            mask[torch.as_tensor(passing)] = 1
            for filters, part in zip(weight.chunk(layer.groups), mask.chunk(layer.groups), strict=True):
                filters *= part.view(1, -1, *[1] * (weight.ndim - 2))
    called: list[str] = []
    modules = dict(net.named_modules())
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, path=path: called.append(path))
        for path, module in modules.items()
    ]
    net.eval()(images)
    for hook in hooks:
        hook.remove()
    for block in arch.removed:
        found = made.blocks[made.block_index[block]]
        inside = [path for path in called if path in (*found.branch, *found.chain)]
        modules[inside[-1]].register_forward_hook(lambda module, inputs, output: nothing(output))
    return net


def nothing(output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return output * 0 if isinstance(output, Tensor) else (output[0] * 0, *output[1:])


def check(name: str, arch: Architecture, kept: Kept) -> None:
    factory, size, _ = NETWORKS[name]
    torch.manual_seed(1)
    images = torch.randn(4, 3, size, size, dtype=torch.float64)
    weights = dense_network(name).state_dict()
    built = deterministic(build(lambda: factory().double(), surveyed(name), arch, weights=weights, kept=kept))
    assert type(built) is type(dense_network(name))
    with torch.no_grad():
        expected = masked(name, arch, kept, images)
        for training in (False, True):
            reference, actual = expected.train(training)(images), built.train(training)(images)
            assert actual.shape == reference.shape
            assert float((actual - reference).abs().max()) <= 1e-9 * float(reference.abs().max())


def count(name: str, arch: Architecture) -> None:
    factory, size, _ = NETWORKS[name]
    with torch.device("meta"):
        net = build(factory, surveyed(name), arch)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.empty(1, 3, size, size, device="meta"))
    cost = CostModel(surveyed(name)).of(arch)
    assert cost.dense_params == sum(parameter.numel() for parameter in net.parameters())
    assert cost.dense_macs == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_what_varies(name: str) -> None:
    made = surveyed(name)
    assert NETWORKS[name][2] == (
        len(made.groups),
        sum(group.units for group in made.groups),
        sum(group.maskable for group in made.groups),
        len(made.gates),
        len(made.blocks),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_points(name: str) -> None:
    made, chance = surveyed(name), random.Random(name)
    every = random_kept(made, chance)
    kept = {group.name: every[group.name] for group in made.groups if group.maskable}
    blocks = [block.name for block in made.blocks]
    some = tuple(chance.sample(blocks, len(blocks) // 2))
    for arch, units in (
        (point(made, kept, gates=chance), kept),
        (point(made, {}, tuple(blocks)), {}),
        (point(made, kept, some, chance), kept),
    ):
        check(name, arch, units)
        count(name, arch)
    count(name, point(made, every))


def test_a_removed_branch_leaves_the_module_and_plain_weights(tmp_path: object) -> None:
    made = surveyed("vit")
    assert [block.chain for block in made.blocks][:2] == [
        ("encoder.layers.encoder_layer_0.ln_1", "encoder.layers.encoder_layer_0.self_attention"),
        ("encoder.layers.encoder_layer_0.ln_2", "encoder.layers.encoder_layer_0.mlp"),
    ]
    assert made.blocks[1].name == "encoder.layers.encoder_layer_0.ln_2+mlp"
    net = build(NETWORKS["vit"][0], made, point(made, {}, tuple(block.name for block in made.blocks)))
    assert {type(layer).__name__ for layer in net.encoder.layers} == {"EncoderBlock"}
    torch.save(net.state_dict(), f"{tmp_path}/weights.pt")
    names = list(torch.load(f"{tmp_path}/weights.pt", weights_only=True))
    assert [name for name in names if "encoder_layer" in name] == []
