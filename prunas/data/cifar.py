"""CIFAR-10 and CIFAR-100, read by torchvision once every checksum is right."""

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from prunas.data.dataset import stratified
from prunas.data.resident import Resident, resident
from prunas.errors import InputError

__all__ = ["cifar10", "cifar100", "load_cifar"]


class _Restored(CIFAR100):  # type: ignore[misc]  # torchvision is not typed
    """CIFAR-100 restored from its images, with the checksums of the restored files."""

    train_list = (("train", "996a95375358b9a9502103a334e63867"),)
    test_list = (("test", "8ff34ef6a7d397116c2d6ad2dccafc6e"),)


RESTORED = "restored CIFAR-100: 123 images (100 train, 23 test) may stand at another index of their own class"

# Those that may stand in for each name, the official files first.
_READERS: Mapping[str, tuple[type[CIFAR10], ...]] = MappingProxyType(
    {"cifar10": (CIFAR10,), "cifar100": (CIFAR100, _Restored)}
)


def cifar10(root: Path, download: bool, split_seed: int) -> Resident:
    """The data set `cifar10`; see `prunas.data.load`."""
    return load_cifar("cifar10", root, download, split_seed)


def cifar100(root: Path, download: bool, split_seed: int) -> Resident:
    """The data set `cifar100`; see `prunas.data.load`."""
    return load_cifar("cifar100", root, download, split_seed)


def load_cifar(name: str, root: Path, download: bool, split_seed: int) -> Resident:
    """`cifar10` or `cifar100`; a tenth of the training images, class by class, is the validation split.

    Augmented as in the study: four black pixels on each side, a random 32x32 crop, a random mirror.

    Raises:
        InputError: The files under `root` are missing or damaged, or cannot be downloaded.
    """
    try:
        return _load(name, root, split_seed)
    except InputError:
        if not download:
            raise
    try:
        _READERS[name][0](root, download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"cannot download {name} into {root} ({error}); give a folder that has it with --data DIR"
        ) from error
    return _load(name, root, split_seed)


@functools.cache
def _load(name: str, root: Path, split_seed: int) -> Resident:
    for reader in _READERS[name]:
        try:  # torchvision compares every checksum before it unpickles anything
            train, test = reader(root, train=True), reader(root, train=False)
            break
        except RuntimeError:
            continue
    else:
        raise _broken(name, root)
    pixels = np.concatenate([train.data, test.data])
    labels = np.array([*train.targets, *test.targets], dtype=np.int64)
    n = len(train)
    order = stratified(labels[:n], split_seed)
    return resident(
        name,
        pixels,
        labels,
        {
            "train": np.sort(order[n // 10 :]),
            "val": np.sort(order[: n // 10]),
            "test": np.arange(n, len(labels)),
        },
        peak=255,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        pad=4,
        flip=True,
        notes=(RESTORED,) if reader is _Restored else (),
    )


def _broken(name: str, root: Path) -> InputError:
    """Says whether the data set is missing or damaged, and what to do."""
    sums: dict[Path, set[str]] = {}
    for reader in _READERS[name]:
        meta = (reader.meta["filename"], reader.meta["md5"])
        for file, md5 in (*reader.train_list, *reader.test_list, meta):
            sums.setdefault(root / reader.base_folder / file, set()).add(md5)
    missing = [path for path in sums if not path.is_file()]
    give = "give its folder with --data DIR or PRUNAS_DATA, or fetch it with --download"
    if len(missing) == len(sums):
        return InputError(f"{name} is not in {root}; {give}")
    if missing:
        return InputError(f"{name} is not complete, {missing[0]} is missing; {give}")
    damaged = [path for path, known in sums.items() if not any(check_integrity(path, md5) for md5 in known)]
    # Every file known and yet no reader content: files of two sources are mixed.
    return InputError(f"{(damaged or [*sums])[0]} is damaged (its md5 is wrong); delete it, then {give}")
