from typing import Any

import pytest

from prunas.results.rows import TrainingRow
from prunas.statistics.advice import Observation, advise, observation_table, observations
from prunas.statistics.summary import summarise
from prunas.tasks.score import ACCURACY
from tests.statistics.result_rows import a_row, keeping


def seen(question: str, values: list[float], **changes: Any) -> Observation:
    fields: dict[str, Any] = {
        "question": question,
        "where": "runs",
        "own": True,
        "space": "vgg16-c10",
        "data": "cifar10",
        "proposer": "slimming",
        "keep": 0.1,
        "epochs": 40,
        "recipe_epochs": 160,
        "difference": summarise(values),
    }
    return Observation(**(fields | changes), score=ACCURACY)


AHEAD, BEHIND, LEVEL, OPEN = [3.0, 3.1, 3.2], [-3.0, -3.1, -3.2], [0.0, 0.01, -0.01], [5.0, -4.0, 0.0]
TUNED, UNIFORM = "scratch or fine-tune", "found or uniform"


@pytest.mark.parametrize(
    ("scratch", "found", "answer", "basis"),
    [
        (BEHIND, AHEAD, "fine-tune", "own"),
        (BEHIND, None, "fine-tune", "own"),
        (AHEAD, AHEAD, "scratch", "own"),
        (OPEN, AHEAD, "scratch", "own"),
        (None, AHEAD, "scratch", "own"),
        (AHEAD, LEVEL, "uniform", "own"),
        (AHEAD, BEHIND, "uniform", "own"),
        (AHEAD, OPEN, "uniform", "none"),
        (None, None, "uniform", "none"),
    ],
)
def test_the_answer_follows_from_the_two_comparisons(
    scratch: list[float] | None, found: list[float] | None, answer: str, basis: str
) -> None:
    known = [
        seen(question, values)
        for question, values in ((TUNED, scratch), (UNIFORM, found))
        if values is not None
    ]
    advice = advise(known, keep=0.1, epochs=40, recipe_epochs=160)
    assert (advice.answer, advice.basis) == (answer, basis)
    assert list(advice.evidence) == known
    assert len(advice.reasons) == (3 if basis == "none" else 2)


def test_the_nearest_own_run_comes_before_any_other() -> None:
    far = seen(UNIFORM, BEHIND, keep=0.19)
    near = seen(UNIFORM, AHEAD, keep=0.11)
    other = seen(UNIFORM, BEHIND, own=False, keep=0.1, where="committed reduced/efficiency-left")
    assert advise([far, near, other], keep=0.1, epochs=40, recipe_epochs=160).evidence == (near,)
    assert advise([far, other], keep=0.1, epochs=40, recipe_epochs=160).evidence == (far,)


def test_what_is_too_far_is_no_evidence() -> None:
    for change in ({"keep": 0.21}, {"keep": 0.049}, {"epochs": 81}, {"epochs": 19}):
        advice = advise([seen(UNIFORM, AHEAD, **change)], keep=0.1, epochs=40, recipe_epochs=160)
        assert (advice.evidence, advice.basis) == ((), "none"), change
        assert "within a factor of 2" in advice.reasons[1]


def test_other_networks_are_compared_at_the_same_share_of_their_recipe() -> None:
    other = seen(UNIFORM, AHEAD, own=False, epochs=2, recipe_epochs=8)
    advice = advise([other], keep=0.1, epochs=40, recipe_epochs=160)
    assert (advice.answer, advice.basis) == ("scratch", "elsewhere")
    assert "another network or setting" in advice.reasons[1]
    assert advise([other], keep=0.1, epochs=160, recipe_epochs=160).basis == "none"


def test_the_sentence_tells_the_difference_and_its_interval() -> None:
    (reason, _) = advise([seen(TUNED, BEHIND)], keep=0.1, epochs=40, recipe_epochs=160).reasons[:2]
    assert reason == (
        "Training from scratch is behind fine-tuning: -3.10 points [-3.35, -2.85], n = 3, at 10 % of the "
        "parameters and 40 epochs (your runs)."
    )


def gathered(rows: list[TrainingRow], whole: float | None = 1_000_000) -> list[Observation]:
    return observations(
        rows, where="runs", own=True, space="s", data="d", recipe_epochs=20, whole=whole, score=ACCURACY
    )


def test_rows_become_observations() -> None:
    rows = [
        a_row(
            who,
            test_score=accuracy + seed,
            seed=seed,
            protocol=protocol,
            epochs=epochs,
            id=f"{who}{protocol}{seed}",
        )
        for who, protocol, epochs, accuracy in (
            ("slimming", "scratch-e", 20, 90),
            ("uniform", "scratch-e", 20, 88),
            ("slimming", "finetune", 5, 91),
            ("slimming", "finetune:10", 10, 89),
            ("slimming", "finetune:40", 40, 90),
            ("slimming", "scratch-e:10", 10, 85),
            ("slimming", "scratch-e:40", 40, 92),
        )
        for seed in range(3)
    ]
    found = {(each.question, each.epochs): each.difference.mean for each in gathered(rows)}
    assert found == {(UNIFORM, 20): 2, (TUNED, 20): -1, (TUNED, 10): -4, (TUNED, 40): 2}
    assert {each.keep for each in gathered(rows)} == {0.0995}  # what was reached, not what was asked
    assert len(observation_table(gathered(rows)).rows) == 4


def test_a_dense_network_nobody_knows_leaves_only_targets_in_fractions() -> None:
    rows = [a_row(who, test_score=90, asked=keeping(0.1)) for who in ("slimming", "uniform")]
    assert [each.keep for each in gathered(rows, whole=None)] == [0.0995]
    plain = [a_row(who, asked=keeping(0.1).__class__("params", 100_000)) for who in ("slimming", "uniform")]
    assert gathered(plain, whole=None) == []


def test_scratch_must_beat_the_best_way_to_fine_tune() -> None:
    """Ahead of the small constant rate, behind one cycle: the answer is the latter."""
    weak, strong = seen(TUNED, AHEAD, against="finetune"), seen(TUNED, BEHIND, against="finetune-large")
    for known in ([weak, strong], [strong, weak]):
        advice = advise(known, keep=0.1, epochs=40, recipe_epochs=160)
        assert (advice.answer, advice.evidence) == ("fine-tune", (strong,))
        assert advice.reasons[0].startswith("Training from scratch is behind fine-tuning (finetune-large): ")
    assert [row[0] for row in observation_table([weak, strong]).rows] == [TUNED, "scratch or finetune-large"]


def test_every_way_to_fine_tune_is_observed() -> None:
    ways = ("finetune-large", "finetune-rewound", "finetune-large+distill", "scratch-e")
    rows = [
        a_row(
            "slimming",
            test_score=80 + place + epochs + seed,
            seed=seed,
            protocol=f"{way}:{epochs}",
            epochs=epochs,
            id=f"{way}{epochs}{seed}",
        )
        for place, way in enumerate(ways)
        for epochs in (5, 10)
        for seed in range(2)
    ]
    found = {(each.against, each.epochs): each.difference.mean for each in gathered(rows)}
    assert found == {(way, n): 3 - place for place, way in enumerate(ways[:-1]) for n in (5, 10)}
