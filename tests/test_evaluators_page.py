"""docs/evaluators.md: its code as it stands, with a shorter recipe, and the table of evaluators."""

import re
from pathlib import Path

import pytest

import prunas
from prunas.proposers.evaluators import EVALUATORS

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "evaluators.md").read_text()


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    original = prunas.search
    short = {"recipe": {"epochs": 1, "images": 200}, "controls": False, "trials": 2, "dense": False}
    monkeypatch.setattr(prunas, "search", lambda *a, **k: original(*a, **k | short), raising=False)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/evaluators.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "adaptive-bn norms=128 True"


def test_the_table_has_every_evaluator_and_its_settings() -> None:
    lines = re.findall(r"^\| `([\w-]+)` \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", settings)) for name, settings in lines}
    assert told == {name: {option.name for option in line.options} for name, line in EVALUATORS.items()}
