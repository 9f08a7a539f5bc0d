"""Arrays that live on the device: inputs as bytes or floats, targets of any fixed shape."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunas.data.dataset import DataSet, Draw, Indices, stream_seed
from prunas.data.samples import Targets, rows, seen

__all__ = ["InMemory"]


@dataclass(frozen=True, slots=True)
class _InMemoryFeed:
    """See `Feed`. A draw is one tensor (batch,): positions of the samples.

    Attributes:
        inputs: Of all samples.
        targets: Of all samples.
        scale: Mean and deviation per channel (C, 1, 1), of images that are bytes.
        members: Samples of the split, on the CPU.
    """

    inputs: Tensor
    targets: Targets
    scale: tuple[Tensor, Tensor]
    members: Tensor
    batch: int

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        """Positions, drawn on the CPU (the same on every device) and moved in one go."""
        order = self.members
        if seed is not None:
            generator = torch.Generator().manual_seed(stream_seed("epoch", seed, epoch))
            order = order[torch.randperm(len(order), generator=generator)]
        for part in torch.split(order.to(self.inputs.device), self.batch)[start:]:
            yield (part,)

    def gather(self, draw: Draw) -> tuple[Tensor, Any]:
        """Inputs and targets at the positions; bytes are normalised."""
        (index,) = draw
        x = self.inputs[index]
        if x.dtype == torch.uint8:
            mean, std = self.scale
            x = x.float().div_(255).sub_(mean).div_(std)
        return x, seen(rows(self.targets, index))


@dataclass(frozen=True, eq=False, kw_only=True)
class InMemory(DataSet):
    """Inputs and targets of all samples, small enough to stay on the device.

    Attributes:
        held: Inputs, uint8 images (samples, C, H, W) or float32 of any shape, and targets as they are kept.
        mean: Per channel, of pixels in [0, 1]; of images that are bytes.
        std: Per channel, of pixels in [0, 1].
    """

    held: tuple[Tensor, Targets] = field(repr=False)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    _placed: dict[tuple[torch.device, bool], tuple[Tensor, Targets]] = field(default_factory=dict, repr=False)

    def feed(
        self,
        members: Indices,
        batch: int,
        *,
        device: torch.device,
        augment: bool = False,
        channels_last: bool = False,
    ) -> _InMemoryFeed:
        """Batches of the samples at `members`. The first call on a device moves the whole data set there."""
        device = torch.empty(0, device=device).device  # "cuda" and "cuda:0" are one place
        images = channels_last and len(self.shape) == 3
        if (device, images) not in self._placed:
            x, y = self.held
            # A copy of some rows keeps the storage order, so each layout has its own storage.
            x = x.to(device).contiguous(
                memory_format=torch.channels_last if images else torch.contiguous_format
            )
            moved = {k: v.to(device) for k, v in y.items()} if isinstance(y, Mapping) else y.to(device)
            self._placed[device, images] = x, moved
        inputs, targets = self._placed[device, images]
        mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (self.mean, self.std))
        return _InMemoryFeed(
            inputs, targets, (mean, std), torch.from_numpy(np.ascontiguousarray(members)), batch
        )
