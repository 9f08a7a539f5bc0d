"""A loss and a score of a user's own: by import path in a space's file, with a table, or given in Python."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunas.data import load
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.preflight import preflight
from prunas.experiments.repeat import command_of
from prunas.spaces.load import load_space
from prunas.spaces.study import Study
from prunas.tasks import measures
from prunas.tasks.base import Distillable, Mixable, training_loss
from prunas.tasks.load import (
    CLASSIFICATION,
    TaskReference,
    find_task,
    load_task,
    make_task,
    with_loss,
    with_score,
)
from prunas.tasks.score import Score
from prunas.works import train
from tests.commands import command

MINE = """
import torch
import torch.nn.functional as F


def loss(outputs, targets):
    return F.multi_margin_loss(outputs, targets)


def doubt(outputs, targets):
    return 1 - outputs.softmax(1).gather(1, targets[:, None])[:, 0]


def mean_doubt(outputs, targets):
    return float(doubt(outputs, targets).mean())


def number(outputs, targets):
    return 0.5


def scalar(outputs, targets):
    return doubt(outputs, targets).mean()
"""
SPACE = """
network = "prunas.networks:vgg11"
arguments = { channels = 1, base = 4, pools = 2 }
input = [1, 8, 8]
data = "digits"
recipe = "tiny"
keep = [0.4]
loss = "mine.py:loss"

[score]
function = "mine.py:doubt"
name = "doubt"
better = "lower"
low = 0
high = 1
margin = 0.01
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a space and its functions."""
    monkeypatch.chdir(tmp_path)
    Path("doubt.toml").write_text(SPACE)
    Path("mine.py").write_text(MINE)
    return tmp_path


SHORT = ("--epochs", "1", "--images", "128", "--seeds", "1", "--no-controls", "--no-dense")


def test_a_search_learns_by_the_loss_and_ends_in_the_score(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("search", "doubt.toml", "--proposer", "uniform", *SHORT, "--json") == 0
    says = json.loads(capsys.readouterr().out)
    assert {key: says["score"][key] for key in ("name", "better", "low", "high")} == {
        "name": "doubt", "better": "lower", "low": 0.0, "high": 1.0,
    }  # fmt: skip
    (row,) = says["runs"]
    folder = Path(row["folder"])
    result = json.loads((folder / "result.json").read_text())["result"]
    assert (result["score_name"], result["score"]) == ("doubt", row["test_score"])
    assert 0 < result["train_scores"][0] < 1
    assert result["losses"][0] < 1.5  # a margin loss of ten classes begins below 1; cross entropy at log 10
    spec = json.loads((folder / "job.json").read_text())["spec"]
    assert (spec["task"]["loss"]["name"], spec["task"]["loss"]["source"]) == ("mine.py:loss", MINE)
    assert command("search", "doubt.toml", "--proposer", "uniform", *SHORT, "--json") == 0
    assert json.loads(capsys.readouterr().out)["trained"] == 0
    assert command("compare", "doubt") == 0
    shown = capsys.readouterr().out
    assert "test doubt" in shown and "Lower doubt is better." in shown and "accuracy" not in shown


def test_functions_name_the_run_and_are_repeated_by_the_file(there: Path) -> None:
    def planned(**changes: Any) -> Any:
        setting = make_setting(load_space("doubt.toml"), changes={"images": 64}, **changes)
        return setting.dense(0, None).job.id, make_plan(setting, ["uniform"], seeds=1, controls=False)

    name, plan = planned()
    assert command_of(plan) is not None
    other, changed = planned(loss="torch.nn.functional:cross_entropy")
    assert other != name and command_of(changed) is None
    plain, _ = planned(loss="", score="")
    assert plain not in (name, other)
    assert planned(score={"function": "mine.py:doubt", "name": "doubt", "better": "lower"})[0] != name
    Path("mine.py").write_text(MINE.replace("multi_margin_loss", "cross_entropy"))
    assert planned()[0] not in (name, other)


def test_without_functions_a_task_is_as_before() -> None:
    setting = make_setting(load_space("vgg11-digits"), loss="", score="")
    assert (setting.task.implied, setting.task.identity) == (True, setting.identity)
    assert Study() == Study(loss="", score={})


def score_of(table: Any, outputs: torch.Tensor, targets: torch.Tensor, parts: int = 2) -> float:
    """Of `classification` with another score, fed in parts."""
    reference = with_score(find_task("classification", Path()), table, Path())
    task, _ = make_task(reference, load("digits"))

    def net(inputs: torch.Tensor) -> torch.Tensor:
        return outputs[inputs]

    batches = torch.arange(len(outputs)).split(-(-len(outputs) // parts))
    totals = [task.totals(net, (index, targets[index])) for index in batches]
    return task.result(totals if task.statistics is None else sum(totals).double())


def test_a_score_of_samples_and_one_of_a_split_agree_where_both_can_be_said(there: Path) -> None:
    outputs = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(50) % 10
    expected = np.mean(
        [1 - row.double().softmax(0)[label].item() for row, label in zip(outputs, targets, strict=True)]
    )
    what = {"name": "doubt", "better": "lower"}
    assert score_of({"function": "mine.py:doubt", **what}, outputs, targets) == pytest.approx(
        expected, rel=1e-6
    )
    whole = {"function": "mine.py:mean_doubt", "of": "split", **what}
    assert score_of(whole, outputs, targets) == pytest.approx(expected, rel=1e-6)


def test_a_functions_own_description_may_be_sharpened() -> None:
    data = load("digits")
    for table, expected in (
        ("prunas.tasks.measures:r2", Score(name="R2", high=1.0, margin=0.002)),
        (measures.r2, Score(name="R2", high=1.0, margin=0.002)),
        ({"function": "prunas.tasks.measures:r2", "margin": 0.1}, Score(name="R2", high=1.0, margin=0.1)),
        ({"unit": "percent"}, Score(name="accuracy", unit="percent", low=0.0, high=100.0, margin=0.2)),
    ):
        reference = with_score(find_task("classification", Path()), table, Path())
        task, named = make_task(reference, data)
        assert task.score == expected
        assert TaskReference.from_json(json.loads(json.dumps(named.to_json()))) == named
        assert load_task(named, data).identity == task.identity


def test_labels_are_smoothed_by_the_tasks_own_loss_alone(there: Path) -> None:
    data, plain = load("digits"), find_task("classification", Path())
    judged, _ = make_task(with_score(plain, "prunas.tasks.measures:mean_absolute_error", Path()), data)
    batch = next(iter(data.batches("train", 8, device=torch.device("cpu"))))
    outputs = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    own, _ = make_task(plain, data)
    smoothed = [training_loss(task, 0.1)(lambda x: outputs, batch).item() for task in (own, judged)]
    assert smoothed[0] == smoothed[1]
    assert isinstance(judged, Distillable) and not isinstance(judged, Mixable)
    learnt, _ = make_task(with_loss(plain, "mine.py:loss", Path()), data)
    with pytest.raises(InputError, match="has no labels to smooth"):
        training_loss(learnt, 0.1)


REFUSED: dict[str, tuple[str, str, str]] = {
    "no file": ("mine.py:loss", "yours.py:loss", "loss 'yours.py:loss': cannot read yours.py"),
    "no function": ("mine.py:loss", "mine.py:lost", "loss 'mine.py:lost' cannot be imported"),
    "no score function": ("mine.py:doubt", "mine.py:doubts", "score 'mine.py:doubts' cannot be imported"),
    "a module": ("mine.py:loss", "mine.py:torch", "loss 'mine.py:torch' is not a function, but a module"),
    "no path": ("mine.py:doubt", "doubt", "score 'doubt' names no function; write file.py:function"),
    "loss a vector": ("mine.py:loss", "mine.py:doubt", "its loss function returns a tensor of shape (2,)"),
    "loss a number": ("mine.py:loss", "mine.py:number", "its loss function returns a float"),
    "score a scalar": ("mine.py:doubt", "mine.py:scalar", "its score function returns a tensor of shape () for 2"),
    "no name": ('name = "doubt"\n', "", "the score function 'doubt' does not say its name"),
    "no direction": ('better = "lower"\n', "", "the score function 'doubt' does not say its better"),
    "unknown field": ("margin = 0.01", "margins = 0.01", "[score] has no margins; it has function, of"),
    "unknown of": ("margin = 0.01", 'of = "batch"', "[score] of must be 'sample' or 'split', not 'batch'"),
    "wrong range": ("high = 1", "high = -1", "score 'doubt': low (0) must be below high (-1)"),
    "no own direction": ('function = "mine.py:doubt"\n', "", "the score 'accuracy' is the task's own, and ["),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), REFUSED.values(), ids=list(REFUSED))
def test_functions_that_cannot_serve_are_refused_before_anything_trains(
    there: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    Path("doubt.toml").write_text(SPACE.replace(old, new))
    assert command("search", "doubt.toml", "--proposer", "uniform", *SHORT) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not list(there.glob("runs/doubt/*/job.json"))


def test_a_loss_that_is_no_number_is_refused(there: Path) -> None:
    Path("mine.py").write_text(
        MINE.replace("F.multi_margin_loss(outputs, targets)", "outputs.sum() * float('nan')")
    )
    setting = make_setting(load_space("doubt.toml"), changes={"epochs": 1, "images": 64})
    with pytest.raises(InputError, match="the loss of the untrained network of space 'doubt' is nan"):
        preflight(make_plan(setting, ["uniform"], seeds=1, controls=False))


def test_a_module_that_changed_under_a_running_search_is_refused() -> None:
    asked = with_loss(find_task(CLASSIFICATION.name, Path()), "torch.nn.functional:cross_entropy", Path())
    setting = make_setting(load_space("vgg11-digits"), loss="torch.nn.functional:cross_entropy")
    assert asked.loss == setting.task.loss
    spec = setting.dense(0, None).job.spec
    spec["task"]["loss"]["versions"] = ["torch 0.1"]
    with pytest.raises(InputError, match="is not the one this run was planned with"):
        train.run(spec, folder=Path(), progress=lambda _: None, stop=lambda: False)
