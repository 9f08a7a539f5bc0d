import numpy as np
import pytest

from prunas import designs
from prunas.costs import Target
from prunas.proposers import entry
from prunas.proposers.brief import Proposal


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
