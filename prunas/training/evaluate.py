"""Score of a network on a split."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from prunas.recipe import Recipe
from prunas.tasks.base import Split, Task, Totals, judge
from prunas.training.precision import algorithm_search
from prunas.training.step import Forward, add_up, arithmetic, no_totals

__all__ = ["Tally", "evaluate"]


class Tally:
    """What a score is made of, batch by batch: summed up on the device, or kept on the CPU."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._task = task
        self._sums = no_totals(task, device)
        self._kept: list[Any] = []

    def add(self, totals: Any) -> None:
        """Takes what `Task.totals` returned for a batch.

        Raises:
            InputError: It is to be summed, and has another shape than the task says.
        """
        if self._task.statistics is None:
            self._kept.append(tree_map_only(Tensor, _on_cpu, totals))
        else:
            add_up(self._task, self._sums, totals)

    def totals(self) -> Totals:
        """What `Task.result` takes. Waits for the device."""
        return self._kept if self._task.statistics is None else self._sums.to("cpu", torch.float64)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


@torch.no_grad()
def evaluate(
    net: nn.Module, task: Task, split: Split, *, device: torch.device, recipe: Recipe, images: int = 0
) -> float:
    """The task's score of `net` on `split`, without augmentation.

    Args:
        net: On `device`; every module's mode is as before afterwards.
        task: What is judged.
        split: The samples it is judged on.
        device: Where.
        recipe: Gives precision and memory layout.
        images: How many of the split's samples, always the same ones; 0 means all.

    Raises:
        InputError: The score is no number, or outside its range.
    """
    modes = [(module, module.training) for module in net.modules()]
    members = task.members(split, images)
    # A million pixels a batch: small images by the thousand, large ones as the recipe has them. A processor takes
    # half the time for batches whose maps stay in its cache: 128 images of CIFAR.
    largest = max(recipe.batch, (2**17 if device.type == "cpu" else 2**20) // task.inputs.positions)
    # Equal batches: cuDNN plans every convolution anew for a last one of another size.
    batch = math.ceil(len(members) / math.ceil(len(members) / largest))
    feed = task.feed(members, batch, device=device, channels_last=recipe.channels_last)
    forward = Forward(net, recipe, device)
    arithmetic(recipe, device)
    tally = Tally(task, device)
    net.eval()
    try:
        with algorithm_search(False):  # a pass or two is over before a search would pay
            for draw in feed.draws(None):
                tally.add(task.totals(forward, feed.gather(draw)))
    finally:
        for module, mode in modes:
            module.training = mode
    return judge(task, tally.totals(), f"the split {split}")
