"""Networks that are recorded on tensors without data: what is written down, and what is left to torch.export."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from prunas.tracing import survey as surveying
from prunas.tracing.example import Example
from prunas.tracing.recorded import Interrupted, record
from prunas.tracing.survey import survey
from tests.tracing.small import SHAPE, Net, check_points


def with_middle(middle: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    class Case(Net):
        def middle(self, x: Tensor) -> Tensor:
            return middle(x)

    return Case


def recorded(factory: Callable[[], nn.Module], training: bool = False) -> fx.Graph:
    with torch.device("meta"):
        net = factory()
        return record(net.train(training), Example((torch.empty(2, *SHAPE),), images=2))


def names(graph: fx.Graph) -> list[str]:
    return [getattr(node.target, "__name__", str(node.target)) for node in graph.nodes if "call" in node.op]


def unmade(*args: object) -> None:
    raise AssertionError("torch.export is not needed")


def test_functions_and_layers_are_written_as_torch_fx_writes_them() -> None:
    class Case(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(F.relu(self.norm(self.first(x)))))

    assert names(recorded(Net)) == names(fx.symbolic_trace(Case()).graph)
    assert names(recorded(Net, training=True)) == names(recorded(Net))


def unseen(x: Tensor) -> Tensor:
    """Runs as compiled code does."""
    with torch._C.DisableTorchFunction():
        return x * 2.0


def written_unseen(x: Tensor) -> Tensor:
    x = x + 0
    with torch._C.DisableTorchFunction():
        x.mul_(2.0)
    return x + 0


UNSEEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a function": (unseen, "uses a tensor that no function of torch's made"),
    "a function that writes": (written_unseen, "writes into a tensor by no function of torch's"),
    "vmap": (lambda x: torch.vmap(lambda one: one.flip(0).exp())(x), "such as vmap"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_not_seen_is_not_recorded(name: str) -> None:
    middle, why = UNSEEN[name]
    with pytest.raises(Interrupted, match=why):
        recorded(with_middle(middle))


def in_place(x: Tensor) -> Tensor:
    x = x + 1
    x += 1
    x[:, :, 0] = 0
    x[:, :, :, 1] = x[:, :, :, 0]
    x.mul_(2).clamp_(min=0)
    return x


def from_numbers(x: Tensor) -> Tensor:
    scale = torch.tensor([2.0, 3.0])
    return x * scale[0] + scale.tolist()[1] - x.new_tensor(1.0)


def several(x: Tensor) -> Tensor:
    low, _ = x.min(2, keepdim=True)
    parts = torch.split(x, 2, dim=3)
    return (x - low) + torch.cat([*parts], 3)


def backwards(x: Tensor) -> Tensor:
    return (1 - x) + 2 / (1 + x.abs()) + 2 ** x.tanh() + x.permute(*range(4)).contiguous().mT.mT


def unchanged(x: Tensor) -> Tensor:
    y = F.dropout(x, 0.0, False).to(x.dtype)
    return y + x


@pytest.mark.parametrize("middle", [in_place, from_numbers, several, backwards, unchanged])
def test_python_that_torch_fx_stops_at_leaves_channels_free(
    middle: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "exported", unmade)
    made = check_points(with_middle(middle), SHAPE)
    assert {group.name: group.units for group in made.groups} == {"first": 8, "second": 6}


def test_numbers_made_of_a_width_are_held() -> None:
    made = survey(with_middle(lambda x: x * float(torch.tensor(x.shape[1]))), SHAPE)
    assert [group.name for group in made.groups] == ["second"]
    assert any("computes something else here" in frozen.why for frozen in made.frozen)


def test_a_network_that_is_not_recorded_is_exported() -> None:
    made = check_points(with_middle(lambda x: torch.vmap(lambda one: one.exp())(x)), SHAPE)
    assert {group.name for group in made.groups} >= {"second"}


def test_a_network_is_left_as_it_was() -> None:
    net, call = Net(), nn.Module.__call__
    before = [dict(vars(module)) for module in net.modules()]
    with torch.device("meta"):
        record(net.to("meta"), Example((torch.empty(2, *SHAPE),), images=2))
    assert nn.Module.__call__ is call
    assert [set(vars(module)) for module in net.modules()] == [set(attributes) for attributes in before]
    assert not torch.compiler.is_exporting()
    reference = weakref.ref(net)
    del net, before
    gc.collect()
    assert reference() is None
