import dataclasses
import json
import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunas.results.rows import SearchCost
from prunas.statistics.summary import comparisons, cost_table, differences, summarise, table
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row, costing, keeping, masked

# Student, The probable error of a mean, Biometrika 1908: hours of sleep gained under two drugs. The interval
# is that of R's t.test(paired = TRUE) on its data set `sleep`.
FIRST = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
SECOND = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)


def test_standard_deviation_divides_by_n_minus_one() -> None:
    # Squared deviations from 5 sum to 32.
    found = summarise([2, 4, 4, 4, 5, 5, 7, 9])
    assert found.mean == 5
    assert found.std == pytest.approx(math.sqrt(32 / 7))
    assert found.n == 8


# Two-sided 95 % points of Student's t, from any printed table.
@pytest.mark.parametrize(("n", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
def test_interval_uses_students_quantiles(n: int, quantile: float) -> None:
    found = summarise([float(value) for value in range(n)])
    assert found.std is not None and found.low is not None and found.high is not None
    assert (found.high - found.mean) * math.sqrt(n) / found.std == pytest.approx(quantile, abs=6e-4)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_one_value_has_no_spread() -> None:
    found = summarise([93.5])
    assert (found.mean, found.std, found.n, found.low, found.high) == (93.5, None, 1, None, None)


def test_equal_values_have_a_spread_of_exactly_zero_and_no_interval() -> None:
    found = summarise([0.1] * 7)
    assert (found.std, found.low, found.high) == (0, None, None)


@given(
    values=st.lists(st.floats(0, 100), min_size=2, max_size=20),
    shift=st.floats(-50, 50),
    factor=st.floats(0.1, 10),
)
def test_a_summary_moves_and_scales_with_its_sample(values: list[float], shift: float, factor: float) -> None:
    assume(max(values) - min(values) > 1e-6)  # equal values have no interval
    before, after = summarise(values), summarise([shift + factor * value for value in values])
    assert before.std is not None and after.std is not None and before.low is not None
    assert after.mean == pytest.approx(shift + factor * before.mean, abs=1e-6)
    assert after.std == pytest.approx(factor * before.std, abs=1e-6)
    assert after.low == pytest.approx(shift + factor * before.low, abs=1e-5)


def test_a_line_holds_every_point_and_the_means() -> None:
    rows = [
        a_row(test_score=accuracy, seed=seed, reached=costing(params, 2 * params), train_macs=macs)
        for accuracy, seed, params, macs in ((93.0, 2, 12, 30), (91.0, 0, 10, 10), (92.0, 1, 11, 20))
    ]
    (line,) = table(rows, score=ACCURACY)
    assert line.points == (91.0, 92.0, 93.0)
    assert (line.params, line.macs, line.train_macs, line.left_out) == (11, 22, 20, 0)
    assert line.score == summarise([91.0, 92.0, 93.0])


def test_rows_without_test_accuracy_are_counted_and_left_out() -> None:
    rows = [
        a_row(test_score=90.0, seed=0),
        a_row(test_score=None, seed=1, reached=costing(1, 1)),
        a_row(test_score=10.0, seed=2, status="failed", reached=costing(1, 1)),
    ]
    (line,) = table(rows, score=ACCURACY)
    assert (line.points, line.left_out, line.params) == ((90.0,), 2, 99_500)


def test_a_target_where_nothing_is_tested_stays_visible() -> None:
    (line,) = table([a_row(test_score=None)], score=ACCURACY)
    assert (line.score, line.points, line.left_out) == (None, (), 1)
    assert line.to_json()["n"] == 0
    assert line.to_json()["mean"] is None


def test_protocols_targets_and_masked_networks_are_never_averaged_together() -> None:
    rows = [
        a_row("uniform"),
        a_row("uniform", protocol="scratch-b"),
        a_row("uniform", reached=masked(99_500, 4_000_000)),
        a_row("uniform", asked=keeping(0.5)),
    ]
    assert len(table(rows, score=ACCURACY)) == 4


def test_lines_go_from_the_largest_target_and_end_with_the_controls() -> None:
    rows = [
        a_row(proposer, asked=keeping(keep)) for proposer in ("uniform", "slimming") for keep in (0.1, 0.5)
    ]
    expected = [("slimming", 0.5), ("uniform", 0.5), ("slimming", 0.1), ("uniform", 0.1)]
    assert [(line.proposer, line.asked.keep) for line in table(rows, score=ACCURACY)] == expected


def test_the_table_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = [
        a_row(proposer, test_score=50.0 + 7 * seed + len(proposer), seed=seed, asked=keeping(keep))
        for proposer in ("uniform", "slimming", "taper")
        for keep in (0.1, 0.5)
        for seed in range(3)
    ]
    mixed = random.Random(0).sample(rows, len(rows))
    assert mixed != rows
    assert table(mixed, score=ACCURACY) == table(rows, score=ACCURACY)


def test_the_record_of_a_line_is_flat_json() -> None:
    (line,) = table([a_row(test_score=90.0, seed=0), a_row(test_score=92.0, seed=1)], score=ACCURACY)
    record = json.loads(json.dumps(line.to_json()))
    assert {key: record[key] for key in ("proposer", "params", "macs", "mean", "n", "points")} == {
        "proposer": "slimming",
        "params": 99_500,
        "macs": 4_000_000,
        "mean": 91.0,
        "n": 2,
        "points": [90.0, 92.0],
    }
    assert record["std"] == pytest.approx(math.sqrt(2))
    assert record["asked"] == {"metric": "params", "value": 100_000, "keep": 0.1}


def test_paired_differences_give_students_interval() -> None:
    rows = [a_row("taper", test_score=50 + value, seed=seed) for seed, value in enumerate(FIRST)]
    rows += [a_row("slimming", test_score=50 + value, seed=seed) for seed, value in enumerate(SECOND)]
    (found,) = differences(reversed(rows), "slimming", score=ACCURACY)
    assert found.seeds == tuple(range(10))
    assert found.values == pytest.approx((1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4))
    assert found.summary.mean == pytest.approx(1.58)
    assert (found.summary.low, found.summary.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)


def test_pairs_share_seed_target_and_protocol() -> None:
    rows = [
        a_row("slimming", test_score=80.0, seed=0),
        a_row("slimming", test_score=81.0, seed=1),
        a_row("slimming", test_score=99.0, seed=2),
        a_row("slimming", test_score=99.0, seed=0, protocol="scratch-b"),
        a_row("slimming", test_score=99.0, seed=0, asked=keeping(0.5)),
        a_row("uniform", test_score=70.0, seed=0),
        a_row("uniform", test_score=70.5, seed=1),
        a_row("uniform", test_score=70.0, seed=2, status="failed"),
    ]
    (found,) = differences(rows, "slimming", "uniform", score=ACCURACY)
    assert (found.seeds, found.values) == ((0, 1), (10.0, 10.5))
    assert found.against == "uniform"
    assert differences(rows, "slimming", "taper", score=ACCURACY) == []
    assert json.loads(json.dumps(found.to_json()))["mean"] == 10.25


def test_several_draws_of_one_seed_are_one_side_of_a_pair() -> None:
    rows = [a_row("slimming", test_score=80.0)]
    rows += [a_row("shuffled", test_score=accuracy, id=str(accuracy)) for accuracy in (70.0, 72.0, 77.0)]
    (found,) = differences(rows, "slimming", "shuffled", score=ACCURACY)
    assert (found.values, found.summary.n) == ((7.0,), 1)


def test_search_costs_are_means_over_seeds() -> None:
    costs = [SearchCost(proposer="uniform", seed=0, macs=0, seconds=0, trainings=0)]
    costs += [
        SearchCost(proposer="tpe", seed=seed, macs=100 + seed, seconds=10.0 * seed, trainings=30)
        for seed in range(3)
    ]
    found = [(line.proposer, line.n, line.trainings, line.macs, line.seconds) for line in cost_table(costs)]
    assert found == [("tpe", 3, 30, 101, 10), ("uniform", 1, 0, 0, 0)]


def test_the_line_of_an_accuracy_stays_within_its_range() -> None:
    (line,) = table([a_row(test_score=15.5886, seed=0), a_row(test_score=32.0714, seed=1)], score=ACCURACY)
    assert line.score is not None
    assert (line.score.low, line.score.high) == (0.0, 100.0)  # by t alone [-80.88, 128.54]
    (found,) = differences(
        [a_row(name, test_score=at, seed=s) for s, at in ((0, 0.0), (1, 90.0)) for name in ("slimming",)]
        + [a_row("taper", test_score=0.0, seed=s) for s in (0, 1)],
        "slimming",
        score=ACCURACY,
    )
    assert (found.summary.low, found.summary.high) == (-100.0, 100.0)


def test_a_line_counts_the_flags_of_its_runs() -> None:
    rows = [
        a_row(test_score=10.4, seed=0, flags=("floor", "target_missed"), chance=10.5),
        a_row(test_score=10.6, seed=1, flags=("target_missed",), chance=10.5),
        a_row(test_score=None, seed=2, flags=("penalty_not_acted",), chance=10.5),
        a_row(test_score=10.5, seed=3, flags=("of_a_plug_in",), chance=10.5),
    ]
    (line,) = table(rows, score=ACCURACY)
    assert line.flags == {"target_missed": 2, "floor": 1, "chance_level": 2, "of_a_plug_in": 1}
    assert line.to_json()["flags"] == line.flags
    (line,) = table([a_row(test_score=3.0)], score=ACCURACY)  # nobody knows what guessing reaches
    assert line.flags == {}


def test_p_values_are_corrected_over_all_rows_that_stand_together() -> None:
    # t = 2 and 20 with one degree of freedom, where Student's t is Cauchy's: p = 1 - 2 atan(t) / pi.
    small, large = (1 - 2 * math.atan(t) / math.pi for t in (20, 2))
    rows = [a_row("taper", test_score=50.0, seed=seed) for seed in (0, 1)]
    rows += [a_row("slimming", test_score=50.0 + value, seed=seed) for seed, value in enumerate((19.0, 21.0))]
    rows += [a_row("l1", test_score=50.0 + value, seed=seed) for seed, value in enumerate((1.0, 3.0))]
    first, second = comparisons(rows, ["slimming", "l1"], score=ACCURACY)
    assert (first.proposer, second.proposer) == ("slimming", "l1")
    assert (first.p_holm, second.p_holm) == pytest.approx((2 * small, large))
    # Another control is in the same family, and so is another protocol.
    more = [dataclasses.replace(row, proposer="uniform") for row in rows if row.proposer == "taper"]
    rows += more + [dataclasses.replace(row, protocol="scratch-b") for row in rows + more]
    found = comparisons(rows, ["slimming", "l1"], ["taper", "uniform"], score=ACCURACY)
    assert len(found) == 8
    assert [each.p_holm for each in found if each.proposer == "slimming"] == pytest.approx([8 * small] * 4)
    (alone,) = differences(rows[:6], "slimming", score=ACCURACY)
    assert alone.p_holm == pytest.approx(small)


def test_of_several_tapers_the_one_that_answers_the_point_is_its_partner() -> None:
    rows = [
        a_row("slimming", test_score=90.0, reached=costing(1000, 5000)),
        a_row("l1", test_score=90.0, reached=costing(1000, 9000)),
        a_row("taper", test_score=80.0, reached=costing(1000, 5000), id="a"),
        a_row("taper", test_score=70.0, reached=costing(990, 9216), id="b"),
    ]
    first, second = comparisons(rows, ["slimming", "l1"], score=ACCURACY)
    assert (first.values, second.values) == ((10.0,), (20.0,))
    assert (first.params_off, first.macs_off) == (0, 0)
    assert (second.params_off, second.macs_off) == pytest.approx((-0.01, 0.024))
