"""`python -m benchmarks.speed.memory [--trim] [--precision fp32]`: how a process grows from training to training.

Twelve small networks of different widths are trained for two steps each, as a search trains them in one worker.
"""

import argparse
import ctypes
from pathlib import Path

import torch
from torch import nn

from benchmarks.speed.parts import PAPER, noise
from prunas.tasks.classification import Classification
from prunas.training.loop import train

CPU = torch.device("cpu")


def resident_megabytes() -> int:
    """Of this process, by Linux."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


def network(seed: int) -> nn.Module:
    """Six convolutions of random widths."""
    draw = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 3
    for place, width in enumerate(torch.randint(20, 120, (6,), generator=draw).tolist()):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        layers += [nn.MaxPool2d(2)] * (place % 2)
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def main() -> None:
    """Prints the size after every training."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--trim", action="store_true", help="call malloc_trim after every training, as prunas does"
    )
    parser.add_argument("--precision", default="bf16")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = noise(1200)
    recipe = PAPER.replace(precision=given.precision, channels_last=True, images=128, lr=0.01)
    print(f"before: {resident_megabytes()} MB", flush=True)
    for seed in range(12):
        train(
            network(seed),
            Classification(data),
            recipe,
            epochs=1,
            seed=seed,
            split="train",
            score="val",
            device=CPU,
        )
        if given.trim:
            ctypes.CDLL(None).malloc_trim(0)
        print(f"after {seed + 1}: {resident_megabytes()} MB", flush=True)


if __name__ == "__main__":
    main()
