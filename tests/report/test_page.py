import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prunas.costs.counted import Cost
from prunas.report.checklist import checklist
from prunas.report.commands import commands
from prunas.report.evidence import Evidence, gather
from prunas.report.headline import findings
from prunas.report.page import page
from prunas.results.record import Record
from prunas.results.rows import TrainingRow
from prunas.statistics.claims import verdict
from prunas.statistics.summary import Summary, summarise
from prunas.statistics.wording import better_words
from prunas.tasks.score import ACCURACY, Score
from tests.report.made_runs import made

VOID = {"meta", "br", "path", "use", "rect"}


class Reader(HTMLParser):
    """Ids, outside addresses, and whether elements close in the order they open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.outside += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href") and value[:1] != "#"
        ]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def embedded(html: str) -> dict[str, dict[str, object]]:
    text = html.split('class="runs">')[1].split("</script>")[0]
    runs: dict[str, dict[str, object]] = json.loads(text)["runs"]
    return runs


def test_one_file_with_ids_of_its_own_and_nothing_from_outside(tmp_path: Path) -> None:
    evidence = made(tmp_path)
    html = page([evidence, evidence], tmp_path)
    reader = read(html)
    assert reader.outside == []
    assert len(reader.ids) == len(set(reader.ids))
    assert "http://" not in re.sub(r'xmlns(:xlink)?=\\?"[^"]*"', "", html)
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', html))
    assert references <= set(reader.ids)


def test_every_run_is_a_mark_a_row_and_a_shape(tmp_path: Path) -> None:
    html = page([made(tmp_path)], tmp_path)
    runs = {f"{i:04x}{j:04x}{seed:04x}" for i in range(4) for j in range(2) for seed in range(3)}
    for pattern, times in ((r'class="run" data-run="(\w+)"', 2), (r'class="open" data-run="(\w+)"', 1)):
        found = re.findall(pattern, html)
        assert (set(found), len(found)) == (runs, 24 * times)
    shown = embedded(html)
    assert shown.keys() == runs
    assert shown["000000000000"]["widths"] == [
        round(0.2 * w / 4) for w in (64, 128, 256, 256, 512, 512, 512, 512)
    ]
    assert shown["000000000000"]["as"] == ["slimming, 10 %, scratch-e, search seed 0"]


def test_what_users_write_is_escaped_everywhere(tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script><img src=x onerror=alert(1)> & "'
    evidence = made(tmp_path, ("slimming", evil), notes=[evil], problems=[evil], flags=(evil,))
    html = page([evidence], tmp_path)
    assert "<img" not in html
    assert html.count("<script") == 2  # the data and the page's own
    assert evil in str(embedded(html)["000100000000"]["as"])
    read(html)


def test_a_run_stored_twice_in_one_search_is_one_mark_with_two_roles(tmp_path: Path) -> None:
    evidence = made(tmp_path, ("slimming", "uniform"), id="aaaa")
    assert len(embedded(page([evidence], tmp_path))["aaaa"]["as"]) == 12  # type: ignore[arg-type]


def test_only_fine_tuned_points_are_warned_about(tmp_path: Path) -> None:
    assert "Only fine-tuned:" not in page([made(tmp_path)], tmp_path)
    tuned = page([made(tmp_path, protocol="finetune")], tmp_path)
    assert "Only fine-tuned:</strong> slimming, uniform, random, taper" in tuned


def test_folders_that_are_gone_leave_gaps_and_moved_ones_are_found(tmp_path: Path) -> None:
    made(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "runs")
    shutil.rmtree(tmp_path / "before")
    documents = list((tmp_path / "runs").glob("*/searches/*.json"))
    assert len(documents) == 1
    moved = regathered(
        tmp_path / "runs", Record.from_document(json.loads(documents[0].read_text()), documents[0])
    )
    assert moved.runs["000000000000"].widths
    shutil.rmtree(tmp_path / "runs" / "vgg11-digits")
    gone = regathered(tmp_path / "runs", moved.record)
    assert (gone.layers, gone.runs["000000000000"].widths, gone.spreads()) == ((), (), [])
    html = page([gone], tmp_path)
    assert "The run folders no longer say." in html
    assert html.count("<figure") == 3  # no widths, no learning curves, no cost: that was not given


def regathered(root: Path, record: Record) -> Evidence:
    return gather(root, dataclasses.replace(record, costs=()))


# Words


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.1, 1.2], "ahead"),
        ([-1.0, -1.1, -1.2], "behind"),
        ([0.01, -0.01, 0.02], "level"),
        ([0.05, 0.1, 0.1], "level"),
        ([3.0, -2.0, 1.0], "undecided"),
        ([5.0], "undecided"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(values: list[float], expected: str) -> None:
    assert verdict(summarise(values), margin=ACCURACY.margin) == expected


def test_an_interval_that_ends_beyond_the_margin_on_one_side_only() -> None:
    assert verdict(Summary(mean=0.3, std=0.1, n=3, low=0.1, high=0.5), margin=ACCURACY.margin) == "ahead"
    assert verdict(Summary(mean=0.1, std=0.1, n=3, low=-0.1, high=0.3), margin=ACCURACY.margin) == "undecided"


def test_the_headline_puts_taper_first_and_scratch_before_fine_tuning(tmp_path: Path) -> None:
    fresh, tuned = made(tmp_path / "a"), made(tmp_path / "b", protocol="finetune")
    found = findings([varied(row) for row in (*tuned.rows, *fresh.rows)], None, score=ACCURACY)
    assert [(f.against, f.protocol) for f in found] == [
        *((against, "scratch-e") for against in ("taper", "uniform", "random")),
        *((against, "finetune") for against in ("taper", "uniform", "random")),
    ]
    # slimming is three places before taper, two points each: 5.9, 6.0 and 6.1 by seed.
    assert found[0].difference.mean == pytest.approx(6)
    assert "score 6.00 points more than tapered shapes" in found[0].sentence
    assert "mean over 2 targets, 3 seeds, scratch-e" in found[0].sentence


def test_equal_scores_are_called_the_same(tmp_path: Path) -> None:
    rows = made(tmp_path, proposers=("slimming", "uniform"), test_score=88.0).rows
    (found,) = findings(rows, None, score=ACCURACY)
    assert found.sentence.startswith("Shapes found by slimming score the same on average as uniform shapes")
    error = Score(name="error", unit="", better="lower", low=0.0, margin=0.01)
    assert better_words(0.004, error) == "are 0.004 better in test error than"
    assert better_words(0.0, error) == "are the same on average in test error as"


def varied(row: TrainingRow) -> TrainingRow:
    """The row; that of slimming 0.1 points lower at seed 0 and higher at seed 2, so that differences vary."""
    assert row.score is not None
    if row.proposer != "slimming":
        return row
    return dataclasses.replace(row, test_score=row.score + (row.search_seed - 1) / 10)


def test_a_taper_that_misses_its_point_is_not_called_as_large(tmp_path: Path) -> None:
    def costing(row: TrainingRow) -> TrainingRow:
        # 1000 parameters and 5000 MACs; a taper of seed 1 has 0.3 % fewer parameters and 2.4 % more MACs.
        off = row.proposer == "taper" and row.search_seed == 1
        params, macs = (997, 5120) if off else (1000, 5000)
        flags = ("macs_not_matched",) if off else ()
        cost = Cost(params=params, macs=macs, dense_params=params, dense_macs=macs)
        return dataclasses.replace(varied(row), reached=cost, flags=flags)

    rows = [costing(row) for row in made(tmp_path).rows]
    taper, uniform, _ = (found.sentence for found in findings(rows, None, score=ACCURACY))
    assert "of the same parameters and MACs" not in taper
    assert "were to have the same parameters and MACs (taper) and miss them by up to +2.4 % MACs" in taper
    assert "Flagged: taper (MACs not matched 2 of 6)." in taper
    assert "uniform shapes of the same budget, 95 %" in uniform
    assert "Flagged" not in uniform
    matched = [row for row in rows if row.search_seed != 1]
    assert (
        "tapered shapes of the same parameters and MACs (taper)"
        in findings(matched, None, score=ACCURACY)[0].sentence
    )


def test_what_cannot_be_told_from_guessing_is_said(tmp_path: Path) -> None:
    evidence = made(tmp_path, test_score=10.2, chance=10.5)
    html = page([evidence], tmp_path)
    assert "chance level: an accuracy that cannot be told from guessing" in html
    assert "White face, flagged: chance level (random, slimming, taper, uniform)." in re.sub(
        r"\s+", " ", html
    )
    assert status(evidence)["Networks that learnt more than guessing"] == "not done"
    assert status(made(tmp_path / "b", chance=10.5))["Networks that learnt more than guessing"] == "done"


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    (first, *_) = findings(made(tmp_path, seeds=1).rows, None, score=ACCURACY)
    assert first.verdict == "undecided"
    assert "there is no interval" in first.sentence


def status(evidence: Evidence) -> dict[str, str]:
    return {item.practice.split(",")[0]: item.status for item in checklist(evidence)}


def test_the_checklist_is_computed(tmp_path: Path) -> None:
    good = status(made(tmp_path / "good", seeds=5))
    poor = status(made(tmp_path / "poor", ("slimming",), seeds=1, protocol="finetune"))
    for practice, then in (
        ("Shapes are judged by training them from scratch", "not done"),
        ("Compared with tapered shapes of the same parameters and MACs", "not done"),
        ("Compared with uniform shapes of the same budget", "not done"),
        ("Compared with random search", "not done"),
        ("Several seeds of the search itself", "not done"),
    ):
        assert (good[practice], poor[practice]) == ("done", then), practice
    assert good["Compared with the found widths in another order"] == "not done"
    assert good["Selection on validation images; the test set met once"] == "done"


@pytest.mark.parametrize(("field", "value"), [("split", "train+val+test"), ("score", "val")])
def test_the_checklist_notices_a_broken_rule(tmp_path: Path, field: str, value: str) -> None:
    evidence = made(tmp_path)
    evidence.runs["000000000000"].job["spec"][field] = value
    assert status(evidence)["Selection on validation images; the test set met once"] == "not done"


def test_the_checklist_notices_a_search_that_met_the_test_set(tmp_path: Path) -> None:
    evidence = made(tmp_path)
    searching = dataclasses.replace(evidence.rows[0], kind="dense", protocol="penalty")
    # The run of a final training, scored on test images, stands in for the dense one.
    record = dataclasses.replace(evidence.record, dense=(searching,))
    broken = dataclasses.replace(evidence, record=record)
    assert status(broken)["Selection on validation images; the test set met once"] == "not done"


def test_the_checklist_notices_a_recipe_of_its_own(tmp_path: Path) -> None:
    evidence = made(tmp_path)
    evidence.runs["000000000000"].job["spec"]["recipe"]["batch"] = 64
    assert status(evidence)["All compared shapes share space"] == "not done"


def test_the_random_control_needs_as_many_trainings_as_samplers(tmp_path: Path) -> None:
    # tpe stands first, and what stands first pays one training; random pays none.
    assert status(made(tmp_path, ("tpe", "random")))["Compared with random search"] == "partly"


def test_unfinished_runs_are_counted(tmp_path: Path) -> None:
    broken = made(tmp_path, status="failed", test_score=None)
    (item,) = (i for i in checklist(broken) if i.practice.startswith("Every run"))
    assert (item.status, item.evidence) == ("partly", "0 of 24 runs finished")
    assert "Nothing found by a search" in page([broken], tmp_path)


def test_commands_are_those_that_were_stored(tmp_path: Path) -> None:
    lines = commands(made(tmp_path, ("slimming", "uniform")), Path("my runs"))
    assert lines[0] == "prunas search vgg11-digits --proposer slimming,uniform --out 'my runs'"
    assert lines[-1] == "prunas report vgg11-digits --out 'my runs'"


def test_a_search_without_a_command_is_a_comment(tmp_path: Path) -> None:
    evidence = made(tmp_path)
    for plan, words in (
        ({}, "an older version was stored without a plan"),
        ({"proposers": ["tpe"], "command": None}, "tpe was asked for in Python"),
    ):
        searches = ({**evidence.searches[0], "plan": plan},)
        (line, *_) = commands(dataclasses.replace(evidence, searches=searches), tmp_path)
        assert line.startswith(f"# a search by {words}")


def test_a_thousand_runs_stay_under_five_megabytes(tmp_path: Path) -> None:
    sizes = {}
    for seeds in (2, 10):
        root = tmp_path / str(seeds)
        sizes[8 * seeds] = len(page([made(root, seeds=seeds)], root).encode())
    (few, small), (many, large) = sizes.items()
    assert small + (1000 - few) * (large - small) / (many - few) < 5_000_000


def test_retraining_budgets_are_a_question_of_their_own(tmp_path: Path) -> None:
    """They stand in a table and a headline of their own, and in no comparison of proposers."""
    rows = []
    for protocol, epochs, accuracy in (
        ("finetune:4", 4, 80.0),
        ("finetune:16", 16, 82.0),
        ("scratch-e:4", 4, 70.0),
        ("scratch-e:16", 16, 87.0),
    ):
        evidence = made(
            tmp_path / str(len(rows)), ("slimming", "uniform"), (0.1,), protocol=protocol, epochs=epochs
        )
        rows += [
            dataclasses.replace(row, id=f"{protocol}{row.id}", test_score=accuracy) for row in evidence.rows
        ]
    runs = {row.id: evidence.runs["000000000000"] for row in rows}
    record = dataclasses.replace(evidence.record, rows=tuple(rows))
    retrained = dataclasses.replace(evidence, record=record, runs=runs)
    html = page([retrained], tmp_path)
    assert "slimming at 10 %: training from scratch overtakes finetune at about 10.1 epochs" in html
    assert "Accuracy over retraining epochs" in html
    assert "Over all targets" not in html
    assert "<figcaption>Accuracy over parameters" not in html
    assert findings(rows, None, score=ACCURACY) == []
    read(html)
