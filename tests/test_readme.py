"""What the README tells is what was measured."""

import json
from pathlib import Path

import pytest

import prunas
from prunas.costs.target import Target
from prunas.results.record import Record
from prunas.statistics import summary, text
from prunas.statistics.claims import controls_of
from prunas.statistics.tables import differences
from prunas.statistics.widths import Agreement, agreement_table

ROOT = Path(prunas.__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = sorted((ROOT / "benchmarks" / "walkthrough").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_in_the_readme_are_the_committed_results(path):
    record = Record.from_document(json.loads(path.read_text()), path)
    lines = summary.table(record.rows, record.score)
    assert text.as_markdown(text.result_table(lines, record.score)).strip() in README
    assert text.as_markdown(text.difference_table(differences(record), record.score)).strip() in README


METHODS = ROOT / "benchmarks" / "methods"


def test_tables_of_the_methods_are_the_committed_results():
    page = (METHODS / "README.md").read_text()
    path = METHODS / "preresnet20-c10.json"
    record = Record.from_document(json.loads(path.read_text()), path)
    tables = [
        text.result_table(summary.table(record.rows, record.score), record.score),
        text.difference_table(differences(record), record.score),
        text.cost_text(summary.cost_table(record.costs)),
    ]
    for table in tables:
        assert text.as_markdown(table).strip() in page


def committed_agreements(name):
    """The agreements of found shapes against uniform and against controls of their methods."""
    document = json.loads((METHODS / f"{name}.json").read_text())
    finders = {row["proposer"] for row in document["runs"] if row["kind"] == "automatic"}
    return [
        Agreement(
            **each
            | {
                "asked": Target.from_json(each["asked"]),
                "seeds": tuple(each["seeds"]),
                "margin": summary.Summary(**each["margin"]),
            }
        )
        for each in document["agreement"]
        if each["proposer"] in finders and each["against"] in ("uniform", *controls_of(each["proposer"]))
    ]


def test_agreement_of_the_methods_is_the_committed_one():
    page = (METHODS / "README.md").read_text()
    assert text.as_markdown(agreement_table(committed_agreements("preresnet20-c10"))).strip() in page
    rows = agreement_table(committed_agreements("preresnet20-c10-no-penalty")).rows
    assert len(rows) == 2
    for row in rows:
        assert f"| {' | '.join(row)} |" in page


def test_both_walks_are_there():
    assert [path.stem for path in RESULTS] == ["vgg11-digits", "vgg16-c10"]


def test_every_command_is_told():
    from prunas.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"`{name}" in README or f"prunas {name}" in README, name
