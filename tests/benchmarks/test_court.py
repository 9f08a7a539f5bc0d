"""Cases are made of the found shapes, claims judged by their rows, and the page is what the results say."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.court import page, results
from benchmarks.court.__main__ import main
from benchmarks.court.cases import (
    FOUND,
    Case,
    Found,
    Trial,
    cases,
    claims,
    claims_digest,
    found_shapes,
    protocols,
)
from benchmarks.court.results import LISTING, load_results, stranger, verdicts
from benchmarks.reproduce.cells import Protocol
from benchmarks.reproduce.run import collect_cells, run_cells
from prunas.designs import TOLERANCE
from prunas.spaces.load import load_space

SMALL = cases("small")
CLAIMS = [claim for claim in claims() if claim.scope == "shape"]


# Cases


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_controls_have_the_cost_that_they_say(case: Case) -> None:
    cost = {side: case.space.cost(shape.architecture) for side, shape in case.shapes().items()}
    for side, metrics in (
        ("uniform-params", ["params"]),
        ("uniform-macs", ["macs"]),
        ("taper", ["params", "macs"]),
    ):
        off = max(abs(getattr(cost[side], m) / getattr(cost[FOUND], m) - 1) for m in metrics)
        assert (off <= TOLERANCE) == case.shapes()[side].matched


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_a_shape_keeps_its_ratios_in_the_narrower_network(case: Case) -> None:
    whole, small = case.shape.space, case.space
    carried = case.shapes()[FOUND].architecture
    assert carried.removed == case.shape.architecture.removed
    before = whole.counts(case.shape.architecture) / whole.dense_counts
    there = small.counts(carried)
    assert (abs(there - before * small.dense_counts) <= 0.5 + 1e-9).all()
    assert small.dense_counts.max() < whole.dense_counts.max()
    assert sum(p.numel() for p in small.build(carried).parameters()) == small.cost(carried).params


def test_every_published_cifar_shape_is_tried_and_ours_last() -> None:
    tried = {case.shape.architecture.digest for case in SMALL}
    assert tried == {
        shape.architecture.digest for shape in found_shapes() if shape.space.study.data.startswith("cifar")
    }
    assert len({case.name for case in SMALL}) == len(SMALL)
    ours = [case.shape.ours for case in SMALL]
    assert ours == sorted(ours)


def test_the_tas_network_at_half_width_has_half_of_every_width() -> None:
    (case,) = (case for case in SMALL if case.name == "tas-resnet20-c10-tas")
    assert (2 * case.space.dense_counts == case.shape.space.dense_counts).all()


# Verdicts


def document(case: Case, gaps: dict[str, list[float]]) -> dict[str, Any]:
    """What a case would leave whose controls lack so much of the found shape, seed by seed."""
    shapes = case.shapes()
    runs = [
        {
            "side": side,
            "seed": seed,
            "score": 70.0 + seed - gap,
            "seconds": 1.0,
            "train_macs": 1,
            "folder": f"{side}{seed}",
        }
        for side in shapes
        for seed, gap in enumerate(gaps.get(side, [0.0, 0.0, 0.0]))
    ]
    setting = results._recipe(case.trial, case.space.cost(case.space.dense).params)
    return {
        "recipe": setting.to_json(),
        "data": "cifar10",
        "data_identity": results.data_identity("cifar10"),
        "sides": {side: {"digest": shape.architecture.digest} for side, shape in shapes.items()},
        "runs": runs,
        "cell": {
            "name": case.name,
            "protocol": "small",
            "planned": 12,
            "seconds": 12.0,
            "device": ["cpu"],
            "versions": ["torch 2"],
            "written": "2026-11-30",
        },
        "claims": claims_digest(),
    }


def test_a_clear_lead_holds_a_clear_lag_fails_and_noise_is_undecided() -> None:
    case = SMALL[0]
    gaps = {
        "uniform-params": [5.0, 5.01, 4.99],
        "uniform-macs": [-3.0, -3.01, -2.99],
        "taper": [0.1, -2.0, 2.5],
    }
    judged = verdicts("small", {case.name: document(case, gaps)})
    assert [judged[claim.id, case.name].judgement for claim in CLAIMS] == ["holds", "fails", "undecided"]
    difference = judged["uniform-params", case.name].difference
    assert difference is not None and difference.mean == pytest.approx(5.0) and difference.n == 3
    assert judged["taper", SMALL[1].name].judgement == "not run"


def test_a_lead_within_the_margin_does_not_hold() -> None:
    case = SMALL[0]
    judged = verdicts("small", {case.name: document(case, {"taper": [0.4, 0.401, 0.399]})})
    assert judged["taper", case.name].judgement == "fails"


def test_seeds_that_are_missing_leave_it_open() -> None:
    case = SMALL[0]
    judged = verdicts("small", {case.name: document(case, {"taper": [5.0, 5.01]})})
    verdict = judged["taper", case.name]
    assert (verdict.judgement, verdict.note) == ("undecided", "1 more target to come")
    assert judged["all-taper", ""].judgement == "not run"


def test_shapes_in_general_count_shapes_and_leave_ours_out() -> None:
    published = [case for case in SMALL if not case.shape.ours]
    ours = next(case for case in SMALL if case.shape.ours)
    gaps = [[4.0 + n, 4.0 + n, 4.0 + n] for n in range(len(published))]
    held = {case.name: document(case, {"taper": gap}) for case, gap in zip(published, gaps, strict=True)}
    held[ours.name] = document(ours, {"taper": [-50.0, -50.0, -50.0]})
    difference = verdicts("small", held)["all-taper", ""].difference
    assert difference is not None and difference.n == len(published)
    assert difference.mean == pytest.approx(4.0 + (len(published) - 1) / 2)


def test_results_of_another_recipe_shape_or_data_enter_no_table(tmp_path: Path) -> None:
    case = SMALL[0]
    right = document(case, {})
    changed = {
        "another recipe or precision": {"recipe": {**right["recipe"], "epochs": 9}},
        "other data": {"data_identity": "else"},
        "other shapes": {"sides": {**right["sides"], "taper": {"digest": "else"}}},
    }
    assert stranger(case, right) is None
    (tmp_path / "small").mkdir()
    for why, change in changed.items():
        assert stranger(case, {**right, **change}) == why
        (tmp_path / "small" / f"{case.name}.json").write_text(json.dumps({**right, **change}))
        assert not load_results("small", tmp_path)
    (tmp_path / "small" / f"{case.name}.json").write_text(json.dumps(right))
    assert list(load_results("small", tmp_path)) == [case.name]


# The run


def test_a_case_is_trained_stopped_continued_and_written(tmp_path: Path) -> None:
    space = load_space("vgg11-digits")
    arch = space.counted(space.grid(space.dense_counts / 8))
    how = Protocol("digits", "one epoch", 1, "digits", {"epochs": 1, "batch": 256})
    case = Case(Found("mine", "mine", space, arch, "a test", True), Trial(how, None))
    common: dict[str, Any] = {"data": None, "out": tmp_path / "runs", "into": tmp_path}
    common |= {"say": lambda line: None}
    executed = {"executor": "serial", "workers": None, "settings": []}
    assert not run_cells([case], LISTING, minutes=0.0, **executed, **common)
    assert not collect_cells([case], LISTING, **common)
    assert not list(tmp_path.glob("results/*/*.json"))
    assert run_cells([case], LISTING, minutes=10.0, **executed, **common)
    written = json.loads((tmp_path / "results" / "digits" / "mine.json").read_text())
    assert {(run["side"], run["seed"]) for run in written["runs"]} == {(side, 0) for side in case.shapes()}
    assert written["cell"]["planned"] == 4
    assert "/" not in json.dumps([run["folder"] for run in written["runs"]])
    assert written["sides"]["found"]["params"] == space.cost(arch).params
    (tmp_path / "results" / "digits" / "mine.json").unlink()
    assert collect_cells([case], LISTING, **common)


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (["--cell", "nothing"], ["--protocol", "large"]):
        assert main(asked) == 2
        assert capsys.readouterr().err.count("\n") == 1


# What is committed


def test_the_page_is_what_the_results_and_the_shapes_say() -> None:
    text = page.README.read_text(encoding="utf-8")
    assert page.page(text) == text


def test_a_taper_and_uniform_shapes_are_counted_in_multiples_of_the_found_shape() -> None:
    half = next(
        shape for shape in found_shapes() if shape.name.startswith("mobilenet-v1-imagenet-width-multiplier")
    )
    costs = page.counted((half,))
    # A width multiplier is a uniform shape: 325,400,448 MACs of 568,740,352 (Howard et al. 2017, table 6).
    assert costs.rows[0][3:] == ("325.4M (57%)", "1.00", "1.00", "yes")
    assert page.summary(costs).startswith("**1 of 1 found shapes have a taper")


def test_the_recipe_is_the_reduced_protocols_but_for_its_length() -> None:
    from benchmarks.reproduce.cells import protocols as reproduced

    theirs, ours = reproduced()["reduced"], protocols()["small"].protocol
    assert (theirs.recipe, theirs.seeds) == (ours.recipe, ours.seeds)
    assert {**ours.changes, "epochs": 15} == {"epochs": 15, **theirs.changes}
