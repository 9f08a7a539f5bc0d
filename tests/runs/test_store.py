import errno
import json
import os
import threading

import pytest

from prunas.errors import InputError
from prunas.files import FORMAT
from prunas.runs.job import Job
from prunas.runs.store import Result, Store

JOB = Job("work", {"x": 3}, "space", "dense")


def finish(store, job=JOB, values=None):
    store.begin(job)
    store.finish(Result(job, values or {"square": 9}, 1.5, "2026-01-02T03:04:05+00:00", {"cpus": 2}))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def notices():
    return []


@pytest.fixture
def store(tmp_path, notices):
    return Store(tmp_path / "runs", notices.append)


def test_a_run_is_a_folder_and_finished_means_one_file(store):
    assert store.folder(JOB) == store.root / "space" / f"dense-{JOB.id}"
    assert store.result(JOB) is None
    folder = store.begin(JOB)
    assert json.loads((folder / "job.json").read_text()) == JOB.to_json()
    assert store.result(JOB) is None
    finish(store)
    assert json.loads((folder / "result.json").read_text()) == {
        "format": 2,
        "id": JOB.id,
        "work": "work",
        "label": "dense",
        "space": "space",
        "spec": {"x": 3},
        "result": {"square": 9},
        "seconds": 1.5,
        "finished": "2026-01-02T03:04:05+00:00",
        "machine": {"cpus": 2},
    }
    found = store.result(JOB)
    assert (found.job, found.values, found.seconds) == (JOB, {"square": 9}, 1.5)


def test_looking_makes_nothing(store):
    assert store.result(JOB) is None
    assert list(store.runs()) == []
    assert not store.root.exists()


DAMAGE = {
    "truncated": lambda path: path.write_text(path.read_text()[:40]),
    "empty": lambda path: path.write_text(""),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "another type": lambda path: path.write_text("12"),
    "result missing": lambda path: path.write_text(json.dumps(JOB.to_json())),
    "result no object": lambda path: edit(path, result=7),
    "edited spec": lambda path: edit(path, spec={"x": 4}),
    "another run's": lambda path: edit(path, **Job("work", {"x": 4}, "space", "dense").to_json()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_result_is_set_aside_and_told(store, notices, damage):
    path = store.folder(JOB) / "result.json"
    for number in (1, 2):
        finish(store)
        damage(path)
        left = path.read_bytes()
        assert store.result(JOB) is None
        assert not path.exists()
        assert path.with_name(f"result.json.damaged-{number}").read_bytes() == left
        assert len(notices) == number
        assert str(path) in notices[-1]
        assert f"set aside as result.json.damaged-{number}" in notices[-1]
        assert store.result(JOB) is None
        assert len(notices) == number


def test_a_store_that_nobody_listens_to_warns(tmp_path):
    store = Store(tmp_path)
    finish(store)
    (store.folder(JOB) / "result.json").write_text("{")
    with pytest.warns(UserWarning, match=r"result\.json is damaged"):
        assert store.result(JOB) is None


@pytest.mark.parametrize("name", ["result.json", "job.json"])
def test_another_format_version_is_refused_and_left_alone(store, notices, name):
    finish(store)
    path = store.folder(JOB) / name
    edit(path, format=7)
    before = path.read_bytes()
    words = f"{path.parent} was written in format 7, this prunas reads format 2; choose another --out"
    actions = {"result.json": lambda: store.result(JOB), "job.json": lambda: store.begin(JOB)}
    for action in (actions[name], lambda: list(store.runs())):
        with pytest.raises(InputError) as caught:
            action()
        assert str(caught.value).startswith(words)
    assert path.read_bytes() == before
    assert notices == []


def test_a_whole_store_of_another_version_is_refused_at_once(store):
    finish(store)
    edit(store.root / "prunas.json", format=1)
    with pytest.raises(InputError, match=f"{store.root} was written in format 1, this prunas reads format 2"):
        Store(store.root)


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; choose a folder"):
        Store(tmp_path / "file")


def test_a_folder_that_is_not_writable(store, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(InputError, match=r"cannot write .*: Permission denied; choose"), store.lock(JOB):
        raise AssertionError("entered")
    with pytest.raises(InputError, match=r"cannot write .*: Permission denied"):
        store.begin(JOB)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(store):
    store.root.mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"cannot write .*: Permission denied"), store.lock(JOB):
        raise AssertionError("entered")


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_no_half_result(store, monkeypatch, call):
    folder = store.begin(JOB)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(InputError, match=r"result\.json: No space left on device; free some space"):
            finish(store)
    assert {path.name for path in folder.iterdir()} == {"job.json", "attempts.jsonl"}
    finish(store)
    assert store.result(JOB).values == {"square": 9}


def test_the_second_waits_for_the_lock_and_may_give_up(store):
    class Enough(Exception):
        pass

    looks = []

    def waiting():
        looks.append(1)
        if len(looks) == 2:
            raise Enough

    with store.lock(JOB), pytest.raises(Enough), store.lock(JOB, waiting):
        raise AssertionError("two hold one lock")
    assert len(looks) == 2
    with store.lock(JOB, waiting):
        pass
    assert len(looks) == 2


def test_the_second_enters_when_the_first_has_left(store):
    order = []
    held, asked = threading.Event(), threading.Event()

    def first():
        with store.lock(JOB):
            held.set()
            asked.wait(10)
            order.append("first leaves")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(10)
    with store.lock(JOB, waiting=asked.set):
        order.append("second enters")
    thread.join()
    assert order == ["first leaves", "second enters"]


def test_runs_are_listed_with_their_status(store):
    jobs = {x: Job("work", {"x": x}, "alpha" if x < 3 else "beta", "dense") for x in range(5)}
    for job in jobs.values():
        store.begin(job)
    finish(store, jobs[0])
    store.fail(jobs[1], "ValueError: no", "Traceback ...")
    store.fail(jobs[4], "ValueError: no", "Traceback ...")
    finish(store, jobs[4])
    with store.lock(jobs[2]):
        found = {run.job.spec["x"]: run for run in store.runs()}
    statuses = {x: run.status for x, run in found.items()}
    assert statuses == {0: "finished", 1: "failed", 2: "running", 3: "unfinished", 4: "finished"}
    assert found[0].result.values == {"square": 9}
    assert found[1].error == "ValueError: no"
    assert found[2].folder == store.folder(jobs[2])
    assert {run.status for run in store.runs() if run.job == jobs[2]} == {"unfinished"}
    assert {run.job.spec["x"] for run in store.runs("beta")} == {3, 4}
    folders = [run.folder for run in store.runs()]
    assert folders == sorted(folders)
    assert len(folders) == 5


def test_failures_are_counted_beside_the_run(store):
    store.begin(JOB)
    for attempt in (1, 2):
        store.fail(JOB, "ValueError: no", "Traceback ...")
        record = json.loads((store.folder(JOB) / "failure.json").read_text())
        assert (record["attempts"], record["error"]) == (attempt, "ValueError: no")
        assert record["traceback"] == "Traceback ..."
    assert store.result(JOB) is None


def test_a_damaged_job_is_told_and_does_not_stop_the_listing(store, notices):
    finish(store)
    other = Job("work", {"x": 5}, "space", "dense")
    store.begin(other)
    (store.folder(other) / "job.json").write_text("{")
    assert [run.job for run in store.runs()] == [JOB]
    assert len(notices) == 1
    store.begin(other)
    assert len(list(store.runs())) == 2


def test_a_listing_only_looks(store, notices):
    finish(store)
    folder = store.folder(JOB)
    for name in ("job.json", "result.json", "failure.json"):
        (folder / name).write_text("{")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        list(store.runs())
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert notices


def test_a_damaged_marker_is_replaced_by_the_next_run(store, notices):
    finish(store)
    marker = store.root / "prunas.json"
    for content in ("{", "12", "{}"):
        marker.write_text(content)
        again = Store(store.root, notices.append)
        assert marker.read_text() == content
        again.begin(JOB)
        assert json.loads(marker.read_text())["format"] == FORMAT


def test_a_result_whose_weights_are_damaged_counts_as_absent(store, notices):
    finish(store)
    folder = store.folder(JOB)
    (folder / "weights.safetensors").write_bytes(b"garbage")
    assert [run.status for run in store.runs()] == ["finished"]
    assert (folder / "result.json").is_file()
    assert store.result(JOB) is None
    assert {path.name for path in folder.glob("*.damaged-1")} == {
        "result.json.damaged-1",
        "weights.safetensors.damaged-1",
    }
    assert len(notices) == 2
