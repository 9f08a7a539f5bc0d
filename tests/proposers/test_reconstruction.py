import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import lars_path

from prunas.proposers.pruning.reconstruction import Reconstruction, appearance, survivors
from tests.proposers.redundant import settle, twinned

EVERYTHING = np.arange(12)


def contributions(seed, channels=12, rows=300):
    generator = np.random.default_rng(seed)
    mixing = np.eye(channels) + 0.4 * generator.normal(size=(channels, channels))
    return (generator.normal(size=(rows, channels)) @ mixing) * generator.uniform(0.2, 2, channels)


@pytest.mark.parametrize("count", [1, 3, 6, 9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_survivors_are_a_support_of_the_exact_path(seed, count):
    x = contributions(seed)
    _, _, path = lars_path(x, x.sum(1), method="lasso")
    supports = [frozenset(np.flatnonzero(column).tolist()) for column in path.T]
    found = frozenset(survivors(x.T @ x, EVERYTHING, count).tolist())
    assert found in [s for s in supports if len(s) == count]


def test_orthogonal_channels_survive_by_their_energy():
    # Of orthogonal columns the Lasso is a soft threshold: b_c = 1 - penalty / |x_c|^2.
    energy = np.array([3.0, 0.1, 2.0, 0.5, 5.0, 1.0])
    assert survivors(np.diag(energy), np.arange(6), 3).tolist() == [0, 2, 4]
    assert appearance(np.diag(energy)).tolist() == [4, 0, 2, 5, 3, 1]


def test_of_two_that_say_the_same_the_stronger_survives():
    x = contributions(3, channels=6)
    doubled = np.concatenate([0.5 * x, x], 1)
    assert survivors(doubled.T @ doubled, EVERYTHING, 6).tolist() == [6, 7, 8, 9, 10, 11]
    assert sorted(appearance(doubled.T @ doubled)[:6].tolist()) == [6, 7, 8, 9, 10, 11]


def test_only_what_is_there_can_survive():
    x = contributions(4)
    there = np.array([0, 2, 3, 7, 8, 11])
    _, _, path = lars_path(x[:, there], x.sum(1), method="lasso")
    found = frozenset(survivors(x.T @ x, there, 3).tolist())
    assert found in [frozenset(np.flatnonzero(column).tolist()) for column in path.T]
    assert survivors(x.T @ x, there, 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_channels_that_say_nothing_fill_up_at_the_end():
    gram = np.diag([0.0, 0.0, 1.0, 0.0, 2.0])
    assert {2, 4} < set(survivors(gram, np.arange(5), 3).tolist())
    assert set(appearance(gram)[:2].tolist()) == {2, 4}
    assert len(survivors(np.zeros((4, 4)), np.arange(4), 2)) == 2


def test_planted_twins_lose_the_weaker_one(spaces, weights, brief):
    space = spaces["vgg"]
    state = weights(space)
    settle(space, state)
    twinned(space, state)
    images = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    narrow = {d.name: d.dense // 2 for d in space.dimensions[:3]}
    space = dataclasses.replace(space, raw_presets={"half": {"widths": narrow}})
    (found,) = Reconstruction(preset="half").propose(
        brief(space, state, targets=(space.target(keep=0.5),), calibration=lambda n: [(images[:n], images)]),
        [],
    )
    for name, width in narrow.items():
        assert found.kept[name] == tuple(range(0, 2 * width, 2))
