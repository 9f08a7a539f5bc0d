"""Tasks by name: bundled, of another package, or functions of a user's file or module. Torch-free."""

import importlib.metadata
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prunas.errors import InputError
from prunas.plugins import foreign_code, resolve
from prunas.spaces.factory import distribution_versions, import_attribute, import_path
from prunas.tasks.base import Inputs, Task
from prunas.tasks.score import Score

if TYPE_CHECKING:
    from prunas.data.dataset import DataSet

__all__ = [
    "CLASSIFICATION",
    "Code",
    "TaskReference",
    "find_task",
    "load_task",
    "make_task",
    "with_loss",
    "with_score",
]

TASK_PATH = re.compile(r"[\w./-]+:\w+")
"""How a function that makes a task is named: package.module:function, or file.py:function."""

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
class Code:
    """A function of a user's, as any process finds it.

    Attributes:
        name: "package.module:function", or "file.py:function".
        source: Text of the file, or "".
        versions: What a module that is imported comes from.
    """

    name: str
    source: str = ""
    versions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields that say something, as JSON values."""
        document: dict[str, Any] = {"name": self.name}
        if self.source:
            document["source"] = self.source
        if self.versions:
            document["versions"] = list(self.versions)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Code":
        """The reference that `to_json` wrote."""
        return cls(**{**document, "versions": tuple(document.get("versions", ()))})


@dataclass(frozen=True, slots=True)
class TaskReference:
    """What any process finds a task by, whatever becomes of the file.

    Attributes:
        name: Registered name, "package.module:function", or "file.py:function".
        identity: That of the task, once it was made.
        source: Text of the file, or "".
        versions: What a module that is imported comes from.
        loss: A function that replaces the task's loss.
        score: A function that replaces the task's score.
        described: What the score means, as far as a user says so; see `prunas.tasks.score.described`.
    """

    name: str
    identity: str = ""
    source: str = ""
    versions: tuple[str, ...] = ()
    loss: Code | None = None
    score: Code | None = None
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
        code = Code(self.name, self.source, self.versions).to_json()
        document: dict[str, Any] = {"name": code.pop("name"), "identity": self.identity, **code}
        document |= {} if self.loss is None else {"loss": self.loss.to_json()}
        document |= {} if self.score is None else {"score": self.score.to_json()}
        return document | ({"described": dict(self.described)} if self.described else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TaskReference":
        """The reference that `to_json` wrote."""
        functions = {key: Code.from_json(document[key]) for key in ("loss", "score") if key in document}
        return cls(**{**document, "versions": tuple(document.get("versions", ())), **functions})


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
    if isinstance(task, str) and not TASK_PATH.fullmatch(task):
        return TaskReference(task)
    code = _code(task, folder, "task")
    return TaskReference(code.name, source=code.source, versions=code.versions)


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
    return replace(reference, loss=_code(loss, folder, "loss") if loss else None)


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
    return replace(reference, score=_code(function, folder, "score") if function else None, described=table)


def _code(function: str | Callable[..., Any], folder: Path, what: str) -> Code:
    """The reference of a function, nothing imported: by its path, or of a file in `folder`."""
    if not isinstance(function, str):
        return _of_function(function, what)
    if not TASK_PATH.fullmatch(function):
        raise InputError(
            f"{what} {function!r} names no function; write file.py:function or package.module:function"
        )
    place, _, attribute = function.partition(":")
    if not place.endswith(".py"):
        return Code(function, versions=_versions(function, what))
    try:
        source = (folder / place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{what} {function!r}: cannot read {folder / place}: {why}") from error
    return Code(f"{Path(place).name}:{attribute}", source)  # where it lies does not matter


def _of_function(function: Callable[..., Any], what: str) -> Code:
    name = import_path(function)
    try:
        importable = not name.startswith("__main__") and pkgutil.resolve_name(name) is function
    except (ImportError, AttributeError, ValueError):
        importable = False
    if not importable:
        raise InputError(
            f"{what} {name!r} cannot be imported by the processes that train; give a function of a module, or "
            f'name one of a file, as in {what}="mine.py:{what}"'
        )
    return Code(name, versions=_versions(name, what))


def _versions(name: str, what: str) -> tuple[str, ...]:
    try:
        return tuple(distribution_versions(name.partition(":")[0]))
    except (ImportError, ValueError, importlib.metadata.PackageNotFoundError) as error:
        raise InputError(f"{what} {name!r} cannot be imported: {type(error).__name__}: {error}") from error


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
    if reference.adapted:
        task = _adapted(task, reference)
    return cast(Task, task), replace(reference, identity=task.identity)


def _adapted(task: Task, reference: TaskReference) -> Task:
    """The task with the loss and the score of a reference."""
    from prunas.tasks.adapted import adapted

    document = reference.to_json()
    return adapted(
        task,
        _function(reference.loss, "loss"),
        _function(reference.score, "score"),
        reference.described,
        {key: value for key, value in document.items() if key in ("loss", "score", "described")},
    )


def _function(code: Code | None, what: str) -> Callable[..., Any] | None:
    if code is None:
        return None
    function = import_attribute(code.name, code.source, what)
    if not callable(function):
        raise InputError(f"{what} {code.name!r} is not a function, but a {type(function).__name__}")
    return cast(Callable[..., Any], function)


def _present(code: Code | None, what: str) -> Code | None:
    """The same function as it is now: the source of a file travels, a module may be another by now."""
    return code if code is None or code.source else replace(code, versions=_versions(code.name, what))


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
    if TASK_PATH.fullmatch(name) and not reference.source:
        present = replace(present, versions=_versions(name, "task"))
    present = replace(
        present, loss=_present(reference.loss, "loss"), score=_present(reference.score, "score")
    )
    if reference.identity and present != reference:
        raise InputError(
            f"task {name!r} is not the one this run was planned with; undo its change, or repeat the command, "
            "which plans anew"
        )
    return task
