"""What a training reads: the batches of its task, augmented as its recipe says."""

import torch

from prunas.data.dataset import Alternating, Indices
from prunas.errors import InputError
from prunas.recipe import Recipe
from prunas.tasks.base import Feed, Task

__all__ = ["training_feed"]


def training_feed(task: Task, recipe: Recipe, members: Indices, device: torch.device) -> Feed:
    """The batches of one training.

    Args:
        task: Gives the samples.
        recipe: Gives batch size, augmentation and memory layout.
        members: Positions of the samples.
        device: Where the batches are.

    Raises:
        InputError: The task's samples cannot be augmented as the recipe says.
    """
    feed: Feed = task.feed(
        members, recipe.batch, device=device, augment=recipe.augment, channels_last=recipe.channels_last
    )
    if recipe.flip == "alternating" and recipe.augment:
        if not isinstance(feed, Alternating):
            raise InputError(
                f"the data of task {task.name!r} cannot be mirrored in turn, and the recipe says flip = "
                '"alternating"; set flip = "random"'
            )
        feed = feed.alternating()
    return feed
