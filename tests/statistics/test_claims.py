import pytest
from scipy.stats import ttest_1samp, ttest_ind

from prunas.proposers.table import PROPOSERS
from prunas.statistics.claims import (
    Side,
    apart,
    chances,
    compared,
    controls_of,
    jointly,
    judge,
    standard_errors,
)
from prunas.statistics.inference import LEVEL
from prunas.statistics.summary import Summary, summarise
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row, keeping


def between(low: float, high: float) -> Summary:
    return Summary(mean=(low + high) / 2, std=1.0, n=3, low=low, high=high)


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        ("more", 0.3, 0.9, "holds"),
        ("more", 0.1, 0.9, "undecided"),  # it may be less than the margin
        ("more", -0.5, 0.1, "fails"),
        ("more", -0.5, 0.5, "undecided"),
        ("at-least", -0.1, 0.9, "holds"),
        ("at-least", -0.1, 0.1, "holds"),
        ("at-least", -0.3, 0.9, "undecided"),
        ("at-least", -0.9, -0.3, "fails"),
        ("tie", -0.1, 0.1, "holds"),
        ("tie", -0.1, 0.3, "undecided"),
        ("tie", 0.3, 0.9, "fails"),
        ("tie", -0.9, -0.3, "fails"),
    ],
)
def test_a_claim_is_judged_by_where_the_interval_lies(
    relation: str, low: float, high: float, expected: str
) -> None:
    assert judge(between(low, high), relation, margin=0.2) == expected  # type: ignore[arg-type]


def test_one_value_decides_nothing() -> None:
    for relation in ("more", "at-least", "tie"):
        assert judge(summarise([9.0]), relation, margin=ACCURACY.margin) == "undecided"  # type: ignore[arg-type]


def test_pairs_share_seed_and_target_and_count_once_per_seed() -> None:
    rows = [
        a_row(who, test_score=accuracy, seed=seed, asked=keeping(keep), id=f"{who}{seed}{keep}")
        for who, seed, keep, accuracy in (
            ("slimming", 0, 0.1, 90),
            ("uniform", 0, 0.1, 80),
            ("slimming", 0, 0.2, 92),
            ("uniform", 0, 0.2, 90),
            ("slimming", 1, 0.1, 91),
            ("uniform", 1, 0.1, 89),
            ("slimming", 1, 0.2, 93),
            ("uniform", 1, 0.2, 89),
            ("slimming", 2, 0.1, 99),  # its pair at the other target is missing
            ("uniform", 2, 0.1, 10),
        )
    ]
    found = compared(rows, Side("slimming"), Side("uniform"), score=ACCURACY)
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx((6 + 3) / 2))
    at = compared(rows, Side("slimming"), Side("uniform"), keeping(0.1), score=ACCURACY)
    assert at is not None
    assert (at.n, at.mean) == (3, pytest.approx((10 + 2 + 89) / 3))
    assert compared(rows, Side("slimming"), Side("taper"), score=ACCURACY) is None


def test_a_side_without_a_name_is_whatever_prunes() -> None:
    rows = [
        a_row("slimming", test_score=90, protocol="scratch-b", id="a"),
        a_row("slimming", test_score=89, protocol="finetune", id="b"),
        a_row("uniform", test_score=10, protocol="scratch-b", id="c"),
    ]
    found = compared(rows, Side(protocol="scratch-b"), Side(protocol="finetune"), score=ACCURACY)
    assert found is not None
    assert found.mean == 1


def test_standard_errors_are_those_of_two_independent_samples() -> None:
    ours = summarise([92.0, 93.0, 94.0])  # standard deviation 1
    assert standard_errors(ours, 92.0, 2.0, 5) == pytest.approx(1 / (1 / 3 + 4 / 5) ** 0.5)
    assert standard_errors(ours, 92.0, None, 1) is None
    assert standard_errors(summarise([92.0]), 92.0, 1.0, 5) is None


# A claim and the control that has everything but the cause


def test_a_claim_that_needs_several_comparisons_fails_with_any_and_holds_with_all() -> None:
    assert jointly(["holds", "holds"]) == "holds"
    assert jointly(["holds", "undecided"]) == "undecided"
    assert jointly(["holds", "undecided", "fails"]) == "fails"


def test_the_difference_of_independent_samples_is_welchs() -> None:
    left, right = [2.0, 3.0, 7.0], [1.0, 1.5, 1.0, 0.5]
    found = apart(summarise(left), summarise(right))
    expected = ttest_ind(left, right, equal_var=False).confidence_interval(LEVEL)
    assert (found.mean, found.n) == (3.0, 3)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert apart(summarise([1.0]), summarise(right)).low is None
    assert apart(summarise([1.0, 1.0]), summarise([0.0, 0.0])).low is None


def test_every_control_of_a_method_is_found_by_its_name() -> None:
    named = {name: line.controls for name, line in PROPOSERS.items() if line.controls}
    searches = {name for name, line in PROPOSERS.items() if line.evaluates}  # theirs: `tpe@enas` and its like
    automatic = {name for name, line in PROPOSERS.items() if line.kind == "automatic"}
    assert automatic - searches <= set(named.values()) <= automatic
    for name, method in named.items():
        assert name in controls_of(method)
        assert PROPOSERS[name].kind == "control"
        assert PROPOSERS[name].dimensions == PROPOSERS[method].dimensions


SAMPLES = ([0.9, 1.1, 1.3], [0.1, 0.4, -0.2], [-2.0, -2.2, -1.7], [0.45, 0.5, 0.55, 0.61])


@pytest.mark.parametrize("values", SAMPLES)
def test_chances_are_those_of_one_sided_t_tests(values: list[float]) -> None:
    def p(bound: float, side: str) -> float:
        return min(1.0, 2 * float(ttest_1samp(values, bound, alternative=side).pvalue))

    sample = summarise(values)
    assert chances(sample, "more", 0.5) == pytest.approx((p(0.5, "greater"), p(0.5, "less")))
    assert chances(sample, "at-least", 0.5) == pytest.approx((p(-0.5, "greater"), p(-0.5, "less")))
    tie = max(p(-0.5, "greater"), p(0.5, "less")), min(p(-0.5, "less"), p(0.5, "greater"))
    assert chances(sample, "tie", 0.5) == pytest.approx(tie)


@pytest.mark.parametrize("values", SAMPLES)
@pytest.mark.parametrize("relation", ["more", "at-least", "tie"])
def test_chances_say_what_the_interval_says(values: list[float], relation) -> None:
    sample = summarise(values)
    holds, fails = chances(sample, relation, 0.5)
    said = "holds" if holds < 1 - LEVEL else "fails" if fails < 1 - LEVEL else "undecided"
    assert said == judge(sample, relation, 0.5)


def test_nothing_is_tested_without_a_spread() -> None:
    assert chances(summarise([1.0]), "more", 0.0) is None
    assert chances(summarise([1.0, 1.0]), "more", 0.0) is None


def test_the_standard_error_of_a_difference_of_samples_can_be_given() -> None:
    difference = apart(summarise([1.0, 1.2, 1.4]), summarise([0.1, 0.2, 0.3]))
    holds, _ = chances(difference, "more", 0.0, difference.std)
    # Two degrees of freedom are fewer than Welch's, so the p value is no smaller than his.
    assert holds >= float(ttest_ind([1.0, 1.2, 1.4], [0.1, 0.2, 0.3], equal_var=False).pvalue)
