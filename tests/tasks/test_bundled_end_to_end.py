"""Bundled tasks through `prunas.search` and the command line: tables, figures and page speak of their score."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import prunas
from prunas.api import prepare_search
from prunas.cli import main
from prunas.errors import InputError
from prunas.tasks import measures

MINE = """
import numpy as np
import torch
from torch import nn

from examples.canvases import canvases
from prunas.tasks.detection import Detection
from prunas.tasks.multilabel import Multilabel
from prunas.tasks.regression import Regression
from prunas.tasks.segmentation import Segmentation
from tests.tasks.arrays import held

DRAWN = canvases(64, seed=3)
IMAGES = DRAWN.images.transpose(0, 3, 1, 2) / np.float32(255)


def regression():
    return Regression(held(IMAGES, DRAWN.counts))


def segmentation():
    return Segmentation(held(IMAGES, DRAWN.masks.astype(np.int64), classes=11))


def multilabel():
    return Multilabel(held(IMAGES, DRAWN.present, classes=10))


def detection():
    return Detection(held(IMAGES, {"boxes": DRAWN.boxes, "labels": DRAWN.detector_labels}, classes=11))


class Net(nn.Module):
    def __init__(self, outputs, dense):
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, outputs, 1)
        self.dense = dense

    def forward(self, x):
        x = self.last(torch.relu(self.norm2(self.two(torch.relu(self.norm(self.one(x)))))))
        return {"out": x} if self.dense else x.mean((2, 3))


def make(outputs=1, dense=False):
    return Net(outputs, dense)
"""
SPACE = """
network = "mine.py:make"
arguments = {{ outputs = {outputs}, dense = {dense} }}
input = [1, 32, 32]
task = "mine.py:{task}"
recipe = "tiny"
keep = [0.5]
"""
OUTPUTS = {"regression": 1, "multilabel": 10, "segmentation": 11, "detection": 11}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the space of a task into the working folder, with changes."""
    monkeypatch.chdir(tmp_path)

    def written(task: str, outputs: int | None = None, source: str = MINE) -> str:
        Path("mine.py").write_text(source)
        dense = "true" if task == "segmentation" else "false"
        text = SPACE.format(task=task, outputs=outputs or OUTPUTS[task], dense=dense)
        Path(f"{task}.toml").write_text(text)
        return f"{task}.toml"

    return written


@pytest.mark.parametrize(
    ("task", "says", "better"),
    [
        ("regression", "test RMSE", "lower"),
        ("segmentation", "test mean IoU (%)", "higher"),
        ("multilabel", "test mAP (%)", "higher"),
    ],
)
def test_a_search_speaks_of_its_tasks_score(
    write: Any, capsys: pytest.CaptureFixture[str], task: str, says: str, better: str
) -> None:
    found = prunas.search(
        write(task), ["slimming", "tpe"], seeds=2, trials=2, recipe={"epochs": 2, "batch": 8}
    )
    score = found.record.score
    assert score.better == better and score.label in says
    rows = [row for row in found.record.rows if row.score is not None]
    assert {row.proposer for row in rows} >= {"slimming", "tpe", "uniform"}
    written = [found.table()]
    assert says in written[0] and ("Lower RMSE is better." in written[0]) == (better == "lower")
    for words in (
        ("compare", task),
        ("plot", "efficiency", task),
        ("plot", "pareto", task),
        ("report", task),
    ):
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        assert ended.value.code in (None, 0)
        shown = capsys.readouterr()
        written += [shown.out, shown.err]
    written += [path.read_text() for path in Path("runs").rglob("*.svg")]
    written += [Path("report.html").read_text()]
    assert len(written) >= 8
    assert not [text for text in written if "accura" in text.lower()]
    assert all(score.name in text for text in written[-3:])


REFUSED = [
    ("regression", 2, MINE, "returns a tensor of shape (2, 2) for 2 samples; the shape of its targets"),
    ("multilabel", 9, MINE, "returns a tensor of shape (2, 9) for 2 samples; 10 numbers per image"),
    ("segmentation", 10, MINE, "has 10 outputs per pixel, and its data have 11 classes; give its factory as many"),
    ("detection", 11, MINE, "returns a Tensor in evaluation; a list with a dict of boxes, labels and scores"),
    ("regression", 1, MINE.replace("DRAWN.counts", "DRAWN.counts * np.nan"), "have targets in train that are not"),
    ("segmentation", 11, MINE.replace("DRAWN.masks", "0 * DRAWN.masks"), "have only class 0 in the masks of"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "outputs", "source", "says"), REFUSED)
def test_what_does_not_fit_is_refused_before_anything_trains(
    write: Any, task: str, outputs: int, source: str, says: str
) -> None:
    with pytest.raises(InputError) as error:
        prunas.search(write(task, outputs, source), "uniform", seeds=1)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not list(Path("runs").rglob("job.json"))


def test_functions_given_in_python_learn_and_judge(write: Any) -> None:
    found = prunas.search(
        write("regression"),
        "uniform",
        seeds=1,
        controls=False,
        dense=False,
        recipe={"epochs": 1, "batch": 8},
        loss=torch.nn.functional.smooth_l1_loss,
        score={"function": measures.mean_absolute_error, "unit": "digits"},
    )
    assert found.record.score.label == "mean absolute error (digits)"
    trained = prunas.train(
        write("regression"), score="prunas.tasks.measures:r2", recipe={"epochs": 1, "batch": 8}
    )
    assert trained.row.score is not None and trained.row.score <= 1


def test_a_step_is_timed_whatever_the_network_returns(write: Any) -> None:
    prepared = prepare_search(write("segmentation"), "uniform", seeds=1, recipe={"epochs": 1, "batch": 8})
    assert prepared.forecasts[-1].seconds(prepared.plan) > 0


def test_results_hold_the_tasks_score(write: Any) -> None:
    found = prunas.search(
        write("regression"), "uniform", seeds=1, controls=False, dense=False, recipe={"epochs": 1, "batch": 8}
    )
    (row,) = found.record.rows
    result = json.loads((Path(row.folder) / "result.json").read_text())["result"]
    assert (result["score_name"], result["score"]) == ("RMSE", row.score)
    assert row.chance is not None and row.chance > 0
