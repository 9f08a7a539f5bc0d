import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import prunas
from prunas.architecture import Architecture
from prunas.cli import main

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())
QUICK = ("--epochs", "1", "--seeds", "1", "--no-dense")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def command(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "prunas", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def valid(name: str, text: str) -> Any:
    document = json.loads(text)
    jsonschema.validate(document, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})
    return document


@pytest.fixture(scope="module")
def searched(small_space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("searched")
    with pytest.raises(SystemExit) as ended:
        main(["search", str(small_space), *QUICK, "--out", str(root)])
    assert ended.value.code == 0
    return root


# What programs read


def test_search_prints_one_valid_document_and_nothing_is_trained_twice(
    cli: Run, searched: Path, small_space: Path
) -> None:
    code, out, err = cli("search", small_space, *QUICK, "--out", searched, "--json")
    document = valid("search", out)
    assert code == 0
    assert document["trained"] == 0
    assert {row["proposer"] for row in document["runs"]} == {"slimming", "uniform", "random", "taper"}
    assert [Path(path).suffix for path in document["figures"]] == [".svg", ".png"]
    assert all(Path(path).stat().st_size > 1000 for path in document["figures"])
    for row in document["runs"]:
        assert (Path(row["folder"]) / "result.json").is_file()
    few, planned = err.splitlines()  # no noise besides
    assert "a training takes" in few and "below about 500" in few
    assert "trainings in" in planned


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("show", ["show", "densenet40-c10"]),
        ("show", ["show", "vgg16-l1-c10:vgg-16-a"]),
        ("spaces", ["spaces"]),
        ("proposers", ["proposers"]),
        ("presets", ["presets"]),
        ("tasks", ["tasks"]),
        ("doctor", ["doctor"]),
    ],
)
def test_listings_are_valid_and_readable(cli: Run, name: str, arguments: list[str]) -> None:
    code, out, _ = cli(*arguments, "--json")
    assert code == 0
    assert valid(name, out)
    code, out, _ = cli(*arguments)
    assert code == 0
    assert len(out.splitlines()) > 3


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("runs", ["runs"]), ("compare", ["compare"]), ("plot", ["plot", "efficiency", "--metric", "macs"])],
)
def test_commands_over_finished_searches(cli: Run, searched: Path, name: str, arguments: list[str]) -> None:
    code, out, _ = cli(*arguments, "--out", searched, "--json")
    assert code == 0
    assert valid(name, out)
    assert cli(*arguments, "--out", searched)[0] == 0


def test_dry_run_trains_nothing(cli: Run, small_space: Path, tmp_path: Path) -> None:
    code, out, _ = cli("search", small_space, "--dry-run", "--out", tmp_path / "runs", "--json")
    document = valid("search --dry-run", out)
    assert code == 0
    assert len(document["runs"]) == 4 * 2
    assert not (tmp_path / "runs").exists()


def test_a_design_is_shown_trained_and_finished_when_asked_again(
    cli: Run, small_space: Path, tmp_path: Path
) -> None:
    file = tmp_path / "arch.json"
    code, out, _ = cli("design", "uniform", small_space, "--keep", "0.3", "--to", file, "--json")
    document = valid("design", out)
    assert code == 0
    assert Architecture.from_json(json.loads(file.read_text())).digest == document["digest"]


def test_train_scores_one_point_once(cli: Run, tmp_path: Path) -> None:
    arguments = ["train", "vgg11-digits", "--epochs", "1", "--batch", "256", "--out", tmp_path, "--json"]
    code, out, _ = cli(*arguments)
    first = valid("train", out)
    assert code == 0
    assert (first["trained"], first["reached"]["params"]) == (1, 578_810)
    assert (Path(first["folder"]) / "weights.safetensors").is_file()
    again = valid("train", cli(*arguments)[1])
    assert (again["trained"], again["test_score"]) == (0, first["test_score"])


def test_design_taper_guided_transferred(cli: Run, tmp_path: Path) -> None:
    tapered, guided, moved = (tmp_path / f"{name}.json" for name in ("taper", "guided", "moved"))
    assert cli("design", "taper", "vgg16-c10", "--params", "2M", "--macs", "120M", "--to", tapered)[0] == 0
    assert cli("design", "guided", tapered, "--keep", "0.1", "--to", guided)[0] == 0
    assert cli("design", "transferred", guided, "--onto", "vgg19-c100", "--to", moved)[0] == 0
    assert Architecture.from_json(json.loads(moved.read_text())).space == "vgg19-c100"


# Bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search", "vgg16-c1"], "did you mean"),
        (["search", "--proposer", "sliming"], "did you mean slimming"),
        (["train", "vgg16-l1-c10:VGG-16-B"], "VGG-16-A"),
        (["search", "--keep", "0.00000001"], "can be reached"),
        (["search", "--keep", "x"], "not a number"),
        (["search", "--budget", "-3"], "number above 0"),
        (["search", "--recipe", "papr"], "paper"),
        (["search", "--recipe-set", "ema"], "does not read SETTING=VALUE"),
        (["search", "--recipe-set", "emma=0.9"], "did you mean ema"),
        (["search", "--recipe-set", "flip=alternate"], "did you mean alternating"),
        (["search", "--epochs", "3", "--recipe-set", "epochs=4"], "epochs is given twice"),
        (["search", "--recipe-set", 'transforms=["RandAugment"]'], "a white pixel for 255"),
        (["search", "--protocol", "scratch"], "scratch-e"),
        (["search", "--set", "slimming.pul=1"], "slimming"),
        (["search", "--executor", "seriel"], "serial"),
        (["search", "--seeds", "0"], "--seeds"),
        (["search", "--proposer", "taper", "--no-controls"], "--proposer slimming"),
        (["search", "vgg16-c10"], "--data"),
        (["search", "--batch", "0"], "batch"),
        (["search", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["show", "nothere.json"], "nothere.json"),
        (["compare", "--out", "nowhere"], "prunas search"),
        (["design", "uniform", "vgg16-c10"], "--keep"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    cli: Run, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNAS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_broken_space_names_file_line_and_key(cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('network = "prunas.networks:vgg11"\ninput = [1, 8, 8]\nkep = [0.5]\n')
    code, _, err = cli("search", path)
    assert code == 2
    assert f"{path}:3" in err
    assert "kep" in err


def test_a_damaged_architecture_is_refused_by_name(cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "arch.json"
    assert cli("design", "uniform", "vgg11-digits", "--keep", "0.3", "--to", path)[0] == 0
    document = json.loads(path.read_text())
    document["widths"]["features.0"] = "many"
    path.write_text(json.dumps(document))
    code, _, err = cli("train", path)
    assert code == 2
    assert str(path) in err


def test_an_output_folder_that_cannot_be_one(cli: Run, small_space: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = cli("search", small_space, *QUICK, "--out", tmp_path / "file")
    assert code == 2
    assert "--out" in err


def test_runs_of_another_version_are_refused_and_kept(cli: Run, small_space: Path, tmp_path: Path) -> None:
    (tmp_path / "prunas.json").write_text('{"format": 99, "written_by": "prunas 9"}')
    code, _, err = cli("search", small_space, *QUICK, "--out", tmp_path)
    assert code == 2
    assert "99" in err
    assert [path.name for path in tmp_path.iterdir()] == ["prunas.json"]


def test_a_failed_training_is_exit_code_1(cli: Run, small_space: Path, tmp_path: Path) -> None:
    code, out, err = cli("search", small_space, *QUICK, "--lr", "1e30", "--out", tmp_path, "--json")
    assert code == 1
    assert valid("search", out)["problems"]
    assert "loss" in err


# Processes


def test_help_needs_no_heavy_import() -> None:
    script = (
        "import sys; sys.argv = ['prunas', '--help']\n"
        "from prunas.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'optuna', 'matplotlib', 'numpy', 'scipy') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines()[-1] == "[]"


def test_tables_and_designs_need_no_torch(searched: Path, small_space: Path, tmp_path: Path) -> None:
    for arguments in (
        ["compare", "--out", str(searched)],
        ["design", "uniform", str(small_space), "--keep", "0.5", "--to", str(tmp_path / "a.json")],
        ["proposers"],
    ):
        script = (
            "import sys\n"
            "from prunas.cli import main\n"
            f"try: main({arguments!r})\n"
            "except SystemExit as e: assert not e.code\n"
            "print('torch' in sys.modules)"
        )
        printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert printed.stdout.splitlines()[-1] == "False", arguments


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_stopping_loses_nothing(small_space: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    arguments = [
        "search",
        small_space,
        "--epochs",
        "2",
        "--seeds",
        "2",
        "--no-dense",
        "--out",
        tmp_path,
        "--json",
    ]
    first = command(*arguments)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*/*/result.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(sent)
    out, err = first.communicate(timeout=60)
    assert first.returncode == code
    assert out == ""
    assert "same command continues" in err
    assert "Traceback" not in err
    done = len(list(tmp_path.glob("*/*/result.json")))
    second = command(*arguments)
    out, _ = second.communicate(timeout=120)
    document = json.loads(out)
    assert second.returncode == 0
    assert document["trained"] == len(list(tmp_path.glob("*/*/result.json"))) - done


def test_two_identical_commands_at_once_share_the_work(small_space: Path, tmp_path: Path) -> None:
    both = [command("search", small_space, *QUICK, "--out", tmp_path, "--json") for _ in range(2)]
    documents = [json.loads(process.communicate(timeout=180)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert documents[0]["runs"] == documents[1]["runs"]
    trained = sum(document["trained"] for document in documents)
    assert trained == len(list(tmp_path.glob("*/*/result.json")))


def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(prunas.__file__).parent.parent / "README.md"
    code = readme.read_text().split("```python\n")[1].split("```")[0]
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["net"](__import__("torch").zeros(2, 3, 32, 32)).shape == (2, 10)
