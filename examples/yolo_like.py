"""A detector like YOLOv8's: C2f blocks, SPPF, a path-aggregating neck, a decoupled head at three scales.

It is plain torch, with what such networks are made of: lists of modules iterated in `forward`, `chunk`, `extend`
with a generator, concatenation, upsampling. `forward` returns one map a scale, of 4 * REG + classes channels;
anchors, strides and decoding belong to the loss, so prunas surveys the network whole:

    network = "yolo_like.py:yolo_like"
    arguments = { classes = 3, width = 16 }
    input = [3, 64, 64]
"""

import torch
from torch import Tensor, nn

REG = 16
"""Bins of the distribution over each side of a box (Li et al. 2020)."""
STRIDES = (8, 16, 32)
"""Pixels of the image per position of each map."""
UNLIKELY = -4.0
"""Class logits at first: most positions hold nothing (Lin et al. 2017, arXiv:1708.02002, section 3.3)."""


class Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, inputs, H, W) to (batch, outputs, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions, and a shortcut around them."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(channels, channels, 3), Conv(channels, channels, 3)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C2f(nn.Module):
    """Half of the channels pass bottlenecks one after another; all results are concatenated."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool = False) -> None:
        super().__init__()
        hidden = outputs // 2
        self.cv1 = Conv(inputs, 2 * hidden)
        self.cv2 = Conv((2 + depth) * hidden, outputs)
        self.m = nn.ModuleList(Bottleneck(hidden, shortcut) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, inputs, H, W) to (batch, outputs, H, W)."""
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    """Pooling over growing windows, concatenated (He et al. 2015, made fast)."""

    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        hidden = channels // 2
        self.cv1, self.cv2 = Conv(channels, hidden), Conv(4 * hidden, channels)
        self.pool = nn.MaxPool2d(kernel, 1, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        y = [self.cv1(x)]
        y.extend(self.pool(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


class Head(nn.Module):
    """Boxes and classes by branches of their own at every scale."""

    def __init__(self, classes: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        box, label = max(16, channels[0] // 4, 4 * REG), max(channels[0], min(classes, 100))
        self.cv2 = nn.ModuleList(
            nn.Sequential(Conv(c, box, 3), Conv(box, box, 3), nn.Conv2d(box, 4 * REG, 1)) for c in channels
        )
        self.cv3 = nn.ModuleList(
            nn.Sequential(Conv(c, label, 3), Conv(label, label, 3), nn.Conv2d(label, classes, 1))
            for c in channels
        )
        for labels in self.cv3:
            nn.init.constant_(labels[-1].bias, UNLIKELY)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """One map for every map it is given."""
        return [
            torch.cat((boxes(h), labels(h)), 1)
            for h, boxes, labels in zip(x, self.cv2, self.cv3, strict=True)
        ]


class YOLOLike(nn.Module):
    """Backbone, neck and head.

    Args:
        classes: Kinds of objects.
        width: Channels of the first convolution; 16 is the smallest of the usual sizes, 64 a large one.
        depth: Bottlenecks in the first and last C2f of the backbone; twice as many in between.
    """

    def __init__(self, classes: int = 80, width: int = 16, depth: int = 1) -> None:
        super().__init__()
        w = [width * 2**i for i in range(5)]
        self.stem = nn.Sequential(Conv(3, w[0], 3, 2), Conv(w[0], w[1], 3, 2), C2f(w[1], w[1], depth, True))
        self.p3 = nn.Sequential(Conv(w[1], w[2], 3, 2), C2f(w[2], w[2], 2 * depth, True))
        self.p4 = nn.Sequential(Conv(w[2], w[3], 3, 2), C2f(w[3], w[3], 2 * depth, True))
        self.p5 = nn.Sequential(Conv(w[3], w[4], 3, 2), C2f(w[4], w[4], depth, True), SPPF(w[4]))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.down4, self.down3 = C2f(w[4] + w[3], w[3], depth), C2f(w[3] + w[2], w[2], depth)
        self.half3, self.half4 = Conv(w[2], w[2], 3, 2), Conv(w[3], w[3], 3, 2)
        self.out4, self.out5 = C2f(w[2] + w[3], w[3], depth), C2f(w[3] + w[4], w[4], depth)
        self.head = Head(classes, (w[2], w[3], w[4]))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps images (batch, 3, H, W), sides multiples of 32, to (batch, 4 * REG + classes, H / s, W / s)."""
        c3 = self.p3(self.stem(x))
        c4 = self.p4(c3)
        c5 = self.p5(c4)
        n4 = self.down4(torch.cat((self.up(c5), c4), 1))
        n3 = self.down3(torch.cat((self.up(n4), c3), 1))
        m4 = self.out4(torch.cat((self.half3(n3), n4), 1))
        m5 = self.out5(torch.cat((self.half4(m4), c5), 1))
        return self.head([n3, m4, m5])


def yolo_like(classes: int = 80, width: int = 16, depth: int = 1) -> YOLOLike:
    """The network; see `YOLOLike`."""
    return YOLOLike(classes, width, depth)
