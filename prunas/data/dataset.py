"""What every data set offers: splits, an identity, and batches in two parts.

A `Feed` first draws what a step reads (`draws`: index tensors, or the images themselves where they are
streamed) and then turns a draw into images and labels (`gather`), so that a captured step can hold the second
part.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunas.data.samples import CLASS_ID, KINDS, Form, Kind, TargetForm, kind_of
from prunas.errors import InputError
from prunas.files import digest

__all__ = [
    "Alternating",
    "Batch",
    "DataSet",
    "Draw",
    "Feed",
    "Indices",
    "Split",
    "fingerprint",
    "stratified",
    "stream_seed",
]

Split = Literal["train", "val", "train+val", "test"]
Indices = NDArray[np.int64]
Draw = tuple[Tensor, ...]
Batch = tuple[Tensor, Any]
"""Inputs (batch, *shape), and targets: a tensor, or tensors by name; see `prunas.data.samples`."""


class Feed(Protocol):
    """The batches of one split on one device."""

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        """What each step of one epoch reads, on the device.

        Args:
            seed: Of shuffling and augmentation; None keeps the stored order and augments nothing.
            epoch: With `seed`, names the random stream: an epoch is the same whatever came before it.
            start: Steps to skip, for an epoch that was begun earlier.
        """

    def gather(self, draw: Draw) -> Batch:
        """Inputs (batch, *shape) and targets of one draw: tensors in, tensors out, no read-back."""


@runtime_checkable
class Alternating(Protocol):
    """A feed that can show each image and its mirror image in turn, epoch by epoch (arXiv:2404.00498)."""

    def alternating(self) -> Feed:
        """The feed that does; as before where its augmentation mirrors nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DataSet(ABC):
    """Samples with their targets, split once and for all.

    Attributes:
        name: The word a user types.
        shape: Of a sample as the network sees it: channels, height and width of an image.
        classes: Number of classes; 0 where targets are values.
        labels: Class of every sample, all splits together, by which choices are even; zeros where there is none.
        splits: Positions in `labels` of each split, ascending. `train+val` is the union of its two parts.
        identity: Short digest of what the data are: content, preparation and splits.
        notes: What a reader of a result should know about the data.
        targets: Form of a sample's targets, by name where there are several tensors.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    labels: Indices = field(repr=False)
    splits: Mapping[Split, Indices] = field(repr=False)
    identity: str
    notes: tuple[str, ...] = ()
    targets: TargetForm = CLASS_ID

    @property
    def sizes(self) -> dict[Split, int]:
        """Images of each split."""
        return {split: len(members) for split, members in self.splits.items()}

    def require(self, task: str, *kinds: Kind) -> None:
        """Refuses targets that a task does not learn.

        Args:
            task: Its name, for the message.
            kinds: What it learns.

        Raises:
            InputError: The targets are of another kind.
        """
        if kind_of(self.targets) not in kinds:
            form = self.targets
            parts = {"": form} if isinstance(form, Form) else form
            shown = ", ".join(f"{key} {part}".strip() for key, part in parts.items())
            raise InputError(
                f"task {task!r} learns {' or '.join(KINDS[kind] for kind in kinds)}; the targets of data set "
                f"{self.name!r} are {KINDS[kind_of(form)]} ({shown}); choose another task, or give other targets"
            )

    def steps(self, split: Split, batch: int, images: int = 0) -> int:
        """Steps of one epoch; the last one takes what is left."""
        return -(-len(self.members(split, images)) // batch)

    def members(self, split: Split, images: int = 0, seed: int = 0) -> Indices:
        """Positions of a split's images, or of a stratified choice among them.

        Choices of one seed are related as the splits are: that of `train+val` holds that of `train` and, in the
        proportion of the splits, images of `val` (rounded up). So whatever was trained on a part of `train`
        before a training on the same part of `train+val` has seen no image that the latter does not see.

        Args:
            images: How many; 0 means all. Of `train+val`: how many from `train`; those of `val` come on top. A
                smaller choice is contained in a larger one of the same seed.
            seed: Of the choice.

        Raises:
            InputError: The split has fewer images.
        """
        if not images:
            return self.splits[split]
        if split == "train+val":
            train, sizes = self.members("train", images, seed), self.sizes
            val = self.members("val", -(-images * sizes["val"] // sizes["train"]), seed)
            return np.sort(np.concatenate([train, val]))
        members = self.splits[split]
        if images > len(members):
            raise InputError(
                f"{self.name} has {len(members)} {split} images, not {images}; ask for fewer, or 0 for all"
            )
        return self._choice(members, images, seed)

    def _choice(self, members: Indices, images: int, seed: int) -> Indices:
        """A stratified choice of `images` among `members`, ascending."""
        return np.sort(members[stratified(self.labels[members], seed)[:images]])

    @abstractmethod
    def feed(
        self,
        members: Indices,
        batch: int,
        *,
        device: torch.device,
        augment: bool = False,
        channels_last: bool = False,
    ) -> Feed:
        """Batches of the images at `members`; what `batches` and the training loop are made of."""

    def batches(
        self,
        split: Split,
        batch: int,
        *,
        device: torch.device,
        seed: int | None = None,
        epoch: int = 0,
        augment: bool = False,
        channels_last: bool = False,
        images: int = 0,
    ) -> Iterator[Batch]:
        """One epoch of (images, labels) on `device`; the last batch is as small as it has to be.

        Args:
            seed: Of shuffling and augmentation, together with `epoch`; None keeps the stored order.
            augment: Whether the images pass through the data set's augmentation; needs a seed.
            channels_last: Memory layout of the images.
            images: If not 0, only this many images of the split: always the same ones, whatever the seed.
        """
        feed = self.feed(
            self.members(split, images), batch, device=device, augment=augment, channels_last=channels_last
        )
        return map(feed.gather, feed.draws(seed, epoch))

    def calibration(
        self, images: int, *, seed: int, device: torch.device, batch: int = 256, subset: int = 0
    ) -> Iterator[Batch]:
        """Batches of training images as they are, evenly over the classes: for methods that measure activations.

        Args:
            images: How many at most; 0 means all.
            seed: Which images; the same seed gives the same batches.
            subset: How many training images there are to choose from, see `members`; 0 means the whole split.
        """
        members = self.members("train", subset)
        chosen = self._choice(members, images or len(members), seed)
        feed = self.feed(chosen, batch, device=device)
        return map(feed.gather, feed.draws(None))


def stream_seed(*parts: str | int) -> int:
    """A generator seed for the random stream that `parts` name; unrelated names give unrelated streams."""
    return int(digest(list(parts), 15), 16)


def stratified(labels: Indices, seed: int) -> Indices:
    """A random order whose every beginning holds the classes in the proportions of the whole.

    Classes of one size differ by at most one image in any beginning.

    Args:
        labels: Class of each image.

    Returns:
        Positions in `labels`.
    """
    # RandomState because its stream is frozen: splits outlive numpy versions.
    order = np.random.RandomState(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    first = (np.cumsum(counts) - counts).repeat(counts)
    share = np.empty(len(labels))
    share[by_class] = (np.arange(len(labels)) - first + 0.5) / counts.repeat(counts)
    return order[np.argsort(share[order], kind="stable")]


def fingerprint(*arrays: NDArray[np.generic]) -> str:
    """Hex digest of the content of some arrays."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(repr((array.shape, array.dtype.str)).encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
