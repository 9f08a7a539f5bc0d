"""The code of docs/own-weights.md, run as it stands: only the recipe is shortened, by an argument of its own."""

import re
from pathlib import Path

import pytest

import prunas

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "own-weights.md").read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = {"recipe": {"epochs": 1, "images": 200}, "seeds": 2}
    original = prunas.search
    monkeypatch.setattr(prunas, "search", lambda *a, **k: original(*a, **k | quick), raising=False)
    exec(compile(CODE, "docs/own-weights.md", "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out
    assert "pruned %" in printed.splitlines()[0]
    assert "one given network" in printed
    assert len(list(tmp_path.glob("runs/mine/given-*"))) == 1
    assert not list(tmp_path.glob("runs/mine/dense-*"))
    assert list(tmp_path.glob("runs/mine/finetune-*/weights.safetensors"))
