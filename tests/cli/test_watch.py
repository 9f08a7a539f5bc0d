"""`prunas watch`: what it says of runs that go on in another process."""

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest

import prunas
from prunas.cli import watch as module
from prunas.runs.job import Job
from prunas.runs.store import Result, Store
from tests.commands import command
from tests.report.made_runs import write

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())


def job(seed: int) -> Job:
    return Job("train", {"epochs": 10, "seed": seed}, "small", "scratch-e")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One training has finished, one failed, one waits to be continued; one goes on, four epochs of 2 s done."""
    store = Store(tmp_path / "runs")
    for seed in range(4):
        store.begin(job(seed))
    values = {"score": 91.25, "score_name": "accuracy"}
    store.finish(Result(job(0), values, 20.0, "2026-01-01T00:00:00+00:00", {}))
    store.fail(job(1), "the loss is not finite", "")
    folder = store.folder(job(3))
    log = [{"epoch": n + 1, "loss": 2.0 / (n + 1), "seconds": 2.0} for n in range(4)]
    text = "\n".join(map(json.dumps, log)) + '\n{"epoch": 5, "lo'  # a line that is being written
    (folder / "log.jsonl").write_text(text)
    began = datetime.now(UTC) - timedelta(hours=2)
    (folder / "attempts.jsonl").write_text(json.dumps({"started": began.isoformat()}) + "\n")
    return store


def test_it_says_what_runs_how_far_it_is_and_what_has_ended(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.lock(job(3)):
        assert command("watch", "--once", "--out", str(store.root)) == 0
        text = capsys.readouterr().out
        assert command("watch", "--json", "--out", str(store.root)) == 0
        document = json.loads(capsys.readouterr().out)
    first, _, _, row = text.splitlines()
    assert first == (
        f"1 finished, 1 running, 1 unfinished, 1 failed; last finished small/{job(0).name}: accuracy 91.25"
    )
    assert row.split() == [f"small/{job(3).name}", "4/10", "0.500", "2", "h", "00", "min", "12.0", "s"]
    jsonschema.validate(document, {"$ref": "#/$defs/watch", "$defs": SCHEMA["$defs"]})
    assert document["statuses"] == {"finished": 1, "running": 1, "unfinished": 1, "failed": 1}
    assert [row["left"] for row in document["running"]] == [12.0]  # six epochs of two seconds


def test_it_follows_until_nothing_has_run_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            now[0] += seconds
            if now[0] >= 90:
                held.close()

    with ExitStack() as held:
        held.enter_context(store.lock(job(3)))
        monkeypatch.setattr(module, "time", Clock)
        assert command("watch", "--out", str(store.root)) == 0
    printed = capsys.readouterr()
    assert printed.out.count("1 running") == 3  # at 0, 30 and 60 seconds: off a terminal, now and then
    assert printed.err.startswith("nothing runs any more")


def test_an_empty_folder_and_an_unknown_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("watch", "--once", "--out", str(tmp_path)) == 0
    assert capsys.readouterr().out == "no run was begun yet\n"
    write(tmp_path / "small" / "scratch-e-0" / "job.json", {})
    assert command("watch", "smal", "--once", "--out", str(tmp_path)) == 2
    assert "small" in capsys.readouterr().err
