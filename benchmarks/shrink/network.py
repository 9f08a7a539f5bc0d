"""The network of a user who does not know prunas: a small residual network for CIFAR-10, in plain torch."""

from torch import Tensor, nn


def conv(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution of 3 x 3 with its batch norm and rectifier."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Stage(nn.Module):
    """Halves the image, doubles the width, and adds two convolutions to a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.widen = conv(inputs, outputs)
        self.pool = nn.MaxPool2d(2)
        self.branch = nn.Sequential(conv(outputs, outputs), conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, inputs, H, W) to (B, outputs, H / 2, W / 2)."""
        x = self.pool(self.widen(x))
        return x + self.branch(x)


class Network(nn.Module):
    """Three stages between a strided stem and a linear head: 10 convolutions, 0.12 million parameters."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv(3, width)
        self.stages = nn.Sequential(*(Stage(width * 2**i, width * 2 ** (i + 1)) for i in range(3)))
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, classes) of images (B, 3, 32, 32)."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def make() -> nn.Module:
    """The dense network."""
    return Network()
