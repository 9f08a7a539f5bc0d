"""Layers that a factory copies: they vary where the one they are copied from is no part of the network."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
from torch import Tensor, nn

from prunas.inputs import Inputs
from prunas.tracing.survey import survey
from tests.tracing.small import check_cost, check_function

SHAPES = ((4, 6), (7, 5))


class Translator(nn.Module):
    """torch's encoder and decoder, which copy the layer that they are given."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        options = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
        self.target, self.source = nn.Linear(6, 24), nn.Linear(5, 24)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(24, 4, 20, **options), 2, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(24, 4, 32, **options), 2, nn.LayerNorm(24)
        )
        self.last = nn.Linear(24, 3)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        return self.last(self.decoder(self.target(target), self.encoder(self.source(source))))


@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_encoder_and_decoder_vary(norm_first: bool) -> None:
    factory = partial(Translator, norm_first)
    made = survey(factory, Inputs(SHAPES))
    # One matrix projects queries of the one stream and keys of the other: these are as wide.
    assert sorted(group.units for group in made.groups) == [4] * 6 + [20] * 2 + [24] + [32] * 2
    check_function(factory, made, SHAPES, images=3)
    check_cost(factory, made, SHAPES)


class Stack(nn.Module):
    """Copies of a convolution with its norm.

    Args:
        called: Whether what is copied is called too.
    """

    def __init__(self, called: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        layer = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.Sequential(layer if called else copy.deepcopy(layer), copy.deepcopy(layer))
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(self.first(x)))


def test_copied_convolutions_vary() -> None:
    made = survey(Stack, (3, 6, 6))
    assert [(group.name, group.units) for group in made.groups] == [
        ("first", 4), ("layers.0.0", 4), ("layers.1.0", 4),
    ]  # fmt: skip
    check_function(Stack, made, [(3, 6, 6)])


FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "a layer that is called": partial(Stack, called=True),
    "a network made before": partial(copy.deepcopy, Stack()),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_copies_of_what_is_used_elsewhere_stay(name: str) -> None:
    made = survey(FACTORIES[name], (3, 6, 6))
    assert "the factory copies it instead of constructing it" in {frozen.why for frozen in made.frozen}
    assert not any(group.name == "layers.1.0" for group in made.groups)
