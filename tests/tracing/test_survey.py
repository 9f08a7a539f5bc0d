"""Gates, blocks and refusals, on networks of a few layers."""

import itertools
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from prunas import networks
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.errors import InputError
from prunas.surgery.assemble import build
from prunas.survey import Survey
from prunas.tracing.survey import survey
from tests.tracing.small import assert_close, check_points

SHAPE = (3, 6, 6)


def reasons(made: Survey) -> dict[str, str]:
    return {frozen.what: frozen.why for frozen in made.frozen if frozen.why != "the network's output"}


# Gates


class Shared(nn.Module):
    """A stream that two branches read, each through a norm of its own."""

    def __init__(self, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool
        self.stem = nn.Conv2d(3, 8, 3)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1)
        self.bn2, self.fc = nn.BatchNorm2d(8), nn.Linear(8 * pool * pool, 4)
        self.fc1 = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(F.relu(self.bn1(x))).mean((2, 3))
        z = F.adaptive_avg_pool2d(F.relu(self.bn2(x)), self.pool).flatten(1)
        return self.fc1(y) + self.fc(z)


def test_a_gate_sits_before_the_norm_that_serves_its_reader_alone() -> None:
    made = check_points(Shared, SHAPE)
    assert [(gate.name, gate.norm) for gate in made.gates] == [("conv1", "bn1"), ("fc", "bn2")]
    assert [layer.path for layer in made.layers] == ["stem", "bn1", "conv1", "bn2", "fc1", "fc"]


def test_a_flattened_map_separates_a_gate_from_its_norm() -> None:
    made = check_points(partial(Shared, 2), SHAPE)
    assert [(gate.name, gate.norm) for gate in made.gates] == [("conv1", "bn1"), ("fc", None)]
    model = CostModel(made)
    assert model.gate_inputs(model.dense_widths[None]).tolist() == [[8, 32]]


def test_a_norm_that_serves_two_readers_is_not_selected() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.conv1, self.conv2 = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.stem(x))
            return self.conv1(x) + self.conv2(x)

    made = check_points(Case, SHAPE)
    assert [(gate.name, gate.norm) for gate in made.gates] == [("conv1", None), ("conv2", None)]


def test_a_frozen_stream_still_has_gates() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.conv1, self.conv2 = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(x)
            return self.conv1(x) + self.conv2(x), x

    made = survey(Case, SHAPE)
    assert not made.groups
    assert [gate.name for gate in made.gates] == ["conv1", "conv2"]


def test_hooked_and_parametrised_layers_are_no_gates() -> None:
    class Case(Shared):
        def __init__(self) -> None:
            super().__init__()
            self.conv1.register_forward_hook(lambda module, inputs, output: output * 2)
            self.bn2.register_forward_hook(lambda module, inputs, output: output * 2)

    assert [(gate.name, gate.norm) for gate in survey(Case, SHAPE).gates] == [("fc", None)]


# Blocks


class Block(nn.Module):
    """A residual block whose parts tests replace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1)
        self.drop = nn.Dropout(0.5)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.norm(self.conv1(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + x


class Around(nn.Module):
    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem, self.block, self.last = nn.Conv2d(3, 8, 3), block(), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.silu(self.block(self.stem(x))))


def check_block(block: type[Block], branch: tuple[str, ...]) -> nn.Module:
    """Removing the block's branch is multiplying it by 0, in function and in cost; what is built."""
    factory = partial(Around, block)
    made = survey(factory, SHAPE)
    assert [(b.name, b.branch) for b in made.blocks] == [("block", branch)]
    arch = Architecture("test", made.fingerprint, removed=("block",))
    dense = factory().double()
    net = build(lambda: factory().double(), made, arch, weights=dense.state_dict())
    assert CostModel(made).of(arch).params == sum(parameter.numel() for parameter in net.parameters())
    dense.block.conv2.register_forward_hook(lambda module, inputs, output: output * 0)
    for training in (False, True):
        images = torch.randn(4, *SHAPE, dtype=torch.float64)
        net.train(training), dense.train(training)
        assert_close(net(images).detach(), dense(images).detach())
    return net


def test_a_block_with_nothing_behind_its_sum_becomes_identity() -> None:
    assert isinstance(check_block(Block, ("block.conv1", "block.norm", "block.conv2")).block, nn.Identity)


def test_what_follows_the_sum_stays() -> None:
    class Case(Block):
        def __init__(self) -> None:
            super().__init__()
            self.after = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.after(super().forward(x))

    built = check_block(Case, ("block.conv1", "block.norm", "block.conv2"))
    assert list(built.block.state_dict()) == ["after.0.weight", "after.0.bias"]


def test_attention_can_be_the_branch_or_follow_it() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0] + x

    class After(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x) + x
            return self.attention(x, x, x, need_weights=False)[0]

    for block, branch in (
        (Attention, ("1.attention", "1.attention.out_proj")),
        (After, ("1.inner",)),
    ):
        factory = partial(lambda block: nn.Sequential(nn.Linear(4, 8), block(), nn.Linear(8, 2)), block)
        made = survey(factory, (5, 4))
        assert [(b.name, b.branch) for b in made.blocks] == [("1", branch)]
        arch = Architecture("t", made.fingerprint, removed=("1",))
        net = build(factory, made, arch)
        assert CostModel(made).of(arch).params == sum(parameter.numel() for parameter in net.parameters())
        assert net(torch.randn(2, 5, 4)).shape == (2, 5, 2)


def test_a_shortcut_with_weights_stays() -> None:
    class Case(Block):
        def __init__(self) -> None:
            super().__init__()
            self.shortcut = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.branch(x)
            y += self.shortcut(x)
            return F.relu_(y)

    check_block(Case, ("block.conv1", "block.norm", "block.conv2"))


def test_bare_and_unused_parameters_of_a_block_go_with_its_branch() -> None:
    class Case(Block):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(8, 1, 1))
            self.spare = nn.Parameter(torch.rand(3))
            self.unused = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.branch(x) + x

    called = ("block.scale", "block.conv1", "block.norm", "block.conv2")
    check_block(Case, (*called, "block.spare", "block.unused.0", "block.unused.1"))


def test_an_activation_shared_by_the_branch_and_what_follows_stays() -> None:
    class Case(Block):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.conv2(self.relu(self.norm(self.conv1(x)))) + x)

    check_block(Case, ("block.conv1", "block.norm", "block.conv2"))


def test_dropout_inside_a_branch_goes_with_it() -> None:
    class Case(Block):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.branch(x), 0.5, self.training) + x

    check_block(Case, ("block.conv1", "block.norm", "block.conv2"))


def in_place_start(self: Block, x: Tensor) -> Tensor:
    return self.branch(F.relu_(x)) + x


def in_place_view(self: Block, x: Tensor) -> Tensor:
    return self.branch(x.view(x.shape).mul_(2)) + x


def two_sums(self: Block, x: Tensor) -> Tensor:
    return self.conv2(F.relu(self.conv1(x) + self.norm(self.conv1(x)))) + x


def scaled_sum(self: Block, x: Tensor) -> Tensor:
    return torch.add(self.branch(x), x, alpha=2)


def product(self: Block, x: Tensor) -> Tensor:
    return self.branch(x) * x


def equal_sides(self: Block, x: Tensor) -> Tensor:
    return self.conv2(self.conv1(x)) + self.conv2(self.conv1(x))


def read_from_outside(self: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    y = self.branch(x)
    return y + x, y


def plain(self: Block, x: Tensor) -> Tensor:
    return self.branch(x)


@pytest.mark.parametrize(
    "forward",
    [
        in_place_start, in_place_view, two_sums, scaled_sum, product, equal_sides, plain,
    ],
)  # fmt: skip
def test_other_shapes_are_not_blocks(forward: Callable[[Block, Tensor], Tensor]) -> None:
    class Case(Block):
        pass

    Case.forward = forward
    made = survey(partial(Around, Case), SHAPE)
    assert not made.blocks


def test_a_branch_that_is_read_from_outside_stays() -> None:
    class Case(Block):
        forward = read_from_outside

    class Reading(Around):
        def forward(self, x: Tensor) -> Tensor:
            total, branch = self.block(self.stem(x))
            return self.last(total) * branch.mean()

    assert not survey(partial(Reading, Case), SHAPE).blocks


class DropsBehindTheSum(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.branch(x) + x, 0.5, self.training)


class TakesMore(Block):
    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        return self.branch(x) * factor + x


class Broadcasts(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + x.mean((2, 3), keepdim=True)


class ChangedInPlace(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu_(self.block(self.stem(x))))


class InputChangedInPlace(Around):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.block(x)
        return self.last(y + F.relu_(x))


class SharesWeights(Around):
    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__(block)
        self.again = self.block.conv1

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.block(x)) + self.again(x).mean()


class CalledTwice(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.block(self.stem(x))))


@pytest.mark.parametrize(
    ("around", "block", "why"),
    [
        (
            Around,
            DropsBehindTheSum,
            "what is left without the branch differs between training and evaluation",
        ),
        (Around, TakesMore, "its forward takes more than one argument"),
        (Around, Broadcasts, "its shortcut is broadcast"),
        (ChangedInPlace, Block, "its input or output is changed in place"),
        (InputChangedInPlace, Block, "its input or output is changed in place"),
        (SharesWeights, Block, "its weights are used elsewhere too"),
        (CalledTwice, Block, "it is called more than once"),
    ],
)
def test_blocks_that_cannot_lose_their_branch_say_why(
    around: type[Around], block: type[Block], why: str | None
) -> None:
    made = survey(partial(around, block), SHAPE)
    assert not made.blocks
    told = reasons(made).get("block")
    assert told == (why and f"its branch cannot be removed: {why}")


def test_the_innermost_module_is_the_block() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Block()

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.inner(x))

    assert [block.name for block in survey(partial(Around, Outer), SHAPE).blocks] == ["block.inner"]


# Refusals


class Chain(nn.Module):
    """Three convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


def groups(made: Survey) -> list[str]:
    return [group.name for group in made.groups]


def test_a_parameter_read_besides_its_module_is_held() -> None:
    class Case(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.b.weight.pow(2).mean()

    made = survey(Case, SHAPE)
    assert groups(made) == []
    assert reasons(made)["a, b"] == "forward reads its weight besides calling it"
    assert re.search(r"test_survey\.py:\d+", made.frozen[-1].where + made.frozen[0].where)


def test_tied_modules_are_held() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.d = nn.Conv2d(8, 8, 1)
            self.d.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.d(self.b(self.a(x))))

    made = survey(Case, SHAPE)
    assert groups(made) == []
    assert "it shares its weight with" in next(iter(reasons(made).values()))
    assert CostModel(made).of(Architecture("t", made.fingerprint)).params == sum(
        parameter.numel() for parameter in Case().parameters()
    )


def test_parametrised_modules_are_held() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.b = parametrizations.weight_norm(self.b)

    made = survey(Case, SHAPE)
    assert groups(made) == []
    assert "its weight is parametrised" in reasons(made).values()


def test_hooked_modules_are_held() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.b.register_forward_hook(lambda module, inputs, output: output * 2)

    made = survey(Case, SHAPE)
    assert groups(made) == []
    assert "it has forward hooks" in reasons(made).values()


def test_functional_layers_with_computed_weights_vary_and_their_work_is_counted() -> None:
    class Case(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(F.conv2d(self.a(x), self.b.weight * 2, self.b.bias))

    made = survey(Case, SHAPE)
    assert groups(made) == ["a", "b"]
    assert reasons(made) == {}
    cost = CostModel(made).of(Architecture("t", made.fingerprint))
    assert (cost.params, cost.macs) == (3 * 8 + 8 + 64 + 8 + 32 + 4, 36 * (24 + 64 + 32))


def test_layers_whose_output_is_unused_run_at_every_width() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Conv2d(8, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            self.idle(x)
            return self.c(self.b(x))

    assert groups(check_points(Case, SHAPE)) == ["a", "idle", "b"]


def test_auxiliary_heads_count_parameters_but_no_work() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(self.a(x))
            return self.c(x) + self.aux(x) if self.training else self.c(x)

    made = check_points(Case, SHAPE)
    assert groups(made) == ["a", "b"]
    cost = CostModel(made).of(Architecture("t", made.fingerprint))
    assert (cost.params, cost.macs) == (32 + 72 + 36 + 36, 36 * (24 + 64 + 32))


def test_layers_that_are_never_called_are_counted() -> None:
    class Case(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.never = nn.Linear(10, 10)

    made = check_points(Case, SHAPE)
    assert CostModel(made).of(Architecture("t", made.fingerprint)).params == 32 + 72 + 36 + 110


def test_a_network_without_free_channels() -> None:
    made = survey(lambda: nn.Conv2d(3, 4, 1), SHAPE)
    assert (made.groups, made.gates, made.blocks) == ((), (), ())
    assert CostModel(made).of(Architecture("t", made.fingerprint)) == (16, 12 * 36, 16, 12 * 36)


def one_line(factory: Callable[[], nn.Module], shape: tuple[int, ...] = SHAPE) -> str:
    with pytest.raises(InputError) as caught:
        survey(factory, shape)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_data_dependent_control_flow_is_refused() -> None:
    class Case(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    assert "cannot be traced" in one_line(Case)


def test_data_dependent_values_are_refused() -> None:
    class Case(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * x.sum().item()

    assert one_line(Case).startswith("the network reads the values of its tensors [forward (test_survey.py:")


def test_wrong_input_shapes_are_refused() -> None:
    message = one_line(Chain, (4, 6, 6))
    assert message.startswith("the network does not accept an input of shape (4, 6, 6): ")
    assert "channel" in message
    assert "does not accept" in one_line(partial(networks.vgg11, pools=4), (3, 4, 4))
    narrow = one_line(lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(7)))
    assert "a norm of 7 channels was given 8 [1" in narrow
    flat = one_line(lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm2d(108)))
    assert "expected 4D input (got 2D input) [1]" in flat


def test_factories_that_return_something_else_are_refused() -> None:
    assert one_line(lambda: 3) == "the network's factory returns int, not a torch module"  # type: ignore[arg-type]
    numbers = itertools.count()
    assert "the same network at every call" in one_line(lambda: Chain() if next(numbers) == 0 else Block())
    widths = itertools.count(8)

    def growing() -> nn.Module:
        width = next(widths)
        return nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, 2, 1))

    assert "the same network at every call" in one_line(growing)


def test_a_factory_that_reads_values_is_built_on_the_cpu() -> None:
    def factory() -> nn.Module:
        widths = torch.linspace(8, 16, 2).int().tolist()
        return nn.Sequential(
            nn.Conv2d(3, widths[0], 1), nn.Conv2d(widths[0], widths[1], 1), nn.Conv2d(16, 2, 1)
        )

    assert groups(check_points(factory, SHAPE)) == ["0", "1"]
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    survey(factory, SHAPE)
    assert torch.equal(torch.rand(1), expected)


def test_surveying_leaves_nothing_behind() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = survey(networks.resnet20, (3, 8, 8))
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()
    assert survey(networks.resnet20, (3, 8, 8)) == first
    assert survey(networks.resnet20, (3, 8, 8), seed=5) == first


def test_stages_follow_map_sizes_and_branches() -> None:
    made = survey(networks.preresnet20, (3, 32, 32))
    assert made.stages == ((32, 32), (16, 16), (8, 8), ())
    stage = {layer.path: layer.stage for layer in made.layers}
    # conv1 of a block that halves the map still runs at the old size, yet belongs to the new stage
    assert [stage[f"layer2.0.{name}"] for name in ("bn1", "conv1", "conv2", "conv3", "shortcut")] == [1] * 5
    assert stage["conv1"] == 0 and stage["bn"] == 2 and stage["fc"] == 3
    assert [block.stage for block in made.blocks] == [0, 0, 1, 1, 2, 2]
