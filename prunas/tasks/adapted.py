"""A task with the loss or the score of a user's functions in place of its own."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from prunas.data.dataset import Indices
from prunas.errors import InputError
from prunas.files import digest
from prunas.tasks.base import (
    Distillable,
    Feed,
    Inputs,
    Mixable,
    Network,
    Smoothable,
    Split,
    Task,
    Totals,
    joined,
)
from prunas.tasks.score import Averaged, Score, described

__all__ = ["Adapted", "adapted"]

Function = Callable[[Any, Any], Any]
"""Of (outputs, targets): what a network returned for the inputs of a batch, and the other part of the batch."""


class Adapted:
    """A task that learns by another loss, or is judged by another score.

    Attributes:
        task: Whose data it has, and all else that is not replaced. Its batches are pairs (inputs, targets).
        score: See `Task`.
        smoothed_loss: See `Smoothable`; not there beside a loss of a user's.
        distillation_loss: See `Distillable`; not there where nothing reads outputs in the task's way.
        soft_classes: See `Mixable`; not there beside a user's function, which is given labels as they are.
    """

    smoothed_loss: Callable[[Network, Any, float], Tensor]
    distillation_loss: Callable[[Any, Any, float], Tensor]
    soft_classes: int

    def __init__(
        self,
        task: Task,
        loss: Function | None,
        measure: Function | None,
        score: Score,
        of: Averaged,
        parts: Mapping[str, Any],
    ) -> None:
        self.task, self.score = task, score
        self._loss, self._measure, self._of, self._parts = loss, measure, of, parts
        if isinstance(task, Smoothable) and loss is None:
            self.smoothed_loss = task.smoothed_loss
        if isinstance(task, Distillable) and (loss is None or measure is None):
            self.distillation_loss = task.distillation_loss
        if isinstance(task, Mixable) and loss is None and measure is None:
            self.soft_classes = task.soft_classes

    @property
    def name(self) -> str:
        """That of the task."""
        return self.task.name

    @property
    def identity(self) -> str:
        """Digest of the task's and of what replaces its parts."""
        return digest([self.task.identity, self.score.to_json(), self._of, dict(self._parts)])

    @property
    def inputs(self) -> Inputs:
        """Those of the task."""
        return self.task.inputs

    @property
    def statistics(self) -> int | None:
        """Sum and number of a score's values."""
        if self._measure is None:
            return self.task.statistics
        return 2 if self._of == "sample" else None

    @property
    def scores_training(self) -> bool:
        """Where the task does, and a score can be summed."""
        return self.task.scores_training and self.statistics is not None

    @property
    def loss_of_outputs(self) -> bool:
        """A function is given outputs alone."""
        return self._loss is not None or self.task.loss_of_outputs

    @property
    def chance(self) -> float | None:
        """Known of the task's own score alone."""
        return self.task.chance if self._measure is None else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the task."""
        return self.task.notes

    def members(self, split: Split, images: int = 0) -> Indices:
        """Those of the task."""
        return self.task.members(split, images)

    def feed(
        self,
        members: Indices,
        batch: int,
        *,
        device: torch.device,
        augment: bool = False,
        channels_last: bool = False,
    ) -> Feed:
        """That of the task."""
        return self.task.feed(members, batch, device=device, augment=augment, channels_last=channels_last)

    def calibration(
        self, images: int, *, seed: int, device: torch.device, batch: int = 256, subset: int = 0
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """That of the task."""
        return self.task.calibration(images, seed=seed, device=device, batch=batch, subset=subset)

    def size(self, batch: Any) -> int:
        """As the task counts."""
        return self.task.size(batch)

    def loss(self, net: Network, batch: Any) -> Tensor:
        """What the function makes of outputs and targets; the task's own where there is none.

        Raises:
            InputError: It is no scalar.
        """
        if self._loss is None:
            return self.task.loss(net, batch)
        inputs, targets = batch
        loss = self._loss(net(inputs), targets)
        if not isinstance(loss, Tensor) or loss.ndim:
            kind = f"tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(
                f"task {self.name!r}: its loss function returns a {kind}; return a scalar tensor"
            )
        return loss

    def totals(self, net: Network, batch: Any) -> Any:
        """Sum of the function's values, and their number; outputs and targets where it wants all of them.

        Raises:
            InputError: There is not one value for each sample.
        """
        if self._measure is None:
            return self.task.totals(net, batch)
        inputs, targets = batch
        outputs = net(inputs)
        if self._of == "split":
            return outputs, targets
        values = self._measure(outputs, targets)
        if not isinstance(values, Tensor) or values.shape != (self.size(batch),):
            kind = (
                f"tensor of shape {tuple(values.shape)}"
                if isinstance(values, Tensor)
                else type(values).__name__
            )
            raise InputError(
                f"task {self.name!r}: its score function returns a {kind} for {self.size(batch)} samples; return "
                'a tensor with a value for each, or say of = "split" where a score is no mean over samples'
            )
        total = values.float().sum()
        return torch.stack((total, torch.full_like(total, len(values))))

    def result(self, totals: Totals) -> float:
        """Mean of the values, or what the function makes of a split."""
        if self._measure is None:
            return self.task.result(totals)
        if self._of == "split":
            outputs, targets = zip(*totals, strict=True)
            return float(self._measure(joined(outputs), joined(targets)))
        total, samples = totals.tolist()
        return float(total / samples)

    def unfit(self, output: Any, images: int) -> str | None:
        """As the task says, unless nothing reads outputs in its way."""
        if self._loss is not None and self._measure is not None:
            return None
        return self.task.unfit(output, images)

    def unusable(self) -> str | None:
        """As the task says."""
        return self.task.unusable()

    def example(self, images: int) -> Indices:
        """That of the task."""
        return self.task.example(images)


def adapted(
    task: Task,
    loss: Function | None,
    measure: Function | None,
    table: Mapping[str, Any],
    parts: Mapping[str, Any],
) -> Adapted:
    """A task with another loss or another score.

    Args:
        task: The task.
        loss: Instead of its loss: a scalar tensor of (outputs, targets).
        measure: Instead of its score: see `prunas.tasks.score.scored`.
        table: What a user says about the score; see `prunas.tasks.score.described`.
        parts: What loss and measure are, as JSON values: for the identity.

    Raises:
        InputError: The score is not described.
    """
    return Adapted(task, loss, measure, *described(measure, table, task.score), parts)
