import math
from collections.abc import Mapping
from typing import Any

import pytest

from prunas.results.rows import TrainingRow
from prunas.statistics.retraining import budgeted, courses, crossings, retraining_table
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row

Given = Mapping[str, Mapping[int, list[float]]]


def rows(given: Given, **changes: Any) -> list[TrainingRow]:
    """Rows by family, budget and seed."""
    return [
        a_row(
            test_score=accuracy,
            seed=seed,
            id=f"{family}-{epochs}-{seed}",
            protocol=f"{family}:{epochs}",
            epochs=epochs,
            **changes,
        )
        for family, by_epochs in given.items()
        for epochs, accuracies in by_epochs.items()
        for seed, accuracy in enumerate(accuracies)
    ]


# Scratch is 10 points behind at 5 epochs, 2 behind at 20, 3 ahead at 80 with the first seed; one point better with
# the second. On a logarithmic axis it crosses two fifths, or one fifth, of the way from 20 to 80.
CROSSING: Given = {
    "finetune": {5: [80, 80], 20: [82, 82], 80: [83, 83]},
    "scratch-e": {5: [70, 71], 20: [80, 81], 80: [86, 87]},
}


def test_the_crossing_lies_where_straight_lines_meet() -> None:
    (found,) = crossings(courses(rows(CROSSING), score=ACCURACY))
    assert (found.family, found.epochs) == ("finetune", (5, 20, 80))
    assert [each.mean for each in found.differences] == [-9.5, -1.5, 3.5]
    assert found.at == pytest.approx(20 * 4**0.3)
    assert found.by_seed == (pytest.approx(20 * 4**0.4), pytest.approx(20 * 4**0.2))
    assert found.sentence == (
        "slimming at 10 %: training from scratch overtakes finetune at about 30.3 epochs "
        "(seed by seed: 26.4 to 34.8; 2 of 2 cross)."
    )
    assert found.to_json()["at"] == found.at


def test_the_last_crossing_counts() -> None:
    given: Given = {
        "finetune": {1: [50], 2: [50], 4: [50], 8: [50]},
        "scratch-e": {1: [49], 2: [51], 4: [49], 8: [51]},
    }
    (found,) = crossings(courses(rows(given), score=ACCURACY))
    assert found.at == pytest.approx(math.sqrt(32))


@pytest.mark.parametrize(
    ("scratch", "at", "words"),
    [
        ([60, 70], None, "stays behind finetune up to 20 epochs"),
        ([90, 95], 5.0, "is ahead of finetune from 5 epochs on, the smallest budget tried"),
        ([90, 70], None, "stays behind"),
    ],
)
def test_no_crossing_is_said_as_such(scratch: list[float], at: float | None, words: str) -> None:
    given: Given = {
        "finetune": {5: [80], 20: [82]},
        "scratch-e": {5: scratch[:1], 20: scratch[1:]},
    }
    (found,) = crossings(courses(rows(given), score=ACCURACY))
    assert found.at == at
    assert words in found.sentence


def test_rewound_weights_have_a_crossing_of_their_own() -> None:
    given = {**CROSSING, "finetune-rewound": {5: [90.0], 20: [90.0], 80: [90.0]}}
    tuned, rewound = crossings(courses(rows(given), score=ACCURACY))
    assert (tuned.family, rewound.family) == ("finetune", "finetune-rewound")
    assert rewound.at is None


def test_budgets_that_only_one_way_has_are_not_compared() -> None:
    given: Given = {"finetune": {5: [80], 20: [82]}, "scratch-e": {20: [80], 40: [90]}}
    assert crossings(courses(rows(given), score=ACCURACY)) == []
    (tuned, scratch) = courses(rows(given), score=ACCURACY)
    assert (tuned.epochs, scratch.epochs) == ((5, 20), (20, 40))


def test_a_single_budget_is_no_course_and_other_protocols_are_none() -> None:
    assert courses(rows({"finetune": {5: [80]}, "scratch-b": {5: [80], 10: [80]}}), score=ACCURACY) == []


def test_plain_protocols_are_points_of_a_course_too() -> None:
    """`scratch-e` of a recipe of 20 epochs is the same training as `scratch-e:20`."""
    given = rows({"finetune": {5: [80], 20: [82]}, "scratch-e": {5: [70]}})
    plain = a_row(test_score=90.0, id="plain", protocol="scratch-e", epochs=20)
    (found,) = crossings(courses([*given, plain, plain], score=ACCURACY))
    assert found.epochs == (5, 20)


def test_the_table_tells_every_way_and_the_crossing() -> None:
    table = retraining_table(courses(rows(CROSSING), score=ACCURACY))
    assert table.columns[3:5] == ("finetune", "scratch-e")
    assert table.rows[1][:5] == ("10 %", "slimming", "20", "82.00 ± 0.00", "80.50 ± 0.71")
    assert table.rows[1][5] == "-1.50"
    assert any("30.3 epochs" in note for note in table.notes)


def test_a_teacher_makes_a_way_of_its_own() -> None:
    with_teacher: Given = {
        "scratch-e+distill": {5: [71], 20: [81]},
        "finetune-large+distill": {5: [84], 20: [88]},
        "finetune-large": {5: [83], 20: [87]},
        "finetune+distill=2@0.5": {5: [81], 20: [82]},
        **CROSSING,
    }
    found = courses(rows(with_teacher), score=ACCURACY)
    table = retraining_table(found)
    families = (
        *("finetune", "finetune+distill=2@0.5", "finetune-large", "finetune-large+distill"),
        *("scratch-e", "scratch-e+distill"),
    )
    assert tuple(course.family for course in found) == families == table.columns[3:9]
    assert table.rows[1][3:9] == ("82.00 ± 0.00", "82.00", "87.00", "88.00", "80.50 ± 0.71", "81.00")
    against = {each.family for each in crossings(found)}
    assert against == set(families) - {"scratch-e"}


def test_retraining_budgets_are_told_by_their_number() -> None:
    told = ("finetune:5", "scratch-e:5", "finetune-large+distill:5", "scratch-e", "scratch-b:2", "dsd:0.5")
    assert [budgeted(name) for name in told] == [True, True, True, False, False, False]
    assert not budgeted("scratch=finetune-large:5")  # its epochs are those of each point
