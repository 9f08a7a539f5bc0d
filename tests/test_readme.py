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
WALKTHROUGH = (ROOT / "docs" / "measured" / "walkthrough.md").read_text()
RESULTS = sorted((ROOT / "benchmarks" / "walkthrough").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_of_the_walkthrough_are_the_committed_results(path):
    record = Record.from_document(json.loads(path.read_text()), path)
    lines = summary.table(record.rows, record.score)
    assert text.as_markdown(text.result_table(lines, record.score)).strip() in WALKTHROUGH
    assert text.as_markdown(text.difference_table(differences(record), record.score)).strip() in WALKTHROUGH


def test_the_table_in_the_readme_is_of_the_committed_results():
    path = ROOT / "benchmarks" / "walkthrough" / "vgg11-digits.json"
    record = Record.from_document(json.loads(path.read_text()), path)
    lines = summary.table(record.rows, record.score)
    shown = README.split("<!-- digits -->\n")[1].split("\n<!-- end digits -->")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in shown)
    scores = {
        (target_text(line.asked), line.proposer): f"{line.score.mean:.2f} ± {line.score.std:.2f}"
        for line in lines
    }
    assert {
        (row[0], name): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True)
    } == scores
    assert {line.score.n for line in lines} == {3}
    gains = [
        found.score.mean - uniform.score.mean for found, uniform in comparable(lines, "slimming", "uniform")
    ]
    assert f"by {min(gains):.0f} to {max(gains):.0f} points" in README


def comparable(lines, left, right):
    """Pairs of lines that answer the same target."""
    return [
        (a, b)
        for a in lines
        for b in lines
        if (a.proposer, b.proposer) == (left, right) and a.asked == b.asked
    ]


def target_text(target):
    return f"{100 * target.keep:g} %"


def test_the_readme_is_read_in_three_minutes():
    assert len(README.splitlines()) <= 120


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
