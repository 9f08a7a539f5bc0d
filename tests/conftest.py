"""What several rooms' tests share: one thread, Ctrl-C, a survey cache of the test run's own, small spaces."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SMALL_VGG = """
network = "prunas.networks:vgg11"
arguments = { channels = 1, base = 4, pools = 2 }
input = [1, 8, 8]
data = "digits"
recipe = "tiny"
keep = [0.5, 0.2]

[proposers.slimming]
pull = 1.0
"""


@pytest.fixture(scope="session", autouse=True)
def _one_thread_and_own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.set_num_threads(1)
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # beside the folders of all workers: a survey serves them all
        base = base.parent
    os.environ.setdefault("PRUNAS_CACHE", str(base / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """A suite that a shell started in the background ignores SIGINT, and so would every process it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def small_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML file of a VGG-11 on digits that trains in a second."""
    path = tmp_path_factory.mktemp("spaces") / "small-digits.toml"
    path.write_text(SMALL_VGG)
    return path
