"""Plug-ins: what other installed packages add by entry points. Nothing is imported before its name is used.

`docs/plugins.md` shows a package that adds a proposer and a search space. `resolve` finds what is known by a
registered name, in `prunas.names` or in another package.
"""

import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar, cast

from prunas.errors import InputError, unknown
from prunas.names import REGISTERED, Registry

__all__ = ["Group", "Plugin", "foreign_code", "load_all", "plugins", "resolve"]

Group = Literal["prunas.proposers", "prunas.spaces", "prunas.protocols", "prunas.metrics"] | Registry

NOUNS: Mapping[Group, str] = {
    "prunas.proposers": "proposer",
    "prunas.spaces": "space",
    "prunas.protocols": "protocol",
    "prunas.metrics": "metric",
    "prunas.works": "work",
    "prunas.penalties": "penalty",
    "prunas.phases": "phases",
    "prunas.rebuilds": "rebuild",
    "prunas.tasks": "task",
    "prunas.data": "data set",
}
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
REGISTERED_NAME = re.compile(rf"{NAME.pattern}(/{NAME.pattern})?")

Value = TypeVar("Value")


@contextmanager
def foreign_code(what: str) -> Iterator[None]:
    """While code of a user or of another package runs: it neither ends this process nor speaks for it.

    What it prints goes to standard error, because standard output holds results alone.

    Args:
        what: Names the code in a message.

    Raises:
        InputError: It calls `sys.exit`.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        raise InputError(
            f"{what} calls sys.exit({'' if error.code is None else repr(error.code)}); it must return instead"
        ) from error


@dataclass(frozen=True, slots=True)
class Plugin:
    """One name that other packages offer.

    Attributes:
        group: What is offered.
        name: As a user types it.
        points: The entry points of that name; more than one is a conflict.
    """

    group: Group
    name: str
    points: tuple[EntryPoint, ...]

    def __str__(self) -> str:
        packages = [f"{p.dist.name} {p.dist.version}" if p.dist else p.module for p in self.points]
        plural = "s" if len(packages) > 1 else ""
        return f"{NOUNS[self.group]} {self.name!r} of package{plural} {' and '.join(packages)}"

    def load(self) -> object:
        """What the entry point names.

        Raises:
            InputError: Several packages offer it, its name cannot be typed, or it cannot be imported.
        """
        if len(self.points) > 1:
            raise InputError(f"{self}: the same name twice; uninstall all but one of them")
        pattern = REGISTERED_NAME if self.group in REGISTERED else NAME
        if not pattern.fullmatch(self.name):
            raise InputError(f"{self}: a name has lower-case letters, digits and hyphens; rename it there")
        try:
            with foreign_code(str(self)):
                return self.points[0].load()
        except InputError:
            raise
        except Exception as error:  # whatever a stranger's package raises
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{self} cannot be imported: {why}; repair or uninstall that package") from error


def plugins(group: Group) -> dict[str, Plugin]:
    """What the installed packages offer, by name; nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, []).append(point)
    return {name: Plugin(group, name, tuple(found[name])) for name in sorted(found)}


def load_all(
    group: Group, built_in: Collection[str], load: Callable[[Plugin], Value]
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Everything the installed packages offer that can be used, and one line about each thing that cannot.

    Args:
        group: What is wanted.
        built_in: Names of prunas's own, which always win.
        load: Loads one, or raises `InputError`.
    """
    usable, problems = {}, []
    for name, plugin in plugins(group).items():
        if name in built_in:
            problems.append(f"{plugin}: prunas has one of that name, which is used; rename it there")
            continue
        try:
            usable[name] = load(plugin)
        except InputError as error:
            problems.append(str(error))
    return usable, tuple(problems)


def resolve(registry: Registry, name: str) -> Callable[..., Any]:
    """The work, penalty, weight rebuild, task or data set that is registered under this name.

    Raises:
        InputError: Nobody registers it; it cannot be imported.
    """
    if (path := REGISTERED[registry].get(name)) is not None:
        return cast(Callable[..., Any], pkgutil.resolve_name(path))
    offered = plugins(registry)
    if name not in offered:
        raise unknown(NOUNS[registry], name, {*REGISTERED[registry], *offered})
    return cast(Callable[..., Any], offered[name].load())
