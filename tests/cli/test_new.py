"""`prunas new`: the file it writes loads, says what can vary, and never replaces one."""

import json
import tomllib
from pathlib import Path

import pytest

from prunas.cli import main
from prunas.spaces.load import load_space

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.body = nn.Conv2d(32, 64, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(64, 2, 1), nn.Conv2d(2, 64, 1)
        self.wide = nn.Conv2d(64, 400, 3, padding=1)
        self.head = nn.Linear(400, 10)

    def forward(self, x):
        x = self.body(self.stem(x).relu()).relu()
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head(self.wide(x).relu().mean((2, 3)))


def make():
    return Net()
"""


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["new", *arguments])
    return ended.value.code


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "my_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_loads_and_says_what_was_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--input",
        "3,16,16",
        "--data",
        "cifar10",
        "--keep",
        "0.5,0.25",
        "--metric",
        "params",
        "--json",
    )
    assert run("nets/my_net.py:make", *options) == 0
    document = json.loads(capsys.readouterr().out)
    file = here / "my-net.toml"
    assert document["file"] == file.name
    assert document["next"] == "prunas shrink my-net.toml --weights FILE --keep 0.5 --metric params"
    space = load_space(str(file))
    assert (space.study.data, space.study.keep, space.study.metric) == ("cifar10", (0.5, 0.25), "params")
    assert (document["params"], document["macs"]) == (
        space.cost(space.dense).params,
        space.cost(space.dense).macs,
    )
    assert len(space.dimensions) == document["varying"]


def test_what_saves_next_to_nothing_is_held(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of two squeezed channels are 64 + 1 + 64 of some 250,000 parameters, which is less than 0.1 %."""
    assert run("nets/my_net.py:make", "--input", "3,16,16", "--name", "small") == 0
    said = capsys.readouterr()
    space = load_space("small.toml")
    assert space.exclude == ("squeeze",)
    assert {d.name for d in space.dimensions} == {"stem", "body", "wide"}
    assert "3 widths vary, 1 are held" in said.out
    assert "prunas shrink small.toml --weights FILE" in said.err
    assert "write `data` into small.toml" in said.err
    text = (here / "small.toml").read_text()
    assert "# data = " in text
    assert "#   head: the network's output [forward]" in text


def test_the_savings_are_those_of_the_cost_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of `wide` is 200 of its 400 filters of 64 x 9 weights, with 200 x 10 of the head."""
    run("nets/my_net.py:make", "--input", "3,16,16")
    line = next(line for line in Path("my-net.toml").read_text().splitlines() if line.startswith("# wide "))
    space = load_space("my-net.toml")
    dense = space.cost(space.dense)
    params = 200 * (64 * 9 + 1 + 10)
    macs = 200 * (64 * 9 * 256 + 10)
    assert line.split()[2:5] == ["400", f"{params / dense.params:.2%}", f"{macs / dense.macs:.2%}"]


def test_an_existing_file_is_never_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my-net.toml").write_text("mine")
    assert run("nets/my_net.py:make", "--input", "3,16,16") == 2
    assert "my-net.toml is there already" in capsys.readouterr().err
    assert (here / "my-net.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nets/my_net.py:make", "--input", "3,16,16", "--keep", "0.000001"), "no architecture of space"),
        (("nets/my_net.py:make", "--input", "3,16,16", "--keep", "1.5"), "1.5"),
        (("nets/my_net.py:make", "--input", "3,16,16", "--metric", "parms"), "params"),
        (("nets/my_net.py:make", "--input", "3,16,16", "--recipe", "papr"), "paper"),
        (("nets/my_net.py:make", "--input", "3,16,16", "--name", "a b"), "--name"),
        (("nets/my_net.py:make", "--input", "3x16"), "--input must be sizes"),
        (("nets/my_net.py:made", "--input", "3,16,16"), "made"),
        (("nets/my_net.py", "--input", "3,16,16"), "file.py:function"),
        (("nets/my_net.py:make", "--input", "5,16,16"), "does not accept an input of shape (5, 16, 16)"),
    ],
)
def test_bad_input_is_one_line_and_no_file(
    arguments: tuple[str, ...], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert list(here.glob("*.toml")) == []


def test_a_network_of_a_package_and_its_comments_are_toml(here: Path) -> None:
    assert run("torchvision.models:resnet18", "--input", "3,32,32") == 0
    document = tomllib.loads((here / "resnet18.toml").read_text())
    assert document["network"] == "torchvision.models:resnet18"
    assert document["vary"] == {"groups": ["*"]}
    assert '# blocks = ["*"]' in (here / "resnet18.toml").read_text()
