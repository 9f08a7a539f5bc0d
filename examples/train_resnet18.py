"""Somebody's training of a ResNet-18, which knows nothing of prunas: writes resnet18.pth.

The checkpoint is wrapped as people's are: {"epoch", "optimizer", "state_dict": {"module.conv1.weight", ...}}.
    python train_resnet18.py            # seconds; --full learns for minutes
"""

import argparse

import torch
import torch.nn.functional as F
from resnet18 import data, make


def train(images: int, epochs: int) -> None:
    """A plain loop."""
    torch.manual_seed(0)
    net = torch.nn.DataParallel(make())
    pixels, labels = map(torch.from_numpy, data(images)["train"])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(pixels) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(pixels)).split(32):
            loss = F.cross_entropy(net(pixels[batch] / 255), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    checkpoint = {"epoch": epochs, "optimizer": optimizer.state_dict(), "state_dict": net.state_dict()}
    torch.save(checkpoint, "resnet18.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="2,000 images, 10 epochs; else a first look")
    train(*((2000, 10) if parser.parse_args().full else (96, 1)))
