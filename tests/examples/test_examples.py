"""The examples as a user runs them, at tiny size: each script, then `prunas shrink` of the checkpoint it wrote."""

import ast
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import prunas
from prunas.cli import main
from prunas.costs.metrics import metric
from prunas.spaces.load import load_space

EXAMPLES = Path(prunas.__file__).parent.parent / "examples"
MODULES = [path.stem for path in EXAMPLES.glob("*.py")]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of the examples, of few samples, where a user works; its modules are nobody else's."""
    for file in EXAMPLES.iterdir():
        if file.suffix in (".py", ".toml"):
            shutil.copy(file, tmp_path)
    for file in tmp_path.glob("*.toml"):
        file.write_text(re.sub(r"images = \d+", "images = 48", file.read_text()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def run(script: str, *arguments: str) -> dict[str, Any]:
    """Runs a script as `python script.py ARGUMENTS` does."""
    before = sys.argv
    sys.argv = [script, *arguments]
    try:
        with torch.random.fork_rng():
            return runpy.run_path(script, run_name="__main__")
    finally:
        sys.argv = before


def shrunk(name: str, weights: str, keep: str, of: str, *more: str) -> tuple[Path, dict[str, Any]]:
    """What `prunas shrink` writes in the shortest plan, and its record."""
    words = ["shrink", f"{name}.toml", "--weights", weights, "--keep", keep, "--metric", of, "--to", "small"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--proposer", "l1", "--protocol", "finetune", "--epochs", "2", *more])
    assert ended.value.code == 0
    folder = Path("small")
    return folder, json.loads((folder / "result.json").read_text())


def check(name: str, keep: float, of: str, folder: Path, record: dict[str, Any], onnx: bool = True) -> None:
    """The smaller network is as small as was asked, judged by the task's score, and built by files alone."""
    space = load_space(f"{name}.toml")
    point = prunas.Architecture.from_json(json.loads((folder / "architecture.json").read_text()))
    small, dense = (metric(of).of(space, arch) for arch in (point, space.dense))
    assert small == pytest.approx(keep * dense, rel=0.02)
    assert record["picked"]["test_score"] is not None and record["dense"]["test_score"] is not None
    assert (folder / "network.onnx").is_file() == onnx
    assert (folder / "report.html").stat().st_size > 1000
    made = runpy.run_path(str(folder / "network.py"))["load"]()
    state = torch.load(folder / "weights.pth", weights_only=True)
    assert all(torch.equal(made.state_dict()[key], value) for key, value in state.items())
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in space.build().parameters())


def test_a_checkpoint_of_somebody_elses(there: Path) -> None:
    run("train_resnet18.py")
    checkpoint = torch.load("resnet18.pth", weights_only=True)
    assert all(name.startswith("module.") for name in checkpoint["state_dict"])
    check("resnet18", 0.5, "macs", *shrunk("resnet18", "resnet18.pth", "0.5", "macs"))


def test_the_users_own_lines_are_few() -> None:
    text = (EXAMPLES / "resnet18.py").read_text()
    header = ast.parse(text).body[0].end_lineno
    lines = [*text.splitlines()[header:], *(EXAMPLES / "resnet18.toml").read_text().splitlines()]
    assert len([line for line in lines if line.strip()]) <= 15


def test_a_csv_of_regression_targets(there: Path) -> None:
    run("tabular.py")
    folder, record = shrunk("tabular", "tabular.pth", "0.3", "params")
    check("tabular", 0.3, "params", folder, record)
    assert record["score"]["name"] == "RMSE"
    assert record["dense"]["test_score"] < 0.95  # answering the mean has 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "lraspp"])
def test_segmentation(there: Path, name: str) -> None:
    run("segmentation.py", name)
    folder, record = shrunk(name, f"{name}.pth", "0.4", "macs")
    check(name, 0.4, "macs", folder, record)
    assert record["score"]["name"] == "mean IoU"


@pytest.mark.slow
def test_detection_by_part(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocotools")
    run("detection.py")
    folder, record = shrunk("detection", "detection.pth", "0.6", "macs")
    check("detection", 0.6, "macs", folder, record, onnx=False)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "network.onnx" in line]
    assert line.startswith("no network.onnx: torch.export cannot follow")


@pytest.mark.slow
def test_the_yolo_like_network_whole(there: Path) -> None:
    pytest.importorskip("pycocotools")
    run("yolo_task.py")
    folder, record = shrunk("yolo", "yolo.pth", "0.4", "macs")
    check("yolo", 0.4, "macs", folder, record)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of Lightning, about torch's trees
def test_lightning_trains_a_found_shape(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning")
    run("lightning_training.py")
    (accuracy,) = re.findall(r"test accuracy after Lightning: (\S+) %", capsys.readouterr().out)
    assert float(accuracy) > 20  # guessing has 10


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for file in EXAMPLES.iterdir():
        if file.suffix in (".py", ".toml", ".ipynb"):
            assert f"`{file.name}`" in text
            assert file.suffix != ".py" or ast.get_docstring(ast.parse(file.read_text()))


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(there)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/svg+xml" in output.get("data", {})]
    assert (there / "small" / "network.py").is_file()
