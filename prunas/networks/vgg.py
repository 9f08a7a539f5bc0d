"""VGG for small images, with batch norm (Simonyan & Zisserman 2015; the study's CIFAR variants)."""

from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from prunas.networks.initialise import initialise

__all__ = ["VGG", "vgg11", "vgg16", "vgg19"]

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each with batch norm and ReLU; max pooling between stages.

    Args:
        depth: 11, 16 or 19.
        classes: Outputs.
        channels: Channels of the input image.
        base: Width of the first stage; the others have 2, 4, 8 and 8 times as many.
        pools: After how many of the first four stages the map is halved; 4 for 32 x 32 images.
        head: `linear`, as network slimming uses it, or `hidden`: linear(512), batch norm, ReLU, linear, as the
            study uses it for L1-norm pruning.
        conv_bias: Whether convolutions have a bias (the study's unstructured pruning).
        gamma: Initial scale of the convolutions' batch norms; that of a hidden head starts at 1.
        fan: See `initialise`.
    """

    def __init__(
        self,
        depth: int,
        classes: int = 10,
        channels: int = 3,
        base: int = 64,
        pools: int = 4,
        head: Literal["linear", "hidden"] = "linear",
        conv_bias: bool = False,
        gamma: float = 0.5,
        fan: Literal["in", "out"] = "out",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage, (count, factor) in enumerate(zip(CONVOLUTIONS[depth], (1, 2, 4, 8, 8), strict=True)):
            width = factor * base
            for _ in range(count):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=conv_bias),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
            if stage < pools:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier: nn.Module = nn.Linear(channels, classes)
        if head == "hidden":
            hidden = 8 * base
            self.classifier = nn.Sequential(
                nn.Linear(channels, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, classes),
            )
        initialise(self, gamma=gamma, fan=fan, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        x = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return cast(Tensor, self.classifier(x))


def vgg11(**options: object) -> VGG:
    """VGG-11; see `VGG` for the options."""
    return VGG(11, **options)  # type: ignore[arg-type]  # checked when the options are used


def vgg16(**options: object) -> VGG:
    """VGG-16; see `VGG` for the options."""
    return VGG(16, **options)  # type: ignore[arg-type]


def vgg19(**options: object) -> VGG:
    """VGG-19; see `VGG` for the options."""
    return VGG(19, **options)  # type: ignore[arg-type]
