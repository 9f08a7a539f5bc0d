"""What a survey says of what it cannot follow, and what it must not take for a difference."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from prunas.architecture import Architecture
from prunas.graphs.tracer import Tracer
from prunas.surgery.assemble import build
from prunas.survey import Survey
from prunas.tracing.survey import survey
from tests.tracing.refused import OneMore
from tests.tracing.small import check_points

SHAPE = (3, 8, 8)


def reasons(made: Survey) -> dict[str, str]:
    return {frozen.what: frozen.why for frozen in made.frozen if frozen.why != "the network's output"}


# Messages


class Asserting(nn.BatchNorm2d):
    """A norm that names a symbol in its message, as timm's do."""

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, f"expected 4D input (got {x.ndim}D input)")
        statistics = self.running_mean, self.running_var
        return F.relu(
            F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)
        )


class Counting(Asserting):
    """A norm whose message holds how many channels it has."""

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, f"expected 4 axes and {self.num_features} channels")
        return super().forward(x)


@fx.wrap
def noted(x: Tensor, text: str) -> Tensor:
    return x


class Noting(Asserting):
    """A norm that hands a text with a symbol's name to a function."""

    def forward(self, x: Tensor) -> Tensor:
        return noted(super().forward(x), f"norm of {x}")


class Block(nn.Module):
    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1, self.conv2, self.norm = nn.Conv2d(16, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 1, 1), norm(16)
        self.inner = norm(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv2(self.inner(self.conv1(x))))


class Blocks(nn.Module):
    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 16, 3), nn.Sequential(Block(norm), Block(norm))
        self.norm, self.last = norm(16), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.blocks(self.stem(x))))


@pytest.mark.parametrize("norm", [Asserting, Counting])
def test_a_message_is_no_difference(norm: type[nn.Module]) -> None:
    made = check_points(partial(Blocks, norm), SHAPE)
    assert [block.name for block in made.blocks] == ["blocks.0", "blocks.1"]
    assert [group.name for group in made.groups] == ["stem", "blocks.0.conv1", "blocks.1.conv1"]
    assert reasons(made) == {}


def test_a_symbol_in_a_text_is_no_difference() -> None:
    made = survey(partial(Blocks, Noting), SHAPE)
    assert [block.name for block in made.blocks] == ["blocks.0", "blocks.1"]


def test_a_block_whose_modes_number_their_nodes_differently_is_built() -> None:
    class Case(Block):
        def forward(self, x: Tensor) -> Tensor:
            branch = self.inner(self.conv1(x))
            branch = branch + 1 if self.training else branch
            return F.relu(self.norm(self.conv2(branch)) + x) + 1

    class Net(Blocks):
        def __init__(self) -> None:
            super().__init__(nn.BatchNorm2d)
            self.blocks = nn.Sequential(Case(nn.BatchNorm2d), Case(nn.BatchNorm2d))

    made = survey(Net, SHAPE)
    assert [block.name for block in made.blocks] == ["blocks.0", "blocks.1"]
    weights = Net().state_dict()
    net = build(
        Net, made, Architecture("t", made.fingerprint, (), (), ("blocks.0", "blocks.1")), weights=weights
    )
    dense, x = Net().eval(), torch.randn(2, *SHAPE)
    dense.load_state_dict(weights)
    rest = F.relu(F.relu(dense.stem(x)) + 1) + 1
    assert torch.allclose(net.eval()(x), dense.last(dense.norm(rest)))


def test_tensors_are_named_as_torch_names_them() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))
            self.same, self.twin = self.scale, nn.Conv2d(3, 3, 1)
            self.register_buffer("shift", torch.ones(3, 1, 1))
            self.twin.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.add(
                F.conv2d(x * self.same, self.twin.weight, self.twin.bias) * self.scale, self.shift
            )

    net = Case()
    assert str(Tracer().trace(net)) == str(fx.Tracer().trace(net))


# Lists


@fx.wrap
def padded(x: Tensor, sizes: list[int]) -> Tensor:
    sizes[0] = 0
    return torch.vmap(lambda image: image + sum(sizes))(x)  # which the recorder does not go into


SIZES = [1, 2]


@fx.wrap
def with_our_sizes(x: Tensor, sizes: list[int]) -> Tensor:
    if sizes is not SIZES:
        raise ValueError("these are not our sizes")
    return x + 1


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 4, 1)
        self.sizes = [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(padded(self.first(x), [*self.sizes])))


def test_a_function_may_change_the_list_that_it_is_given() -> None:
    made = survey(Lists, SHAPE)
    assert [group.name for group in made.groups] == ["second"]
    assert reasons(made) == {"first": "padded is not understood"}


def test_a_node_that_fails_where_the_network_does_not_is_no_fault_of_the_input() -> None:
    class Case(Lists):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(with_our_sizes(self.first(x), SIZES)))

    made = survey(Case, SHAPE)  # torch.fx copies the list, torch.export does not see it
    assert [group.name for group in made.groups] == ["first", "second"]
    assert reasons(made) == {}


# Factories


class FlattenedOf(nn.Module):
    """The size of its last layer is found by a dry run."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.MaxPool2d(3))
        size = self.features(torch.zeros(1, *SHAPE)).flatten(1).shape[1]
        self.last = nn.Linear(size, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x).flatten(1))


def test_a_factory_may_ask_a_layer_for_its_width() -> None:
    made = check_points(FlattenedOf, SHAPE)
    assert [group.units for group in made.groups] == [12]
    assert not reasons(made)


def test_a_width_that_decides_which_layers_there_are_is_held() -> None:
    made = survey(OneMore, SHAPE)
    assert not [group for group in made.groups if group.name == "layers.0"]
    assert reasons(made)["layers.0"].startswith("the network's factory computes the size of another layer")


# Weights that are not surveyed


class Equalised(nn.Module):
    """A convolution whose weight is scaled when it is used (Karras et al. 2018)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.gain = (
            nn.Parameter(torch.randn(outputs, inputs, 3, 3)),
            nn.Parameter(torch.ones(outputs, 1, 1, 1)),
        )
        self.scale = 1 / math.sqrt(inputs * 9)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale * self.gain, padding=1)


class Product(nn.Module):
    """A matrix of its own, the product of two."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(inputs, 2)), nn.Parameter(torch.randn(2, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return (x.movedim(1, -1) @ (self.left @ self.right)).movedim(-1, 1)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Equalised, {"weight": "conv2d reads it and is not followed"}),
        (Product, dict.fromkeys(("left", "right"), "matmul reads it and is not followed")),
    ],
)
def test_every_weight_that_multiplies_and_is_not_surveyed_has_a_line(
    layer: type[nn.Module], why: dict[str, str]
) -> None:
    made = survey(lambda: nn.Sequential(layer(3, 12), nn.ReLU(), layer(12, 4)), SHAPE)
    assert made.groups == ()
    assert reasons(made) == {f"{i}.{name}": reason for i in (0, 2) for name, reason in why.items()}


def test_tables_and_scales_are_no_such_weights() -> None:
    class Case(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1)
            self.norm, self.table = nn.LayerNorm((8, 8)), nn.Embedding(8, 8)
            self.place = nn.Parameter(torch.zeros(1, 12, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            rows = self.table(torch.arange(8, device=x.device))
            return self.last(self.norm(self.first(x) + self.place + rows))

    assert not [why for why in reasons(survey(Case, SHAPE)).values() if "is not followed" in why]
