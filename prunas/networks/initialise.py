"""Initial weights of the study's CIFAR networks (its released code; arXiv:1810.05270, section 3)."""

import math
from typing import Literal

from torch import nn

__all__ = ["initialise"]


def initialise(
    net: nn.Module,
    *,
    gamma: float,
    head_gamma: float = 1.0,
    fan: Literal["in", "out"] = "out",
    linear_std: float | None = None,
) -> None:
    """Draws every weight of `net` anew, in place.

    Convolutions: normal with std sqrt(2 / (k * k * channels)), biases 0. Norms: scale `gamma`, shift 0.

    Args:
        net: The network.
        gamma: Initial scale of the batch norms of maps: 0.5 for network slimming (Liu et al. 2017), else 1.
        head_gamma: Of those behind linear layers. The study's CIFAR code leaves them at torch's 1 whatever `gamma`
            is, its ImageNet code does not.
        fan: Whether `channels` are a convolution's filters (`out`) or its inputs (`in`).
        linear_std: Standard deviation of the weights of linear layers, biases 0; None keeps torch's own.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            channels = module.out_channels if fan == "out" else module.in_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (math.prod(module.kernel_size) * channels)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, gamma if isinstance(module, nn.BatchNorm2d) else head_gamma)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, 0.0, linear_std)
            nn.init.zeros_(module.bias)
