"""Accuracy of a network on a split."""

import math

import torch
from torch import nn

from prunas.data.dataset import DataSet, Split
from prunas.recipe import Recipe
from prunas.training.precision import algorithm_search
from prunas.training.step import arithmetic, autocast

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(net: nn.Module, data: DataSet, split: Split, *, device: torch.device, recipe: Recipe) -> float:
    """Percentage of `split` that `net` classifies correctly, without augmentation.

    Args:
        net: On `device`; every module's mode is as before afterwards.
        recipe: Gives precision and memory layout.
    """
    modes = [(module, module.training) for module in net.modules()]
    members = data.members(split)
    # A million pixels a batch: small images by the thousand, large ones as the recipe has them.
    largest = max(recipe.batch, 2**20 // (data.shape[1] * data.shape[2]))
    # Equal batches: cuDNN plans every convolution anew for a last one of another size.
    batch = math.ceil(len(members) / math.ceil(len(members) / largest))
    feed = data.feed(members, batch, device=device, channels_last=recipe.channels_last)
    context = autocast(recipe, device)
    arithmetic(recipe, device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    net.eval()
    try:
        with algorithm_search(False):  # a pass or two is over before a search would pay
            for draw in feed.draws(None):
                x, y = feed.gather(draw)
                with context:
                    output = net(x)
                hits += (output.argmax(1) == y).sum()
    finally:
        for module, mode in modes:
            module.training = mode
    return 100 * int(hits) / data.sizes[split]
