"""The task `classification`: one label an image, cross entropy, top-1 accuracy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import bdtr
from torch import Tensor

from prunas.data.dataset import Batch
from prunas.data.samples import Kind, kind_of
from prunas.data.splitting import only_class
from prunas.tasks.base import DataSetTask, Network
from prunas.tasks.distillation import softened_divergence
from prunas.tasks.score import ACCURACY

__all__ = ["Classification", "chance_ceiling"]

TASKS: Mapping[Kind, str] = {
    "multilabel": "multilabel",
    "values": "regression",
    "mask": "segmentation",
    "boxes": "detection",
}
"""What targets of other kinds are for."""

LEVEL = 0.95
"""Share of all tests in which guessing stays below `chance_ceiling`, or meets it."""


class Classification(DataSetTask):
    """Of labelled images; the network returns a number per image and class.

    Its identity is that of its data: nothing else can be chosen.
    """

    name = "classification"
    score = ACCURACY
    statistics = 2

    @property
    def identity(self) -> str:
        """That of the data."""
        return self.data.identity

    @property
    def chance(self) -> float:
        """What guessing the most frequent class reaches, in percent; see `chance_ceiling`."""
        tested = np.bincount(self.data.labels[self.data.splits["test"]])
        return chance_ceiling(tested.max() / tested.sum(), int(tested.sum()))

    @property
    def soft_classes(self) -> int:
        """Those of the data; a label is a class, or shares of all of them."""
        return self.data.classes

    def loss(self, net: Network, batch: Batch) -> Tensor:
        """Cross entropy."""
        return self.smoothed_loss(net, batch, 0.0)

    def smoothed_loss(self, net: Network, batch: Batch, smoothing: float) -> Tensor:
        """Cross entropy with smoothed labels (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
        images, labels = batch
        return F.cross_entropy(net(images), labels, label_smoothing=smoothing)

    def distillation_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """See `prunas.tasks.distillation.softened_divergence`."""
        return softened_divergence(student, teacher, temperature)

    def totals(self, net: Network, batch: Batch) -> Tensor:
        """Hits, and images."""
        images, labels = batch
        classes = labels if labels.ndim == 1 else labels.argmax(1)  # of mixed images, the largest share
        hits = (net(images).argmax(1) == classes).sum()
        return torch.stack((hits, torch.full_like(hits, len(labels))))

    def result(self, totals: Tensor) -> float:
        """Percent of hits."""
        hits, images = totals.numpy()
        return float(100 * hits / images)

    def unfit(self, output: Any, images: int) -> str | None:
        """See `Task.unfit`."""
        classes = self.data.classes
        if not isinstance(output, Tensor):
            return f"returns a {type(output).__name__}; a tensor with a number per image and class can be trained"
        if output.ndim != 2 or len(output) != images:
            return (
                f"returns a tensor of shape {tuple(output.shape)} for {images} images; {classes} numbers per "
                "image can be trained, one per class"
            )
        if output.shape[1] < classes:
            return (
                f"has {output.shape[1]} outputs, and its data have {classes} classes; give its factory as many, "
                f"as in arguments = {{ classes = {classes} }}"
            )
        return None

    def unusable(self) -> str | None:
        """See `Task.unusable`."""
        if (kind := kind_of(self.data.targets)) != "class":
            return f'have targets of another kind; write task = "{TASKS[kind]}"'
        for split, members in self.data.splits.items():
            if (only := only_class(self.data.labels[members])) is not None:
                return f"have only class {only} in {split}; nothing can be told apart there"
        return None


def chance_ceiling(share: float, images: int) -> float:
    """Highest accuracy that guessing reaches by chance in `LEVEL` of all tests.

    Args:
        share: Probability, in (0, 1], that a guess is right: the share of the most frequent class.
        images: Images of the test split, at least 1.

    Returns:
        In percent: the quantile of a binomial distribution at `LEVEL`, over its number of images.
    """
    hits = int(share * images)  # no larger than the median
    while bdtr(hits, images, share) < LEVEL:
        hits += 1
    return 100 * hits / images
