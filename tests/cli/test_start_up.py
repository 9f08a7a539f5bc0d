"""Commands on finished work start without torch; said by what is imported, never by a clock."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from prunas.runs.job import Job
from tests.commands import command
from tests.report.made_runs import SPACE, made, write

LOOKS = """
import json, sys
from contextlib import redirect_stdout
from prunas.cli import main
loaded = {}
for words in json.loads(sys.argv[1]):
    with redirect_stdout(sys.stderr):
        try:
            main(words)
        except SystemExit as ended:
            assert not ended.code, (words, ended.code)
    loaded[" ".join(words)] = [name for name in ("torch", "torchvision", "optuna") if name in sys.modules]
print(json.dumps(loaded))
"""


def loaded_by(folder: Path, *commands: list[str]) -> dict[str, list[str]]:
    """Which slow packages are loaded after each of the commands, run one after the other in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", LOOKS, json.dumps(commands)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished searches in `runs`."""
    root = tmp_path_factory.mktemp("finished")
    made(root / "runs")
    return root


def test_commands_on_finished_work_import_no_torch(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["show", SPACE], ["tasks"], ["spaces"]):  # surveys, and what torch had to be asked for once
        assert command(*words) == 0
    capsys.readouterr()
    looks = [
        ["--help"],
        ["search", "--help"],
        ["spaces"],
        ["presets"],
        ["proposers"],
        ["tasks"],
        ["show", SPACE],
        ["show", SPACE, "--svg", "shape.svg"],
        ["design", "uniform", SPACE, "--keep", "0.3", "--to", "a.json"],
        ["design", "guided", "a.json", "--to", "b.json"],
        ["runs"],
        ["compare"],
        ["advise", SPACE, "--budget", "100k", "--epochs", "5"],
        *(["plot", name] for name in ("efficiency", "pareto", "cost", "widths", "curves")),
        ["report"],
        ["watch", "--once"],
    ]
    assert loaded_by(finished, *looks) == {" ".join(words): [] for words in looks}


@pytest.mark.parametrize("what", ["efficiency", "curves"])
def test_a_figure_without_intervals_imports_no_distributions(what: str, finished: Path) -> None:
    loads = (
        "import sys\nfrom prunas.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n"
        "    print(ended.code, [name for name in ('scipy.special', 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", loads, "plot", what], cwd=finished, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_garbage_is_looked_for_again_after_a_figure(finished: Path) -> None:
    assert command("plot", "efficiency", "--out", str(finished / "runs")) == 0
    assert gc.isenabled()


def test_show_of_a_run_imports_no_torch(finished: Path) -> None:
    folder = finished / "runs" / SPACE / "scratch-e-000200010001"
    job = json.loads((folder / "job.json").read_text())
    whole = Job("train", job["spec"], SPACE, "scratch-e")
    write(finished / "runs" / SPACE / whole.name / "job.json", whole.to_json())
    words = ["show", whole.id]
    assert loaded_by(finished, words) == {" ".join(words): []}
