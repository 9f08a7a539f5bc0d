"""Reads and validates the TOML file of a search space."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prunas.costs.metrics import metric
from prunas.errors import InputError, unknown
from prunas.files import names_folder
from prunas.inputs import Inputs
from prunas.recipe import FineTuning, recipe
from prunas.spaces.study import Study

__all__ = ["NETWORK", "SpaceFile", "Vary", "parse"]


NETWORK = r"^[\w./-]+:\w+$"
"""How a factory is named: package.module:function, or file.py:function."""


class Vary(BaseModel):
    """The table `[vary]`: what a search may change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: tuple[str, ...] = ("*",)
    gates: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    floor: int = Field(default=1, ge=1)
    step: int = Field(default=1, ge=1)
    ceiling: float = Field(default=1.0, ge=1, le=16)


class PresetEntry(BaseModel):
    """One table `[presets.NAME]`.

    `selected` names the channels that pass a gate, or says how many, evenly spaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slug: str = ""
    source: str = ""
    widths: list[int] | dict[str, int] = Field(default_factory=dict)
    selected: dict[str, list[int] | int] = Field(default_factory=dict)
    removed: list[str] = Field(default_factory=list)


class FineTuningEntry(BaseModel):
    """The table `finetune`: how the space's own recipe fine-tunes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=1)
    lr: float = Field(gt=0, allow_inf_nan=False)


class SpaceFile(BaseModel):
    """A whole file; see `prunas.spaces.space` for an example."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str = Field(pattern=NETWORK)
    arguments: dict[str, Any] = Field(default_factory=dict)
    input: Any
    part: str = ""
    part_input: Any = None
    data: str | dict[str, Any] = ""
    task: str = Field(default="classification", min_length=1)
    loss: str = Field(default="", pattern=f"^$|{NETWORK}")
    score: str | dict[str, Any] = Field(default="", min_length=0)
    recipe: str | dict[str, Any] = "paper"
    metric: str = "params"
    keep: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.5, 0.3, 0.1)
    cap: float | None = Field(default=None, ge=1)
    finetune: FineTuningEntry | None = None
    weights: str = ""
    vary: Vary = Vary()
    proposers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    presets: dict[str, PresetEntry] = Field(default_factory=dict)

    @field_validator("input", "part_input")
    @classmethod
    def _called_with(cls, given: Any) -> Any:
        """Refuses an input that is none, as `prunas.inputs.Inputs.of` does."""
        try:
            return given if given is None else Inputs.of(given).to_json()
        except InputError as error:
            raise ValueError(str(error)) from error

    @property
    def data_name(self) -> str:
        """The data set that is named, or that the table `[data]` names."""
        return self.data if isinstance(self.data, str) else str(self.data.get("name", ""))

    @property
    def data_options(self) -> dict[str, Any]:
        """The settings of the data set in the table `[data]`."""
        table = {} if isinstance(self.data, str) else self.data
        return {key: value for key, value in table.items() if key != "name"}

    @property
    def recipe_name(self) -> str:
        """The recipe that is named, or that the table `[recipe]` begins with."""
        return self.recipe if isinstance(self.recipe, str) else str(self.recipe.get("name", "paper"))

    @property
    def recipe_changes(self) -> dict[str, Any]:
        """What the table `[recipe]` changes."""
        table = {} if isinstance(self.recipe, str) else self.recipe
        return {key: value for key, value in table.items() if key != "name"}

    def settings(self) -> dict[str, Any]:
        """The attributes of a `SearchSpace` that the file decides."""
        finetune = FineTuning(**self.finetune.model_dump()) if self.finetune else None
        study = Study(
            data=self.data_name,
            data_options=self.data_options,
            task=self.task,
            loss=self.loss,
            score=({"function": self.score} if self.score else {})
            if isinstance(self.score, str)
            else self.score,
            recipe=self.recipe_name,
            recipe_changes=self.recipe_changes,
            metric=self.metric,
            keep=self.keep,
            cap=self.cap,
            finetune=finetune,
            weights=self.weights,
            options=self.proposers,
        )
        return {
            **self.vary.model_dump(),
            "network": self.network,
            "study": study,
            "raw_presets": {name: entry.model_dump() for name, entry in self.presets.items()},
        }


def parse(text: str, path: Path) -> SpaceFile:
    """The validated content of a space's file.

    Args:
        text: The file's text.
        path: Its path, for errors.

    Raises:
        InputError: The file's name cannot name a folder, it is not TOML, or a key is unknown, missing or of the
            wrong type; the message names file, line and key.
    """
    if not names_folder(path.stem):
        raise InputError(
            f"{path}: a space is called after its file, and {path.stem!r} cannot name the folder of its runs; "
            "rename it with letters, digits, and . _ + -"
        )
    try:
        spec = SpaceFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        # The deepest one: of the forms that a value may have, it belongs to the one that was meant. An unknown key
        # comes before one that is missing, because it may be that key misspelt.
        worst = max(
            error.errors(), key=lambda detail: (len(detail["loc"]), detail["type"] == "extra_forbidden")
        )
        place = [key for key in worst["loc"] if key not in FORMS]
        keys = [key for key in place if isinstance(key, str)]
        why: object = worst["msg"].removeprefix("Value error, ")
        if worst["type"] == "extra_forbidden":
            why = unknown("key", keys[-1], _known(keys))
        raise InputError(f"{path}{_line(text, keys)}: {'.'.join(map(str, place))}: {why}") from error
    try:
        metric(spec.metric)
    except InputError as error:
        raise InputError(f"{path}{_line(text, ['metric'])}: {error}") from error
    _check_recipe(spec, text, path)
    return spec


def _check_recipe(spec: SpaceFile, text: str, path: Path) -> None:
    """Refuses a recipe that does not exist, or that cannot be changed so."""
    study = spec.settings()["study"]
    try:
        study.default_recipe()
    except InputError as error:
        keys = ["recipe", *([] if isinstance(spec.recipe, str) else _unusable(study))]
        raise InputError(f"{path}{_line(text, keys)}: {error}") from error


def _unusable(study: Study) -> list[str]:
    """The first key of a table `[recipe]` that is wrong by itself; none where only several together are."""
    try:
        base = recipe(study.recipe)
    except InputError:
        return ["name"]
    for key, value in study.recipe_changes.items():
        try:
            base.replace(**{key: value})
        except InputError:
            return [key]
    return []


FORMS = ("list[int]", "dict[str,int]", "int", "str", "dict[str,any]")
"""How pydantic calls the forms of a recipe, and of a preset's widths and selections, in the place of an error."""


def _known(keys: Sequence[str]) -> Sequence[str]:
    """The keys that may stand where the last one stands."""
    tables: dict[str, type[BaseModel]] = {
        "vary": Vary,
        "presets": PresetEntry,
        "finetune": FineTuningEntry,
    }
    return list((tables[keys[0]] if len(keys) > 1 else SpaceFile).model_fields)


def _line(text: str, keys: Sequence[str]) -> str:
    """`:7` if the last of the keys that stands in the file, behind those before it, stands on line 7."""
    lines = text.splitlines()
    found = -1
    for key in keys:
        pattern = rf"^[^#]*?(^|[.\[\"'{{,\s]){re.escape(key)}[\"']?\s*(=|\]|\.)"
        later = (i for i in range(max(found, 0), len(lines)) if re.search(pattern, lines[i]))
        found = next(later, found)
    return f":{found + 1}" if found >= 0 else ""
