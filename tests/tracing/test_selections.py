"""Gates and the least width are verified: what the narrowest network or a selection breaks is refused by name."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.architecture import Architecture
from prunas.surgery.assemble import build
from prunas.tracing.survey import survey
from tests.tracing.small import check_points

IMAGE = (3, 8, 8)


class Heads(nn.Module):
    """Two readers of one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.s, self.n = nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16)
        self.a, self.b = nn.Linear(16, 5), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.relu(self.n(self.s(x))).mean((2, 3))
        return self.heads(pooled)

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(pooled), self.b(pooled)


class Viewing(Heads):
    """A view by the inputs of a layer."""

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        pooled = pooled.view(-1, self.a.in_features)
        return self.a(pooled), self.b(pooled)


class Scaling(Heads):
    """A scale by them."""

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(pooled) * self.a.in_features**-0.5, self.b(pooled)


class Choosing(Heads):
    """A branch of Python by the class of a layer."""

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(pooled) if type(self.a) is nn.Linear else self.a(pooled).relu(), self.b(pooled)


class Sized(Heads):
    """A parameter as large as a layer's inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(self.a.in_features))

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(pooled * self.g), self.b(pooled)


class Exported(Viewing):
    """Traced by torch.export."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert len(x.shape) == 4
        return super().forward(x)


@pytest.mark.parametrize("network", [Viewing, Scaling, Choosing, Exported])
def test_a_gate_whose_inputs_python_reads_is_refused_by_name(network: type[Heads]) -> None:
    made = survey(network, IMAGE)
    assert [gate.name for gate in made.gates] == ["b"]
    (refused,) = [item for item in made.frozen if item.what == "a"]
    assert refused.why.startswith("its inputs cannot be selected: ")
    net = build(network, made, Architecture("test", made.fingerprint, selected=(("b", (1, 4, 7)),)))
    first, second = net(torch.randn(4, *IMAGE))
    assert (first.shape, second.shape) == ((4, 5), (4, 2))


def test_gates_that_work_stay() -> None:
    assert [gate.name for gate in survey(Heads, IMAGE).gates] == ["a", "b"]


def test_every_gate_that_a_survey_offers_can_be_built() -> None:
    made = survey(Sized, IMAGE)
    for gate in made.gates:
        net = build(Sized, made, Architecture("test", made.fingerprint, selected=((gate.name, (3,)),)))
        assert [tuple(output.shape) for output in net(torch.randn(4, *IMAGE))] == [(4, 5), (4, 2)]


class Squeezed(nn.Module):
    """A map of one pixel is squeezed along every axis that it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.squeezed(F.adaptive_avg_pool2d(self.b(F.relu(self.a(x))), 1)))

    def squeezed(self, x: Tensor) -> Tensor:
        return x.squeeze()


class Unnoticed(Squeezed):
    """What follows the squeeze runs at width one too."""

    def squeezed(self, x: Tensor) -> Tensor:
        return x.squeeze().reshape(x.shape[0], -1)


class Named(Squeezed):
    """The axes are named."""

    def squeezed(self, x: Tensor) -> Tensor:
        return x.squeeze(3).squeeze(2)


@pytest.mark.parametrize("network", [Squeezed, Unnoticed])
def test_a_width_that_squeeze_takes_away_is_refused_by_name(network: type[Squeezed]) -> None:
    made = survey(network, IMAGE)
    assert [group.name for group in made.groups] == ["a"]
    (refused,) = [item for item in made.frozen if item.what == "b"]
    assert "squeeze" in refused.why and "test_selections.py" in refused.where
    net = build(network, made, Architecture("test", made.fingerprint, (("a", 1),)))
    assert net(torch.randn(4, *IMAGE)).shape == (4, 5)


def test_a_squeeze_that_names_its_axes_narrows_to_a_single_channel() -> None:
    made = check_points(Named, IMAGE)
    assert [group.name for group in made.groups] == ["a", "b"]
    net = build(Named, made, Architecture("test", made.fingerprint, (("a", 1), ("b", 1))))
    assert net(torch.randn(4, *IMAGE)).shape == (4, 5)
