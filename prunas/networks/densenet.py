"""DenseNets for CIFAR (Huang et al. 2017): plain layers, and bottlenecks with compression (BC)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.networks.initialise import initialise

__all__ = ["DenseNet", "densenet40", "densenetbc100"]


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution whose output joins its input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, channels + growth, h, w)."""
        return torch.cat((x, self.conv(F.relu(self.bn(x)))), 1)


class DenseBottleneck(nn.Module):
    """A dense layer that first narrows its input to four times the growth by a 1x1 convolution."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, channels + growth, h, w)."""
        y = self.conv1(F.relu(self.bn1(x)))
        return torch.cat((x, self.conv2(F.relu(self.bn2(y)))), 1)


class Transition(nn.Module):
    """Batch norm, ReLU, a 1x1 convolution and 2x2 average pooling between two dense stages."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, out, h / 2, w / 2)."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """Three dense stages with transitions between them.

    Args:
        depth: 3n + 4 with plain layers, 6n + 4 with bottlenecks.
        classes: Outputs.
        channels: Channels of the input image.
        growth: Channels that each layer adds; the stem has twice as many.
        bottleneck: Whether layers are `DenseBottleneck`.
        compression: Share of the channels that a transition keeps, truncated.
        gamma: Initial scale of the batch norms.
    """

    def __init__(
        self,
        depth: int,
        classes: int = 10,
        channels: int = 3,
        growth: int = 12,
        bottleneck: bool = False,
        compression: float = 1.0,
        gamma: float = 0.5,
    ) -> None:
        super().__init__()
        layer = DenseBottleneck if bottleneck else DenseLayer
        count = (depth - 4) // (6 if bottleneck else 3)
        width = 2 * growth
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        stages: list[nn.Module] = []
        for stage in range(3):
            if stage:
                stages.append(Transition(width, int(width * compression)))
                width = int(width * compression)
            stages.append(nn.Sequential(*(layer(width + i * growth, growth) for i in range(count))))
            width += count * growth
        self.features = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)
        initialise(self, gamma=gamma)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        x = F.relu(self.bn(self.features(self.conv(x))))
        return cast(Tensor, self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def densenet40(**options: object) -> DenseNet:
    """DenseNet-40 with growth 12; see `DenseNet` for the options."""
    return DenseNet(40, **options)  # type: ignore[arg-type]


def densenetbc100(**options: object) -> DenseNet:
    """DenseNet-BC-100 with growth 12; see `DenseNet` for the options."""
    return DenseNet(100, **{"bottleneck": True, "compression": 0.5, "gamma": 1.0, **options})  # type: ignore[arg-type]
