"""A plain training loop, which knows nothing of prunas' trainings; writes NAME.pth, on the training split alone.

python -m benchmarks.canvases.train unet --epochs 30
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.canvases import networks  # finds examples/, of which the next line is

from yolo_task import Yolo  # isort: skip


def of_masks(net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy over pixels."""
    return F.cross_entropy(net(images), targets)


def of_detector(net: nn.Module, images: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """The losses that a detector of torchvision returns."""
    there = targets["labels"] >= 0
    objects = [
        {"boxes": boxes[at], "labels": labels[at]}
        for boxes, labels, at in zip(targets["boxes"], targets["labels"], there, strict=True)
    ]
    return torch.stack(list(net(list(images), objects).values())).sum()


def of_yolo(net: nn.Module, images: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Of the example's task."""
    return Yolo(None).loss(net, (images, targets))


KINDS = {
    "unet": (networks.unet, lambda: networks.masks(1000), of_masks),
    "lraspp": (networks.lraspp, networks.masks, of_masks),
    "fcos": (networks.fcos, lambda: networks.boxes(first_label=1), of_detector),
    "yolo": (networks.yolo, lambda: networks.boxes(1000), of_yolo),
}


def tensors(split: tuple) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
    """Images as bytes, and targets."""
    pixels, targets = split
    if isinstance(targets, dict):
        return torch.from_numpy(pixels.copy()), {key: torch.from_numpy(of) for key, of in targets.items()}
    return torch.from_numpy(pixels.copy()), torch.from_numpy(targets)


def train(name: str, epochs: int, rate: float, batch: int, out: Path) -> None:
    """Trains one of the networks by AdamW and one cycle, and saves its state dict."""
    torch.manual_seed(0)
    make, data, loss_of = KINDS[name]
    net = make().train()
    pixels, targets = tensors(data()["train"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(pixels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    started = time.time()
    for epoch in range(epochs):
        for at in torch.randperm(len(pixels)).split(batch):
            chosen = {k: v[at] for k, v in targets.items()} if isinstance(targets, dict) else targets[at]
            loss = loss_of(net, pixels[at] / 255, chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(
            f"{name}: epoch {epoch + 1} of {epochs}: {loss.item():.3f}, {time.time() - started:.0f} s",
            flush=True,
        )
    out.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), out / f"{name}.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=tuple(KINDS))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/canvases"))
    given = parser.parse_args()
    train(given.network, given.epochs, given.lr, given.batch, given.out)
