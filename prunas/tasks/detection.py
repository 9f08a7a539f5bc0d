"""The task `detection`: boxes, the losses of torchvision's detectors, average precision as COCO has it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunas.data.dataset import Indices
from prunas.tasks.base import Network, SplitTask
from prunas.tasks.measures import average_precision
from prunas.tasks.score import Score

__all__ = ["ABSENT", "Detection", "objects"]

ABSENT = -1
"""Label where an image has no further object."""

Targets = Mapping[str, Tensor]
"""`boxes` (images, M, 4) as x1 y1 x2 y2 in pixels and `labels` (images, M), `ABSENT` where there is no object."""


class Detection(SplitTask):
    """Of images with boxes, for networks that are called as torchvision's detectors are.

    In training they are called with images and targets and return losses, of which the sum is descended; in
    evaluation they return a dict of `boxes`, `labels` and `scores` per image. Labels reach the network unchanged:
    torchvision's count from 1, and 0 is background. The score is COCO's AP in percent; that of one overlap is
    `score = "prunas.tasks.measures:average_precision_50"`. A network with another call, such as a dense head whose
    loss is outside of it, is a task of its own: derive it, and override `loss` and `totals`.

    Training batches are not judged, as networks answer with losses there. A step cannot be captured in a CUDA
    graph, because the number of objects decides shapes; it runs eagerly.

    Attributes:
        first_label: Least label of an object.
    """

    name = "detection"
    score = Score(name="AP", unit="%", low=0.0, high=100.0, margin=0.2)
    loss_of_outputs = False
    first_label = 1

    @property
    def chance(self) -> float:
        """Boxes are not found by guessing."""
        return 0.0

    def loss(self, net: Network, batch: tuple[Tensor, Targets]) -> Tensor:
        """Sum of the losses that the network returns."""
        images, targets = batch
        losses: Mapping[str, Tensor] = net(list(images), objects(targets))
        return torch.stack(list(losses.values())).sum()

    def totals(self, net: Network, batch: tuple[Tensor, Targets]) -> Any:
        """What was found, and what is there: a list of dicts each, one per image."""
        images, targets = batch
        return net(list(images)), objects(targets)

    def measure(self, outputs: Sequence[Targets], targets: Sequence[Targets]) -> float:
        """AP in percent."""
        return average_precision(outputs, targets)

    def unfit(self, output: Any, images: int) -> str | None:
        """See `Task.unfit`."""
        wanted = {"boxes", "labels", "scores"}
        if not isinstance(output, list) or not all(isinstance(one, Mapping) for one in output):
            return (
                f"returns a {type(output).__name__} in evaluation; a list with a dict of boxes, labels and scores "
                "per image can be judged, as torchvision's detectors return it"
            )
        if len(output) != images or any(wanted - one.keys() for one in output):
            return f"returns {len(output)} dicts for {images} images, or dicts without {', '.join(sorted(wanted))}"
        return None

    def unusable(self) -> str | None:
        """See `Task.unusable`."""
        for split in ("train", "val", "test"):
            any_there = False
            for targets in self.look(split):
                if not isinstance(targets, Mapping) or {"boxes", "labels"} - targets.keys():
                    return "have no boxes and labels; objects are given as {'boxes': (M, 4), 'labels': (M,)}"
                there = targets["labels"] != ABSENT
                any_there |= bool(there.any())
                labels, boxes = targets["labels"][there], targets["boxes"][there]
                if bool((labels < self.first_label).any()):
                    return (
                        f"have an object of label {int(labels.min())} in {split}; labels count from "
                        f"{self.first_label} here, as torchvision's detectors take 0 for background"
                    )
                sound = boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
                if not bool(sound.all()):
                    return (
                        f"have the box {boxes[~sound][0].tolist()} in {split}; give x1 y1 x2 y2 in pixels with "
                        "x1 < x2 and y1 < y2"
                    )
            if not any_there:
                return f"have no object in {split}"
        return None

    def example(self, images: int) -> Indices:
        """Samples with the greatest label, on which a network of too few classes fails."""
        members = self.members("train")
        greatest = torch.cat([targets["labels"].amax(1) for targets in self.look("train", len(members))])
        chosen: Indices = torch.argsort(greatest, descending=True, stable=True)[:images].numpy()
        return np.sort(members[chosen])


def objects(targets: Targets) -> list[dict[str, Tensor]]:
    """The objects of each image without the padding, as torchvision's detectors take them."""
    return [
        {"boxes": boxes[labels != ABSENT], "labels": labels[labels != ABSENT]}
        for boxes, labels in zip(targets["boxes"], targets["labels"], strict=True)
    ]
