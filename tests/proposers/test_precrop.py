import dataclasses
import itertools

import numpy as np
import pytest
from torch import nn

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.brief import Brief
from prunas.proposers.pruning.precrop import PreCrop, logarithm, shares, streams
from prunas.proposers.pruning.products import products
from prunas.proposers.serving import check_served
from prunas.spaces.space import SearchSpace

FAMILIES = ["vgg", "preresnet", "densenet", "streams", "stemmed"]


# The cost as products


@pytest.mark.parametrize("metric", ["params", "macs"])
@pytest.mark.parametrize("family", FAMILIES)
def test_products_are_the_cost_of_the_space(family, metric, spaces):
    space = spaces[family]
    rows = products(space, metric)
    generator = np.random.default_rng(0)
    for share in (1.0, *generator.uniform(0.4, 1.0, 5)):  # one share: no gate is wider than its input
        counts = space.grid(share * space.dense_counts)
        cut = [
            min(n, space.gate_inputs(space.counted(counts)).get(d.name, n) if d.kind == "gate" else n)
            for d, n in zip(space.dimensions, counts, strict=True)
        ]
        assert rows.cost(cut) == space.measures([counts], metric)[0]


def test_slopes_are_derivatives(spaces):
    space = spaces["streams"]
    rows = products(space, "macs")
    counts = 0.6 * space.dense_counts
    for i, slope in enumerate(rows.slopes(counts)):
        up, down = counts.copy(), counts.copy()
        up[i] += 0.5
        down[i] -= 0.5  # exact: the cost is quadratic
        assert slope == pytest.approx(rows.cost(up) - rows.cost(down))


# The programme


def chain():
    """Two widths between a narrow input and a narrow output."""
    return nn.Sequential(
        nn.Conv2d(2, 60, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(60, 200, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(200, 50, 3, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(50 * 16, 3, bias=False),
    )


@pytest.fixture
def short():
    return dataclasses.replace(SearchSpace.from_model(chain, (2, 4, 4), name="chain"), exclude=("4",))


@pytest.mark.parametrize("keep", [0.5, 0.2])
@pytest.mark.parametrize("metric", ["params", "macs"])
def test_it_solves_a_small_programme_as_a_fine_grid_does(metric, keep, short):
    target = short.target(keep=keep, metric=metric)
    rows, gains = products(short, metric), logarithm(short)
    assert gains.tolist() == [2, 2]  # each width is written once and read once
    first = np.exp(np.linspace(np.log(1 / 60), 0, 4001))
    # Of each first share the largest second one within the budget, exactly: the cost is linear in it.
    fixed = np.array([rows.cost([60 * share, 0]) for share in first])
    per = np.array([rows.cost([60 * share, 200]) for share in first]) - fixed
    second = np.clip((target.value - fixed) / per, 1e-9, 1)
    best = (gains[0] * np.log(first) + gains[1] * np.log(second)).argmax()
    solved = shares(short, target)
    assert gains @ np.log(solved) >= gains[0] * np.log(first[best]) + gains[1] * np.log(second[best]) - 1e-5
    assert rows.cost(short.dense_counts * solved) <= target.value * (1 + 1e-6)
    assert solved == pytest.approx([first[best], second[best]], rel=0.02)


def test_layers_that_share_nothing_get_what_water_filling_gives():
    def pair():
        """Every second width is held, so that each layer's density is one share and can be chosen alone."""
        sizes = [4, 100, 8, 100, 64, 100, 3]
        return nn.Sequential(*[nn.Conv2d(a, b, 1, bias=False) for a, b in itertools.pairwise(sizes)])

    space = SearchSpace.from_model(pair, (4, 2, 2), name="pairs")
    space = dataclasses.replace(space, exclude=("1", "3"))
    target = space.target(keep=0.4)
    costs = np.array([100 * (4 + 8), 100 * (8 + 64), 100 * (64 + 3)])  # of two layers each, in one share
    low, high = 0.0, 1e5
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(1, level / costs) @ costs < target.value else (low, level)
    assert shares(space, target) == pytest.approx(np.minimum(1, level / costs), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_shape_at_the_budget_has_more_paths(family, spaces):
    space = spaces[family]
    target = space.target(keep=0.4)
    rows, gains = products(space, "params"), logarithm(space)
    solved = shares(space, target)
    best = gains @ np.log(solved)
    generator = np.random.default_rng(1)
    for _ in range(50):
        other = solved * np.exp(generator.normal(0, 0.3, len(solved)))
        for gate, stream in streams(space):
            other[gate] = min(other[gate], other[stream])
        low, high = 1e-3, 1e3  # scaled to the budget, nothing above dense
        for _ in range(60):
            middle = (low * high) ** 0.5
            fits = rows.cost(np.minimum(other * middle, 1) * space.dense_counts) <= target.value
            low, high = (middle, high) if fits else (low, middle)
        at_budget = np.minimum(other * low, 1)
        if (at_budget * space.dense_counts >= 1).all():
            assert gains @ np.log(at_budget) <= best + 1e-6


def test_a_wide_layer_gives_more_than_its_share(spaces):
    space = spaces["vgg"]
    solved = shares(space, space.target(keep=0.2))
    widest, narrowest = space.dense_counts.argmax(), space.dense_counts.argmin()
    assert solved[widest] < solved[narrowest]


def test_it_asks_for_nothing_but_the_space(spaces):
    space = spaces["preresnet"]
    targets = (space.target(keep=0.5), space.target(keep=0.2, metric="macs"))
    proposals = PreCrop().propose(Brief(space, targets, seed=0), [])
    for p in proposals:
        assert abs(space.measure(p.architecture, p.target.metric) / p.target.value - 1) <= 0.01
        assert p.kept is None
        assert p.weights_of is None


def test_the_dense_networks_cost_gives_the_dense_network(spaces):
    space = spaces["vgg"]
    unpruned = Target("params", space.measure(space.dense, "params"))
    assert PreCrop().propose(Brief(space, (unpruned,), seed=0), [])[0].architecture == space.dense


def test_where_no_width_varies_it_names_who_removes_blocks(spaces):
    with pytest.raises(InputError, match=r"precrop decides widths, and none vary .* sss"):
        PreCrop().propose(Brief(spaces["blocks"], (), seed=0), [])
    with pytest.raises(InputError, match=r"'precrop' cannot serve space .*; these can: .*sss"):
        check_served("precrop", spaces["blocks"])
