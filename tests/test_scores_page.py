"""docs/scores.md: its code as it stands, with a shorter recipe, and the tables that it shows."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

import prunas
from prunas.proposers.table import PROPOSERS
from prunas.spaces.load import space_folder

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "scores.md").read_text()


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prunas, "search", partial(prunas.search, recipe={"epochs": 1, "images": 200}))
    exec(compile(code, "docs/scores.md", "exec"), {})


def test_the_methods_it_lists_exist_and_so_do_their_settings() -> None:
    first = PAGE.partition("## Published")[0]
    named = {
        name
        for line in re.findall(r"^\| (`[^|]*) \|", first, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", line)
    }
    assert named <= set(PROPOSERS)
    scoped = {
        name
        for name, line in PROPOSERS.items()
        if line.kind == "automatic" and any(o.name == "scope" for o in line.options or ())
    }
    (listed,) = re.findall(r"`scope=isomorphic` \(of (.*?)\)", first, re.DOTALL)
    assert set(re.findall(r"`([^`]+)`", listed)) == scoped


def test_every_published_shape_is_listed_with_the_macs_it_has() -> None:
    for path in (space_folder() / "found").glob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        for point in document["points"]:
            if "published" in point:
                assert f"{point['cost']['macs']:,}" in PAGE
                assert document["space"] in PAGE
