"""The controller: its gradient by formula, a planted best arm, budgets, learning that goes on."""

from pathlib import Path

import pytest
import torch

from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import search
from prunas.proposers.supernet.enas import ENAS
from prunas.proposers.supernet.quanta import fitted, quantised
from prunas.runs.execute import execute
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.tasks.score import ACCURACY, Score
from prunas.works.controller import Controller, Learner, Shapes, reward, run


def test_the_gradient_on_a_bandit_is_that_of_the_formula() -> None:
    """(R - b)(onehot - p) 1.5 (1 - tanh^2), of the logit of every arm."""
    torch.manual_seed(0)
    controller = Controller(4, [False]).double()
    for module in controller.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.uniform_(module.bias, -1, 1)
    state = controller.cell(torch.zeros(1, 64, dtype=torch.float64))
    z = controller.width(state[0])[0].detach()
    p = (1.5 * z.tanh()).softmax(0)
    arm, advantage = 2, 0.7
    logs, _ = controller.log_probabilities(torch.tensor([[arm]]))
    (-logs * advantage).sum().backward()
    onehot = torch.nn.functional.one_hot(torch.tensor(arm), 4)
    expected = -advantage * (onehot - p) * 1.5 * (1 - z.tanh() ** 2)
    torch.testing.assert_close(controller.width.bias.grad, expected, rtol=1e-6, atol=1e-7)


def best_arm(lr: float) -> float:
    """Probability of the best of eight arms after 300 steps."""
    learner = Learner(8, [False], lr, seed=0)
    worth = torch.tensor([0.5, 0.4, 0.6, 0.5, 0.45, 0.9, 0.5, 0.55])
    for _ in range(300):
        choices = learner.controller.sample(20, learner.generator)
        learner.learn(choices, worth[choices[:, 0]])
    arms = torch.arange(8)[:, None]
    return float(learner.controller.log_probabilities(arms)[0].detach().exp()[5])


def test_a_controller_finds_the_best_arm_and_one_that_does_not_learn_does_not() -> None:
    assert best_arm(1e-3) > 0.5
    assert best_arm(0.0) < 0.2


def test_entropy_is_that_of_the_softmax() -> None:
    controller = Controller(8, [False, True])
    for parameter in controller.parameters():
        torch.nn.init.zeros_(parameter)
    _, entropies = controller.log_probabilities(torch.zeros(3, 2, dtype=torch.int64))
    torch.testing.assert_close(entropies, torch.log(torch.tensor([16.0] * 3)))


def test_rewards_pay_for_what_is_not_at_the_target() -> None:
    assert reward(ACCURACY, 80.0, 0.04) == pytest.approx(0.8)
    assert reward(ACCURACY, 80.0, 0.15) == pytest.approx(0.8 - 2 * 0.1)
    error = Score(name="error", better="lower", low=0.0, high=1.0, margin=0.01)
    assert reward(error, 0.2, 0.0) == pytest.approx(0.8)


def test_decisions_are_in_the_order_of_the_network() -> None:
    import dataclasses

    space = dataclasses.replace(load_space("preresnet20-c10"), blocks=("*",))
    shapes = Shapes.of(space, 8)
    assert sorted(shapes.order) == list(range(len(space.dimensions) + len(space.removable)))
    assert sum(shapes.decisions) == len(space.removable)
    names = [*(d.name for d in space.dimensions), *space.removable]
    stages = [names[part] for part in shapes.order]
    assert stages.index(space.removable[0]) < stages.index(space.removable[-1])
    choices = [7] * len(shapes.order)
    counts, removed = shapes.parts([1 if block else 7 for block in shapes.decisions])
    assert (counts.tolist(), removed) == (space.dense_counts.tolist(), ())
    assert shapes.parts([0 if block else 7 for block in shapes.decisions])[1] == space.removable
    assert len(choices) == len(shapes.decisions)


@pytest.mark.parametrize("removed", [0, 2])
def test_a_shape_is_brought_to_its_target_without_its_blocks(removed: int) -> None:
    import dataclasses

    space = dataclasses.replace(load_space("resnet20-c10"), blocks=("*",))
    target = space.target(keep=0.4, metric="macs")
    counts = quantised(space, 8)[:, 3]
    gone = space.removable[:removed]
    arch = fitted(space, counts, gone, target)
    assert set(arch.removed) == set(gone)
    assert 0.99 * target.value <= space.measure(arch, "macs") <= target.value


@pytest.fixture
def setting():
    return make_setting(load_space("vgg11-digits"), changes={"epochs": 1, "images": 128})


QUICK = {"steps": 3, "samples": 2, "finalists": 3, "images": 64, "quanta": 4, "sampled": 1}


def test_a_search_answers_every_target(setting, tmp_path: Path) -> None:
    plan = make_plan(
        setting,
        ["enas"],
        keep=[0.5, 0.3],
        seeds=1,
        controls=False,
        dense=False,
        protocols=(),
        options={"enas": QUICK},
    )
    store = Store(tmp_path)
    found = search(plan, store, lambda: executor("serial", store))
    assert found.problems == ()
    (cost,) = found.costs
    assert cost.trainings == 3  # one super-network and two controllers
    assert all(spent.macs > 0 for spent in cost.rests_on or ())
    for point in found.points["enas"]:
        reached = setting.space.measure(point.architecture, point.target.metric)
        assert abs(reached / point.target.value - 1) <= 0.01


def test_learning_that_was_stopped_answers_as_an_undisturbed_one(setting, tmp_path: Path) -> None:
    store = Store(tmp_path)
    how = ENAS(**QUICK).scored_by(setting.space)
    trained = setting.supernet(0, how.supernet)
    assert execute(trained.job, store).result is not None
    options = {key: QUICK[key] for key in ("steps", "samples", "finalists", "images")} | {
        "run": trained.job.name, "evaluator": how.to_json(), "lr": 1e-3,
        "target": setting.space.target(keep=0.4).to_json(),
    }  # fmt: skip
    spec = setting.work("supernet/controller", options, 0).task
    runs = store.folder(trained.job).parent

    def go(name: str, allowed: int):
        folder, asked = runs / name, 0
        folder.mkdir(exist_ok=True)

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > allowed

        return run(spec, folder=folder, progress=lambda message: None, stop=stop)

    undisturbed = go("at-once", 10**6)
    assert undisturbed is not None
    assert go("in-pieces", 3) is None
    assert go("in-pieces", 2) is None
    assert go("in-pieces", 3) is None
    continued = go("in-pieces", 10**6)
    assert continued is not None
    del continued["seconds"], undisturbed["seconds"]
    assert continued == undisturbed
