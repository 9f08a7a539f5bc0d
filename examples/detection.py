"""Detection: torchvision's SSDlite, of which the backbone is made smaller with its trained weights.

Shows: `part`, as a detector's forward decides by what it sees; images with boxes as arrays; labels from 1.
Run (needs: pip install 'prunas[detection]'):
    python detection.py  # stands for your own training, writes detection.pth; --full takes minutes
    prunas shrink detection.toml --weights detection.pth --keep 0.6 --metric macs --to small-detection
Comes out: small-detection/ with weights, network.py and report.html: COCO's AP before and after. There is no
    network.onnx, because how many boxes are left depends on the image; one line says so.
"""

import argparse

import torch
from canvases import ABSENT, canvases
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.transform import GeneralizedRCNNTransform

SIZE = 128  # pixels; the network's name says 320


def data(images: int = 600) -> dict[str, tuple]:
    """Images (N, 3, 128, 128) of bytes; boxes (N, 4, 4) in pixels, labels (N, 4), -1 where there is no object."""
    splits = {}
    shares = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
    for seed, (split, share) in enumerate(shares.items()):
        count = images if split == "train" else max(16, images // 4)
        drawn = canvases(count, channels=3, seed=seed, share=share, zoom=4)
        targets = {"boxes": drawn.boxes, "labels": drawn.detector_labels}
        splits[split] = drawn.images.transpose(0, 3, 1, 2), targets
    return splits


def ssdlite() -> nn.Module:
    """SSDlite for 10 digits and the background, on smaller images."""
    net = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=11)
    net.transform = GeneralizedRCNNTransform(SIZE, SIZE, [0.5] * 3, [0.5] * 3, fixed_size=(SIZE, SIZE))
    return net


def train(images: int, epochs: int) -> None:
    """A plain training loop, which knows nothing of prunas; writes detection.pth."""
    torch.manual_seed(0)
    net = ssdlite().train()
    pixels, targets = data(images)["train"]
    pixels, boxes, labels = map(torch.from_numpy, (pixels, targets["boxes"], targets["labels"]))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.002, weight_decay=0.01)
    steps = epochs * -(-len(pixels) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(pixels)).split(16):
            there = labels[batch] != ABSENT
            objects = [
                {"boxes": boxes[i][at], "labels": labels[i][at]} for i, at in zip(batch, there, strict=True)
            ]
            loss = sum(net(list(pixels[batch] / 255), objects).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    torch.save(net.state_dict(), "detection.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="600 images, 12 epochs; else a first look")
    train(*((600, 12) if parser.parse_args().full else (48, 1)))
