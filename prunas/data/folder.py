"""Images in class folders, streamed: too many to stay on the device."""

import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader

from prunas.data import SKIP_DAMAGED
from prunas.data.dataset import Batch, DataSet, Draw, Indices, stratified, stream_seed
from prunas.errors import InputError
from prunas.files import cache_folder, digest, read_json, write_json

__all__ = ["Folder", "folder", "load_folder"]

MANY = 20_000
"""Images from which on a first look at all of them takes so long that it is announced."""

_NORMALISE = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TRAIN = transforms.Compose(
    [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        _NORMALISE,
    ]
)
_TEST = transforms.Compose(
    [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), _NORMALISE]
)


@dataclass(frozen=True, slots=True)
class _Plan(Dataset[tuple[Tensor, int]]):
    """One epoch: item k is the k-th image of the plan, augmented by a seed of its own (-1: not augmented).

    With a seed per image, the stream depends neither on the number of workers nor on where an epoch resumes.
    """

    files: list[str]
    labels: list[int]
    seeds: list[int]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        try:
            image = default_loader(self.files[k])
        except OSError as error:  # whole when the data set was loaded
            raise InputError(f"image {self.files[k]} cannot be read: {error}; put it back") from error
        if self.seeds[k] < 0:
            return _TEST(image), self.labels[k]
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(self.seeds[k])
            return _TRAIN(image), self.labels[k]


@dataclass(frozen=True, slots=True)
class _FolderFeed:
    """See `Feed`. A draw is the batch itself."""

    data: "Folder"
    members: Indices
    batch: int
    device: torch.device
    augment: bool
    layout: torch.memory_format

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        """Images and labels, decoded by the workers and moved to the device."""
        members, n = self.members, len(self.members)
        seeds = np.full(n, -1)
        if seed is not None:
            generator = torch.Generator().manual_seed(stream_seed("epoch", seed, epoch))
            members = members[torch.randperm(n, generator=generator).numpy()]
            if self.augment:
                seeds = torch.randint(2**62, (n,), generator=generator).numpy()
        on_gpu = self.device.type == "cuda"
        loader: DataLoader[Any] = DataLoader(
            _Plan([self.data.files[i] for i in members], self.data.labels[members].tolist(), seeds.tolist()),
            self.batch,
            sampler=range(start * self.batch, n),
            num_workers=self.data.workers,
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else the loader would draw from the training's own stream
        )
        for x, y in loader:
            moved = x.to(self.device, non_blocking=on_gpu, memory_format=self.layout)
            yield moved, y.to(self.device, non_blocking=on_gpu)

    def gather(self, draw: Draw) -> Batch:
        """The draw."""
        x, y = draw
        return x, y


@dataclass(frozen=True, eq=False, kw_only=True)
class Folder(DataSet):
    """Image files, decoded as they are needed.

    Attributes:
        files: Path of every image, all splits together.
        workers: Processes that decode; 0 decodes in this one. Changes no result.
    """

    files: list[str] = field(repr=False)
    workers: int

    def feed(
        self,
        members: Indices,
        batch: int,
        *,
        device: torch.device,
        augment: bool = False,
        channels_last: bool = False,
    ) -> _FolderFeed:
        """Batches of the images at `members`."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return _FolderFeed(self, members, batch, device, augment, layout)


def folder(root: Path, download: bool, split_seed: int) -> Folder:
    """The data set `folder`; see `prunas.data.load`."""
    skip = os.environ.get(SKIP_DAMAGED, "0") not in ("", "0")
    return load_folder(root, split_seed, skip)


@functools.cache
def load_folder(root: Path, split_seed: int, skip_damaged: bool = False) -> Folder:
    """Class folders under `root`/train and `root`/val, prepared as ImageNet is.

    Training images are cropped to a random part, resized to 224x224 and mirrored at random; others are
    resized to 256 on the short side and cropped to the middle 224x224. `root`/val is the test split; the
    validation split is a tenth of `root`/train, evenly over the classes.

    The identity covers names and sizes of the files, not their content: reading ImageNet takes too long. Every
    file is decoded once, when it is first met, so that a damaged one is named before anything trains; that costs
    about as much as an epoch.

    Args:
        root: The folder.
        split_seed: Which images are the validation split.
        skip_damaged: Whether files that cannot be decoded are left out and counted in `notes`.

    Raises:
        InputError: A folder is missing or empty, the two do not hold the same classes, or a file is damaged.
    """
    give = "give a folder that holds train/CLASS/ and val/CLASS/ with --data DIR or PRUNAS_DATA"
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise InputError(f"there is no folder {root / part}; {give}")
    try:
        train, test = ImageFolder(root / "train"), ImageFolder(root / "val")
    except FileNotFoundError as error:
        raise InputError(f"{str(error).splitlines()[0].rstrip('.')}; {give}") from error
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise InputError(f"class {odd!r} is in only one of {root / 'train'} and {root / 'val'}; {give}")
    damaged = _damaged(root, [file for file, _ in [*train.samples, *test.samples]])
    if damaged and not skip_damaged:
        (first, reason), total = next(iter(damaged.items())), len(train) + len(test)
        raise InputError(
            f"{len(damaged)} of {total} images in {root} cannot be read, such as {first} ({reason}); replace or "
            f"delete them, or set {SKIP_DAMAGED}=1 to leave them out"
        )
    (train_files, train_labels), (test_files, test_labels) = (
        _whole(part, damaged, root) for part in (train, test)
    )
    files, n = [*train_files, *test_files], len(train_files)
    labels = np.array([*train_labels, *test_labels], dtype=np.int64)
    order = stratified(labels[:n], split_seed)
    listing = [[Path(file).relative_to(root).as_posix(), Path(file).stat().st_size] for file in files]
    return Folder(
        name="folder",
        shape=(3, 224, 224),
        classes=len(train.classes),
        labels=labels,
        splits={
            "train": np.sort(order[n // 10 :]),
            "val": np.sort(order[: n // 10]),
            "train+val": np.arange(n),
            "test": np.arange(n, len(labels)),
        },
        identity=digest(["folder", listing, split_seed]),
        files=files,
        notes=(f"damaged images left out: {len(damaged)}, such as {next(iter(damaged))}",) if damaged else (),
        # A worker takes longer to start than to decode a few hundred images.
        workers=min(8, os.cpu_count() or 1, len(files) // 1000),
    )


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
