"""The user's data: CIFAR-10 as their training script splits it."""

from pathlib import Path

from torchvision.datasets import CIFAR10

import prunas.data

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def make(folder: Path):
    """45,000 training images, the last 5,000 for validation, and the test images."""
    train, test = CIFAR10(folder, train=True), CIFAR10(folder, train=False)
    (x, y), (tx, ty) = ((part.data.transpose(0, 3, 1, 2), part.targets) for part in (train, test))
    return prunas.data.arrays(
        "photographs",
        train=(x[:45_000], y[:45_000]),
        val=(x[45_000:], y[45_000:]),
        test=(tx, ty),
        mean=MEAN,
        std=STD,
        pad=4,
        flip=True,
    )
