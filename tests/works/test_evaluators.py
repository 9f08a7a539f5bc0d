"""Evaluators: candidates scored without being trained whole, alike for samplers, agents and methods."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import Findings, search
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.evaluators import EVALUATORS, Evaluator, evaluator
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.works.runtime import chosen_units

QUICK = {"epochs": 1, "images": 256}
CHEAP = {"adaptive-bn": {"norms": 64}, "supernet": {"norms": 64}, "reconstructed": {"calibration": 32}}


def plan_of(how: Evaluator | None, name: str = "tpe", trials: int = 3, **settings):
    setting = make_setting(load_space("vgg11-digits"), changes=QUICK)
    return make_plan(
        setting, [name], keep=[0.3], seeds=1, trials=trials, controls=False, dense=False, protocols=(),
        evaluator=how, **settings,
    )  # fmt: skip


def found(plan, root: Path) -> Findings:
    store = Store(root)
    return search(plan, store, lambda: executor("serial", store))


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_a_sampler_is_steered_by_every_evaluator_and_pays_for_it(name: str, tmp_path: Path) -> None:
    how = evaluator(name, **CHEAP.get(name, {}))
    result = found(plan_of(how), tmp_path)
    assert result.problems == ()
    assert [trial.evaluator for trial in result.trials] == [how.label] * 3
    assert all(trial.val_score is not None for trial in result.trials)
    (cost,) = result.costs
    networks = {"dense": 1, "supernet": 1, "none": 0}[how.entry.source]
    assert cost.trainings == networks + 3
    assert cost.macs == sum(spent.macs for spent in cost.rests_on or ()) > 0
    assert all(spent.macs for spent in cost.rests_on or ())
    best = max(result.trials, key=lambda trial: trial.val_score or 0)
    assert result.points["tpe"][0].architecture.digest == best.architecture
    assert found(plan_of(how), tmp_path).trained == 0  # all of it is there


@pytest.mark.parametrize("name", ["random", "cmaes", "nsga2", "qmc", "amc", "amc-pocketflow"])
def test_other_searchers_take_an_evaluator_too(name: str, tmp_path: Path) -> None:
    result = found(plan_of(evaluator("inherited"), name, 2), tmp_path)
    assert (result.problems, len(result.trials)) == ((), 2)


@pytest.mark.parametrize(("named", "norms"), [(None, 64), ("inherited", 0), ("adaptive-bn", 640)])
def test_netadapt_scores_its_candidates_as_the_search_says_and_by_measured_norms_otherwise(
    named: str | None, norms: int, tmp_path: Path
) -> None:
    how = None if named is None else evaluator(named)
    options = {"netadapt": {"step": 0.4, "images": 64}}
    result = found(plan_of(how, "netadapt", None, options=options), tmp_path)
    assert result.problems == ()
    jobs = [json.loads(path.read_text()) for path in tmp_path.glob("vgg11-digits/evaluate-*/job.json")]
    assert {job["spec"]["options"]["norms"] for job in jobs} == {norms}


def test_the_network_that_candidates_inherit_from_is_trained_once(tmp_path: Path) -> None:
    found(plan_of(evaluator("inherited"), trials=2), tmp_path)
    found(plan_of(evaluator("adaptive-bn", norms=64), trials=2), tmp_path)
    assert len(list((tmp_path / "vgg11-digits").glob("dense-*"))) == 1


class Asking:
    """An agent in small: scores points by evaluators of its own choice, and answers the last."""

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        space = brief.space
        archs = [space.point(widths={space.dimensions[0].name: width}) for width in (4, 8)]
        scores = brief.evaluate_all(archs, evaluator("inherited"))
        assert scores == [brief.evaluate(arch, evaluator("inherited")) for arch in archs]
        brief.evaluate(archs[0])  # by the one that the search names
        return [Proposal(target, archs[1]) for target in brief.targets]


def test_a_method_evaluates_by_its_own_choice_and_by_that_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunas.proposers import registry, table
    from prunas.proposers.entry import Entry

    line = Entry(path=f"{__name__}:Asking", kind="automatic", description="", reference="")
    for module in (registry, table):
        monkeypatch.setattr(module, "PROPOSERS", {**table.PROPOSERS, "asking": line})
    plan = plan_of(evaluator("adaptive-bn", norms=64), trials=None)
    result = found(replace(plan, proposers=("asking",)), tmp_path)
    assert result.problems == ()
    (cost,) = result.costs
    assert cost.trainings == 4  # the dense network, two points, one of them twice


def test_filters_of_the_largest_weights_are_kept() -> None:
    space = load_space("vgg11-digits")
    group = space.dimensions[0]
    state = space.build().state_dict()
    weight = state[f"{group.name}.weight"]
    weight.zero_()
    weight[[1, 5, 6]] = 1.0
    arch = space.point(widths={group.name: 3})
    assert chosen_units(space, arch, state, "largest") == {group.name: [1, 5, 6]}
    assert chosen_units(space, arch, state, "first") == {group.name: [0, 1, 2]}


def test_the_whole_network_scores_about_what_it_scored_with_its_own_statistics(tmp_path: Path) -> None:
    """EagleEye's statistics on the trained network itself: the same images, so nearly the same statistics."""
    setting = make_setting(load_space("vgg11-digits"), changes={"epochs": 8})
    plan = make_plan(setting, ["l1-global"], keep=[0.9], seeds=1, controls=False, dense=False, protocols=())
    store = Store(tmp_path)
    search(plan, store, lambda: executor("serial", store))
    dense = setting.dense(0, None)
    trained = store.result(dense.job)
    assert trained is not None
    from prunas.runs.execute import execute

    how = evaluator("adaptive-bn", norms=1024)
    job = setting.evaluation(setting.space.dense, how, 0, dense.job.name).job
    outcome = execute(job, store)
    assert outcome.result is not None
    assert trained.values["score"] > 60
    assert abs(outcome.result.values["score"] - trained.values["score"]) < 3


def without_norms(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )


def test_a_network_without_batch_norms_is_refused_in_one_line() -> None:
    space = prunas.SearchSpace.from_model(without_norms, (1, 8, 8), name="plain")
    with pytest.raises(
        InputError, match="has none; these can score it: inherited, reconstructed, short-training"
    ):
        evaluator("adaptive-bn").check(space)
    evaluator("inherited").check(space)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("adaptive", "adaptive-bn"),
        ({"name": "adaptive-bn", "norm": 3}, "norms"),
        ({"name": "adaptive-bn", "norms": 0}, "adaptive-bn: norms must be at least 1, not 0"),
        ({"name": "short-training", "share": 0}, "share must be above 0, at most 1"),
    ],
)
def test_what_is_no_evaluator_is_one_line(given, said: str) -> None:
    with pytest.raises(InputError, match=said):
        evaluator(given)


def test_halving_has_no_schedule_to_shorten() -> None:
    with pytest.raises(InputError, match="tpe: halving trains shorter schedules"):
        plan_of(evaluator("inherited"), options={"tpe": {"halving": 2}})


def test_nothing_is_inherited_by_what_may_be_wider_than_its_network() -> None:
    space = replace(load_space("vgg11-digits"), ceiling=1.5)
    setting = make_setting(space, changes=QUICK)
    with pytest.raises(InputError, match="wider than that network; take short-training"):
        make_plan(setting, ["tpe"], trials=2, evaluator=evaluator("inherited"))


def test_an_evaluator_with_nothing_to_score_is_refused() -> None:
    with pytest.raises(InputError, match="nobody here tries any; add --proposer tpe"):
        plan_of(evaluator("inherited"), name="slimming", trials=None)


def test_a_plan_without_an_evaluator_says_nothing_of_one(tmp_path: Path) -> None:
    """Neither records nor jobs of before move."""
    from prunas.experiments.record import record_of

    with_one, without = (record_of(plan_of(how)) for how in (evaluator("inherited"), None))
    assert "evaluator" not in without.plan
    assert with_one.plan["evaluator"] == {"name": "inherited", "options": {}}
    assert with_one.setting != without.setting
    command = with_one.plan["command"] or []
    assert command[command.index("--evaluator") + 1] == "inherited"


def test_images_of_the_validation_split_may_be_fewer(tmp_path: Path) -> None:
    few, every = (partial(evaluator, "inherited")(images=images) for images in (100, 0))
    macs = [min(s.macs for s in found(plan_of(how), tmp_path / str(i)).costs[0].rests_on or ())
            for i, how in enumerate((few, every))]  # fmt: skip
    assert macs[0] < macs[1]
    assert torch.get_default_dtype() == torch.float32
