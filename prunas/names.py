"""The closed vocabulary: what is known by a word, wherever its code lives today. Torch-free.

Runs are named by what they compute. What enters that name is a word of this table, never an import path, so that a
room can be renamed and every finished run is still found.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

__all__ = ["REGISTERED", "Registry"]

Registry = Literal["prunas.works", "prunas.penalties", "prunas.rebuilds"]

_TABLES: dict[Registry, dict[str, str]] = {
    "prunas.works": {"train": "prunas.experiments.work:run"},
    "prunas.penalties": {
        "slimming/scale": "prunas.proposers.slimming:ScalePenalty",
        "sss/branch": "prunas.proposers.sss:BranchScales",
    },
    "prunas.rebuilds": {
        "thinet/rescaled": "prunas.proposers.refit:rescaled",
        "reconstruction/refitted": "prunas.proposers.refit:refitted",
    },
}

REGISTERED: Mapping[Registry, Mapping[str, str]] = MappingProxyType(
    {registry: MappingProxyType(_TABLES[registry]) for registry in get_args(Registry)}
)
"""Import paths of works, penalties and weight rebuilds by name; other packages add theirs by entry points."""
