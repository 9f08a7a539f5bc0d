"""A stored plan repeats its search: the command it comes with asks for the very same plan."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunas.cli import main
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.record import load_records
from prunas.experiments.repeat import command_of, plan_document
from prunas.experiments.search import Plan
from prunas.recipe import recipe as named_recipe
from prunas.spaces.load import load_space

DIGITS = "preresnet20-digits"


class Asked(Exception):
    """Raised instead of a search."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Plan]:
    """The plan that a command line comes to."""
    plans: list[Plan] = []

    def catch(plan: Plan, *_: object) -> None:
        plans.append(plan)
        raise Asked

    monkeypatch.setattr("prunas.experiments.prepared.search", catch)

    def call(*words: str) -> Plan:
        with pytest.raises(Asked):
            main([*words, "--out", str(tmp_path / "runs")])
        return plans[-1]

    return call


def same(one: Plan, other: Plan) -> bool:
    """Whether two plans ask for the same, their proposers' code and their data aside."""
    fields = [field.name for field in dataclasses.fields(Plan) if field.name not in ("setting", "source")]
    return all(getattr(one, name) == getattr(other, name) for name in fields) and (
        plan_document(one) == plan_document(other)
        and one.setting.recipe == other.setting.recipe
        and one.setting.space.reference == other.setting.space.reference
    )


@pytest.mark.parametrize(
    "words",
    [
        "search",
        "search preresnet20-digits --proposer slimming,sss,magnitude --keep 0.7,0.333333333333",
        "search preresnet20-digits --proposer slimming,uniform --no-controls --seeds 2 --no-dense",
        "search preresnet20-digits --proposer uniform,random --trials 3 --budget 200k --metric macs",
        "search preresnet20-digits --proposer tpe --warm-start slimming --trials 4 --set tpe.startup=2",
        "search preresnet20-digits --set slimming.pull=0.25 --cap 1.5 --protocol scratch-b,finetune,scratch-e:3",
        "search preresnet20-digits --dense-training dsd:0.5 --keep-weights --align 4:up --keep 0.5",
        "search --recipe tiny --epochs 2 --batch 16 --lr 0.01 --images 64 --precision bf16 --channels-last",
        "search preresnet20-digits --proposer random --trials 2",
        "search --recipe fast --epochs 2",
        "search --recipe fast --recipe-set label_smoothing=0.2",  # 0.27 M parameters: not smoothed
        "search --recipe fast --recipe-set label_smoothing=0.2 --recipe-set label_smoothing_from=0",
        "search --recipe-set optimizer=adamw --recipe-set milestones=[0.2,0.4] --recipe-set decay_norms=false",
        "transfer --from vgg16-c10 --to vgg11-digits --from-found --beside shuffled --set slimming.pull=1",
        "transfer --from vgg16-c10 --to vgg11-digits --from-found --no-controls --beside uniform,taper --no-dense",
    ],
)
def test_the_printed_command_asks_for_the_same_plan(words: str, asked: Callable[..., Plan]) -> None:
    plan = asked(*words.split())
    again = command_of(plan)
    assert again is not None
    assert "--data" not in again
    assert same(asked(*again), plan), again


def test_a_file_is_named_by_its_path(small_space: Path, asked: Callable[..., Plan]) -> None:
    plan = asked("search", str(small_space))
    words = command_of(plan)
    assert words is not None
    assert words[1] == str(small_space)
    assert same(asked(*words), plan)


def test_a_file_with_a_table_of_its_recipe_is_enough(
    small_space: Path, tmp_path: Path, asked: Callable[..., Plan]
) -> None:
    lines = [line for line in small_space.read_text().splitlines() if not line.startswith("recipe")]
    table = '[recipe]\nname = "tiny"\noptimizer = "adamw"\nlr = 0.001\nlabel_smoothing = 0.1\n'
    file = tmp_path / "changed.toml"
    file.write_text("\n".join(lines) + f"\n{table}")
    plan = asked("search", str(file), "--epochs", "2")
    recipe = plan.setting.recipe
    assert (recipe.name, recipe.epochs, recipe.optimizer, recipe.lr) == ("tiny", 2, "adamw", 0.001)
    assert recipe.label_smoothing == plan_document(plan)["recipe"]["label_smoothing"] == 0.1
    words = command_of(plan)
    assert words is not None
    assert "--recipe" not in words
    assert same(asked(*words), plan)
    for name in ("tiny", "short"):  # a name on the command line is that recipe, without the file's changes
        plan = asked("search", str(file), "--recipe", name)
        assert plan.setting.recipe == named_recipe(name)
        words = command_of(plan)
        assert words is not None
        assert words[words.index("--recipe") + 1] == name
        assert same(asked(*words), plan)


def test_data_that_lie_somewhere_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small()
    monkeypatch.setenv("PRUNAS_DATA", "/somewhere/else")
    study = dataclasses.replace(plan.setting.space.study, data="cifar10")
    space = dataclasses.replace(plan.setting.space, study=study)
    setting = dataclasses.replace(plan.setting, space=space, data="cifar10", data_from=None)
    words = command_of(dataclasses.replace(plan, setting=setting))
    assert words is not None
    assert words[-2:] == ["--data", "/somewhere/else"]


def small(**changes: Any) -> Plan:
    return make_plan(make_setting(load_space(DIGITS)), ("slimming",), controls=False, seeds=1, **changes)


def test_what_only_python_can_say_has_no_command() -> None:
    plan = small()
    assert command_of(plan) is not None
    recipe = plan.setting.recipe.replace(name="of my own")
    odd = dataclasses.replace(plan, setting=dataclasses.replace(plan.setting, recipe=recipe))
    mixed = dataclasses.replace(plan, trials={"tpe": 3, "random": 2})
    assert (command_of(odd), command_of(mixed)) == (None, None)


# Two sources, one target


def test_transfers_from_two_sources_are_stored_beside_each_other(tmp_path: Path) -> None:
    """They used to share a document, so that the second replaced the first."""
    runs = str(tmp_path / "runs")
    small = [
        "--keep",
        "0.3",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--images",
        "64",
        "--no-dense",
        "--no-controls",
    ]
    for source in ("vgg16-c10", "preresnet20-c10"):
        words = ["transfer", "--from", source, "--to", "vgg11-digits", "--from-found", *small, "--out", runs]
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, source
    documents = sorted((tmp_path / "runs" / "vgg11-digits" / "searches").glob("*.json"))
    assert len(documents) == 2
    sources = {json.loads(path.read_text())["plan"]["source"]["space"] for path in documents}
    assert sources == {"vgg16-c10", "preresnet20-c10"}
    (record,) = load_records(tmp_path / "runs")
    names = {row.proposer for row in record.rows}
    assert names == {
        *("slimming", "guided"),
        *("transferred from vgg16-c10 (shipped)", "transferred from preresnet20-c10 (shipped)"),
    }
    assert len({cost.proposer for cost in record.costs}) == 4
    assert record.plan == {}
