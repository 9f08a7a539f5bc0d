"""Deformable convolutions: what they read and write varies, where they read stays."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from prunas.tracing.survey import survey
from tests.tracing.small import check_cost, check_function

SHAPE = (3, 8, 8)


class Deformed(nn.Module):
    """A deformable convolution, with or without a mask, whose offsets a convolution says.

    Args:
        masked: Whether it has a mask.
        dropped: Whether train mode has an operation more.
        groups: Groups of the convolution.
        bias: Whether it has a bias.
    """

    def __init__(
        self, masked: bool = True, dropped: bool = False, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.first, self.masked, self.dropped = nn.Conv2d(3, 12, 3, padding=1), masked, dropped
        self.offset, self.mask = nn.Conv2d(12, 18, 3, padding=1), nn.Conv2d(12, 9, 3, padding=1)
        self.deformed = DeformConv2d(12, 10, 3, padding=1, groups=groups, bias=bias)
        self.last = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.dropped and self.training:
            x = x.relu()
        mask = torch.sigmoid(self.mask(x)) if self.masked else None
        return self.last(torch.relu(self.deformed(x, self.offset(x), mask)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "with a mask": Deformed,
    "without": partial(Deformed, masked=False),
    "without bias": partial(Deformed, bias=False),
    "two modes": partial(Deformed, dropped=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_input_and_output_vary(name: str) -> None:
    factory = NETWORKS[name]
    made = survey(factory, SHAPE)
    assert [(group.name, group.units) for group in made.groups] == [("first", 12), ("deformed", 10)]
    assert "they say where a deformable convolution reads" in {frozen.why for frozen in made.frozen}
    check_function(factory, made, [SHAPE], images=2)
    check_cost(factory, made, [SHAPE])


def test_one_in_groups_is_held_by_name() -> None:
    made = survey(partial(Deformed, groups=2), SHAPE)
    assert "a deformable convolution in groups is not understood" in {frozen.why for frozen in made.frozen}
    assert not made.groups
