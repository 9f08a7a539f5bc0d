import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.pruning.slimming import carriers
from prunas.proposers.pruning.taylor import Taylor, importances
from prunas.proposers.registry import entry
from prunas.spaces.space import SearchSpace
from tests.proposers.redundant import plant

FAMILIES = ["vgg", "preresnet", "densenet"]


def exactly(space, arch):
    return Target("params", space.measure(arch, "params"))


@pytest.mark.parametrize("on", ["norms", "filters"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_finds_channels_that_nobody_hears(family, on, spaces, weights, brief):
    state = weights(spaces[family])
    space, heard, _ = plant(spaces[family], state)
    arch = space.preset("planted").architecture
    (found,) = Taylor(on=on).propose(brief(space, state, targets=(exactly(space, arch),)), [])
    counts = space.counts(arch)
    assert np.abs(space.counts(found.architecture) - counts).sum() <= 0.02 * counts.sum()
    kept = sum(len(set(found.kept[name]) & set(stay)) for name, stay in heard.items())
    assert kept >= 0.98 * sum(len(stay) for stay in heard.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_it_does_not_find_them_where_nothing_is_planted(family, spaces, weights, brief):
    state = weights(spaces[family])
    space, _, _ = plant(spaces[family], {name: t.clone() for name, t in state.items()})
    arch = space.preset("planted").architecture
    (found,) = Taylor().propose(brief(space, state, targets=(exactly(space, arch),)), [])
    counts = space.counts(arch)
    assert np.abs(space.counts(found.architecture) - counts).sum() > 0.1 * counts.sum()


def double(state):
    return {name: t.double() if t.is_floating_point() else t for name, t in state.items()}


def a_network():
    """One stream that two layers make, and an inner width."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.na = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.b, self.nb = nn.Conv2d(4, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.c, self.nc = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, 5)

        def forward(self, x):
            x = self.na(self.a(x)).relu()
            x = x + self.nc(self.c(self.nb(self.b(x)).relu()))
            return self.fc(x.relu().mean((2, 3)))

    return Net()


@pytest.mark.parametrize("on", ["norms", "filters"])
def test_scores_are_squares_of_the_slope_of_the_loss_along_the_set(on, weights, brief):
    space = SearchSpace.from_model(a_network, (2, 6, 6), name="one-stream")
    state = double(weights(space, 3))
    batches = [
        (
            torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(n), dtype=torch.float64),
            torch.arange(n) % 5,
        )
        for n in (4, 7)
    ]

    def factory():
        return a_network().double()

    space = dataclasses.replace(space, factory=factory)
    told = brief(space, state, calibration=lambda images: iter(batches))
    scores = importances(told, state, 64, on)
    sets = {"a": [("a", "na"), ("c", "nc")], "b": [("b", "nb")]}
    for d, score in zip(space.dimensions, scores, strict=True):
        for unit in range(d.dense):
            squares = []
            for batch in batches:
                sides = []
                for step in (1e-5, -1e-5):  # the whole set shrinks or grows by that share
                    net = factory().eval()
                    net.load_state_dict(state)
                    with torch.no_grad():
                        for conv, norm in sets[d.name]:
                            module = net.get_submodule(norm if on == "norms" else conv)
                            module.weight[unit] *= 1 + step
                            module.bias[unit] *= 1 + step
                        sides.append(float(nn.functional.cross_entropy(net(batch[0]), batch[1])))
                squares.append(((sides[0] - sides[1]) / 2e-5) ** 2)
            assert score[unit] == pytest.approx(np.mean(squares), rel=1e-4, abs=1e-12)


def test_norms_are_taken_where_all_that_varies_has_one(spaces, weights, brief):
    for family in FAMILIES:
        told = brief(spaces[family], weights(spaces[family]), targets=(spaces[family].target(keep=0.4),))
        assert carriers(spaces[family])
        assert Taylor().propose(told, []) == Taylor(on="norms").propose(told, [])

    def plain():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
        )

    space = SearchSpace.from_model(plain, (3, 8, 8), name="plain")
    told = brief(space, space.build().state_dict(), targets=(space.target(keep=0.4),))
    assert Taylor().propose(told, []) == Taylor(on="filters").propose(told, [])
    with pytest.raises(
        InputError, match=r"taylor needs a batch norm behind .* '0' of space 'plain' has none"
    ):
        Taylor(on="norms").propose(told, [])


def test_a_brief_without_a_loss_is_refused_in_one_line(spaces, weights, brief):
    told = brief(spaces["vgg"], weights(spaces["vgg"]), targets=(spaces["vgg"].target(keep=0.4),), loss=None)
    with pytest.raises(
        InputError, match=r"taylor asks for the gradient of a loss, .* l1-global needs no data"
    ):
        Taylor().propose(told, [])


def test_a_loss_that_is_not_finite_is_refused(spaces, weights, brief):
    state = weights(spaces["vgg"])
    state["features.0.weight"][0] = float("nan")
    told = brief(spaces["vgg"], state, targets=(spaces["vgg"].target(keep=0.4),))
    with pytest.raises(InputError, match="taylor: the trained network's loss on training images is nan"):
        Taylor().propose(told, [])


def test_what_nobody_trained_is_another_shape(spaces, weights, brief):
    space = spaces["vgg"]
    told = brief(space, weights(space), targets=(space.target(keep=0.3),))
    trained = entry("taylor").build().propose(told, [])
    untrained = entry("taylor-untrained").build().propose(told, [])
    assert [p.architecture for p in trained] != [p.architecture for p in untrained]
