"""`prunas plot`: who is drawn, into which file, in which format; what a figure leaves out it says."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from prunas.costs.counted import Cost
from prunas.costs.target import Target
from prunas.results.rows import TrialRow
from prunas.statistics.tables import document
from tests.commands import command
from tests.report.made_runs import SPACE, made, write


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    made(root)
    return root


def words(path: Path) -> str:
    """The words of an SVG, line breaks as spaces."""
    return " ".join(re.findall(r"<text[^>]*>([^<]*)<", path.read_text()))


@pytest.mark.parametrize("what", ["efficiency", "widths", "pareto", "cost", "curves"])
def test_only_some_are_drawn_and_the_caption_names_the_others(
    what: str, finished: Path, tmp_path: Path
) -> None:
    file = tmp_path / "few.svg"
    asked = ["--proposer", "slimming,taper", "--to", str(file), "--out", str(finished)]
    assert command("plot", what, *asked) == 0
    said = words(file).replace("; ", " ")
    assert "uniform, random (not asked for)" in said


def candidate(proposer: str, point: int, evaluator: str, value: float) -> TrialRow:
    return TrialRow(
        id=f"{proposer}-{point}-{evaluator}", proposer=proposer, asked=Target("params", 500, 0.5), search_seed=0,
        architecture=f"{proposer}-{point}", reached=Cost(500, 500, 500, 500), epochs=1, train_macs=1, fraction=1.0,
        val_score=value, duplicate=False, folder="", evaluator=evaluator,
    )  # fmt: skip


def test_cheap_scores_are_those_of_the_proposers_that_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ranks of `random` agree, those of `tpe` are turned round."""
    record = made(tmp_path).record
    trials = [
        trial
        for point in range(4)
        for trial in (
            candidate("random", point, "", 50.0 + point),
            candidate("random", point, "inherited", 20.0 + point),
            candidate("tpe", point, "", 50.0 + point),
            candidate("tpe", point, "inherited", 20.0 - point),
        )
    ]
    write(
        tmp_path / SPACE / "searches" / "0123456789ab.json",
        document(replace(record, trials=tuple(trials))),
    )
    file = tmp_path / "proxy.svg"
    asked = ["plot", "proxy", "--out", str(tmp_path), "--to", str(file), "--json"]
    taus = {}
    for names in ("random", "tpe", "random,tpe"):
        assert command(*asked, "--proposer", names) == 0
        (found,) = json.loads(capsys.readouterr().out)["proxies"]
        taus[names] = found["tau"], len(found["cheap"])
    assert taus["random"] == (1.0, 4)
    assert taus["tpe"] == (-1.0, 4)
    assert taus["random,tpe"][1] == 8
    assert command(*asked, "--proposer", "tpe") == 0
    assert "left out: random (not asked for)" in re.sub(r"\s+", " ", words(file)).replace("; ", " ")
    capsys.readouterr()
    assert command(*asked, "--proposer", "tp") == 2
    assert "did you mean tpe?" in capsys.readouterr().err


def test_formats_and_where_they_go(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("plot", "cost", "--format", "pdf,svg", "--out", str(finished)) == 0
    folder = finished / SPACE / "figures"
    assert capsys.readouterr().out.splitlines() == [f"{folder}/cost.pdf", f"{folder}/cost.svg"]
    assert command("plot", "cost", "--to", str(tmp_path / "c.pdf"), "--out", str(finished)) == 0
    first = (tmp_path / "c.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    assert first == (folder / "cost.pdf").read_bytes()  # the same bytes for the same figure
    assert (
        command("plot", "cost", "--to", str(tmp_path / "d"), "--format", "png", "--out", str(finished)) == 0
    )
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "tiff"], "unknown format of a figure 'tiff'"),
        (["--to", "a.svg", "--format", "pdf"], "do not go together"),
        (["--to", "a.bmp"], "no suffix of a figure"),
        (["--proposer", "slimmin"], "did you mean slimming?"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    options: list[str], says: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("plot", "efficiency", "--out", str(finished), *options) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
