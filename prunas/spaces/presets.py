"""Presets: the points that a space's file names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunas.architecture import Architecture
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.spaces.space import SearchSpace

__all__ = ["Preset", "evenly_spaced", "presets_of", "slug"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A named point.

    Attributes:
        name: As published.
        slug: The same in letters that need no quoting.
        architecture: The point.
        source: Where it comes from.
    """

    name: str
    slug: str
    architecture: Architecture
    source: str


def presets_of(space: "SearchSpace") -> Iterator[Preset]:
    """The presets of a space, in the order of its file.

    Raises:
        InputError: One of them does not lie in the space; the message names file and preset.
    """
    groups = space.varying["group"]
    for name, entry in space.raw_presets.items():
        widths = entry.get("widths", {})
        try:
            if isinstance(widths, list):
                if len(widths) != len(groups):
                    raise InputError(f"{len(widths)} widths are given and {len(groups)} groups vary")
                widths = dict(zip(groups, widths, strict=True))
            inputs = space.gate_inputs(space.point(widths))
            selected = {
                gate: evenly_spaced(some, inputs.get(gate, some)) if isinstance(some, int) else some
                for gate, some in entry.get("selected", {}).items()
            }
            arch = space.point(widths, selected, entry.get("removed", ()))
        except InputError as error:
            raise InputError(f"{space.source or space.name}: preset {name!r}: {error}") from error
        yield Preset(name, entry.get("slug") or slug(name), arch, entry.get("source", ""))


def evenly_spaced(count: int, channels: int) -> list[int]:
    """Positions of `count` of so many channels, evenly spaced."""
    return [i * channels // count for i in range(count)]


def slug(name: str) -> str:
    """A name in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("%", "pct")).strip("-")
