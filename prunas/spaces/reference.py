"""How any process finds what a user's file or module makes, such as a task or a data set. Torch-free."""

import importlib.metadata
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunas import live
from prunas.errors import InputError
from prunas.spaces.factory import (
    distribution_versions,
    file_hash,
    import_path,
    imported_beside,
    read_source,
)

__all__ = ["PATH", "Reference", "find", "versions_of"]

PATH = re.compile(r"[\w./-]+:\w+")
"""How a function is named: package.module:function, or file.py:function."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What any process finds something by, whatever becomes of the file.

    Attributes:
        name: Registered name, "package.module:function", or "file.py:function".
        identity: That of what is made, once it was made.
        source: Text of the file, or "".
        versions: What a module that is imported comes from.
        options: Settings of what is made, as JSON values.
    """

    name: str
    identity: str = ""
    source: str = ""
    versions: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def by_path(self) -> bool:
        """Whether it names a function, and not something registered."""
        return PATH.fullmatch(self.name) is not None

    def to_json(self) -> dict[str, Any]:
        """All fields that say something, as JSON values."""
        document: dict[str, Any] = {"name": self.name, "identity": self.identity}
        if self.source:
            document["source"] = self.source
        if self.versions:
            document["versions"] = list(self.versions)
        if self.options:
            document["options"] = dict(self.options)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Reference":
        """The reference that `to_json` wrote."""
        return cls(**{**document, "versions": tuple(document.get("versions", ()))})


def find(what: str, given: str | Callable[..., Any], folder: Path) -> Reference:
    """The reference of something, without its identity yet; nothing is imported.

    Args:
        what: It is, for messages: `task` or `data set`.
        given: A registered name; "package.module:function" or "file.py:function"; or such a function. One that
            other processes cannot import becomes a live object, see `prunas.live`.
        folder: Where a file is looked for.

    Raises:
        InputError: The file cannot be read.
    """
    if not isinstance(given, str):
        return _of_function(what, given)
    if not PATH.fullmatch(given):
        return Reference(given)
    place, _, attribute = given.partition(":")
    if not place.endswith(".py"):
        return Reference(given, versions=versions_of(what, given))
    source = read_source(f"{what} {given!r}", folder / place)
    beside = tuple(file_hash(file) for file in imported_beside(folder / place))
    return Reference(f"{Path(place).name}:{attribute}", source=source, versions=beside)  # wherever it lies


def _of_function(what: str, function: Callable[..., Any]) -> Reference:
    name = import_path(function)
    try:
        importable = not name.startswith("__main__") and pkgutil.resolve_name(name) is function
    except (ImportError, AttributeError, ValueError):
        importable = False
    if not importable:
        return Reference(live.name_of(what, function))
    return Reference(name, versions=versions_of(what, name))


def versions_of(what: str, name: str) -> tuple[str, ...]:
    """What the module of a function comes from.

    Raises:
        InputError: There is no such module.
    """
    try:
        return tuple(distribution_versions(name.partition(":")[0]))
    except (ImportError, ValueError, importlib.metadata.PackageNotFoundError) as error:
        raise InputError(f"{what} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
