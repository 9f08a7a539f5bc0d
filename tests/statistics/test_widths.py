import math

import pytest
from result_rows import keeping

from prunas.statistics.widths import width_spread

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
