"""Reads and validates the TOML file of a search space."""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunas.errors import InputError
from prunas.recipe import RECIPES

__all__ = ["SpaceFile", "parse"]


class Vary(BaseModel):
    """The table `[vary]`: what a search may change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: tuple[str, ...] = ("*",)
    gates: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    floor: int = Field(default=1, ge=1)
    step: int = Field(default=1, ge=1)


class PresetEntry(BaseModel):
    """One table `[presets.NAME]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slug: str = ""
    source: str = ""
    widths: list[int] | dict[str, int] = Field(default_factory=dict)
    selected: dict[str, list[int]] = Field(default_factory=dict)
    removed: list[str] = Field(default_factory=list)


class SpaceFile(BaseModel):
    """A whole file; see `prunas.space` for an example."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str = Field(pattern=r"^[\w./-]+:\w+$")
    arguments: dict[str, Any] = Field(default_factory=dict)
    input: list[int] = Field(min_length=1)
    data: str = ""
    recipe: str = "paper"
    metric: Literal["params", "macs", "channels"] = "params"
    keep: tuple[float, ...] = (0.5, 0.3, 0.1)
    cap: float | None = Field(default=None, gt=0)
    vary: Vary = Vary()
    proposers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    presets: dict[str, PresetEntry] = Field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """The attributes of a `SearchSpace` that the file decides."""
        return {
            **self.vary.model_dump(),
            **{key: getattr(self, key) for key in ("network", "data", "recipe", "metric", "keep", "cap")},
            "options": self.proposers,
            "raw_presets": {name: entry.model_dump() for name, entry in self.presets.items()},
        }


def parse(text: str, path: Path) -> SpaceFile:
    """The validated content of a space's file.

    Args:
        text: The file's text.
        path: Its path, for errors.

    Raises:
        InputError: It is not TOML, or a key is unknown, missing or of the wrong type; the message names file,
            line and key.
    """
    try:
        spec = SpaceFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}{_line(text, first['loc'])}: {key}: {first['msg']}") from error
    if spec.recipe not in RECIPES:
        raise InputError(f"{path}{_line(text, ('recipe',))}: recipe: there is none called {spec.recipe!r}")
    return spec


def _line(text: str, keys: tuple[Any, ...]) -> str:
    """`:7` if the innermost key that stands in the file stands on line 7."""
    for key in reversed([key for key in keys if isinstance(key, str)]):
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(rf"(^|[.\[\"{{,\s]){re.escape(key)}[\"\]]?\s*(=|\]|\.)", line):
                return f":{number}"
    return ""
