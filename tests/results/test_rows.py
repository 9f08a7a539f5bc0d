import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.results.rows import Proposed, SearchCost, Spent, TrainingRow, check_range
from prunas.statistics.alignment import alignment_table
from prunas.tasks.score import ACCURACY, Score
from tests.statistics.result_rows import a_row, costing, masked

percent = st.none() | st.floats(0, 100)


@given(val=percent, test=percent, train_macs=st.integers(0, 10**19), flags=st.lists(st.text()))
def test_a_row_survives_json(
    val: float | None, test: float | None, train_macs: int, flags: list[str]
) -> None:
    row = a_row(test_score=test, val_score=val, train_macs=train_macs, flags=tuple(flags))
    assert TrainingRow.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_both_shapes_of_an_aligned_point_survive_json() -> None:
    shape = {"format": 1, "space": "s", "network": "n", "widths": {"a": 3}, "selected": {"g": [0, 2]}}
    row = a_row(proposed=Proposed(shape, "ba9876543210", costing(90_000, 3_000_000)))
    document = json.loads(json.dumps(row.to_json()))
    assert document["proposed"]["architecture"] == shape
    assert document["proposed"]["reached"]["params"] == 90_000
    assert TrainingRow.from_json(document) == row
    with pytest.raises(InputError, match=r"proposed\.digest"):
        TrainingRow.from_json(document | {"proposed": document["proposed"] | {"digest": 3}})


def test_the_table_of_aligned_points_has_both_costs() -> None:
    rows = [
        a_row(
            seed=seed,
            protocol=protocol,
            reached=costing(100_000 + 2000 * seed, 5_000_000),
            proposed=Proposed({}, "ba9876543210", costing(80_000 + 2000 * seed, 3_000_000)),
        )
        for seed in (0, 1)
        for protocol in ("scratch-e", "scratch-b")  # the same points
    ]
    table = alignment_table([*rows, a_row("uniform")])
    assert table.rows == (("10 %", "slimming", "2", "81.0k", "101.0k", "3.00M", "5.00M"),)


def test_the_document_has_the_fields_the_command_line_promises() -> None:
    document = a_row().to_json()
    assert " ".join(sorted(document)) == (
        "architecture asked chance epochs flags folder id kind proposed proposer protocol pruned_score reached "
        "search_seed status test_score train_macs train_seed val_score"
    )
    assert document["asked"] == {"metric": "params", "value": 100_000, "keep": 0.1}
    assert set(document["reached"]) == {"params", "macs", "dense_params", "dense_macs"}
    assert document["flags"] == []


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("test_score", float("nan"), "test_score"),
        ("val_score", float("inf"), "val_score"),
        ("test_score", "91", "test_score"),
        ("epochs", "20", "epochs"),
        ("epochs", -1, "epochs"),
        ("kind", "magic", "kind"),
        ("asked", {"metric": "params", "keep": 0.1}, "asked.value"),
        ("asked", {"metric": 3, "value": 3, "keep": None}, "asked.metric"),
        ("reached", {"params": 1, "macs": 1, "dense_params": 1}, "reached.dense_macs"),
        ("flags", "penalty_not_acted", "flags"),
        ("colour", "red", "colour"),
    ],
)
def test_a_bad_field_is_refused_by_name_in_one_line(field: str, value: Any, named: str) -> None:
    with pytest.raises(InputError, match=rf"^result row slimming-0: {named}: ") as error:
        TrainingRow.from_json(a_row().to_json() | {field: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("test_score", 100.5), ("val_score", -1.0), ("chance", 101.0)])
def test_a_score_out_of_range_is_refused_by_name_in_one_line(field: str, value: float) -> None:
    row = a_row(**{field: value})
    with pytest.raises(InputError, match=rf"^result row slimming-0: {field}: .* no accuracy") as error:
        check_range(row, ACCURACY)
    assert "\n" not in str(error.value)
    check_range(row, Score(name="error", better="lower"))  # unbounded


def test_a_missing_field_is_refused_by_name() -> None:
    document = a_row().to_json()
    del document["architecture"]
    with pytest.raises(InputError, match="architecture"):
        TrainingRow.from_json(document)


def test_only_finished_rows_have_an_accuracy() -> None:
    assert a_row(test_score=91.0).score == 91.0
    assert a_row(test_score=91.0, status="failed").score is None
    assert a_row(test_score=None, val_score=91.0).score is None


def test_guessing_is_on_the_worse_side_of_chance() -> None:
    lower = Score(name="error", better="lower")
    rows = [a_row(test_score=value, chance=0.5) for value in (0.4, 0.5, 0.6)]
    assert [row.all_flags(lower) for row in rows] == [(), ("chance_level",), ("chance_level",)]
    assert [row.all_flags(ACCURACY) for row in rows] == [("chance_level",), ("chance_level",), ()]
    assert a_row(test_score=0.6, chance=None).all_flags(lower) == ()


def test_a_network_is_masked_when_a_dense_device_executes_more() -> None:
    assert a_row(reached=masked(10, 100)).masked
    assert not a_row().masked


def test_search_costs_survive_json_and_are_checked() -> None:
    cost = SearchCost(
        proposer="tpe",
        seed=1,
        macs=7 * 10**15,
        seconds=61.5,
        trainings=1,
        rests_on=(Spent(id="trial-0", macs=7 * 10**15, seconds=61.5),),
        targets=(Target(metric="macs", value=1000, keep=0.1),),
        seeds=(0, 1),
        complete=False,
    )
    assert SearchCost.from_json(json.loads(json.dumps(cost.to_json()))) == cost
    with pytest.raises(InputError, match="search cost of tpe: seconds"):
        SearchCost.from_json(cost.to_json() | {"seconds": -1})


def test_the_room_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, prunas.statistics.curves, prunas.statistics.text\n"
        "print(sorted({'torch', 'matplotlib', 'optuna'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
