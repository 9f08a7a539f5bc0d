"""A factory that loads a checkpoint by itself: refused in a line that says where weights go."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import prunas
from prunas.errors import InputError


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10)
    )


@pytest.fixture
def factory(tmp_path: Path) -> Callable[..., nn.Module]:
    """Loads a checkpoint in one of the ways that people do."""
    torch.save(network().state_dict(), file := tmp_path / "mine.pth")

    def make(**options: bool) -> nn.Module:
        net = network()
        state = torch.load(file, weights_only=True)
        if "matching" in options:  # those that fit, so that nothing fails at smaller widths
            state = {name: t for name, t in state.items() if t.shape == net.state_dict()[name].shape}
            options = {"strict": False}
        net.load_state_dict(state, **options)
        return net

    return make


@pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}, {"matching": True}], ids=str)
def test_it_is_told_where_weights_go(factory: Callable[..., nn.Module], options: dict[str, bool]) -> None:
    load = nn.Module.load_state_dict
    with pytest.raises(
        InputError, match=r"space 'mine': its factory loads weights by itself \(.*\.py:\d+\)"
    ) as told:
        prunas.SearchSpace.from_model(lambda: factory(**options), (1, 8, 8), name="mine")
    assert 'weights = "FILE" in the TOML file, or --weights FILE' in str(told.value)
    assert "\n" not in str(told.value)
    assert nn.Module.load_state_dict is load


def test_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n"
        "def make():\n"
        "    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))\n"
        "    net.load_state_dict(net.state_dict())\n"
        "    return net\n"
    )
    (tmp_path / "mine.toml").write_text('network = "net.py:make"\ninput = [1, 8, 8]\ndata = "digits"\n')
    with pytest.raises(InputError, match=r"loads weights by itself \(net\.py:5\)"):
        prunas.load_space(str(tmp_path / "mine.toml"))
