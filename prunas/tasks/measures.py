"""Score functions of outputs and targets, to be named in a space's file: `score = "prunas.tasks.measures:r2"`.

They speak of a split as a whole, except where their docstring says otherwise. Computed by scikit-learn, and for
boxes by torchmetrics with pycocotools, an extra.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from prunas.errors import InputError
from prunas.tasks.score import Score, scored

__all__ = [
    "average_precision",
    "average_precision_50",
    "f1",
    "mean_absolute_error",
    "mean_average_precision",
    "r2",
]

_percent = partial(Score, unit="%", low=0.0, high=100.0, margin=0.2)


@scored(Score(name="R2", high=1.0, margin=0.002), of="split")
def r2(outputs: Tensor, targets: Tensor) -> float:
    """Coefficient of determination, mean over the numbers of a sample: 1 at best, 0 for answering the mean."""
    from sklearn.metrics import r2_score

    return float(r2_score(targets.flatten(1).double().numpy(), outputs.flatten(1).double().numpy()))


@scored(Score(name="mean absolute error", better="lower", low=0.0))
def mean_absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Absolute error of each sample (batch,), mean over its numbers; of every sample."""
    return (outputs - targets).abs().flatten(1).mean(1)


@scored(_percent(name="mAP"), of="split")
def mean_average_precision(outputs: Tensor, targets: Tensor) -> float:
    """Mean over classes of average precision in percent: sum of precision at each rank times the gain in recall.

    Without interpolation (scikit-learn's `average_precision_score`). A class that no sample has is left out.

    Args:
        outputs: (samples, classes); greater is surer.
        targets: (samples, classes), 0 or 1.
    """
    from sklearn.metrics import average_precision_score

    there = targets.bool().any(0)
    if not bool(there.any()):
        return float("nan")
    answers, truth = outputs[:, there].double().numpy(), targets[:, there].numpy()
    return float(100 * average_precision_score(truth, answers, average="macro"))


@scored(_percent(name="F1"), of="split")
def f1(outputs: Tensor, targets: Tensor) -> float:
    """Harmonic mean of precision and recall in percent, mean over classes; a class is answered above logit 0.

    Args:
        outputs: Logits (samples, classes).
        targets: (samples, classes), 0 or 1.
    """
    from sklearn.metrics import f1_score

    return float(100 * f1_score(targets.numpy(), (outputs > 0).numpy(), average="macro", zero_division=0.0))


@scored(_percent(name="AP"), of="split")
def average_precision(outputs: Sequence[Any], targets: Sequence[Any]) -> float:
    """COCO's AP in percent: mean over classes and over overlaps (IoU) of 0.50, 0.55, ..., 0.95.

    Args:
        outputs: Per image, a dict of `boxes` (n, 4), `labels` (n,) and `scores` (n,).
        targets: Per image, a dict of `boxes` and `labels`.
    """
    return _coco(outputs, targets)["map"]


@scored(_percent(name="AP50"), of="split")
def average_precision_50(outputs: Sequence[Any], targets: Sequence[Any]) -> float:
    """COCO's AP at an overlap (IoU) of 0.50 in percent; arguments as of `average_precision`."""
    return _coco(outputs, targets)["map_50"]


def _coco(outputs: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """COCO's summary in percent; not a number where no image has an object."""
    try:
        import pycocotools  # noqa: F401
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError as error:
        raise InputError(
            f"average precision of boxes needs torchmetrics and pycocotools ({error}); install prunas[detection]"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pycocotools, about numpy
        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", backend="pycocotools")
        metric.warn_on_many_detections = (
            False  # COCO judges the surest 100 of an image, and says so once a batch
        )
        metric.update([dict(one) for one in outputs], [dict(one) for one in targets])
        summary = metric.compute()
    return {
        name: 100 * value if (value := float(summary[name])) >= 0 else float("nan")
        for name in ("map", "map_50")
    }
