"""The loop that the study's scripts train with, written anew for today's torch.

One DataLoader worker prepares single images with Pillow (pad, crop, mirror, to tensor, normalise); the network
is fp32 and NCHW; SGD updates one weight after another; loss and hits are read back after every step. On a GPU
float32 is multiplied exactly, or as torch does unless told otherwise: convolutions in TF32.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from prunas.data.resident import Resident
from prunas.training.precision import Float32, float32_arithmetic


class Images(Dataset[tuple[Tensor, int]]):
    """Training images of a data set, augmented one by one."""

    def __init__(self, data: Resident) -> None:
        self.members, self.data = data.splits["train"], data
        self.mean, self.std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        at, pad = self.members[place], self.data.pad
        image = ImageOps.expand(Image.fromarray(self.data.pixels[at]), pad)
        left, top = torch.randint(0, 2 * pad + 1, (2,)).tolist()
        image = image.crop((left, top, left + self.data.shape[2], top + self.data.shape[1]))
        if torch.rand(1).item() < 0.5:
            image = ImageOps.mirror(image)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return x.sub_(self.mean).div_(self.std), int(self.data.labels[at])


def batches(data: Resident, batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch, with one worker that lives on; partial batches are left out."""
    loader = DataLoader(
        Images(data),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=1,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    while True:
        yield from loader


class Loop:
    """The loop, ready to take steps.

    Args:
        read_back: Whether loss and hits are read after every step.
        convolutions: How they multiply float32 on a GPU. Set before every step: other loops leave theirs behind.
    """

    def __init__(
        self,
        net: nn.Module,
        device: torch.device,
        *,
        read_back: bool = True,
        convolutions: Float32 = "ieee",
    ) -> None:
        self.convolutions: Float32 = convolutions
        self.net, self.device, self.read_back = net.to(device).train(), device, read_back
        self.sgd = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, foreach=False)
        self.loss_sum, self.hits = 0.0, 0

    def step(self, x: Tensor, y: Tensor) -> None:
        """Trains on one batch."""
        float32_arithmetic(self.device, convolutions=self.convolutions, products="ieee")
        x, y = x.to(self.device), y.to(self.device)
        self.sgd.zero_grad()
        output = self.net(x)
        loss = F.cross_entropy(output, y)
        loss.backward()
        self.sgd.step()
        if self.read_back:
            self.loss_sum += loss.item() * len(y)
            self.hits += int((output.argmax(1) == y).sum().item())
