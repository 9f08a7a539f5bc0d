"""The network of the table: three stages, each a leading convolution and a residual branch that may go."""

from torch import Tensor, nn


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A convolution of 3 x 3 with its batch norm and rectifier."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Stage(nn.Module):
    """A convolution to the stage's width, then a shortcut around one more."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.lead = conv(inputs, outputs, stride)
        self.branch = conv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        x = self.lead(x)
        return x + self.branch(x)


class Network(nn.Module):
    """Three stages, the later two with half as many rows and columns, and a linear head: 6 convolutions."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.stages = nn.Sequential(Stage(3, width, 1), Stage(width, width, 2), Stage(width, width, 2))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, classes) of images (B, 3, H, W)."""
        return self.head(self.stages(x).mean((2, 3)))


def make() -> nn.Module:
    """The dense network."""
    return Network()
