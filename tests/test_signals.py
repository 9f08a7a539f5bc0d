"""What a closed terminal does: SIGHUP, which saves like SIGTERM unless it is ignored."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from prunas.runs.signals import stopping
from prunas.runs.worker import _told_to_leave

Watching = Callable[[], AbstractContextManager[Callable[[], bool]]]


@pytest.fixture
def _hangups() -> Iterator[None]:
    """A suite that was started with nohup ignores SIGHUP, and so would every process it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangups")
@pytest.mark.parametrize("watching", [stopping, _told_to_leave])
@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_to_leave_only_asks(watching: Watching, sent: signal.Signals) -> None:
    before = signal.getsignal(sent)
    with watching() as asked:
        assert not asked()
        signal.raise_signal(sent)
        assert asked()
    assert signal.getsignal(sent) == before


@pytest.mark.usefixtures("_hangups")
@pytest.mark.parametrize("watching", [stopping, _told_to_leave])
def test_under_nohup_a_hangup_is_nothing(watching: Watching) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with watching() as asked:
        signal.raise_signal(signal.SIGHUP)
        assert not asked()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.usefixtures("_hangups")
def test_a_terminal_that_closes_loses_nothing(small_space: Path, tmp_path: Path) -> None:
    arguments = [
        "-m", "prunas", "search", str(small_space), "--epochs", "500", "--keep", "0.5", "--seeds", "1",
        "--no-dense", "--no-controls", "--yes", "--out", str(tmp_path),
    ]  # fmt: skip
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, *arguments])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(
        log.stat().st_size for log in tmp_path.glob("*/*/log.jsonl")
    ):
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 75
    assert len(list(tmp_path.glob("*/dense-*/checkpoint.pt"))) == 1
    assert not list(tmp_path.glob("*/*/failure.json"))
    listed = subprocess.run(
        [sys.executable, "-m", "prunas", "runs", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unfinished" in listed.stdout
