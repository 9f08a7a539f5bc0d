"""The task `segmentation`: a class per pixel, cross entropy, mean intersection over union."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunas.data.dataset import Batch
from prunas.tasks.base import DataSetTask, Network, shape_problem
from prunas.tasks.distillation import softened_divergence
from prunas.tasks.score import Score

__all__ = ["Segmentation"]

IGNORED = 255
"""Class of pixels on which nothing is learnt or judged."""

AUXILIARY = 0.5
"""Weight of a second head's loss, as in torchvision's reference training."""


class Segmentation(DataSetTask):
    """Of images with a mask (H, W) of classes; the network returns (images, classes, H, W), in a dict or not.

    A dict holds the answer as `out`, as torchvision's networks do, and may hold that of a second head as `aux`,
    whose loss counts half in training. The score is the mean over classes of intersection over union (Jaccard
    index), summed over all pixels of a split before it is divided (Everingham et al. 2015, The PASCAL Visual
    Object Classes Challenge: A Retrospective); a class that is neither there nor answered anywhere is left out.
    """

    name = "segmentation"
    score = Score(name="mean IoU", unit="%", low=0.0, high=100.0, margin=0.2)

    @property
    def statistics(self) -> int:  # type: ignore[override]  # an attribute in other tasks
        """Cells of a confusion matrix."""
        return self.data.classes**2

    @property
    def chance(self) -> float:
        """What answering the most frequent class everywhere reaches, in percent."""
        classes = self.data.classes
        there = torch.zeros(classes, dtype=torch.int64)
        for masks in map(self._tensor, self.look("test")):
            there += torch.bincount(masks[masks != IGNORED], minlength=classes)
        return float(100 * there.max() / there.sum() / (there > 0).sum())

    def loss(self, net: Network, batch: Batch) -> Tensor:
        """Cross entropy over the pixels of a batch."""
        return self.smoothed_loss(net, batch, 0.0)

    def smoothed_loss(self, net: Network, batch: Batch, smoothing: float) -> Tensor:
        """Cross entropy with smoothed labels."""
        images, masks = batch
        outputs = net(images)

        def cross_entropy(answer: Tensor) -> Tensor:
            # A batch without a judged pixel would be 0 / 0.
            losses = F.cross_entropy(
                answer, masks, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
            )
            mean: Tensor = losses / (masks != IGNORED).sum().clamp(min=1)
            return mean

        loss = cross_entropy(_answer(outputs))
        if isinstance(outputs, dict) and "aux" in outputs:
            loss = loss + AUXILIARY * cross_entropy(outputs["aux"])
        return loss

    def distillation_loss(self, student: Any, teacher: Any, temperature: float) -> Tensor:
        """See `prunas.tasks.distillation.softened_divergence`; of the first head alone."""
        return softened_divergence(_answer(student), _answer(teacher), temperature)

    def totals(self, net: Network, batch: Batch) -> Tensor:
        """Pixels by class (row) and answer (column), (classes * classes,)."""
        images, masks = batch
        classes = self.data.classes
        answers = _answer(net(images))[:, :classes].argmax(1)
        # Ignored pixels fall into a cell behind the last one. Not bincount, which waits for the device.
        cells = torch.where(masks == IGNORED, classes**2, masks * classes + answers).flatten()
        counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=masks.device)
        return counts.scatter_add_(0, cells, torch.ones_like(cells))[:-1]

    def result(self, totals: Tensor) -> float:
        """Mean intersection over union in percent."""
        pixels = totals.view(self.data.classes, -1)
        both = pixels.diag()
        either = pixels.sum(0) + pixels.sum(1) - both
        return float(100 * (both / either)[either > 0].mean())

    def unfit(self, output: Any, images: int) -> str | None:
        """See `Task.unfit`."""
        classes, size = self.data.classes, tuple(self.targets("train", 1).shape[1:])
        if isinstance(output, dict) and "out" not in output:
            return f"returns a dict with {', '.join(map(str, output)) or 'nothing'}; the answer is read from 'out'"
        answer = _answer(output)
        channels = answer.shape[1] if isinstance(answer, Tensor) and answer.ndim == 4 else classes
        if problem := shape_problem(
            answer, (images, channels, *size), f"{classes} numbers per pixel of the mask"
        ):
            return problem
        if channels < classes:
            return (
                f"has {channels} outputs per pixel, and its data have {classes} classes; give its factory as "
                f"many, as in arguments = {{ classes = {classes} }}"
            )
        return None

    def unusable(self) -> str | None:
        """See `Task.unusable`."""
        for split in ("train", "val", "test"):
            there = torch.zeros(0, dtype=torch.int64)
            for masks in map(self._tensor, self.look(split)):
                if masks.ndim != 3 or masks.is_floating_point():
                    kind = f"{str(masks.dtype).removeprefix('torch.')} of shape {tuple(masks.shape[1:])}"
                    return f"have targets of {kind}; a mask (H, W) of integer classes is wanted"
                there = torch.unique(torch.cat((there, masks[masks != IGNORED])))
            if len(there) < 2:
                only = f"only class {int(there)}" if len(there) else "no judged pixel"
                return f"have {only} in the masks of {split}; nothing can be told apart there"
        return None


def _answer(outputs: Any) -> Any:
    return outputs["out"] if isinstance(outputs, dict) else outputs
