"""The greedy pass over a super-network: planted answers, all budgets from one pass, continued where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import search
from prunas.proposers.evaluators import evaluator
from prunas.proposers.supernet.autoslim import answer, counts_after, steps
from prunas.proposers.supernet.quanta import quantised
from prunas.runs.execute import execute
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.works.greedy import Batches


class Useless(nn.Module):
    """Three layers, the second of which is beside the way: whatever it computes is multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.useless = nn.Conv2d(16, 16, 3, padding=1)
        self.back = nn.Conv2d(16, 16, 3, padding=1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)
        self.last = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x + self.back(self.useless(x).relu())
        return self.fc(self.last(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.from_model(Useless, (1, 8, 8), name="useless")


def test_a_planted_useless_layer_goes_first(space: SearchSpace) -> None:
    """By real slices of a network that was trained a little, on real images; nothing is made up but the layer."""
    setting = make_setting(load_space("vgg11-digits"))
    from prunas.works.runtime import task_of

    task = task_of(setting.task, setting.data_reference)
    torch.manual_seed(0)
    net = Useless()
    optimiser = torch.optim.SGD([p for n, p in net.named_parameters() if "back" not in n], 0.05, 0.9)
    for epoch in range(6):
        for images, labels in task.data.batches("train", 64, device=torch.device("cpu"), seed=0, epoch=epoch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimiser.step()
    batches = Batches(space, task, setting.recipe, net.state_dict(), 256, torch.device("cpu"))
    table, names = quantised(space, 8), [d.name for d in space.dimensions]
    target = space.target(keep=0.6, metric="macs")
    taught = [names[i] for i in steps(space, table, target, lambda c: batches.score(space.counted(c)))]
    assert taught[:5] == ["useless"] * 5
    ignorant = [names[i] for i in steps(space, table, target, lambda counts: 0.0)]
    assert ignorant[:5] != ["useless"] * 5


@pytest.mark.parametrize("by", ["error", "ratio"])
def test_costs_fall_with_every_step_and_every_target_is_met_on_the_way(by: str) -> None:
    space = load_space("resnet20-c10")
    table = quantised(space, 8)
    targets = [space.target(keep=keep, metric="macs") for keep in (0.75, 0.5, 0.25)]
    weight = np.random.default_rng(0).uniform(0.5, 2, len(table))

    def gain(counts) -> float:
        return float((weight * np.log(counts)).sum())

    path = list(steps(space, table, targets[-1], gain, by))
    costs = [int(space.measures(counts_after(table, path[:n]), "macs")[0]) for n in range(len(path) + 1)]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == len(costs)
    for target in targets:
        counts = answer(space, table, path, target)
        reached = int(space.measures(counts, "macs")[0])
        assert 0.99 * target.value <= reached <= target.value
        on_the_way = next(n for n, cost in enumerate(costs) if cost <= target.value)
        assert (counts >= counts_after(table, path[:on_the_way])).all()
    # A pass that ends earlier takes the same steps.
    assert (
        list(steps(space, table, targets[0], gain, by))
        == path[: len(list(steps(space, table, targets[0], gain, by)))]
    )
    assert [*path[:5], *steps(space, table, targets[-1], gain, by, path[:5])] == path


def test_the_ratio_weighs_what_a_step_saves() -> None:
    """By hand: of two layers, one loses 1 and saves much, the other loses half of that and saves little."""
    space = load_space("vgg11-digits")
    table = quantised(space, 8)
    first, last = 0, len(table) - 2
    saved = [
        float(space.measures(table[:, -1], "macs")[0] - space.measures(counts_after(table, [i]), "macs")[0])
        for i in (first, last)
    ]
    assert saved[0] != saved[1]
    large, small = (first, last) if saved[0] > saved[1] else (last, first)
    losses = {large: 1.0, small: 0.5 * 1.01 * 2 * min(saved) / max(saved)}
    assert losses[small] < losses[large]

    def gain(counts) -> float:
        lost = [
            losses.get(i, 100.0) * (table[i, -1] - n) / (table[i, -1] - table[i, -2])
            for i, n in enumerate(counts)
        ]
        return -float(sum(lost))

    target = space.target(keep=0.999, metric="macs")
    assert next(steps(space, table, target, gain, "error")) == small
    assert next(steps(space, table, target, gain, "ratio")) == large


@pytest.fixture
def setting():
    return make_setting(load_space("vgg11-digits"), changes={"epochs": 1, "images": 128})


def test_a_search_answers_all_targets_from_one_training_and_one_pass(setting, tmp_path: Path) -> None:
    options = {"autoslim": {"images": 64, "quanta": 4}}
    plan = make_plan(
        setting,
        ["autoslim"],
        keep=[0.6, 0.3],
        seeds=1,
        controls=False,
        dense=False,
        protocols=(),
        options=options,
    )
    store = Store(tmp_path)
    found = search(plan, store, lambda: executor("serial", store))
    assert found.problems == ()
    (cost,) = found.costs
    assert cost.trainings == 2
    assert all(spent.macs > 0 for spent in cost.rests_on or ())
    for point in found.points["autoslim"]:
        reached = setting.space.measure(point.architecture, point.target.metric)
        assert abs(reached / point.target.value - 1) <= 0.01


def test_a_pass_that_was_stopped_takes_the_steps_of_an_undisturbed_one(setting, tmp_path: Path) -> None:
    store = Store(tmp_path)
    trained = setting.supernet(0, {"quanta": 4, "sampled": 1, "lengths": 1.0})
    assert execute(trained.job, store).result is not None
    options = {
        "run": trained.job.name, "evaluator": evaluator("supernet", quanta=4, sampled=1).to_json(),
        "by": "error", "images": 64,
        "target": setting.space.target(keep=0.4).to_json(),
    }  # fmt: skip
    undisturbed = execute(setting.work("supernet/greedy", options, 0), store).result
    assert undisturbed is not None
    assert len(undisturbed.values["path"]) > 4
    from prunas.works.greedy import run

    spec = setting.work("supernet/greedy", options, 0).task
    folder = store.folder(trained.job).parent / "greedy-in-pieces"
    folder.mkdir()
    for allowed in (1, 23, 40):
        asked = 0

        def stop(allowed: int = allowed) -> bool:
            nonlocal asked
            asked += 1
            return asked > allowed

        assert run(spec, folder=folder, progress=lambda message: None, stop=stop) is None
    assert json.loads((folder / "path.json").read_text())["path"]
    ended = run(spec, folder=folder, progress=lambda message: None, stop=lambda: False)
    assert ended is not None
    assert (ended["path"], ended["scores"]) == (undisturbed.values["path"], undisturbed.values["scores"])
