import dataclasses
import itertools

import numpy as np
import pytest
import torch

from prunas.errors import InputError
from prunas.plugins import resolve
from prunas.proposers.pruning.channels import at_given_widths, in_order_of
from prunas.proposers.pruning.reconstruction import GlobalReconstruction, Reconstruction
from prunas.proposers.pruning.thinet import GlobalThiNet, ThiNet, greedy
from tests.proposers.redundant import change, plant, settle, twinned

BOTH = [(ThiNet, GlobalThiNet), (Reconstruction, GlobalReconstruction)]
FAMILIES = ["vgg", "preresnet", "densenet"]


def test_the_greedy_order_is_that_of_brute_force():
    x = np.random.default_rng(0).normal(size=(50, 9)) + 0.3
    gone: list[int] = []
    for channel in greedy(x.T @ x):
        rest = [c for c in range(9) if c not in gone]
        squares = {c: float((x[:, [*gone, c]].sum(1) ** 2).sum()) for c in rest}
        assert channel == min(squares, key=squares.__getitem__)
        gone.append(int(channel))
    assert sorted(gone) == list(range(9))


def test_channels_that_cancel_go_together():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(200, 6))
    x[:, 4] = -x[:, 1] + 0.01 * generator.normal(size=200)
    x[:, [1, 4]] *= 0.5
    assert set(greedy(x.T @ x)[:2]) == {1, 4}
    pairs = {p: float((x[:, list(p)].sum(1) ** 2).sum()) for p in itertools.combinations(range(6), 2)}
    assert min(pairs, key=pairs.__getitem__) == (1, 4)


# Both methods that listen to the next layer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("given", "found"), BOTH)
def test_planted_channels_that_the_next_layer_hardly_hears_go(given, found, family, spaces, weights, brief):
    state = weights(spaces[family])
    space, heard, passing = plant(spaces[family], state)
    arch = space.preset("planted").architecture
    (proposal,) = given(preset="planted").propose(brief(space, state, targets=(space.target(keep=0.5),)), [])
    assert proposal.kept == heard
    assert dict(proposal.architecture.selected) == passing
    assert proposal.flags == ()
    allocated = found().propose(brief(space, state, targets=(proposal.target,)), [])
    assert allocated[0].kept == heard
    assert allocated[0].architecture == proposal.architecture
    assert space.cost(arch) == space.cost(proposal.architecture)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("given", "found"), BOTH)
def test_less_is_lost_than_with_random_channels(given, found, family, spaces, weights, brief):
    state = weights(spaces[family])
    space, heard, _ = plant(spaces[family], state)
    told = brief(space, state, targets=(space.target(keep=0.5),))
    (proposal,) = given(preset="planted").propose(told, [])
    generator = np.random.default_rng(0)
    shuffled = in_order_of([generator.random(d.dense) for d in space.dimensions])
    (random,) = at_given_widths(told, "planted", shuffled, "run")
    assert random.architecture.widths == proposal.architecture.widths
    assert random.kept != heard or not heard
    assert change(space, state, proposal) < 1e-3
    assert change(space, state, random) > 0.1


@pytest.mark.parametrize("method", [given for given, _ in BOTH])
def test_factors_make_up_for_planted_twins(method, spaces, weights, brief):
    """What went can be said by what stays, at another volume: with factors little is lost, on new images."""
    space = spaces["vgg"]
    state = weights(space)
    settle(space, state)
    twinned(space, state, 0.2)
    narrow = {d.name: d.dense // 2 for d in space.dimensions[:3]}
    space = dataclasses.replace(space, raw_presets={"half": {"widths": narrow}})
    images = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    told = brief(
        space,
        state,
        targets=(space.target(keep=0.5),),
        calibration=lambda n: [(part, part) for part in images[:n].split(64)],
    )
    (found,) = method(preset="half").propose(told, [])
    generator = np.random.default_rng(0)
    shuffled = in_order_of([generator.random(d.dense) for d in space.dimensions])
    (random,) = at_given_widths(told, "half", shuffled, "run")

    def loss(proposal, rebuild):
        inherited = None
        if rebuild:
            inherited = resolve("prunas.rebuilds", rebuild.name)(
                space, proposal.architecture, state, proposal.kept, told.calibration, **rebuild.options
            )
        return change(space, state, proposal, inherited)

    plain, made_up, at_random = loss(found, None), loss(found, found.rebuild), loss(random, None)
    assert made_up < 0.1 * plain
    assert plain < at_random
    assert loss(random, found.rebuild) > 10 * made_up  # factors do not stand in for the right channels


@pytest.mark.parametrize("method", [m for pair in BOTH for m in pair])
def test_what_it_needs_is_said_before_anything_is_trained(method, spaces, brief):
    space = spaces["vgg"]
    never = brief(space, targets=(space.target(keep=0.5),), calibration=None)  # its dense training fails
    with pytest.raises(InputError, match=f"{method.name} measures responses to training images, and"):
        method().propose(never, [])


def test_settings_are_checked():
    with pytest.raises(InputError, match="thinet: images must be at least 1, not 0"):
        ThiNet(images=0)
    with pytest.raises(InputError, match="reconstruction-global: responses must be at least 1, not -3"):
        GlobalReconstruction(responses=-3)


@pytest.mark.parametrize("method", [GlobalThiNet, Reconstruction])
def test_images_decide(method, spaces, weights, brief):
    """What is measured is the response to the images, not the weights alone."""
    space = spaces["vgg"]
    state = weights(space)
    targets = (space.target(keep=0.5),)
    other = [(torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(7)) * 5, torch.zeros(16))]
    kept = [
        method().propose(brief(space, state, targets=targets, **changes), [])[0].kept
        for changes in ({}, {}, {"calibration": lambda images: other})
    ]
    assert kept[0] == kept[1] != kept[2]
