"""The study's networks as plain PyTorch modules: no width lists, no knowledge of pruning."""

from prunas.networks.densenet import DenseNet, densenet40, densenetbc100
from prunas.networks.resnet import (
    PreResNet,
    ResNet,
    preresnet20,
    preresnet110,
    preresnet164,
    resnet20,
    resnet56,
    resnet110,
)
from prunas.networks.vgg import VGG, vgg11, vgg16, vgg19

__all__ = [
    "VGG",
    "DenseNet",
    "PreResNet",
    "ResNet",
    "densenet40",
    "densenetbc100",
    "preresnet20",
    "preresnet110",
    "preresnet164",
    "resnet20",
    "resnet56",
    "resnet110",
    "vgg11",
    "vgg16",
    "vgg19",
]
