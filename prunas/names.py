"""The closed vocabulary: what is known by a word, wherever its code lives today. Torch-free.

Runs are named by what they compute. What enters that name is a word of this table, never an import path, so that a
room can be renamed and every finished run is still found.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

__all__ = ["DIMENSIONS", "FINDERS", "METRIC_NAMES", "REGISTERED", "Kind", "Registry"]

Registry = Literal["prunas.works", "prunas.penalties", "prunas.phases", "prunas.rebuilds"]

_TABLES: dict[Registry, dict[str, str]] = {
    "prunas.works": {
        "evaluate": "prunas.works.evaluate:run",
        "train": "prunas.works.train:run",
    },
    "prunas.penalties": {
        "slimming/scale": "prunas.proposers.pruning.slimming:ScalePenalty",
        "sss/branch": "prunas.proposers.pruning.sss:BranchScales",
    },
    "prunas.phases": {"dsd": "prunas.training.phases:DenseSparseDense"},
    "prunas.rebuilds": {
        "thinet/rescaled": "prunas.proposers.pruning.refit:rescaled",
        "reconstruction/refitted": "prunas.proposers.pruning.refit:refitted",
    },
}

REGISTERED: Mapping[Registry, Mapping[str, str]] = MappingProxyType(
    {registry: MappingProxyType(_TABLES[registry]) for registry in get_args(Registry)}
)
"""Import paths of works, penalties, phases and rebuilds by name; other packages add theirs by entry points."""


Kind = Literal["predefined", "automatic", "sampler", "design", "control"]
DIMENSIONS = ("width", "depth", "kernel")
FINDERS = ("automatic", "predefined")
"""Kinds that find points by pruning."""


METRIC_NAMES = ("params", "macs", "channels", "conv-params", "activations", "memory")
"""The metrics of `prunas.costs.metrics`, for help that must not import it."""
