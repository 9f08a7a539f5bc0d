"""The task `multilabel`: several classes an image, binary cross entropy, mean average precision."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunas.data.dataset import Batch
from prunas.tasks.base import Network, SplitTask, shape_problem
from prunas.tasks.distillation import softened_divergence
from prunas.tasks.measures import mean_average_precision
from prunas.tasks.score import Score

__all__ = ["Multilabel"]


class Multilabel(SplitTask):
    """Of images with targets 0 or 1 for every class; the network returns a number (logit) per image and class.

    The score is the mean over classes of average precision, see `prunas.tasks.measures.mean_average_precision`.
    """

    name = "multilabel"
    score = Score(name="mAP", unit="%", low=0.0, high=100.0, margin=0.2)

    @property
    def chance(self) -> float | None:
        """What equal answers for all images reach: the mean share of a class's images, in percent."""
        there = self.targets("test").float().mean(0)
        return float(100 * there[there > 0].mean()) if bool(there.any()) else None

    def loss(self, net: Network, batch: Batch) -> Tensor:
        """Binary cross entropy, mean over images and classes."""
        images, targets = batch
        return F.binary_cross_entropy_with_logits(net(images), targets.float())

    def distillation_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """See `prunas.tasks.distillation.softened_divergence`; every class is there or not."""
        ours, theirs = (torch.stack((logits, torch.zeros_like(logits)), 1) for logits in (student, teacher))
        return softened_divergence(ours, theirs, temperature)

    def measure(self, outputs: Tensor, targets: Tensor) -> float:
        """Mean average precision in percent."""
        return mean_average_precision(outputs, targets)

    def unfit(self, output: Any, images: int) -> str | None:
        """See `Task.unfit`."""
        shape = (images, self.targets("train", 1).shape[1])
        return shape_problem(output, shape, f"{shape[1]} numbers per image, one per class")

    def unusable(self) -> str | None:
        """See `Task.unusable`."""
        for split in ("train", "val", "test"):
            targets = self.targets(split)
            if targets.ndim != 2:
                return (
                    f"have targets of shape {tuple(targets.shape[1:])}; one number for every class is wanted"
                )
            if not bool(((targets == 0) | (targets == 1)).all()):
                return f"have targets in {split} that are neither 0 nor 1"
            if not bool(targets.any()):
                return f"have no image of any class in {split}; nothing can be ranked there"
            if bool(targets.all()):
                return f"have all classes in every image of {split}; nothing can be told apart there"
        return None
