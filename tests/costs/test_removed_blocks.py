"""What goes with a removed block, against torch's own count of the network that is built."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.surgery.assemble import build
from prunas.tracing.survey import survey

SHAPE = (3, 6, 6)


class Attention(nn.Module):
    """Positions of a map attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0  # torch.fx stops here
        key, value = self.key(x).flatten(2), self.value(x).flatten(2)
        return (value @ (key.transpose(1, 2) @ key).softmax(2)).reshape(x.shape)


class Attending(nn.Module):
    """Two branches, of which one multiplies what its layers give."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Normed(nn.GroupNorm):
    """A norm with an activation, as functions."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


class Preactivated(nn.Module):
    """The norm before the branch serves the shortcut too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.short = Normed(1, 8), nn.Conv2d(8, 8, 1, bias=False)
        self.first, self.second, self.last = nn.Conv2d(8, 6, 1), Normed(1, 6), nn.Conv2d(6, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        before = self.norm(x)
        out: Tensor = self.last(self.second(self.first(before))) + self.short(before)
        return out


class Transformed(nn.Module):
    """A fixed transform in both directions, before any channels begin."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0
        return F.linear(F.linear(x, self.matrix).transpose(2, 3).sin(), self.matrix)


def around(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), middle, nn.Conv2d(8, 4, 1))


def attending() -> nn.Module:
    return around(nn.Sequential(Attending(), Attending()))


def preactivated() -> nn.Module:
    return around(nn.Sequential(Preactivated(), Preactivated()))


def transformed() -> nn.Module:
    return nn.Sequential(Transformed(), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))


@pytest.mark.parametrize(
    ("factory", "removable"),
    [
        (attending, {"1.0.attention", "1.0.mlp", "1.1.attention", "1.1.mlp"}),
        (preactivated, {"1.0", "1.1"}),
        (transformed, set()),
    ],
)
def test_it_costs_what_torch_counts(factory: Callable[[], nn.Module], removable: set[str]) -> None:
    made = survey(factory, SHAPE)
    assert {block.name for block in made.blocks} == removable
    model, dense = CostModel(made), Architecture("test", made.fingerprint)
    narrow = dense.replace(widths=tuple(sorted((group.name, group.units - 1) for group in made.groups)))
    points = [dense, narrow, *(dense.replace(removed=(name,)) for name in sorted(removable))]
    for arch in points:
        with torch.device("meta"):
            net = build(partial(factory), made, arch).eval()
            with FlopCounterMode(display=False) as counter:
                net(torch.empty(1, *SHAPE))
        cost = model.of(arch)
        assert cost.dense_macs == counter.get_total_flops() // 2
        assert cost.dense_params == sum(parameter.numel() for parameter in net.parameters())
