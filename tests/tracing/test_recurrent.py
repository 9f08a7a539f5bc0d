"""Recurrent layers: input and hidden width vary, with the rows of every gate, in stacks and in both directions."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.errors import InputError
from prunas.surgery.assemble import build
from prunas.survey import Survey
from prunas.tracing.survey import survey
from tests.tracing.small import check_cost, check_function

SHAPE = (5, 6)


class Sequence(nn.Module):
    """A recurrent layer between linear ones.

    Args:
        cls: The layer's class.
        read: What is read of it: all `steps`, or of the states after the last one `h`, `c`, `both` directions' or
            those of `all` layers.
    """

    def __init__(self, cls: type[nn.RNNBase] = nn.LSTM, read: str = "steps", **options: Any) -> None:
        super().__init__()
        self.read, self.first = read, nn.Linear(6, 12)
        self.cell = cls(12, 10, batch_first=True, **options)
        width = options.get("proj_size", 10) * (2 if options.get("bidirectional") else 1)
        width = {"steps": width, "both": 20, "all": 20}.get(read, 10)
        self.second, self.last = nn.Linear(width, 14), nn.Linear(14, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, states = self.cell(F.relu(self.first(x)))
        h, c = states if isinstance(self.cell, nn.LSTM) else (states, states)
        if self.read == "h":
            x = h[-1]
        elif self.read == "c":
            x = c[-1]
        elif self.read == "both":
            x = torch.cat((h[-2], h[-1]), 1)
        elif self.read == "all":
            x = h.transpose(0, 1).flatten(1)
        return self.last(F.relu(self.second(x)))


class Started(nn.Module):
    """The first states are made by the user, as wide as an attribute says; a stack of two."""

    def __init__(self, cls: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.hidden_size, self.layers = 10, 2
        self.first, self.cell = nn.Linear(6, 12), cls(12, self.hidden_size, self.layers, batch_first=True)
        self.last = nn.Linear(self.hidden_size, 4)

    def states(self, x: Tensor) -> Tensor:
        return torch.zeros(self.layers, x.size(0), self.hidden_size, dtype=x.dtype).to(x.device)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.cell, nn.LSTM):
            x, _ = self.cell(self.first(x), (self.states(x), self.states(x)))
        else:
            x, _ = self.cell(self.first(x), self.states(x))
        return self.last(x[:, -1, :])


class Learned(nn.Module):
    """The first state is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cell = nn.Linear(6, 12), nn.GRU(12, 10, batch_first=True)
        self.start, self.last = nn.Parameter(torch.zeros(1, 1, 10)), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(self.first(x), self.start.repeat(1, x.shape[0], 1))[0])


class Translating(nn.Module):
    """An encoder hands its last states on to a decoder."""

    def __init__(self, cls: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.encoder, self.decoder = (cls(i, 10, 2, batch_first=True) for i in (6, 10))
        self.last = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, states = self.encoder(x)
        return self.last(self.decoder(x, states)[0])


class Stepped(nn.Module):
    """A cell in a loop of Python."""

    def __init__(self, cls: type[nn.RNNCellBase] = nn.LSTMCell) -> None:
        super().__init__()
        self.first, self.cell, self.last = nn.Linear(6, 12), cls(12, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, state = self.first(x), None
        for step in range(SHAPE[0]):
            state = self.cell(x[:, step], state)
        return self.last(state[0] if isinstance(self.cell, nn.LSTMCell) else state)


class Added(nn.Module):
    """A recurrent branch beside a shortcut, of steps first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 12), nn.LayerNorm(12)
        self.cell, self.mix = nn.LSTM(12, 8, bidirectional=True), nn.Linear(16, 12)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.transpose(0, 1))
        x = x + self.mix(self.cell(self.norm(x))[0])
        return self.last(x).transpose(0, 1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[int]]] = {
    "lstm": (Sequence, [10, 12, 14]),
    "gru": (partial(Sequence, nn.GRU), [10, 12, 14]),
    "rnn": (partial(Sequence, nn.RNN, nonlinearity="relu"), [10, 12, 14]),
    "without biases": (partial(Sequence, bias=False), [10, 12, 14]),
    "stack": (partial(Sequence, num_layers=3), [10, 12, 14]),
    "both directions": (partial(Sequence, bidirectional=True, num_layers=2), [10, 12, 14]),
    "both directions of a gru": (partial(Sequence, nn.GRU, bidirectional=True, num_layers=2), [10, 12, 14]),
    "last h": (partial(Sequence, read="h"), [10, 12, 14]),
    "last c": (partial(Sequence, read="c"), [10, 12, 14]),
    "last of both": (partial(Sequence, read="both", bidirectional=True, num_layers=2), [10, 12, 14]),
    "last of all": (partial(Sequence, read="all", num_layers=2), [10, 12, 14]),
    "projected": (partial(Sequence, proj_size=6, bidirectional=True, num_layers=2), [6, 12, 14]),
    "started": (Started, [10, 12]),
    "started gru": (partial(Started, nn.GRU), [10, 12]),
    "learned start": (Learned, [10, 12]),
    "translating": (Translating, [10]),
    "translating gru": (partial(Translating, nn.GRU), [10]),
    "lstm cell": (Stepped, [10, 12]),
    "gru cell": (partial(Stepped, nn.GRUCell), [10, 12]),
    "rnn cell": (partial(Stepped, nn.RNNCell), [10, 12]),
    "added": (Added, [8, 12]),
}
"""Each with its network and the units of its groups."""


@cache
def surveyed(name: str) -> Survey:
    return survey(NETWORKS[name][0], SHAPE)


@pytest.mark.parametrize("name", NETWORKS)
def test_input_and_hidden_width_vary(name: str) -> None:
    made = surveyed(name)
    assert sorted(group.units for group in made.groups) == NETWORKS[name][1]
    projected = ["a narrowed network fails: ValueError: proj_size has to be smaller than hidden_size"]
    held = [frozen.why for frozen in made.frozen if frozen.why != "the network's output"]
    assert held == (projected if name == "projected" else [])


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_dense_network_does_without_those_units(name: str) -> None:
    factory, made = NETWORKS[name][0], surveyed(name)
    check_function(factory, made, [SHAPE], points=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_its_cost_is_torchs_and_its_weights_load(name: str) -> None:
    factory, made = NETWORKS[name][0], surveyed(name)
    check_cost(factory, made, [SHAPE])


def test_the_initial_weights_are_those_of_the_new_width() -> None:
    made = surveyed("lstm")
    torch.manual_seed(0)
    net = build(Sequence, made, Architecture("test", made.fingerprint, (("cell", 2),)))
    bound = 2**-0.5  # torch draws from within one over the root of the hidden width
    largest = max(float(p.detach().abs().max()) for p in net.cell.parameters())
    assert bound / 2 < largest <= bound
    assert (net.cell.hidden_size, net.cell.input_size) == (2, 12)


class Packed(Sequence):
    """Sequences of several lengths."""

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.first(x), torch.full((x.shape[0],), 3), batch_first=True)
        x, _ = pad_packed_sequence(self.cell(packed)[0], batch_first=True)
        return self.last(F.relu(self.second(x)))


class Looking(Sequence):
    """`forward` reads a weight besides calling the layer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.cell.weight_hh_l0.norm()


def parametrised() -> nn.Module:
    net = Sequence()
    parametrizations.weight_norm(net.cell, "weight_hh_l0")
    return net


class Sized(Started):
    """The first states are as wide as a number that no attribute holds."""

    def states(self, x: Tensor) -> Tensor:
        return torch.zeros(2, x.size(0), 10, dtype=x.dtype)

    def __init__(self) -> None:
        super().__init__()
        del self.hidden_size


HELD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a weight is read": (Looking, "forward reads its weight_hh_l0 besides calling it"),
    "a weight is computed": (parametrised, "its weight is parametrised"),
    "a state of fixed size": (Sized, "its first state has a fixed size"),
}


def test_a_packed_sequence_is_refused_by_its_reason() -> None:
    with pytest.raises(InputError, match=r"packed sequences .* padded tensor .*test_recurrent.py:\d+"):
        survey(Packed, SHAPE)


@pytest.mark.parametrize("name", HELD)
def test_what_cannot_follow_is_held_by_its_reason(name: str) -> None:
    factory, why = HELD[name]
    made = survey(factory, SHAPE)
    assert any(why in frozen.why for frozen in made.frozen)
    assert not any(group.name == "cell" for group in made.groups)
    assert CostModel(made).of(Architecture("test", made.fingerprint))[0] == sum(
        parameter.numel() for parameter in factory().parameters()
    )
