"""docs/retraining.md: its code as it stands, with a shorter recipe, and the protocols it names."""

import json
import re
from pathlib import Path

import pytest

import prunas
from prunas.protocols import protocol

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "retraining.md").read_text()


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    original = prunas.search
    short = {"recipe": {"epochs": 1, "images": 200}, "controls": False}
    monkeypatch.setattr(prunas, "search", lambda *a, **k: original(*a, **k | short), raising=False)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/retraining.md", "exec"), {})
    cost, teacher = capsys.readouterr().out.splitlines()[-2:]
    space = prunas.load_space("vgg11-digits")
    images = json.loads(next(tmp_path.glob("runs/*/finetune-large-*/job.json")).read_text())["spec"]["data"]
    assert int(cost) == 2 * sum(images["images"].values()) * space.cost(space.dense).macs
    assert "'run': 'dense-" in teacher
    assert "'temperature': 2.0" in teacher and "'weight': 0.5" in teacher


def test_the_protocols_of_the_page_exist() -> None:
    named = re.findall(r"`((?:finetune|scratch)[\w+=@.:-]*)`", PAGE) + re.findall(r"--protocol (\S+)", PAGE)
    names = [name for text in named for name in text.split(",") if name != "finetune" and "NAME" not in name]
    assert len(set(names)) > 7
    for name in names:
        assert protocol(name).name == name
