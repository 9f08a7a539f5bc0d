import dataclasses

import pytest

from prunas.statistics.curves import Curve, Point, curves, dense_score, undrawn
from prunas.statistics.summary import summarise
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row, costing, keeping, masked


def one_curve() -> Curve:
    rows = [
        a_row(
            test_score=90.0 + 10 * keep + seed,
            seed=seed,
            asked=keeping(keep),
            reached=costing(round(1_000_000 * keep) - seed, 7_000 + seed),
            flags=("penalty_not_acted",) if (keep, seed) == (0.1, 1) else ("floor",),
        )
        for keep in (0.5, 0.1)
        for seed in (1, 0)
    ]
    (curve,) = curves(rows, score=ACCURACY)
    return curve


def test_a_curve_runs_from_small_to_large_through_the_means() -> None:
    curve = one_curve()
    assert [asked.keep for asked in curve.asked] == [0.1, 0.5]
    assert curve.xs == (99_999.5, 499_999.5)
    assert [summary.mean for summary in curve.scores] == [91.5, 95.5]
    assert [[point.seed for point in points] for points in curve.points] == [[0, 1], [0, 1]]
    assert [[point.hollow for point in points] for points in curve.points] == [[False, True], [False, False]]


def test_the_cost_axis_can_be_macs() -> None:
    (curve,) = curves([a_row(reached=costing(5, 70))], ACCURACY, "macs")
    assert (curve.metric, curve.xs) == ("macs", (70,))


def test_proposers_protocols_and_masked_networks_have_curves_of_their_own() -> None:
    rows = [
        a_row(),
        a_row("uniform"),
        a_row("uniform", protocol="scratch-b"),
        a_row("uniform", reached=masked(10, 100)),
        a_row("taper", None),
        a_row("dense", kind="dense"),
    ]
    assert [(curve.proposer, curve.protocol, curve.masked) for curve in curves(rows, score=ACCURACY)] == [
        ("uniform", "scratch-b", False),
        ("slimming", "scratch-e", False),
        ("uniform", "scratch-e", False),
        ("uniform", "scratch-e", True),
    ]


def test_two_targets_may_lead_to_one_network() -> None:
    rows = [a_row(asked=keeping(keep), reached=costing(500, 500)) for keep in (0.1, 0.2)]
    (curve,) = curves(rows, score=ACCURACY)
    assert curve.xs == (500, 500)
    assert [asked.keep for asked in curve.asked] == [0.1, 0.2]


def test_the_dense_score_is_that_of_dense_rows_only() -> None:
    rows = [a_row("dense", accuracy, seed, kind="dense") for seed, accuracy in enumerate((98.0, 99.0))]
    control = a_row("dense", 90.0, 0, kind="dense", protocol="dsd")
    found = dense_score(
        [*rows, control, a_row(test_score=10.0), a_row("dense", None, 2, kind="dense")], score=ACCURACY
    )
    assert found is not None
    assert (found.mean, found.n) == (98.5, 2)
    assert dense_score([a_row()], score=ACCURACY) is None


@pytest.mark.parametrize("changes", [{"x": 0.0}, {"x": float("inf")}, {"score": float("nan")}])
def test_a_point_that_cannot_be_drawn_is_refused(changes: dict[str, float]) -> None:
    point = Point(x=1.0, score=50.0, seed=0, run="r")
    with pytest.raises(ValueError, match="run r"):
        dataclasses.replace(point, **changes)


@pytest.mark.parametrize("value", [100.5, -1.0])
def test_a_score_out_of_range_is_not_drawn(value: float) -> None:
    with pytest.raises(ValueError, match=r"run slimming-0: .* is no accuracy, from 0.0 to 100.0"):
        curves([a_row(test_score=value)], ACCURACY)


def test_a_curve_whose_parts_disagree_is_refused() -> None:
    curve = one_curve()
    with pytest.raises(ValueError, match="not descend"):
        dataclasses.replace(curve, xs=curve.xs[::-1])
    with pytest.raises(ValueError, match="not that of its points"):
        dataclasses.replace(curve, scores=(summarise([50.0, 51.0]), curve.scores[1]))
    with pytest.raises(ValueError, match="not that of its points"):
        dataclasses.replace(curve, xs=(1.0, curve.xs[1]))
    with pytest.raises(ValueError, match="not that of its points"):
        dataclasses.replace(curve, points=(curve.points[0][:1], curve.points[1]))
    with pytest.raises(ValueError, match="one entry per target"):
        dataclasses.replace(curve, asked=curve.asked[:1])
    with pytest.raises(ValueError, match="one entry per target"):
        dataclasses.replace(curve, asked=(), xs=(), scores=(), points=())


def test_a_single_length_is_drawn_and_a_course_of_lengths_is_left_out_with_a_word() -> None:
    rows = [a_row(name, protocol="scratch-e:2", epochs=2) for name in ("slimming", "uniform")]
    rows += [a_row(protocol="finetune", epochs=1)]
    assert [(curve.protocol, curve.proposer) for curve in curves(rows, score=ACCURACY)] == [
        ("finetune", "slimming"),
        ("scratch-e:2", "slimming"),
        ("scratch-e:2", "uniform"),
    ]
    assert undrawn(rows, score=ACCURACY) == ("uniform by finetune (no runs)",)
    rows += [a_row(protocol="scratch-e:8", epochs=8), a_row(test_score=None, protocol="finetune", epochs=1)]
    assert [curve.protocol for curve in curves(rows, score=ACCURACY)] == ["finetune"]
    assert undrawn(rows, score=ACCURACY) == (
        "scratch-e:2, scratch-e:8 (retraining budgets: see `prunas plot budget`)",
        "1 run without a test accuracy",
    )


def test_points_are_hollow_for_every_flag_but_a_floor() -> None:
    flags = ("floor", "target_missed", "macs_not_matched", "penalty_not_acted", "of_a_plug_in")
    rows = [a_row(seed=seed, flags=(flag,)) for seed, flag in enumerate(flags)]
    rows += [a_row(seed=5), a_row(seed=6, test_score=10.0, chance=10.5)]
    ((points,),) = (curve.points for curve in curves(rows, score=ACCURACY))
    assert [point.hollow for point in points] == [False, True, True, True, True, False, True]
    assert points[-1].flags == ("chance_level",)
