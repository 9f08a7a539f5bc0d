"""Networks that torch.fx cannot trace: what torch.export makes of them, and the numbers it hides."""

import dataclasses
import gc
import logging
import weakref

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from prunas.survey import Survey
from prunas.tracing.example import Example
from prunas.tracing.exported import export
from prunas.tracing.survey import survey
from tests.tracing.small import SHAPE, Net, check_points


def widths(made: Survey) -> dict[str, int]:
    return {group.name: group.units for group in made.groups}


def reasons(made: Survey) -> dict[str, tuple[str, str]]:
    told = {frozen.what: (frozen.why, frozen.where) for frozen in made.frozen}
    assert told.pop("last")[0] == "the network's output"
    return told


def test_a_network_for_export_varies_as_it_would_for_fx() -> None:
    class Case(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(self.middle(F.relu(self.norm(self.first(x))))))

    made, traced = check_points(Net, SHAPE), survey(Case, SHAPE)
    assert widths(made) == {"first": 8, "second": 6}
    assert (made.groups, made.layers, made.sites, made.rows) == (
        traced.groups,
        traced.layers,
        traced.sites,
        traced.rows,
    )
    assert reasons(made) == {}


class OwnNorm(nn.BatchNorm2d):
    """A norm whose `forward` is its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps
        )


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(12, 12, 3, padding=1), OwnNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm(self.conv(x))).relu()


class Listed(nn.Module):
    """Blocks in a list, called by `forward` itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3), OwnNorm(12)
        self.blocks, self.last = nn.ModuleList([Block(), Block()]), nn.Conv2d(12, 4, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.last(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ListedForExport(Listed):
    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0
        return self.body(x)


def test_lists_of_modules_own_norms_and_blocks_are_found_as_by_fx() -> None:
    made, traced = check_points(ListedForExport, SHAPE), survey(Listed, SHAPE)
    assert widths(made) == {"stem": 12}
    assert dataclasses.replace(made, frozen=(), blocks=()) == dataclasses.replace(
        traced, frozen=(), blocks=()
    )
    for survey_of_blocks in (made, traced):
        assert [block.name for block in survey_of_blocks.blocks] == ["blocks.0", "blocks.1"]
    assert [set(block.branch) for block in made.blocks] == [set(block.branch) for block in traced.blocks]
    assert reasons(made) == {}


class Deaf(Block):
    """Cannot be built without its branch, since torch.fx builds it."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0
        return super().forward(x)


def test_a_block_that_torch_fx_cannot_trace_stays() -> None:
    class Case(Listed):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Deaf(), Block()])

    made = survey(Case, SHAPE)
    assert [block.name for block in made.blocks] == ["blocks.1"]
    ((what, (why, _)),) = reasons(made).items()
    assert what == "blocks.0"
    assert why.startswith("its branch cannot be removed: torch.fx cannot trace it: 'len' is not supported")


def star_shape(x: Tensor) -> Tensor:
    n, *rest = x.shape
    return x.reshape(n, *rest) if len(rest) == 3 else x


def channels_last_and_back(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h * w).transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)


def assigned_border(x: Tensor) -> Tensor:
    x = x + 0
    x[..., 0] = 0
    x[:, :, 1:3].mul_(2)
    return x


def shifted(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :, 1:] = x[:, :, :-1]
    return out


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x.sigmoid()
    with torch.autocast("cpu", enabled=False):
        return x * y.float()


def numbers_of_its_own(x: Tensor) -> Tensor:
    return x * torch.tensor(0.5) + torch.tensor([[0.1]], dtype=x.dtype, device=x.device) + x.new_tensor(2.0)


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def unread(x: Tensor) -> Tensor:
    _ = x + 1
    return x


def test_python_that_asks_tensors_leaves_channels_free() -> None:
    middles = (
        star_shape, channels_last_and_back, assigned_border, shifted, without_gradients, numbers_of_its_own,
        enlarged, unread,
    )  # fmt: skip

    class Case(Net):
        def middle(self, x: Tensor) -> Tensor:
            for step in middles:
                x = step(x)
            return x

    made = check_points(Case, SHAPE)
    assert widths(made) == {"first": 8, "second": 6}
    assert reasons(made) == {}


def scaled_by_count(x: Tensor) -> Tensor:
    return x * x.shape[1] ** -0.5


def scaled_by_count_in_a_tensor(x: Tensor) -> Tensor:
    return x * torch.tensor(x.shape[1] ** -0.5, device=x.device)


def scaled_by_count_in_a_new_tensor(x: Tensor) -> Tensor:
    return x * x.new_tensor([x.shape[1] ** -0.5])


def scaled_by_a_sum_of_ones(x: Tensor) -> Tensor:
    return x * torch.ones(x.shape[1]).sum()


def branch_on_few_channels(x: Tensor) -> Tensor:
    return x.sigmoid() if x.shape[1] > 1 else x


def cut_by_count(x: Tensor) -> Tensor:
    return x[:, :, : max(1, x.shape[1] // 4)]


def asserted(x: Tensor) -> Tensor:
    assert x.shape[1] == 8
    return x


def first_channel_assigned(x: Tensor) -> Tensor:
    x = x + 0
    x[:, 0] = 0
    return x


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        (scaled_by_count, "a narrowed network computes something else here"),
        (scaled_by_count_in_a_tensor, "a narrowed network computes something else here"),
        (scaled_by_count_in_a_new_tensor, "a narrowed network computes something else here"),
        (scaled_by_a_sum_of_ones, "a narrowed network computes something else here"),
        (branch_on_few_channels, "a narrowed network does something else here"),
        (cut_by_count, "a narrowed network computes something else here"),
        (asserted, "a narrowed network fails: "),
        (first_channel_assigned, "getitem splits or reorders channels by position"),
    ],
)
def test_widths_that_become_numbers_are_held(middle, why: str) -> None:
    class Case(Net):
        pass

    Case.middle = lambda self, x: middle(x)
    made = check_points(Case, SHAPE, points=1)
    assert widths(made) == {"second": 6}
    ((what, (told, place)),) = reasons(made).items()
    assert what == "first"
    assert told.startswith(why)
    assert "test_exported.py:" in place


def test_a_width_that_scales_another_stream_is_held_where_it_comes_from() -> None:
    class Case(Net):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) > 0
            y = self.first(x)
            return self.last(self.second(self.norm(y))) * y.shape[1] ** -0.5

    made = check_points(Case, SHAPE, points=1)
    assert widths(made) == {"second": 6}
    assert list(reasons(made)) == ["first"]


def test_a_constant_read_from_a_layer_is_held_for_fx_too() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) * self.first.out_channels**-0.5)

    made = survey(Case, SHAPE)
    assert not made.groups
    assert [f.what for f in made.frozen if f.why != "the network's output"] == ["first"]


def test_attention_and_dropout_stay_calls_of_their_modules() -> None:
    class Case(nn.Module):
        def __init__(self, mode: bool) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
            self.lstm, self.drop = nn.LSTM(8, 4, batch_first=True), nn.Dropout(0.2)
            self.bias = nn.Parameter(torch.zeros(4))
            self.train(mode)

        def forward(self, x: Tensor) -> Tensor:
            y, weights = self.attention(x, x, value=self.drop(x), need_weights=False)
            assert weights is None
            out, (hidden, _) = self.lstm(y)
            return out + hidden.mean() + self.bias

    for mode in (True, False):
        with torch.device("meta"):
            net = Case(mode)
        hooks = [net.drop.register_forward_hook(lambda module, inputs, output: output * 2)]
        graph = export(net, Example((torch.empty(2, 5, 8, device="meta"),)))
        told = [(n.op, n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")]
        assert told == [
            ("call_module", "drop"),
            ("call_module", "attention"),
            ("call_module", "lstm"),
            ("get_attr", "bias"),
        ]
        (call,) = [n for n in graph.nodes if n.target == "attention"]
        assert call.kwargs["need_weights"] is False
        assert len(call.args) == 2
        assert list(net.drop._forward_hooks) == [hooks[0].id]
        assert "forward" not in net.drop.__dict__
        assert net.training == mode


def test_a_layer_called_twice_and_its_place() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)[: len(x)].exp()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.inner(x))

    with torch.device("meta"):
        net = Outer()
    graph = export(net, Example((torch.empty(2, *SHAPE, device="meta"),)))
    stacks = [
        list(n.meta["nn_module_stack"]) for n in graph.nodes if getattr(n.target, "__name__", "") == "exp"
    ]
    assert stacks == [["inner"], ["inner@1"]]
    assert [n.target for n in graph.nodes if n.op == "call_module"] == ["inner.conv", "inner.conv"]


def test_modes_with_graphs_of_their_own() -> None:
    class Case(Net):
        def __init__(self) -> None:
            super().__init__()
            self.aside = nn.Conv2d(8, 5, 1)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            assert len(x) > 0
            y = self.first(x)
            out = self.last(self.second(F.dropout(y, 0.1, self.training)))
            return (out, self.aside(y)) if self.training else out

    made = survey(Case, SHAPE)
    assert widths(made) == {"first": 8, "second": 6}
    assert made.layer_at["aside"].positions == 0
    assert [gate.name for gate in made.gates] == ["second", "aside"]


def test_no_traces_are_left() -> None:
    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def factory() -> nn.Module:
        net = Net()
        alive.add(net)
        return net

    before = torch.random.get_rng_state()
    disabled, lines = logging.root.manager.disable, fx.config.do_not_emit_stack_traces
    survey(factory, SHAPE)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert logging.root.manager.disable == disabled
    assert fx.config.do_not_emit_stack_traces == lines
    assert torch.tensor(1.0).device.type == "cpu" and torch.is_grad_enabled()
    gc.collect()
    assert not alive


def test_a_network_is_left_as_it_was() -> None:
    with torch.device("meta"):
        net = Net()
    net.norm.register_forward_hook(lambda module, inputs, output: output)
    net.forward = lambda x: Net.forward(net, x)  # type: ignore[method-assign]
    net.second.forward = lambda x: nn.Conv2d.forward(net.second, x)  # type: ignore[method-assign]
    own, second, hooks = net.forward, net.second.forward, dict(net.norm._forward_hooks)
    buffers = {name: id(buffer) for name, buffer in net.named_buffers()}
    export(net.eval(), Example((torch.empty(2, *SHAPE, device="meta"),)))
    assert net.forward is own and net.second.forward is second and "forward" not in vars(net.first)
    assert not net.training and dict(net.norm._forward_hooks) == hooks
    assert {name: id(buffer) for name, buffer in net.named_buffers()} == buffers
    assert all(parameter.grad is None for parameter in net.parameters())
