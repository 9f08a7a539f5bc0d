"""Networks of the study and of published shapes as plain PyTorch modules: no width lists, nothing of pruning."""

from prunas.networks.densenet import DenseNet, densenet40, densenetbc100
from prunas.networks.mobilenet import (
    InvertedResidualNet,
    MobileNetV1,
    mnasnet,
    mobilenet_v1,
    mobilenet_v2,
)
from prunas.networks.projected import ProjectedResNet, projected_resnet
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
    "InvertedResidualNet",
    "MobileNetV1",
    "PreResNet",
    "ProjectedResNet",
    "ResNet",
    "densenet40",
    "densenetbc100",
    "mnasnet",
    "mobilenet_v1",
    "mobilenet_v2",
    "preresnet20",
    "preresnet110",
    "preresnet164",
    "projected_resnet",
    "resnet20",
    "resnet56",
    "resnet110",
    "vgg11",
    "vgg16",
    "vgg19",
]
