"""Accuracy of a network on a split."""

import torch
from torch import nn

from prunas.data.dataset import DataSet, Split
from prunas.recipe import Recipe
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
    # A million pixels a batch: small images by the thousand, large ones as the recipe has them.
    batch = max(recipe.batch, 2**20 // (data.shape[1] * data.shape[2]))
    feed = data.feed(data.members(split), batch, device=device, channels_last=recipe.channels_last)
    context = autocast(recipe, device)
    arithmetic(recipe, device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    # A pass or two is over before a search for algorithms would pay.
    search, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    net.eval()
    try:
        for draw in feed.draws(None):
            x, y = feed.gather(draw)
            with context:
                output = net(x)
            hits += (output.argmax(1) == y).sum()
    finally:
        torch.backends.cudnn.benchmark = search
        for module, mode in modes:
            module.training = mode
    return 100 * int(hits) / data.sizes[split]
