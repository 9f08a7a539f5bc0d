"""The code of docs/shrink.md, run as it stands: only the budget is made small."""

import re
import sys
from pathlib import Path

import pytest
import torch

import prunas
from prunas.networks import vgg11
from prunas.shrinking import prepare_shrink
from prunas.spaces.load import load_space

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "shrink.md").read_text()
MINE = "from prunas.networks import vgg11\n\n\ndef make():\n    return vgg11(channels=1, base=4, pools=2)\n"


def block(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's network and its weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test's file of that name
    (tmp_path / "mine.py").write_text(MINE)
    with torch.random.fork_rng(devices=[]):
        torch.save(vgg11(channels=1, base=4, pools=2).state_dict(), tmp_path / "mine.pth")
    return tmp_path


def test_the_python_of_the_page_runs(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = prunas.shrink
    few = {"epochs": 3, "proposers": "l1", "protocol": "finetune"}
    monkeypatch.setattr(prunas, "shrink", lambda *a, **k: original(*a, **k | few), raising=False)
    names: dict[str, object] = {}
    exec(compile(block("python"), "docs/shrink.md", "exec"), names)
    assert isinstance(names["network"], torch.nn.Module)
    assert (at_home / "small" / "weights.pth").is_file()


def test_the_file_and_the_command_of_the_page_are_enough(at_home: Path) -> None:
    (at_home / "mine.toml").write_text(block("toml"))
    words = block("sh").split()
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:3] == ["prunas", "shrink", "mine.toml"]
    assert given == {
        "--weights": "mine.pth", "--keep": "0.5", "--metric": "macs", "--for": "30m", "--to": "small",
    }  # fmt: skip
    prepared = prepare_shrink("mine.toml", weights="mine.pth", keep=0.5, metric="macs", time="30m")
    assert load_space("mine.toml").survey.fingerprint == prepared.plan.setting.space.survey.fingerprint
    assert prepared.forecast.trainings > 3
    assert len((MINE + block("toml") + block("sh")).splitlines()) <= 15


def test_the_page_names_the_ways_and_the_numbers_of_the_plan() -> None:
    from prunas.experiments.shrink_plan import RUNGS, SHORT, WAYS

    assert all(f"`{way}`" in PAGE for way in WAYS)
    assert (RUNGS[0][0], RUNGS[0][1], SHORT) == (3, 3, 5)  # three shapes, three pairs, five times as long
