import pytest

from prunas.results.rows import TrainingRow
from prunas.statistics.ranking import mean_difference, rankings, saturated
from prunas.statistics.summary import differences
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row, keeping


def rows(accuracies: dict[str, float], keep: float, seed: int = 0) -> list[TrainingRow]:
    return [a_row(name, accuracy, seed, asked=keeping(keep)) for name, accuracy in accuracies.items()]


@pytest.mark.parametrize(
    ("means", "dense", "easy"),
    [
        ([93.0, 93.15], None, True),
        ([92.7, 93.0], None, False),
        ([92.9, 93.4], 93.0, True),
        ([92.9, 93.0], 93.2, False),
    ],
)
def test_a_target_is_saturated_when_even_the_worst_is_as_good_as_dense(
    means: list[float], dense: float | None, easy: bool
) -> None:
    assert saturated(means, dense, score=ACCURACY) is easy


def test_ranks_are_means_over_the_targets_that_tell_proposers_apart() -> None:
    given = rows({"slimming": 93.05, "taper": 93.0, "uniform": 93.1}, 0.5)
    given += rows({"slimming": 92.0, "taper": 92.0, "uniform": 90.0}, 0.1)
    given += rows({"slimming": 85.0, "taper": 84.0, "uniform": 80.0}, 0.05)
    (found,) = rankings(given, dense=93.2, score=ACCURACY)
    # At 10 % the first two share places 1 and 2; at 5 % they differ.
    assert found.ranks == (("slimming", 1.25), ("taper", 1.75), ("uniform", 3.0))
    assert [target.keep for target in found.targets] == [0.1, 0.05]
    assert [target.keep for target in found.left_out] == [0.5]


def test_only_targets_that_all_were_tested_at_are_ranked() -> None:
    given = rows({"slimming": 92.0, "taper": 90.0}, 0.1) + rows({"slimming": 50.0}, 0.05)
    (found,) = rankings([*given, *rows({"slimming": 10.0, "taper": 20.0}, 0.01)], score=ACCURACY)
    assert found.ranks == (("slimming", 1.5), ("taper", 1.5))
    assert [target.keep for target in found.targets] == [0.1, 0.01]


def test_one_number_over_targets_keeps_one_value_per_seed() -> None:
    given = []
    for seed, gain in enumerate((1.0, 2.0, 6.0)):
        given += rows({"slimming": 80 + gain, "taper": 80.0}, 0.1, seed)
        given += rows({"slimming": 70 + 3 * gain, "taper": 70.0}, 0.05, seed)
    given += rows({"slimming": 99.0, "taper": 0.0}, 0.05, 3)  # a seed without the other target
    found = mean_difference(differences(given, "slimming", score=ACCURACY), score=ACCURACY)
    assert found is not None
    summary, targets = found
    # Means per seed 2, 4, 12.
    assert (summary.mean, summary.n, targets) == (pytest.approx(6), 3, 2)
    assert summary.std == pytest.approx(28**0.5)
    assert mean_difference([], score=ACCURACY) is None


def test_differences_carry_p_values_corrected_over_their_targets() -> None:
    given = []
    for keep, values in ((0.5, (-1.0, 3.0)), (0.1, (4.0, 6.0)), (0.05, (1.0, 1.0))):
        for seed, value in enumerate(values):
            given += rows({"slimming": 80 + value, "taper": 80.0}, keep, seed)
    by_keep = {each.asked.keep: each for each in differences(given, "slimming", score=ACCURACY)}
    # Student's t with one degree of freedom: t = 0.5 and t = 5; the third pair has no spread.
    assert by_keep[0.5].p == pytest.approx(0.704833, abs=1e-6)
    assert by_keep[0.1].p == pytest.approx(0.125666, abs=1e-6)
    assert by_keep[0.1].p_holm == pytest.approx(3 * 0.125666, abs=1e-5)
    assert by_keep[0.5].p_holm == 1
    assert (by_keep[0.05].p, by_keep[0.05].p_holm) == (None, None)
