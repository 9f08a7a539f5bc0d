"""docs/looking.md: its code runs as it stands, and its commands and options are there."""

import re
from pathlib import Path

import pytest

import prunas
from tests.commands import command
from tests.report.made_runs import made

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "looking.md").read_text()


def test_the_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    made(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "looking.md", "exec"), {"__name__": "looking"})
    printed = capsys.readouterr().out
    assert printed.startswith("<SearchSpace vgg11-digits")
    assert "Found: against tapered shapes" in printed
    assert re.search(r"10 % +random +87\.0", printed)  # the mean of 86, 87 and 88
    assert (tmp_path / "small.svg").read_text().startswith("<svg")


def test_its_commands_and_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for line in re.findall(r"\| `prunas ([^`]*)` \|", PAGE):
        words = line.split()
        options = [word for word in words if word.startswith("--")]
        names = words[: 2 if words[0] == "plot" else 1] if not words[0].startswith("--") else []
        assert command(*names, "--help") == 0
        text = capsys.readouterr().out
        assert all(option in text for option in options)
