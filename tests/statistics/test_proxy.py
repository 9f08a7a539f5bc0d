"""How far cheap scores may be trusted: planted ranks, a published interval, regret by hand."""

import itertools
import math
import random
from pathlib import Path

import pytest

from prunas.costs.counted import Cost
from prunas.costs.target import Target
from prunas.report.proxy import proxy_figure
from prunas.results.rows import TrialRow
from prunas.statistics.proxy import proxies, proxy_table, tau_interval
from prunas.statistics.text import as_text
from prunas.tasks.score import ACCURACY, Score

HALF = Target("params", 500, 0.5)


def trial(name: str, point: int, value: float | None, evaluator: str = "", **changes) -> TrialRow:
    cost = Cost(params=500, macs=500, dense_params=500, dense_macs=500)
    usual = {
        "id": f"{name}-{point}-{evaluator}", "proposer": name, "asked": HALF, "search_seed": 0,
        "architecture": f"point-{point}", "reached": cost, "epochs": 1, "train_macs": 1, "fraction": 1.0,
        "val_score": value, "duplicate": False, "folder": "", "evaluator": evaluator,
    }  # fmt: skip
    return TrialRow(**usual | changes)


def both(cheap: list[float], trained: list[float]) -> list[TrialRow]:
    return [trial("random", i, value, "inherited") for i, value in enumerate(cheap)] + [
        trial("random", i, value) for i, value in enumerate(trained)
    ]


def test_tau_is_the_share_of_pairs_in_order_less_those_out_of_order() -> None:
    chance = random.Random(0)
    cheap, trained = ([chance.uniform(0, 100) for _ in range(12)] for _ in range(2))
    (found,) = proxies(both(cheap, trained), ACCURACY)
    signs = [
        math.copysign(1, (cheap[i] - cheap[j]) * (trained[i] - trained[j]))
        for i, j in itertools.combinations(range(12), 2)
    ]
    assert found.tau == pytest.approx(sum(signs) / len(signs))
    assert found.low is not None and found.high is not None
    assert found.low < found.tau < found.high


def test_what_ranks_alike_has_no_regret_and_what_ranks_the_other_way_has_it_all() -> None:
    trained = [float(v) for v in range(50, 62)]
    (same,) = proxies(both([v - 40 for v in trained], trained), ACCURACY)
    (reverse,) = proxies(both([-v + 100 for v in trained], trained), ACCURACY)
    assert (same.tau, same.regret) == (1, 0)
    assert (reverse.tau, reverse.regret) == (-1, 11)
    assert same.low is None  # the transform of 1 is infinite


def test_candidates_that_are_liked_alike_count_by_their_mean() -> None:
    (found,) = proxies(both([10.0, 10.0, 5.0], [80.0, 70.0, 90.0]), ACCURACY)
    assert found.regret == pytest.approx(90 - 75)
    (constant,) = proxies(both([10.0, 10.0, 10.0], [80.0, 70.0, 90.0]), ACCURACY)
    assert constant.tau is None


def test_of_errors_the_lowest_is_best() -> None:
    error = Score(name="error", better="lower", low=0.0, high=1.0, margin=0.01)
    (found,) = proxies(both([0.1, 0.2, 0.3], [0.3, 0.2, 0.5]), error)
    assert found.tau == pytest.approx(1 / 3)
    assert found.regret == pytest.approx(0.1)


def test_the_interval_is_that_of_fieller() -> None:
    """tanh(atanh(0.5) -+ 1.959964 sqrt(0.437 / 26)), n = 30."""
    ends = tau_interval(0.5, 30)
    assert ends == pytest.approx((0.28692, 0.66594), abs=1e-5)
    assert tau_interval(0.5, 9) is None


def test_only_whole_trainings_and_shared_candidates_are_compared() -> None:
    rows = [
        *both([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]),
        trial("random", 3, 4.0, "inherited"),  # never trained
        trial("random", 4, 5.0), trial("tpe", 0, 90.0, fraction=0.1), trial("tpe", 1, None),
        trial("random", 0, 1.0, "adaptive-bn"),
    ]  # fmt: skip
    (found,) = proxies(rows, ACCURACY)
    assert (found.evaluator, found.cheap, found.trained) == ("inherited", (1.0, 2.0, 3.0), (10.0, 20.0, 30.0))


def test_figure_and_table_say_it(tmp_path: Path) -> None:
    chance = random.Random(1)
    trained = [chance.uniform(60, 70) for _ in range(12)]
    found = proxies(both([v / 2 + chance.uniform(0, 3) for v in trained], trained), ACCURACY)
    text = as_text(proxy_table(found, ACCURACY))
    assert "inherited" in text
    assert f"{found[0].tau:.2f}" in text
    figure = proxy_figure(found, setting="a space", score=ACCURACY)
    assert len(figure.axes) == 1
    assert f"{found[0].tau:.2f}" in figure.axes[0].get_title(loc="left")
