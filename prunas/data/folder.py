"""Images in class folders, streamed: too many to stay on the device."""

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder

from prunas.data import SKIP_DAMAGED
from prunas.data.pictures import Preparation
from prunas.data.samples import Form
from prunas.data.splitting import check_splits, split_up
from prunas.data.streamed import Part, Streamed, usual_workers
from prunas.errors import InputError
from prunas.files import cache_folder, digest, read_json, write_json

__all__ = ["Pictures", "folder", "load_folder"]

USUAL = Preparation()
"""As for ImageNet."""

MANY = 20_000
"""Images from which on a first look at all of them takes so long that it is announced."""


class Pictures:
    """Image files as a map-style Dataset."""

    def __init__(
        self, files: Sequence[str], labels: Sequence[int], prepare: Callable[[Image.Image], Tensor]
    ) -> None:
        self._files, self._labels, self._prepare = files, labels, prepare

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        try:
            with Image.open(self._files[k]) as image:
                return self._prepare(image), self._labels[k]
        except OSError as error:  # it could be read when the data set was loaded
            raise InputError(f"cannot be read: {self._files[k]}: {error}; put it back") from error


def folder(
    root: Path,
    download: bool,
    split_seed: int,
    size: int | None = None,
    resize: int | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augment: str | None = None,
    skip_damaged: bool | None = None,
) -> Streamed:
    """The data set `folder`; see `prunas.data.load`, and `Preparation` for its options.

    Args:
        root: The folder.
        download: Changes nothing.
        split_seed: Which images are the validation split.
        size: Height and width of an input.
        resize: Short side that the middle is cropped from.
        channels: 3, or 1 for grey.
        mean: Per channel.
        std: Per channel.
        augment: Random transforms of training.
        skip_damaged: Whether files that cannot be decoded are left out; PRUNAS_SKIP_DAMAGED by default.

    Raises:
        InputError: As `load_folder`; an option cannot be used.
    """
    try:
        how = Preparation.of(size=size, resize=resize, channels=channels, mean=mean, std=std, augment=augment)
    except InputError as error:
        raise InputError(f"data set 'folder': {error}") from error
    usual = os.environ.get(SKIP_DAMAGED, "0") not in ("", "0")
    return load_folder(root, split_seed, usual if skip_damaged is None else skip_damaged, how)


@functools.cache
def load_folder(
    root: Path, split_seed: int, skip_damaged: bool = False, how: Preparation = USUAL
) -> Streamed:
    """Class folders under `root`/train, and under `root`/val and `root`/test where there are such.

    With both, they are the validation and the test split. A single one of them is the test split, and a tenth of
    `root`/train, evenly over the classes, the validation split. `root`/train alone is divided into three, and a
    note says so.

    The identity covers names and sizes of the files and how images are prepared, not their content: reading
    ImageNet takes too long. Every file is decoded once, when it is first met, so that a damaged one is named
    before anything trains; that costs about as much as an epoch.

    Args:
        root: The folder.
        split_seed: Which images are the validation split, where none is given.
        skip_damaged: Whether files that cannot be decoded are left out and counted in `notes`.
        how: What is done to the images.

    Raises:
        InputError: A folder is missing or empty, they do not hold the same classes, or a file is damaged.
    """
    parts = _parts(root)
    classes = parts["train"].classes
    damaged = _damaged(root, [file for part in parts.values() for file, _ in part.samples])
    if damaged and not skip_damaged:
        (first, reason), total = next(iter(damaged.items())), sum(map(len, parts.values()))
        raise InputError(
            f"{len(damaged)} of {total} images in {root} cannot be read, such as {first} ({reason}); replace or "
            f"delete them, or set {SKIP_DAMAGED}=1 (or skip_damaged = true) to leave them out"
        )
    sound = {key: _whole(part, damaged, root) for key, part in parts.items()}
    labels = np.array([label for _, part in sound.values() for label in part], dtype=np.int64)
    files = [file for part, _ in sound.values() for file in part]
    sizes = {key: len(part) for key, (part, _) in sound.items()}
    held_out = [size for key, size in sizes.items() if key != "train"]
    given = (None, held_out[0]) if len(held_out) == 1 else (sizes.get("val"), sizes.get("test"))
    splits, notes = split_up("folder", (sizes["train"], *given), labels, split_seed)
    check_splits("folder", splits, labels, classes)
    if damaged:
        notes += (f"damaged images left out: {len(damaged)}, such as {next(iter(damaged))}",)
    listing = [[Path(file).relative_to(root).as_posix(), Path(file).stat().st_size] for file in files]
    mean, std = how.scale
    return Streamed(
        name="folder",
        shape=how.shape,
        classes=len(classes),
        labels=labels,
        splits=splits,
        # A folder that is prepared as usual is called as it was before there were options.
        identity=digest(["folder", listing, split_seed, *([how.changes] if how.changes else [])]),
        notes=notes,
        parts=tuple(
            Part(
                key,
                Pictures(*part, how.plain),
                Pictures(*part, how.augmented) if how.augment != "none" else None,
            )
            for key, part in sound.items()
        ),
        inputs=Form(how.shape, "uint8"),
        mean=mean,
        std=std,
        workers=usual_workers(len(files)),
    )


def _parts(root: Path) -> dict[str, ImageFolder]:
    """The class folders of each split that is given.

    Raises:
        InputError: One is missing or empty, or they do not hold the same classes.
    """
    give = (
        "give a folder that holds train/CLASS/, and val/CLASS/ or test/CLASS/, with --data DIR or PRUNAS_DATA"
    )
    if not (root / "train").is_dir():
        raise InputError(f"there is no folder {root / 'train'}; {give}")
    try:
        parts = {key: ImageFolder(root / key) for key in ("train", "val", "test") if (root / key).is_dir()}
    except FileNotFoundError as error:
        raise InputError(f"{str(error).splitlines()[0].rstrip('.')}; {give}") from error
    train = parts["train"]
    for key, part in parts.items():
        if part.classes != train.classes:
            odd = sorted(set(train.classes) ^ set(part.classes))[0]
            raise InputError(f"class {odd!r} is in only one of {root / 'train'} and {root / key}; {give}")
    return parts


def _whole(part: ImageFolder, damaged: Mapping[str, str], root: Path) -> tuple[list[str], list[int]]:
    """Files and labels of a part that can be decoded.

    Raises:
        InputError: A class has none.
    """
    samples = [(file, label) for file, label in part.samples if _name(file, root) not in damaged]
    present = {label for _, label in samples}
    for label, name in enumerate(part.classes):
        if label not in present:
            raise InputError(f"no image of class {name!r} in {part.root} can be read; replace them")
    return [file for file, _ in samples], [label for _, label in samples]


def _name(file: str, root: Path) -> str:
    return Path(file).relative_to(root).as_posix()


def _damaged(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Why files cannot be decoded, by name below `root`; looked at once, while neither size nor time changes."""
    facts = [(_name(file, root), Path(file).stat()) for file in files]
    key = digest([str(root.absolute()), [[name, at.st_size, at.st_mtime_ns] for name, at in facts]], 24)
    path = cache_folder() / "images" / f"{key}.json"
    with suppress(InputError):  # not looked at yet
        return dict(read_json(path))
    if len(files) >= MANY:
        print(f"looking once at all {len(files):,} images in {root}", file=sys.stderr)

    def look(some: Sequence[str]) -> list[str]:
        return [_defect(file) for file in some]

    blocks = [files[start : start + 256] for start in range(0, len(files), 256)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        defects = [defect for block in pool.map(look, blocks) for defect in block]
    found = {_name(file, root): defect for file, defect in zip(files, defects, strict=True) if defect}
    with suppress(InputError):  # a cache that cannot be written only costs time
        write_json(path, found)
    return found


def _defect(file: str) -> str:
    """Why an image file cannot be decoded; empty if it can."""
    try:
        with Image.open(file) as image:
            image.draft("RGB", (32, 32))  # a JPEG is read to its end, and transformed in part
            image.convert("RGB")
    except Exception as error:  # PIL raises what it likes about damaged files
        return str(error).partition(" '/")[0] or type(error).__name__
    return ""
