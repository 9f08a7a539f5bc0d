"""Tasks by name: bundled, of another package, or functions of a user's file or module. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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

__all__ = [
    "CLASSIFICATION",
    "TaskReference",
    "find_task",
    "load_task",
    "make_task",
    "with_loss",
    "with_score",
]

_MEMBERS = (
    *(
        "name",
        "identity",
        "score",
        "inputs",
        "statistics",
        "scores_training",
        "loss_of_outputs",
        "chance",
        "notes",
    ),
    *("members", "feed", "calibration", "size", "loss", "totals", "result", "unfit", "unusable", "example"),
)


@dataclass(frozen=True, slots=True)
class TaskReference(Reference):
    """What any process finds a task by, and the functions of a user's that replace something of it.

    Attributes:
        loss: A function that replaces the task's loss.
        score: A function that replaces the task's score.
        described: What the score means, as far as a user says so; see `prunas.tasks.score.described`.
    """

    loss: Reference | None = None
    score: Reference | None = None
    described: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def adapted(self) -> bool:
        """Whether a function or a description of a user's replaces something of the task."""
        return self.loss is not None or self.score is not None or bool(self.described)

    @property
    def implied(self) -> bool:
        """Whether a run says nothing of its task: it is `classification` as it comes, named by its data alone."""
        return self.name == CLASSIFICATION.name and not self.adapted

    def to_json(self) -> dict[str, Any]:
        """All fields that say something, as JSON values."""
        document = Reference.to_json(self)  # a class with slots has no `super` of its own
        document |= {} if self.loss is None else {"loss": self.loss.to_json()}
        document |= {} if self.score is None else {"score": self.score.to_json()}
        return document | ({"described": dict(self.described)} if self.described else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TaskReference":
        """The reference that `to_json` wrote."""
        functions = {key: Reference.from_json(document[key]) for key in ("loss", "score") if key in document}
        return cls(**{**document, "versions": tuple(document.get("versions", ())), **functions})


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
    reference = find("task", task, folder)
    return TaskReference(reference.name, source=reference.source, versions=reference.versions)


def with_loss(reference: TaskReference, loss: str | Callable[..., Any], folder: Path) -> TaskReference:
    """The same task with another loss.

    Args:
        reference: From `find_task`.
        loss: A function of (outputs, targets) that returns a scalar tensor, named or given as tasks are; "" leaves
            the task's own.
        folder: Where a file is looked for.

    Raises:
        InputError: As `find_task`.
    """
    return replace(reference, loss=_function(loss, folder, "loss") if loss else None)


def with_score(
    reference: TaskReference, score: str | Callable[..., Any] | Mapping[str, Any], folder: Path
) -> TaskReference:
    """The same task with another score.

    Args:
        reference: From `find_task`.
        score: A function as of `prunas.tasks.score.scored`, named or given as tasks are; "" leaves the task's own.
            Or a mapping, with the function, if any, as `function`, and what `prunas.tasks.score.described` takes.
        folder: Where a file is looked for.

    Raises:
        InputError: As `find_task`.
    """
    table = dict(score) if isinstance(score, Mapping) else {"function": score}
    function = table.pop("function", "")
    return replace(
        reference, score=_function(function, folder, "score") if function else None, described=table
    )


def _function(function: str | Callable[..., Any], folder: Path, what: str) -> Reference:
    """The reference of a function, nothing imported: by its path, or of a file in `folder`."""
    reference = find(what, function, folder)
    if not reference.by_path:
        raise InputError(
            f"{what} {function!r} names no function; write file.py:function or package.module:function"
        )
    return reference


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
    if reference.adapted:
        task = _adapted(task, reference)
    return cast(Task, task), replace(reference, identity=task.identity)


def _adapted(task: Task, reference: TaskReference) -> Task:
    """The task with the loss and the score of a reference."""
    from prunas.tasks.adapted import adapted

    document = reference.to_json()
    return adapted(
        task,
        _imported(reference.loss, "loss"),
        _imported(reference.score, "score"),
        reference.described,
        {key: value for key, value in document.items() if key in ("loss", "score", "described")},
    )


def _imported(reference: Reference | None, what: str) -> Callable[..., Any] | None:
    if reference is None:
        return None
    function = import_attribute(reference.name, reference.source, what)
    if not callable(function):
        raise InputError(f"{what} {reference.name!r} is not a function, but a {type(function).__name__}")
    return cast(Callable[..., Any], function)


def _present(function: Reference | None, what: str) -> Reference | None:
    """The same function as it is now: the source of a file travels, a module may be another by now."""
    if function is None or function.source:
        return function
    return replace(function, versions=versions_of(what, function.name))


def _wrong(task: Any) -> str:
    """What keeps a value from being a `Task`; "" if nothing does."""
    for member in _MEMBERS:
        if not (hasattr(type(task), member) or hasattr(task, member)):
            return f"a {type(task).__name__} is no task: it has no {member}"
    if task.statistics is None and task.scores_training:
        return (
            "its statistics is None, so that training batches cannot be judged: set scores_training = False"
        )
    kinds: dict[str, type] = {"name": str, "score": Score, "identity": str, "inputs": Inputs}
    if task.statistics is not None:
        kinds["statistics"] = int
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
    present = replace(
        present, loss=_present(reference.loss, "loss"), score=_present(reference.score, "score")
    )
    if reference.identity and present != reference:
        raise InputError(
            f"task {name!r} is not the one this run was planned with; undo its change, or repeat the command, "
            "which plans anew"
        )
    return task
