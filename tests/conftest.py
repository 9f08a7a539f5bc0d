"""What several rooms' tests share: one thread, a survey cache of the test run's own, small spaces."""

import os
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
    os.environ.setdefault("PRUNAS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def small_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML file of a VGG-11 on digits that trains in a second."""
    path = tmp_path_factory.mktemp("spaces") / "small-digits.toml"
    path.write_text(SMALL_VGG)
    return path
