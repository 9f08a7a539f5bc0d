"""Costs are those of one image, as torch counts them, whatever in a network has a batch and whatever has none."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.tracing.survey import survey

IMAGE = (3, 8, 8)


class Net(nn.Module):
    """Two convolutions and a classifier; subclasses do something in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 8, 3, 1, 1), nn.Linear(8, 5)
        self.m = self.layer()

    def layer(self) -> nn.Module:
        return nn.Linear(16, 16)

    def between(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.b(self.between(F.relu(self.a(x)))).mean((2, 3)))


class Grid(Net):
    """Positions made from the input's size."""

    def layer(self) -> nn.Module:
        return nn.Linear(2, 16)

    def between(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2], x.shape[3]
        grid = torch.stack(
            (
                torch.arange(rows, device=x.device).view(-1, 1).expand(rows, columns),
                torch.arange(columns, device=x.device).view(1, -1).expand(rows, columns),
            ),
            -1,
        ).to(x.dtype)
        return x + self.m(grid).permute(2, 0, 1)


class Queries(Net):
    """A parameter expanded to the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(1, 7, 16))

    def between(self, x: Tensor) -> Tensor:
        return x + self.m(self.q.expand(x.shape[0], -1, -1)).mean(1)[:, :, None, None]


class Attention(Queries):
    """Products of expanded queries and tokens."""

    def between(self, x: Tensor) -> Tensor:
        tokens = self.m(x.flatten(2).transpose(1, 2))
        weights = torch.matmul(self.q.expand(x.shape[0], -1, -1), tokens.transpose(1, 2)).softmax(-1)
        return x + (weights @ tokens).mean(1)[:, :, None, None]


class SelfAttention(Queries):
    """Queries that attend to each other once for the whole batch, the batch elsewhere being second."""

    def layer(self) -> nn.Module:
        return nn.MultiheadAttention(16, 4)

    def between(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).permute(2, 0, 1)
        queries, _ = self.m(self.q[0], self.q[0], self.q[0], need_weights=False)
        attended, _ = self.m(
            queries.unsqueeze(1).expand(-1, x.shape[0], -1), tokens, tokens, need_weights=False
        )
        return x + attended.mean(0)[:, :, None, None]


class Mean(Net):
    """The mean of the batch."""

    def between(self, x: Tensor) -> Tensor:
        return x * self.m(x.mean((0, 2, 3))).view(1, -1, 1, 1)


class MeanMap(Net):
    """The same as a map, which is convolved without a batch."""

    def layer(self) -> nn.Module:
        return nn.Conv2d(16, 16, 3, 1, 1)

    def between(self, x: Tensor) -> Tensor:
        return x + self.m(x.mean(0)).unsqueeze(0)


class Windows(Net):
    """Windows folded into the batch."""

    def between(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        windows = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        windows = windows + self.m(windows)
        back = windows.view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4)
        return back.reshape(n, c, h, w)


class Pairs(Net):
    """All pairs of images."""

    def between(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))
        return x + self.m(pooled.unsqueeze(0) - pooled.unsqueeze(1)).mean(1)[:, :, None, None]


class Squeezed(Net):
    """Takes no single image, and looks at numbers that are no images."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Linear(2, 16)

    def between(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1).squeeze()
        return x * (self.m(pooled) + self.g(torch.zeros(8, 2, device=x.device)).mean(0))[:, :, None, None]


class Hooked(Net):
    """A hook that multiplies."""

    def layer(self) -> nn.Module:
        layer = nn.Linear(16, 16)
        layer.register_forward_hook(lambda module, inputs, output: output @ module.weight)
        return layer

    def between(self, x: Tensor) -> Tensor:
        return x * self.m(x.mean((2, 3)))[:, :, None, None]


class LowRank(nn.Module):
    """Adds a product of two matrices to a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(16, 2)), nn.Parameter(torch.randn(2, 16))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.a @ self.b


class Derived(Hooked):
    """A weight that is computed at every call."""

    def layer(self) -> nn.Module:
        layer = nn.Linear(16, 16)
        parametrize.register_parametrization(layer, "weight", LowRank())
        return layer


def exported(network: type[Net]) -> type[Net]:
    """The same network, which torch.fx cannot trace."""

    def forward(self: Net, x: Tensor) -> Tensor:
        assert len(x.shape) == 4
        return network.forward(self, x)

    return type(f"Exported{network.__name__}", (network,), {"forward": forward})


def counted(net: nn.Module, images: int) -> int:
    """Multiply-accumulates of so many images, by torch, whose fused attention on a CPU is not counted."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval().to("meta")(torch.zeros(images, *IMAGE, device="meta"))
    return int(counter.get_total_flops()) // 2


NETWORKS: list[Any] = [
    Grid,
    Queries,
    Attention,
    SelfAttention,
    Mean,
    MeanMap,
    Windows,
    Pairs,
    Hooked,
    Derived,
]


@pytest.mark.parametrize("network", [*NETWORKS, *map(exported, NETWORKS)])
def test_macs_of_one_image(network: type[Net]) -> None:
    made = survey(network, IMAGE)
    cost = CostModel(made).of(Architecture("test", made.fingerprint))
    assert cost.dense_macs == counted(network().requires_grad_(False), 1)


@pytest.mark.parametrize("network", [Squeezed, exported(Squeezed)])
def test_a_network_that_takes_no_single_image(network: type[Net]) -> None:
    made = survey(network, IMAGE)
    net = network()
    with pytest.raises(IndexError):
        counted(net, 1)
    macs = CostModel(made).of(Architecture("test", made.fingerprint)).dense_macs
    assert macs == counted(net, 3) - 2 * (counted(net, 4) - counted(net, 3))
    assert macs == 64 * 27 * 16 + 64 * 9 * 16 * 8 + 8 * 5 + 16 * 16 + 8 * 2 * 16


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_published_figures_of_a_grid(wrapped: bool) -> None:
    network = exported(Grid) if wrapped else Grid
    made = survey(functools.partial(network), IMAGE)
    cost = CostModel(made).of(Architecture("test", made.fingerprint))
    assert cost.dense_macs == 64 * (27 * 16 + 2 * 16 + 9 * 16 * 8) + 8 * 5
