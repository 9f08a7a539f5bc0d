"""prunas: pruning as neural architecture search.

    space = prunas.load_space("vgg16-c10")
    arch = prunas.designs.uniform(space, space.target(keep=0.3))
    space.cost(arch)
    net = space.build(arch)
    result = prunas.search(space, ["slimming", "tpe"], keep=[0.3])

Importing prunas imports nothing else; torch comes when a network is built or surveyed for the first time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunas import designs
    from prunas.api import load_results, load_run, search, train, transfer
    from prunas.architecture import Architecture, KernelPattern
    from prunas.costs.counted import Cost
    from prunas.costs.target import Target
    from prunas.errors import InputError
    from prunas.shrinking import shrink
    from prunas.spaces.load import load_point, load_space
    from prunas.spaces.space import SearchSpace

__version__ = "0.1.0"
SCHEMA = 1
"""Version of every JSON document that prunas prints, and of the searches it stores; see `schema.json`."""

__all__ = [
    "Architecture",
    "Cost",
    "InputError",
    "KernelPattern",
    "SearchSpace",
    "Target",
    "designs",
    "load_point",
    "load_results",
    "load_run",
    "load_space",
    "search",
    "shrink",
    "train",
    "transfer",
]

_HOMES = {
    "Architecture": "prunas.architecture",
    "Cost": "prunas.costs.counted",
    "InputError": "prunas.errors",
    "KernelPattern": "prunas.architecture",
    "SearchSpace": "prunas.spaces.space",
    "Target": "prunas.costs.target",
    "load_point": "prunas.spaces.load",
    "load_results": "prunas.api",
    "load_run": "prunas.api",
    "load_space": "prunas.spaces.load",
    "search": "prunas.api",
    "shrink": "prunas.shrinking",
    "train": "prunas.api",
    "transfer": "prunas.api",
}

_GONE = {"build": "space.build(architecture)"}
"""What to use instead of a name that is gone."""


def __getattr__(name: str) -> Any:
    if name == "designs":
        return importlib.import_module("prunas.designs")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _GONE:
        raise AttributeError(f"prunas.{name} is gone; use {_GONE[name]}")
    raise AttributeError(f"module 'prunas' has no attribute {name!r}")
