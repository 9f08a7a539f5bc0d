import math

import numpy as np
import pytest

from prunas.statistics.text import as_text
from prunas.statistics.widths import Agreement, agreed, agreement, agreement_table, width_spread
from tests.statistics.result_rows import keeping

# Table 8 of arXiv:1810.05270: widths that slimming finds in VGG-16 on CIFAR-10, mean and std over five searches.
DENSE = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
MEAN = (39.0, 64.0, 127.8, 128.0, 255.0, 250.5, 226.0, 217.3, 120.0, 63.0, 47.8, 62.0, 88.8)
STD = (3.7, 0, 0.4, 0, 1.0, 0.5, 2.5, 6.6, 4.4, 1.9, 2.9, 3.4, 3.1)


def test_table_8_of_the_study() -> None:
    # Two values m - d and m + d have mean m and standard deviation d sqrt(2).
    points = [[m + sign * s / math.sqrt(2) for m, s in zip(MEAN, STD, strict=True)] for sign in (-1, 1)]
    found = width_spread("slimming", keeping(0.4), points, DENSE)
    assert found.mean == pytest.approx(MEAN)
    assert found.std == pytest.approx(STD)
    shares = [m / d for m, d in zip(MEAN, DENSE, strict=True)]
    centre = sum(shares) / 13
    between_layers = math.sqrt(sum((share - centre) ** 2 for share in shares) / 12)
    between_seeds = math.sqrt(sum((s / d) ** 2 for s, d in zip(STD, DENSE, strict=True)) / 13)
    assert found.ratio == pytest.approx(between_seeds / between_layers)
    assert found.ratio < 0.1  # the searches agree


def test_one_point_has_no_spread_and_an_even_shape_no_ratio() -> None:
    lone = width_spread("slimming", keeping(0.1), [[8, 4]], (16, 16))
    assert (lone.n, lone.std, lone.ratio, lone.shares) == (1, (0, 0), None, (0.5, 0.25))
    even = width_spread("uniform", keeping(0.5), [[8, 4], [8, 4]], (16, 8))
    assert (even.std, even.ratio) == ((0, 0), None)


def test_shapes_that_share_nothing_but_their_mean_have_a_large_ratio() -> None:
    # Shares per seed (1, 0) and (0, 0.5): means 0.5 and 0.25; variances 0.5 and 0.125.
    found = width_spread("random", keeping(0.5), [[16, 0], [0, 8]], (16, 16))
    assert found.ratio == pytest.approx(math.sqrt((0.5 + 0.125) / 2) / (0.25 / math.sqrt(2)))


# Agreement


def found(*shapes: list[float]) -> dict[int, list[list[float]]]:
    return {seed: [shape] for seed, shape in enumerate(shapes)}


def test_distances_and_their_jackknife_by_hand() -> None:
    # Shares (.5, .5), (.5, .75), (1, .5): distances 1/8, 1/4 and 3/8 of each other; to (1, 1) 1/2, 3/8, 1/4.
    points, flat = found([8, 16], [8, 24], [16, 16]), found(*[[16, 32]] * 3)
    each = agreement("slimming", "uniform", keeping(0.5), points, flat, (16, 32))
    assert each is not None
    assert (each.own, each.other) == (pytest.approx(0.25), pytest.approx(0.375))
    # Without one seed the margins are (3/8 + 1/4) / 2 - 3/8, (1/2 + 1/4) / 2 - 1/4 and (1/2 + 3/8) / 2 - 1/8.
    pseudo = [3 * 0.125 - 2 * rest for rest in (-0.0625, 0.125, 0.3125)]
    mean = sum(pseudo) / 3
    std = math.sqrt(sum((value - mean) ** 2 for value in pseudo) / 2)
    assert (each.margin.mean, each.margin.std) == (pytest.approx(0.125), pytest.approx(std))
    # t of 2 degrees of freedom; the upper end, 1.057, is cut: no two shapes are further apart than all widths.
    assert each.margin.low == pytest.approx(0.125 - 4.30265 * std / math.sqrt(3), rel=1e-5)
    assert each.margin.high == 1
    assert "slimming" in as_text(agreement_table([each]))
    assert "+12.50" in as_text(agreement_table([each]))


def test_searches_that_agree_have_a_margin_and_noise_about_uniform_has_none() -> None:
    generator = np.random.default_rng(0)
    uniform = np.full(13, 0.4)
    profile = uniform + generator.uniform(-0.3, 0.3, 13)
    dense = (1,) * 13
    flat = found(*[uniform.tolist()] * 8)
    agreeing, scattered = (
        agreement(
            *("slimming", "uniform", keeping(0.4)),
            found(*(centre + generator.normal(0, 0.05, (8, 13))).tolist()),
            *(flat, dense),
        )
        for centre in (profile, uniform)
    )
    assert agreeing is not None
    assert scattered is not None
    assert agreeing.margin.low is not None and agreeing.margin.low > 0.05
    # Two draws differ by sqrt(2) times what each differs from their mean.
    assert scattered.margin.high is not None and scattered.margin.high < 0
    assert scattered.own / scattered.other == pytest.approx(math.sqrt(2), rel=0.1)


def test_two_seeds_have_no_interval_and_one_says_nothing() -> None:
    two = agreement("a", "b", keeping(0.5), found([1], [3]), found([2], [2]), (4,))
    assert two is not None
    assert (two.own, two.other, two.margin.low) == (0.5, 0.25, None)
    assert agreement("a", "b", keeping(0.5), found([1]), found([2]), (4,)) is None
    # Points of the same seed never meet: seed 0 of one is compared with seed 1 of the other alone.
    crossed = agreement("a", "b", keeping(0.5), found([0], [4]), found([4], [0]), (4,))
    assert crossed is not None
    assert (crossed.own, crossed.other) == (1, 0)


# What agreement says about a method


def against(
    other: str, keep: float, shapes: np.ndarray, others: np.ndarray, who: str = "l1-global"
) -> Agreement:
    dense = (1,) * shapes.shape[1]
    each = agreement(who, other, keeping(keep), found(*shapes.tolist()), found(*others.tolist()), dense)
    assert each is not None
    return each


def test_searches_that_find_the_initialisation_do_not_agree_by_what_they_find() -> None:
    """Four searches near one profile: the untrained network's own, or one that training made."""
    generator = np.random.default_rng(1)
    flat, born, made = np.full(8, 0.3), np.linspace(0.9, 0.1, 8), np.linspace(0.1, 0.9, 8)

    def near(profile: np.ndarray) -> np.ndarray:
        return profile + generator.normal(0, 0.01, (4, 8))

    even = np.tile(flat, (4, 1))
    for profile, holds in ((born, False), (made, True)):
        shapes = {keep: near(profile) for keep in (0.3, 0.1)}
        uniform = [against("uniform", keep, shapes[keep], even) for keep in shapes]
        control = [against("l1-global-untrained", keep, shapes[keep], near(born)) for keep in shapes]
        assert all(each.margin.low is not None and each.margin.low > 0 for each in uniform)
        assert agreed(uniform) == {"l1-global": "undecided, control not run"}
        assert agreed([*uniform, *control[:1]])["l1-global"] != "holds"  # of one target only
        assert (agreed([*uniform, *control])["l1-global"] == "holds") == holds


def test_agreement_is_judged_at_every_target() -> None:
    generator = np.random.default_rng(2)
    even, born = np.tile(np.full(8, 0.3), (4, 1)), np.tile(np.linspace(0.9, 0.1, 8), (4, 1))
    close = np.linspace(0.1, 0.9, 8) + generator.normal(0, 0.01, (4, 8))
    scattered = 0.3 + generator.normal(0, 0.2, (4, 8))
    some = [
        against(other, keep, shapes, others, "slimming")
        for other, others in (("uniform", even), ("slimming-unpenalised", born))
        for keep, shapes in ((0.3, scattered), (0.1, close))
    ]
    smallest = [each for each in some if each.asked.keep == 0.1]
    assert agreed(smallest) == {"slimming": "holds"}
    assert agreed(some)["slimming"] != "holds"
    assert "slimming: holds" in as_text(agreement_table(smallest))


def test_tapers_and_controls_that_agree_are_no_finding() -> None:
    even, steep = np.tile(np.full(8, 0.3), (4, 1)), np.tile(np.linspace(0.9, 0.1, 8), (4, 1))
    steep[0, 0] -= 0.01
    assert agreed([against("uniform", 0.3, steep, even, "taper")]) == {"taper": "undecided, control not run"}
