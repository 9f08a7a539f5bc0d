"""docs/recipes.md: its code runs as it stands, and its table has every setting and recipe."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

import prunas
from prunas.recipe import RECIPES, Recipe, recipe

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "recipes.md").read_text()


def block(language: str) -> str:
    """The one block of code in a language."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def test_every_setting_and_recipe_has_its_line() -> None:
    settings = PAGE.partition("## Every setting")[2]
    named = re.findall(r"^\| `(\w+)` \|", settings, re.MULTILINE)
    assert sorted(named) == sorted(spec.name for spec in dataclasses.fields(Recipe))
    choice = PAGE.partition("## Which one")[2].partition("## Changing")[0]
    assert set(RECIPES) == set(
        re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (`.*?) \|", choice, re.MULTILINE)))
    )
    for name in ("fast", "fast-gpu", "paper"):
        made = recipe(name)
        assert re.search(rf"\| `{name}` .* \| {made.epochs}, {made.batch}, {made.lr} \|", choice)


def test_the_table_and_the_command_are_recipes() -> None:
    table = tomllib.loads(block("toml"))["recipe"]
    made = recipe(table.pop("name")).replace(**table)
    assert made.transforms == ("ColorJitter", {"name": "RandAugment", "magnitude": 7})
    settings = re.findall(r"--recipe-set (\w+)=(\S+)", block("sh"))
    assert recipe("fast").replace(**{name: float(value) for name, value in settings}).ema == 0.99


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: dict[str, object] = {}
    exec(compile(block("python"), "docs/recipes.md", "exec"), made)
    (job,) = tmp_path.glob("runs/vgg11-digits/*/job.json")
    text = job.read_text()
    assert '"ema": 0.9' in text
    assert '"mixup": 0.2' in text
    assert '"label_smoothing": 0.1' in text  # 578,810 parameters
