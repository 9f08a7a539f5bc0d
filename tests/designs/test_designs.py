import dataclasses
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas import designs
from prunas.costs.target import Target
from prunas.designs import kernels
from prunas.errors import InputError
from prunas.spaces.load import load_space

TABLE_8 = [
    39,
    64,
    128,
    128,
    255,
    250,
    226,
    217,
    120,
    63,
    48,
    62,
    89,
]  # of the study: mean widths of five runs
NAMES = ["vgg16-c10", "preresnet164-c10", "densenet40-c10"]

space_named = cache(load_space)


def profiles(space, seed):
    """Log-uniform between a tenth and one, one number per dimension."""
    return np.exp(np.random.default_rng(seed).uniform(np.log(0.1), 0, len(space.dimensions)))


def stage_ratios(space, arch):
    """Mean ratio per stage, shape (stages,)."""
    stages = np.array([d.stage for d in space.dimensions])
    return np.array([designs.ratios(space, arch)[stages == s].mean() for s in sorted(set(stages))])


# Vectors


def test_table_8():
    space = space_named("vgg16-c10")
    arch = space.counted(TABLE_8)
    assert space.cost(arch)[:2] == (2_472_429, 181_085_138)
    assert designs.ratios(space, arch) == pytest.approx(np.array(TABLE_8) / space.dense_counts)
    assert dict(arch.widths).keys() == {
        d.name for d, n in zip(space.dimensions, TABLE_8, strict=True) if n < d.dense
    }


def test_transferred_vgg19():
    source, space = space_named("vgg16-c10"), space_named("vgg19-c100")
    arch = designs.transferred(source, [source.counted(TABLE_8)], space)
    assert space.counts(arch).tolist() == [52, 52, 128, 128, *[244] * 4, *[133] * 4, *[66] * 4]
    assert space.cost(arch)[:2] == (3_098_909, 213_417_552)


def test_uniform_vgg19_at_40_percent_of_every_width():
    space = space_named("vgg19-c100")
    arch = designs.scaled(space, 0.4)
    assert space.counts(arch).tolist() == [26, 26, 51, 51, *[102] * 4, *[205] * 8]
    assert space.cost(arch)[:2] == (3_230_624, 64_209_076)


def test_scaled_rounds_to_the_nearest_step():
    space = dataclasses.replace(space_named("vgg16-c10"), step=8, floor=8)
    # 0.1 of 64, 128, 256 and 512 is 6.4, 12.8, 25.6 and 51.2.
    expected = [8, 8, 16, 16, *[24] * 3, *[48] * 6]
    assert space.counts(designs.scaled(space, 0.1)).tolist() == expected
    assert designs.scaled(space, 1.0) == space.dense
    assert designs.scaled(space, 7.0) == space.dense


def test_half_a_channel_is_rounded_up_however_floats_say_it():
    space = space_named("preresnet20-c10")
    keep = np.full(len(space.dimensions), 1.0)
    for half in range(1, 32, 2):
        keep[0] = half / 2 / 16 - 1e-13
        assert space.counts(designs.scaled(space, keep))[0] == (half + 1) // 2


# Fit


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    keep=st.floats(0.05, 0.95),
    metric=st.sampled_from(["params", "macs", "channels"]),
)
def test_fit_stays_below_the_target_and_near_it(name, seed, keep, metric):
    space = space_named(name)
    if keep * space.measure(space.dense, metric) < 1.2 * space.least(metric):
        keep = 0.5
    target = space.target(keep=keep, metric=metric)
    arch = designs.fit(space, profiles(space, seed), target)
    assert 0.99 * target.value <= space.measure(arch, metric) <= target.value
    assert not designs.missed(space, arch, target)
    assert designs.fit(space, profiles(space, seed), target) == arch
    space.check(arch)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), keep=st.floats(0.1, 0.9), more=st.floats(1e-5, 0.1))
def test_fit_is_monotone(name, seed, keep, more):
    space = space_named(name)
    costs = [
        space.measure(designs.fit(space, profiles(space, seed), space.target(keep=share)), "params")
        for share in (keep, keep + more)
    ]
    assert costs[0] <= costs[1]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    keep=st.floats(0.1, 0.9),
    floor=st.integers(1, 20),
    step=st.sampled_from([1, 3, 8, 16]),
)
def test_fit_respects_floor_and_step(seed, keep, floor, step):
    space = dataclasses.replace(space_named("vgg16-c10"), floor=floor, step=step)
    target = space.target(keep=keep)
    arch = designs.fit(space, profiles(space, seed), target)
    counts = space.counts(arch)
    assert (counts >= np.minimum(floor, space.dense_counts)).all()
    assert ((counts % step == 0) | (counts == space.dense_counts)).all()
    assert space.measure(arch, "params") <= target.value


@pytest.mark.parametrize(("name", "keep"), [("resnet20-c10", 0.2), ("vgg11-digits", 0.02)])
def test_fit_comes_near_even_where_a_channel_costs_more_than_a_percent(name, keep):
    space = space_named(name)
    target = space.target(keep=keep)
    for seed in range(60):
        stages = np.exp(np.random.default_rng(seed).uniform(np.log(0.1), 0, 3))
        arch = designs.fit(space, [stages[d.stage] for d in space.dimensions], target)
        assert not designs.missed(space, arch, target)


def test_fit_keeps_the_proportions():
    space = space_named("vgg16-c10")
    profile = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2])
    kept = designs.ratios(space, designs.fit(space, profile, space.target(budget=500_000))) / profile
    assert kept == pytest.approx(kept.mean(), rel=0.08)  # whole channels: the narrowest layer has 25
    # 0.5 of every width but where 2 * 0.5 is clipped.
    clipped = designs.fit(space, np.where(np.arange(13) < 2, 1.0, 0.25), space.target(keep=0.3))
    assert space.counts(clipped)[:2].tolist() == [64, 64]


def test_fit_reaches_the_ends():
    space = space_named("vgg16-c10")
    assert designs.fit(space, profiles(space, 0), space.target(keep=1.0)) == space.dense
    least = Target("params", space.least("params"))
    assert space.counts(designs.fit(space, profiles(space, 0), least)).tolist() == [1] * 13
    beyond = Target("params", 100)
    assert designs.fit(space, np.ones(13), beyond) == designs.fit(space, np.ones(13), least)
    assert designs.missed(space, designs.fit(space, np.ones(13), beyond), beyond)


def test_fit_without_dimensions_is_dense():
    space = dataclasses.replace(space_named("vgg16-c10"), groups=())
    assert designs.fit(space, [], space.target()) == space.dense


@pytest.mark.parametrize(
    ("name", "keep"), [("resnet56-c10", 0.1), ("preresnet164-c10", 0.1), ("vgg16-c10", 0.2)]
)
def test_uniform_treats_stages_alike_even_where_layers_have_few_channels(name, keep):
    space = space_named(name)
    arch = designs.uniform(space, space.target(keep=keep))
    means = stage_ratios(space, arch)[:3]  # a last stage may hold the head's gate alone
    assert np.ptp(means) < 0.02


def test_missed_is_one_percent_either_way():
    space = space_named("vgg16-c10")
    cost = space.measure(space.dense, "macs")
    assert not designs.missed(space, space.dense, Target("macs", round(cost / 1.0099)))
    assert designs.missed(space, space.dense, Target("macs", round(cost / 1.0101)))
    assert not designs.missed(space, space.dense, Target("macs", round(cost / 0.9901)))
    assert designs.missed(space, space.dense, Target("macs", round(cost / 0.9899)))


# Taper


@pytest.mark.parametrize("name", ["vgg16-c10", "resnet56-c10", "densenet40-c10"])
@pytest.mark.parametrize(("start", "factor"), [(23.0, 2.0), (11.0, 1.5), (60.0, 0.8)])
def test_taper_recovers_a_planted_one(name, start, factor):
    space = space_named(name)
    stage = np.array([d.stage for d in space.dimensions])
    widest = np.array([max(d.dense for d in space.dimensions if d.stage == s) for s in stage])
    planted = designs.scaled(space, np.minimum(1, start * factor**stage / widest))
    cost = space.cost(planted)
    found = designs.taper(space, cost.params, cost.macs)
    reached = space.cost(found.architecture)
    assert found.matched
    assert reached.params == pytest.approx(cost.params, rel=0.01)
    assert reached.macs == pytest.approx(cost.macs, rel=0.01)
    assert space.counts(found.architecture) == pytest.approx(space.counts(planted), rel=0.05, abs=1)


def test_taper_of_table_8():
    space = space_named("vgg16-c10")
    found = designs.taper(space, 2_472_429, 181_085_138)
    assert found.matched
    assert found.factor < 1  # early layers wide
    widths = space.counts(found.architecture)
    assert (np.diff(widths[4:]) <= 1).all()


def test_taper_says_when_there_is_none():
    space = space_named("vgg16-c10")
    dense = space.cost(space.dense)
    few = designs.taper(space, dense.params // 20, dense.macs)  # so many MACs need more parameters
    assert not few.matched
    many = designs.taper(space, dense.params // 2, dense.macs // 100)
    assert not many.matched
    for found in (few, many):
        space.check(found.architecture)


# Shuffled


def test_shuffled_deals_the_same_ratios_anew(monkeypatch):
    space = space_named("preresnet164-c10")
    arch = designs.fit(space, profiles(space, 3), space.target(keep=0.3))
    dealt = []

    def fit(space, profile, target):
        dealt.append(np.array(profile))

    monkeypatch.setattr("prunas.designs.widths.fit", fit)
    for seed in (0, 0, 1):
        designs.shuffled(space, arch, space.target(keep=0.3), seed)
    assert (dealt[0] == dealt[1]).all()
    assert (dealt[0] != dealt[2]).any()
    gate = np.array([d.kind == "gate" for d in space.dimensions])
    for part in (gate, ~gate):
        assert sorted(dealt[0][part]) == sorted(designs.ratios(space, arch)[part])
        assert (dealt[0][part] != designs.ratios(space, arch)[part]).any()


def test_shuffled_meets_the_target():
    space = space_named("vgg16-c10")
    target = space.target(keep=0.1)
    arch = designs.fit(space, profiles(space, 3), target)
    drawn = [designs.shuffled(space, arch, target, seed) for seed in range(5)]
    assert len(set(drawn)) == 5
    assert not any(designs.missed(space, one, target) for one in drawn)


# Guided


def test_guided_takes_stage_means_over_layers_and_points():
    space = space_named("vgg16-c10")
    found = [space.counted(TABLE_8), space.dense]
    as_found = designs.guided(space, found)
    means = [(51.5 + 64) / 2, 128, (243.667 + 256) / 2, (133.333 + 512) / 2, (66.333 + 512) / 2]
    expected = np.repeat([int(m + 0.5) for m in means], [2, 2, 3, 3, 3])
    assert space.counts(as_found).tolist() == expected.tolist()
    assert designs.guided(space, [space.counted(TABLE_8)]) == space.counted(
        [52, 52, 128, 128, *[244] * 3, *[133] * 3, *[66] * 3]
    )


def test_guided_fitted_meets_the_target_in_the_same_proportions():
    space = space_named("vgg16-c10")
    target = space.target(keep=0.05)
    arch = designs.guided(space, [space.counted(TABLE_8)], target)
    assert not designs.missed(space, arch, target)
    proportions = stage_ratios(space, arch) / stage_ratios(space, space.counted(TABLE_8))
    assert proportions == pytest.approx(proportions.mean(), rel=0.02)


def test_means_are_taken_per_role_and_missing_roles_take_the_stages_mean():
    space = space_named("preresnet20-c10")
    counts = [d.dense // 4 if d.kind == "gate" else d.dense // 2 for d in space.dimensions]
    means = designs.stage_means(space, [space.counted(counts)])
    assert means == {
        (s, role): v
        for s in range(4)
        for role, v in (("plain", 0.5), ("gate", 0.25))
        if (s, role) != (3, "plain")
    }
    streams = dataclasses.replace(space, groups=("*",), gates=("*",))
    arch = designs.transferred(space, [space.counted(counts)], streams)
    ratio = {
        d.name: r
        for d, r in zip(streams.dimensions, designs.ratios(streams, arch), strict=True)
        if d.kind == "group"
    }
    assert ratio["layer1.0.conv1"] == 0.5
    assert ratio["layer1.0.conv3"] == 0.375  # residual: nothing of that role was found in the stage


def test_designs_refuse_what_does_not_correspond():
    space = space_named("vgg16-c10")
    with pytest.raises(InputError, match="needs at least one found point"):
        designs.guided(space, [])
    other = space_named("resnet56-c10")
    with pytest.raises(InputError, match=r"no stage of 'resnet56-c10' .* the 4x4 of 'vgg16-c10' .*choose"):
        designs.transferred(other, [other.dense], space)


# Depth


@pytest.fixture(scope="module")
def blocky():
    return dataclasses.replace(space_named("preresnet164-c10"), groups=(), gates=(), blocks=("*",))


def kept_blocks(space, arch):
    """Blocks left per stage."""
    left = [b.stage for b in space.survey.blocks if b.name in space.removable and b.name not in arch.removed]
    return [left.count(stage) for stage in sorted({b.stage for b in space.survey.blocks})]


def keeping_blocks(space, *counts):
    stages = {}
    for block in space.survey.blocks:
        stages.setdefault(block.stage, []).append(block.name)
    removed = [n for names, count in zip(stages.values(), counts, strict=True) for n in names[count:]]
    return space.point(removed=removed)


def test_depth_is_carried_as_shares_of_the_blocks_of_a_stage(blocky):
    shallow = dataclasses.replace(space_named("preresnet20-c10"), groups=(), gates=(), blocks=("*",))
    assert kept_blocks(blocky, blocky.dense) == [18, 18, 18]
    assert kept_blocks(shallow, shallow.dense) == [2, 2, 2]
    found = [keeping_blocks(shallow, 2, 1, 0), keeping_blocks(shallow, 2, 0, 0)]  # means 1, 1/4, 0
    moved = designs.transferred_depth(shallow, found, blocky)
    assert kept_blocks(blocky, moved) == [18, 5, 0]  # 4.5 is rounded up
    assert moved == keeping_blocks(blocky, 18, 5, 0)  # the last blocks of a stage go
    back = designs.transferred_depth(blocky, [keeping_blocks(blocky, 18, 4, 5)], shallow)
    assert kept_blocks(shallow, back) == [2, 0, 1]  # 2 * 4/18 = 0.44 and 2 * 5/18 = 0.56


def test_fitted_depth_is_the_largest_of_its_profile_within_the_budget(blocky):
    found = [keeping_blocks(blocky, 12, 6, 3)]
    for keep in (0.5, 0.2, 0.1):
        target = blocky.target(keep=keep)
        arch = designs.transferred_depth(blocky, found, blocky, target)
        assert blocky.measure(arch, "params") <= target.value
        counts = kept_blocks(blocky, arch)
        # Some scalar gives these counts, and the next one up at which a count changes breaks the budget.
        changes = sorted((i - 0.5) / most for most in (12, 6, 3) for i in range(1, 19))
        profiles = [[min(18, int(s * most + 0.5 + 1e-9)) for most in (12, 6, 3)] for s in [0, *changes]]
        more = profiles[max(i for i, p in enumerate(profiles) if p == counts) + 1]
        assert blocky.measure(keeping_blocks(blocky, *more), "params") > target.value
    least = blocky.target(budget=blocky.least("params"))
    assert kept_blocks(blocky, designs.transferred_depth(blocky, found, blocky, least)) == [0, 0, 0]
    with pytest.raises(InputError, match="needs at least one found point"):
        designs.transferred_depth(blocky, [], blocky)
    with pytest.raises(InputError, match="no blocks that may be removed"):
        designs.transferred_depth(space_named("vgg16-c10"), [space_named("vgg16-c10").dense], blocky)


@pytest.mark.parametrize("target", [0.3, 400_000, "30%"])
def test_a_bare_number_is_no_target(target):
    space, blocks = space_named("vgg16-c10"), space_named("preresnet20-c10")
    calls = (
        lambda: designs.uniform(space, target),
        lambda: designs.shuffled(space, space.dense, target, 0),
        lambda: designs.guided(space, [space.dense], target),
        lambda: designs.equal_depth(blocks, target),
        lambda: designs.missed(space, space.dense, target),
        lambda: kernels.uniform_kernels(space, target),
        lambda: kernels.erk(space, target),
        lambda: kernels.cross(space, target),
    )
    for call in calls:
        with pytest.raises(InputError, match=r"a target is wanted, not .*; make one with space\.target"):
            call()
