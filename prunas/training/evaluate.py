"""Score of a network on a split."""

import math

import torch
from torch import nn

from prunas.recipe import Recipe
from prunas.tasks.base import Split, Task, judge
from prunas.training.precision import algorithm_search
from prunas.training.step import Forward, arithmetic, no_totals

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(net: nn.Module, task: Task, split: Split, *, device: torch.device, recipe: Recipe) -> float:
    """The task's score of `net` on `split`, without augmentation.

    Args:
        net: On `device`; every module's mode is as before afterwards.
        task: What is judged.
        split: The samples it is judged on.
        device: Where.
        recipe: Gives precision and memory layout.

    Raises:
        InputError: The score is no number, or outside its range.
    """
    modes = [(module, module.training) for module in net.modules()]
    members = task.members(split)
    # A million pixels a batch: small images by the thousand, large ones as the recipe has them.
    largest = max(recipe.batch, 2**20 // task.inputs.positions)
    # Equal batches: cuDNN plans every convolution anew for a last one of another size.
    batch = math.ceil(len(members) / math.ceil(len(members) / largest))
    feed = task.feed(members, batch, device=device, channels_last=recipe.channels_last)
    forward = Forward(net, recipe, device)
    arithmetic(recipe, device)
    totals = no_totals(task, device)
    net.eval()
    try:
        with algorithm_search(False):  # a pass or two is over before a search would pay
            for draw in feed.draws(None):
                totals += task.totals(forward, feed.gather(draw))
    finally:
        for module, mode in modes:
            module.training = mode
    return judge(task, totals.to("cpu", torch.float64), f"the split {split}")
