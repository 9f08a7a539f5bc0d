"""Data sets of Hugging Face's format, from disk: nothing is fetched from the hub."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunas.data.dataset import DataSet
from prunas.data.make import datasets
from prunas.data.pictures import Preparation
from prunas.errors import InputError, unknown
from prunas.files import cache_folder

__all__ = ["hugging_face"]

FILES = {".parquet": "from_parquet", ".arrow": "from_file", ".csv": "from_csv", ".json": "from_json"}
"""How a single file is read, by its suffix."""

VALIDATION = ("validation", "val", "valid", "dev")
"""What the validation split is called, unless the user says so."""


def hugging_face(
    source: Any,
    image: str | Sequence[str] = "image",
    label: str | Sequence[str] = "label",
    *,
    name: str = "",
    version: str = "",
    train: str = "train",
    val: str = "",
    test: str = "test",
    size: int | None = None,
    resize: int | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augment: str | None = None,
    split_seed: int = 0,
    workers: int | None = None,
) -> DataSet:
    """A data set of columns; needs the package `datasets`.

    Args:
        source: A folder that `save_to_disk` wrote, a file (parquet, arrow, csv, json), or a `Dataset` or
            `DatasetDict`.
        image: Column of the inputs: images, or arrays of one shape; or several columns of numbers.
        label: Column of the targets, or several columns of numbers.
        name: What tables call it; the name of the folder or file by default.
        version: As of `prunas.data.make.datasets`.
        train: Name of the split that is trained on.
        val: Of validation; `validation`, `val`, `valid` or `dev` by default, if there is one.
        test: Of the test, if there is one.
        size: Height and width of an input. Without this and the five that follow, images are taken as they are.
        resize: And the others, as of `prunas.data.pictures.Preparation`.
        channels: 3, or 1 for grey.
        mean: Per channel.
        std: Per channel.
        augment: Random transforms of training.
        split_seed: As of `prunas.data.make.datasets`.
        workers: As of `prunas.data.make.datasets`.

    Raises:
        InputError: The package, the files, a split or a column is not there, or a sample cannot be trained on.
    """
    splits, name = _splits(source, train, name)
    own = name or "own"
    named = {
        "train": train,
        "val": val or next((key for key in VALIDATION if key in splits), ""),
        "test": test,
    }
    given = {key: splits[split] for key, split in named.items() if split in splits}
    for split in (train, val):
        if split and split not in splits:
            raise unknown(f"split of data set {own!r}", split, splits)
    _check_columns(own, given.values(), (*_several(image), *_several(label)))
    options = {
        "size": size,
        "resize": resize,
        "channels": channels,
        "mean": mean,
        "std": std,
        "augment": augment,
    }
    if all(value is None for value in options.values()):
        plain: dict[str, Any] = {key: _Columns(part, image, label) for key, part in given.items()}
        return datasets(**plain, name=own, version=version, split_seed=split_seed, workers=workers)
    how = Preparation.of(**options)
    plain = {key: _Columns(part, image, label, how.plain) for key, part in given.items()}
    augmented = None if how.augment == "none" else _Columns(given["train"], image, label, how.augmented)
    return datasets(
        **(plain if augmented is None else {**plain, "train": augmented}),
        plain=None if augmented is None else plain["train"],
        name=own,
        version=version,
        mean=how.scale[0],
        std=how.scale[1],
        split_seed=split_seed,
        workers=workers,
    )


def _check_columns(name: str, parts: Iterable[Any], columns: Sequence[str]) -> None:
    """Refuses columns that are not there."""
    for part in parts:
        for column in columns:
            if column not in part.column_names:
                raise unknown(f"column of data set {name!r}", column, part.column_names)


def _splits(source: Any, train: str, name: str) -> tuple[Mapping[str, Any], str]:
    """The splits there are, and the name of the data set."""
    try:
        import datasets as package
    except ImportError as error:
        raise InputError(
            "a Hugging Face data set needs the package datasets; pip install 'prunas[datasets]'"
        ) from error
    if not isinstance(source, str | Path):
        return (source if isinstance(source, Mapping) else {train: source}), name
    path = Path(source).expanduser()
    name = name or path.stem
    if not path.exists():
        raise InputError(
            f"data set {name!r}: there is no {path}; give a folder that save_to_disk wrote, or a file"
        )
    if path.is_file() and path.suffix not in FILES:
        raise InputError(f"data set {name!r}: {path} is none of the files that are read, {', '.join(FILES)}")
    try:
        if path.is_dir():
            read = package.load_from_disk(str(path))
        elif path.suffix == ".arrow":
            read = package.Dataset.from_file(str(path))
        else:
            cache = str(cache_folder() / "hugging-face")
            read = getattr(package.Dataset, FILES[path.suffix])(str(path), cache_dir=cache)
    except Exception as error:  # the package raises what it likes about files that are none of its own
        why = " ".join(str(error).split())
        raise InputError(f"data set {name!r}: {path} cannot be read: {why}") from error
    return (read if isinstance(read, Mapping) else {train: read}), name


def _several(columns: str | Sequence[str]) -> Sequence[str]:
    return [columns] if isinstance(columns, str) else columns


class _Columns:
    """Two columns as a map-style Dataset of pairs."""

    def __init__(
        self,
        rows: Any,
        image: str | Sequence[str],
        label: str | Sequence[str],
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        self._rows, self._image, self._label, self._prepare = rows, image, label, prepare

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self._rows[index]
        x, y = (_value(row, columns) for columns in (self._image, self._label))
        if self._prepare is not None:
            x = self._prepare(x)
        return np.asarray(x, np.float32) if isinstance(x, list) else x, y


def _value(row: Mapping[str, Any], columns: str | Sequence[str]) -> Any:
    return row[columns] if isinstance(columns, str) else [float(row[column]) for column in columns]
