"""Data sets by name. Importing this costs no torch; the loaders are imported when one is asked for.

Other packages add theirs by entry points of the group `prunas.data`: functions that are called as the bundled ones
of `prunas.names`, with the folder, whether to download, and the seed of the validation split.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import platformdirs

from prunas.errors import InputError
from prunas.plugins import foreign_code, resolve

if TYPE_CHECKING:
    from prunas.data.dataset import DataSet
    from prunas.data.make import arrays, datasets

__all__ = ["DATASETS", "SKIP_DAMAGED", "Known", "arrays", "data_folder", "datasets", "load"]

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
                "folder", (3, 224, 224), None, "images in DIR/train/CLASS/ and DIR/val/CLASS/, as ImageNet"
            ),
        )
    }
)


def data_folder(root: Path | None = None) -> Path:
    """Where data sets lie: `root`, else the environment's PRUNAS_DATA, else the user's data folder."""
    named = root or os.environ.get("PRUNAS_DATA")
    return Path(named).expanduser() if named else platformdirs.user_data_path("prunas") / "datasets"


def load(name: str, root: Path | None = None, download: bool = False, split_seed: int = 0) -> "DataSet":
    """The data set called `name`; asked again with the same answer, the same object.

    Args:
        name: A key of `DATASETS`, or one that an installed package offers.
        root: Folder that holds the files, see `data_folder`. `digits` needs none.
        download: Whether a data set that is not there may be fetched into that folder.
        split_seed: Which images are the validation split. The test split does not depend on it.

    Raises:
        InputError: There is no such data set, or its files are missing or damaged.
    """
    loader = resolve("prunas.data", name)
    with foreign_code(f"data set {name!r}"):
        data = loader(data_folder(root), download, split_seed)
    if getattr(data, "name", None) != name:
        raise InputError(
            f"data set {name!r} is called {getattr(data, 'name', None)!r} by its loader; rename either"
        )
    return cast("DataSet", data)


_MADE = {
    "arrays": "prunas.data.make",
    "datasets": "prunas.data.make",
}
"""Where what makes a user's own data set stands; importing it costs torch."""


def __getattr__(name: str) -> Any:
    if name in _MADE:
        return getattr(importlib.import_module(_MADE[name]), name)
    raise AttributeError(f"module 'prunas.data' has no attribute {name!r}")
