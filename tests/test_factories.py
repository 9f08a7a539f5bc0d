"""Factories that do what no factory should: exit, print, be a network, return something else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from prunas.errors import InputError
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace

NET = "nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))"
SPACE = 'network = "network.py:{name}"\ninput = [1, 8, 8]\ndata = "digits"\nrecipe = "tiny"\nkeep = [0.5]\n'
SOURCES = {
    "exits": ("def make():\n    sys.exit(3)", r"network 'network.py:make' calls sys\.exit\(3\)"),
    "exits without a code": ("def make():\n    sys.exit()", r"calls sys\.exit\(\)"),
    "exits in words": ("def make():\n    raise SystemExit('no')", r"calls sys\.exit\('no'\)"),
    "file exits": ("sys.exit(3)", r"network 'network.py:make' calls sys\.exit\(3\)"),
    "is a network": (f"make = {NET}", r"'network.py:make' is not a function .*, but a Sequential"),
    "returns nothing": ("def make():\n    pass", "returns NoneType, not a torch module"),
    "returns a class": ("def make():\n    return nn.ReLU", "returns type, not a torch module"),
}  # fmt: skip


def space_file(folder: Path, source: str, name: str = "make") -> Path:
    (folder / "network.py").write_text(f"import sys\nfrom torch import nn\n\n{source}\n")
    path = folder / "own.toml"
    path.write_text(SPACE.format(name=name))
    return path


@pytest.mark.parametrize(("source", "message"), SOURCES.values(), ids=SOURCES)
def test_it_is_named(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_space(str(space_file(tmp_path, source)))
    assert "\n" not in str(caught.value)


def test_a_model_wants_a_factory() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    with pytest.raises(InputError, match="a function that makes a network is wanted, not a network"):
        SearchSpace.from_model(net, (1, 8, 8), name="mine")


def test_a_factory_that_exits_in_python() -> None:
    def make() -> nn.Module:
        sys.exit(3)

    with pytest.raises(InputError, match=r"the network's factory calls sys\.exit\(3\)"):
        SearchSpace.from_model(make, (1, 8, 8), name="mine")


def test_what_a_factory_prints_is_no_result(tmp_path: Path) -> None:
    path = space_file(tmp_path, f"print('imported')\n\ndef make():\n    print('made')\n    return {NET}")
    command = [
        sys.executable, "-m", "prunas", "search", path, "--proposer", "uniform", "--epochs", "1",
        "--images", "100",
        "--seeds", "1", "--no-dense", "--no-controls", "--out", tmp_path / "runs", "--json",
    ]  # fmt: skip
    printed = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout)["runs"]
    assert "imported" in printed.stderr
    assert "made" in printed.stderr
