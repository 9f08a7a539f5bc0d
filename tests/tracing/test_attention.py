"""Attention: heads go as a whole, the stream and the layers around them vary, and what is built is exact."""

import random
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.support.oracle import Oracle, batch_of, point, random_kept
from prunas.survey import FIXED, Survey
from prunas.tracing.survey import survey
from tests.tracing.small import check_cost, check_function

SHAPE = (5, 24)


class Unfused(nn.Module):
    """Written out, as timm and many others do; the stream is wider than the heads."""

    def __init__(self, width: int = 24, num_heads: int = 4, head_dim: int = 5) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = num_heads, head_dim, num_heads * head_dim
        self.scale = head_dim**-0.5
        self.qkv, self.proj = nn.Linear(width, 3 * self.attn_dim), nn.Linear(self.attn_dim, width)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        b, n, _ = x.shape
        return self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)

    def joined(self, x: Tensor) -> Tensor:
        b, _, n, _ = x.shape
        return self.proj(x.transpose(1, 2).reshape(b, n, self.attn_dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return self.joined(((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v)


class Fused(Unfused):
    """By torch's function."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return self.joined(F.scaled_dot_product_attention(q, k, v))


class Biased(Unfused):
    """With a learned bias for every head, from a table."""

    def __init__(self, num_heads: int = 4) -> None:
        super().__init__(num_heads=num_heads)
        self.table = nn.Parameter(torch.zeros(9, self.num_heads))
        places = torch.arange(SHAPE[0])
        self.register_buffer("index", places[:, None] - places[None] + SHAPE[0] - 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        bias = self.table[self.index.view(-1)].view(SHAPE[0], SHAPE[0], -1).permute(2, 0, 1)
        attention = q @ k.transpose(-2, -1) * self.scale + bias.unsqueeze(0)
        return self.joined(torch.softmax(attention, -1) @ v)


class Separate(nn.Module):
    """Three projections and the number of heads left to -1, as transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(24, 24) for _ in range(3))
        self.out, self.head_dim = nn.Linear(24, 24), 6

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out(x.transpose(1, 2).flatten(2))


def turned(x: Tensor) -> Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), -1)


class Rotary(Separate):
    """Queries and keys turned by their positions."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * torch.arange(1, 7, device=x.device)
        cos, sin = angles.to(x.dtype).cos(), angles.to(x.dtype).sin()
        q, k = q * cos + turned(q) * sin, k * cos + turned(k) * sin
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class OfTorch(nn.Module):
    """torch's module."""

    def __init__(self, width: int = 24, num_heads: int = 4, need_weights: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


ATTENTIONS: dict[str, Callable[[], nn.Module]] = {
    "unfused": Unfused,
    "fused": Fused,
    "biased": Biased,
    "separate": Separate,
    "rotary": Rotary,
    "torch": OfTorch,
    "torch with weights": partial(OfTorch, need_weights=True),
}


class EncoderOfTorch(nn.Module):
    """torch's encoder, which has shortcuts of its own in eval mode without gradients."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(24, 24)
        layer = partial(nn.TransformerEncoderLayer, 24, 4, 32, 0.0, batch_first=True, norm_first=norm_first)
        self.layers = nn.ModuleList(layer() for _ in range(2))
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_encoder_layer_varies(norm_first: bool) -> None:
    factory = partial(EncoderOfTorch, norm_first)
    made = survey(factory, SHAPE)
    assert [frozen.what for frozen in made.frozen if "branch" not in frozen.why] == ["head"]
    assert sorted(group.units for group in made.groups) == [4, 4, 24, 32, 32]
    check_function(factory, made, [SHAPE])
    check_cost(factory, made, [SHAPE])


class Transformer(nn.Module):
    """Two blocks with a class token and positions."""

    def __init__(self, attention: Callable[[], nn.Module] = Unfused, tokens: int = SHAPE[0]) -> None:
        super().__init__()
        self.embed = nn.Linear(24, 24)
        self.token = nn.Parameter(torch.zeros(1, 1, 24))
        self.positions = nn.Parameter(torch.zeros(1, tokens, 24))
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(5))
        self.attention = nn.ModuleList(attention() for _ in range(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 24)) for _ in range(2)
        )
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), self.embed(x[:, 1:])), 1) + self.positions
        for i in range(2):
            x = x + self.attention[i](self.norms[2 * i](x))
            x = x + self.mlps[i](self.norms[2 * i + 1](x))
        return self.head(self.norms[4](x)[:, 0])


@cache
def surveyed(name: str) -> tuple[Callable[[], nn.Module], Survey]:
    factory = partial(Transformer, ATTENTIONS[name])
    return factory, survey(factory, SHAPE)


def share(made: Survey, net: nn.Module) -> float:
    varying = {site.tensor for site in made.sites if any(run.group != FIXED for run in made.forms[site.form])}
    sizes = {name: parameter.numel() for name, parameter in net.named_parameters()}
    return sum(size for name, size in sizes.items() if name in varying) / sum(sizes.values())


@pytest.mark.parametrize("name", ATTENTIONS)
def test_heads_stream_and_mlp_vary(name: str) -> None:
    factory, made = surveyed(name)
    assert [frozen.why for frozen in made.frozen] == ["the network's output"]
    assert share(made, factory()) > 0.99
    units = {group.units for group in made.groups}
    assert units == {4, 24, 32}
    assert len(made.groups) == 5
    assert {group.maskable for group in made.groups if group.units == 24} == {False}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_it_computes_what_the_dense_network_does_without_those_heads(name: str) -> None:
    factory, made = surveyed(name)
    check_function(factory, made, [SHAPE], points=3)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_its_cost_is_torchs_and_its_weights_load(name: str) -> None:
    factory, made = surveyed(name)
    check_cost(factory, made, [SHAPE], points=3)


def test_the_page_shows_what_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "attention.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "docs/attention.md", "exec"), {"__name__": "page"})
        assert capsys.readouterr().out.strip() == code.rpartition("# ")[2].strip()


def test_a_head_goes_with_the_stream_where_its_width_is_taken_for_that_of_all_heads() -> None:
    class Tied(Unfused):
        def __init__(self) -> None:
            super().__init__(24, 4, 6)

        def forward(self, x: Tensor) -> Tensor:
            b, n, c = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
            x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
            return self.proj(x.transpose(1, 2).reshape(b, n, c))

    factory = partial(Transformer, Tied)
    made = survey(factory, SHAPE)
    assert [(group.name, group.units) for group in made.groups] == [
        ("embed", 4), ("mlps.0.0", 32), ("mlps.1.0", 32),
    ]  # fmt: skip
    oracle = Oracle(factory, made, batch_of([SHAPE], 4))
    assert oracle.difference(point(made, random_kept(made, random.Random(0)))).eval <= 1e-9


def test_heads_whose_weights_are_read_stay() -> None:
    class Read(OfTorch):
        def forward(self, x: Tensor) -> Tensor:
            y, weights = self.attention(x, x, x)
            return y * weights.mean(-1, keepdim=True)

    made = survey(partial(Transformer, Read), SHAPE)
    assert not [group for group in made.groups if group.units == 4]
    assert "its attention weights are read" in {frozen.why for frozen in made.frozen}


class OnMaps(Fused):
    """Over the positions of a map, whose shape the joined heads take again."""

    def joined(self, x: Tensor) -> Tensor:
        return self.proj(x.transpose(1, 2).reshape(x.shape[0], 1, x.shape[2], -1)).flatten(1, 2)


class HeadsFirst(Fused):
    """Queries, keys and values lie side by side within each head, as in MaxViT."""

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        b, n, _ = x.shape
        return self.qkv(x).view(b, n, self.num_heads, 3 * self.head_dim).transpose(1, 2).chunk(3, dim=3)


FEW: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "two": (partial(Unfused, num_heads=2), 2),
    "three": (partial(Unfused, num_heads=3), 3),  # as many as queries, keys and values
    "three of three": (partial(Unfused, num_heads=3, head_dim=3), 3),
    "two fused": (partial(Fused, num_heads=2), 2),
    "three fused": (partial(Fused, num_heads=3), 3),
    "two on maps": (partial(OnMaps, num_heads=2), 2),
    "two heads first": (partial(HeadsFirst, num_heads=2), 2),
    "two biased": (partial(Biased, num_heads=2), 2),
    "four separate": (Separate, 4),
    "two of torch": (partial(OfTorch, num_heads=2), 2),
}


@pytest.mark.parametrize("name", FEW)
def test_a_point_with_a_single_head_is_no_reason_to_hold_heads(name: str) -> None:
    attention, heads = FEW[name]
    factory = partial(Transformer, attention)
    for seed in range(3):  # one of the random points has a single head somewhere
        made = survey(factory, SHAPE, seed)
        assert [frozen.why for frozen in made.frozen] == ["the network's output"]
        assert sorted(group.units for group in made.groups) == [heads, heads, 24, 32, 32]
    oracle = Oracle(factory, made, batch_of([SHAPE], 4))
    kept = {group.name: range(1 if group.units == heads else group.units // 2) for group in made.groups}
    difference = oracle.difference(point(made, {name: sorted(units) for name, units in kept.items()}))
    assert difference.eval <= 1e-9
    assert difference.train <= 1e-9


class Table(nn.Module):
    """A bias that its module views by an attribute, and that another module asks for without calling it."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(9, num_heads))
        places = torch.arange(SHAPE[0])
        index = places[:, None] - places[None] + SHAPE[0] - 1
        self.register_buffer("index", index.view(-1), persistent=False)
        self.bias_shape = (SHAPE[0], SHAPE[0], num_heads)

    def bias(self) -> Tensor:
        return self.table[self.index].view(self.bias_shape).permute(2, 0, 1)


class Tabled(Unfused):
    def __init__(self) -> None:
        super().__init__()
        self.table = Table(self.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return self.joined(F.scaled_dot_product_attention(q, k, v, self.table.bias()))


class Scaled(Unfused):
    """Its result scaled by a parameter that is viewed by an attribute; another one holds as many by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.shift_size, self.shape = (self.num_heads, 0), (1, 24)
        self.gain = nn.Parameter(torch.ones(24))

    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(super().forward(x), self.shift_size, (1, 0)) * self.gain.view(self.shape)


@pytest.mark.parametrize("attention", [Tabled, Scaled])
def test_an_attribute_that_views_a_parameter_follows_it(attention: Callable[[], nn.Module]) -> None:
    factory = partial(Transformer, attention)
    made = survey(factory, SHAPE)
    assert [frozen.why for frozen in made.frozen] == ["the network's output"]
    assert sorted(group.units for group in made.groups) == [4, 4, 24, 32, 32]
    check_function(factory, made, [SHAPE])
