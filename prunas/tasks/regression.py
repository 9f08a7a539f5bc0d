"""The task `regression`: numbers, squared error, its root over a split."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunas.data.dataset import Batch
from prunas.tasks.base import DataSetTask, Network, shape_problem
from prunas.tasks.score import Score

__all__ = ["Regression"]

FAR = 10.0
"""Mean or deviation of targets from which on, and under whose inverse, a note says so."""


class Regression(DataSetTask):
    """Of values; the network returns a tensor of the shape of the targets.

    Targets are learnt as they are, in their units: a network that was trained elsewhere answers in these. The
    score is the root of the mean squared error, over samples and numbers of a sample.
    """

    name = "regression"
    score = Score(name="RMSE", better="lower", low=0.0)
    statistics = 2

    @property
    def chance(self) -> float:
        """Error of a network that always answers the mean of the training targets."""
        mean = self.targets("train").double().mean(0)
        return float((self.targets("test") - mean).square().mean().sqrt())

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the data, and one where targets are far from mean 0 and deviation 1."""
        targets = self.targets("train").double()
        mean, deviation = float(targets.mean()), float(targets.std())
        if 1 / FAR < deviation < FAR and abs(mean) < FAR:
            return self.data.notes
        return (
            *self.data.notes,
            f"targets have mean {mean:.4g} and deviation {deviation:.4g}; networks learn faster from targets near "
            "mean 0 and deviation 1: scale them in the data set, unless given weights answer in these units",
        )

    def loss(self, net: Network, batch: Batch) -> Tensor:
        """Mean squared error."""
        inputs, targets = batch
        return F.mse_loss(net(inputs), targets)

    def distillation_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Mean squared difference; there are no probabilities to soften."""
        return F.mse_loss(student, teacher)

    def totals(self, net: Network, batch: Batch) -> Tensor:
        """Squared errors, and how many."""
        inputs, targets = batch
        squares = (net(inputs) - targets).square().sum()
        return torch.stack((squares, torch.full_like(squares, targets.numel())))

    def result(self, totals: Tensor) -> float:
        """Root of the mean squared error."""
        squares, numbers = totals.tolist()
        return math.sqrt(squares / numbers)

    def unfit(self, output: Any, images: int) -> str | None:
        """See `Task.unfit`."""
        shape = (images, *self.targets("train", 1).shape[1:])
        return shape_problem(output, shape, "the shape of its targets")

    def unusable(self) -> str | None:
        """See `Task.unusable`."""
        for split in ("train", "val", "test"):
            targets = self.targets(split)
            if not targets.is_floating_point():
                kind = str(targets.dtype).removeprefix("torch.")
                return f'have targets of {kind}; values are floats, and classes belong to task = "classification"'
            if not bool(targets.isfinite().all()):
                return f"have targets in {split} that are not finite; drop these samples, or fill their values in"
            if len(targets) > 1 and bool((targets == targets[0]).all()):
                return f"have the same target for every sample of {split}; nothing can be told apart there"
        return None
