"""The code and the files of docs/own-network.md, as they stand."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from torchvision.models.detection import FasterRCNN

import prunas
from prunas.inputs import Inputs
from prunas.spaces.load import load_space

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "own-network.md").read_text()
MINE, PARTS, READER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(FILE,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
FORMS = re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE)[1:]


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "docs/own-network.md", "exec"), names)
    return names


def test_a_part(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    names = run(PARTS)
    assert isinstance(names["net"], FasterRCNN)
    space = names["space"]
    assert space.cost(names["half"]).macs < space.cost(space.dense).macs
    said = capsys.readouterr().out
    assert said.startswith("only backbone.body varies; params, MACs and targets are the whole network's")
    assert "roi_heads.box_head.fc6" in said


def test_the_file_is_a_space(tmp_path: Path) -> None:
    path = tmp_path / "detector.toml"
    path.write_text(FILE)
    (tmp_path / "mine.py").write_text(MINE)
    space = load_space(str(path))
    assert space.dimensions
    assert all(d.name.startswith("backbone.body.") for d in space.dimensions)


def test_integers() -> None:
    assert sorted(run(READER)["space"].survey.group_index) == ["mlp.0", "table"]


def test_every_form_of_an_input_is_read() -> None:
    read = [Inputs.of(tomllib.loads(f"input = {form}")["input"]) for form in FORMS]
    assert [len(inputs.shapes) for inputs in read] == [1, 2, 1, 2, 2, 2]
