import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prunas import designs
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.pruning.morphnet import CostWeightedScales, MorphNet, places, pulls
from prunas.proposers.pruning.products import products
from prunas.proposers.registry import entry
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from tests.proposers.test_slimming import plant, planted_point

FAMILIES = ["vgg", "preresnet", "densenet", "streams", "stemmed"]


# The golden example


HEAD = 2 * 2
"""Operations a channel in front of the classifier costs: two outputs, which are all alive and carry no scale."""


class Two(nn.Module):
    """An image of 3 channels -> 4 -> 3, and a classifier, without which the last width could not vary."""

    def __init__(self):
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b, self.nb = nn.Conv2d(4, 3, 1, bias=False), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2, bias=False)

    def forward(self, x):
        return self.fc(self.nb(self.b(self.na(self.a(x)))).mean((2, 3)))


@pytest.fixture
def golden():
    space = SearchSpace.from_model(Two, (3, 8, 8), name="two")
    assert [d.name for d in space.dimensions] == ["a", "b"]
    net = Two()
    net.na.weight.data = torch.tensor([0.5, -0.2, 0.005, 0.1])
    net.nb.weight.data = torch.tensor([0.3, 0.0, 0.4])
    acting = CostWeightedScales(1.0, (2 * pulls(space, "macs")).tolist(), places(space))  # 2 operations a MAC
    acting.attach(net)
    return space, net, acting


def test_the_cost_of_what_is_alive_is_the_published_one(golden):
    space, _, _ = golden
    assert 2 * products(space, "macs").cost([3, 2]) == 11_136 + HEAD * 2


def test_the_penalty_is_the_published_one(golden):
    _, _, acting = golden
    assert float(acting.value()) == pytest.approx(3256.96 + HEAD * 0.7, abs=1e-3)


def test_its_gradients_are_the_published_ones(golden):
    _, net, acting = golden
    for norm in (net.na, net.nb):
        norm.weight.grad = torch.zeros_like(norm.weight)
    acting.gradients()
    assert net.na.weight.grad.tolist() == pytest.approx([3712, -3712, 3712, 3712])  # dead ones pay too
    assert net.nb.weight.grad.tolist() == pytest.approx([384 + HEAD, 0, 384 + HEAD])


# Its gradient


def by_autograd(space, state, cost):
    """G as the paper writes it, layer by layer, with counts of what is alive as constants."""
    rows, where = products(space, cost), places(space)
    scales = {path: state[f"{path}.weight"].double().requires_grad_() for norms in where for path, _ in norms}
    alive, sums = [], []
    for d, norms in zip(space.dimensions, where, strict=True):
        vectors = []
        for path, units in norms:
            vector = torch.zeros(d.dense, dtype=torch.double)
            for channel, unit in enumerate(units):
                if unit >= 0:
                    index = torch.tensor([unit])
                    vector = torch.maximum(
                        vector,
                        torch.zeros_like(vector).index_add(0, index, scales[path][channel].abs()[None]),
                    )
            vectors.append(vector)
        together = torch.stack(vectors).amax(0)
        alive.append(float((together > 0.01).sum()))
        sums.append(together.sum())
    counts, sums = (
        torch.tensor([*alive, 1.0]).double(),
        torch.stack([*sums, torch.zeros((), dtype=torch.double)]),
    )
    total = 0
    for c, reads, writes, depthwise in zip(*map(torch.as_tensor, rows), strict=True):
        if depthwise:
            total = total + c * 2 * (writes @ sums)
        else:
            total = total + c * ((reads @ counts) * (writes @ sums) + (writes @ counts) * (reads @ sums))
    return scales, torch.autograd.grad(total, list(scales.values())), float(total.detach())


@pytest.mark.parametrize("cost", ["macs", "params"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_that_of_automatic_differentiation(family, cost, spaces, weights):
    space, state = spaces[family], weights(spaces[family])
    for name in state:
        if f"{name.rpartition('.')[0]}.running_mean" in state and name.endswith(".weight"):
            state[name] = (state[name] * 3).round(decimals=2) / 30  # some are dead
    scales, expected, total = by_autograd(space, state, cost)
    net = space.build(weights=state)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    acting = CostWeightedScales(1.0, pulls(space, cost).tolist(), places(space))
    acting.attach(net)
    acting.gradients()
    assert float(acting.value()) == pytest.approx(total, rel=1e-5)
    largest = max(float(g.abs().max()) for g in expected)
    for path, gradient in zip(scales, expected, strict=True):
        mine = net.get_submodule(path).weight.grad.double()
        pulled = gradient != 0
        if family != "streams":  # there several norms may tie for the largest, and share it in torch alone
            assert mine.numpy() == pytest.approx(gradient.numpy(), rel=1e-4, abs=1e-6 * largest)
        assert torch.equal(mine.sign()[pulled], gradient.sign()[pulled])
    for name, p in net.named_parameters():
        if name.removesuffix(".weight") not in scales:
            assert not p.grad.any()


def test_a_depthwise_layer_pays_for_both_of_its_sides():
    def depthwise():
        return nn.Sequential(
            nn.Conv2d(3, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 5, 1, bias=False),
            nn.Flatten(),
            nn.Linear(5 * 36, 2, bias=False),
        )

    space = SearchSpace.from_model(depthwise, (3, 6, 6), name="depthwise", exclude=("4",))
    (pull,) = pulls(space, "macs") @ np.array([8.0, 1.0])
    assert pull == 36 * (3 + 2 * 9 + 5)


def test_the_paper_says_where_each_cost_pulls():
    """MACs are spent early, on large maps; parameters late, in wide layers."""
    space = load_space("vgg16-c10")
    dense = np.append(space.dense_counts, 1.0)
    macs, params = (pulls(space, cost) @ dense for cost in ("macs", "params"))
    ratio = macs / macs.mean() / (params / params.mean())
    assert ratio[:4].min() > 1 > ratio[-4:].max()


def test_left_alone_it_drives_the_dear_channels_out_first():
    space = load_space("vgg11-digits")
    net = space.build()
    acting = CostWeightedScales(1e-6, pulls(space, "macs").tolist(), places(space))
    acting.attach(net)
    dear = pulls(space, "macs") @ np.append(space.dense_counts, 1.0)
    scales = {d.name: scale for d, scale in zip(space.dimensions, acting.scales, strict=True)}
    for scale in scales.values():
        scale.data.fill_(0.5)
    before = float(acting.value())
    for _ in range(20):
        for scale in scales.values():
            scale.grad = torch.zeros_like(scale)
        acting.gradients()
        for scale in scales.values():
            scale.data -= 0.5 * scale.grad
    left = [float(scale.detach().mean()) for scale in scales.values()]
    assert (np.diff(dear[np.argsort(left)]) <= 0.02 * dear.max()).all()
    assert float(acting.value()) < before


# The proposal


@pytest.mark.parametrize("family", ["vgg", "preresnet", "densenet"])
def test_it_finds_a_planted_shape_and_expands_it(family, spaces, weights, brief):
    space, state = spaces[family], weights(spaces[family])
    alive, passing = plant(space, state)
    arch = planted_point(space, alive, passing)
    exact = Target("params", space.measure(arch, "params"))
    wider = Target("params", round(1.3 * exact.value))
    found, expanded = MorphNet().propose(brief(space, state, targets=(wider, exact)), [])[::-1]
    assert found.architecture == arch
    assert found.kept == alive
    assert found.flags == ()
    profile = space.counts(arch) / space.dense_counts
    ratio = space.counts(expanded.architecture) / space.dense_counts / profile
    inside = space.counts(expanded.architecture) < space.dense_counts
    roundings = 2 / space.counts(arch)
    assert (np.abs(ratio - np.median(ratio[inside])) <= roundings + 0.02)[inside].all()
    assert abs(space.measure(expanded.architecture, "params") / wider.value - 1) <= 0.01


def test_at_the_dense_budget_it_widens_what_lives_beyond_the_dense_network(spaces, weights, brief):
    """What the paper does: as dear as before, with the channels elsewhere."""
    space = dataclasses.replace(spaces["vgg"], ceiling=4.0)
    state = weights(spaces["vgg"])
    alive, _ = plant(space, state)
    arch = planted_point(space, alive, {})
    target = space.target(keep=1.0, metric="macs")
    (found,) = MorphNet().propose(brief(space, state, targets=(target,)), [])
    ratio = space.counts(found.architecture) / space.dense_counts
    profile = space.counts(arch) / space.dense_counts
    assert ratio.max() > 1 > ratio.min()
    assert abs(space.measure(found.architecture, "macs") / target.value - 1) <= 0.01
    factors = ratio / profile
    assert factors == pytest.approx(np.full(len(factors), np.median(factors)), rel=0.2)
    assert (found.kept, found.weights_of, found.flags) == (None, None, ())
    (within,) = MorphNet().propose(brief(spaces["vgg"], state, targets=(target,)), [])
    assert space.counts(within.architecture).tolist() == space.dense_counts.tolist()


def test_where_nothing_died_the_shape_is_uniform_and_says_so(spaces, weights, brief):
    space, state = spaces["vgg"], weights(spaces["vgg"])
    for name in state:
        if f"{name.rpartition('.')[0]}.running_mean" in state and name.endswith(".weight"):
            state[name].uniform_(0.1, 1)
    target = space.target(keep=0.4)
    (found,) = MorphNet().propose(brief(space, state, targets=(target,)), [])
    assert found.architecture == designs.uniform(space, target)
    assert found.flags == ("penalty_not_acted",)


def test_what_died_out_keeps_its_floor(spaces, weights, brief):
    space, state = spaces["vgg"], weights(spaces["vgg"])
    state["features.1.weight"].fill_(1e-4)
    (found,) = MorphNet().propose(brief(space, state, targets=(space.target(keep=0.4),)), [])
    assert 1 <= dict(found.architecture.widths)["features.0"] <= 2


def test_the_mean_channel_feels_the_pull(spaces):
    for family in FAMILIES:
        space = spaces[family]
        penalty = MorphNet(pull=2.0).penalty(space, 100.0, 0.9)
        dense = space.dense_counts.astype(float)
        felt = np.array(penalty.options["matrix"]) @ np.append(dense, 1.0)
        mean = penalty.options["strength"] * (dense @ felt) / dense.sum()
        assert mean * 100.0 / (1 - 0.9) == pytest.approx(2.0)


def test_the_control_does_not_know_what_a_channel_costs(spaces):
    space = spaces["preresnet"]
    penalty = entry("morphnet-unweighted").build().penalty(space, 100.0, 0.9)
    felt = np.array(penalty.options["matrix"]) @ np.append(space.dense_counts, 1.0)
    assert set(felt) == {1.0}
    with pytest.raises(InputError, match="cost is always channels in this control"):
        entry("morphnet-unweighted").build(cost="macs")


def test_a_space_without_norms_is_refused_before_anything_is_trained(brief):
    def plain():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5)
        )

    space = SearchSpace.from_model(plain, (3, 8, 8), name="plain")
    with pytest.raises(InputError, match=r"morphnet needs a batch norm behind .* '0' .* sampler such as tpe"):
        MorphNet().propose(brief(space, targets=(space.target(keep=0.5),)), [])
