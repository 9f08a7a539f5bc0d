"""Splits whose sizes follow a width, and what runs over the parts: selective kernels, separable attention."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.tracing.survey import survey
from tests.tracing.small import SHAPE, check_points


class SelectiveKernel(nn.Module):
    """Two kernels, each on half of the channels; a softmax over both weighs them (Li et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.paths = 16, 2
        self.first = nn.Conv2d(3, 16, 1)
        self.kernels = nn.ModuleList(nn.Conv2d(8, 12, k, padding=k // 2) for k in (1, 3))
        self.reduce, self.select = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 24, 1)
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(F.relu(self.first(x)), self.width // self.paths, 1)
        x = torch.stack([kernel(parts[i]) for i, kernel in enumerate(self.kernels)], 1)
        weights = self.select(F.relu(self.reduce(x.sum(1).mean((2, 3), keepdim=True))))
        b, c, h, w = weights.shape
        weights = weights.view(b, self.paths, c // self.paths, h, w).softmax(1)
        return self.last((x * weights).sum(1))


class Separable(nn.Module):
    """Attention by one channel of scores (Mehta and Rastegari 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 10
        self.first, self.project = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1 + 2 * self.width, 1)
        self.last = nn.Conv2d(self.width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        sizes = [1, self.width, self.width]
        query, key, value = torch.split(self.project(self.first(x)), sizes, 1)
        context = (key * query.softmax(-1)).sum(-1, keepdim=True)
        return self.last(F.relu(value) * context)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[int]]] = {
    "selective kernel": (SelectiveKernel, [6, 8, 12]),
    "separable": (Separable, [8, 10]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_vary(name: str) -> None:
    factory, units = NETWORKS[name]
    made = check_points(factory, SHAPE)
    assert sorted(group.units for group in made.groups) == units


def test_a_softmax_over_the_channels_alone_holds_them() -> None:
    class Attended(SelectiveKernel):
        def forward(self, x: Tensor) -> Tensor:
            x = self.kernels[0](torch.split(F.relu(self.first(x)), self.width // self.paths, 1)[0])
            return self.last(x.softmax(1))

    assert "softmax runs over channels" in {frozen.why for frozen in survey(Attended, SHAPE).frozen}
