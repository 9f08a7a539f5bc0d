import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.costs.target import Target
from prunas.results.rows import SearchCost, Spent, TrainingRow
from prunas.statistics.summary import cost_table, differences, table
from prunas.statistics.text import (
    Table,
    as_csv,
    as_latex,
    as_markdown,
    as_text,
    asked_text,
    cost_text,
    count,
    duration,
    result_table,
)
from prunas.statistics.text import difference_table as difference_text
from prunas.statistics.wording import with_article
from prunas.tasks.score import ACCURACY, Score
from tests.statistics.result_rows import a_row, costing, keeping


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (940, "940"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (25_149, "25.1k"),
        (999_940, "999.9k"),
        (999_960, "1.00M"),
        (1_234_567, "1.23M"),
        (9_996_000, "10.0M"),
        (14_987_722, "15.0M"),
        (313_201_664, "313.2M"),
        (7_500_000_000_000_000, "7.50P"),
        (2e22, "20000.0E"),
    ],
)
def test_counts_have_a_unit(value: float, text: str) -> None:
    assert count(value) == text


@given(st.floats(1, 1e20))
def test_counts_are_right_to_half_a_percent_and_short(value: float) -> None:
    text = count(value)
    power = " kMGTPE".find(text[-1])
    read = float(text if power < 1 else text[:-1]) * 1000 ** max(power, 0)
    assert math.isclose(read, value, rel_tol=0.006, abs_tol=0.51)
    assert len(text) <= 6


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Target(metric="params", value=100, keep=0.1), "10 %"),
        (Target(metric="params", value=100, keep=0.125), "12.5 %"),
        (Target(metric="params", value=1_200_000, keep=None), "1.2M"),
        (Target(metric="macs", value=313_000_000, keep=None), "313M MACs"),
        (Target(metric="channels", value=100, keep=0.3), "30 % channels"),
    ],
)
def test_targets_read_as_they_are_typed(target: Target, text: str) -> None:
    assert asked_text(target) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.99, "1 min 00 s"), (185, "3 min 05 s"), (7_800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def some_rows() -> list[TrainingRow]:
    return [
        a_row(proposer, accuracy, seed, asked=keeping(keep), reached=costing(1_234_567, 313_201_664))
        for keep in (0.5, 0.1)
        for proposer in ("slimming", "uniform")
        for seed, accuracy in enumerate((91.0, 92.0, 93.0))
    ]


def test_the_printed_table() -> None:
    # Mean 92, std 1, half width 4.3027 / sqrt(3) = 2.484.
    assert as_text(result_table(table(some_rows(), score=ACCURACY), score=ACCURACY)) == (
        "asked  proposer  kind       params    MACs  test %   std  n  95 % interval   train MACs\n"
        "-----  --------  ---------  ------  ------  ------  ----  -  --------------  ----------\n"
        "50 %   slimming  automatic   1.23M  313.2M   92.00  1.00  3  [89.52, 94.48]       3.00G\n"
        "       uniform   control     1.23M  313.2M   92.00  1.00  3  [89.52, 94.48]       3.00G\n"
        "10 %   slimming  automatic   1.23M  313.2M   92.00  1.00  3  [89.52, 94.48]       3.00G\n"
        "       uniform   control     1.23M  313.2M   92.00  1.00  3  [89.52, 94.48]       3.00G\n"
        "Trained by scratch-e.\n"
    )


def test_one_run_shows_no_spread_and_none_shows_no_mean() -> None:
    shown = result_table(
        table([a_row(), a_row("uniform", None), a_row("taper", 80.0, status="failed")], score=ACCURACY),
        score=ACCURACY,
    )
    cells = [row[5:9] for row in shown.rows]
    assert cells == [("90.00", "-", "1", "-"), ("-", "-", "0", "-"), ("-", "-", "0", "-")]
    assert shown.notes[1] == "2 runs are left out: not finished, or not tested."


def test_several_protocols_get_a_column() -> None:
    rows = [a_row(), a_row(protocol="scratch-b")]
    shown = result_table(table(rows, score=ACCURACY), score=ACCURACY)
    assert [row[3] for row in shown.rows] == ["scratch-b", "scratch-e"]
    assert shown.columns[3] == "protocol"
    assert shown.notes == ()


def test_the_widest_table_of_one_protocol_fits_a_terminal() -> None:
    rows = [
        a_row("transferred", accuracy, seed, kind="predefined", asked=keeping(0.125), train_macs=10**15)
        for seed, accuracy in enumerate((2.0, 52.0, 99.0))
    ]
    assert (
        max(map(len, as_text(result_table(table(rows, score=ACCURACY), score=ACCURACY)).splitlines())) <= 100
    )


def test_markdown_and_latex_hold_every_cell_escaped() -> None:
    odd = Table(columns=("asked", "n"), align="lr", rows=(("10 %", "3"), ("a|b_c", "4")), notes=("Note.",))
    assert as_markdown(odd) == "| asked | n |\n| :-- | --: |\n| 10 % | 3 |\n| a\\|b_c | 4 |\n\nNote.\n"
    assert as_latex(odd) == (
        "\\begin{tabular}{lr}\n\\toprule\nasked & n \\\\\n\\midrule\n10 \\% & 3 \\\\\na|b\\_c & 4 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n% Note.\n"
    )


def test_csv_is_exact_and_flat() -> None:
    lines = table(
        [a_row(test_score=accuracy, seed=seed) for seed, accuracy in enumerate((90.1, 90.2, 91.7))],
        score=ACCURACY,
    )
    (record,) = csv.DictReader(io.StringIO(as_csv([line.to_json() for line in lines])))
    assert lines[0].score is not None
    assert float(record["mean"]) == lines[0].score.mean
    assert record["asked.keep"] == "0.1"
    assert record["points"] == "90.1 90.2 91.7"
    assert as_csv([]) == ""


def test_differences_carry_their_sign() -> None:
    rows = [a_row("slimming", 90.0 + seed, seed) for seed in range(2)]
    rows += [a_row("taper", 89.5, seed) for seed in range(2)]
    (row,) = difference_text(differences(rows, "slimming", score=ACCURACY), score=ACCURACY).rows
    # Differences 0.5 and 1.5: mean 1, std sqrt(0.5), half width 12.706 * 0.5; t = 2 with one degree of freedom,
    # where Student's t is Cauchy's: p = 1 - 2 atan(2) / pi.
    assert row == ("10 %", "slimming", "taper", "scratch-e", "+1.00", "0.71", "2", "[-5.35, +7.35]", "0.295")


def test_differences_of_ten_seeds_are_bootstrapped_as_well() -> None:
    rows = [a_row("slimming", 90.0 + 0.5 * seed, seed) for seed in range(10)]
    rows += [a_row("taper", 90.0 + 0.25 * seed, seed) for seed in range(10)]
    shown = difference_text(differences(rows, "slimming", score=ACCURACY), score=ACCURACY)
    assert shown.columns[7:] == ("95 % interval", "95 % bootstrap", "p")
    low, high = map(float, shown.rows[0][8].strip("[]").split(", "))
    # 0.25 times the mean of 0 to 9; the standard deviation of a resample's mean is 0.25 sqrt(8.25 / 10).
    assert (low, high) == pytest.approx((1.125 - 1.96 * 0.2271, 1.125 + 1.96 * 0.2271), abs=0.04)


def test_search_costs_in_words() -> None:
    costs = [SearchCost(proposer="tpe", seed=seed, macs=10**15, seconds=185, trainings=30) for seed in (0, 1)]
    # An older record does not say what the price is spread over.
    assert cost_text(cost_table(costs)).rows == (("tpe", "2", "30", "1.00P", "3 min 05 s", "-", "-", "-"),)


def test_a_price_says_what_it_is_spread_over_and_when_nobody_knows_it() -> None:
    trainings = [Spent(id=f"dense-{seed}", macs=10**12, seconds=60.0) for seed in range(3)]

    def guided(seed: int, complete: bool) -> SearchCost:
        others = tuple(trainings[other] for other in range(3) if other != seed)
        return SearchCost(
            proposer="guided",
            seed=seed,
            macs=2 * 10**12,
            seconds=120.0,
            trainings=2,
            rests_on=others,
            targets=(keeping(0.5), keeping(0.1)),
            seeds=tuple(other for other in range(3) if other != seed),
            complete=complete,
        )

    known, unknown = (
        cost_text(cost_table(guided(seed, told) for seed in range(3))) for told in (True, False)
    )
    assert known.rows == (("guided", "3", "2", "2.00T", "2 min 00 s", "2", "2", "3"),)
    assert unknown.rows == (("guided", "3", "unknown", "unknown", "unknown", "2", "2", "3"),)
    assert "nobody priced" in unknown.notes[-1]


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="2 columns"):
        Table(columns=("a", "b"), align="ll", rows=(("1",),))


def test_flags_have_a_column_and_a_meaning() -> None:
    rows = [a_row(seed=seed, flags=("target_missed",) if seed else ()) for seed in (0, 1)]
    rows += [a_row("taper", seed=seed, test_score=10.0 + seed, chance=12.0) for seed in (0, 1)]
    shown = result_table(table([*rows, a_row("uniform")], score=ACCURACY), score=ACCURACY)
    assert shown.columns[-1] == "flags"
    assert [row[-1] for row in shown.rows] == ["target missed 1 of 2", "chance level", ""]
    assert shown.notes[-1] == (
        "Flags: target missed: more than 1 % off the target that was asked for; "
        "chance level: an accuracy that cannot be told from guessing."
    )
    records = csv.DictReader(io.StringIO(as_csv([line.to_json() for line in table(rows, score=ACCURACY)])))
    assert [(row["flags.target_missed"], row["flags.chance_level"]) for row in records] == [
        ("1", ""),
        ("", "2"),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [("accuracy", "an accuracy"), ("mean IoU", "a mean IoU"), ("RMSE", "an RMSE"), ("mAP", "an mAP"),
     ("AP", "an AP"), ("R2", "an R2"), ("F1", "an F1"), ("error", "an error"), ("BLEU", "a BLEU")],
)  # fmt: skip
def test_a_score_has_its_article(name: str, said: str) -> None:
    assert with_article(Score(name=name)) == said


def test_equal_values_print_no_interval() -> None:
    shown = result_table(
        table([a_row(seed=seed, test_score=10.02) for seed in (0, 1)], score=ACCURACY), score=ACCURACY
    )
    assert shown.rows[0][5:9] == ("10.02", "0.00", "2", "-")
    assert (
        shown.notes[1] == "No interval where all values are equal: they do not tell how far others would lie."
    )


def test_a_control_of_another_size_is_told() -> None:
    rows = [a_row("slimming", 90.0 + seed, seed, reached=costing(1000, 5000)) for seed in (0, 1)]
    rows += [a_row("taper", 89.5, seed, reached=costing(1009, 5000 - 120 * seed)) for seed in (0, 1)]
    shown = difference_text(differences(rows, "slimming", score=ACCURACY), score=ACCURACY)
    assert (shown.columns[-1], shown.rows[0][-1]) == ("control's size", "-2.4 % MACs")
    assert "corrected over its one row (Holm)" in shown.notes[0]
