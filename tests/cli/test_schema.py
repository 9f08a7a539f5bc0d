"""The schema of what commands print: the committed document, and what it takes and refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

import prunas
from prunas.cli import app
from prunas.cli.schema import FILE, schema_text
from prunas.costs.counted import Cost
from prunas.costs.target import Target
from prunas.inspection.latency import Latency
from prunas.results.record import Record
from prunas.results.rows import Proposed, SearchCost, Spent, TrainingRow, TrialRow
from prunas.statistics.tables import document
from prunas.tasks.score import ACCURACY, Score

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())
TENTH = Target("params", 1000, 0.1)
COST = Cost(1000, 9000, 1100, 9100)
POINT = {"format": 1, "space": "small", "network": "vgg11"}
ROW = TrainingRow(
    id="a-0",
    proposer="slimming",
    kind="automatic",
    asked=TENTH,
    reached=COST,
    protocol="scratch-e",
    epochs=2,
    train_macs=10,
    search_seed=0,
    train_seed=0,
    status="finished",
    val_score=None,
    test_score=50.0,
    architecture="0123456789ab",
    folder="runs/small/a-0",
    flags=("penalty_not_acted",),
    proposed=Proposed(POINT, "0123456789ab", COST),
    chance=10.0,
)
TRIAL = TrialRow(
    id="b-0",
    proposer="tpe",
    asked=TENTH,
    search_seed=0,
    architecture="0123456789ab",
    reached=COST,
    epochs=1,
    train_macs=5,
    fraction=0.5,
    val_score=None,
    duplicate=False,
    folder="runs/small/b-0",
    status="failed",
    error="the loss is not finite",
)
SPENT = SearchCost(
    proposer="tpe",
    seed=0,
    macs=5,
    seconds=0.5,
    trainings=1,
    rests_on=(Spent(id="b-0", macs=5, seconds=0.5),),
    targets=(TENTH,),
    seeds=(0,),
)


def printed(score: Score = ACCURACY, **plan: Any) -> Any:
    """A search's document, as a reader of JSON has it."""
    record = Record(
        space="small",
        data="digits",
        recipe="digits",
        epochs=2,
        setting="0" * 12,
        score=score,
        plan=plan,
        rows=(ROW,),
        costs=(SPENT,),
        trials=(TRIAL,),
    )
    return json.loads(json.dumps(document(record)))


def check(name: str, value: Any) -> None:
    jsonschema.validate(value, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})


def test_the_committed_schema_is_the_generated_one() -> None:
    remedy = "python -m prunas.cli.schema writes it anew"
    assert FILE.read_text(encoding="utf-8") == schema_text(), remedy


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def commands(app: typer.Typer) -> Iterator[str]:
    """The first word of every command."""
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        options = [*command.params]
        for below in getattr(command, "commands", {}).values():
            options += below.params
        if any("--json" in option.opts for option in options):
            yield command.name


def test_every_command_that_prints_json_is_described() -> None:
    described = {name.partition(" ")[0] for name in SCHEMA["$defs"]}
    assert set(commands(app)) - {"transfer"} <= described  # which prints what a search prints
    assert "search" in set(commands(app))


def test_a_search_with_all_its_values_is_described() -> None:
    check("search", printed())


def test_a_score_without_bounds_is_described() -> None:
    check("search", printed(Score(name="loss", better="lower")))


@pytest.mark.parametrize("where", ["runs", "cost", "trials", "table"])
def test_what_no_value_has_is_refused(where: str) -> None:
    for path in ((), (where, 0), (where, 0, "asked"), (where, 0, "reached")):
        found = printed()
        inner = found
        for key in path:
            inner = inner.get(key) if isinstance(inner, dict) else inner[key]
            if inner is None:
                break
        else:
            inner["surprise"] = 1
            with pytest.raises(jsonschema.ValidationError, match="surprise"):
                check("search", found)


@pytest.mark.parametrize("where", ["runs", "cost", "trials", "table"])
def test_every_field_of_a_value_is_required(where: str) -> None:
    for name in printed()[where][0]:
        found = printed()
        del found[where][0][name]
        with pytest.raises(jsonschema.ValidationError, match=name):
            check("search", found)


def test_a_task_of_its_own_is_in_the_plan() -> None:
    check("search", printed(space="small", task={"name": "tasks.py:flow", "identity": "flow"}))
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        check("search", printed(surprise=1))


def test_a_timed_pass_is_described() -> None:
    timed = Latency(
        architecture="0123456789ab",
        ratio=0.5,
        seconds=0.1,
        dense_seconds=0.2,
        batch=1,
        device="cpu",
        threads=1,
        torch="2.14",
        captured=False,
        masked=False,
    )
    check("compare", {"schema": 1, "records": [printed() | {"latency": [timed.to_json()]}]})
