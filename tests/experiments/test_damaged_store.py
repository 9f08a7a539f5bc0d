"""Stores that are damaged or of another format: who repairs, who only looks, who refuses."""

import json
import shutil
from pathlib import Path

import pytest

from prunas.cli import main

QUICK = ("--epochs", "1", "--images", "200", "--seeds", "1", "--keep", "0.3", "--no-dense", "--no-controls")
READING = {
    "runs": ("runs",),
    "compare": ("compare",),
    "plot": ("plot", "widths"),
    "report": ("report", "--to", "{elsewhere}/report.html"),
    "advise": ("advise", "{space}", "--budget", "1k", "--epochs", "1"),
    "export": ("export", "{run}", "--to", "safetensors", "--file", "{elsewhere}/net.safetensors"),
}


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def contents(root: Path) -> dict[str, bytes]:
    """Every file under a folder but figures, which `plot` is asked to draw there."""
    files = (path for path in root.rglob("*") if path.is_file() and "figures" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(small_space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert call("search", small_space, *QUICK, "--keep-weights", "--out", root) == 0
    return root


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(finished, tmp_path / "runs"))
    for record in copy.glob("*/searches/*.json"):  # a record names the folders of its runs
        record.write_text(record.read_text().replace(str(finished), str(copy)))
    return copy


def reading(name: str, store: Path, space: Path, elsewhere: Path) -> int:
    (run,) = store.glob("*/scratch-e-*")
    words = {"elsewhere": elsewhere, "space": space, "run": run.name}
    return call(*(word.format(**words) for word in READING[name]), "--out", store)


def damage(path: Path) -> None:
    path.write_bytes(b"{" + bytes(20))


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("file", ["job.json", "result.json", "weights.safetensors", "../../prunas.json"])
def test_commands_that_only_read_change_nothing(
    name: str, file: str, store: Path, small_space: Path, tmp_path: Path
) -> None:
    for run in store.glob("*/*-*/"):
        damage(run / file)
    before = contents(store)
    refused = name == "export" and file in ("job.json", "result.json", "weights.safetensors")
    assert reading(name, store, small_space, tmp_path / "elsewhere") == (2 if refused else 0)
    assert contents(store) == before


def test_a_finished_run_with_a_damaged_job_is_listed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = store.glob("*/dense-*")
    damage(run / "job.json")
    assert call("runs", "--out", store, "--json") == 0
    printed = capsys.readouterr()
    rows = {row["label"]: row["status"] for row in json.loads(printed.out)}
    assert rows == {"dense": "finished", "scratch-e": "finished"}
    assert printed.err.count("job.json is damaged") == 1


@pytest.mark.parametrize(
    ("name", "where"),
    [(name, "store") for name in (*READING, "search")]
    + [(name, "runs") for name in (*READING, "search") if name != "advise"],  # which reads records alone
)
def test_a_store_of_another_format_is_refused_by_everyone(
    name: str, where: str, store: Path, small_space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if where == "store":
        paths = [store / "prunas.json"]
    else:
        paths = [path for file in ("job", "result") for path in store.glob(f"*/*/{file}.json")]
    for path in paths:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    before = contents(store)
    capsys.readouterr()
    if name == "search":
        code = call("search", small_space, *QUICK, "--keep-weights", "--out", store)
    else:
        code = reading(name, store, small_space, tmp_path / "elsewhere")
    assert code == 2
    assert "in format 99, this prunas reads format 2" in capsys.readouterr().err.splitlines()[-1]
    assert contents(store) == before


@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "truncated"])
def test_damaged_weights_are_set_aside_and_trained_again(
    content: bytes | None, store: Path, small_space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dense,) = store.glob("*/dense-*")
    weights, sound = dense / "weights.safetensors", (dense / "weights.safetensors").read_bytes()
    broken = sound[:-100] if content is None else content
    weights.write_bytes(broken)
    capsys.readouterr()
    arguments = ("search", small_space, *QUICK, "--protocol", "finetune:1", "--out", store, "--json")
    assert call(*arguments) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["trained"] == 2  # the dense network again, and the fine-tuning
    assert "weights.safetensors is damaged" in printed.err
    assert weights.read_bytes() == sound
    assert (dense / "weights.safetensors.damaged-1").read_bytes() == broken
    assert (dense / "result.json.damaged-1").is_file()
    assert call(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["trained"] == 0


def test_exporting_damaged_weights_says_what_to_do_and_that_helps(
    store: Path, small_space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = store.glob("*/scratch-e-*")
    (run / "weights.safetensors").write_bytes(b"garbage")
    capsys.readouterr()
    assert reading("export", store, small_space, tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "weights.safetensors is damaged" in line
    assert "repeat the command that trained it" in line
    assert call("search", small_space, *QUICK, "--keep-weights", "--out", store) == 0
    assert reading("export", store, small_space, tmp_path) == 0
