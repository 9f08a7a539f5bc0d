"""The front door: what `search`, `transfer`, `train` and `load_results` answer."""

import json
from pathlib import Path

import pytest

import prunas
from prunas.api import SearchResult, prepare_search
from prunas.errors import InputError
from prunas.spaces.load import load_space

QUICK = {"epochs": 1, "images": 200}


@pytest.fixture(scope="module")
def result(small_space: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    out = tmp_path_factory.mktemp("api") / "runs"
    return prunas.search(
        small_space, ["uniform", "tpe"], keep=0.5, seeds=1, trials=3, recipe=QUICK, out=out, controls=False
    )


def test_a_result_is_what_is_stored(result: SearchResult) -> None:
    assert result.complete
    assert result.trained == 3 + 1 + 2  # trials, the dense network, both points
    (path,) = result.root.glob("*/searches/*.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(result.document))
    (read,) = prunas.load_results(result.root)
    assert read.record == result.record
    assert read.table("markdown") == result.table("markdown")


def test_repeating_a_call_trains_nothing(result: SearchResult, small_space: Path) -> None:
    again = prunas.search(
        str(small_space),
        ["uniform", "tpe"],
        keep=[0.5],
        seeds=1,
        trials=3,
        recipe=QUICK,
        out=result.root,
        controls=False,
    )
    assert (again.trained, again.record) == (0, result.record)


def test_the_best_point_is_chosen_by_validation(result: SearchResult) -> None:
    trials = [trial for trial in result.record.trials if trial.val_score is not None]
    best = result.best(keep=0.5)
    assert best.val_score == max(trial.val_score for trial in trials)
    assert best.architecture.digest == next(t.architecture for t in trials if t.val_score == best.val_score)
    assert best.row.proposer == "tpe"
    assert best.unranked == ("uniform",)
    assert result.best() == best  # of the only target
    result.space.check(best.architecture)
    (read,) = prunas.load_results(result.root)
    assert read.best(keep=0.5) == best
    read.space.check(best.architecture)


def test_nothing_is_chosen_by_its_test_score(small_space: Path, tmp_path: Path) -> None:
    only = prunas.search(
        small_space, "uniform", keep=0.5, seeds=1, recipe=QUICK, out=tmp_path, controls=False, dense=False
    )
    assert only.rows[0].test_score is not None
    with pytest.raises(InputError, match="no point at 50 % has a validation score"):
        only.best()


@pytest.mark.parametrize(("keep", "budget"), [(0.4, None), (None, "1.2M")])
def test_best_names_the_targets_there_are(
    result: SearchResult, keep: float | None, budget: str | None
) -> None:
    with pytest.raises(InputError, match="there are: 50 %"):
        result.best(keep=keep, budget=budget)


def test_figures_are_written_where_they_are_asked_for(result: SearchResult, tmp_path: Path) -> None:
    assert result.plot(tmp_path / "own.svg").read_bytes() == result.figures[0].read_bytes()
    with pytest.raises(InputError, match=r"as \.svg, \.png or \.pdf"):
        result.plot(tmp_path / "own.gif")
    with pytest.raises(InputError, match="form of a table"):
        result.table("html")


def test_lines_are_those_of_the_document(result: SearchResult) -> None:
    assert result.lines() == result.document["table"]


def test_a_search_from_python_is_the_same_as_the_command(
    result: SearchResult, small_space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prunas.cli import main

    words = [
        "search",
        str(small_space),
        "--proposer",
        "uniform,tpe",
        "--keep",
        "0.5",
        "--seeds",
        "1",
        "--trials",
        "3",
    ]
    words += ["--epochs", "1", "--images", "200", "--no-controls", "--out", str(result.root), "--json"]
    with pytest.raises(SystemExit):
        main(words)
    document = json.loads(capsys.readouterr().out)
    assert document["trained"] == 0
    assert document["runs"] == json.loads(json.dumps(result.document["runs"]))


def test_one_point_is_trained(result: SearchResult, tmp_path: Path) -> None:
    space = result.space
    point = prunas.designs.uniform(space, space.target(keep=0.5))
    trained = prunas.train(space, point, recipe=QUICK, out=tmp_path)
    assert (trained.outcome.status, trained.row.architecture) == ("finished", point.digest)
    assert (trained.folder / "weights.safetensors").is_file()
    # The same training as the search's, whose weights were not kept: the same score, another run.
    (row,) = [row for row in result.rows if row.proposer == "uniform"]
    assert trained.row.test_score == row.test_score


def test_shapes_are_carried_over(tmp_path: Path) -> None:
    carried = prunas.transfer(
        "vgg16-c10",
        "vgg11-digits",
        from_found=True,
        keep=0.1,
        seeds=1,
        recipe=QUICK,
        out=tmp_path,
        controls=False,
        dense=False,
    )
    assert carried.complete
    assert {row.proposer for row in carried.rows} == {"slimming", "guided", "transferred"}


def test_a_stopped_search_stores_no_record(small_space: Path, tmp_path: Path) -> None:
    stopped = prunas.search(small_space, "uniform", keep=0.5, recipe=QUICK, out=tmp_path, stop=lambda: True)
    assert stopped.stopped
    assert not list(tmp_path.glob("*/searches/*.json"))


def test_what_cannot_be_done_is_said_before_anything_is_written(small_space: Path, tmp_path: Path) -> None:
    for wrong in ({"keep": 2.0}, {"executor": "nobody"}, {"protocol": "nothing"}, {"recipe": {"epoch": 1}}):
        with pytest.raises(InputError):
            prepare_search(small_space, "uniform", out=tmp_path / "runs", **wrong)
    assert not (tmp_path / "runs").exists()
    assert (
        prepare_search(load_space(str(small_space)), "uniform", keep=0.5, seeds=2).forecasts[0].trainings > 0
    )
