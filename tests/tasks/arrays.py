"""A data set of arrays with targets of any form, for tests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunas.data.dataset import DataSet, Draw, Indices, fingerprint, stream_seed


@dataclass(frozen=True)
class _Feed:
    inputs: Tensor
    targets: Any
    members: Tensor
    batch: int
    device: torch.device

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> Iterator[Draw]:
        order = self.members
        if seed is not None:
            generator = torch.Generator().manual_seed(stream_seed("epoch", seed, epoch))
            order = order[torch.randperm(len(order), generator=generator)]
        for part in torch.split(order, self.batch)[start:]:
            yield (part.to(self.device),)

    def gather(self, draw: Draw) -> Any:
        (index,) = draw
        targets = self.targets
        if isinstance(targets, Mapping):
            return self.inputs[index], {key: value[index] for key, value in targets.items()}
        return self.inputs[index], targets[index]


@dataclass(frozen=True, eq=False, kw_only=True)
class Held(DataSet):
    """Inputs and targets of all samples as tensors; half of them train, a quarter each validate and test."""

    held: tuple[Tensor, Any] = field(repr=False)

    def feed(
        self,
        members: Indices,
        batch: int,
        *,
        device: torch.device,
        augment: bool = False,
        channels_last: bool = False,
    ) -> _Feed:
        return _Feed(*self.held, torch.from_numpy(members), batch, device)


def held(inputs: Any, targets: Any, classes: int = 0, labels: Any = None) -> Held:
    """A data set of arrays."""
    x = torch.as_tensor(inputs).float()
    y = (
        {k: torch.as_tensor(v) for k, v in targets.items()}
        if isinstance(targets, Mapping)
        else torch.as_tensor(targets)
    )
    n = len(x)
    parts = {
        "train": np.arange(n // 2),
        "val": np.arange(n // 2, 3 * n // 4),
        "test": np.arange(3 * n // 4, n),
    }
    parts["train+val"] = np.arange(3 * n // 4)
    content = [x.numpy(), *(v.numpy() for v in (y.values() if isinstance(y, dict) else [y]))]
    return Held(
        name="held",
        shape=tuple(x.shape[1:]),
        classes=classes,
        labels=np.zeros(n, np.int64) if labels is None else np.asarray(labels),
        splits=parts,
        identity=fingerprint(*content)[:12],
        held=(x, y),
    )
