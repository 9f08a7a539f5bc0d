"""What a training reads: the batches of its task, augmented as its recipe says."""

import torch

from prunas.data.dataset import Alternating, Indices
from prunas.errors import InputError
from prunas.recipe import Recipe
from prunas.tasks.base import Feed, Mixable, Task
from prunas.training.mixes import Mixed

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
    if recipe.transforms:
        feed = _transformed(feed, task, recipe)
    if recipe.mixup or recipe.cutmix:
        feed = _mixed(feed, task, recipe, members, device)
    return feed


def _transformed(feed: Feed, task: Task, recipe: Recipe) -> Feed:
    from prunas.data.transforms import Transformable, make_transforms

    if not isinstance(feed, Transformable):
        raise InputError(
            f"the images of task {task.name!r} cannot pass through transforms; leave them out of the recipe"
        )
    return feed.transformed(make_transforms(recipe.transforms, task.inputs.shapes[0]))


def _mixed(feed: Feed, task: Task, recipe: Recipe, members: Indices, device: torch.device) -> Feed:
    shape = task.inputs.shapes[0]
    if not isinstance(task, Mixable) or len(shape) != 3:
        raise InputError(
            f"task {task.name!r} has no images of classes to mix; leave mixup and cutmix out of the recipe"
        )
    return Mixed(
        feed,
        recipe,
        classes=task.soft_classes,
        size=(shape[1], shape[2]),
        steps=-(-len(members) // recipe.batch),
        device=device,
    )
