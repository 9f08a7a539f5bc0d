"""Small networks, one construct each, that people ask about: what a survey must follow, or refuse by name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

__all__ = ["FAMILIES"]

IMAGE = (3, 8, 8)


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.down, self.up = nn.Conv2d(16, 6, 1), nn.Conv2d(6, 16, 1)
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        return self.last(x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))))


class GatedUnit(nn.Module):
    """A gated linear unit: one layer, halved by `chunk`, one half scales the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, 1)
        return self.last(a * torch.sigmoid(b))


class Shuffle(nn.Module):
    """Grouped convolutions around a channel shuffle (Zhang et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, groups=4)
        self.c, self.last = nn.Conv2d(24, 24, 1, groups=4), nn.Conv2d(24, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x))))
        n, c, h, w = x.shape
        x = x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.last(F.relu(self.c(x)))


class CrossStage(nn.Module):
    """A cross-stage partial block: split, work on one part, join."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(24, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.relu(self.stem(x)).split((8, 8), 1)
        y = F.relu(self.a(second))
        return self.last(torch.cat((first, y, F.relu(self.b(y))), 1))


class Grouped(nn.Module):
    """A grouped convolution between plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 3, groups=4), nn.Conv2d(24, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Depthwise(nn.Module):
    """Depthwise convolutions, the second with two filters a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16)
        self.c, self.d = nn.Conv2d(16, 32, 3, groups=16), nn.Conv2d(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))))


class LayerScale(nn.Module):
    """A residual block whose branch is scaled by a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        self.scale = nn.Parameter(torch.ones(16, 1, 1))
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x + self.scale * self.b(F.gelu(self.a(x))))


class FlatHead(nn.Module):
    """A flatten of maps larger than one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.last = nn.Conv2d(3, 16, 3), nn.Linear(16 * 6 * 6, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.hidden(torch.flatten(F.relu(self.conv(x)), 1))))


class ChannelsLast(nn.Module):
    """Linear layers and a layer norm on a map permuted to channels last, then a flatten in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.mlp = nn.Conv2d(3, 16, 3), nn.LayerNorm(16), nn.Linear(16, 12)
        self.last = nn.Linear(12 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return self.last(F.gelu(self.mlp(x)).flatten(1))


class Reused(nn.Module):
    """A layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(F.relu(self.again(F.relu(self.again(x)))))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.b.weight = self.a.weight
        self.middle, self.last = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.middle(self.b(F.relu(self.a(self.stem(x)))))))


class TwoInputs(nn.Module):
    """Two inputs that meet in a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(2, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(F.relu(self.a(x) + self.b(y)))


class TwoOutputs(nn.Module):
    """A tuple of two outputs, one of them an inner map."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.b(F.relu(self.a(x))))
        return self.last(x), x.mean((1, 2, 3))


class Named(nn.Module):
    """A dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.low, self.high = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.a(x))
        return {"low": self.low(x), "high": self.high(x)}


class Auxiliary(nn.Module):
    """A head that exists in train mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 8, 1)
        self.aux = nn.Sequential(nn.Conv2d(16, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.a(x))
        y = self.last(F.relu(self.b(x)))
        return (y, self.aux(x)) if self.training else y


class Held(nn.Module):
    """A backbone without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 12, 1)).requires_grad_(
            False
        )
        self.last = nn.Sequential(nn.Conv2d(12, 10, 1), nn.ReLU(), nn.Conv2d(10, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.backbone(x)
        return self.last(F.relu(x))


class GroupNormed(nn.Module):
    """Group norms between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.Conv2d(16, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.norm(self.a(x))))


class InstanceNormed(nn.Module):
    """Instance norms and parametric rectifiers with a slope per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.slope = nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.PReLU(16)
        self.b = nn.Conv2d(16, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.slope(self.norm(self.a(x))))


class Waves(nn.Module):
    """One-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv1d(2, 16, 5), nn.BatchNorm1d(16), nn.Conv1d(16, 12, 5)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn(self.a(x))), 2)
        return self.last(F.relu(self.b(x)).mean(-1))


class Volumes(nn.Module):
    """Three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv3d(1, 12, 3), nn.BatchNorm3d(12), nn.Conv3d(12, 8, 3)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.b(F.relu(self.bn(self.a(x))))).mean((2, 3, 4)))


class SkipPath(nn.Module):
    """An encoder and decoder: transposed convolution, interpolation, concatenated skip paths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, 2, 1)
        self.c, self.up = nn.Conv2d(16, 20, 3, 2, 1), nn.ConvTranspose2d(20, 16, 2, 2)
        self.d, self.last = nn.Conv2d(32, 14, 3, padding=1), nn.Conv2d(26, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        b = F.relu(self.b(a))
        y = F.relu(self.d(torch.cat((self.up(F.relu(self.c(b))), b), 1)))
        return self.last(torch.cat((F.interpolate(y, scale_factor=2.0), a), 1))


class PaddedShortcut(nn.Module):
    """A shortcut padded with zero channels in `forward`: type A (He et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, 2, 1), nn.Conv2d(12, 16, 1)
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.last(F.relu(self.b(F.relu(self.a(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))))


class Encoder(nn.Module):
    """Patches, a class token, one encoder layer of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.zeros(1, 1, 16))
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.layer(torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1))
        return self.last(x[:, 0])


class Attention(nn.Module):
    """Attention written out, with the head size a number."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.qkv = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 48)
        self.out, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.last((x + self.down(F.gelu(self.up(x)))).mean(1))


class Mixer(nn.Module):
    """An MLP over tokens between MLPs over channels (Tolstikhin et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 2, 2)
        self.norm1, self.token_up, self.token_down = nn.LayerNorm(12), nn.Linear(16, 20), nn.Linear(20, 16)
        self.norm2, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 12)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.token_down(F.gelu(self.token_up(self.norm1(x).transpose(1, 2)))).transpose(1, 2)
        return self.last((x + self.down(F.gelu(self.up(self.norm2(x))))).mean(1))


class PixelShuffle(nn.Module):
    """Channels that become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 16, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.pixel_shuffle(self.b(F.relu(self.a(x))), 2))


class Einsum(nn.Module):
    """A parameter contracted by `einsum`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.weight = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(12, 16, 1),
            nn.Parameter(torch.rand(10, 16)),
        )
        self.last = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.einsum("nchw,dc->ndhw", F.relu(self.b(F.relu(self.a(x)))), self.weight))


class Normalised(nn.Module):
    """A softmax and a mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 16, 1), nn.Conv2d(16, 10, 1)
        self.last = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.relu(self.a(x))).softmax(1)
        y = self.c(x)
        return self.last(y - y.mean(1, keepdim=True))


class CountedScale(nn.Module):
    """The number of channels becomes a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.last(F.relu(self.b(F.relu(x * x.shape[1] ** -0.5))))


class WeightRead(nn.Module):
    """A weight that `forward` reads besides calling its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 10, 1)
        self.last = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))) + self.b.weight.pow(2).mean()


class LiteralSize(nn.Module):
    """A width written as a number in a reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 6), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.b(F.relu(self.a(x)))).reshape(-1, 12))


class Sliced(nn.Module):
    """Channels taken by position, and written by position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.last(F.relu(self.b(x[:, :8] - x[:, 8:])))


class Written(nn.Module):
    """A channel overwritten in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = 0
        return self.last(F.relu(self.b(F.relu(x))))


class Normed(nn.Module):
    """A layer under weight normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), parametrizations.weight_norm(nn.Conv2d(16, 12, 1))
        self.c, self.last = nn.Conv2d(12, 10, 1), nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))))


class Recurrent(nn.Module):
    """A recurrent layer between linear ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.cell = nn.Linear(6, 16), nn.Linear(16, 12), nn.LSTM(12, 10, batch_first=True)
        self.c, self.last = nn.Linear(10, 14), nn.Linear(14, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.cell(self.b(F.relu(self.a(x))))
        return self.last(F.relu(self.c(x)))


class Tagger(nn.Module):
    """A stack of recurrent layers in both directions, and the last states of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.GRU(6, 10, num_layers=2, batch_first=True, bidirectional=True)
        self.sum, self.last = nn.LSTM(20, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.sum(self.read(x)[0])
        return self.last(h[-1])


class Translator(nn.Module):
    """torch's decoder over an encoder, which copy their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, options = nn.Linear(6, 24), {"dropout": 0.0, "batch_first": True}
        layer = nn.TransformerEncoderLayer(24, 4, 20, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(24, 4, 32, **options), 2)
        self.last = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.decoder(x, self.encoder(x)))


class Branching(nn.Module):
    """Control flow that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.last(x if x.sum() > 0 else -x)


FAMILIES: Mapping[str, tuple[type[nn.Module], tuple[tuple[int, ...], ...]]] = {
    "squeeze and excitation": (SqueezeExcitation, (IMAGE,)),
    "gated unit": (GatedUnit, (IMAGE,)),
    "channel shuffle": (Shuffle, (IMAGE,)),
    "cross-stage partial": (CrossStage, (IMAGE,)),
    "grouped convolution": (Grouped, (IMAGE,)),
    "depthwise convolution": (Depthwise, (IMAGE,)),
    "layer scale": (LayerScale, (IMAGE,)),
    "flatten of a map": (FlatHead, (IMAGE,)),
    "channels last": (ChannelsLast, (IMAGE,)),
    "reused layer": (Reused, (IMAGE,)),
    "tied weights": (Tied, (IMAGE,)),
    "two inputs": (TwoInputs, (IMAGE, (2, 8, 8))),
    "two outputs": (TwoOutputs, (IMAGE,)),
    "dictionary of outputs": (Named, (IMAGE,)),
    "auxiliary head": (Auxiliary, (IMAGE,)),
    "frozen backbone": (Held, (IMAGE,)),
    "group norm": (GroupNormed, (IMAGE,)),
    "instance norm, PReLU": (InstanceNormed, (IMAGE,)),
    "1d convolution": (Waves, ((2, 24),)),
    "3d convolution": (Volumes, ((1, 7, 7, 7),)),
    "encoder and decoder": (SkipPath, (IMAGE,)),
    "zero-padded shortcut": (PaddedShortcut, (IMAGE,)),
    "transformer layer": (Encoder, (IMAGE,)),
    "attention written out": (Attention, ((5, 6),)),
    "mixer": (Mixer, (IMAGE,)),
    "pixel shuffle": (PixelShuffle, (IMAGE,)),
    "einsum": (Einsum, (IMAGE,)),
    "softmax and mean over channels": (Normalised, (IMAGE,)),
    "channel count as a factor": (CountedScale, (IMAGE,)),
    "weight read besides its layer": (WeightRead, (IMAGE,)),
    "width as a number": (LiteralSize, (IMAGE,)),
    "channels by position": (Sliced, (IMAGE,)),
    "channels overwritten": (Written, (IMAGE,)),
    "weight norm": (Normed, (IMAGE,)),
    "recurrent layer": (Recurrent, ((5, 6),)),
    "recurrent stacks": (Tagger, ((5, 6),)),
    "encoder and decoder of torch": (Translator, ((5, 6),)),
    "data-dependent control flow": (Branching, (IMAGE,)),
}
"""What each shows, the network, and the shapes of its inputs without the batch."""
