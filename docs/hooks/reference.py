"""Pages that are made of prunas itself: commands, keys of a space's file, proposers and their like."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from links import ROOT

__all__ = ["EXTRACTS", "PAGES", "commands", "keys"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar or a bracket in a cell is text."""
    lines = [head, [":--"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


# Commands


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Every command: its words behind `prunas`, the command and its context."""
    import typer

    from prunas.cli import app

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
        if hasattr(command, "commands"):
            for name, each in command.commands.items():
                yield from below(each, (*words, name))
        else:
            name = " ".join(words)
            yield name, command, command.make_context(f"prunas {name}", [], resilient_parsing=True)

    yield from below(typer.main.get_command(app), ())


def _commands_page() -> str:
    parts = [
        "# Commands\n\nMade from the commands themselves: `prunas COMMAND --help` says the same. Every command "
        "has `--json`, which prints one document on standard output; messages and progress go to standard error. "
        "Exit codes: 0 ok, 1 some runs failed, 2 bad input, 75 preempted, 130 Ctrl-C. `prunas --version` prints "
        "the version.\n"
    ]
    for name, command, context in commands():
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts.append(f"## prunas {name}\n\n{command.help or ''}\n\n``` text\n{usage}\n```\n")
        records = [record for each in command.params if (record := each.get_help_record(context))]
        parts.append(_table(("option", "what it does"), ((f"`{option}`", text) for option, text in records)))
    return "\n".join(parts)


# Keys of a space's file


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring of a class says of its attributes."""
    section = re.split(r"\n *Attributes:\n", inspect.getdoc(kind) or "", maxsplit=1)
    described: dict[str, str] = {}
    if len(section) == 2:
        for entry in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE):
            described[entry[0]] = " ".join(entry[1].split())
    return described


def _form(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """What a value may be, in words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_form(each, defs) for each in schema["anyOf"]))
    if "$ref" in schema:
        return "table"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_form(schema.get('items', {}), defs)}s".replace("texts", "text").replace("ss", "s")
    if kind == "object":
        return "table"
    if kind == "null":
        return "nothing"
    return words.get(str(kind), "see below")


def keys(kind: Any) -> str:
    """The table of the keys of a model, with what its docstring says of each."""
    schema = kind.model_json_schema()
    described = _attributes(kind)
    rows = []
    for name, entry in kind.model_fields.items():
        default = (
            "required" if entry.is_required() else _default(entry.get_default(call_default_factory=True))
        )
        form = _form(schema["properties"][name], schema.get("$defs", {}))
        rows.append((f"`{name}`", form, default, described.get(name, "")))
    return _table(("key", "value", "default", "what it says"), rows)


def _default(value: Any) -> str:
    if value is None or value in ("", {}, (), []):
        return ""
    if not isinstance(value, str | bool | int | float | tuple | list):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else _toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _toml_page() -> str:
    from prunas.spaces.file import FineTuningEntry, PresetEntry, SpaceFile, Vary

    example = re.search(r":\n\n((?:    .*\n|\n)+)", inspect.getdoc(inspect.getmodule(_space())) or "")
    assert example
    lines = inspect.cleandoc("\n" + example[1])
    return f"""# The file of a space

Made from the model that reads the file; `prunas new` writes a first one. A key that is not listed here is refused
with its line.

``` toml
{lines}
```

## Keys

{keys(SpaceFile)}
What `input` takes: [Networks that need a word more](../own-network.md). `data`: [your own data](../own-data.md).
`task`, `loss`, `score`: [tasks](../tasks.md). `weights`: [weights of your own](../own-weights.md). A table
`[recipe]` holds [any setting of a recipe](../recipes.md), a table `[proposers.NAME]`
[the settings of that proposer](catalogue.md).

## `[vary]`

{keys(Vary)}
## `finetune`

{keys(FineTuningEntry)}
## `[presets.NAME]`

{keys(PresetEntry)}"""


def _space() -> type:
    from prunas.spaces.space import SearchSpace

    return SearchSpace


# What there is


def _proposers() -> str:
    from prunas.proposers.table import PROPOSERS

    parts = []
    kinds = dict.fromkeys(entry.kind for entry in PROPOSERS.values())
    for kind in kinds:
        parts.append(f"### {kind.capitalize()}\n")
        for name, entry in PROPOSERS.items():
            if entry.kind != kind:
                continue
            lines = f"{entry.description}. Decides {_list(entry.dimensions)}. {entry.reference or ''}"
            parts.append(_entry("####", name, lines, entry.options or (), f"`--set {name}.`"))
    return "\n".join(parts)


def _entry(level: str, name: str, text: str, options: Iterable[Any], set_by: str) -> str:
    """A heading of a level with a sentence and the table of its settings."""
    rows = [_option_row(option.to_json()) for option in options]
    table = _table((set_by, "default", "may be", "what it sets"), rows) if rows else ""
    return f"{level} {name}\n\n{_sentence(text.strip())}\n\n{table}"


def _option_row(option: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return (
        f"`{option['name']}`",
        f"`{option['default']}`",
        option["range"] or option["type"],
        option["help"],
    )


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)


def _catalogue_page() -> str:
    from prunas.costs.metrics import METRICS
    from prunas.names import REGISTERED
    from prunas.plugins import resolve
    from prunas.proposers.evaluators import EVALUATORS
    from prunas.protocols import PROTOCOLS
    from prunas.recipe import RECIPES, Recipe
    from prunas.runs.executors import EXECUTORS
    from prunas.spaces.file import parse

    evaluators = "\n".join(
        _entry("###", name, each.description, each.options, f"`--evaluator-set` with `--evaluator {name}`")
        for name, each in EVALUATORS.items()
    )
    metrics = [(f"`{each.name}`", each.unit) for each in METRICS.values()]
    protocols = [(f"`{name}`", _first(type(each))) for name, each in PROTOCOLS.items()]
    tasks = [(f"`{name}`", _first(resolve("prunas.tasks", name))) for name in REGISTERED["prunas.tasks"]]
    data = [(f"`{name}`", _first(resolve("prunas.data", name))) for name in REGISTERED["prunas.data"]]
    executors = [
        (f"`{name}`", each.description, _list(list(each.options))) for name, each in EXECUTORS.items()
    ]
    named = [
        (
            f"`{name}`",
            ", ".join(
                f"{spec.name} = {_toml(getattr(each, spec.name))}"
                for spec in dataclasses.fields(Recipe)
                if spec.name != "name"
                and (spec.default is dataclasses.MISSING or getattr(each, spec.name) != spec.default)
            ),
        )
        for name, each in RECIPES.items()
    ]
    spaces = []
    for path in sorted((ROOT / "search_spaces").glob("*.toml")):
        file = parse(path.read_text(encoding="utf-8"), path)
        presets = ", ".join(f"{name}" for name in file.presets)
        spaces.append((f"`{path.stem}`", f"`{file.network}`", file.data_name, file.recipe_name, presets))
    return f"""# What there is

Made from the tables of prunas itself. `prunas proposers`, `prunas spaces`, `prunas presets` and `prunas tasks`
list the same with what installed packages add.

## Spaces

{_table(("space", "network", "data", "recipe", "presets"), spaces)}
## Proposers

[How to choose one](../choose/proposer.md).

{_proposers()}

## Evaluators

[Scoring candidates without training them](../evaluators.md).

{evaluators}
## Protocols

[Which one when](../retraining.md).

{_table(("protocol", "what it does"), protocols)}
## Recipes

[Every setting](../recipes.md). Settings that are not named have the default of `prunas.recipe.Recipe`.

{_table(("recipe", "settings"), named)}
## Metrics

{_table(("metric", "counts"), metrics)}
## Tasks

{_table(("task", "what it is"), tasks)}
## Data sets

{_table(("data", "what it is"), data)}
## Executors

[When one machine is not enough](../scale.md).

{_table(("executor", "where trainings run"), executors)}"""


def _first(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


# What was measured


def _measured_page() -> str:
    parts = [
        "# What was measured\n\nOne page a question, with the command, the machine and the date. Every page is "
        "the file of its folder in `benchmarks/`, where the numbers lie beside it. [Two first searches, in "
        "full](walkthrough.md) show what a search prints.\n"
    ]
    for path in sorted((ROOT / "benchmarks").glob("*/README.md")):
        text = path.read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        parts_of_page = text.split("\n\n")[1:6]
        paragraphs = [part for part in parts_of_page if not part.startswith(("|", "```", "!", "#", "<", "-"))]
        answer = next((part for part in paragraphs if "**" in part), paragraphs[0])
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", answer)
        parts.append(f"## [{title}]({path.parent.name}.md)\n\n{plain}\n")
    return "\n".join(parts)


def _welcome(readme: str) -> str:
    """The README without its part for developers."""
    return re.sub(r"\n## Development\n.*", "\n", readme, flags=re.DOTALL)


PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "reference/commands.md": _commands_page,
        "reference/toml.md": _toml_page,
        "reference/catalogue.md": _catalogue_page,
        "measured/index.md": _measured_page,
    }
)
"""Generated pages by their path on the site."""

EXTRACTS: Mapping[str, Callable[[str], str]] = MappingProxyType({"index.md": _welcome})
"""What of a file its page shows, where that is not all of it."""
