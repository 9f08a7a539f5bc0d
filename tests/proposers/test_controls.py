import numpy as np
import pytest

from prunas import designs
from prunas.costs.target import Target
from prunas.proposers.brief import Proposal
from prunas.proposers.registry import entry


def test_uniform_is_the_design(spaces, brief):
    space = spaces["vgg"]
    targets = (space.target(keep=0.5), space.target(keep=0.1, metric="macs"))
    proposals = entry("uniform").build().propose(brief(space, targets=targets), [])
    assert [p.architecture for p in proposals] == [designs.uniform(space, t) for t in targets]
    assert [p.flags for p in proposals] == [(), ()]


def test_random_draws_as_many_points_as_trials(spaces, brief):
    space = spaces["vgg"]
    targets = (space.target(keep=0.5), space.target(keep=0.1))
    proposals = entry("random").build().propose(brief(space, targets=targets, trials=4), [])
    assert [p.target for p in proposals] == [targets[0]] * 4 + [targets[1]] * 4
    assert len({p.architecture for p in proposals}) == 8


def test_random_profiles_are_log_uniform_over_stages(spaces, brief):
    space = spaces["vgg"]
    told = brief(space, targets=(space.target(keep=0.01),), trials=200)
    stages = np.array([d.stage for d in space.dimensions])
    means = []
    for p in entry("random").build().propose(told, []):
        ratios = designs.ratios(space, p.architecture)
        means.append([ratios[stages == s].mean() for s in (0, 1, 2)])
        for s in (0, 1, 2):  # one ratio per stage, but for whole channels
            assert np.ptp(ratios[stages == s]) <= 2 / space.dense_counts[stages == s].min()
    logs = np.log(means)
    widest = (logs - logs.max(1, keepdims=True)).min(1)
    # The smallest of three log-uniform numbers over a decade, relative to the largest: half a decade in the mean.
    assert widest.mean() == pytest.approx(-np.log(10) / 2, rel=0.15)


@pytest.fixture
def found(spaces):
    """Points of a method, one off its target."""
    space = spaces["vgg"]
    generator = np.random.default_rng(0)
    target = space.target(keep=0.1)
    arch = designs.fit(space, generator.uniform(0.1, 1, 8), target)
    off = designs.fit(space, generator.uniform(0.1, 1, 8), Target("params", int(0.8 * target.value)))
    return [Proposal(target, arch), Proposal(target, off, ("target_missed",))]


@pytest.mark.parametrize("family", ["vgg", "preresnet", "stemmed"])
def test_random_channels_have_the_widths_the_weights_and_the_rebuilding_of_what_they_answer(
    family, spaces, brief, weights
):
    space = spaces[family]
    told = brief(space, weights(space), targets=(space.target(keep=0.5),))
    answered = tuple(entry("thinet-global").build().propose(told, []))
    shape = Proposal(told.targets[0], space.dense)  # comes without weights
    proposals = {
        seed: entry("random-channels")
        .build(draws=2)
        .propose(brief(space, seed=seed, found=(*answered, shape)), [])
        for seed in (0, 1)
    }
    (method,) = answered
    kept = set()
    for p in (*proposals[0], *proposals[1]):
        assert space.counts(p.architecture).tolist() == space.counts(method.architecture).tolist()
        assert space.cost(p.architecture) == space.cost(method.architecture)
        assert (p.weights_of, p.rebuild, p.target) == (method.weights_of, method.rebuild, method.target)
        space.build(p.architecture, weights(space), p.kept)
        kept.add((tuple(sorted(p.kept.items())), p.architecture.selected))
    assert len(kept) == 4
    assert (tuple(sorted(method.kept.items())), method.architecture.selected) not in kept


def test_random_channels_are_drawn_evenly(spaces, brief):
    space = spaces["vgg"]
    kept = {d.name: tuple(range(d.dense // 2)) for d in space.dimensions}
    arch = space.point({name: len(units) for name, units in kept.items()})
    found = Proposal(space.target(keep=0.5), arch, (), kept, "run")
    drawn = entry("random-channels").build(draws=300).propose(brief(space, found=(found,)), [])
    first = space.dimensions[0]
    often = np.bincount([unit for p in drawn for unit in p.kept[first.name]], minlength=first.dense)
    assert abs(often - 150).max() < 6 * np.sqrt(300 / 4)


def test_taper_matches_what_was_reached_and_flags_what_was_asked(spaces, brief, found):
    space = spaces["vgg"]
    proposals = entry("taper").build().propose(brief(space, found=tuple(found)), [])
    for p, answered in zip(proposals, found, strict=True):
        ours, theirs = space.cost(p.architecture), space.cost(answered.architecture)
        assert ours.params == pytest.approx(theirs.params, rel=0.01)
        assert ours.macs == pytest.approx(theirs.macs, rel=0.01)
        assert (p.target, p.flags) == (answered.target, answered.flags)


def test_taper_flags_macs_it_cannot_match(spaces, brief):
    space = spaces["vgg"]
    target = space.target(keep=0.005)  # layers of two or three channels: often no taper has those MACs
    drawn = [np.random.default_rng(seed).uniform(0.1, 1, 8) for seed in range(8)]
    found = tuple(Proposal(target, designs.fit(space, profile, target)) for profile in drawn)
    outcomes = set()
    for p, answered in zip(entry("taper").build().propose(brief(space, found=found), []), found, strict=True):
        ours, theirs = space.cost(p.architecture), space.cost(answered.architecture)
        off = max(abs(ours.params / theirs.params - 1), abs(ours.macs / theirs.macs - 1))
        assert ("macs_not_matched" in p.flags) == (off > 0.01)
        outcomes.add(off > 0.01)
    assert outcomes == {True, False}


def test_shuffled_draws_each_found_point_anew(spaces, brief, found):
    space = spaces["vgg"]
    proposals = entry("shuffled").build(draws=3).propose(brief(space, found=tuple(found)), [])
    assert len({p.architecture for p in proposals}) == 6
    for p, answered in zip(proposals, np.repeat(np.array(found, object), 3), strict=True):
        assert p.flags == answered.flags
        cost = space.measure(answered.architecture, "params")
        assert 0.99 * cost <= space.measure(p.architecture, "params") <= cost
