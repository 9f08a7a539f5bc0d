"""Images in class folders, streamed: too many to stay on the device."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader

from prunas.data.dataset import Batch, DataSet, Draw, Indices, stratified, stream_seed
from prunas.errors import InputError
from prunas.files import digest

__all__ = ["Folder", "load_folder"]

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
        image = default_loader(self.files[k])
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


@functools.cache
def load_folder(root: Path, split_seed: int) -> Folder:
    """Class folders under `root`/train and `root`/val, prepared as ImageNet is.

    Training images are cropped to a random part, resized to 224x224 and mirrored at random; others are
    resized to 256 on the short side and cropped to the middle 224x224. `root`/val is the test split; the
    validation split is a tenth of `root`/train, evenly over the classes.

    The identity covers names and sizes of the files, not their content: reading ImageNet takes too long.

    Raises:
        InputError: A folder is missing or empty, or the two do not hold the same classes.
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
    files = [file for file, _ in [*train.samples, *test.samples]]
    labels = np.array([*train.targets, *test.targets], dtype=np.int64)
    n = len(train)
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
        # A worker takes longer to start than to decode a few hundred images.
        workers=min(8, os.cpu_count() or 1, len(files) // 1000),
    )
