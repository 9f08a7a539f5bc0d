"""The module that builds a shape without prunas, run and compared with the network that prunas builds."""

import json
import subprocess
import sys
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
from prunas.inspection.standalone import WEIGHTS, standalone_code
from prunas.spaces.load import bundled_spaces, load_network, load_space
from prunas.spaces.space import SearchSpace
from prunas.surgery.masks import kernel_masks

OWN = '''
import torch
from torch import nn


class Mixer(nn.Module):
    """Two branches in one module, with scales that no constructor of a layer knows of."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x):
        x = x + self.first(self.norm1(x))
        return x + self.gamma * self.mlp(self.norm2(x))


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.ModuleDict(dict(conv=nn.Conv2d(width, width, 3, padding=1), norm=nn.BatchNorm2d(width)))
        self.last = nn.Conv2d(width, width, 1)
        self.shortcut = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.last(self.act(self.body["norm"](self.body["conv"](x))))
        return self.act(y + self.shortcut(x))


class Net(nn.Module):
    def __init__(self, width=16, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.blocks = nn.Sequential(Residual(width), Residual(width))
        self.mixers = nn.Sequential(Mixer(width, 3 * width), Mixer(width, 3 * width))
        self.head = nn.Linear(width, classes)
        nn.init.constant_(self.head.bias, 3.0)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.head(self.mixers(x.mean((2, 3))))


def make(classes=5):
    return Net(classes=classes)
'''

SPACE = """
network = "{file}:make"
arguments = {{ classes = 4 }}
input = [3, 12, 12]

[vary]
gates = ["*"]
blocks = ["*"]
"""


def drawn(space: SearchSpace, seed: int = 0) -> Architecture:
    """A point with random widths, selections and removed blocks."""
    generator = np.random.default_rng(seed)
    arch = space.counted(space.grid(space.dense_counts * generator.uniform(0.3, 0.9, len(space.dimensions))))
    arch = space.canonical(arch.replace(removed=tuple(sorted(space.removable[::2]))))
    space.check(arch)
    return arch


def executed(space: SearchSpace, arch: Architecture, folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__file__": str(folder / "network.py")}
    exec(standalone_code(space, arch), names)
    return names


def without_prunas(folder: Path, script: str) -> str:
    """Runs a script with torch and its like alone: without `site`, no link of an installation is followed."""
    places = {
        str(Path(sys.modules[name].__file__ or "").parents[1]) for name in ("torch", "torchvision", "numpy")
    }
    start = (
        f"import sys; sys.path[:0] = {['.', *sorted(places)]!r}; sys.modules['prunas'] = None\n"
        "try:\n    import prunas.graphs\nexcept ImportError:\n    print('no prunas')\n"
    )
    command = [sys.executable, "-I", "-S", "-c", start + script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", sorted(bundled_spaces()))
def test_every_bundled_network_has_the_names_and_shapes_of_the_built_one(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    arch = drawn(space)
    assert arch != space.dense
    names = executed(space, arch, tmp_path)
    with torch.device("meta"):
        made, built = names["make"]().state_dict(), space.build(arch).state_dict()
    assert {key: tensor.shape for key, tensor in made.items()} == {
        k: tensor.shape for k, tensor in built.items()
    }
    assert "prunas" not in "".join(
        line for line in standalone_code(space, arch).splitlines() if "import" in line
    )


@pytest.mark.parametrize(
    "network",
    [
        "vgg11-digits",
        "resnet20-c10",
        "preresnet20-digits",
        "densenet40-c10",
        "torchvision.models:resnet18",
        "torchvision.models:mobilenet_v3_small",
        "torchvision.models:shufflenet_v2_x0_5",
    ],
)
def test_weights_and_outputs_are_those_of_the_built_network(network: str, tmp_path: Path) -> None:
    """To the bit: fresh weights from the same random state, and outputs with the weights of a file."""
    space = load_network(network, (3, 32, 32)) if ":" in network else load_space(network)
    arch = drawn(space)
    names = executed(space, arch, tmp_path)
    torch.manual_seed(1)
    built = space.build(arch)
    torch.manual_seed(1)
    made = names["make"]()
    fresh = made.state_dict()
    for key, tensor in built.state_dict().items():
        assert torch.equal(tensor, fresh[key]), key
    images = torch.randn(4, *space.survey.input, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        outputs = []
        for net in (made, built):  # in training mode, which moves the statistics too and draws what drops out
            torch.manual_seed(3)
            outputs.append(net(images))
        assert torch.equal(*outputs)
        torch.save(built.state_dict(), tmp_path / WEIGHTS)
        assert torch.equal(names["load"]()(images), built.eval()(images))


def own_space(folder: Path, file: str = "mine.py") -> SearchSpace:
    (folder / file).write_text(OWN)
    path = folder / "own.toml"
    path.write_text(SPACE.format(file=file))
    return load_space(str(path))


@pytest.mark.parametrize("file", ["mine.py", "my-net.py"])
def test_a_network_of_a_file_in_an_environment_without_prunas(file: str, tmp_path: Path) -> None:
    """Bare parameters, branches that are chains, and shortcuts with modules; the user's file lies beside."""
    space = own_space(tmp_path, file)
    arch = drawn(space)
    assert {"+" in name for name in arch.removed} == {True, False}, space.removable
    code = standalone_code(space, arch)
    assert f"{file} beside it" in code
    assert "SHAPES" in code
    torch.manual_seed(0)
    net = space.build(arch).eval()
    images = torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        wanted = net(images)
    (tmp_path / "network.py").write_text(code)
    torch.save(net.state_dict(), tmp_path / WEIGHTS)
    torch.save(images, tmp_path / "images.pt")
    script = (
        "import torch, network\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "with torch.no_grad():\n"
        "    torch.save(network.load()(torch.load('images.pt', weights_only=True)), 'outputs.pt')\n"
    )
    assert without_prunas(tmp_path, script).strip() == "no prunas"
    assert torch.equal(torch.load(tmp_path / "outputs.pt", weights_only=True), wanted)


def test_a_factory_that_makes_other_layers_is_told(tmp_path: Path) -> None:
    space = load_space("vgg11-digits")
    names = executed(space, drawn(space), tmp_path)
    dense, layers = names["dense"], names["LAYERS"]

    def another() -> nn.Module:
        net: nn.Module = dense()
        net.auxiliary = nn.Linear(3, 3)
        return net

    names["dense"] = another
    with pytest.raises(RuntimeError, match=f"the factory makes {layers + 1} layers, and made {layers} when"):
        names["make"]()


def test_a_factory_of_this_process_is_an_argument(tmp_path: Path) -> None:
    space = SearchSpace.from_model(
        lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)),
        (1, 8, 8),
        name="live",
    )
    arch = drawn(space)
    names = executed(space, arch, tmp_path)
    torch.manual_seed(0)
    built = space.build(arch).eval()
    torch.save(built.state_dict(), tmp_path / WEIGHTS)
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(names["load"](factory=space.factory)(images), built(images))


def test_a_kernel_pattern_lives_in_the_weights(tmp_path: Path) -> None:
    space = load_space("vgg11-digits")
    pattern = KernelPattern(frequencies=(("1/3x3", tuple(i / 8 for i in range(9))),))
    arch = space.point(kernels=pattern)
    names = executed(space, arch, tmp_path)
    assert "zeros in the file of weights" in names["__doc__"]
    built = space.build(arch)
    torch.save(built.state_dict(), tmp_path / WEIGHTS)
    state = names["load"]().state_dict()
    for name, mask in kernel_masks(space.survey, arch).items():
        assert not state[name][~torch.as_tensor(mask)].any()


def test_the_cfg_of_a_vgg_builds_its_layers_in_torchvision(tmp_path: Path) -> None:
    space = load_space("vgg16-c10")
    arch = designs.uniform(space, space.target(keep=0.3))
    names = executed(space, arch, tmp_path)
    with torch.device("meta"):
        layers, built = make_layers(names["cfg"], batch_norm=True), space.build(arch)
    shapes = [tuple(m.weight.shape) for m in layers if isinstance(m, nn.Conv2d)]
    assert shapes == [tuple(m.weight.shape) for m in built.modules() if isinstance(m, nn.Conv2d)]
    pools = [m for m in built.modules() if isinstance(m, nn.MaxPool2d)]
    assert names["cfg"].count("M") == len(pools) == 4


def test_the_command_prints_the_code_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show", "vgg16-l1-c10:vgg-16-a", "--code"])
    names: dict[str, Any] = {"__file__": "network.py"}
    exec(capsys.readouterr().out, names)
    # The study's VGG-16-A (Li et al. 2017, table 2).
    widths = [32, 64, "M", 128, 128, "M", 256, 256, 256, "M", 256, 256, 256, "M", 256, 256, 256]
    assert names["cfg"] == widths
    with pytest.raises(SystemExit):
        main(["show", "vgg16-l1-c10:vgg-16-a", "--code", "--json"])
    assert json.loads(capsys.readouterr().out)["space"] == "vgg16-l1-c10"
