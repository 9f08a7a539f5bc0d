"""Images of a batch mixed with each other, and their labels with them: mixup and CutMix."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from prunas.data.dataset import Draw, stream_seed
from prunas.recipe import Recipe
from prunas.tasks.base import Feed

__all__ = ["Mixed"]


class Mixed:
    """A feed whose images are mixed with the image before them in the batch, the first one with the last.

    As `torchvision.transforms.v2.MixUp` and `CutMix` do it (Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019,
    arXiv:1905.04899), one share a batch; with both, either has a chance of a half. A draw has one tensor (6,)
    more: share of the image itself among pixels and among labels, then left, top, right and bottom of the patch
    that the other image fills. Labels become shares, (batch, classes).

    Args:
        feed: Of labelled images.
        recipe: Gives the parameters of both, and the batch size.
        classes: Numbers of a label.
        size: Height and width of an image.
        steps: Batches of an epoch.
        device: Where the batches are.
    """

    def __init__(
        self,
        feed: Feed,
        recipe: Recipe,
        *,
        classes: int,
        size: tuple[int, int],
        steps: int,
        device: torch.device,
    ) -> None:
        self._feed, self._recipe, self._classes, self._size = feed, recipe, classes, size
        self._steps, self._device = steps, device

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        """See `prunas.data.dataset.Feed`; without a seed nothing is mixed."""
        mixes = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]).repeat(self._steps, 1)
        if seed is not None:
            mixes = self._mixes(stream_seed("mixes", seed, epoch))
        for draw, mix in zip(
            self._feed.draws(seed, epoch, start), mixes.to(self._device)[start:], strict=True
        ):
            yield (*draw, mix)

    def _mixes(self, seed: int) -> Tensor:
        """What each step of an epoch mixes (steps, 6)."""
        random = np.random.RandomState(seed % 2**32)  # its stream is frozen
        mixup, cutmix = self._recipe.mixup, self._recipe.cutmix
        rows = []
        for _ in range(self._steps):
            cuts = bool(cutmix) and not (mixup and random.random_sample() < 0.5)
            share = random.beta(cutmix, cutmix) if cuts else random.beta(mixup, mixup)
            rows.append(self._patch(share, random) if cuts else [share, share, 0, 0, 0, 0])
        return torch.tensor(rows, dtype=torch.float32)

    def _patch(self, share: float, random: np.random.RandomState) -> list[float]:
        """A patch of 1 - share of the area, less where it is cut off at the border, which the labels follow."""
        height, width = self._size
        x, y, half = random.randint(width), random.randint(height), 0.5 * math.sqrt(1 - share)
        dx, dy = int(half * width), int(half * height)
        left, right, top, bottom = max(x - dx, 0), min(x + dx, width), max(y - dy, 0), min(y + dy, height)
        return [1.0, 1 - (right - left) * (bottom - top) / (width * height), left, top, right, bottom]

    def gather(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Images (batch, C, H, W) and labels (batch, classes)."""
        *drawn, mix = draw
        images, labels = self._feed.gather(tuple(drawn))
        of_pixels, of_labels, left, top, right, bottom = mix.unbind()
        rows = torch.arange(images.shape[2], device=images.device).view(-1, 1)
        columns = torch.arange(images.shape[3], device=images.device)
        patch = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        others = images.roll(1, 0)
        images = torch.where(patch, others, images * of_pixels + others * (1 - of_pixels))
        hot = (labels.view(-1, 1) == torch.arange(self._classes, device=labels.device)).to(images.dtype)
        return images, hot * of_labels + hot.roll(1, 0) * (1 - of_labels)
