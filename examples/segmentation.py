"""Segmentation: a small U-Net, and torchvision's LRASPP, made smaller with their trained weights.

Shows: two networks that return a class per pixel, one as a tensor and one in a dict; data as arrays with masks.
Run:
    python segmentation.py unet  # stands for your own training, writes unet.pth; --full takes minutes
    prunas shrink unet.toml --weights unet.pth --keep 0.4 --metric macs --to small-unet
    (the same with lraspp)
Comes out: small-unet/ with weights, network.py, network.onnx, and report.html: mean IoU before and after.
"""

import argparse
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from canvases import canvases
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

CLASSES = 11  # background and ten digits


def data(images: int = 1500) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, 3, 64, 64) of bytes with masks (N, 64, 64); other writers' digits in each split."""
    splits = {}
    shares = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
    for seed, (split, share) in enumerate(shares.items()):
        count = images if split == "train" else max(16, images // 4)
        drawn = canvases(count, channels=3, seed=seed, share=share, zoom=2)
        splits[split] = drawn.images.transpose(0, 3, 1, 2), drawn.masks.astype(np.int64)
    return splits


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions with batch norms."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A path down, a path up by transposed convolutions, concatenations between (Ronneberger et al. 2015).

    Args:
        width: Channels at full resolution; twice as many at every step down.
        steps: Down, and up again.
    """

    def __init__(self, width: int = 16, steps: int = 3) -> None:
        super().__init__()
        sizes = [width * 2**step for step in range(steps + 1)]
        self.stem = block(3, width)
        self.down = nn.ModuleList(block(a, b) for a, b in pairwise(sizes))
        pairs = list(zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.join = nn.ModuleList(block(2 * b, b) for _, b in pairs)
        self.last = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (batch, 3, H, W) to logits (batch, CLASSES, H, W)."""
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat((levels.pop(), up(x)), 1))
        return self.last(x)


def unet() -> UNet:
    """The network of unet.toml."""
    return UNet()


def lraspp() -> nn.Module:
    """The network of lraspp.toml; it returns a dict with `out`."""
    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)


def train(name: str, images: int, epochs: int) -> None:
    """A plain training loop, which knows nothing of prunas; writes NAME.pth."""
    torch.manual_seed(0)
    net = {"unet": unet, "lraspp": lraspp}[name]()
    pixels, masks = map(torch.from_numpy, data(images)["train"])
    steps = epochs * -(-len(pixels) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(pixels)).split(32):
            answer = net(pixels[batch] / 255)
            loss = F.cross_entropy(answer["out"] if isinstance(answer, dict) else answer, masks[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    torch.save({"state_dict": net.state_dict()}, f"{name}.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=("unet", "lraspp"))
    parser.add_argument("--full", action="store_true", help="1,500 images, 10 epochs; else a first look")
    arguments = parser.parse_args()
    train(arguments.network, *((1500, 10) if arguments.full else (96, 2)))
