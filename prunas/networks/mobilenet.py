"""Networks of depthwise convolutions: MobileNet-V1, MobileNet-V2 and MnasNet-B1.

Howard et al. 2017, arXiv:1704.04861; Sandler et al. 2018, arXiv:1801.04381; Tan et al. 2018, arXiv:1807.11626.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

from torch import Tensor, nn

from prunas.networks.initialise import initialise

__all__ = ["InvertedResidualNet", "MobileNetV1", "Stage", "mnasnet", "mobilenet_v1", "mobilenet_v2"]

BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))
"""Width in multiples of the stem's, and stride, of every pair."""


class Stage(NamedTuple):
    """Equal blocks of an `InvertedResidualNet`.

    Attributes:
        expansion: Channels inside a block, in multiples of what the block reads.
        width: Channels behind it.
        blocks: How many there are.
        stride: Of the first; the others have 1.
        kernel: Size of the depthwise convolutions.
    """

    expansion: int
    width: int
    blocks: int
    stride: int
    kernel: int = 3


MOBILENET_V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
"""Sandler et al. 2018, table 2."""

MNASNET_B1 = (
    Stage(1, 16, 1, 1),
    Stage(3, 24, 3, 2),
    Stage(3, 40, 3, 2, 5),
    Stage(6, 80, 3, 2, 5),
    Stage(6, 96, 2, 1),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1),
)
"""Tan et al. 2018, the network without squeeze-and-excitation."""


def _convolution(
    channels: int, width: int, kernel: int, stride: int, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), act(inplace=True)]


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


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, the next one where that is more than a tenth below; at least 8."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, and a 1x1 one that narrows, without activation behind it.

    The input is added where it has the shape of the output. With an expansion of 1 nothing widens.
    """

    def __init__(
        self, channels: int, width: int, stride: int, expansion: int, kernel: int, act: type[nn.Module]
    ) -> None:
        super().__init__()
        inner = channels * expansion
        layers = _convolution(channels, inner, 1, 1, act=act) if expansion != 1 else []
        layers += _convolution(inner, inner, kernel, stride, groups=inner, act=act)
        self.branch = nn.Sequential(*layers, nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))
        self.added = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, width, h / stride, w / stride)."""
        y = self.branch(x)
        return cast(Tensor, x + y if self.added else y)


class InvertedResidualNet(nn.Module):
    """A 3x3 convolution of stride 2, stages of inverted residuals, and a 1x1 convolution before the classifier.

    Args:
        stages: Their widths at `width` 1.
        act: Activation.
        classes: Outputs.
        channels: Channels of the input image.
        width: What all widths are multiplied by, then rounded to multiples of 8. The last convolution has 1280
            channels, and more only above 1.
        dropout: In front of the classifier.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        act: type[nn.Module],
        classes: int = 1000,
        channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        reached = _multiple_of_8(32 * width)
        self.stem = nn.Sequential(*_convolution(channels, reached, 3, 2, act=act))
        blocks: list[nn.Module] = []
        for stage in stages:
            out = _multiple_of_8(stage.width * width)
            for i in range(stage.blocks):
                stride = 1 if i else stage.stride
                blocks.append(InvertedResidual(reached, out, stride, stage.expansion, stage.kernel, act))
                reached = out
        self.blocks = nn.Sequential(*blocks)
        last = _multiple_of_8(1280 * max(1.0, width))
        self.last = nn.Sequential(*_convolution(reached, last, 1, 1, act=act))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last, classes)
        initialise(self, gamma=1.0, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        x = self.pool(self.last(self.blocks(self.stem(x)))).flatten(1)
        return cast(Tensor, self.classifier(self.dropout(x)))


def mobilenet_v2(**options: object) -> InvertedResidualNet:
    """MobileNet-V2; see `InvertedResidualNet` for the options."""
    return InvertedResidualNet(MOBILENET_V2, nn.ReLU6, **options)  # type: ignore[arg-type]


def mnasnet(**options: object) -> InvertedResidualNet:
    """MnasNet-B1; see `InvertedResidualNet` for the options."""
    return InvertedResidualNet(MNASNET_B1, nn.ReLU, **options)  # type: ignore[arg-type]
