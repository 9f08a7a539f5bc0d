"""Methods that look at training images, in a search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunas.data import load
from prunas.data.resident import Resident
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import search
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.works.runtime import CALIBRATION_BATCH


@pytest.mark.parametrize("subset", [0, 300])
def test_methods_that_look_at_images_see_training_images_of_their_seed(
    subset: int, small_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []
    original = Resident.feed

    def spy(self: Resident, members: Any, batch: int, *, augment: bool = False, **options: Any) -> Any:
        if batch == CALIBRATION_BATCH and not augment:
            shown.append(tuple(members.tolist()))
        return original(self, members, batch, augment=augment, **options)

    monkeypatch.setattr(Resident, "feed", spy)
    setting = make_setting(load_space(str(small_space)), changes={"epochs": 1, "images": subset})
    options = {"reconstruction": {"responses": 5000}}
    names = ("l1", "l1-global", "thinet-global", "reconstruction")
    plan = make_plan(
        setting, names, protocols=("scratch-e", "finetune"), seeds=2, controls=False, options=options
    )
    store = Store(tmp_path)
    findings = search(plan, store, lambda: executor("serial", store))

    assert findings.problems == ()
    kinds = {(row.proposer, row.kind) for row in findings.rows if row.status == "finished"}
    automatic = {("l1-global", "automatic"), ("thinet-global", "automatic")}
    assert kinds == automatic | {("l1", "predefined"), ("reconstruction", "predefined")}
    assert len(findings.rows) == len(names) * 2 * 2 * len(plan.targets)
    dense = {cost.trainings for cost in findings.costs}
    assert dense == {1}  # one dense training serves all targets
    trained_on = load("digits").members("train", subset)
    assert {len(members) for members in shown} == {256, len(trained_on)}
    for members in shown:
        assert np.isin(members, trained_on).all()
    assert len({members for members in shown if len(members) == 256}) == 2
