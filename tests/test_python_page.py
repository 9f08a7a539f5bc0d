"""The code of docs/python.md, run as it stands: only the recipe is shortened, by an argument of its own."""

import re
from functools import partial
from pathlib import Path

import pytest

import prunas
from prunas import api

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUICK = {"epochs": 1, "images": 200}


@pytest.mark.parametrize("code", BLOCKS, ids=["search", "prepare"])
def test_the_code_of_the_page_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = (
        {"recipe": QUICK, "trials": 2, "keep": [0.5]} if "tpe" in code else {"recipe": QUICK, "keep": [0.5]}
    )
    if "tpe" in code:
        original = prunas.search
        monkeypatch.setattr(
            prunas, "search", lambda *a, **k: original(*a, **k | quick | {"seeds": 1}), raising=False
        )
    else:
        monkeypatch.setattr(api, "prepare_search", partial(api.prepare_search, **quick))
    exec(compile(code, "docs/python.md", "exec"), {})
    assert list(tmp_path.glob("runs/vgg11-digits/searches/*.json"))


def test_a_search_takes_fewer_than_ten_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) < 10
