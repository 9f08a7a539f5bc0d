"""Layers whose work a function does with their weight: biases of parts, wrapped functions, computed weights."""

import random
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from benchmarks.support.oracle import counted, point, random_kept
from prunas.costs.counted import CostModel
from prunas.surgery.assemble import build
from prunas.survey import Survey
from prunas.tracing.survey import survey
from tests.tracing.small import check_cost, check_function
from tests.tracing.test_attention import SHAPE, Transformer, Unfused, share


class BiasOfParts(Unfused):
    """Queries and values have a bias, keys have zeros, as in BEiT."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(24, 3 * self.attn_dim, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.randn(self.attn_dim)) for _ in range(2))
        self.register_buffer("k_bias", self.of_keys(), persistent=False)

    def of_keys(self) -> Tensor:
        return torch.zeros(self.attn_dim)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        b, n, _ = x.shape
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias)).to(x.dtype)
        qkv = F.linear(x, weight=self.qkv.weight, bias=bias)
        return qkv.reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class UnevenBias(BiasOfParts):
    """The bias of the keys is another number for every channel, and not in the state dict."""

    def of_keys(self) -> Tensor:
        return torch.arange(self.attn_dim).float()


class Overwritten(Unfused):
    """The keys' part of a copy of the bias is overwritten, as in torchvision's Swin V2."""

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        b, n, _ = x.shape
        assert len(x)  # torch.fx stops here
        bias = self.qkv.bias.clone()
        size = bias.numel() // 3
        bias[size : 2 * size].zero_()
        qkv = F.linear(x, self.qkv.weight, bias)
        return qkv.reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)


class Cosine(Unfused):
    """Scores are cosines, with a scale for every head, as in Swin V2."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.rand(self.num_heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return self.joined((scores * self.logit_scale.clamp(max=4.6).exp()).softmax(-1) @ v)


class Interleaved(Unfused):
    """Every second channel of a head is turned with the one before it, as in EVA-02."""

    def __init__(self) -> None:
        super().__init__(head_dim=6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        angles = torch.arange(6.0, device=x.device).to(x.dtype)
        q, k = (
            t * angles.cos() + torch.stack((-t[..., 1::2], t[..., ::2]), -1).reshape(t.shape) * angles.sin()
            for t in (q, k)
        )
        return self.joined(F.scaled_dot_product_attention(q, k, v))


class IndexedTable(Unfused):
    """A table of biases with one row for every head, indexed along its second axis, as in LeViT."""

    def __init__(self) -> None:
        super().__init__()
        self.biases = nn.Parameter(torch.randn(self.num_heads, SHAPE[0]))
        places = torch.arange(SHAPE[0])
        self.register_buffer("places", (places[:, None] - places[None]).abs(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        scores = q @ k.transpose(-2, -1) * self.scale + self.biases[:, self.places]
        return self.joined(scores.softmax(-1) @ v)


KINDS = (BiasOfParts, Overwritten, Cosine, Interleaved, IndexedTable)


def check(factory: Callable[[], nn.Module], made: Survey, shape: tuple[int, ...]) -> None:
    """Random points compute what the dense network does without what they drop, and cost what torch counts."""
    check_function(factory, made, [shape], images=2)
    check_cost(factory, made, [shape])


@pytest.mark.parametrize("attention", KINDS)
def test_heads_and_stream_vary(attention: Callable[[], nn.Module]) -> None:
    factory = partial(Transformer, attention)
    made = survey(factory, SHAPE)
    assert [frozen.why for frozen in made.frozen] == ["the network's output"]
    assert sorted(group.units for group in made.groups) == [4, 4, 24, 32, 32]
    assert share(made, factory()) > 0.99
    check(factory, made, SHAPE)


def test_a_buffer_that_is_not_saved_and_differs_between_channels_holds_them() -> None:
    made = survey(partial(Transformer, UnevenBias), SHAPE)
    assert sorted(group.units for group in made.groups) == [24, 32, 32]
    assert "attention.0.k_bias is not in the state dict" in {frozen.why for frozen in made.frozen}


class Divided(Unfused):
    """The width of the stream divided by the number of heads, in code at which torch.fx stops."""

    def __init__(self) -> None:
        super().__init__(24, 4, 6)

    def forward(self, x: Tensor) -> Tensor:
        assert len(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


def test_heads_go_with_the_stream_where_a_recording_shows_numbers_alone() -> None:
    factory = partial(Transformer, Divided)
    made = survey(factory, SHAPE)
    assert [(group.name, group.units) for group in made.groups] == [
        ("embed", 4), ("mlps.0.0", 32), ("mlps.1.0", 32),
    ]  # fmt: skip
    check(factory, made, SHAPE)


class Literal(Unfused):
    """The number of heads written as a number in the code, where no pairing with the stream helps."""

    def __init__(self) -> None:
        super().__init__(24, 4, 6)

    def joined(self, x: Tensor) -> Tensor:
        assert len(x)
        return self.proj(x.transpose(1, 2).reshape(x.shape[0], x.shape[2], 4 * 6))


def test_what_is_supposed_in_vain_does_not_hold_the_stream() -> None:
    factory = partial(Transformer, Literal)
    made = survey(factory, SHAPE)
    assert sorted(group.units for group in made.groups) == [24, 32, 32]
    check(factory, made, SHAPE)


def swin(version: int) -> nn.Module:
    options = {"block": SwinTransformerBlock}
    if version == 2:
        options = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer([4, 4], 16, [2, 2], [4, 4], [4, 4], 2.0, 0.0, 0.0, 0.2, 5, **options)


@cache
def surveyed(version: int) -> tuple[Callable[[], nn.Module], Survey]:
    factory = partial(swin, version)
    return factory, survey(factory, (3, 32, 32))


@pytest.mark.parametrize("version", [1, 2])
def test_torchvisions_windowed_attention_is_gone_into(version: int) -> None:
    factory, made = surveyed(version)
    assert [frozen.why for frozen in made.frozen if "branch" not in frozen.why] == ["the network's output"]
    assert share(made, factory()) > 0.99
    assert sum(group.units == 4 for group in made.groups) == 2  # a head, and its channels of either stream
    check(factory, made, (3, 32, 32))


def test_its_branches_can_be_removed_whose_stochastic_depth_is_written_out() -> None:
    _, made = surveyed(1)
    assert len(made.blocks) == 8


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019), as timm writes it; `kept` are the input channels it runs over."""

    kept: list[int] | None = None

    def computed(self, weight: Tensor) -> Tensor:
        rows = weight.reshape(1, len(weight), -1)
        return F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.computed(self.weight)
        if self.kept is not None:
            among = self.computed(self.weight[:, self.kept])
            weight = torch.zeros_like(weight).index_copy_(1, torch.tensor(self.kept), among)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ByHand(Standardised):
    """The same with mean and deviation, and a gain for every row."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1))

    def computed(self, weight: Tensor) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return centred / (weight.std((1, 2, 3), keepdim=True) + 1e-6) * self.gain


class ByFanIn(Standardised):
    """Its scale is computed from the number of inputs, as in networks without norms (Brock et al. 2021)."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.scale = self.weight[0].numel() ** -0.5

    def computed(self, weight: Tensor) -> Tensor:
        return super().computed(weight) * self.scale


class OnStandardised(nn.Module):
    def __init__(self, conv: type[Standardised] = Standardised) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8, 3), conv(8, 12, 3), conv(12, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(F.relu(self.b(F.relu(self.a(x))))).mean((2, 3)))


def test_what_computed_weights_multiply_is_counted() -> None:
    for conv in (Standardised, ByHand, ByFanIn):
        made = survey(partial(OnStandardised, conv), (3, 10, 10))
        macs = 64 * 27 * 8 + 36 * 72 * 12 + 16 * 108 * 6 + 6 * 4
        assert CostModel(made).of(point(made, {}).arch).dense_macs == macs


@pytest.mark.parametrize("conv", [Standardised, ByHand])
def test_standardised_weights_lose_rows_and_are_standardised_over_the_columns_that_stay(
    conv: type[Standardised],
) -> None:
    factory = partial(OnStandardised, conv)
    made = survey(factory, (3, 10, 10))
    assert [(g.name, g.units, g.maskable) for g in made.groups] == [
        ("a", 8, False), ("b", 12, False), ("c", 6, True),
    ]  # fmt: skip
    assert [frozen.why for frozen in made.frozen] == ["the network's output"]
    torch.manual_seed(0)
    dense, images = factory().double(), torch.randn(2, 3, 10, 10, dtype=torch.float64)
    for seed in range(3):
        arch, kept = point(made, random_kept(made, random.Random(seed)))
        built = build(lambda: factory().double(), made, arch, dense.state_dict(), kept)
        assert CostModel(made).of(arch)[2:] == counted(build(factory, made, arch), [(3, 10, 10)])
        reference = factory().double()
        reference.load_state_dict(dense.state_dict())
        reference.b.kept, reference.c.kept = [*kept["a"]], [*kept["b"]]
        with torch.no_grad():
            dropped = [unit for unit in range(6) if unit not in kept["c"]]
            reference.head.weight[:, dropped] = 0.0
            torch.testing.assert_close(built(images), reference(images), rtol=1e-9, atol=1e-12)


def test_a_scale_computed_from_the_inputs_holds_them() -> None:
    made = survey(partial(OnStandardised, ByFanIn), (3, 10, 10))
    assert [group.name for group in made.groups] == ["c"]
    assert any("computes something else" in frozen.why for frozen in made.frozen)


class ReadElsewhere(nn.Module):
    """The weight or bias of a layer in a sum, beside its call."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 4)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(F.relu(self.a(x)))) + getattr(self.b, self.name).mean()


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_tensor_of_a_layer_that_is_read_as_a_whole_holds_it(name: str) -> None:
    made = survey(partial(ReadElsewhere, name), (6,))
    assert not made.groups
    assert f"forward reads its {name} besides calling it" in {frozen.why for frozen in made.frozen}


class AddedTwice(nn.Module):
    """The bias of a layer in another sum over the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x).relu() + F.linear(x, self.b.weight, self.a.bias).relu() + self.b.bias)


def test_a_bias_goes_with_the_channels_that_it_is_added_to() -> None:
    made = survey(AddedTwice, (6,))
    assert [(group.name, group.units) for group in made.groups] == [("a", 8)]
    check(AddedTwice, made, (6,))
