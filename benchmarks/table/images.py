"""The images of the table: CIFAR-10 at 8 x 8 pixels."""

from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10

import prunas.data
from prunas.data.dataset import DataSet, stratified

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2, 0.2, 0.2)
SIDE, TRAIN, VAL = 8, 5000, 5000


def make(folder: Path) -> DataSet:
    """5,000 training and 5,000 validation images, drawn evenly over the classes, and the 10,000 test images."""
    seen, tested = CIFAR10(folder, train=True), CIFAR10(folder, train=False)
    labels = np.array(seen.targets)
    order = stratified(labels, 0)
    val, train = order[:VAL], order[VAL : VAL + TRAIN]
    return prunas.data.arrays(
        "photographs-8",
        train=(shrunk(seen.data[train]), labels[train]),
        val=(shrunk(seen.data[val]), labels[val]),
        test=(shrunk(tested.data), np.array(tested.targets)),
        mean=MEAN,
        std=STD,
        pad=1,
        flip=True,
    )


def shrunk(pixels: Any) -> Any:
    """Images (N, 32, 32, 3) of bytes to (N, 3, 8, 8): means over squares of pixels, rounded."""
    block = pixels.shape[1] // SIDE
    means = pixels.reshape(len(pixels), SIDE, block, SIDE, block, 3).mean((2, 4))
    return np.rint(means).astype(np.uint8).transpose(0, 3, 1, 2)
