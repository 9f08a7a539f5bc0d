"""MobileNet-V1 (Howard et al. 2017, arXiv:1704.04861): pairs of a depthwise and a pointwise convolution."""

from typing import cast

from torch import Tensor, nn

from prunas.networks.initialise import initialise

__all__ = ["MobileNetV1", "mobilenet_v1"]

BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))
"""Width in multiples of the stem's, and stride, of every pair."""


def _convolution(channels: int, width: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


class MobileNetV1(nn.Module):
    """A 3x3 convolution of stride 2 and thirteen pairs of a 3x3 depthwise and a 1x1 convolution.

    Args:
        classes: Outputs.
        channels: Channels of the input image.
        base: Width of the stem; the others have 2 to 32 times as many.
        dropout: In front of the classifier.
    """

    def __init__(self, classes: int = 1000, channels: int = 3, base: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(channels, base, 3, 2))
        width = base
        pairs: list[nn.Module] = []
        for multiple, stride in BLOCKS:
            depthwise = _convolution(width, width, 3, stride, groups=width)
            pairs.append(nn.Sequential(*depthwise, *_convolution(width, base * multiple, 1, 1)))
            width = base * multiple
        self.pairs = nn.Sequential(*pairs)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)
        initialise(self, gamma=1.0, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        x = self.pool(self.pairs(self.stem(x))).flatten(1)
        return cast(Tensor, self.classifier(self.dropout(x)))


def mobilenet_v1(classes: int = 1000, channels: int = 3, base: int = 32, dropout: float = 0.2) -> MobileNetV1:
    """MobileNet-V1; see `MobileNetV1`."""
    return MobileNetV1(classes, channels, base, dropout)
