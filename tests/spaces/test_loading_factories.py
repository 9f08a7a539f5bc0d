"""A factory that loads a checkpoint by itself: refused in a line that says where weights go."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import prunas
from prunas.cli import main
from prunas.errors import InputError
from prunas.spaces.factory import imported_beside


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10)
    )


@pytest.fixture
def factory(tmp_path: Path) -> Callable[..., nn.Module]:
    """Loads a checkpoint in one of the ways that people do."""
    torch.save(network().state_dict(), file := tmp_path / "mine.pth")

    def make(**options: bool) -> nn.Module:
        net = network()
        state = torch.load(file, weights_only=True)
        if "matching" in options:  # those that fit, so that nothing fails at smaller widths
            state = {name: t for name, t in state.items() if t.shape == net.state_dict()[name].shape}
            options = {"strict": False}
        net.load_state_dict(state, **options)
        return net

    return make


@pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}, {"matching": True}], ids=str)
def test_it_is_told_where_weights_go(factory: Callable[..., nn.Module], options: dict[str, bool]) -> None:
    load = nn.Module.load_state_dict
    with pytest.raises(
        InputError, match=r"space 'mine': its factory loads weights by itself \(.*\.py:\d+\)"
    ) as told:
        prunas.SearchSpace.from_model(lambda: factory(**options), (1, 8, 8), name="mine")
    assert 'weights = "FILE" in the TOML file, or --weights FILE' in str(told.value)
    assert "\n" not in str(told.value)
    assert nn.Module.load_state_dict is load


def test_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n"
        "def make():\n"
        "    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))\n"
        "    net.load_state_dict(net.state_dict())\n"
        "    return net\n"
    )
    (tmp_path / "mine.toml").write_text('network = "net.py:make"\ninput = [1, 8, 8]\ndata = "digits"\n')
    with pytest.raises(InputError, match=r"loads weights by itself \(net\.py:5\)"):
        prunas.load_space(str(tmp_path / "mine.toml"))


PARTS = """from torch import nn

CHANNELS = {channels}


def first():
    return nn.Conv2d(1, CHANNELS, 3)
"""
BESIDE = """from torch import nn


def make():
    from parts_of_mine import CHANNELS, first

    return nn.Sequential(first(), nn.ReLU(), nn.Flatten(), nn.Linear(36 * CHANNELS, 10))
"""


def test_a_file_imports_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "parts_of_mine.py").write_text(PARTS.format(channels=8))
    (tmp_path / "net.py").write_text(BESIDE)
    (tmp_path / "mine.toml").write_text('network = "net.py:make"\ninput = [1, 8, 8]\ndata = "digits"\n')
    before = prunas.load_space(str(tmp_path / "mine.toml"))
    assert [width.dense for width in before.dimensions] == [8]
    (tmp_path / "parts_of_mine.py").write_text(PARTS.format(channels=16))
    monkeypatch.delitem(sys.modules, "parts_of_mine")  # as in a new process
    after = prunas.load_space(str(tmp_path / "mine.toml"))
    assert [width.dense for width in after.dimensions] == [16]
    assert after.known_as != before.known_as


def test_a_file_knows_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside.txt").write_text("5")
    (tmp_path / "placed.py").write_text(
        "from pathlib import Path\n"
        "from torch import nn\n\n"
        "def make():\n"
        "    width = int((Path(__file__).parent / 'beside.txt').read_text())\n"
        "    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10))\n"
    )
    (tmp_path / "mine.toml").write_text('network = "placed.py:make"\ninput = [1, 8, 8]\ndata = "digits"\n')
    assert [width.dense for width in prunas.load_space(str(tmp_path / "mine.toml")).dimensions] == [5]


@pytest.mark.parametrize(
    ("layers", "varying"),
    [
        ("nn.Flatten(), nn.Linear(36 * conv.out_channels, 10)", ["0"]),
        (
            "nn.Flatten(), nn.Linear(36 * 8, conv.out_channels // 2), nn.Linear(4, 6), nn.Linear(6, 10)",
            ["3", "4"],
        ),
    ],
)
def test_a_size_read_off_a_layer_may_be_that_of_the_point(
    tmp_path: Path, layers: str, varying: list[str]
) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n"
        "def make():\n"
        "    conv = nn.Conv2d(1, 8, 3)\n"
        f"    return nn.Sequential(conv, nn.ReLU(), {layers})\n"
    )
    (tmp_path / "mine.toml").write_text('network = "net.py:make"\ninput = [1, 8, 8]\ndata = "digits"\n')
    space = prunas.load_space(str(tmp_path / "mine.toml"))
    assert [width.name for width in space.dimensions] == varying


def test_all_that_is_imported_from_beside_is_known(tmp_path: Path) -> None:
    for name, text in {
        "mine.py": "import torch\nfrom one import a\nfrom package.part import b\nimport prunas\n",
        "one.py": "def a():\n    import two\n",
        "two.py": "import mine\nthis is no Python",
        "three.py": "",
        "package/__init__.py": "",
        "package/part.py": "import json",
        "prunas.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    names = [str(file.relative_to(tmp_path)) for file in imported_beside(tmp_path / "mine.py")]
    assert names == ["one.py", "package/__init__.py", "package/part.py", "two.py"]


def test_the_command_finds_modules_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # as of an installed command
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_mine.py").write_text(BESIDE.replace("parts_of_mine", "beside_of_mine"))
    (tmp_path / "beside_of_mine.py").write_text(PARTS.format(channels=4))
    with pytest.raises(SystemExit) as ended:
        main(["show", "module_of_mine:make", "--input", "1,8,8"])
    assert ended.value.code == 0, capsys.readouterr().err
