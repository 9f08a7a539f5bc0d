import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.baselines.untrained import Untrained
from prunas.proposers.pruning.l1 import L1, GlobalL1, initial_sizes, sums
from prunas.proposers.registry import configured, entry
from prunas.spaces.space import SearchSpace
from tests.proposers.redundant import plant


def shrink_filters(space, state, seed=0):
    """Scales 60 % of the filters of every plain VGG convolution down; returns the rest."""
    generator = np.random.default_rng(seed)
    large = {}
    for d in space.dimensions:
        stay = np.sort(generator.permutation(d.dense)[: int(generator.uniform(0.2, 0.6) * d.dense)])
        small = np.setdiff1d(np.arange(d.dense), stay)
        state[f"{d.name}.weight"][small] *= 1e-3
        large[d.name] = tuple(stay.tolist())
    return large


def with_preset(space, large):
    presets = {"planted": {"widths": {name: len(stay) for name, stay in large.items()}}}
    return dataclasses.replace(space, raw_presets=presets)


def test_it_finds_planted_small_filters(spaces, weights, brief):
    state = weights(spaces["vgg"])
    large = shrink_filters(spaces["vgg"], state)
    space = with_preset(spaces["vgg"], large)
    arch = space.preset("planted").architecture
    (given,) = L1(preset="planted").propose(brief(space, state, targets=(space.target(keep=0.5),)), [])
    assert given.kept == large
    assert given.architecture == arch
    assert given.target == Target("params", space.cost(arch).params)
    assert (given.flags, given.weights_of) == ((), "run-of-the-dense-network")
    (found,) = GlobalL1().propose(brief(space, state, targets=(given.target,)), [])
    assert found.architecture == arch
    assert found.kept == large


def test_it_does_not_find_them_in_shuffled_filters(spaces, weights, brief):
    state = weights(spaces["vgg"])
    large = shrink_filters(spaces["vgg"], state)
    space = with_preset(spaces["vgg"], large)
    for name in large:
        filters = state[f"{name}.weight"]
        order = torch.randperm(len(filters), generator=torch.Generator().manual_seed(1))
        state[f"{name}.weight"] = filters[order]
    (given,) = L1(preset="planted").propose(brief(space, state, targets=(space.target(keep=0.5),)), [])
    same = [name for name, stay in large.items() if given.kept[name] == stay]
    assert same == []


def test_gates_keep_the_inputs_with_the_largest_weights(spaces, weights, brief):
    for family in ("densenet", "preresnet"):
        state = weights(spaces[family])
        space, _, passing = plant(spaces[family], state)
        (given,) = L1(preset="planted").propose(brief(space, state, targets=(space.target(keep=0.9),)), [])
        gates = {name: stay for name, stay in passing.items() if len(stay)}
        assert gates
        assert dict(given.architecture.selected) == gates


class Joined(nn.Module):
    """Two layers make one stream, which a grouped convolution reads."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(3, 8, 1, bias=False)
        self.c = nn.Conv2d(8, 6, 3, groups=2, bias=False)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.c((self.a(x) + self.b(x)).relu()).relu().mean((2, 3)))


def test_a_stream_has_the_sum_over_the_layers_that_make_it():
    space = SearchSpace.from_model(Joined, (3, 8, 8), name="joined", gates=("*",))
    torch.manual_seed(3)
    state = Joined().state_dict()
    found = dict(
        zip([(d.name, d.kind) for d in space.dimensions], zip(*sums(space, state), strict=True), strict=True)
    )
    total, count = found["a", "group"]
    each = [float(state["a.weight"][i].abs().sum() + state["b.weight"][i].abs().sum()) for i in range(8)]
    # The grouped reader ties channel i of its first half to channel i of its second.
    assert total == pytest.approx([each[i] + each[i + 4] for i in range(4)])
    assert count == pytest.approx([2 * (27 + 3)] * 4)


def test_depthwise_filters_have_no_say_beside_the_layer_in_front():
    def net():
        return nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Conv2d(8, 4, 1),
            nn.Flatten(),
            nn.Linear(144, 2),
        )

    space = SearchSpace.from_model(net, (3, 8, 8), name="separable")
    torch.manual_seed(0)
    state = net().state_dict()
    totals, counts = sums(space, state)
    assert totals[0] == pytest.approx(state["0.weight"].abs().sum((1, 2, 3)).numpy())
    assert counts[0].tolist() == [3] * 8


def test_an_unknown_preset_is_named(spaces, weights, brief):
    space = spaces["vgg"]
    with pytest.raises(InputError, match="unknown preset of space 'vgg11-digits': 'VGG-16-A'"):
        L1(preset="VGG-16-A").propose(brief(space, weights(space), targets=(space.target(keep=0.5),)), [])


# What training adds


def test_the_scale_a_layer_is_born_with_decides_no_width(spaces, weights, brief):
    """Multiplying a layer's weights before and after training alike is another unit, and no importance."""
    space = spaces["vgg"]
    torch.manual_seed(4)
    born, trained = space.build().state_dict(), weights(space, seed=5)
    target = (space.target(keep=0.3),)

    def widths(factors):
        at_first, at_last = (
            {name: t * factors.get(name.removesuffix(".weight"), 1.0) for name, t in state.items()}
            for state in (born, trained)
        )
        told = brief(space, at_last, targets=target, initial=lambda: at_first)
        return GlobalL1().propose(told, [])[0].architecture

    factors = {d.name: 2.0**i for i, d in enumerate(space.dimensions)}  # exact in binary
    assert widths(factors) == widths({})
    # Growth in training alone does count.
    grown = {name: t.clone() for name, t in trained.items()}
    first = space.dimensions[-1].name
    grown[f"{first}.weight"] *= 4
    (made,) = GlobalL1().propose(brief(space, grown, targets=target, initial=lambda: born), [])
    assert space.counts(made.architecture)[-1] > space.counts(widths({}))[-1]


def test_a_layer_that_is_born_with_zeros_is_compared_by_its_own_mean(spaces, weights):
    space = spaces["vgg"]
    state = weights(space)
    name = space.dimensions[0].name
    zeros = {key: torch.zeros_like(t) if key == f"{name}.weight" else t for key, t in state.items()}
    sizes = initial_sizes(space, zeros)
    assert name not in sizes
    totals, counts = sums(space, state, sizes)
    assert (totals[0] / counts[0]).mean() == pytest.approx(1)


def test_an_untrained_network_is_read_with_its_own_initial_weights(spaces, weights, brief):
    """The control is the method itself, given the weights before training: without a run to inherit from."""
    space = spaces["vgg"]
    target = (space.target(keep=0.3),)
    born = weights(space, seed=7)
    (control,) = (
        entry("l1-global-untrained")
        .build()
        .propose(brief(space, None, targets=target, initial=lambda: born), [])
    )
    (read,) = GlobalL1().propose(brief(space, born, targets=target, initial=lambda: born), [])
    assert (control.architecture, control.kept) == (read.architecture, read.kept)
    assert (control.weights_of, read.weights_of) == (None, "run-of-the-dense-network")


def test_training_moves_the_shape_away_from_the_untrained_one(spaces, weights, brief):
    """Four of eight layers grow threefold in a made-up training: theirs are the widths, whatever the seed."""
    space = spaces["vgg"]
    target = (space.target(keep=0.3),)
    names = [d.name for d in space.dimensions]
    shares = {}
    for seed in (0, 1):
        born = weights(space, seed=seed)
        trained = {key: t.clone() for key, t in born.items()}
        for name in names[:4]:
            trained[f"{name}.weight"] *= 3
        told = brief(space, trained, targets=target, initial=lambda born=born: born)
        for who in ("l1-global", "l1-global-untrained"):
            (made,) = entry(who).build().propose(told, [])
            shares[who, seed] = space.counts(made.architecture) / space.dense_counts

    def distance(one, other):
        return np.abs(shares[one] - shares[other]).mean()

    between_seeds = distance(("l1-global", 0), ("l1-global", 1))
    to_untrained = distance(("l1-global", 0), ("l1-global-untrained", 1))
    assert to_untrained > 2 * between_seeds
    assert (shares["l1-global", 0][:4] == 1).all()


def test_a_control_has_the_settings_of_its_method_but_for_what_is_fixed():
    tables = {"slimming": {"pull": 3.0}, "thinet-global": {"images": 16}}
    assert configured("slimming-unpenalised", tables)[1] == {}
    assert configured("thinet-global-untrained", tables)[1] == {"images": 16}
    assert entry("slimming-unpenalised").build().pull == 0
    with pytest.raises(InputError, match=r"pull is always 0.0 in this control; leave it out"):
        entry("slimming-unpenalised").build(pull=1.0)
    with pytest.raises(InputError, match="unknown option of proposer GlobalL1: 'pull'"):
        entry("l1-global-untrained").build(pull=1.0)


def test_a_method_that_needs_a_penalty_has_no_reading_of_an_untrained_network(spaces, brief):
    space = spaces["vgg"]
    with pytest.raises(InputError, match="slimming decides by a penalty in the training"):
        Untrained("slimming").propose(brief(space, targets=(space.target(keep=0.5),)), [])
