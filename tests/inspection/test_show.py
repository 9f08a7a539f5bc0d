"""`show`: how much of a network can vary, and what holds the rest."""

import pytest
from torch import Tensor, nn

import prunas
from prunas.inspection.show import show_document, show_text
from prunas.spaces.space import SearchSpace


class Partly(nn.Module):
    """Its second layer is reordered by position, which holds it and what reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (
            nn.Conv2d(3, 10, 1, bias=False),
            nn.Conv2d(10, 6, 1, bias=False),
            nn.Conv2d(6, 8, 1, bias=False),
            nn.Conv2d(8, 4, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu())[:, [5, 4, 3, 2, 1, 0]]
        return self.d(self.c(x)[:, [7, 6, 5, 4, 3, 2, 1, 0]])


@pytest.fixture
def space() -> SearchSpace:
    return prunas.SearchSpace.from_model(Partly, (3, 8, 8), name="partly")


def test_it_says_what_share_varies_and_what_each_reason_holds(space: SearchSpace) -> None:
    document = show_document(space, space.point())
    # a has 30 weights and b 60, which its width decides; c has 48 and d 32, which never vary: of all 170.
    assert document["varying"] == {"params": 90 / 170, "macs": 90 / 170}
    held = [(row["what"], row["params"], row["macs"]) for row in document["frozen"]]
    assert held == [("c", 48, 48 * 64), ("d", 32, 32 * 64), ("b", 0, 0)]
    text = show_text(space, space.point(), document)
    assert "52.9 % of the parameters and 52.9 % of the MACs can vary" in text
    lines = [line for line in text.splitlines() if "by position" in line or "output" in line]
    assert [line.split()[0] for line in lines] == ["28.24", "18.82", "0.00"]
