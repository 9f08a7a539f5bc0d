"""Trains the user's network as a user does, without prunas: `python benchmarks/shrink/train.py DATA OUT SEED`.

CIFAR-10's first 45,000 training images, 12 epochs of batch 128, SGD with Nesterov, linear up for a fifth of the
steps and to zero, random crop and mirror; the last 5,000 are for validation. Writes OUT/seed-SEED.pt, a
checkpoint as people write them: {"epoch", "state_dict", "accuracy"}.
"""

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from network import make
from torch import Tensor
from torchvision.datasets import CIFAR10

EPOCHS, BATCH, RATE = 12, 128, 0.2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def images(data: CIFAR10) -> tuple[Tensor, Tensor]:
    """All images, normalised, (N, 3, 32, 32), and their classes."""
    x = torch.from_numpy(data.data).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std, torch.tensor(data.targets)


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Crops out of four pixels of padding and mirrors, each image for itself."""
    n = len(x)
    padded = F.pad(x, (4, 4, 4, 4))
    row, column = torch.randint(9, (2, n, 1, 1), generator=generator)
    at = torch.arange(32)
    crop = padded[torch.arange(n)[:, None, None], :, row + at[:, None], column + at].permute(0, 3, 1, 2)
    mirrored = torch.rand(n, generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), crop.flip(-1), crop)


@torch.no_grad()
def accuracy(net: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Per cent of right answers."""
    net.eval()
    right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
    return 100 * right / len(y)


def main(folder: str, out: str, seed: str) -> None:
    """Trains and writes the checkpoint."""
    x, y = images(CIFAR10(folder, train=True))
    train, val = (x[:45_000], y[:45_000]), (x[45_000:], y[45_000:])
    torch.manual_seed(int(seed))
    generator = torch.Generator().manual_seed(int(seed))
    net = make()
    optimiser = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = EPOCHS * -(-len(train[0]) // BATCH)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.2 * steps), (steps - step) / (0.8 * steps))
    )
    started = time.time()
    for epoch in range(EPOCHS):
        net.train()
        for batch in torch.randperm(len(train[0]), generator=generator).split(BATCH):
            loss = F.cross_entropy(net(augmented(train[0][batch], generator)), train[1][batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
        print(
            f"epoch {epoch + 1}: validation {accuracy(net, *val):.2f} %, {time.time() - started:.0f} s",
            flush=True,
        )
    Path(out).mkdir(parents=True, exist_ok=True)
    checkpoint = {"epoch": EPOCHS, "state_dict": net.state_dict(), "accuracy": accuracy(net, *val)}
    torch.save(checkpoint, Path(out) / f"seed-{seed}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
