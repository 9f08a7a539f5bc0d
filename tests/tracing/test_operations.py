"""Operations that people use between their layers: what varies through them, and what is built then."""

import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.support.oracle import Oracle, batch_of, point, random_kept
from prunas.surgery.assemble import build
from prunas.survey import FIXED, Survey
from prunas.tracing.survey import survey
from tests.tracing.small import check_cost, check_function

SHAPE = (3, 16, 16)


def conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class UNet(nn.Module):
    """Transposed convolutions widen the map again; one of them is depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = conv(3, 12), conv(12, 16, stride=2)
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)
        self.norm = nn.BatchNorm2d(12)
        self.smooth = nn.ConvTranspose2d(24, 24, 3, padding=1, groups=24)
        self.out = conv(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.down(x))
        up = self.norm(self.up(torch.relu(self.deep(x))))
        return self.out(self.smooth(torch.cat((x, up), 1)))


class Generator(nn.Module):
    """Transposed convolutions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(3, 12, 3, 2, 1, 1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.ConvTranspose2d(12, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 3, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SuperResolution(nn.Module):
    """Channels become pixels and pixels channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = conv(12, 10), conv(10, 24), conv(24, 4)
        self.to_space, self.to_depth = nn.PixelShuffle(2), nn.PixelUnshuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.to_space(torch.relu(self.b(torch.relu(self.a(self.to_depth(x))))))
        return self.out(F.pixel_unshuffle(torch.relu(x), 2))


class Mapped(nn.Module):
    """Functions of one tensor and of several, element by element."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = conv(3, 12), conv(3, 12), conv(12, 12), conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.sin(self.a(x)), self.b(x)
        a = torch.max(a, b) + torch.min(a, b) * torch.sign(b)
        a = torch.where(a > 0.1, a, b.cos())
        return self.out(torch.addcmul(a, self.c(a), b))


class Stacked(nn.Module):
    """Branches on an axis of their own, weighed by a softmax over it (selective kernels)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 12), conv(12, 16), conv(12, 16, 5)
        self.squeeze, self.first, self.second = nn.Linear(16, 6), nn.Linear(6, 16), nn.Linear(6, 16)
        self.out = conv(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        branches = torch.stack((self.a(x), self.b(x)), 1)
        squeezed = torch.relu(self.squeeze(branches.sum(1).mean((2, 3))))
        weights = torch.softmax(torch.stack((self.first(squeezed), self.second(squeezed)), 1), 1)
        return self.out((branches * weights[:, :, :, None, None]).sum(1))


class Shaped(nn.Module):
    """One tensor takes another one's shape; channels stand several times."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = conv(3, 12), conv(12, 12), conv(24, 4)
        self.squeeze, self.excite = nn.Linear(12, 6), nn.Linear(6, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        scale = self.excite(torch.relu(self.squeeze(x.mean((2, 3)))))
        x = x * torch.sigmoid(scale)[:, :, None, None].expand_as(x)
        y = self.b(x).flatten(2).reshape_as(x)
        return self.out(y.repeat(1, 2, 1, 1))


class Scales(nn.Module):
    """Equal parts of the channels, whose width the module keeps, feed one another (Res2Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.a, self.convs, self.out = conv(3, 18), nn.ModuleList([conv(6, 6), conv(6, 6)]), conv(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(torch.relu(self.a(x)), self.width, 1)
        first = torch.relu(self.convs[0](parts[0]))
        second = torch.relu(self.convs[1](first + parts[1]))
        return self.out(torch.cat((first, second, parts[2]), 1))


class Parts(nn.Module):
    """Unequal parts of the channels, of widths in a list (MixNet) or one by one (FasterNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.splits, self.moved, self.kept = [5, 3, 10], 8, 10
        self.a, self.b = conv(3, 18), conv(10, 10, groups=10)
        self.c, self.out = conv(8, 8), conv(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.a(x).split(self.splits, 1)
        moved, kept = torch.split(
            torch.relu(torch.cat((first, second, self.b(third)), 1)), [self.moved, self.kept], 1
        )
        return self.out(torch.cat((self.c(moved), kept), 1))


class Dropped(nn.Module):
    """Positions are padded where channels lie last; a residual branch is dropped at random."""

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.1
        self.a, self.b, self.out = conv(3, 12), nn.Linear(12, 12), conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = F.pad(x.movedim(1, -1), (0, 0, 1, 2, 0, 1))
        y = self.b(y)[:, : x.shape[2], : x.shape[3]].movedim(-1, 1)
        if self.training and self.p:
            y = y * y.new_empty((y.shape[0], 1, 1, 1)).bernoulli_(1 - self.p)
        return self.out(torch.relu(x + y))


class CountingNorm(nn.BatchNorm2d):
    """A norm written out, which counts its batches."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


class Counted(nn.Module):
    """Such norms."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.out = conv(3, 12), CountingNorm(12), conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.a(x))))


class Positions(nn.Module):
    """Tokens whose positions are a resampled part of a parameter; attention's bias and a mask are added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = conv(3, 12), conv(12, 4)
        self.positions = nn.Parameter(torch.randn(1, 17, 12))
        self.scale = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        grid = self.positions[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(16, 16), mode="bilinear").permute(0, 2, 3, 1).flatten(1, 2)
        tokens = torch.cat((self.positions[:, :1], grid), 1)
        tokens = tokens + torch.arange(257, device=x.device)[:, None] * self.scale.sigmoid()
        return self.out(torch.relu(x + tokens[:, 1:].transpose(1, 2).unflatten(2, (16, 16))))


class Words(nn.Module):
    """Embeddings of what the map says, added to their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(5, 12), nn.Embedding(16, 12)
        self.norm, self.a, self.out = nn.BatchNorm1d(12), nn.Linear(12, 20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        ids = (x.mean((1, 2)) > 0).long()
        x = self.words(ids) + self.places(torch.arange(16, device=x.device))
        return self.out(torch.relu(self.a(self.norm(x.transpose(1, 2)).transpose(1, 2))))


MASKABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "U-Net": (UNet, SHAPE, 0.97),
    "generator": (Generator, SHAPE, 0.97),
    "super-resolution": (SuperResolution, SHAPE, 0.97),
    "mapped": (Mapped, SHAPE, 0.97),
    "stacked": (Stacked, SHAPE, 0.97),
    "shaped": (Shaped, SHAPE, 0.97),
    "equal parts": (Scales, SHAPE, 0.97),
    "unequal parts": (Parts, SHAPE, 0.97),
    "dropped branch": (Dropped, SHAPE, 0.97),
    "positions": (Positions, SHAPE, 0.97),
    "embeddings": (Words, SHAPE, 0.97),
    "norm that counts": (Counted, SHAPE, 0.97),
}


class Normed(nn.Module):
    """A stream with RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(6, 12), nn.RMSNorm(12, eps=1e-6)
        self.first, self.second, self.out = nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.second(F.silu(self.first(self.norm(x))))
        return self.out(x)


class OwnRMSNorm(nn.Module):
    """As it is written out in language models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class NormedByHand(Normed):
    """The same with the norm written out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = OwnRMSNorm(12)


class FirstNorm(nn.Module):
    """A layer norm over the channels of a map, as torchvision would make it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ByHand(nn.Module):
    """Its norm written out, ConvNeXt's way."""

    norm: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.out = conv(3, 12), FirstNorm(12), conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.a(x))))


class LastNorm(nn.LayerNorm):
    """The same function by torch's norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class ByTorch(ByHand):
    """Its norm is torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = LastNorm(12, 1e-6)


MIXED: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "RMSNorm": (Normed, Normed, (5, 6)),
    "RMSNorm by hand": (NormedByHand, Normed, (5, 6)),
    "LayerNorm by hand": (ByHand, ByTorch, SHAPE),
}
"""Networks whose norm runs over channels, the same by torch's norm, and their inputs."""


@cache
def surveyed(factory: Callable[[], nn.Module], shape: tuple[int, ...]) -> Survey:
    return survey(factory, shape)


def share(made: Survey, net: nn.Module) -> float:
    varying = {site.tensor for site in made.sites if any(run.group != FIXED for run in made.forms[site.form])}
    sizes = {name: parameter.numel() for name, parameter in net.named_parameters()}
    return sum(size for name, size in sizes.items() if name in varying) / sum(sizes.values())


@pytest.mark.parametrize("name", MASKABLE)
def test_it_varies_and_is_the_masked_network(name: str) -> None:
    factory, shape, wanted = MASKABLE[name]
    made = surveyed(factory, shape)
    assert share(made, factory()) >= wanted, made.frozen
    assert all(group.maskable for group in made.groups)
    check_function(factory, made, [shape])
    check_cost(factory, made, [shape], points=3)


@pytest.mark.parametrize("name", MIXED)
def test_a_norm_over_channels_is_that_of_the_kept_ones(name: str) -> None:
    factory, peer, shape = MIXED[name]
    made = surveyed(factory, shape)
    assert share(made, factory()) >= 0.97, made.frozen
    assert not made.groups[0].maskable
    oracle = Oracle(peer, surveyed(peer, shape), batch_of([shape], 4))
    for seed in range(2):
        chosen = point(made, random_kept(made, random.Random(seed)))
        built = build(lambda: factory().double(), made, chosen.arch, oracle.dense.state_dict(), chosen.kept)
        same = build(oracle.factory, oracle.survey, chosen.arch, oracle.dense.state_dict(), chosen.kept)
        with torch.no_grad():
            torch.testing.assert_close(built(*oracle.images), same(*oracle.images), rtol=1e-9, atol=1e-9)
        assert oracle.difference(chosen).eval <= 1e-9
    check_cost(factory, made, [shape], points=3)


def test_what_runs_over_channels_for_its_own_sake_is_held() -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = conv(3, 12), conv(1, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.a(x).sum(1, keepdim=True))

    made = survey(Summed, SHAPE)
    assert not made.groups
    assert "sum runs over channels" in {frozen.why for frozen in made.frozen}
