"""Splits: those that were given, and by seed those that were not.

What nobody gave is taken, evenly over the classes, from where it costs least: validation samples from training
ones, and test samples from what was held out already. The test split never depends on the seed.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from prunas.data.dataset import Indices, Split, stratified
from prunas.errors import InputError

__all__ = ["check_splits", "only_class", "split_up"]

TEST_SEED = 0
"""Of a test split that is made: the same whatever the validation split is."""


def split_up(
    name: str, sizes: tuple[int, int | None, int | None], labels: Indices, seed: int
) -> tuple[dict[Split, Indices], tuple[str, ...]]:
    """Positions of each split, and what a reader of results should know of how they were made.

    Without validation samples a tenth of the training samples are; without test samples, half of the validation
    samples are, or, where none of both were given, a fifth of the training samples.

    Args:
        name: Of the data set, for messages.
        sizes: Samples given for train, val and test; None where a split is not given. They follow each other.
        labels: Class of every sample.
        seed: Which samples become the validation split.

    Raises:
        InputError: A split is empty, or too small to be divided.
    """
    for part, size in zip(("train", "val", "test"), sizes, strict=True):
        if size == 0:
            raise InputError(
                f"data set {name!r}: its {part} split is empty; give it samples, or leave it out"
            )
    n, held, tested = sizes
    train = np.arange(n)
    val = None if held is None else np.arange(n, n + held)
    test = None if tested is None else np.arange(len(labels) - tested, len(labels))
    notes: tuple[str, ...] = ()
    if test is None:
        if val is not None:
            test, val = _divided(name, val, 2, labels, TEST_SEED)
            notes = (
                "no test split was given: half of the validation split, by a fixed seed, is the test split",
            )
        else:
            test, train = _divided(name, train, 5, labels, TEST_SEED)
            notes = ("no test split was given: a fifth of the samples, by a fixed seed, is the test split",)
    if val is None:
        val, train = _divided(name, train, 10, labels, seed)
    return {
        "train": train,
        "val": val,
        "train+val": np.sort(np.concatenate([train, val])),
        "test": test,
    }, notes


def _divided(name: str, members: Indices, into: int, labels: Indices, seed: int) -> tuple[Indices, Indices]:
    """One part of `into` of some samples, at least one, and the others; both ascending."""
    if len(members) < 2:
        raise InputError(
            f"data set {name!r}: one sample cannot be divided into two splits; give more samples, or all splits"
        )
    order = members[stratified(labels[members], seed)]
    first = max(1, len(members) // into)
    return np.sort(order[:first]), np.sort(order[first:])


def only_class(labels: Indices) -> int | None:
    """The one class of several samples, among which nothing can be told apart; None if there are more classes."""
    if len(labels) < 2 or (labels != labels[0]).any():
        return None
    return int(labels[0])


def check_splits(
    name: str, splits: Mapping[Split, Indices], labels: Indices, classes: Sequence[str] = ()
) -> None:
    """Refuses splits from which no class can be told from another.

    Args:
        name: Of the data set.
        splits: Positions of each split.
        labels: Class id of every sample.
        classes: Their names, if they have any.

    Raises:
        InputError: A split is empty, or all of its samples, of which there are several, are of one class.
    """
    for split, members in splits.items():
        if not len(members):
            raise InputError(f"data set {name!r}: its split {split!r} is empty; give it samples")
        if (only := only_class(labels[members])) is not None:
            called = classes[only] if classes else only
            raise InputError(
                f"data set {name!r}: all {len(members)} samples of its split {split!r} are of class {called!r}; "
                "give it samples of others"
            )
