"""A network's factory: imported by its path or from a user's file, called, told apart by version."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
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
    "imported_beside",
    "make_network",
    "read_source",
    "texts_beside",
]


def read_source(what: str, path: Path) -> str:
    """The text of a user's Python file; what lies beside it can be imported from now on, as when Python runs it.

    Args:
        what: The file is for, in messages.
        path: Of the file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{what}: cannot read {path}: {why}") from error
    beside = str(path.parent.resolve())
    if beside not in sys.path:
        sys.path.insert(0, beside)
    return text


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


def imported_beside(path: Path) -> list[Path]:
    """Python files beside a user's file that it imports, and those that these import, sorted.

    Args:
        path: Of the user's file.
    """
    waiting, seen = [path], {path}
    while waiting:
        try:
            tree = ast.parse(waiting.pop().read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):  # whoever imports it says so
            continue
        names = [
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        ]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for top in {name.partition(".")[0] for name in names} - {"", "prunas"}:
            package = path.parent / top
            files = package.rglob("*.py") if package.is_dir() else [package.with_suffix(".py")]
            new = {other for other in files if other.is_file()} - seen
            waiting, seen = [*waiting, *new], seen | new
    return sorted(seen - {path})


def texts_beside(name: str, source: str) -> dict[str, bytes]:
    """What a user's file imports from beside it, by path from there; empty if it is not where it was.

    Args:
        name: Of the file.
        source: Its text.
    """
    file = Path(_place(name, source))
    if not file.is_absolute():
        return {}
    return {other.relative_to(file.parent).as_posix(): other.read_bytes() for other in imported_beside(file)}


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


def _place(name: str, source: str) -> str:
    """Where a user's file lies, if it is still there as it was; else its name alone."""
    for file in (Path(folder, name) for folder in sys.path):
        with suppress(OSError, ValueError):
            if file.read_text(encoding="utf-8") == source:
                return str(file.resolve())
    return name


@lru_cache
def _module(name: str, source: str) -> ModuleType:
    """A user's Python file as a module; the same one while the file does not change."""
    module = ModuleType(f"prunas_network_{Path(name).stem}_{digest(source)}")
    module.__file__ = _place(name, source)
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
