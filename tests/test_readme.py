"""What the README tells is what was measured."""

import json
from pathlib import Path

import pytest

import prunas
from prunas.experiments.record import Record
from prunas.statistics import summary, text

ROOT = Path(prunas.__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = sorted((ROOT / "benchmarks" / "walkthrough").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_in_the_readme_are_the_committed_results(path):
    record = Record.from_document(json.loads(path.read_text()), path)
    assert text.as_markdown(text.result_table(summary.table(record.rows))).strip() in README
    assert text.as_markdown(text.difference_table(record.differences())).strip() in README


def test_both_walks_are_there():
    assert [path.stem for path in RESULTS] == ["vgg11-digits", "vgg16-c10"]


def test_every_command_is_told():
    from prunas.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"`{name}" in README or f"prunas {name}" in README, name
