"""ResNets for CIFAR: post-activation basic blocks (He et al. 2016a) and pre-activation bottlenecks (2016b)."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from prunas.graphs.layers import ChannelPad
from prunas.networks.initialise import initialise

__all__ = [
    "BasicBlock",
    "PreResNet",
    "ResNet",
    "preresnet20",
    "preresnet110",
    "preresnet164",
    "resnet20",
    "resnet56",
    "resnet110",
]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters.

    Where the shape changes the shortcut is type A: average pooling, then zero channels at the end. The released
    L1 code of the study detaches it from the gradient there; this one is an ordinary shortcut.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), ChannelPad(width - channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, width, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of basic blocks, 6n + 2 layers.

    Args:
        depth: 20, 56, 110, ...
        classes: Outputs.
        channels: Channels of the input image.
        base: Width of the first stage; the others have 2 and 4 times as many.
        gamma: Initial scale of the batch norms.
    """

    def __init__(
        self, depth: int, classes: int = 10, channels: int = 3, base: int = 16, gamma: float = 1.0
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, base, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        width = base
        stages = []
        for stage in range(3):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(BasicBlock(width, base << stage, 2 if stage and not i else 1))
                width = base << stage
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(width, classes)
        initialise(self, gamma=gamma)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return cast(Tensor, self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)))


class Bottleneck(nn.Module):
    """Pre-activation bottleneck: 1x1, 3x3 and 1x1 convolutions, each behind batch norm and ReLU.

    The projection, where the shape changes, is a bare 1x1 convolution of the raw input.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, 4 * width, h / stride, w / stride)."""
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        return cast(Tensor, y + self.shortcut(x))


class PreResNet(nn.Module):
    """Three stages of pre-activation bottlenecks.

    Args:
        depth: 9n + 2. The study's "PreResNet-110" has n = 12, which this numbering allows.
        classes: Outputs.
        channels: Channels of the input image.
        base: Inner width of the first stage; the others have 2 and 4 times as many.
        gamma: Initial scale of the batch norms.
    """

    def __init__(
        self, depth: int, classes: int = 10, channels: int = 3, base: int = 16, gamma: float = 0.5
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, base, 3, 1, 1, bias=False)
        width = base
        stages = []
        for stage in range(3):
            blocks = []
            for i in range((depth - 2) // 9):
                blocks.append(Bottleneck(width, base << stage, 2 if stage and not i else 1))
                width = Bottleneck.expansion * (base << stage)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)
        initialise(self, gamma=gamma)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1)
        return cast(Tensor, self.fc(x.flatten(1)))


def resnet20(**options: object) -> ResNet:
    """ResNet-20; see `ResNet` for the options."""
    return ResNet(20, **options)  # type: ignore[arg-type]


def resnet56(**options: object) -> ResNet:
    """ResNet-56; see `ResNet` for the options."""
    return ResNet(56, **options)  # type: ignore[arg-type]


def resnet110(**options: object) -> ResNet:
    """ResNet-110; see `ResNet` for the options."""
    return ResNet(110, **options)  # type: ignore[arg-type]


def preresnet20(**options: object) -> PreResNet:
    """PreResNet-20: two bottlenecks a stage; see `PreResNet` for the options."""
    return PreResNet(20, **options)  # type: ignore[arg-type]


def preresnet110(**options: object) -> PreResNet:
    """PreResNet-110: twelve bottlenecks a stage; see `PreResNet` for the options."""
    return PreResNet(110, **options)  # type: ignore[arg-type]


def preresnet164(**options: object) -> PreResNet:
    """PreResNet-164: eighteen bottlenecks a stage; see `PreResNet` for the options."""
    return PreResNet(164, **options)  # type: ignore[arg-type]
