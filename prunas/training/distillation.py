"""A trained network as teacher: a task whose loss listens to it (Hinton et al. 2015, arXiv:1503.02531)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.recipe import Recipe
from prunas.tasks.base import Distillable, Network, Task, training_loss
from prunas.training.step import Forward

__all__ = ["Teacher", "taught"]


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """Who teaches, and how much it is listened to; see `prunas.protocols.Distillation`.

    Attributes:
        net: Trained. It is moved to the device of the training, set to evaluation mode, and never changed.
        temperature: What outputs are divided by before they become probabilities; above 0.
        weight: Of what the teacher says, in (0, 1]; the rest is the task's own loss.
    """

    net: nn.Module
    temperature: float
    weight: float


def taught(task: Task, teacher: Teacher, recipe: Recipe, device: torch.device) -> Task:
    """The task with a teacher: all of it is as before but the loss.

    Args:
        task: What is learnt.
        teacher: Takes what the task gives to a network.
        recipe: Decides precision and memory layout, the same for teacher and student.
        device: Of the training.

    Raises:
        InputError: The task does not say how its outputs are taught.
    """
    if not isinstance(task, Distillable):
        raise InputError(
            f"task {task.name!r} cannot be taught by another network; use a protocol without +distill, or give "
            "the task distillation_loss(student, teacher, temperature)"
        )
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    net = teacher.net.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # a documented overload
    return cast(Task, _Taught(task, Forward(net.eval(), recipe, device), teacher))


class _Taught:
    """Delegates to a task, but for its loss."""

    def __init__(self, task: Task, forward: Network, teacher: Teacher) -> None:
        self._task, self._forward, self._teacher = task, forward, teacher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, net: Network, batch: Any) -> Tensor:
        """Of labels and teacher."""
        return self._mixed(self._task.loss, net, batch)

    def smoothed_loss(self, net: Network, batch: Any, smoothing: float) -> Tensor:
        """The same with smoothed labels; what the teacher says is as soft as its temperature makes it."""
        return self._mixed(training_loss(self._task, smoothing), net, batch)

    def _mixed(self, loss: Callable[[Network, Any], Tensor], net: Network, batch: Any) -> Tensor:
        """(1 - weight) * the task's loss + weight * the mean distillation loss of its forward passes."""
        heard: list[Tensor] = []
        weight, temperature = self._teacher.weight, self._teacher.temperature

        def student(*inputs: Any) -> Any:
            output = net(*inputs)
            with torch.no_grad():
                example = self._forward(*inputs)
            heard.append(cast(Distillable, self._task).distillation_loss(output, example, temperature))
            return output

        labelled = loss(student, batch)
        return (1 - weight) * labelled + weight * torch.stack(heard).mean()
