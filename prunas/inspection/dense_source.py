"""Where a file without prunas has a network's factory from: an import, a file beside it, or the factory's text."""

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from prunas.spaces.factory import distribution_versions, make_network
from prunas.spaces.space import SearchSpace

__all__ = ["Definition", "DenseSource", "definitions_of", "dense_source", "with_needed"]

PACKAGE = __name__.partition(".")[0]

FACTORY = "factory"
"""What a user's function is called in the module, which has names of its own."""


@dataclass(frozen=True, slots=True)
class DenseSource:
    """The factory of a dense network, as text of a Python module.

    Attributes:
        network: How a user names it; "" if only this process can call it.
        imports: Import statements.
        text: Definitions; "" where imports suffice.
        function: What the factory is called in the module; "" if only this process can call it.
        arguments: Of the factory.
        needs: What must be there besides torch, for a person.
        file: Name of the file that must lie beside the module, or "".
        content: Text of that file.
    """

    network: str = ""
    imports: tuple[str, ...] = ()
    text: str = ""
    function: str = ""
    arguments: tuple[tuple[str, Any], ...] = ()
    needs: str = ""
    file: str = ""
    content: str = ""


def dense_source(space: SearchSpace) -> DenseSource:
    """Where the factory of a space's network can be had without prunas.

    A network of prunas's own is written out, for a file that imports it would need prunas.
    """
    network, source, arguments = _origin(space)
    if not network:
        return DenseSource(needs="the function that makes the dense network")
    place, _, attribute = network.partition(":")
    given = tuple(sorted(arguments.items()))
    top = place.partition(".")[0]
    if source:
        name = Path(place).stem
        imports: tuple[str, ...] = (f"from {name} import {attribute} as {FACTORY}",)
        if not name.isidentifier():
            imports = ("import importlib", f'{FACTORY} = importlib.import_module("{name}").{attribute}')
        return DenseSource(network, imports, "", FACTORY, given, f"{place} beside it", place, source)
    if top == PACKAGE:
        factory = pkgutil.resolve_name(network)
        imports, text = with_needed({factory.__name__}, definitions_of(factory))
        return DenseSource(network, imports, text, factory.__name__, given)
    version = next((v for v in distribution_versions(place) if v.startswith(f"{top} ")), top)
    return DenseSource(
        network, (f"from {place} import {attribute} as {FACTORY}",), "", FACTORY, given, version
    )


def _origin(space: SearchSpace) -> tuple[str, str, Mapping[str, Any]]:
    """Import path of the network, text of its file, and arguments; empty if only this process can call it."""
    factory: Any = space.factory
    if isinstance(factory, partial) and factory.func is make_network:
        network, source, arguments = factory.args[:3]
        return network, source, arguments
    if isinstance(space.known_as, Mapping) and space.known_as:
        return space.known_as["network"], space.known_as.get("source", ""), space.known_as["arguments"]
    return "", "", {}


@dataclass(frozen=True, slots=True)
class Definition:
    """One name of a module.

    Attributes:
        text: The statement that binds it.
        names: Names that occur in it.
    """

    text: str
    names: frozenset[str]

    @property
    def imports(self) -> bool:
        """Whether it is an import."""
        return self.text.startswith(("import ", "from "))


def definitions_of(value: Any) -> dict[str, Definition]:
    """What the module of a class or function of prunas's binds, by name."""
    return _definitions(sys.modules[value.__module__])


def _definitions(module: ModuleType) -> dict[str, Definition]:
    """What a module of prunas's binds, by name; what it imports from prunas as it is defined there."""
    text = inspect.getsource(module)
    lines = text.splitlines()
    bound: dict[str, Definition] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            bound = _definitions(importlib.import_module(str(node.module))) | bound
            continue
        names = frozenset(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        decorators = getattr(node, "decorator_list", [])
        first = min(part.lineno for part in (node, *decorators))
        statement = "\n".join(lines[first - 1 : node.end_lineno])
        for name in _binds(node):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                alias = next(
                    each for each in node.names if (each.asname or each.name.partition(".")[0]) == name
                )
                bound[name] = Definition(_import(node, alias), frozenset())
            elif name != "__all__":
                bound[name] = Definition(statement, names)
    return bound


def _binds(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module binds."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def _import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    """The statement that imports one name."""
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import([alias]))
    return ast.unparse(ast.ImportFrom(node.module, [alias], 0))


def with_needed(wanted: set[str], bound: Mapping[str, Definition]) -> tuple[tuple[str, ...], str]:
    """Imports and definitions that some names need, each once and in the order of `bound`.

    Args:
        wanted: The names.
        bound: All that may be needed.
    """
    needed, waiting = set(wanted), list(wanted)
    while waiting:
        names = bound[waiting.pop()].names & bound.keys() - needed
        needed |= names
        waiting += names
    statements = dict.fromkeys(each for name, each in bound.items() if name in needed)
    imports = tuple(each.text for each in statements if each.imports)
    return imports, "\n\n\n".join(each.text for each in statements if not each.imports)
