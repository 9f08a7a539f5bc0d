"""What a terminal asks of every command: few columns, no colours, a pipe that closes, completion by the shell."""

import os
import subprocess
import sys

import pytest

from tests.commands import command
from tests.report.made_runs import made


def prunas(*words: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a new process; `shell` is what its output goes through."""
    line = [sys.executable, "-m", "prunas", *words]
    if shell:
        line = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *line]
    return subprocess.run(
        line, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("finished")
    made(root)
    return str(root)


@pytest.mark.parametrize("words", [["proposers"], ["--help"], ["compare"]], ids=" ".join)
def test_a_pipe_that_closes_leaves_no_traceback(words: list[str], finished: str) -> None:
    out = ["--out", finished] if words == ["compare"] else []
    done = prunas(*words, *out, shell="| true")
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["search", "--help"], ["compare"], ["watch", "--once"]], ids=" ".join
)
def test_forty_columns_are_enough_to_answer(words: list[str], finished: str) -> None:
    out = [] if "--help" in words else ["--out", finished]
    done = prunas(*words, *out, COLUMNS="40", LINES="20", TERM="xterm-256color")
    assert done.returncode == 0, done.stderr


def test_help_has_no_colours_where_nobody_wants_them() -> None:
    done = prunas("--help", NO_COLOR="1", FORCE_COLOR="", TERM="xterm-256color")
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("prunas plo", {"plot"}),
        ("prunas wat", {"watch"}),
        ("prunas search vgg11-d", {"vgg11-digits"}),
        ("prunas search --proposer sli", {"slimming"}),
        ("prunas search --proposer slimming,tp", {"slimming,tpe"}),
        ("prunas search --no-con", {"--no-controls"}),
    ],
)
def test_the_shell_completes_commands_options_spaces_and_proposers(typed: str, offered: set[str]) -> None:
    program = "import sys; sys.argv = ['prunas']; from prunas.cli import main; main()"
    asked = {
        "_PRUNAS_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
        timeout=120,
        check=False,
    )
    assert offered <= set(done.stdout.split())


def test_completion_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    assert "--install-completion" in capsys.readouterr().out
