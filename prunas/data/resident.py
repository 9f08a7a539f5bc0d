"""Small data sets that live on the device: padded once, cropped by a window view, normalised batch by batch.

They stay bytes: as float32, CIFAR takes 1.2 GB in every process, and that again in the other memory layout.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from prunas.data.dataset import Batch, DataSet, Draw, Indices, Split, fingerprint, stream_seed
from prunas.errors import InputError
from prunas.files import digest

__all__ = ["Resident", "resident"]


@dataclass(frozen=True, slots=True)
class _ResidentFeed:
    """See `Feed`. A draw is one tensor (4, batch): image, row and column of its crop, whether it is flipped.

    Attributes:
        windows: All crops of all images as a view, uint8 (images, 2 pad + 1, 2 pad + 1, C, H, W).
        labels: Class of every image.
        peak: Value of a white pixel.
        mean: Per channel, (C, 1, 1), of pixels in [0, 1].
        std: Per channel, (C, 1, 1), of pixels in [0, 1].
        members: Images of the split, on the CPU.
        pad: Row and column of the crop that is the image itself.
        augment: Whether crops are random.
        flip: Whether images are mirrored at random.
        alternates: Whether images are mirrored at random in the first epoch only, and then in turn.
    """

    windows: Tensor
    labels: Tensor
    peak: int
    mean: Tensor
    std: Tensor
    members: Tensor
    batch: int
    pad: int
    augment: bool
    flip: bool
    alternates: bool = False

    def alternating(self) -> "_ResidentFeed":
        """See `prunas.data.dataset.Alternating`."""
        return dataclasses.replace(self, alternates=True)

    def transformed(self, transform: Callable[[Tensor], Tensor]) -> "_TransformedFeed":
        """See `prunas.data.transforms.Transformable`."""
        if self.peak != 255:
            raise InputError(
                f"transforms take a white pixel for 255, and in these images it is {self.peak}; leave them out"
            )
        return _TransformedFeed(self, transform)

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        """One tensor per step, drawn on the CPU (the same on every device) and moved in one go."""
        n = len(self.members)
        plan = torch.full((4, n), self.pad)
        plan[0] = self.members
        plan[3] = 0
        if seed is not None:
            generator = torch.Generator().manual_seed(stream_seed("epoch", seed, epoch))
            plan[0] = self.members[torch.randperm(n, generator=generator)]
            if self.augment:
                plan[1:3] = torch.randint(2 * self.pad + 1, (2, n), generator=generator)
                plan[3] = torch.randint(2, (n,), generator=generator)
            if self.augment and self.alternates:
                plan[3] = (self._first_flips(seed)[plan[0]] + epoch) % 2
        for part in torch.split(plan.to(self.windows.device), self.batch, dim=1)[start:]:
            yield (part,)

    def _first_flips(self, seed: int) -> Tensor:
        """Whether the first epoch mirrors an image (images of all splits,); the same for any split."""
        generator = torch.Generator().manual_seed(stream_seed("flips", seed))
        return torch.randint(2, (len(self.labels),), generator=generator)

    def gather(self, draw: Draw) -> Batch:
        """One indexed copy out of the window view, and a choice between each image and its mirror image."""
        return self.normalised(self.crops(draw)), self.labels[draw[0][0]]

    def crops(self, draw: Draw) -> Tensor:
        """The images of a draw, augmented, uint8 (batch, C, H, W)."""
        image, row, column, mirrored = draw[0].unbind()
        x = self.windows[image, row, column]
        if self.flip and self.augment:
            x = torch.where(mirrored.bool().view(-1, 1, 1, 1), x.flip(-1), x)
        return x

    def normalised(self, pixels: Tensor) -> Tensor:
        """Images as a network sees them."""
        return pixels.float().div_(self.peak).sub_(self.mean).div_(self.std)


@dataclass(frozen=True, slots=True)
class _TransformedFeed:
    """See `Feed`. A draw is the images, uint8 (batch, C, H, W), and their labels: the CPU transforms them.

    Attributes:
        feed: Gives the images as the data set augments them.
        transform: See `prunas.data.transforms.Transformable`.
    """

    feed: _ResidentFeed
    transform: Callable[[Tensor], Tensor]

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        """Each image is transformed by a seed of its own, so the stream does not depend on where it resumes."""
        feed = self.feed
        seeds: list[int] = []
        if seed is not None:
            generator = torch.Generator().manual_seed(stream_seed("transforms", seed, epoch))
            seeds = torch.randint(2**62, (len(feed.members),), generator=generator).tolist()
        for at, draw in enumerate(feed.draws(seed, epoch, start), start):
            pixels = feed.crops(draw)
            if seeds:
                changed = self._changed(pixels.cpu(), seeds[at * feed.batch :])
                pixels = torch.empty_like(pixels).copy_(changed)  # on its device, in its memory layout
            yield pixels, feed.labels[draw[0][0]]

    def _changed(self, pixels: Tensor, seeds: Sequence[int]) -> Tensor:
        with torch.random.fork_rng(devices=()):
            images = []
            for image, seed in zip(pixels.contiguous(), seeds, strict=False):
                torch.default_generator.manual_seed(seed)
                images.append(self.transform(image))
        return torch.stack(images)

    def gather(self, draw: Draw) -> Batch:
        """Normalises."""
        pixels, labels = draw
        return self.feed.normalised(pixels), labels


@dataclass(frozen=True, eq=False, kw_only=True)
class Resident(DataSet):
    """A data set small enough to stay on the device.

    Attributes:
        pixels: uint8 (images, H, W, C).
        peak: Value of a white pixel.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        pad: Black pixels added on each side before a crop of the original size. They are added before
            normalising, so the border is a black pixel's normalised value.
        flip: Whether augmentation mirrors images.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    peak: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    flip: bool
    _placed: dict[tuple[torch.device, bool], tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    def feed(
        self,
        members: Indices,
        batch: int,
        *,
        device: torch.device,
        augment: bool = False,
        channels_last: bool = False,
    ) -> _ResidentFeed:
        """Batches of the images at `members`. The first call on a device moves the whole data set there."""
        windows, labels, mean, std = self._place(device, channels_last)
        where = torch.from_numpy(members)
        return _ResidentFeed(
            windows, labels, self.peak, mean, std, where, batch, self.pad, augment, flip=self.flip
        )

    def _place(self, device: torch.device, channels_last: bool) -> tuple[Tensor, ...]:
        device = torch.empty(0, device=device).device  # "cuda" and "cuda:0" are one place
        if (device, channels_last) not in self._placed:
            p, (_, height, width) = self.pad, self.shape
            x = F.pad(torch.from_numpy(self.pixels).to(device), (0, 0, p, p, p, p)).permute(0, 3, 1, 2)
            # The copy out of the window view keeps the storage order, so each layout has its own storage.
            x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (self.mean, self.std))
            windows = x.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)
            self._placed[device, channels_last] = windows, torch.from_numpy(self.labels).to(device), mean, std
        return self._placed[device, channels_last]


def resident(
    name: str,
    pixels: NDArray[np.uint8],
    labels: Indices,
    splits: Mapping[Split, Indices],
    *,
    peak: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    pad: int,
    flip: bool,
    notes: tuple[str, ...] = (),
) -> Resident:
    """A `Resident` with its identity: the content of the images and everything else that a batch depends on.

    Args:
        splits: `train`, `val` and `test`; their union is made here.
    """
    parts = {**splits, "train+val": np.sort(np.concatenate([splits["train"], splits["val"]]))}
    content = {
        "name": name,
        "content": fingerprint(pixels, labels),
        "splits": {split: fingerprint(members) for split, members in splits.items()},
        "preparation": [peak, mean, std, pad, flip],
    }
    return Resident(
        name=name,
        shape=(pixels.shape[3], pixels.shape[1], pixels.shape[2]),
        classes=int(labels.max()) + 1,
        labels=labels,
        splits=parts,
        identity=digest(content),
        notes=notes,
        pixels=pixels,
        peak=peak,
        mean=mean,
        std=std,
        pad=pad,
        flip=flip,
    )
