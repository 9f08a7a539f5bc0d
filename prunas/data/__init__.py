"""Data sets by name. Importing this costs no torch; the loaders are imported when one is asked for.

Other packages add theirs by entry points of the group `prunas.data`: functions that are called as the bundled ones
of `prunas.names`, with the folder, whether to download, and the seed of the validation split.
"""

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import platformdirs

from prunas.errors import InputError, unknown
from prunas.plugins import foreign_code, resolve

if TYPE_CHECKING:
    from prunas.data.columns import hugging_face
    from prunas.data.dataset import DataSet
    from prunas.data.make import arrays, datasets

__all__ = ["DATASETS", "SKIP_DAMAGED", "Known", "arrays", "data_folder", "datasets", "hugging_face", "load"]

SKIP_DAMAGED = "PRUNAS_SKIP_DAMAGED"
"""Environment variable: 1 leaves image files out that cannot be decoded, instead of refusing them."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a data set before it is loaded.

    Attributes:
        name: The word a user types.
        shape: Channels, height and width of an image as the network sees it.
        classes: Number of classes; None where only the files know.
        about: One line.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int | None
    about: str


DATASETS: Mapping[str, Known] = MappingProxyType(
    {
        known.name: known
        for known in (
            Known("digits", (1, 8, 8), 10, "1,797 handwritten digits that come with scikit-learn"),
            Known("cifar10", (3, 32, 32), 10, "60,000 small photographs of 10 kinds of things"),
            Known("cifar100", (3, 32, 32), 100, "60,000 small photographs of 100 kinds of things"),
            Known(
                "folder",
                (3, 224, 224),
                None,
                "images in DIR/train/CLASS/, and in DIR/val and DIR/test if there are such",
            ),
        )
    }
)


def data_folder(root: Path | None = None) -> Path:
    """Where data sets lie: `root`, else the environment's PRUNAS_DATA, else the user's data folder."""
    named = root or os.environ.get("PRUNAS_DATA")
    return Path(named).expanduser() if named else platformdirs.user_data_path("prunas") / "datasets"


def load(
    name: str, root: Path | None = None, download: bool = False, split_seed: int = 0, **options: Any
) -> "DataSet":
    """The data set called `name`; asked again with the same answer, the same object.

    Args:
        name: A key of `DATASETS`, one that an installed package offers, or the name of a live data set.
        root: Folder that holds the files, see `data_folder`. `digits` needs none.
        download: Whether a data set that is not there may be fetched into that folder.
        split_seed: Which images are the validation split. The test split does not depend on it.
        options: Settings of its own, such as the size of images in a `folder`.

    Raises:
        InputError: There is no such data set or option, or its files are missing or damaged.
    """
    loader = resolve("prunas.data", name)
    if options:
        _check_options(name, loader, options)
    with foreign_code(f"data set {name!r}"):
        data = loader(data_folder(root), download, split_seed, **options)
    if getattr(data, "name", None) != name:
        raise InputError(
            f"data set {name!r} is called {getattr(data, 'name', None)!r} by its loader; rename either"
        )
    return cast("DataSet", data)


def _check_options(name: str, loader: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuses options that a data set does not have."""
    known = [*inspect.signature(loader).parameters][3:]  # after what every loader is called with
    for option in options:
        if option not in known:
            raise unknown(f"option of data set {name!r}", option, known)


_MADE = {
    "arrays": "prunas.data.make",
    "datasets": "prunas.data.make",
    "hugging_face": "prunas.data.columns",
}
"""Where what makes a user's own data set stands; importing it costs torch."""


def __getattr__(name: str) -> Any:
    if name in _MADE:
        return getattr(importlib.import_module(_MADE[name]), name)
    raise AttributeError(f"module 'prunas.data' has no attribute {name!r}")
