"""Which stage a layer is in, where something pools and is broadcast back: the one it was put in on purpose."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.tracing.survey import survey


class Squeeze(nn.Module):
    """Squeeze and excitation of 1x1 convolutions (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class LinearSqueeze(nn.Module):
    """The same of linear layers, whose outputs have no positions at all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, 4), nn.Linear(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        scale = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1).view(batch, channels)))))
        return x * scale.view(batch, channels, 1, 1).expand_as(x)


class Efficient(nn.Module):
    """Efficient channel attention, a convolution along the channels (Wang et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * torch.sigmoid(scale).expand_as(x)


class ChannelAndSpatial(nn.Module):
    """Convolutional block attention, channels and then positions (Woo et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.mlp(x.mean((2, 3), True)) + self.mlp(x.amax((2, 3), True)))
        return x * torch.sigmoid(self.spatial(torch.cat((x.mean(1, True), x.amax(1, True)), 1)))


class Context(nn.Module):
    """Global context, which is added instead of multiplied (Cao et al. 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attend = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.attend(x).flatten(2).softmax(-1).unsqueeze(-1)
        return x + self.transform(torch.matmul(x.flatten(2).unsqueeze(1), weight).transpose(1, 2))


class Block(nn.Module):
    """A residual block with an attention at the end of its branch."""

    def __init__(self, attention: type[nn.Module], stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, stride, 1), nn.BatchNorm2d(16)
        self.attention = attention(16)
        self.shortcut = nn.Conv2d(16, 16, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.attention(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(branch + self.shortcut(x))


class InTheMiddle(Block):
    """The attention comes before the convolution that halves the map."""

    def __init__(self, attention: type[nn.Module], stride: int) -> None:
        super().__init__(attention, stride)
        self.attention = attention(8)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.attention(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(branch + self.shortcut(x))


class BehindTheSum(Block):
    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.attention(F.relu(branch + self.shortcut(x)))


class TwoArguments(Block):
    """It cannot be removed; its stage is the same."""

    def forward(self, x: Tensor, unused: float = 1.0) -> Tensor:
        return super().forward(x)


class Nested(Block):
    """A residual block inside the branch of another one."""

    def __init__(self, attention: type[nn.Module], stride: int) -> None:
        super().__init__(attention, stride)
        self.inner = Block(attention, 1)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.attention(self.inner(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))))
        return F.relu(branch + self.shortcut(x))


class Staged(nn.Module):
    """A stem and six blocks, two a stage; every block is named after its stage."""

    def __init__(self, block: type[Block], attention: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.stages = nn.Sequential(
            *(nn.Sequential(block(attention, stride), block(attention, 1)) for stride in (1, 2, 2))
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def check_stages(block: type[Block], attention: type[nn.Module], size: int) -> None:
    made = survey(partial(Staged, block, attention), (3, size, size))
    assert made.stages == ((size, size), (size // 2, size // 2), (size // 4, size // 4), ())
    for layer in made.layers:
        planted = (
            {"stem": 0, "head": 3}.get(layer.path) if "." not in layer.path else int(layer.path.split(".")[1])
        )
        assert (layer.path, layer.stage) == (layer.path, planted)
    for removable in made.blocks:
        assert removable.stage == int(removable.name.split(".")[1])


@pytest.mark.parametrize("attention", [Squeeze, LinearSqueeze, Efficient, ChannelAndSpatial, Context])
@pytest.mark.parametrize("block", [Block, InTheMiddle, BehindTheSum, TwoArguments, Nested])
def test_what_pools_and_broadcasts_back_does_not_decide(
    block: type[Block], attention: type[nn.Module]
) -> None:
    check_stages(block, attention, 32)


def test_a_last_map_of_one_pixel_is_a_stage_of_its_own() -> None:
    check_stages(Block, LinearSqueeze, 4)


def test_large_maps() -> None:
    check_stages(Block, Squeeze, 224)


def test_layers_of_an_exported_network_are_in_the_same_stages() -> None:
    class Branching(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.shape[2] > 1 else x  # torch.fx stops here

    check_stages(Branching, Squeeze, 32)


def test_maps_of_different_sizes_that_are_joined_keep_their_stages() -> None:
    """Two scales that are fused into the smaller one, and read at both: neither is a branch of the other."""

    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
            self.small, self.fine = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
            self.across, self.further = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
            self.last, self.head = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            large = F.relu(self.large(x))
            fine = self.fine(large)
            small = F.relu(self.down(large))
            fused = self.small(small) + self.across(fine)
            return self.head((self.last(fused) + self.further(small)).mean((2, 3)))

    made = survey(Scales, (3, 16, 16))
    assert {layer.path: made.stages[layer.stage] for layer in made.layers} == {
        **dict.fromkeys(("large", "fine"), (16, 16)),
        **dict.fromkeys(("down", "small", "across"), (8, 8)),
        **dict.fromkeys(("last", "further"), (4, 4)),
        "head": (),
    }


def test_a_grid_that_the_input_is_only_asked_its_size_for_starts_no_branch() -> None:
    class Grid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.patch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 2, 2)
            self.place, self.last, self.head = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            patches = self.patch(F.relu(self.stem(x)))
            grid = torch.ones(1, 1, x.shape[2] // 2, 1, device=x.device, dtype=x.dtype)
            return self.head(self.last(patches + self.place(grid)).mean((2, 3)))

    made = survey(Grid, (3, 16, 16))
    stage = {layer.path: made.stages[layer.stage] for layer in made.layers}
    assert (stage["stem"], stage["patch"], stage["last"], stage["head"]) == ((16, 16), (8, 8), (8, 8), ())
