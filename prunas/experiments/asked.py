"""What callers give, as the values that experiments take: one or several, a name or an object, a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas.experiments.plan import make_setting
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.spaces.reference import PATH
from prunas.spaces.space import SearchSpace
from prunas.works.trainings import Setting

if TYPE_CHECKING:
    from prunas.surgery.given import GivenWeights

__all__ = ["Space", "setting_of", "several", "space_of", "store_of"]

Space = str | Path | SearchSpace
"""Name of a bundled space, the path of a TOML file, or a space."""


def several(given: Any) -> list[Any]:
    """One value or several, as a list."""
    return [given] if isinstance(given, (str, int, float)) else list(given)


def space_of(given: Space) -> SearchSpace:
    """The space that is given or named."""
    return given if isinstance(given, SearchSpace) else load_space(str(given))


def store_of(out: Path | str, notice: Callable[[str], object] | None) -> Store:
    """The store in a folder; `notice` is told what was repaired there, a warning by default."""
    return Store(Path(out)) if notice is None else Store(Path(out), notice=notice)


def _is_folder(data: Any) -> bool:
    """Whether data are a folder, not a data set: a function's path has a colon."""
    return isinstance(data, Path) or (isinstance(data, str) and not PATH.fullmatch(data))


def setting_of(
    space: Space,
    recipe: str | Mapping[str, Any] | None,
    data: Any,
    download: bool,
    dense_training: str = "scratch-e",
    weights: "GivenWeights | None" = None,
    task: str | Callable[..., Any] | None = None,
    loss: str | Callable[..., Any] | None = None,
    score: str | Callable[..., Any] | Mapping[str, Any] | None = None,
) -> Setting:
    """Space, task, recipe and data of an experiment; see `prunas.experiments.plan.make_setting`.

    Args:
        space: As `Space`.
        recipe: A recipe's name, or what differs from the space's own; `name` names another base.
        data: Folder of the data sets; or a data set, or what makes one.
        download: Whether a data set that is not there may be fetched.
        dense_training: How the dense network of pruning methods is trained.
        weights: Of that network.
        task: Instead of the space's own.
        loss: Instead of the task's own.
        score: Instead of the task's own.
    """
    changes = dict(recipe) if isinstance(recipe, Mapping) else {"name": recipe}
    name = changes.pop("name", None)
    return make_setting(
        space_of(space),
        recipe_name=name,
        changes=changes,
        root=Path(data) if _is_folder(data) else None,
        data=None if _is_folder(data) else data,
        download=download,
        dense_training=dense_training,
        weights=weights,
        task=task,
        loss=loss,
        score=score,
    )
