"""Tasks by name: bundled, offered by another package, or a function of a user's file or module. Torch-free."""

import importlib.metadata
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunas import live
from prunas.errors import InputError
from prunas.plugins import foreign_code, resolve
from prunas.spaces.factory import distribution_versions, import_attribute, import_path
from prunas.tasks.base import Inputs, Task
from prunas.tasks.score import Score

if TYPE_CHECKING:
    from prunas.data.dataset import DataSet

__all__ = ["CLASSIFICATION", "TaskReference", "find_task", "load_task", "make_task"]

TASK_PATH = re.compile(r"[\w./-]+:\w+")
"""How a function that makes a task is named: package.module:function, or file.py:function."""

_MEMBERS = (
    *("name", "identity", "score", "inputs", "statistics", "scores_training", "chance", "notes"),
    *("members", "feed", "calibration", "size", "loss", "totals", "result", "unfit"),
)


@dataclass(frozen=True, slots=True)
class TaskReference:
    """What any process finds a task by, whatever becomes of the file.

    Attributes:
        name: Registered name, "package.module:function", or "file.py:function".
        identity: That of the task, once it was made.
        source: Text of the file, or "".
        versions: What a module that is imported comes from.
    """

    name: str
    identity: str = ""
    source: str = ""
    versions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields that say something, as JSON values."""
        document: dict[str, Any] = {"name": self.name, "identity": self.identity}
        if self.source:
            document["source"] = self.source
        if self.versions:
            document["versions"] = list(self.versions)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TaskReference":
        """The reference that `to_json` wrote."""
        return cls(**{**document, "versions": tuple(document.get("versions", ()))})


CLASSIFICATION = TaskReference("classification")
"""The bundled task. A run that has it is named by its data alone."""


def find_task(task: str | Callable[..., Task], folder: Path) -> TaskReference:
    """The reference of a task, without its identity yet; nothing is imported.

    Args:
        task: A registered name; "package.module:function" or "file.py:function"; or such a function. One that
            other processes cannot import becomes a live object, see `prunas.live`.
        folder: Where a file is looked for.

    Raises:
        InputError: The file cannot be read.
    """
    if not isinstance(task, str):
        return _of_function(task)
    if not TASK_PATH.fullmatch(task):
        return TaskReference(task)
    place, _, attribute = task.partition(":")
    if not place.endswith(".py"):
        return TaskReference(task, versions=_versions(task))
    try:
        source = (folder / place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"task {task!r}: cannot read {folder / place}: {why}") from error
    return TaskReference(f"{Path(place).name}:{attribute}", source=source)  # where it lies does not matter


def _of_function(task: Callable[..., Task]) -> TaskReference:
    name = import_path(task)
    try:
        importable = not name.startswith("__main__") and pkgutil.resolve_name(name) is task
    except (ImportError, AttributeError, ValueError):
        importable = False
    if not importable:
        return TaskReference(live.name_of("task", task))
    return TaskReference(name, versions=_versions(name))


def _versions(name: str) -> tuple[str, ...]:
    try:
        return tuple(distribution_versions(name.partition(":")[0]))
    except (ImportError, ValueError, importlib.metadata.PackageNotFoundError) as error:
        raise InputError(f"task {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def make_task(reference: TaskReference, data: "DataSet | None") -> tuple[Task, TaskReference]:
    """A task, and its reference with the identity.

    Args:
        reference: From `find_task`.
        data: What its function is called with; None calls it without any.

    Raises:
        InputError: It cannot be imported or made, or lacks something of a `Task`.
    """
    name = reference.name
    if TASK_PATH.fullmatch(name):
        make = import_attribute(name, reference.source, "task")
    else:
        make = resolve("prunas.tasks", name)
    try:
        with foreign_code(f"task {name!r}"):
            task = make() if data is None else make(data)
            wrong = _wrong(task)
    except InputError:
        raise
    except Exception as error:  # whatever a user's function raises
        given = "a data set" if data is not None else "nothing, as the space names no data set"
        raise InputError(
            f"task {name!r} cannot be made of {given}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    if wrong:
        raise InputError(f"task {name!r}: {wrong}; derive its class from prunas.tasks.base.DataSetTask")
    return cast(Task, task), replace(reference, identity=task.identity)


def _wrong(task: Any) -> str:
    """What keeps a value from being a `Task`; "" if nothing does."""
    for member in _MEMBERS:
        if not (hasattr(type(task), member) or hasattr(task, member)):
            return f"a {type(task).__name__} is no task: it has no {member}"
    kinds = {"name": str, "score": Score, "statistics": int, "identity": str, "inputs": Inputs}
    for member, kind in kinds.items():
        value = getattr(task, member)
        if not (isinstance(value, kind) and value):
            return f"its {member} is {value!r}"
    return ""


def load_task(reference: TaskReference, data: "DataSet | None") -> Task:
    """The task that a run was planned with.

    Raises:
        InputError: As `make_task`; or it is another one by now.
    """
    name = reference.name
    task, present = make_task(reference, data)
    if TASK_PATH.fullmatch(name) and not reference.source:
        present = replace(present, versions=_versions(name))
    if reference.identity and present != reference:
        raise InputError(
            f"task {name!r} is not the one this run was planned with; undo its change, or repeat the command, "
            "which plans anew"
        )
    return task
