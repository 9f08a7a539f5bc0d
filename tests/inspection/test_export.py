"""Exported files: run without prunas, compared with torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from prunas.architecture import Architecture, KernelPattern
from prunas.cli import main
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import search
from prunas.inspection import export as exporting
from prunas.inspection.export import Network, export, find, form_of
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.surgery.masks import kernel_masks

RESIDUAL = """
network = "prunas.networks.resnet:PreResNet"
arguments = { depth = 11, channels = 1, base = 8 }
input = [1, 8, 8]
data = "digits"
recipe = "tiny"

[vary]
gates = ["*"]
blocks = ["*"]
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Everything a point can have: narrow widths, selecting layers, a removed branch, masked kernels."""
    path = tmp_path_factory.mktemp("space") / "residual.toml"
    path.write_text(RESIDUAL)
    space = load_space(str(path))
    generator = np.random.default_rng(0)
    arch = space.counted(space.grid(space.dense_counts * generator.uniform(0.3, 0.9, len(space.dimensions))))
    key = next(f"{layer.stage}/3x3" for layer in space.survey.layers if layer.kernel == (3, 3))
    pattern = KernelPattern(frequencies=((key, tuple(i / 8 for i in range(9))),))
    arch = space.canonical(arch.replace(removed=(space.survey.blocks[1].name,), kernels=pattern))
    space.check(arch)
    torch.manual_seed(0)
    net = space.build(arch)
    with torch.no_grad():  # statistics as after a training, which a file that dropped them would not know
        for _ in range(3):
            net(torch.rand(8, *space.survey.input))
    return Network(space, arch, net.eval(), "here", "here")


@pytest.fixture
def images(network: Network) -> torch.Tensor:
    return torch.randn(5, *network.space.survey.input, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def wanted(network: Network, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs: torch.Tensor = network.net(images)
    return outputs


def alone(script: str, *arguments: object) -> str:
    """Runs a script that cannot import prunas."""
    blocked = "import sys; sys.modules['prunas'] = None\n"
    command = [sys.executable, "-c", blocked + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_network_has_everything(network: Network) -> None:
    assert network.architecture.widths
    assert network.architecture.selected
    assert network.architecture.removed
    assert kernel_masks(network.space.survey, network.architecture)


def test_onnx_computes_the_same_for_another_batch(
    network: Network, images: torch.Tensor, wanted: torch.Tensor, tmp_path: Path
) -> None:
    import onnx
    import onnxruntime

    file = tmp_path / "net.onnx"
    written = export(network, "onnx", file)
    assert written.difference < 1e-5
    model = onnx.load(file)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5 * float(wanted.abs().max()))
    held = {tuple(each.dims) for each in model.graph.initializer}
    for selected in network.architecture.selected:
        assert (len(selected[1]),) in held  # its index, or a norm of that width
    assert str(Path(torch.__file__).parent) not in file.read_bytes().decode("latin-1")


def test_pt2_needs_torch_alone(
    network: Network, images: torch.Tensor, wanted: torch.Tensor, tmp_path: Path
) -> None:
    file = tmp_path / "net.pt2"
    assert export(network, "pt2", file).difference == 0
    torch.save(images, tmp_path / "images.pt")
    script = (
        "import torch\n"
        "images = torch.load(sys.argv[2], weights_only=True)\n"
        "torch.save(torch.export.load(sys.argv[1]).module()(images).detach(), sys.argv[3])\n"
    )
    alone(script, file, tmp_path / "images.pt", tmp_path / "outputs.pt")
    torch.testing.assert_close(torch.load(tmp_path / "outputs.pt", weights_only=True), wanted)


def test_safetensors_holds_weights_masks_and_the_shape(
    network: Network, images: torch.Tensor, wanted: torch.Tensor, tmp_path: Path
) -> None:
    file = tmp_path / "net.safetensors"
    export(network, "safetensors", file)
    weights = safetensors.torch.load_file(file)
    for name, mask in kernel_masks(network.space.survey, network.architecture).items():
        assert (weights[name] != 0).numpy().sum() == mask.sum() < mask.size
    with safetensors.safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    arch = Architecture.from_json(json.loads(metadata["architecture"]))
    assert arch == network.architecture
    names: dict[str, Any] = {"__file__": str(tmp_path / "network.py")}
    exec(metadata["python"], names)
    net = names["make"]()
    net.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(net.eval()(images), wanted)


def test_python_is_a_folder_that_runs_where_prunas_is_not_installed(
    network: Network, images: torch.Tensor, wanted: torch.Tensor, tmp_path: Path
) -> None:
    """A process in which an import of prunas fails: no `site`, no folder of prunas, and its name is blocked."""
    folder = tmp_path / "smaller"
    written = export(network, "python", folder)
    assert (written.file, written.difference) == (folder, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["network.py", "weights.pth"]
    torch.save(images, tmp_path / "images.pt")
    place = str(Path(torch.__file__).parents[1])
    script = (
        f"import sys; sys.path += [{place!r}]\n"
        "sys.modules['prunas'] = None\n"
        "try:\n    import prunas.spaces\nexcept ImportError:\n    print('no prunas')\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "import torch, network\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "with torch.no_grad():\n"
        "    torch.save(network.load()(torch.load('images.pt', weights_only=True)), 'outputs.pt')\n"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == "no prunas\n"
    assert torch.equal(torch.load(tmp_path / "outputs.pt", weights_only=True), wanted)


SEGMENTER = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.head, self.side = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        y = self.body(x)
        size = x.shape[-2:]
        return {
            "out": F.interpolate(self.head(y), size, mode="bilinear", align_corners=False),
            "aux": F.interpolate(self.side(y), size, mode="bilinear", align_corners=False),
        }


def make():
    return Net()
"""


def segmenter(folder: Path, text: str = SEGMENTER) -> Network:
    (folder / "network.py").write_text(text)
    path = folder / "own.toml"
    path.write_text('network = "network.py:make"\ninput = [3, 16, 16]\n')
    space = load_space(str(path))
    arch = space.point({"body.0": 7})
    return Network(space, arch, space.build(arch).eval(), "here", "here")


def test_a_dictionary_of_outputs_keeps_its_names_in_onnx(tmp_path: Path) -> None:
    import onnxruntime

    network = segmenter(tmp_path)
    assert export(network, "onnx", tmp_path / "net.onnx").difference < exporting.TOLERANCE
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert [output.name for output in session.get_outputs()] == ["out", "aux"]
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        wanted = network.net(images)
    for name in ("out", "aux"):
        (maps,) = session.run([name], {"images": images.numpy()})
        torch.testing.assert_close(torch.as_tensor(maps), wanted[name], rtol=1e-4, atol=1e-5)


def test_the_users_file_goes_along_and_keeps_its_name(tmp_path: Path) -> None:
    network = segmenter(tmp_path)
    folder = tmp_path / "smaller"
    assert export(network, "python", folder).difference == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "network.py",
        "smaller_network.py",
        "weights.pth",
    ]
    assert (folder / "network.py").read_text() == SEGMENTER


def test_a_network_that_needs_prunas_itself_is_one_line(tmp_path: Path) -> None:
    network = segmenter(tmp_path, "import prunas.spaces\n" + SEGMENTER)
    with pytest.raises(
        InputError, match=r"where prunas is not installed: .*prunas.*; use --to onnx"
    ) as caught:
        export(network, "python", tmp_path / "smaller")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "smaller").exists()


def test_control_flow_over_values_is_one_line_that_names_another_form(tmp_path: Path) -> None:
    """As detectors have it: how many boxes remain depends on what the network sees."""
    network = segmenter(tmp_path)
    network.net.forward = lambda x: x[: int((x.mean((1, 2, 3)) > 0).sum())]  # type: ignore[assignment]
    for form in ("onnx", "pt2"):
        with pytest.raises(InputError, match="use --to python or safetensors") as caught:
            export(network, form_of(form), tmp_path / f"net.{form}")
        assert "\n" not in str(caught.value)


def test_a_file_that_computes_something_else_is_not_written(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(
        network: Network, traced: tuple[torch.Tensor, ...], images: tuple[torch.Tensor, ...]
    ) -> tuple[bytes, list[torch.Tensor]]:
        with torch.no_grad():
            return b"wrong", [network.net(*images) * 1.001]

    monkeypatch.setattr(exporting, "_pt2", wrong)
    with pytest.raises(InputError, match=r"relative difference 0\.001"):
        export(network, "pt2", tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_by_folder_id_and_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(SystemExit):
        main(["train", "vgg11-digits", "--epochs", "1", "--images", "64", "--out", str(runs), "--json"])
    row = json.loads(capsys.readouterr().out)
    folder = Path(row["folder"])
    file = tmp_path / "net.safetensors"
    for what in (str(folder), folder.name, row["id"]):
        file.unlink(missing_ok=True)
        with pytest.raises(SystemExit) as ended:
            main(["export", what, "--to", "safetensors", "--file", str(file), "--out", str(runs), "--json"])
        assert ended.value.code == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["architecture"], document["difference"]) == (row["architecture"], 0)
        kept = safetensors.torch.load_file(folder / "weights.safetensors")
        found = safetensors.torch.load_file(file)
        assert found.keys() == kept.keys()
        assert all(torch.equal(found[name], kept[name]) for name in kept)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="--keep-weights"):
        find(row["id"], runs, None)
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        find(row["id"], runs, None)


def test_fresh_weights_are_those_a_training_starts_from(tmp_path: Path) -> None:
    from prunas.data.dataset import stream_seed

    found = find("vgg11-digits", tmp_path, 3).net.state_dict()
    torch.manual_seed(stream_seed("weights", 3))
    started = load_space("vgg11-digits").build().state_dict()
    assert all(torch.equal(found[name], started[name]) for name in started)
    assert not torch.equal(
        find("vgg11-digits", tmp_path, 4).net.state_dict()["features.0.weight"], started["features.0.weight"]
    )


def test_what_cannot_be_exported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean onnx"):
        form_of("onx")
    with pytest.raises(InputError, match="--init 0"):
        find("vgg11-digits", tmp_path, None)
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'prunas\[export\]'"):
        export(find("vgg11-digits", tmp_path, 0), "onnx", tmp_path / "net.onnx")


def test_a_penalised_network_with_scales_is_refused(
    network: Network, small_space: Path, tmp_path: Path
) -> None:
    """Structure selection trains scales on branches that the kept weights do not hold; slimming adds nothing."""
    store = Store(tmp_path)
    for name, source in (("sss", network.space.source), ("slimming", str(small_space))):
        setting = make_setting(load_space(source), changes={"epochs": 1, "images": 64})
        plan = make_plan(setting, [name], keep=[0.6], seeds=1, controls=False, dense=False)
        search(plan, store, lambda: executor("serial", store))
    folders = sorted(tmp_path.glob("*/dense-*"))
    penalties = {json.loads((f / "job.json").read_text())["spec"]["penalty"]["name"]: f for f in folders}
    assert len(penalties) == 2
    for path, folder in penalties.items():
        if "sss" in path:
            with pytest.raises(InputError, match="scales on its branches"):
                find(str(folder), tmp_path, None)
        else:
            assert find(str(folder), tmp_path, None).origin == str(folder)
