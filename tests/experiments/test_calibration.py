"""Methods that look at training images, in a search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunas.data import load
from prunas.data.dataset import DataSet
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import search
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.space import load_space


def test_methods_that_look_at_images_see_training_images_of_their_seed(
    small_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, tuple[int, ...]]] = []
    original = DataSet.calibration

    def spy(self: DataSet, images: int, *, seed: int, split: Any = "train", **options: Any) -> Any:
        seen.append((images, seed, tuple(self.members(split, images, seed).tolist())))
        return original(self, images, seed=seed, split=split, **options)

    monkeypatch.setattr(DataSet, "calibration", spy)
    setting = make_setting(load_space(str(small_space)), changes={"epochs": 1})
    options = {"reconstruction": {"responses": 5000}}
    names = ("l1", "l1-global", "thinet-global", "reconstruction")
    plan = make_plan(setting, names, seeds=2, controls=False, options=options)
    store = Store(tmp_path)
    findings = search(plan, store, lambda: executor("serial", store))

    assert findings.problems == ()
    kinds = {(row.proposer, row.kind) for row in findings.rows if row.status == "finished"}
    automatic = {("l1-global", "automatic"), ("thinet-global", "automatic")}
    assert kinds == automatic | {("l1", "predefined"), ("reconstruction", "predefined")}
    assert len(findings.rows) == len(names) * 2 * len(plan.targets)
    dense = {cost.trainings for cost in findings.costs}
    assert dense == {1}  # one dense training serves all targets
    train = load("digits").splits["train"]
    assert {(images, seed) for images, seed, _ in seen} == {(n, s) for n in (256, len(train)) for s in (0, 1)}
    for _, _, members in seen:
        assert np.isin(members, train).all()
    assert len({members for n, _, members in seen if n == 256}) == 2
