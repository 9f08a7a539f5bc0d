"""The 8x8 handwritten digits that come with scikit-learn: real images without a download."""

import functools
from pathlib import Path

import numpy as np
import sklearn.datasets

from prunas.data.dataset import stratified
from prunas.data.resident import Resident, resident

__all__ = ["digits", "load_digits"]


def digits(root: Path, download: bool, split_seed: int) -> Resident:
    """The data set `digits`, which needs no files; see `prunas.data.load`."""
    return load_digits(split_seed)


@functools.cache
def load_digits(split_seed: int = 0) -> Resident:
    """60 % training, 15 % validation, 25 % test, each with all classes in proportion.

    Crops of images padded by one pixel, never mirrored: a mirrored 2 is no digit.

    Args:
        split_seed: Which images are the validation split; the test split is always the same.
    """
    bunch = sklearn.datasets.load_digits()
    pixels = bunch.images.astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    order = stratified(labels, 0)
    n = len(labels)
    test, rest = order[: n // 4], np.sort(order[n // 4 :])
    chosen = stratified(labels[rest], split_seed)
    val, train = rest[chosen[: n * 15 // 100]], rest[chosen[n * 15 // 100 :]]
    seen = pixels[train] / 16
    return resident(
        "digits",
        pixels,
        labels,
        {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)},
        peak=16,
        # Rounded, so that the identity does not hang on the order of a sum.
        mean=(round(float(seen.mean()), 4),),
        std=(round(float(seen.std()), 4),),
        pad=1,
        flip=False,
    )
