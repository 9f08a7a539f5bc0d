"""Networks and data of the canvases: two segmenters, a detector of torchvision with a backbone of its own, a YOLO.

Digits of other writers are in every split. Segmenters see canvases of 32 x 32 pixels, detectors of 64 x 64.
"""

import sys
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from segmentation import UNet
from yolo_like import YOLOLike

from canvases import canvases

SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""Which of scikit-learn's digits, ordered by writer, a split draws from."""


def masks(images: int = 1500, held: int = 400) -> dict[str, tuple]:
    """Images (N, 3, 32, 32) with a class for every pixel (N, 32, 32).

    Args:
        images: In the training split.
        held: In the validation and in the test split.
    """
    splits = {}
    for seed, (split, share) in enumerate(SHARES.items()):
        drawn = canvases(images if split == "train" else held, channels=3, seed=seed, share=share)
        splits[split] = drawn.images.transpose(0, 3, 1, 2), drawn.masks.astype(np.int64)
    return splits


def boxes(images: int = 1500, held: int = 400, first_label: int = 0) -> dict[str, tuple]:
    """Images (N, 3, 64, 64) with boxes (N, 4, 4) in pixels and labels (N, 4), -1 where there is no object.

    Args:
        images: In the training split.
        held: In the validation and in the test split.
        first_label: What digit 0 is labelled: 1 where 0 is background.
    """
    splits = {}
    for seed, (split, share) in enumerate(SHARES.items()):
        drawn = canvases(images if split == "train" else held, channels=3, seed=seed, share=share, zoom=2)
        labels = drawn.detector_labels if first_label else drawn.labels
        splits[split] = drawn.images.transpose(0, 3, 1, 2), {"boxes": drawn.boxes, "labels": labels}
    return splits


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def unet() -> nn.Module:
    """U-Net of three steps, 8 channels at full resolution."""
    return UNet(8, 3)


class LRASPP(nn.Module):
    """A backbone of two resolutions under a head like LR-ASPP's (Howard et al. 2019, arXiv:1905.02244).

    Args:
        width: Channels at full resolution; twice as many at half of it, four times at a quarter.
        classes: With the background.
    """

    def __init__(self, width: int = 16, classes: int = 11) -> None:
        super().__init__()
        self.stem = conv(3, width)
        self.low = nn.Sequential(conv(width, 2 * width, 2), conv(2 * width, 2 * width))
        self.high = nn.Sequential(
            conv(2 * width, 4 * width, 2), *(conv(4 * width, 4 * width) for _ in range(3))
        )
        self.project = conv(4 * width, 2 * width, kernel=1)
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4 * width, 2 * width, 1), nn.Sigmoid())
        self.low_classes = nn.Conv2d(2 * width, classes, 1)
        self.high_classes = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (batch, 3, H, W) to logits (batch, classes, H, W)."""
        size = x.shape[-2:]
        low = self.low(self.stem(x))
        high = self.high(low)
        gated = self.project(high) * self.scale(high)
        gated = F.interpolate(gated, size=low.shape[-2:], mode="bilinear", align_corners=False)
        answer = self.low_classes(low) + self.high_classes(gated)
        return F.interpolate(answer, size=size, mode="bilinear", align_corners=False)


def lraspp() -> nn.Module:
    """A small network under an LR-ASPP head."""
    return LRASPP()


class Backbone(nn.Sequential):
    """Seven convolutions to an eighth of the resolution; torchvision's detectors read `out_channels`."""

    def __init__(self, width: int = 16, outputs: int = 32) -> None:
        super().__init__(
            conv(3, width, 2),
            conv(width, 2 * width, 2),
            conv(2 * width, 2 * width),
            conv(2 * width, 4 * width, 2),
            conv(4 * width, 4 * width),
            conv(4 * width, 4 * width),
            conv(4 * width, outputs, kernel=1),
        )
        self.out_channels = outputs


def fcos() -> nn.Module:
    """torchvision's FCOS (Tian et al. 2019, arXiv:1904.01355) for digits, at one scale of stride 8."""
    backbone = Backbone()
    return FCOS(
        backbone,
        num_classes=11,
        min_size=64,
        max_size=64,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        anchor_generator=AnchorGenerator(sizes=((8,),), aspect_ratios=((1.0,),)),
        head=FCOSHead(backbone.out_channels, 1, 11, num_convs=1),
        score_thresh=0.05,
        topk_candidates=64,
        detections_per_img=20,
    )


def yolo() -> nn.Module:
    """The YOLO-like network of the examples, half as wide as the usual small one."""
    return YOLOLike(classes=10, width=8)
