"""One run looked at, by folder, id or name: finished, failed, or still under way."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from prunas.errors import InputError
from prunas.inspection.runs import is_run, shown_run
from prunas.results.record import Record
from prunas.runs.job import Job
from prunas.runs.store import Result, Store
from tests.commands import command
from tests.report.made_runs import SPACE, space


def nobody(root: Path, name: str) -> Sequence[Record]:
    raise InputError("no search has ended yet")


def job(seed: int = 0) -> Job:
    arch = space().point({"features.0": 4})
    recipe = {"batch": 32, "lr": 0.05, "schedule": "one-cycle", "precision": "fp32"}
    spec = {"space": SPACE, "architecture": arch.to_json(), "epochs": 10, "seed": seed, "score": "test"}
    return Job("train", spec | {"recipe": recipe}, SPACE, "scratch-e")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    folder = store.begin(job())
    (folder / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    return store


def test_a_run_under_way_says_how_far_it_came(store: Store) -> None:
    folder = store.folder(job())
    for what in (str(folder), job().id, job().name):
        assert is_run(what, store.root)
        shown = shown_run(what, store.root, nobody)
        assert shown.document["status"] == "unfinished"
        assert (shown.document["epochs_done"], shown.document["epochs"]) == (2, 10)
        assert dict(shown.architecture.widths) == {"features.0": 4}
        assert shown.text.splitlines()[0] == f"run {job().name}: unfinished, 2 of 10 epochs done"


def test_a_finished_and_a_failed_run(store: Store) -> None:
    store.finish(Result(job(), {"score": 91.5, "score_name": "accuracy"}, 65.0, "2026-01-01T00:00:00", {}))
    shown = shown_run(job().id, store.root, nobody)
    assert shown.text.splitlines()[:2] == [
        f"run {job().name}: finished 2026-01-01T00:00:00 in 1 min 05 s",
        "test accuracy 91.5",
    ]
    store.begin(job(1))
    store.fail(job(1), "the loss is not finite", "")
    assert "error: the loss is not finite" in shown_run(job(1).id, store.root, nobody).text


def test_what_is_no_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_run(SPACE, store.root)
    assert not is_run("0123456789ab", store.root)
    other = Job("evaluate", {"n": 1}, SPACE, "evaluate")
    store.begin(other)
    with pytest.raises(InputError, match="trains no network"):
        shown_run(other.id, store.root, nobody)
    assert command("show", other.id, "--out", str(store.root)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_prints_the_run_and_its_point(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("show", job().id, "--out", str(store.root), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"]["id"] == job().id
    assert document["digest"] == space().point({"features.0": 4}).digest
    assert command("show", job().id, "--out", str(store.root)) == 0
    assert capsys.readouterr().out.startswith(f"run {job().name}")
