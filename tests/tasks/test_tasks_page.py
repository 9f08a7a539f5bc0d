"""The code of docs/tasks.md, run as it stands."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import prunas
from examples.canvases import canvases
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.preflight import preflight
from prunas.names import REGISTERED
from prunas.recipe import recipe
from prunas.spaces.load import load_space
from prunas.tasks import measures
from prunas.training.step import Step
from tests.tasks.arrays import held

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "tasks.md").read_text()
FUNCTIONS, GRID = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(SPACE,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
TASK = """

def task():
    from prunas.tasks.regression import Regression
    from tests.tasks.test_tasks_page import DRAWN, IMAGES, held

    return Regression(held(IMAGES, DRAWN.counts))
"""
DRAWN = canvases(64, seed=5)
IMAGES = DRAWN.images.transpose(0, 3, 1, 2) / np.float32(255)


def test_the_page_lists_every_task_and_every_measure() -> None:
    assert re.findall(r"^\| `(\S+)`", PAGE, re.M) == list(REGISTERED["prunas.tasks"])
    assert all(f"`{name}`" in PAGE or f"measures:{name}`" in PAGE for name in measures.__all__)


def test_the_loss_and_the_score_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FUNCTIONS + TASK)
    arguments = (
        'network = "prunas.networks:vgg11"\narguments = { channels = 1, base = 4, pools = 2, classes = 1 }\n'
    )
    assert tomllib.loads(SPACE)["task"] == "regression"
    own_data = SPACE.replace('"regression"', '"mine.py:task"')
    Path("mine.toml").write_text(f'{arguments}input = [1, 32, 32]\nrecipe = "tiny"\n{own_data}')
    setting = make_setting(load_space("mine.toml"), changes={"batch": 8})
    assert setting.score.label == "relative error" and setting.score.better == "lower"
    preflight(make_plan(setting, ["uniform"], seeds=1, controls=False))


class Free(nn.Module):
    """Outputs that can be anything."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.zeros(shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.outputs


def test_the_grid_reads_what_its_loss_teaches() -> None:
    module: dict[str, Any] = {}
    exec(compile(GRID, "docs/tasks.md", "exec"), module)
    data = held(IMAGES, {"boxes": DRAWN.boxes, "labels": DRAWN.labels}, classes=10)
    task = module["Grid"](data)
    assert task.unusable() is None
    batch = next(iter(data.batches("train", 8, device=torch.device("cpu"))))
    net = Free((8, 15, 8, 8))
    assert task.unfit(net.outputs, 8) is None and "is wanted" in task.unfit(net.outputs[:, :14], 8)
    assert task.result([task.totals(net, batch)]) < 10
    step = Step(
        net,
        task,
        lambda draw: batch,
        recipe("tiny").replace(optimizer="adamw", weight_decay=0.0),
        torch.device("cpu"),
    )
    for lr, steps in ((0.3, 80), (0.03, 60)):
        step.set_lr(lr)
        for _ in range(steps):
            step(())
    assert task.result([task.totals(net, batch)]) > 95
