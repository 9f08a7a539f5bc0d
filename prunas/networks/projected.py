"""ResNets for CIFAR whose blocks may each have a width of their own (Dong & Yang 2019, arXiv:1905.09717)."""

from collections.abc import Collection, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from prunas.networks.initialise import initialise
from prunas.networks.resnet import BasicBlock

__all__ = ["ProjectedResNet", "projected_resnet"]


class ProjectedBlock(BasicBlock):
    """A basic block whose shortcut may have a convolution.

    Where the stride is 2 the shortcut is average pooling and a 1x1 convolution without batch norm; where it is
    projected at stride 1, a 1x1 convolution with one; else it has no parameters.
    """

    def __init__(self, channels: int, width: int, stride: int, projected: bool) -> None:
        super().__init__(channels, width, stride)
        if stride != 1:
            self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, width, 1, bias=False))
        elif projected:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


class ProjectedResNet(nn.Module):
    """Three stages of basic blocks, 6n + 2 layers, with 1x1 convolutions on the shortcuts that change a width.

    Args:
        depth: 20, 32, 56, ...
        classes: Outputs.
        projected: Blocks of stride 1, counted from 0, whose shortcut has a convolution: those whose width a shape
            changes. Those of stride 2 have one anyway.
        stages: Blocks of each stage; by default (depth - 2) / 6 in all three.
        base: Width of the first stage.
    """

    def __init__(
        self,
        depth: int = 20,
        classes: int = 10,
        projected: Collection[int] = (),
        stages: Sequence[int] | None = None,
        base: int = 16,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, base, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        width = base
        blocks: list[nn.Module] = []
        for stage, count in enumerate(stages or [(depth - 2) // 6] * 3):
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(ProjectedBlock(width, base << stage, stride, len(blocks) in projected))
                width = base << stage
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(width, classes)
        initialise(self, gamma=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, height, width)."""
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return cast(Tensor, self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def projected_resnet(
    depth: int = 20,
    classes: int = 10,
    projected: Collection[int] = (),
    stages: Sequence[int] | None = None,
    base: int = 16,
) -> ProjectedResNet:
    """A ResNet with widths of its own in every block; see `ProjectedResNet`."""
    return ProjectedResNet(depth, classes, projected, stages, base)
