"""The user's objects are left as they were: what a network's code can reach is put back after a survey.

A survey runs the user's code on tensors without data. Code that keeps what it has computed, in a dictionary of its
module, an attribute of a class or a `functools.cache`, would keep such a tensor and hand it to the user's own
network later.
"""

import functools
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import is_
from typing import Any

from torch import Tensor, fx, nn

__all__ = ["running", "untouched"]

TESTING = {"pytest", "_pytest", "pluggy"}
"""What the assertions of a network that a test defines lead to, and by it all that the test runner has loaded."""

FOREIGN = frozenset(sys.stdlib_module_names) | {"torch", "numpy", "scipy", "networkx", "prunas"} | TESTING
"""Packages whose own objects are not looked at."""

CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
PLAIN = (str, bytes, int, float, complex, type(None), Tensor, types.CodeType)
CONTAINERS = (OrderedDict, dict, list, set, deque)
CACHED = type(functools.cache(lambda: None))
DEPTH = 4
"""How deep a kept object is searched for tensors."""

MISSING = object()
MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))


@contextmanager
def untouched(root: Callable[[], Any]) -> Iterator[Callable[[nn.Module], None]]:
    """While active, code may run within `running` and keep tensors without data: each time what it kept goes.

    Only if such a tensor was kept is anything put back, and then all data that the code can reach: a tensor and
    the flag that it is there belong together.

    Args:
        root: The factory whose code will run.

    Yields:
        A function that notes what a network of the factory's shares with others: its classes, and the
            objects in its attributes. The network itself is nobody else's.
    """
    reached = _Reached()
    reached.watch(root)
    before = _present.set(reached)
    try:
        yield reached.watch_network
    finally:
        _present.reset(before)


@contextmanager
def running() -> Iterator[None]:
    """While active, within `untouched`, the code runs: what it has kept before has no data either."""
    reached = _present.get()
    if reached is None:
        yield
        return
    try:
        reached.set_aside()
        yield
    finally:
        reached.put_back()


_present: ContextVar["_Reached | None"] = ContextVar("present", default=None)


class _Reached:
    """What some code can reach, with its contents at the time.

    Code reaches the globals that it names, their attributes, what its functions enclose, and the attributes of its
    classes and objects.
    """

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}  # the objects themselves, so that no id is used again
        self.containers: list[tuple[Any, Any]] = []
        self.with_data: list[tuple[Any, Any]] = []  # those containers that hold tensors
        self.names: dict[tuple[int, str], tuple[Any, str, Any, Any]] = {}  # with the namespace itself
        self.cells: list[tuple[types.CellType, Any]] = []
        self.named_data: list[tuple[Any, str, Any]] = []  # those names that stand for tensors
        self.caches: dict[Any, int] = {}  # how often each has computed something

    def watch(self, root: Any) -> None:
        """Notes everything that can be reached from an object and is not noted yet."""
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if isinstance(value, PLAIN) or id(value) in self.seen:
                continue
            self.seen[id(value)] = value
            waiting.extend(self._beneath(value))

    def watch_network(self, net: nn.Module) -> None:
        """Notes what the modules of a network may share with others."""
        modules = list(net.modules())
        self.seen.update({id(module): module for module in modules})
        for module in modules:
            self.watch(type(module))
            for name, value in vars(module).items():
                if name not in MODULE_ATTRIBUTES:
                    self.watch(value)

    def _beneath(self, value: Any) -> Iterator[Any]:
        """What can be reached from an object in one step."""
        if isinstance(value, functools.partial):
            yield from (value.func, *value.args, *value.keywords.values())
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            yield value.__func__
        elif isinstance(value, property):
            yield from (value.fget, value.fset)
        elif isinstance(value, CACHED):
            self.caches[value] = value.cache_info().misses
            yield value.__wrapped__
        elif isinstance(value, types.FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, type):
            for base in value.__mro__:
                if not _foreign(base.__module__):
                    for name, attribute in vars(base).items():
                        if not name.startswith("__") or name in ("__init__", "__call__"):
                            yield self._name(base, name, attribute)
        elif isinstance(value, CONTAINERS):
            yield from self._content_of(value)
        elif isinstance(value, tuple | frozenset):
            yield from value
        elif isinstance(value, nn.Module) or not _foreign(type(value).__module__):
            yield type(value)
            yield from self._content_of(_attributes(value))

    def _of_function(self, function: types.FunctionType) -> Iterator[Any]:
        if _foreign(function.__module__ or ""):
            return
        yield from (function.__defaults__ or ())
        for cell in function.__closure__ or ():
            content = _content(cell)
            self.cells.append((cell, content))
            yield content
        if (inner := getattr(function, "__wrapped__", None)) is not None:
            yield inner
        names = _named(function.__code__)
        for name in names:
            value = function.__globals__.get(name, MISSING)
            yield self._name(function.__globals__, name, value)
            if isinstance(value, types.ModuleType) and not _foreign(value.__name__):
                for attribute in names & vars(value).keys():
                    yield self._name(vars(value), attribute, vars(value)[attribute])

    def _content_of(self, container: Any) -> Iterable[Any]:
        """Notes what a container holds."""
        contents = _contents(container)
        self.containers.append((container, contents))
        if any(map(_has_data, _items(contents))):
            self.with_data.append((container, contents))
        return _items(contents)

    def _name(self, owner: Any, name: str, value: Any) -> Any:
        """Notes what a name of a namespace or class stands for."""
        key = id(owner), name
        if key not in self.names:
            self.names[key] = owner, name, value, owner if isinstance(owner, dict) else vars(owner)
            self.seen.setdefault(key[0], owner)
            if _has_data(value):
                self.named_data.append((owner, name, value))
        return value

    def set_aside(self) -> None:
        """Puts tensors without data in the place of those that were kept, which do not mix with what will come."""
        self.caches = {cache: cache.cache_info().misses for cache in self.caches}
        for container, contents in self.with_data:
            if isinstance(contents, dict):
                _fill(container, {key: _on_meta(item) for key, item in contents.items()})
            else:
                _fill(container, map(_on_meta, contents))
        for owner, name, value in self.named_data:
            _put(owner, name, _on_meta(value))
        for cell, value in self.cells:
            if _has_data(value):
                cell.cell_contents = _on_meta(value)

    def put_back(self) -> None:
        """Undoes what was kept, if a tensor without data is among it."""
        for cache, misses in self.caches.items():
            if cache.cache_info().misses != misses:  # nobody can see what is in it
                cache.cache_clear()
        containers = [(now, before) for now, before in self.containers if not _same(now, before)]
        names = [
            (owner, name, before)
            for owner, name, before, space in self.names.values()
            if space.get(name, MISSING) is not before
        ]
        cells = [(cell, before) for cell, before in self.cells if _content(cell) is not before]
        kept = (
            *(now for now, _ in containers),
            *(_now(owner, name) for owner, name, _ in names),
            *(_content(cell) for cell, _ in cells),
        )
        if not any(_dataless(value) for value in kept):
            return
        for now, before in containers:
            _fill(now, before)
        for owner, name, before in names:
            if isinstance(_now(owner, name), CODE):
                continue
            _put(owner, name, before)
        for cell, before in cells:
            if before is MISSING:
                del cell.cell_contents
            else:
                cell.cell_contents = before


def _put(owner: Any, name: str, value: Any) -> None:
    """Makes a name of a namespace or class stand for a value, or for nothing if it is `MISSING`."""
    if isinstance(owner, dict):
        owner.pop(name, None)
        if value is not MISSING:
            owner[name] = value
    elif value is MISSING:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def _kind(container: Any) -> Any:
    """The built-in class that a container belongs to: its methods run no code of a subclass, which may refuse."""
    return next(kind for kind in CONTAINERS if isinstance(container, kind))


def _contents(container: Any) -> Any:
    """What a container holds, as a plain dictionary, set or list."""
    kind = _kind(container)
    if issubclass(kind, dict):
        return dict(kind.items(container))
    return (set if kind is set else list)(kind.__iter__(container))


def _items(contents: Any) -> Iterable[Any]:
    """The values of a dictionary, the items of another container."""
    return contents.values() if isinstance(contents, dict) else contents


def _fill(container: Any, contents: Any) -> None:
    """Gives a container these contents in place of its own."""
    kind = _kind(container)
    kind.clear(container)
    if issubclass(kind, dict):
        for key, item in contents.items():
            kind.__setitem__(container, key, item)
    elif kind is set:
        kind.update(container, contents)
    else:
        kind.extend(container, contents)


def _has_data(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and not value.is_meta


def _on_meta(value: Any) -> Any:
    return value.to("meta") if _has_data(value) else value


def _foreign(module: str) -> bool:
    return module.partition(".")[0] in FOREIGN


def _named(code: types.CodeType) -> set[str]:
    """The names that code uses, functions within it included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _named(constant)
    return names


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _attributes(value: Any) -> dict[str, Any]:
    """An object's own attributes, without running code of its class."""
    try:
        attributes: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return attributes


def _now(owner: Any, name: str) -> Any:
    """What a name of a namespace or class stands for."""
    return (owner if isinstance(owner, dict) else vars(owner)).get(name, MISSING)


def _same(container: Any, contents: Any) -> bool:
    """Whether a container still holds the very objects that it held."""
    kind = _kind(container)
    if len(contents) != kind.__len__(container):
        return False
    if kind is set:
        return set(map(id, kind.__iter__(container))) == set(map(id, contents))
    same = all(map(is_, kind.__iter__(container), contents))
    return same and (not issubclass(kind, dict) or all(map(is_, kind.values(container), contents.values())))


def _dataless(value: Any, depth: int = 0) -> bool:
    """Whether a tensor without data, or a symbol, is kept in an object."""
    if isinstance(value, Tensor):
        return value.is_meta or hasattr(value, "fake_mode")
    if isinstance(value, fx.Proxy):
        return True
    if isinstance(value, nn.Module):
        return any(map(_dataless, (*value.parameters(), *value.buffers())))
    if depth == DEPTH or isinstance(value, (*PLAIN, *CODE)):
        return False
    if isinstance(value, dict):
        return any(_dataless(item, depth + 1) for item in value.values())
    if isinstance(value, list | set | tuple | deque | frozenset):
        return any(_dataless(item, depth + 1) for item in value)
    return any(_dataless(item, depth + 1) for item in _attributes(value).values())
