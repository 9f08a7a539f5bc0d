"""The outputs of a record whose score has no bounds and whose lower values are better."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import prunas
from prunas.cli import app
from prunas.errors import InputError
from prunas.experiments.record import Record, merge
from prunas.report.budget import budget_figure
from prunas.report.checklist import checklist
from prunas.report.efficiency import efficiency_figure
from prunas.report.evidence import Evidence
from prunas.report.headline import findings
from prunas.report.page import page
from prunas.report.pareto import pareto_figure
from prunas.report.price import price_figure
from prunas.results.rows import TrainingRow
from prunas.statistics.curves import curves
from prunas.statistics.prices import prices
from prunas.statistics.retraining import courses, crossings
from prunas.statistics.summary import table
from prunas.tasks.score import ACCURACY, Score
from tests.report.made_runs import made, write

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())
ERROR = Score(name="depth error", unit="m", better="lower", margin=0.002)
OF_EPOCHS = (("finetune:4", 4), ("scratch-e:4", 4), ("finetune:16", 16), ("scratch-e:16", 16))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slimming against its controls, and its points retrained for 4 and 16 epochs; one training is guessing."""
    root = tmp_path_factory.mktemp("runs")
    searched = made(root, score=ERROR)
    document = dict(searched.searches[0])
    guessing = {"test_score": 0.9, "chance": 0.8}
    document["runs"] = [
        row.to_json() | (guessing if row.proposer == "random" else {})
        for row in searched.rows
        if row.proposer != "uniform"
    ]
    document["runs"] += [  # uniform is behind by 0.02, 0.022 and 0.024
        row.to_json() | {"test_score": row.test_score + 0.002 * row.search_seed}
        for row in searched.rows
        if row.proposer == "uniform" and row.test_score is not None
    ]
    dense = searched.rows[0].to_json() | {
        "id": "dense",
        "kind": "dense",
        "protocol": "dense",
        "proposer": "dense",
    }
    document["dense"] = [dense | {"test_score": 0.05}]
    for protocol, epochs in OF_EPOCHS:
        retrained = made(root, ("slimming",), keeps=(0.1,), protocol=protocol, epochs=epochs, score=ERROR)
        better = 0.1 * ((epochs == 16) == protocol.startswith("scratch"))
        for row in retrained.rows:
            assert row.test_score is not None
            values = row.to_json() | {"id": f"{protocol}{row.id}", "test_score": row.test_score - better}
            document["runs"].append(values)
    write(root / "vgg11-digits" / "searches" / "0123456789ab.json", document)
    return root


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return made(tmp_path_factory.mktemp("plain"), score=ERROR)


def scoring(row: TrainingRow, value: float) -> TrainingRow:
    return dataclasses.replace(row, test_score=value)


def axis_names(figure: Figure) -> list[str]:
    return [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]


def called(root: Path, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--out", str(root)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv"])
def test_tables_do_not_say_accuracy(root: Path, form: str) -> None:
    shown = called(root, "compare", "--format", form)
    assert "accura" not in shown.lower()
    if form != "csv":
        assert "test depth error (m)" in shown
        assert "Lower depth error is better." in shown
        assert "a depth error that cannot be told from guessing" in shown


@pytest.mark.parametrize("name", ["efficiency", "pareto", "cost", "budget"])
def test_figures_do_not_say_accuracy_and_say_what_is_better(root: Path, name: str) -> None:
    shown = called(root, "plot", name)
    (path,) = (Path(line) for line in shown.splitlines() if line.endswith(".svg"))
    text = " ".join("".join(each.itertext()) for each in ET.parse(path).iter())
    assert "accura" not in (shown + path.read_text()).lower()
    assert "test depth error (m), lower is better" in text


def test_the_page_does_not_say_accuracy(root: Path, tmp_path: Path) -> None:
    shown = called(root, "report", "--to", str(tmp_path / "report.html"))
    html = (tmp_path / "report.html").read_text()
    assert "accura" not in (shown + html).lower()
    assert "Depth error over parameters" in html
    assert "decades of cost times m, counted from" in html
    assert '"score":"0.1000 m test depth error"' in html


def test_documents_hold_the_score_and_fit_the_schema(root: Path) -> None:
    document = json.loads(called(root, "compare", "--json"))
    jsonschema.validate(document, {"$ref": "#/$defs/compare", "$defs": SCHEMA["$defs"]})
    (record,) = document["records"]
    assert Score.from_json(record["score"]) == ERROR
    assert "accura" not in json.dumps(document).lower()


def test_advice_of_ones_own_runs_does_not_say_accuracy(root: Path) -> None:
    path = root / "vgg11-digits" / "searches" / "0123456789ab.json"
    budget = str(json.loads(path.read_text())["runs"][0]["reached"]["params"])
    words = ("advise", "vgg11-digits", "--budget", budget, "--epochs", "3", "--json")
    document = json.loads(called(root, *words))
    jsonschema.validate(document, {"$ref": "#/$defs/advise", "$defs": SCHEMA["$defs"]})
    assert (document["answer"], document["basis"]) == ("scratch", "own")
    assert (
        "What slimming found is ahead of uniform shapes: +0.0220 m in depth error" in document["reasons"][1]
    )
    assert "accura" not in json.dumps(document).lower()


def test_the_headline_says_who_is_better(evidence: Evidence) -> None:
    # Slimming is 0.06 below taper (i = 0 and 3) at both targets and all seeds, 0.02 below uniform.
    sentences = [each.sentence for each in findings(evidence.rows, None, ERROR)]
    assert sentences[0].startswith(
        "Shapes found by slimming are 0.0600 m better in test depth error than tapered shapes"
    )
    rows = [
        row if row.proposer != "slimming" else scoring(row, 0.5 + 0.01 * row.search_seed)
        for row in evidence.rows
    ]
    worse = findings(rows, None, ERROR)[0]
    assert (worse.verdict, "m worse in test depth error than" in worse.sentence) == ("behind", True)
    assert "The interval lies below 0: what was found is worse than the control." in worse.sentence


def test_level_is_within_the_margin_of_the_score(evidence: Evidence) -> None:
    rows = [scoring(row, 0.2 + 0.0001 * row.search_seed * len(row.proposer)) for row in evidence.rows]
    finding = findings(rows, None, ERROR)[0]
    assert finding.verdict == "level"
    assert "The interval lies within 0.002 m of 0" in finding.sentence


def test_every_axis_says_that_lower_is_better(evidence: Evidence) -> None:
    lines = table(evidence.rows, ERROR)
    figures = [
        efficiency_figure(
            curves(evidence.rows, ERROR), space="s", data="d", recipe="r", epochs=3, score=ERROR, dense=0.05
        ),
        pareto_figure(lines, setting="s", score=ERROR),
        price_figure(prices(evidence.rows, evidence.costs, ERROR), setting="s", score=ERROR),
    ]
    for figure in figures:
        assert set(axis_names(figure)) == {"test depth error (m), lower is better"}
        bottom, top = figure.axes[0].get_ylim()
        assert bottom < top  # larger numbers are above, whichever are better
    assert "dense\n0.050" in [text.get_text() for text in figures[0].axes[0].texts]


def test_axes_of_accuracy_say_no_direction(tmp_path: Path) -> None:
    made_ = made(tmp_path)
    assert axis_names(pareto_figure(table(made_.rows, ACCURACY), setting="s", score=ACCURACY)) == [
        "test accuracy (%)"
    ]


def test_the_axis_is_not_cut_at_0_and_100(evidence: Evidence) -> None:
    rows = [scoring(row, 300.0 * row.search_seed - 200.0) for row in evidence.rows]
    figure = efficiency_figure(curves(rows, ERROR), space="s", data="d", recipe="r", epochs=3, score=ERROR)
    bottom, top = figure.axes[0].get_ylim()
    assert bottom < -200.0
    assert top > 400.0


def test_the_pareto_front_steps_down(evidence: Evidence) -> None:
    (steps,) = {
        tuple(line.get_ydata())
        for line in pareto_figure(table(evidence.rows, ERROR), setting="s", score=ERROR).axes[0].lines
        if line.get_drawstyle() == "steps-post"
    }
    assert list(steps) == sorted(steps, reverse=True)
    # The best mean of all, slimming's at the larger target, ends the front: (10 - 1) / 100.
    assert steps[-1] == pytest.approx(0.09)


def test_the_crossing_is_where_the_error_falls_below(root: Path) -> None:
    record = Record.from_document(
        json.loads((root / "vgg11-digits" / "searches" / "0123456789ab.json").read_text()), root
    )
    found = courses(record.rows, record.score)
    (crossing,) = crossings(found)
    assert crossing.at == pytest.approx(
        8.0
    )  # -0.1 at 4 and +0.1 at 16 epochs, the middle on a logarithmic axis
    figure = budget_figure(found, setting="s")
    assert axis_names(figure) == ["test depth error (m), lower is better"]
    assert "8" in [text.get_text() for text in figure.axes[0].texts]


def test_the_checklist_judges_by_the_score(evidence: Evidence) -> None:
    said = {item.practice: item for item in checklist(evidence)}
    assert said["Targets small enough to tell proposers apart"].status == "done"
    assert said["Networks that learnt more than guessing"].status == "unknown"


def test_a_page_of_two_scores_names_each(evidence: Evidence, tmp_path: Path) -> None:
    html = page([evidence, made(tmp_path)], tmp_path)
    assert re.findall(r">([\w ]+) over parameters<", html) == ["Depth error", "Accuracy"]


def test_a_document_without_a_score_is_refused_in_one_line(root: Path) -> None:
    path = root / "vgg11-digits" / "searches" / "0123456789ab.json"
    document = json.loads(path.read_text())
    del document["score"]
    with pytest.raises(InputError, match=r"is damaged .*score.*; repeat the search"):
        Record.from_document(document, path)


def test_a_score_out_of_range_in_a_document_names_its_row(root: Path) -> None:
    path = root / "vgg11-digits" / "searches" / "0123456789ab.json"
    document = json.loads(path.read_text())
    document["score"] = ACCURACY.to_json()
    document["runs"][0]["test_score"] = 101.0
    with pytest.raises(InputError, match=f"result row {document['runs'][0]['id']}: test_score: 101"):
        Record.from_document(document, path)


def test_records_of_two_scores_are_not_merged(root: Path) -> None:
    path = root / "vgg11-digits" / "searches" / "0123456789ab.json"
    document = json.loads(path.read_text())
    scores = [ERROR, Score(name="error", better="lower")]
    records = [Record.from_document(document | {"score": score.to_json()}, path) for score in scores]
    assert [record.score for record in merge(records)] == scores
