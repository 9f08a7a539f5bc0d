"""Tasks by name: bundled, offered by another package, or a function of a user's file or module. Torch-free."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunas.errors import InputError
from prunas.plugins import foreign_code, resolve
from prunas.spaces.factory import import_attribute
from prunas.spaces.reference import Reference, find, versions_of
from prunas.tasks.base import Inputs, Task
from prunas.tasks.score import Score

if TYPE_CHECKING:
    from prunas.data.dataset import DataSet

__all__ = ["CLASSIFICATION", "TaskReference", "find_task", "load_task", "make_task"]

_MEMBERS = (
    *("name", "identity", "score", "inputs", "statistics", "scores_training", "chance", "notes"),
    *("members", "feed", "calibration", "size", "loss", "totals", "result", "unfit"),
)


TaskReference = Reference
"""What any process finds a task by."""

CLASSIFICATION = TaskReference("classification")
"""The bundled task. A run that has it is named by its data alone."""


def find_task(task: str | Callable[..., Task], folder: Path) -> TaskReference:
    """The reference of a task, without its identity yet; nothing is imported.

    Args:
        task: A registered name; "package.module:function" or "file.py:function"; or such a function, which
            other processes must be able to import.
        folder: Where a file is looked for.

    Raises:
        InputError: The file cannot be read, or no other process can import the function.
    """
    return find("task", task, folder)


def make_task(reference: TaskReference, data: "DataSet | None") -> tuple[Task, TaskReference]:
    """A task, and its reference with the identity.

    Args:
        reference: From `find_task`.
        data: What its function is called with; None calls it without any.

    Raises:
        InputError: It cannot be imported or made, or lacks something of a `Task`.
    """
    name = reference.name
    by_path = reference.by_path
    make = import_attribute(name, reference.source, "task") if by_path else resolve("prunas.tasks", name)
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
    if reference.by_path and not reference.source:
        present = replace(present, versions=versions_of("task", name))
    if reference.identity and present != reference:
        raise InputError(
            f"task {name!r} is not the one this run was planned with; undo its change, or repeat the command, "
            "which plans anew"
        )
    return task
