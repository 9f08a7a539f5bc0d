"""Works that a proposer asks for by name: executed as jobs, once, priced, continued; and `Brief.evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunas import names
from prunas.data import load
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import Findings, Plan, search
from prunas.proposers import registry, table
from prunas.proposers.brief import Brief, Pending, Proposal, Trial
from prunas.proposers.entry import Entry
from prunas.proposers.evaluators import evaluator
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.surgery.weights import inherit
from prunas.training.evaluate import evaluate
from prunas.works.evaluate import estimate_norms
from prunas.works.runtime import task_of, weights
from tests.runs.light_work import starts

CPU = torch.device("cpu")


def count(spec: Mapping[str, Any], *, folder: Path, progress: Any, stop: Any) -> dict[str, Any]:
    """A work of a test: squares a number, and says what it cost."""
    with Path(spec["options"]["starts"]).open("a") as file:
        file.write("once\n")
    progress({"step": 1})
    return {"square": spec["options"]["x"] ** 2, "macs": 1000, "seconds": 2.0, "seed": spec["seed"]}


class Asking:
    """Asks for two works at once, then scores two points, and answers the better one."""

    def __init__(self, starts: str = "") -> None:
        self.starts = starts

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        waits = False
        squares = []
        for x in (2, 3):
            try:
                squares.append(brief.run("test/count", {"x": x, "starts": self.starts})["square"])
            except Pending:
                waits = True
        if waits:
            raise Pending
        assert squares == [4, 9]
        space, (group, *_) = brief.space, brief.space.dimensions
        halves = [range(group.dense // 2), range(group.dense // 2, group.dense)]
        point = space.point(widths={group.name: group.dense // 2})
        how = evaluator("adaptive-bn", norms=64)
        scores = [brief.evaluate(point, how, kept={group.name: half}) for half in halves]
        kept = {group.name: tuple(halves[scores.index(max(scores))])}
        return [Proposal(target, point, kept=kept) for target in brief.targets]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    works = {**names.REGISTERED["prunas.works"], "test/count": f"{__name__}:count"}
    monkeypatch.setattr("prunas.plugins.REGISTERED", {**names.REGISTERED, "prunas.works": works})
    line = Entry(path=f"{__name__}:Asking", kind="automatic", description="", reference="", needs=("dense",))
    for module in (registry, table):
        monkeypatch.setattr(module, "PROPOSERS", {**table.PROPOSERS, "asking": line})
    setting = make_setting(load_space("vgg11-digits"), changes={"epochs": 1, "images": 64})
    options = {"asking": {"starts": str(tmp_path / "starts")}}
    return make_plan(setting, ["asking"], keep=[0.9], seeds=1, controls=False, dense=False, options=options)


def run(plan: Plan, root: Path) -> Findings:
    store = Store(root)
    return search(plan, store, lambda: executor("serial", store))


def test_a_proposer_has_works_done_once_and_pays_for_them(plan: Plan, tmp_path: Path) -> None:
    found = run(plan, tmp_path / "runs")
    assert found.problems == ()
    (cost,) = found.costs
    space, data = plan.setting.space, load("digits")
    macs = space.cost(found.points["asking"][0].architecture).macs
    (dense,) = (row for row in found.dense if row.protocol == "dense")
    # Two counts, the dense training, and two evaluations of 64 training images and the validation split each.
    assert cost.trainings == 5
    assert cost.macs == 2 * 1000 + dense.train_macs + 2 * macs * (64 + data.sizes["val"])
    assert cost.seconds > 4.0
    again = run(plan, tmp_path / "runs")
    assert (again.trained, again.rows, again.costs) == (0, found.rows, found.costs)
    assert starts(tmp_path / "starts") == 2


def test_an_evaluation_is_that_of_the_inherited_weights(plan: Plan, tmp_path: Path) -> None:
    """The score of the job is the one of the same network, sliced and scored here."""
    found = run(plan, tmp_path)
    (point,) = found.points["asking"]
    space = plan.setting.space
    runs = Store(tmp_path).root / space.name
    (folder,) = runs.glob("dense-*")
    assert point.kept is not None
    slices = inherit(space.survey, point.architecture, weights(folder), point.kept)
    net = space.build(point.architecture)
    net.load_state_dict({name: slices[name] for name in net.state_dict()})
    data = load("digits")
    estimate_norms(net, data.calibration(64, seed=0, device=CPU, batch=64, subset=64), CPU)
    kept = {group: list(units) for group, units in point.kept.items()}
    options = {
        "architecture": point.architecture.to_json(),
        "inherit": {"run": folder.name, "kept": kept},
        "norms": 64,
        "images": 1000,
    }
    stored = Store(tmp_path).result(plan.setting.work("evaluate", options, 0))
    assert stored is not None
    assert stored.values["score"] == evaluate(
        net,
        task_of(plan.setting.task, plan.setting.data_reference),
        "val",
        device=CPU,
        recipe=plan.setting.recipe,
    )


def test_statistics_of_batch_norms_are_those_of_the_images() -> None:
    norm = nn.BatchNorm1d(3)
    net = nn.Sequential(norm, nn.Dropout(0.5)).eval()
    batches = torch.arange(24.0).view(2, 4, 3)
    assert estimate_norms(net, [(x, torch.zeros(4)) for x in batches], CPU) == 8
    torch.testing.assert_close(norm.running_mean, batches.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, batches.var(1).mean(0))
    assert (norm.momentum, norm.training, net[1].training) == (0.1, False, False)


def test_a_work_that_fails_or_is_unknown_is_one_line(plan: Plan, tmp_path: Path) -> None:
    broken = replace(plan, options={"asking": {"starts": str(tmp_path / "nowhere" / "starts")}})
    (line,) = run(broken, tmp_path / "a").problems
    assert line.startswith("asking, seed 0: work 'test/count' ended failed: FileNotFoundError")


def test_channels_of_a_scored_point_must_be_named() -> None:
    space = load_space("vgg11-digits")
    group = space.dimensions[0]
    brief = Brief(space, (), 0, dense=lambda penalty: pytest.fail("trained"))
    with pytest.raises(Pending):
        Brief(space, (), 0).run("evaluate", {})
    brief = replace(brief, dense=lambda penalty: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match="keeps 4 units, but 0 are named; say in `kept`"):
        brief.evaluate(space.point(widths={group.name: 4}), kept={})
