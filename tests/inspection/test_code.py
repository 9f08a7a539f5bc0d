"""The pasted shape is executed alone, and compared with the network that is built."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vgg import make_layers

from prunas import designs
from prunas.architecture import Architecture, KernelPattern
from prunas.cli import main
from prunas.inspection.code import shape_code
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.surgery.masks import kernel_masks


def executed(space: SearchSpace, arch: Architecture) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(shape_code(space, arch), names)
    return names


def layers_of(net: nn.Module) -> dict[str, int]:
    """Output channels by module path, as torch says."""
    found = {}
    for path, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            found[path] = module.out_channels
        elif isinstance(module, nn.Linear):
            found[path] = module.out_features
    return found


def test_the_cfg_of_a_vgg_builds_its_layers_in_torchvision() -> None:
    space = load_space("vgg16-c10")
    arch = designs.uniform(space, space.target(keep=0.3))
    names = executed(space, arch)
    with torch.device("meta"):
        built, ours = make_layers(names["cfg"], batch_norm=True), space.build(arch)
    shapes = [tuple(m.weight.shape) for m in built if isinstance(m, nn.Conv2d)]
    assert shapes == [tuple(m.weight.shape) for m in ours.modules() if isinstance(m, nn.Conv2d)]
    pools = [m for m in ours.modules() if isinstance(m, nn.MaxPool2d)]
    assert names["cfg"].count("M") == len(pools) == 4
    assert names["classifier"] == [10]
    assert "widths" not in names


def test_gates_and_removed_blocks() -> None:
    space = load_space("preresnet20-digits")
    generator = np.random.default_rng(0)
    arch = space.counted(space.grid(space.dense_counts * generator.uniform(0.2, 0.9, len(space.dimensions))))
    arch = space.canonical(arch.replace(removed=tuple(b.name for b in space.survey.blocks[1:3])))
    names = executed(space, arch)
    net = space.build(arch)
    assert names["widths"] == layers_of(net)
    assert names.get("removed", []) == list(arch.removed)
    index = {name.removesuffix(".index"): b.tolist() for name, b in net.named_buffers() if ".index" in name}
    assert names["selected"] == index
    assert len(index) > 3


@pytest.mark.parametrize("form", ["frequencies", "masks"])
def test_kernel_patterns(form: str) -> None:
    space = load_space("vgg11-digits")
    if form == "frequencies":
        pattern = KernelPattern(frequencies=(("1/3x3", tuple(i / 8 for i in range(9))),))
    else:
        drawn = np.random.default_rng(0).random((16, 1, 3, 3)) < 0.4
        pattern = KernelPattern(masks=(("features.0", KernelPattern.pack(drawn)),))
    arch = space.point(kernels=pattern)
    names = executed(space, arch)
    masks = {path.removesuffix(".weight"): mask for path, mask in kernel_masks(space.survey, arch).items()}
    assert masks
    if form == "masks":
        assert names["masks"].keys() == masks.keys() == {"features.0"}
        assert (names["masks"]["features.0"] == drawn).all()
    else:
        assert names["kernels"] == {path: mask.sum((0, 1)).ravel().tolist() for path, mask in masks.items()}


def test_the_command_prints_the_code_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show", "vgg16-l1-c10:vgg-16-a", "--code"])
    names: dict[str, Any] = {}
    exec(capsys.readouterr().out, names)
    # The study's VGG-16-A (Li et al. 2017, table 2).
    widths = [32, 64, "M", 128, 128, "M", 256, 256, 256, "M", 256, 256, 256, "M", 256, 256, 256]
    assert names["cfg"] == widths
    with pytest.raises(SystemExit):
        main(["show", "vgg16-l1-c10:vgg-16-a", "--code", "--json"])
    assert json.loads(capsys.readouterr().out)["space"] == "vgg16-l1-c10"
