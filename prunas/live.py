"""Networks, tasks and data sets that exist in this process alone: lambdas, a notebook's functions, loaded arrays.

Each gets a name made of its content, such as `live:network_1f0c5e7a9b2d`, which stands wherever an import path may
stand: in a space, in a job, in a record. The same content has the same name in another process, so that runs are
found again and continued once it is made there; but no process can make it from the name, so that only executors
that train in this process take it. Torch-free.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from prunas.errors import InputError
from prunas.files import digest

__all__ = ["code_digest", "is_live", "label", "name_of", "name_of_data", "names_in", "value"]

PREFIX = "live:"
_VALUES: dict[str, Any] = {}
"""By name. They stay as long as the process, because any later call may name them."""


def name_of(kind: str, value: Any, identity: str = "") -> str:
    """The name of an object of this process, by which `value` finds it.

    Args:
        kind: `network`, `task`, `loss`, or what a data set is called.
        value: The object.
        identity: What tells it from others of its kind, letters and digits; by default `code_digest`.
    """
    word = "".join(character if character.isalnum() else "_" for character in kind)
    name = f"{PREFIX}{word}_{identity or code_digest(value)}"
    _VALUES[name] = value
    return name


def name_of_data(data: Any) -> str:
    """The name of a data set of this process: what it is called, and its identity.

    Raises:
        InputError: It is none.
    """
    name, identity = getattr(data, "name", None), getattr(data, "identity", None)
    if not (isinstance(name, str) and isinstance(identity, str) and identity):
        raise InputError(
            f"data must be a data set, with a name and an identity, not a {type(data).__name__}; see prunas.data"
        )
    return name_of(name, data, digest(identity))


def is_live(name: Any) -> bool:
    """Whether a name is one that `name_of` gives."""
    return isinstance(name, str) and name.startswith(PREFIX)


def label(name: str) -> str:
    """A name as tables show it: of a live object its kind, any other as it is."""
    return name.removeprefix(PREFIX).rpartition("_")[0] if is_live(name) else name


def value(name: str) -> Any:
    """The object of this process that has this name.

    Raises:
        InputError: This process has none.
    """
    if name not in _VALUES:
        raise InputError(
            f"{name} was made in Python by another process; make it again in this one, or name it by an import "
            "path or a file, such as mine.py:make"
        )
    return _VALUES[name]


def names_in(document: Any) -> list[str]:
    """The names of live objects in JSON values, each once."""
    return list(dict.fromkeys(filter(is_live, _texts(json.loads(json.dumps(document))))))


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for part in document.values():
            yield from _texts(part)
    elif isinstance(document, list):
        for part in document:
            yield from _texts(part)


_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def code_digest(value: Any) -> str:
    """Twelve hex digits over the code of a function, a class or an object's class.

    What it refers to in its own module and what it encloses count too: functions and classes by their code, plain
    values by what they are, other objects by their class.
    """
    return digest(list(_parts(value, set())))


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """What decides what a value does, as JSON values."""
    if isinstance(value, _PLAIN):
        yield repr(value)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value:
            yield from _parts(part, seen)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield str(key)
            yield from _parts(part, seen)
    elif isinstance(value, partial):
        yield from _parts((value.func, value.args, value.keywords), seen)
    elif isinstance(value, MethodType):
        yield from _parts(value.__func__, seen)
        yield from _parts(value.__self__, seen)
    elif isinstance(value, FunctionType):
        yield from _function(value, seen)
    else:
        yield from _class(value if isinstance(value, type) else type(value), seen)


def _function(function: FunctionType, seen: set[int]) -> Iterator[Any]:
    if id(function) in seen:
        return
    seen.add(id(function))
    yield from _code(function.__code__)
    yield from _parts(function.__defaults__ or (), seen)
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield from _parts(cell.cell_contents, seen)
    for name in sorted(_names(function.__code__)):
        used = function.__globals__.get(name)
        if isinstance(used, (*_PLAIN, tuple)) or getattr(used, "__module__", None) == function.__module__:
            yield from _parts(used, seen)


def _class(kind: type, seen: set[int]) -> Iterator[Any]:
    yield f"{kind.__module__}:{kind.__qualname__}"
    if id(kind) in seen:
        return
    seen.add(id(kind))
    for name, member in sorted(vars(kind).items()):
        function = getattr(member, "__func__", getattr(member, "fget", member))
        if isinstance(function, FunctionType) and function.__module__ == kind.__module__:
            yield name
            yield from _function(function, seen)
        elif isinstance(member, (*_PLAIN, tuple)) and not name.startswith("__"):
            yield name
            yield from _parts(member, seen)
    for base in kind.__bases__:
        if base.__module__ == kind.__module__:
            yield from _class(base, seen)


def _code(code: CodeType) -> Iterator[Any]:
    yield [code.co_code.hex(), list(code.co_names)]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield from _parts(constant, set())


def _names(code: CodeType) -> set[str]:
    """Names that a function and those within it look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))
