import math
import random
from fractions import Fraction

import pytest

from prunas.statistics.inference import (
    BOOTSTRAP_FROM,
    bootstrap,
    chance_ceiling,
    holm,
    paired_p,
    score_bounds,
    t_interval,
)
from prunas.tasks.score import ACCURACY

# Student 1908, the extra sleep of ten patients under two drugs, as in R's data set `sleep`.
SLEEP = (1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4)


def test_p_value_of_students_own_example() -> None:
    assert paired_p(SLEEP) == pytest.approx(0.002833, abs=5e-7)  # R: t.test(extra ~ group, paired = TRUE)


@pytest.mark.parametrize("t", [0.5, 1.0, 3.0])
def test_with_two_pairs_students_t_is_cauchys(t: float) -> None:
    # The mean of (t - 1, t + 1) is t standard errors from 0.
    assert paired_p((t - 1, t + 1)) == pytest.approx(1 - 2 * math.atan(t) / math.pi)


@pytest.mark.parametrize("values", [(1.0,), (0.2, 0.2, 0.2), (98.2 - 98.0, 97.7 - 97.5, 96.3 - 96.1)])
def test_no_spread_no_p_value(values: tuple[float, ...]) -> None:
    assert paired_p(values) is None


def test_holms_correction_of_a_worked_example() -> None:
    # 4 * 0.005, 3 * 0.01, 2 * 0.03; the last may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_counts_tests_that_could_not_be_made_and_stops_at_one() -> None:
    assert holm([0.02, None]) == [0.04, None]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_bootstrap_starts_at_ten_values() -> None:
    assert BOOTSTRAP_FROM == 10
    assert bootstrap(SLEEP[:9]) is None
    assert bootstrap(SLEEP) is not None


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_symmetric_sample() -> None:
    drawn = random.Random(0)
    half = [abs(drawn.gauss(0, 2)) for _ in range(100)]
    values = [50 + x for x in half] + [50 - x for x in half]
    error = math.sqrt(sum(2 * x * x for x in half) / 200 / 200)
    assert bootstrap(values) == pytest.approx((50 - 1.96 * error, 50 + 1.96 * error), abs=0.06 * error)


def test_bootstrap_leans_to_the_side_of_the_long_tail() -> None:
    ends = bootstrap([math.exp(0.2 * i) for i in range(20)])
    mean = sum(math.exp(0.2 * i) for i in range(20)) / 20
    assert ends is not None
    assert ends[1] - mean > 1.2 * (mean - ends[0])


def test_bootstrap_of_equal_values_is_none_and_repeats_exactly() -> None:
    assert bootstrap([0.1] * 12) is None
    assert bootstrap(SLEEP) == bootstrap(SLEEP)


def test_the_interval_of_an_accuracy_stays_within_0_and_100_percent() -> None:
    # Mean 23.83, standard deviation 11.65, t of one degree of freedom 12.7062: 23.83 +- 104.71.
    values = (15.5886, 32.0714)
    assert t_interval(values) == pytest.approx((-80.88, 128.54), abs=0.01)
    assert t_interval(values, score_bounds(ACCURACY)) == (0.0, 100.0)
    # An interval inside the range is Student's.
    assert t_interval((91.0, 92.0, 93.0), score_bounds(ACCURACY)) == t_interval((91.0, 92.0, 93.0))


@pytest.mark.parametrize("values", [(10.02,), (10.02, 10.02), (98.2 - 98.0, 97.7 - 97.5, 96.3 - 96.1)])
def test_equal_values_are_no_certainty(values: tuple[float, ...]) -> None:
    assert t_interval(values, score_bounds(ACCURACY)) is None


@pytest.mark.parametrize(
    ("share", "images", "hits"),
    [
        # Smallest k with P(X <= k) >= 0.95, summed in exact fractions.
        *((share, images, None) for share in (0.1, 0.01, 0.5) for images in (1, 20, 450)),
        (0.1, 20, 4),  # any table of the binomial distribution: P(X <= 3) = 0.867, P(X <= 4) = 0.957
        (0.1, 10_000, 1050),  # 1000 + 1.645 * 30 = 1049.3 and a half for continuity
    ],
)
def test_guessing_reaches_its_quantile(share: float, images: int, hits: int | None) -> None:
    if hits is None:
        p, total, hits = Fraction(share), Fraction(0), -1
        while total < Fraction(95, 100):
            hits += 1
            total += math.comb(images, hits) * p**hits * (1 - p) ** (images - hits)
    assert chance_ceiling(share, images) == pytest.approx(100 * hits / images)
