"""The study's ImageNet networks that torchvision does not have.

`prunas.networks` does not import this module: torchvision takes a second or two to load.
"""

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from prunas.networks.initialise import initialise

__all__ = ["PreResNet50", "preresnet50", "resnet50", "vgg11", "vgg16_gap"]


def vgg11(classes: int = 1000) -> nn.Sequential:
    """VGG-11 of network slimming: batch norm behind every convolution and both hidden linear layers, no dropout.

    Convolutions have a bias, scales start at 0.5. Maps larger than 7 x 7 in front of the head are pooled to it.
    """
    net = nn.Sequential(
        OrderedDict(
            features=make_layers(cfgs["A"], batch_norm=True),
            pool=nn.AdaptiveAvgPool2d(7),
            flatten=nn.Flatten(),
            classifier=nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.BatchNorm1d(4096),
                nn.ReLU(inplace=True),
                nn.Linear(4096, 4096),
                nn.BatchNorm1d(4096),
                nn.ReLU(inplace=True),
                nn.Linear(4096, classes),
            ),
        )
    )
    initialise(net, gamma=0.5, head_gamma=0.5, linear_std=0.01)
    return net


def vgg16_gap(classes: int = 1000) -> nn.Sequential:
    """VGG-16 without batch norm, last max pooling and hidden layers: global average pooling, one linear layer.

    The form of ThiNet's VGG-GAP and VGG-Tiny (Luo et al. 2017), at full width.
    """
    net = nn.Sequential(
        OrderedDict(
            features=make_layers(cfgs["D"][:-1]),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(512, classes),
        )
    )
    initialise(net, gamma=1.0, linear_std=0.01)
    return net


def resnet50(classes: int = 1000) -> models.ResNet:
    """torchvision's ResNet-50 with a bias, at first 0, on the convolutions of its four projecting shortcuts.

    The study's ThiNet and regression networks are made so.
    """
    net = models.resnet50(num_classes=classes)
    for block in net.modules():
        if isinstance(block, Bottleneck) and block.downsample is not None:
            shortcut = block.downsample[0]
            shortcut.bias = nn.Parameter(torch.zeros(shortcut.out_channels))
    return net


class PreBottleneck(nn.Module):
    """Pre-activation bottleneck: 1x1, 3x3 and 1x1 convolutions, each behind batch norm and ReLU.

    The projection, where the shape changes, is a 1x1 convolution of the activated input; otherwise the shortcut
    is the raw input.
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
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, h, w) to (batch, 4 * width, h / stride, w / stride)."""
        activated = F.relu(self.bn1(x))
        y = self.conv1(activated)
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        return cast(Tensor, y + (x if self.shortcut is None else self.shortcut(activated)))


class PreResNet50(nn.Module):
    """Pre-activation ResNet-50 of sparse structure selection (Huang & Wang 2018).

    The stem is a 7x7 convolution of stride 2, batch norm, ReLU and max pooling; the stride of a stage is in its
    first 3x3 convolution. Initialised like torchvision's ResNet.

    Args:
        classes: Outputs.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        stages = []
        for stage, count in enumerate((3, 4, 6, 3)):
            blocks = []
            for i in range(count):
                blocks.append(PreBottleneck(channels, 64 << stage, 2 if stage and not i else 1))
                channels = PreBottleneck.expansion * (64 << stage)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        initialise(self, gamma=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, height, width)."""
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.bn2(x)), 1)
        return cast(Tensor, self.fc(x.flatten(1)))


def preresnet50(classes: int = 1000) -> PreResNet50:
    """Pre-activation ResNet-50; see `PreResNet50`."""
    return PreResNet50(classes)
