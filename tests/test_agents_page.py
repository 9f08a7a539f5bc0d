"""docs/agents.md: its code as it stands, with a shorter recipe, and the proposers it names."""

import ast
import re
from pathlib import Path

import pytest

import prunas
from prunas.proposers.registry import entry

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "agents.md").read_text()


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    original = prunas.search
    short = {
        "recipe": {"epochs": 1, "images": 200},
        "controls": False,
        "options": {"blockdrop": {"epochs": 1, "images": 64}},
    }
    monkeypatch.setattr(prunas, "search", lambda *a, **k: original(*a, **k | short), raising=False)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/agents.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "blockdrop" in printed
    policy = ast.literal_eval(printed.splitlines()[-1])
    assert set(re.findall(r"\(`(\w+)`\)", PAGE)) - {"amc.startup"} <= policy.keys()
    assert len(policy["means"]) == 9 and all(0 < mean < 1 for mean in policy["means"])
    assert policy["macs"] > 0


def test_the_proposers_and_settings_of_the_page_exist() -> None:
    rows = re.findall(r"^\| `([\w-]+)`", PAGE, re.MULTILINE)
    assert "amc" in rows
    for name, setting in re.findall(r"`(amc)\.(\w+)`", PAGE):
        assert setting in {option.name for option in entry(name).options or ()}
    assert all(entry(name).description for name in rows)
