import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.results.rows import TrainingRow
from prunas.statistics.curves import curves
from prunas.statistics.trade import areas, front, hypervolume
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row, costing, keeping

POINTS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=12)


def test_the_front_ascends_and_drops_what_is_beaten() -> None:
    points = [(30, 95.0), (10, 90.0), (20, 89.0), (20, 92.0), (40, 95.0), (10, 90.0)]
    assert front(points, score=ACCURACY) == [1, 3, 0]


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    def beaten(a: tuple[int, int]) -> bool:
        return any(b[0] <= a[0] and b[1] >= a[1] and b != a for b in points)

    kept = [points[i] for i in front(points, score=ACCURACY)]
    assert sorted(kept) == sorted({point for point in points if not beaten(point)})


def test_hypervolume_is_a_sum_of_rectangles() -> None:
    # Two decades at height 1, then one more decade between heights 1 and 3; the third point is beaten.
    assert hypervolume([(10, 1.0), (100, 3.0), (200, 2.0)], (1000, 0.0), score=ACCURACY) == pytest.approx(
        2 * 1 + 1 * 2
    )
    assert hypervolume([(1000, 5.0), (10, -1.0)], (1000, 0.0), score=ACCURACY) == 0


@given(POINTS)
def test_hypervolume_of_points_is_that_of_their_front_and_never_shrinks(
    points: list[tuple[int, int]],
) -> None:
    reference = (20.0, 0.0)
    whole = hypervolume(points, reference, score=ACCURACY)
    assert whole == pytest.approx(
        hypervolume([points[i] for i in front(points, score=ACCURACY)], reference, score=ACCURACY)
    )
    assert hypervolume([*points, (3, 7)], reference, score=ACCURACY) >= whole - 1e-9


def rows(proposer: str, stops: dict[int, float], seed: int = 0) -> list[TrainingRow]:
    return [
        a_row(proposer, accuracy, seed, asked=keeping(params / 1e6), reached=costing(params, 10 * params))
        for params, accuracy in stops.items()
    ]


def test_the_area_is_the_mean_height_over_the_logarithm() -> None:
    # slimming rises evenly from 0 to 100 over two decades. uniform spans one of them, from 60 to 80.
    found = areas(
        curves(
            [
                *rows("slimming", {1000: 0.0, 100_000: 100.0}),
                *rows("uniform", {1000: 60.0, 10_000: 80.0}),
            ],
            score=ACCURACY,
        ),
        score=ACCURACY,
    )
    assert [(area.proposer, area.score.mean) for area in found] == [
        ("uniform", pytest.approx(70)),
        ("slimming", pytest.approx(25)),
    ]
    assert (found[0].low, found[0].high) == (1000, 10_000)


def test_points_inside_the_span_bend_the_curve() -> None:
    (area,) = areas(
        curves(rows("slimming", {1000: 0.0, 10_000: 90.0, 100_000: 90.0}), score=ACCURACY), score=ACCURACY
    )
    assert area.score.mean == pytest.approx((45 + 90) / 2)


def test_areas_are_summarised_over_seeds_that_have_every_target() -> None:
    given_rows = rows("slimming", {1000: 50.0, 10_000: 50.0}, 0) + rows(
        "slimming", {1000: 52.0, 10_000: 56.0}, 1
    )
    given_rows += rows("slimming", {1000: 99.0}, 2)
    (area,) = areas(curves(given_rows, score=ACCURACY), score=ACCURACY)
    assert (area.score.n, area.score.mean) == (2, pytest.approx(52))
    assert area.score.std == pytest.approx(4 / math.sqrt(2))


def test_no_common_span_no_area() -> None:
    assert areas(curves(rows("slimming", {1000: 50.0}), score=ACCURACY), score=ACCURACY) == []
