"""Families of networks that people bring, each planted small: what varies, and that it computes the same."""

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.surgery.assemble import build
from prunas.tracing.survey import survey
from tests.tracing.small import check_points

SHAPE = (3, 8, 8)


class Stem(nn.Module):
    """A first and a last convolution around a stream of 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.stem(x)))


class SqueezeExcitation(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x * self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()


class Shuffle(Stem):
    """ShuffleNetV2's unit: one half passes, the other is transformed, both are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.point, self.depth, self.back = (
            nn.Conv2d(4, 6, 1),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
            nn.Conv2d(6, 4, 1),
        )

    def middle(self, x: Tensor) -> Tensor:
        passed, changed = x.chunk(2, dim=1)
        x = torch.cat((passed, self.back(self.depth(self.point(changed)))), 1)
        batch, channels, height, width = x.size()
        return (
            x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        )


class CrossStage(Stem):
    """A cross-stage partial block: the halves of one convolution take two ways and meet again."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.join = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(12, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return self.join(torch.cat((first, second, self.inner(second) + second), 1))


class GroupedBottleneck(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(8, 6, 1),
            nn.Conv2d(6, 6, 3, padding=1, groups=3),
            nn.Conv2d(6, 8, 1),
        )

    def middle(self, x: Tensor) -> Tensor:
        return x + self.c(F.relu(self.b(F.relu(self.a(x)))))


class LayerScale(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        return x + self.inner(x) * self.scale


class FlattenedMap(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 6), nn.ReLU(), nn.Linear(6, 4))

    def middle(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)


class ChannelsLastFlattened(FlattenedMap):
    def middle(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2).permute(0, 2, 3, 1).contiguous()


class ChannelsLast(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def middle(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1)
        return (y + self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class Reused(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(8, 8, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.again(F.relu(self.again(x)))


class TwoOutputs(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat((self.last(x), self.side(x)), 1)


class AuxiliaryHead(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.aux = nn.Conv2d(8, 5, 1), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x) + self.aux(F.relu(self.squeeze(x))) if self.training else self.last(x)


class FrozenPart(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 6, 1)
        self.last = nn.Conv2d(6, 4, 1)
        for parameter in self.stem.parameters():
            parameter.requires_grad_(False)

    def middle(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = F.relu(x)
        return self.inner(x)


class SamePadding(nn.Conv2d):
    """A layer of the user's own that does its work by a function, as many do."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class OwnLayers(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.depth = SamePadding(8, 6, 3), SamePadding(6, 6, 3, groups=6, bias=False)
        self.last = nn.Conv2d(6, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.depth(F.relu(self.dense(x)))


class Volumes(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8)
        self.last = nn.Conv3d(8, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return F.max_pool3d(F.relu(self.norm(x)), 2)


class Sequences(Stem):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)
        self.last = nn.Conv1d(8, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return F.max_pool1d(F.relu(self.norm(x)), 2)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], dict[str, int], int]] = {
    # network, groups with their units, gates
    "squeeze and excitation": (SqueezeExcitation, {"stem": 8, "down": 3}, 0),
    "channel shuffle": (Shuffle, {"stem": 4, "point": 6}, 0),
    "cross-stage partial": (CrossStage, {"stem": 4, "join": 8}, 2),
    "grouped convolution": (GroupedBottleneck, {"stem": 8, "a": 2, "b": 2}, 2),
    "layer scale": (LayerScale, {"stem": 8}, 2),
    "flatten of a map": (FlattenedMap, {"stem": 8, "last.1": 6}, 0),
    "flatten of a map, channels last": (ChannelsLastFlattened, {"stem": 8, "last.1": 6}, 0),
    "channels last": (ChannelsLast, {"stem": 8, "up": 12}, 2),
    "reused layer": (Reused, {"stem": 8}, 1),
    "two outputs": (TwoOutputs, {"stem": 8}, 2),
    "auxiliary head in training only": (AuxiliaryHead, {"stem": 8, "squeeze": 5}, 2),
    "frozen and no_grad parts": (FrozenPart, {"stem": 8, "inner": 6}, 0),
    "layers written as functions": (OwnLayers, {"stem": 8, "dense": 6}, 0),
    "1d": (Sequences, {"stem": 8}, 0),
    "3d": (Volumes, {"stem": 8}, 0),
}
SHAPES = {"1d": (3, 8), "3d": (3, 6, 6, 6)}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    factory, units, gates = FAMILIES[name]
    made = check_points(factory, SHAPES.get(name, SHAPE))
    assert {group.name: group.units for group in made.groups} == units
    assert len(made.gates) == gates
    assert [frozen.why for frozen in made.frozen] == ["the network's output"]


def test_what_is_frozen_stays_frozen_in_a_narrower_network() -> None:
    made = survey(FrozenPart, SHAPE)
    arch = Architecture("t", made.fingerprint, (("inner", 3), ("stem", 5)))
    learns = {name: p.requires_grad for name, p in build(FrozenPart, made, arch).named_parameters()}
    assert learns == {name: not name.startswith("stem") for name in learns}


def test_a_norm_written_as_a_function_is_its_module() -> None:
    class Norm2d(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
            return x.permute(0, 3, 1, 2)

    class Case(Stem):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Norm2d(8)

        def middle(self, x: Tensor) -> Tensor:
            return self.norm(x)

    made = check_points(Case, SHAPE, maskable=False)
    assert [(group.name, group.units, group.maskable) for group in made.groups] == [("stem", 8, False)]


def test_a_second_input_needs_a_default() -> None:
    class Masked(Stem):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return super().forward(x) if mask is None else super().forward(x) * mask

    class Two(Stem):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.last(self.stem(x) + self.stem(y))

    assert [group.name for group in survey(Masked, SHAPE).groups] == ["stem"]
    with pytest.raises(
        InputError, match="that does not fit: missing a required argument: 'y'; name what it takes"
    ):
        survey(Two, SHAPE)


def test_what_is_made_before_stays_whole() -> None:
    net = GroupedBottleneck().eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for factory in (lambda: net, lambda: nn.Sequential(net, nn.Conv2d(4, 2, 1))):
        with pytest.raises(InputError, match="that was made before; it must make a new one at every call"):
            survey(factory, SHAPE)
    made = survey(lambda: copy.deepcopy(net), SHAPE)
    assert not made.groups
    assert "the factory copies it instead of constructing it" in {frozen.why for frozen in made.frozen}
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_surveying_leaves_no_network_behind() -> None:
    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def factory() -> nn.Module:
        net = GroupedBottleneck()
        alive.add(net)
        return net

    survey(factory, SHAPE)
    gc.collect()
    assert len(alive) == 0
