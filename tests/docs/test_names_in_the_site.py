"""Every command, option, key, setting and public name stands on a page of the site."""

import dataclasses
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest
import reference
import yaml
from links import ROOT, site_pages

import prunas
from prunas.costs.metrics import METRICS
from prunas.names import REGISTERED
from prunas.proposers.evaluators import EVALUATORS
from prunas.proposers.table import PROPOSERS
from prunas.protocols import PROTOCOLS
from prunas.recipe import RECIPES, Recipe
from prunas.runs.executors import EXECUTORS
from prunas.spaces.file import FineTuningEntry, PresetEntry, SpaceFile, Vary

MADE = {page: make() for page, make in reference.PAGES.items()}
SITE = "\n".join(
    [*MADE.values(), *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))]
)
COMMANDS = list(reference.commands())


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_a_command_has_its_section_with_every_option(name: str) -> None:
    ((_, command, _),) = [each for each in COMMANDS if each[0] == name]
    section = MADE["reference/commands.md"].split(f"\n## prunas {name}\n")[1].split("\n## ")[0]
    assert command.help in section
    for parameter in (each for each in command.params if not getattr(each, "hidden", False)):
        for option in (*parameter.opts, *parameter.secondary_opts):
            assert option in section


def test_there_are_as_many_commands_as_the_program_says() -> None:
    from prunas.cli import COMMANDS as TABLE

    assert len(COMMANDS) == sum(len(commands) for commands in TABLE.values())


@pytest.mark.parametrize("model", [SpaceFile, Vary, PresetEntry, FineTuningEntry])
def test_keys_of_a_file_are_described(model: type) -> None:
    table = reference.keys(model)
    assert table in MADE["reference/toml.md"]
    for key in model.model_fields:  # type: ignore[attr-defined]
        (row,) = re.findall(rf"^\| `{key}` \|.*\|$", table, re.M)
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4 and cells[1] and cells[3]


def test_public_names_have_an_entry_of_their_own() -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    entries = re.findall(r"^::: ([\w.]+)$", page, re.M)
    named = {entry.rpartition(".")[2] for entry in entries}
    assert set(prunas.__all__) - {"designs"} <= named
    shown = [import_module(entry) for entry in entries if entry.startswith("prunas.designs.")]
    for name in prunas.designs.__all__:
        assert any(hasattr(module, name) for module in shown), name


@pytest.mark.parametrize("page", ["api", "extending"])
def test_entries_of_the_reference_exist(page: str) -> None:
    for entry in re.findall(
        r"^::: ([\w.]+)$", (ROOT / f"docs/reference/{page}.md").read_text(encoding="utf-8"), re.M
    ):
        assert pkgutil.resolve_name(entry) is not None


@pytest.mark.parametrize(
    "names",
    [
        PROPOSERS,
        EVALUATORS,
        PROTOCOLS,
        METRICS,
        RECIPES,
        EXECUTORS,
        REGISTERED["prunas.tasks"],
        REGISTERED["prunas.data"],
    ],
    ids=["proposers", "evaluators", "protocols", "metrics", "recipes", "executors", "tasks", "data"],
)
def test_what_there_is_stands_in_the_catalogue(names: dict[str, object]) -> None:
    page = MADE["reference/catalogue.md"]
    for name in names:
        assert f"`{name}`" in page or f"## {name}\n" in page


def test_settings_of_proposers_and_recipes_are_described() -> None:
    for entry in PROPOSERS.values():
        for option in entry.options or ():
            assert f"| `{option.name}` |" in MADE["reference/catalogue.md"]
    recipes = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(Recipe):
        assert f"| `{field.name}` |" in recipes


def test_spaces_stand_in_the_catalogue() -> None:
    for path in (ROOT / "search_spaces").glob("*.toml"):
        assert f"`{path.stem}`" in MADE["reference/catalogue.md"]


def in_the_navigation(entry: object) -> list[str]:
    match entry:
        case str():
            return [entry]
        case list():
            return [page for each in entry for page in in_the_navigation(each)]
        case dict():
            return [page for each in entry.values() for page in in_the_navigation(each)]
    return []


def test_every_page_is_in_the_navigation_once() -> None:
    listed = in_the_navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted({*site_pages(reference.PAGES).values()})


def test_every_benchmark_is_among_the_answers() -> None:
    for path in (ROOT / "benchmarks").glob("*/README.md"):
        assert f"]({path.parent.name}.md)" in MADE["measured/index.md"]


def test_nothing_names_a_folder_of_this_machine() -> None:
    assert str(Path.home()) not in SITE
