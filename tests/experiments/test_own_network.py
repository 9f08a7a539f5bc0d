"""A network nobody here wrote, from a file of the user's, through the command line."""

import json
import shutil
from pathlib import Path

import pytest
from torch import nn

from prunas.cli import main
from prunas.spaces.load import load_space

NETWORK = """
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv, self.head = nn.Conv2d(width, 2 * width, 3, stride=2), nn.Linear(2 * width, 10)

    def forward(self, x):
        n, *rest = x.shape
        x = self.conv(torch.relu(self.norm(self.stem(x))))
        return self.head(torch.relu(x).mean((2, 3)).reshape(n, -1))


def make(width=4):
    return Mine(width)
"""
SPACE = """
network = "nets/net.py:make"
arguments = { width = 6 }
input = [1, 8, 8]
data = "digits"
recipe = "tiny"
keep = [0.4]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "net.py").write_text(NETWORK)
    (folder / "own.toml").write_text(SPACE)
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_a_users_network_is_searched_in_workers_and_finished_wherever_its_file_goes(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--proposer", "uniform", "--no-controls", "--no-dense", "--seeds", "1", "--epochs", "1")
    rest = (*quick, "--out", tmp_path / "runs", "--json")
    assert run("search", own / "own.toml", *rest, "--workers", "1") == 0
    first = json.loads(capsys.readouterr().out)
    (row,) = first["runs"]
    assert (first["trained"], row["status"]) == (1, "finished")
    assert row["reached"]["params"] < 0.45 * sum(
        p.numel() for p in load_space(str(own / "own.toml")).build().parameters()
    )
    assert str(own) not in (Path(row["folder"]) / "job.json").read_text()
    moved = tmp_path / "there"
    shutil.move(own, moved)
    assert run("search", moved / "own.toml", *rest) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["trained"] == 0
    assert again["runs"][0]["id"] == row["id"]
    (moved / "nets" / "net.py").write_text(NETWORK.replace("torch.relu(x).mean", "torch.sigmoid(x).mean"))
    assert run("search", moved / "own.toml", *rest, "--dry-run") == 0
    (planned,) = json.loads(capsys.readouterr().out)["runs"]
    assert planned != row["id"]
    assert run("train", moved / "own.toml", "--epochs", "1", "--out", tmp_path / "runs", "--json") == 0
    assert json.loads(capsys.readouterr().out)["trained"] == 1


def test_any_network_is_shown_by_its_import_path(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torchvision.models import resnet18

    assert run("show", "torchvision.models:resnet18", "--input", "3,64,64", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    dense: nn.Module = resnet18()
    assert document["params"] == sum(p.numel() for p in dense.parameters())
    assert {frozen["why"] for frozen in document["frozen"]} >= {"the network's output"}
    assert document["blocks"][0]["name"] == "layer1.0"
    assert run("show", f"{own}/nets/net.py:make", "--input", "1,8,8") == 0
    text = capsys.readouterr().out
    assert "stem" in text
    for arguments, says in (
        (("torchvision.models:resnet18",), "show it with --input"),
        (
            ("torchvision.models:resnet18", "--input", "3,x"),
            "--input must be sizes such as 3,224,224, not '3,x'",
        ),
        (
            ("torchvision.models:resnet18", "--input", "5,64,64"),
            "does not accept an input of shape (5, 64, 64)",
        ),
    ):
        assert run("show", *arguments) == 2
        assert says in capsys.readouterr().err
