"""Data sets found by reference: registered ones, a user's function, an object of this process."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from prunas import data as registered
from prunas import live
from prunas.data.dataset import DataSet
from prunas.data.make import arrays, datasets
from prunas.errors import InputError
from prunas.files import canonical
from prunas.plugins import foreign_code
from prunas.spaces.factory import import_attribute
from prunas.spaces.reference import Reference, find, versions_of

__all__ = ["find_data", "load_data", "wrapped"]


def find_data(given: Any, folder: Path, options: Mapping[str, Any] | None = None) -> Reference:
    """The reference of a data set, without its identity yet.

    Args:
        given: A registered name; "package.module:function" or "file.py:function"; a function; or an object:
            a `DataSet`, or what `wrapped` makes one of. Objects are known in this process alone.
        folder: Where a file is looked for.
        options: Settings of a registered data set, or arguments of the function.

    Raises:
        InputError: The file cannot be read, or the value is none of these.
    """
    if isinstance(given, str):
        return replace(find("data set", given, folder), options=dict(options or {}))
    if inspect.isroutine(given):
        reference = find("data set", given, folder)
        if not live.is_live(reference.name):
            return reference
        given = given()  # a function that only this process knows is called here
    return Reference(live.name_of_data(wrapped(given, "own", "data:")))


def load_data(reference: Reference, root: Path | None = None, download: bool = False) -> DataSet:
    """The data set that a reference names; asked again with the same answer, the same object.

    Args:
        reference: From `find_data`; with an identity, that of a run's plan.
        root: Folder of the data sets, see `prunas.data.data_folder`.
        download: Whether a registered data set that is not there may be fetched.

    Raises:
        InputError: It cannot be made, or is not the one that was planned with.
    """
    name = reference.name
    if live.is_live(name):
        data = live.value(name)
    elif reference.by_path:
        data = _made(name, reference.source, canonical(dict(reference.options)), registered.data_folder(root))
        if not reference.source and reference.versions not in ((), versions_of("data set", name)):
            raise _changed(name, "the package it comes from is another version")
    else:
        data = registered.load(name, root, download, **reference.options)
    if reference.identity and reference.identity != data.identity:
        raise _changed(name, "check --data, or repeat the command, which plans anew")
    return cast(DataSet, data)


def _changed(name: str, what: str) -> InputError:
    return InputError(f"data set {name!r} is not the one this run was planned with; {what}")


@lru_cache(maxsize=8)
def _made(name: str, source: str, options: str, folder: Path) -> DataSet:
    """What a user's function makes.

    Args:
        name: "package.module:function", or "file.py:function".
        source: Text of the file, or "".
        options: Its arguments, as canonical JSON.
        folder: Of the data sets, for a function that takes a `folder`.
    """
    make = import_attribute(name, source, "data set")
    try:
        with foreign_code(f"data set {name!r}"):
            value = make(**_arguments(make, json.loads(options), folder)) if callable(make) else make
            called = Path(name.partition(":")[0]).stem.rpartition(".")[2]
            return wrapped(value, called, f"data set {name!r}: it gave")
    except InputError as error:
        text = str(error)
        raise error if text.startswith("data set") else InputError(f"data set {name!r}: {text}") from error
    except Exception as error:  # whatever a user's function raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"data set {name!r} cannot be made: {why}") from error


def _arguments(make: Callable[..., Any], options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a function is called with.

    Raises:
        InputError: It does not take an option, or needs something that it is not given.
    """
    taken = {} if "folder" not in inspect.signature(make).parameters else {"folder": folder}
    try:
        return dict(inspect.signature(make).bind(**{**taken, **options}).arguments)
    except TypeError as error:
        raise InputError(
            f"{error}; name its arguments in the table [data], and folder, which is given"
        ) from error


def wrapped(value: Any, name: str, what: str) -> DataSet:
    """What a user's function returned, as a data set.

    Args:
        value: A `DataSet`; a pair of arrays; a map-style Dataset; two or three of either (train, val, test); or
            these by name.
        name: Of the data set, if it has none yet.
        what: Begins the message of a value that is none of these, such as `data:`.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(value, DataSet):
        return value
    parts = value if isinstance(value, Mapping) else None
    if parts is None:
        several = isinstance(value, tuple | list) and not _is_pair(value)
        parts = dict(zip(("train", "val", "test"), value if several else (value,), strict=False))
    known = {"train", "val", "test"}
    too_many = isinstance(value, tuple | list) and len(value) > len(known)
    if not hasattr(parts.get("train"), "__getitem__") or not parts.keys() <= known or too_many:
        raise InputError(
            f"{what} a {type(value).__name__}; give a DataSet, or train, val and test as arrays or Datasets"
        )
    if all(_is_pair(part) for part in parts.values() if part is not None):
        return arrays(name, **parts)
    return datasets(**parts, name=name)


def _is_pair(value: Any) -> bool:
    """Whether something is inputs and targets as arrays."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and isinstance(value[0], np.ndarray | Tensor)
        and isinstance(value[1], np.ndarray | Tensor | Mapping)
    )
