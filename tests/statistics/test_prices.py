from dataclasses import replace

import pytest

from prunas.results.rows import SearchCost, Spent
from prunas.statistics.prices import prices
from prunas.statistics.summary import cost_table
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row, keeping


def costing(proposer: str, trainings: int) -> SearchCost:
    return SearchCost(proposer=proposer, seed=0, macs=1000 * trainings, seconds=2.0, trainings=trainings)


def test_the_price_stands_beside_the_mean_over_shared_targets() -> None:
    rows = [a_row("slimming", 90.0 + seed, seed, asked=keeping(0.5)) for seed in range(2)]
    rows += [a_row("slimming", 80.0 + seed, seed, asked=keeping(0.1)) for seed in range(2)]
    rows += [a_row("tpe", 88.0, asked=keeping(0.5)), a_row("tpe", 84.0, asked=keeping(0.1))]
    rows += [a_row("tpe", 10.0, asked=keeping(0.01)), a_row("tpe", 99.0, seed=1, asked=keeping(0.5))]
    found = prices(rows, [costing("slimming", 1), costing("tpe", 30)], score=ACCURACY)
    # tpe's second seed lacks a target, and 1 % is tpe's alone.
    assert [(p.proposer, p.score.mean, p.score.n, p.cost.trainings) for p in found] == [
        ("tpe", 86, 1, 30),
        ("slimming", pytest.approx(85.5), 2, 1),
    ]
    assert [target.keep for target in found[0].targets] == [0.5, 0.1]


def test_what_rests_on_shapes_of_unknown_cost_has_no_price() -> None:
    rows = [a_row("slimming", asked=keeping(0.5)), a_row("transferred", asked=keeping(0.5))]
    shipped = replace(costing("transferred", 0), rests_on=(), complete=False)
    assert [price.proposer for price in prices(rows, [costing("slimming", 1), shipped], score=ACCURACY)] == [
        "slimming"
    ]


def test_two_records_of_one_search_share_its_training() -> None:
    dense = Spent(id="dense", macs=1000, seconds=2.0)
    records = [
        replace(costing("slimming", 1), rests_on=(dense,), targets=(keeping(keep),), seeds=(0,))
        for keep in (0.5, 0.1)
    ]
    (line,) = cost_table(records)
    assert (line.n, line.trainings, line.macs, line.seconds, line.targets) == (1, 1, 1000, 2.0, 2)


def test_without_a_shared_target_or_a_known_cost_there_is_no_price() -> None:
    apart = [a_row("slimming", asked=keeping(0.5)), a_row("tpe", asked=keeping(0.1))]
    assert prices(apart, [costing("slimming", 1), costing("tpe", 30)], score=ACCURACY) == []
    assert prices(apart, [], score=ACCURACY) == []
