"""Widths above the dense network's, up to a space's ceiling."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunas import designs, networks
from prunas.errors import InputError
from prunas.experiments.preflight import bounds_of
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace

FAMILIES = {
    "vgg": (partial(networks.vgg11, channels=1, base=8, pools=2, head="hidden"), (1, 8, 8)),
    "resnet": (partial(networks.resnet20, base=8), (3, 16, 16)),
    "preresnet": (partial(networks.preresnet20, base=8), (3, 16, 16)),
    "densenet": (partial(networks.DenseNet, 13, growth=6), (3, 16, 16)),
    "mobilenet": (partial(networks.mobilenet_v1, classes=5, base=8), (3, 64, 64)),
    "inverted": (partial(networks.mobilenet_v2, classes=5, width=0.35), (3, 64, 64)),
}


@pytest.fixture(scope="module")
def wider():
    """A space of every family that allows 2.5 times the width, gates included."""
    made = {
        name: SearchSpace.from_model(factory, shape, name=name, ceiling=2.5)
        for name, (factory, shape) in FAMILIES.items()
    }
    return {
        name: dataclasses.replace(space, gates=("*",)) if space.survey.gates else space
        for name, space in made.items()
    }


def random_point(space, seed):
    generator = np.random.default_rng(seed)
    return space.counted(space.grid(generator.uniform(0.3, 2.5, len(space.dimensions)) * space.dense_counts))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cost_of_a_wider_point_is_what_torch_counts_of_its_network(family, wider):
    space = wider[family]
    points = [space.counted(space.most_counts), random_point(space, 0), random_point(space, 1)]
    assert all((space.counts(point) > space.dense_counts).any() for point in points)
    for point in points:
        with torch.device("meta"):
            net = space.build(point).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.empty(1, *space.survey.input, device="meta"))
        cost = space.cost(point)
        assert cost.params == sum(parameter.numel() for parameter in net.parameters())
        assert cost.macs == counter.get_total_flops() // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wider_network_learns_from_every_weight(family, wider):
    space = wider[family]
    torch.manual_seed(0)
    net = space.build(random_point(space, 2))
    outputs = net(torch.randn(4, *space.survey.input))
    nn.functional.cross_entropy(outputs, torch.arange(4)).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters() if p.ndim > 1)


@pytest.mark.parametrize("family", ["vgg", "resnet", "preresnet"])
def test_twice_as_wide_is_what_the_factory_makes_at_twice_its_base(family, wider):
    factory, _ = FAMILIES[family]
    doubled = partial(factory.func, **{**factory.keywords, "base": 16})
    space = wider[family]
    groups = {d.name: 2 * d.dense for d in space.dimensions if d.kind == "group"}
    with torch.device("meta"):
        mine, theirs = space.build(space.point(groups)), doubled()
    assert {n: p.shape for n, p in mine.state_dict().items()} == {
        n: p.shape for n, p in theirs.state_dict().items()
    }


def test_a_budget_may_exceed_the_dense_cost_up_to_the_widest(wider):
    space = wider["vgg"]
    dense, most = space.cost(space.dense).params, space.most("params")
    assert most == space.cost(space.counted(space.most_counts)).params > 5 * dense
    target = space.target(budget=3 * dense)
    arch = designs.uniform(space, target)
    assert space.measure(arch, "params") == pytest.approx(3 * dense, rel=0.01)
    assert (designs.ratios(space, arch) > 1).all()
    with pytest.raises(InputError, match=f"to {most:,} can be reached"):
        space.target(budget=most + 1)
    with pytest.raises(InputError, match=f"to {dense:,} can be reached"):
        dataclasses.replace(space, ceiling=1.0).target(budget=dense + 1)


def test_an_expansion_stops_at_the_ceiling_and_widens_the_others_further(wider):
    space = wider["vgg"]
    profile = np.ones(len(space.dimensions))
    profile[0] = 20.0
    arch = designs.fit(space, profile, space.target(budget=2 * space.cost(space.dense).params))
    found = designs.ratios(space, arch)
    assert found[0] == 2.5
    assert np.ptp(found[1:]) < 0.2
    assert found[1:].min() > 1


def test_points_above_the_ceiling_are_refused(wider):
    space = wider["vgg"]
    name, dense = next(iter(space.varying["group"].items()))
    assert dict(space.point({name: 20}).widths) == {name: 20}
    assert space.point({name: dense}).widths == ()
    with pytest.raises(InputError, match=r"cannot have 21 units; 1 to 20 in steps of 1"):
        space.point({name: 21})


def test_steps_hold_above_the_dense_width_too(wider):
    space = dataclasses.replace(wider["vgg"], step=6)
    name, dense = next(iter(space.varying["group"].items()))
    assert (dense, space.widest[name]) == (8, 18)
    counts = space.dense_counts.copy()
    for asked, given in ((5, 6), (7, 6), (8, 8), (11, 8), (12, 12), (17, 12), (30, 18)):
        counts[0] = asked
        assert space.grid(counts)[0] == given


def test_what_is_wider_is_aligned_up_to_the_ceiling(wider):
    space = wider["vgg"]
    name = space.dimensions[0].name
    for width, mode, aligned in ((17, "nearest", 16), (19, "nearest", 20), (17, "down", 16), (9, "up", 12)):
        assert dict(designs.align(space, space.point({name: width}), 4, mode).widths) == {name: aligned}
    assert dict(designs.align(space, space.point({name: 20}), 8).widths) == {name: 16}


@pytest.mark.parametrize("family", ["preresnet", "densenet"])
def test_aligned_shapes_stay_in_the_space_where_gates_select_of_a_wider_stream(family, wider):
    space = wider[family]
    for seed in range(3):
        space.check(designs.align(space, random_point(space, seed), 4))


def test_there_are_no_weights_to_inherit_for_what_is_wider(wider):
    space = wider["vgg"]
    name = space.dimensions[0].name
    state = space.build().state_dict()
    with pytest.raises(InputError, match=r"has 9 units, more than the 8 of the dense network.*from scratch"):
        space.build(space.point({name: 9}), state, {})


class Branching(nn.Module):
    """Does something else when a layer is wide."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.a(x)
        if x.shape[1] > 12:
            x = x.relu()
        return self.fc(self.b(x).mean((2, 3)))


class Scaled(nn.Module):
    """Has a parameter of its own along the channels."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc((self.scale * self.a(x)).mean((2, 3)))


def test_a_network_that_cannot_be_wider_is_refused_and_its_part_is_named():
    with pytest.raises(InputError, match=r"cannot be 2 times as wide: .*'scale' .* cannot be wider"):
        SearchSpace.from_model(Scaled, (3, 4, 4), name="scaled", ceiling=2)
    assert SearchSpace.from_model(Scaled, (3, 4, 4), name="scaled").ceiling == 1


def test_a_wider_network_that_is_another_one_is_refused():
    with pytest.raises(InputError, match=r"space 'branching': its network cannot be 2 times as wide"):
        SearchSpace.from_model(Branching, (3, 4, 4), name="branching", ceiling=2)
    assert SearchSpace.from_model(Branching, (3, 4, 4), name="branching", ceiling=1.5).widest["a"] == 12


def test_a_file_says_the_ceiling_and_without_one_nothing_is_called_otherwise(tmp_path):
    path = tmp_path / "mine.toml"
    text = 'network = "prunas.networks:vgg11"\narguments = { channels = 1, base = 4, pools = 2 }\n'
    text += 'input = [1, 8, 8]\ndata = "digits"\n\n[vary]\ngroups = ["*"]\n'
    path.write_text(text)
    plain = load_space(str(path))
    assert "ceiling" not in plain.reference["vary"]
    assert "ceiling" not in bounds_of(plain)
    path.write_text(f"{text}ceiling = 2.0\n")
    wide = load_space(str(path))
    assert wide.widest == {name: 2 * dense for name, dense in plain.varying["group"].items()}
    assert bounds_of(wide)["ceiling"] == 2
    again = load_space(wide.reference)
    assert again.ceiling == 2
    assert wide.dense == plain.dense
    point = plain.point({plain.dimensions[0].name: 2})
    assert wide.point(dict(point.widths)).digest == point.digest
    path.write_text(f"{text}ceiling = 0.5\n")
    with pytest.raises(InputError, match=r":8: vary.ceiling: Input should be greater than or equal to 1"):
        load_space(str(path))
