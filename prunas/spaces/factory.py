"""A network's factory: imported by its path or from a user's file, called, told apart by version."""

import hashlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from prunas import live
from prunas.errors import InputError
from prunas.files import digest
from prunas.plugins import foreign_code

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "distribution_versions",
    "file_hash",
    "import_attribute",
    "import_factory",
    "import_path",
    "make_network",
]


def make_network(network: str, source: str, arguments: Mapping[str, Any]) -> "nn.Module":
    """Calls a factory. A module-level function, so that a partial of it pickles."""
    factory = import_factory(network, source)
    try:
        with foreign_code(f"network {network!r}"):
            return cast("nn.Module", factory(**arguments))
    except (InputError, RuntimeError):
        raise  # ours, or torch's; the survey knows what to do about a factory that fails on the meta device
    except Exception as error:  # whatever a user's factory raises
        raise InputError(
            f"network {network!r} cannot be made with arguments {dict(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def import_factory(network: str, source: str) -> Callable[..., Any]:
    """Imports a factory: by its import path, or from the source of a Python file."""
    found = import_attribute(network, source, "network")
    if not callable(found) or _is_network(found):
        raise InputError(
            f"network {network!r} is not a function that makes a network, but a {type(found).__name__}; name one "
            "that returns a fresh network at every call"
        )
    return cast(Callable[..., Any], found)


def import_attribute(path: str, source: str, what: str) -> Any:
    """What a user names.

    Args:
        path: "package.module:name", "file.py:name", or the name of a live object.
        source: Text of the file, or "".
        what: It is meant to be, for messages.

    Raises:
        InputError: It cannot be imported.
    """
    place, _, attribute = path.partition(":")
    if live.is_live(path):
        return live.value(path)
    try:
        with foreign_code(f"{what} {path!r}"):
            return getattr(_module(place, source), attribute) if source else pkgutil.resolve_name(path)
    except InputError:
        raise
    except Exception as error:  # whatever a user's file raises
        raise InputError(f"{what} {path!r} cannot be imported: {type(error).__name__}: {error}") from error


def _is_network(found: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever made a network has imported it
    return torch is not None and isinstance(found, torch.nn.Module)


@lru_cache
def _module(name: str, source: str) -> ModuleType:
    """A user's Python file as a module; the same one while the file does not change."""
    module = ModuleType(f"prunas_network_{Path(name).stem}_{digest(source)}")
    module.__file__ = name
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def distribution_versions(module: str) -> list[str]:
    """What a network that is imported depends on: the version of its distribution, else its files."""
    top = module.partition(".")[0]
    if top == "prunas" or live.is_live(f"{module}:"):
        return []
    try:
        return [f"{top} {importlib.metadata.version(top)}"]
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(top) if top else None
    roots = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    files = sorted(f for root in roots for f in root.rglob("*.py"))
    if spec and spec.origin and not roots:
        files.append(Path(spec.origin))
    return [file_hash(f) for f in files if f.is_file()]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def import_path(factory: Callable[..., Any]) -> str:
    """Where a factory can be imported from, as "module:name"."""
    inner = factory.func if isinstance(factory, partial) else factory
    return f"{getattr(inner, '__module__', '')}:{getattr(inner, '__qualname__', inner)}"
