import numpy as np
import pytest
import torch
from torch import nn

from prunas.data.resident import resident
from prunas.recipe import recipe
from prunas.tasks.classification import Classification
from prunas.training.evaluate import evaluate


class Brightness(nn.Module):
    """Says class 1 where the mean pixel is above grey."""

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


def test_percent_of_a_split_over_several_batches():
    # At most 128 images a batch, which stay in a processor's cache. Images 0..599 are labelled as they look, the
    # rest are not.
    n = 1500
    bright = np.arange(n) % 2
    pixels = (bright[:, None, None, None] * np.ones((1, 32, 32, 1)) * 255).astype(np.uint8)
    labels = np.where(np.arange(n) < 600, bright, 1 - bright)
    data = resident(
        "planted",
        pixels,
        labels,
        {"train": np.arange(600), "val": np.arange(600, 700), "test": np.arange(n)},
        peak=255,
        mean=(0.5,),
        std=(0.5,),
        pad=4,
        flip=True,
    )
    net = nn.Sequential(Brightness(), nn.Dropout(), nn.BatchNorm1d(2))
    net.train()
    net[2].eval()
    device = torch.device("cpu")
    sizes = []
    net.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    scores = [
        evaluate(net, Classification(data), s, device=device, recipe=recipe("paper"))
        for s in ("train", "val", "test")
    ]
    assert scores == pytest.approx([100, 0, 40])
    assert sizes == [120] * 5 + [100] + [125] * 12  # as equal as they can be
    assert [m.training for m in net.modules()] == [True, True, True, False]
    assert net[2].num_batches_tracked == 0
