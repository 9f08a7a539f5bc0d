"""Every function that compares, with a score that has no bounds and whose lower values are better."""

import math

import pytest

from prunas.results.rows import SearchCost, TrainingRow
from prunas.statistics.advice import advise, observation_table, observations
from prunas.statistics.claims import Side, compared, verdict
from prunas.statistics.curves import curves, dense_score, undrawn
from prunas.statistics.inference import UNBOUNDED, gain_bounds, score_bounds
from prunas.statistics.prices import prices
from prunas.statistics.ranking import mean_difference, rankings, saturated
from prunas.statistics.retraining import courses, crossings, retraining_table
from prunas.statistics.summary import comparisons, differences, table
from prunas.statistics.text import as_latex, as_text, difference_table, result_table
from prunas.statistics.trade import areas, front, hypervolume
from prunas.tasks.score import ACCURACY, Score
from tests.statistics.result_rows import a_row, costing, keeping

ERROR = Score(name="error", better="lower", margin=0.02)
DISTANCE = Score(name="distance", unit="mm", better="lower", low=0.0, margin=0.5)


def rows_of(proposer: str, *scores: float, **changes: object) -> list[TrainingRow]:
    return [a_row(proposer, value, seed, **changes) for seed, value in enumerate(scores)]


def test_bounds_are_those_of_the_score() -> None:
    assert score_bounds(ERROR) == gain_bounds(ERROR) == UNBOUNDED
    assert score_bounds(DISTANCE) == (0.0, math.inf)
    assert gain_bounds(DISTANCE) == UNBOUNDED
    assert (score_bounds(ACCURACY), gain_bounds(ACCURACY)) == ((0.0, 100.0), (-100.0, 100.0))


def test_intervals_are_not_cut_where_there_is_no_bound() -> None:
    # Of (-1, 1): mean 0, s = sqrt(2), t(0.975, 1) = 12.706, so 0 +- 12.706 sqrt(2) / sqrt(2).
    (line,) = table(rows_of("slimming", -1.0, 1.0), ERROR)
    assert line.score is not None
    assert (line.score.low, line.score.high) == pytest.approx((-12.7062, 12.7062), abs=1e-4)
    (line,) = table(rows_of("slimming", 1.0, 3.0), DISTANCE)
    assert line.score is not None
    assert (line.score.low, line.score.high) == pytest.approx((0.0, 2 + 12.7062), abs=1e-4)


def test_a_difference_is_above_0_where_the_first_has_the_lower_score() -> None:
    rows = [*rows_of("slimming", 0.20, 0.30), *rows_of("taper", 0.25, 0.45)]
    (difference,) = differences(rows, "slimming", score=ERROR)
    assert difference.values == pytest.approx((0.05, 0.15))
    assert mean_difference([difference], ERROR)[0].mean == pytest.approx(0.10)  # type: ignore[index]
    assert compared(rows, Side("slimming"), Side("taper"), score=ERROR).mean == pytest.approx(0.10)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ((0.30, 0.31, 0.32), "ahead"),  # gains of 0.10, 0.11, 0.12
        ((0.10, 0.09, 0.08), "behind"),
        ((0.205, 0.200, 0.196), "level"),  # within 0.005 of 0, the margin is 0.02
        ((0.10, 0.20, 0.30), "undecided"),
    ],
)
def test_verdicts(theirs: tuple[float, ...], said: str) -> None:
    rows = [*rows_of("slimming", 0.20, 0.20, 0.20), *rows_of("uniform", *theirs)]
    difference = compared(rows, Side("slimming"), Side("uniform"), score=ERROR)
    assert difference is not None
    assert verdict(difference, ERROR.margin) == said


def test_the_lowest_score_has_rank_1() -> None:
    rows = [*rows_of("slimming", 0.2), *rows_of("taper", 0.3), *rows_of("uniform", 0.4)]
    (ranking,) = rankings(rows, score=ERROR)
    assert ranking.ranks == (("slimming", 1.0), ("taper", 2.0), ("uniform", 3.0))
    assert rankings(rows, score=Score(name="recall"))[0].ranks[0][0] == "uniform"


def test_a_target_is_saturated_where_the_highest_score_is_near_the_dense_one() -> None:
    assert saturated([0.10, 0.11], 0.10, ERROR)
    assert not saturated([0.10, 0.15], 0.10, ERROR)
    assert saturated([0.05, 0.09], 0.10, ERROR)  # all better than dense
    assert saturated([0.10, 0.11], None, ERROR)
    assert not saturated([0.10, 0.13], None, ERROR)


def test_a_curve_takes_any_finite_score() -> None:
    (curve,) = curves(rows_of("slimming", -3.0, 250.0), ERROR)
    assert [point.score for point in curve.points[0]] == [-3.0, 250.0]
    with pytest.raises(ValueError, match=r"no distance, from 0.0 to inf"):
        curves(rows_of("slimming", -3.0), DISTANCE)
    assert undrawn([a_row(test_score=None)], ERROR) == ("1 run without a test error",)
    dense = dense_score([a_row("dense", 250.0, kind="dense")], ERROR)
    assert dense is not None
    assert dense.mean == 250.0


def test_the_front_descends() -> None:
    points = [(1.0, 0.9), (2.0, 0.5), (3.0, 0.7), (4.0, 0.1)]
    assert front(points, ERROR) == [0, 1, 3]


def test_the_volume_lies_below_the_worst_score() -> None:
    # From 1000 and 0.9: two decades at a gain of 0.1, one more decade from there to 0.5; the third adds nothing.
    points = [(10.0, 0.8), (100.0, 0.4), (200.0, 0.6), (1.0, 1.2)]
    assert hypervolume(points, (1000.0, 0.9), ERROR) == pytest.approx(2 * 0.1 + 1 * 0.4)


def test_the_least_area_comes_first() -> None:
    rows = [
        a_row(proposer, value, asked=keeping(cost / 1e6), reached=costing(cost, cost))
        for proposer, scores in (("slimming", (0.4, 0.2)), ("taper", (0.6, 0.2)))
        for cost, value in zip((1000, 10_000), scores, strict=True)
    ]
    found = areas(curves(rows, ERROR), ERROR)
    assert [(area.proposer, area.score.mean) for area in found] == [
        ("slimming", pytest.approx(0.3)),
        ("taper", pytest.approx(0.4)),
    ]


def test_the_best_price_comes_first() -> None:
    rows = [*rows_of("slimming", 0.3), *rows_of("taper", 0.2)]
    costs = [
        SearchCost(proposer=name, seed=0, macs=1, seconds=0.0, trainings=1) for name in ("slimming", "taper")
    ]
    assert [price.proposer for price in prices(rows, costs, ERROR)] == ["taper", "slimming"]


def a_course(protocol: str, epochs: int, *scores: float) -> list[TrainingRow]:
    return [
        a_row("slimming", value, seed, protocol=protocol, epochs=epochs, id=f"{protocol}-{seed}")
        for seed, value in enumerate(scores)
    ]


def budgets() -> list[TrainingRow]:
    """Scratch has 0.2 more error than fine-tuning at 4 epochs, and 0.2 less at 16."""
    return [
        *a_course("scratch-e:4", 4, 0.6, 0.8),
        *a_course("scratch-e:16", 16, 0.1, 0.2),
        *a_course("finetune:4", 4, 0.4, 0.6),
        *a_course("finetune:16", 16, 0.3, 0.4),
    ]


def test_scratch_overtakes_where_its_score_falls_below() -> None:
    (crossing,) = crossings(courses(budgets(), ERROR))
    assert [each.mean for each in crossing.differences] == pytest.approx([-0.2, 0.2])
    assert crossing.at == pytest.approx(8.0)  # half way between 4 and 16 on a logarithmic axis
    assert "overtakes finetune at about 8 epochs" in crossing.sentence


def test_the_retraining_table_says_what_is_subtracted() -> None:
    shown = retraining_table(courses(budgets(), ERROR))
    assert shown.columns[-2] == "finetune - scratch-e"
    assert [row[-2] for row in shown.rows] == ["-0.200", "+0.200"]
    assert shown.rows[0][4] == "0.700 ± 0.141"
    assert shown.notes[:2] == (
        "Test error, mean ± standard deviation over searches; differences paired by seed.",
        "Lower error is better.",
    )


def known(rows: list[TrainingRow]) -> list:  # type: ignore[type-arg]
    return observations(
        rows, where="runs", own=True, space="s", data="d", recipe_epochs=20, whole=995_000, score=ERROR
    )


def test_advice_takes_what_has_the_lower_score() -> None:
    found = [*rows_of("slimming", 0.20, 0.21, 0.22), *rows_of("uniform", 0.30, 0.32, 0.34)]
    advice = advise(known(found), keep=0.1, epochs=20, recipe_epochs=20)
    assert (advice.answer, advice.basis) == ("scratch", "own")
    assert (
        "What slimming found is ahead of uniform shapes: +0.110 in error [+0.085, +0.135], n = 3"
        in (advice.reasons[1])
    )
    tuned = [a_row("slimming", 0.1 + 0.02 * seed, seed, protocol="finetune", epochs=5) for seed in range(3)]
    advice = advise(known([*found, *tuned]), keep=0.1, epochs=20, recipe_epochs=20)
    assert advice.answer == "fine-tune"
    shown = observation_table(advice.evidence)
    assert shown.notes == (
        "Differences of test error, above 0 where the first is better (lower): the second of the question minus "
        "the first.",
    )
    assert advice.evidence[0].to_json()["score"]["low"] is None


def test_evidence_of_two_scores_is_told_apart() -> None:
    found = [*rows_of("slimming", 0.20, 0.21, 0.22), *rows_of("uniform", 0.30, 0.32, 0.34)]
    ours = known(found)
    others = observations(
        found, where="c", own=False, space="s", data="d", recipe_epochs=20, whole=None, score=ACCURACY
    )
    notes = observation_table([*ours, *others]).notes
    assert len(notes) == 2
    assert ["accuracy" in note for note in notes] == [False, True]


def test_tables_name_the_score_its_digits_and_its_direction() -> None:
    rows = [*rows_of("slimming", 3.25, 4.5, 5.0), *rows_of("taper", 4.0, 5.5, 7.0)]
    results = result_table(table(rows, DISTANCE), DISTANCE)
    assert "test distance (mm)" in results.columns
    assert "Lower distance is better." in results.notes
    shown = difference_table(comparisons(rows, ["slimming"], score=DISTANCE), DISTANCE)
    assert shown.rows[0][4] == "+1.25"  # 0.75, 1 and 2
    assert (
        "Differences of test distance in mm, above 0 where the first is better (lower), paired"
        in (shown.notes[0])
    )
    for write in (as_text, as_latex):
        assert "accuracy" not in write(results) + write(shown)


def test_a_small_margin_shows_more_digits() -> None:
    fine = Score(name="error", better="lower", margin=0.0005)
    (row,) = result_table(table(rows_of("slimming", 0.12345), fine), fine).rows
    assert row[5] == "0.12345"
    coarse = Score(name="perplexity", better="lower", margin=20.0)
    assert result_table(table(rows_of("slimming", 1234.0), coarse), coarse).rows[0][5] == "1234"
    exact = Score(name="error", better="lower")
    assert result_table(table(rows_of("slimming", 0.12), exact), exact).rows[0][5] == "0.1200"


def test_guessing_is_named_by_the_score() -> None:
    rows = rows_of("slimming", 0.9, chance=0.8)
    assert result_table(table(rows, ERROR), ERROR).notes[-1] == (
        "Flags: chance level: an error that cannot be told from guessing."
    )
    assert "a distance that cannot" in result_table(table(rows, DISTANCE), DISTANCE).notes[-1]
