"""What each kind of operation does to the channels, on networks of a few layers."""

import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.survey import FIXED, Frozen, Span, Survey
from prunas.tracing.survey import survey
from tests.tracing.small import check_points

SHAPE = (3, 6, 6)


class Net(nn.Module):
    """A first convolution of 8 filters, a `middle` that tests replace, and a last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.last = nn.Conv2d(8, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


def widths(made: Survey) -> dict[str, int]:
    return {group.name: group.units for group in made.groups}


def reasons(made: Survey) -> list[Frozen]:
    return [frozen for frozen in made.frozen if frozen.why != "the network's output"]


def form(made: Survey, path: str, side: str = "reads") -> tuple[Span, ...]:
    return made.forms[getattr(made.layer_at[path], side)]


def test_a_chain() -> None:
    made = check_points(Net, SHAPE)
    assert widths(made) == {"first": 8}
    assert form(made, "last") == (Span(0, 0, 8, 1),)
    assert form(made, "last", "writes") == (Span(FIXED, 0, 4, 1),)
    assert [(f.what, f.why) for f in made.frozen] == [("last", "the network's output")]


POINTWISE = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh(),
    "in place": lambda x: F.relu_(x),
    "hardswish": F.hardswish,
    "square": lambda x: x.pow(2),
    "scaled": lambda x: 2 * x + 1,
    "literal scale": lambda x: x * 8**-0.5,
    "clone": lambda x: x.clone().contiguous(),
    "max pool": lambda x: F.max_pool2d(x, 2),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "spatial pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "interpolate to its own size": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:]),
    "mean over the map": lambda x: x.mean((2, 3), keepdim=True),
    "sum over the map": lambda x: x.sum(-1).sum(2)[:, :, None, None],
    "there and back": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "flat and back": lambda x: x.flatten(2).unflatten(2, (4, 4)),
    "view with sizes": lambda x: x.view(x.shape[0], x.size(1), -1).view(x.shape),
    "view with unpacked sizes": lambda x: x.reshape(x.size()[0], x.shape[1], 16)[:, :, :, None],
    "slices of the map": lambda x: torch.cat((x[:, :, :2], x[..., 2:, :]), 2),
    "chunks of the map": lambda x: x.chunk(2, 2)[0] + x.chunk(2, 2)[1],
    "batch norm like": lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / 2,
    "stacked": lambda x: torch.stack((x, x)).mean(0),
    "softmax over the map": lambda x: x.flatten(2).softmax(-1).view(x.shape),
    "its number of axes": lambda x: x * x.dim() + x.ndim,
}


@pytest.mark.parametrize("name", POINTWISE)
def test_operations_that_leave_channels_alone(name: str) -> None:
    class Case(Net):
        def middle(self, x: Tensor) -> Tensor:
            return POINTWISE[name](x)

    made = check_points(Case, SHAPE, points=2)
    assert widths(made) == {"first": 8}, reasons(made)
    assert not reasons(made)


HELD = {
    "softmax over channels": (lambda x: x.softmax(1), "softmax runs over channels"),
    "an unknown function": (lambda x: torch.erfinv(x.tanh() / 2), "erfinv is not understood"),
    "sum over channels": (lambda x: x.sum(1, keepdim=True) + x, "sum runs over channels"),
    "sum over everything": (lambda x: x + x.sum(), "sum runs over channels"),
    "shuffle by numbers": (
        lambda x: x.view(x.shape[0], 2, 4, 4, 4).transpose(1, 2).reshape(x.shape),
        "reshape splits or reorders channels by position",
    ),
    "unequal chunks": (
        lambda x: torch.cat(x.chunk(3, 1), 1),
        "chunk splits or reorders channels by position",
    ),
    "split by number": (
        lambda x: torch.cat(x.split(4, 1)[::-1], 1),
        "split splits or reorders channels by position",
    ),
    "every second channel": (
        lambda x: torch.cat((x[:, ::2], x[:, 1::2]), 1),
        "getitem splits or reorders channels by position",
    ),
    "rolled": (lambda x: x.roll(1, 1), "roll splits or reorders channels by position"),
    "its number of elements": (lambda x: x / x.numel(), "a channel count becomes a value"),
    "its size in bytes": (lambda x: x / x.nbytes, "a channel count becomes a value"),
    "first channels": (
        lambda x: torch.cat((x[:, :4], x[:, 4:]), 1),
        "getitem splits or reorders channels by position",
    ),
    "reversed": (lambda x: x.flip(1), "flip splits or reorders channels by position"),
    "channel pad": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:-1], "a constant pad joins the channels"),
    "a count as a value": (lambda x: x * x.shape[1] ** -0.5, "a channel count becomes a value"),
    "a count as a value, by size": (lambda x: x / x.size(1), "a channel count becomes a value"),
    "a count as a value, unpacked": (lambda x: x / x.size()[1], "a channel count becomes a value"),
    "a count as a value, by keyword": (lambda x: x / x.size(dim=1), "a channel count becomes a value"),
    "a count as a value, by math": (
        lambda x: x / math.sqrt(x.shape[1]),
        "a channel count becomes a value",
    ),
    "a count as a value, among others": (
        lambda x: x / (x.shape[:2] + x.shape[2:])[1],
        "a channel count becomes a value",
    ),
    "a tensor of fixed size": (
        lambda x: x * torch.linspace(0, 1, 8, device=x.device, dtype=x.dtype)[:, None, None],
        "they meet a tensor of fixed size",
    ),
    "one channel over many": (lambda x: x * x[:, :1], "getitem splits or reorders channels by position"),
    "channels beside positions": (
        lambda x: x + x.mean((2, 3))[:, :, None, None].permute(0, 2, 3, 1).mean(-1)[..., None],
        "mean runs over channels",
    ),
    "channels on two axes": (
        lambda x: x[..., :1, :1] * x[..., 0, 0][:, None, :, None].sum((2,), keepdim=True),
        "sum runs over channels",
    ),
    "crossed axes": (
        lambda x: (x[..., 0, 0][:, :, None] * x[..., 0, 0][:, None, :]).mean(2)[..., None, None],
        "channels of two axes meet",
    ),
    "pooled across channels": (
        lambda x: F.max_pool2d(x.permute(0, 2, 3, 1), (1, 8)).expand(-1, -1, -1, 8).permute(0, 3, 1, 2),
        "pooled across channels",
    ),
    "concatenated along the map with zeros": (
        lambda x: torch.cat((x, x.new_zeros(x.shape[0], 8, 1, 4)), 2),
        "concatenated along another axis than the channels",
    ),
    "zeros of as many channels": (
        lambda x: x * x.new_ones(1, x.shape[1], 1, 1),
        "a channel count becomes a value",
    ),
}


PAIRED = {
    "shuffle": lambda x: x.view(x.shape[0], 2, x.shape[1] // 2, 4, 4).transpose(1, 2).reshape(x.shape),
    "shuffle with a free size": lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "shuffle of neighbours": lambda x: x.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2),
    "shuffle by torch": lambda x: torch.channel_shuffle(x, 2),
    "swapped chunks": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "gated by the other half": lambda x: torch.cat([x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid()] * 2, 1),
    "gated linear unit": lambda x: torch.cat([F.glu(x, 1)] * 2, 1),
    "halves by slices": lambda x: torch.cat((x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2].relu()), 1),
    "split by count": lambda x: torch.cat(x.split(x.shape[1] // 2, dim=1)[::-1], 1),
}


def test_modules_that_move_channels() -> None:
    net = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(3, 8, 1),
        nn.ChannelShuffle(2),
        nn.Unflatten(2, (2, 3)),
        nn.Flatten(2, 3),
        nn.Conv2d(8, 4, 1),
    )
    made = check_points(net, SHAPE, points=4)
    assert [(group.name, group.units, group.unit) for group in made.groups] == [("0", 4, 2)]
    assert form(made, "4") == (Span(0, 0, 4, 2),)


@pytest.mark.parametrize("name", PAIRED)
def test_equal_parts_of_the_channels_vary_together(name: str) -> None:
    class Case(Net):
        def middle(self, x: Tensor) -> Tensor:
            return PAIRED[name](x)

    made = check_points(Case, SHAPE, points=4)
    assert [(group.name, group.units, group.unit) for group in made.groups] == [("first", 4, 2)]
    assert not reasons(made)


@pytest.mark.parametrize("name", HELD)
def test_operations_that_hold_channels_say_why_and_where(name: str) -> None:
    function, why = HELD[name]

    class Case(Net):
        def middle(self, x: Tensor) -> Tensor:
            return function(x)

    made = survey(Case, SHAPE)
    assert widths(made) == {}
    assert reasons(made)[0].what == "first"
    assert reasons(made)[0].why == why
    line = re.search(r"\(test_labels\.py:(\d+)\)$", reasons(made)[0].where)
    first = function.__code__.co_firstlineno
    assert line and first <= int(line[1]) <= first + 1


def test_a_size_written_as_a_number_is_found_by_narrowing() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Conv2d(3, 8, 3)
            self.fc = nn.Linear(8 * 16, 5)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).view(-1, 128)
            return self.head(self.fc(x))

    made = check_points(Case, SHAPE)
    assert widths(made) == {"fc": 5}
    (reason,) = reasons(made)
    assert reason.what == "first"
    assert "a narrowed network has other channels here than expected" in reason.why
    assert re.fullmatch(r"forward \(test_labels\.py:\d+\)", reason.where)


def test_a_width_kept_as_an_attribute_is_found_by_narrowing() -> None:
    class Case(Net):
        width = 8

        def middle(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0] * 2, self.width // 2, 4, 4).reshape(-1, self.width, 4, 4)

    assert widths(survey(Case, SHAPE)) == {}


def test_a_literal_that_folds_into_the_batch_is_found_by_narrowing() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).view(-1, 8))

    assert widths(survey(Case, (3,))) == {}


def test_flatten_repeats_units() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8 * 16, 4)
            self.flat = nn.Flatten()

        def middle(self, x: Tensor) -> Tensor:
            return self.flat(x)

    made = check_points(Case, SHAPE)
    assert form(made, "last") == (Span(0, 0, 8, 16),)


def test_channels_last_linear_layers() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 6)
            self.last = nn.Linear(6, 4)

        def middle(self, x: Tensor) -> Tensor:
            return self.inner(x.permute(0, 2, 3, 1)).relu()

    assert widths(check_points(Case, SHAPE)) == {"first": 8, "inner": 6}


def test_a_linear_layer_over_positions_holds_the_channels() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(16, 16)

        def middle(self, x: Tensor) -> Tensor:
            return self.mix(x.flatten(2)).view(x.shape)

    made = survey(Case, SHAPE)
    assert widths(made) == {}
    assert "do not lie along the axis" in reasons(made)[0].why


def test_batch_folded_into_rows() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 4)

        def middle(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])

    made = check_points(Case, SHAPE)
    assert widths(made) == {"first": 8}
    assert made.layer_at["last"].positions == 16


class Grouped(nn.Module):
    def __init__(self, multiplier: int = 1, groups: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8 * multiplier, 3, groups=groups)
        self.last = nn.Conv2d(8 * multiplier, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(self.norm(self.first(x))))


def test_a_unit_of_a_grouped_convolution_is_one_channel_of_every_group() -> None:
    made = check_points(Grouped, SHAPE, points=6)
    assert [(g.name, g.units, g.unit) for g in made.groups] == [("first", 4, 2), ("grouped", 4, 2)]
    assert form(made, "grouped") == (Span(0, 0, 4, 1), Span(0, 0, 4, 1))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions_follow(multiplier: int) -> None:
    made = check_points(lambda: Grouped(multiplier, 8), SHAPE)
    assert widths(made) == {"first": 8}
    assert made.layer_at["grouped"].depthwise
    assert form(made, "grouped", "writes") == (Span(0, 0, 8, multiplier),)


def test_squeeze_and_excitation() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)

        def middle(self, x: Tensor) -> Tensor:
            scale = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
            return x * scale.sigmoid()

    made = check_points(Case, SHAPE)
    assert widths(made) == {"first": 8, "down": 3}
    assert {group.name: group.role for group in made.groups} == {"first": "residual", "down": "plain"}
    assert not made.gates  # what reads channels to scale them is not another reader


def test_spatial_attention_leaves_what_it_weighs_free() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.Conv2d(8, 1, 1)

        def middle(self, x: Tensor) -> Tensor:
            return x * self.attend(x).sigmoid()

    made = check_points(Case, SHAPE)
    assert widths(made) == {"first": 8}
    assert [(f.what, f.why) for f in reasons(made)] == [("attend", "one channel is broadcast over many")]


def test_a_stream_that_takes_another_ones_shape_is_tied_to_it() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.side, self.end = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(y) + self.end(self.side(x).reshape(y.shape))

    made = check_points(Case, SHAPE)
    assert [(g.name, g.units, g.role) for g in made.groups] == [("first", 8, "residual")]


def test_an_opaque_tensor_that_takes_a_shape_holds_it() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.side, self.end = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(y) + self.end(self.side(x).softmax(1).view(y.shape))

    made = survey(Case, SHAPE)
    assert widths(made) == {}
    assert {f.what: f.why for f in reasons(made)} == {
        "side": "softmax runs over channels",
        "first": "a channel count becomes a value",
    }


def test_concatenation() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Conv2d(8, 5, 1)
            self.last = nn.Conv2d(13, 4, 1)

        def middle(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.side(x)], 1)

    made = check_points(Case, SHAPE)
    assert {group.name: group.role for group in made.groups} == {
        "first": "concatenated",
        "side": "concatenated",
    }
    assert form(made, "last") == (Span(0, 0, 8, 1), Span(1, 0, 5, 1))
    assert [gate.name for gate in made.gates] == ["side", "last"]


def test_channels_twice_in_one_concatenation() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(16, 4, 1)

        def middle(self, x: Tensor) -> Tensor:
            return torch.cat((x, -x), dim=1)

    assert form(check_points(Case, SHAPE), "last") == (Span(0, 0, 8, 1),) * 2


def test_concatenated_zeros_are_fixed_and_the_rest_is_free() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(10, 4, 1)

        def middle(self, x: Tensor) -> Tensor:
            return torch.cat((x, x.new_zeros(x.shape[0], 2, 4, 4)), 1)

    made = check_points(Case, SHAPE)
    assert form(made, "last") == (Span(0, 0, 8, 1), Span(FIXED, 0, 2, 1))


def test_channels_that_meet_fixed_zeros_are_named() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Conv2d(3, 10, 3)
            self.last = nn.Conv2d(10, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(torch.cat((y, y.new_zeros(y.shape[0], 2, 4, 4)), 1) + self.side(x))

    made = check_points(Case, SHAPE)
    assert widths(made) == {"first": 8}
    assert [(f.what, f.why) for f in reasons(made)] == [("side", "they meet channels that never vary")]


def test_a_sum_ties_its_operands() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Conv2d(3, 8, 3)
            self.scale = nn.Parameter(torch.rand(8, 1, 1))
            self.register_buffer("shift", torch.rand(1, 8, 1, 1))
            self.temperature = nn.Parameter(torch.rand(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.last((self.first(x) + self.side(x)) * self.scale * self.temperature + self.shift)

    made = check_points(Case, SHAPE)
    assert [(g.name, g.units, g.role) for g in made.groups] == [("first", 8, "residual")]
    axes = {site.tensor: site.axis for site in made.sites if "." not in site.tensor}
    assert axes == {"scale": 0, "shift": 1}


@pytest.mark.parametrize(
    ("norm", "maskable", "units"),
    [
        (lambda: nn.BatchNorm2d(8), True, 8),
        (lambda: nn.BatchNorm2d(8, affine=False), True, 8),
        (lambda: nn.InstanceNorm2d(8, affine=True), True, 8),
        (lambda: nn.PReLU(8), True, 8),
        (lambda: nn.PReLU(), True, 8),
        (lambda: nn.GroupNorm(2, 8), False, 4),
        (lambda: nn.GroupNorm(1, 8), False, 8),
    ],
)
def test_norms(norm: type[nn.Module], maskable: bool, units: int) -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm()

        def middle(self, x: Tensor) -> Tensor:
            return self.norm(x)

    assert widths(check_points(Case, SHAPE, maskable=maskable)) == {"first": units}


def test_a_layer_norm_narrows_to_the_kept_channels() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.first(x)))

    made = check_points(Case, (3,), maskable=False)
    assert [(g.name, g.units, g.maskable) for g in made.groups] == [("first", 8, False)]


def test_a_module_called_twice() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Conv2d(8, 8, 3, padding=1)

        def middle(self, x: Tensor) -> Tensor:
            return self.again(self.again(x))

    made = check_points(Case, SHAPE)
    assert [(g.name, g.units, g.role) for g in made.groups] == [("first", 8, "residual")]
    assert made.layer_at["again"].positions == 2 * 16


def test_other_dimensions() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)
            self.pool, self.last = nn.MaxPool1d(2), nn.Conv1d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.pool(self.norm(self.first(x))))

    assert widths(check_points(Case, (3, 10))) == {"first": 8}


def test_attention_varies_and_its_work_is_counted() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            y = self.attention(y, y, y, need_weights=False)[0]
            return self.down(
                torch.einsum("bld->bld", self.up(y).relu()) @ torch.eye(12, device=y.device, dtype=y.dtype)
            )

    made = survey(Case, (5, 4))
    assert widths(made) == {"first": 8, "attention": 2, "attention.out_proj": 8}
    assert {f.what: f.why for f in reasons(made)} == {"up": "einsum is not understood"}
    rows = {row.layer: (row.params, row.macs) for row in made.rows if row.macs and row.reads == FIXED}
    # scores and weighted sums, 2 x 5 x 5 for each of the 8 channels of the heads; then 5 x 12 x 12
    assert rows == {"attention": (0, 2 * 5 * 5), "matmul": (0, 5 * 12 * 12)}
    assert CostModel(made).of(Architecture("t", made.fingerprint)).macs == (
        5 * (4 * 8 + 8 * 24 + 8 * 8 + 8 * 12 + 12 * 2) + 8 * 2 * 5 * 5 + 5 * 12 * 12
    )
