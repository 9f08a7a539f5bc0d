import json
from pathlib import Path
from typing import Any

import pytest

from prunas import designs
from prunas.experiments.forecast import forecast
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.record import load_records, save
from prunas.experiments.search import Findings, Plan, search
from prunas.proposers.brief import Proposal
from prunas.protocols import protocol
from prunas.results.record import Record
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.statistics.summary import cost_table, spent
from prunas.works import train as work

EVERYONE = ("slimming", "tpe", "uniform", "random", "taper", "shuffled")


def a_plan(space: Path, proposers: tuple[str, ...] = ("slimming",), **changes: Any) -> Plan:
    recipe = {"epochs": 1, **changes.pop("recipe", {})}
    setting = make_setting(load_space(str(space)), changes=recipe)
    return make_plan(setting, proposers, **{"seeds": 2, **changes})


def run(plan: Plan, root: Path, name: str = "serial", **options: Any) -> Findings:
    store = Store(root)
    return search(plan, store, lambda: executor(name, store, **options))


def outcome_of(findings: Findings) -> list[tuple[object, ...]]:
    """What must not depend on how a search was carried out."""
    return [
        (r.id, r.proposer, r.asked, r.reached, r.search_seed, r.status, r.val_score, r.test_score, r.flags)
        for r in (*findings.rows, *findings.dense)
    ]


@pytest.fixture(scope="module")
def everyone(small_space: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, Findings]:
    plan = a_plan(small_space, EVERYONE, trials=2)
    root = tmp_path_factory.mktemp("runs")
    return plan, root, run(plan, root)


def test_every_proposer_is_trained_at_every_target_and_seed(everyone: tuple[Plan, Path, Findings]) -> None:
    plan, _, findings = everyone
    assert findings.problems == ()
    for name in EVERYONE:
        mine = [row for row in findings.rows if row.proposer == name]
        assert {(row.asked, row.search_seed) for row in mine} == {
            (t, s) for t in plan.targets for s in (0, 1)
        }
        assert all(row.status == "finished" and row.test_score is not None for row in mine)
        assert all(row.search_seed == row.train_seed for row in mine)


def test_the_price_of_a_search_is_what_its_proposer_asked_for(everyone: tuple[Plan, Path, Findings]) -> None:
    plan, _, findings = everyone
    trainings = {(cost.proposer, cost.seed): cost.trainings for cost in findings.costs}
    for seed in (0, 1):
        assert trainings["slimming", seed] == 1  # one dense training serves all targets
        for sampler in ("tpe", "random"):  # a point proposed twice is trained once
            assert len(plan.targets) < trainings[sampler, seed] <= 2 * len(plan.targets)
        assert trainings["uniform", seed] == 0
        for control in ("taper", "shuffled"):  # they answer what slimming found
            assert trainings[control, seed] == 1
    dense = plan.setting.space.cost(plan.setting.space.dense).macs
    (price,) = [c.macs for c in findings.costs if c.proposer == "slimming" and c.seed == 0]
    assert price == 3 * dense * 1 * 1079  # forward and backward, one epoch, the images of the split `train`


def test_a_price_holds_the_searches_that_an_answer_rests_on_each_training_once(
    small_space: Path, tmp_path: Path
) -> None:
    proposers = ("slimming", "l1-global", "thinet-global", "guided", "taper", "tpe+slimming", "uniform")
    plan = a_plan(small_space, proposers, seeds=3, trials=2, controls=False, dense=False)
    findings = run(plan, tmp_path)
    costs = {(cost.proposer, cost.seed): cost for cost in findings.costs}
    dense = 3 * plan.setting.space.cost(plan.setting.space.dense).macs * 1079  # one epoch, as above
    for seed in range(3):
        others = tuple(other for other in range(3) if other != seed)
        # l1-global and thinet-global read the same dense training, so that three methods need two a seed.
        found_by = {name: costs[name, seed] for name in ("slimming", "l1-global", "thinet-global")}
        assert [(cost.trainings, cost.macs) for cost in found_by.values()] == [(1, dense)] * 3
        assert found_by["l1-global"].rests_on == found_by["thinet-global"].rests_on
        taper, guided = costs["taper", seed], costs["guided", seed]
        assert (taper.trainings, taper.macs, taper.seeds) == (2, 2 * dense, (seed,))
        assert (guided.trainings, guided.macs, guided.seeds) == (4, 4 * dense, others)
        started = costs["tpe+slimming", seed]
        assert started.rests_on is not None
        assert {each.id for each in found_by["slimming"].rests_on or ()} < {
            each.id for each in started.rests_on
        }
        assert costs["uniform", seed].rests_on == ()
        assert all(cost.targets == plan.targets for cost in (*found_by.values(), taper, guided, started))
    lines = {line.proposer: line for line in cost_table(findings.costs)}
    assert (lines["guided"].trainings, lines["guided"].seeds, lines["guided"].together) == (4, 2, 6)
    assert (lines["taper"].trainings, lines["taper"].seeds, lines["taper"].together) == (2, 1, 6)
    assert len(spent(findings.costs)) == 6 + len({trial.id for trial in findings.trials})


def test_a_guided_shape_leaves_out_what_its_own_seed_found(small_space: Path, tmp_path: Path) -> None:
    plan = a_plan(small_space, ("slimming", "guided"), seeds=3, controls=False, dense=False)
    findings = run(plan, tmp_path)
    space = plan.setting.space
    for target in plan.targets:
        shapes = {
            seed: point.architecture
            for seed, point in zip(findings.point_seeds["slimming"], findings.points["slimming"], strict=True)
            if point.target == target
        }
        guided = {
            seed: point
            for seed, point in zip(findings.point_seeds["guided"], findings.points["guided"], strict=True)
            if point.target == target
        }
        for seed in range(3):
            others = [shape for other, shape in shapes.items() if other != seed]
            assert guided[seed].architecture == designs.guided(space, others, target)
            assert "none_left_out" not in guided[seed].flags
    alone = run(a_plan(small_space, ("slimming", "guided"), seeds=1, controls=False, dense=False), tmp_path)
    assert all("none_left_out" in row.flags for row in alone.rows if row.proposer == "guided")


def test_repeating_a_search_trains_nothing_and_says_the_same(everyone: tuple[Plan, Path, Findings]) -> None:
    plan, root, findings = everyone
    again = run(plan, root)
    trials = len(list(root.glob("*/trial-*/result.json")))
    assert findings.trained == len({r.id for r in (*findings.rows, *findings.dense)}) + trials
    assert again.trained == 0
    assert outcome_of(again) == outcome_of(findings)
    assert again.costs == findings.costs


def test_the_forecast_counts_the_trainings(everyone: tuple[Plan, Path, Findings]) -> None:
    plan, _, findings = everyone
    points = len(plan.targets) * plan.seeds
    trials, finals, dense = 2 * 2 * points, 6 * points, 2 * plan.seeds
    assert forecast(plan).trainings == trials + finals + dense >= findings.trained


def test_selection_sees_validation_only(everyone: tuple[Plan, Path, Findings]) -> None:
    _, root, findings = everyone
    judged = {row.folder for row in (*findings.rows, *findings.dense) if row.test_score is not None}
    seen = 0
    for path in root.glob("*/*/job.json"):
        spec = json.loads(path.read_text())["spec"]
        if str(path.parent) in judged:
            assert (spec["split"], spec["score"]) == ("train+val", "test")
        else:
            seen += 1
            assert (spec["split"], spec["score"]) == ("train", "val")
    assert seen == len(list(root.glob("*/dense-*"))) + len(list(root.glob("*/trial-*"))) > 10


def test_a_proposer_that_looks_at_the_test_split_is_caught(
    small_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that is fed to a network while points are being found comes from train or validation."""
    from prunas.data.resident import Resident

    fed: list[set[int]] = []
    original = Resident.feed

    def spy(self: Any, members: Any, *args: Any, **kwargs: Any) -> Any:
        fed.append(set(members.tolist()))
        return original(self, members, *args, **kwargs)

    monkeypatch.setattr(Resident, "feed", spy)
    plan = a_plan(small_space, ("slimming", "tpe"), trials=2, seeds=1, controls=False, dense=False)
    run(plan, tmp_path)
    from prunas.data import load

    data = load("digits")
    test = set(data.splits["test"].tolist())
    trains_on_all = set(data.splits["train+val"].tolist())
    finals = sum(members == trains_on_all for members in fed)
    looks = sum(bool(members & test) for members in fed)
    assert finals == looks == 4  # each final training, and nothing else, looks once


@pytest.mark.parametrize("images", [1, 200, 1000])
def test_a_final_training_on_a_part_of_the_images_sees_all_that_its_search_trained_on(
    images: int, small_space: Path
) -> None:
    from prunas.data import load

    setting = make_setting(load_space(str(small_space)), changes={"images": images})
    data = load("digits")
    assert setting.images == {
        split: len(data.members(split, images))
        for split in ("train", "train+val")  # type: ignore[arg-type]
    }
    point = Proposal(setting.space.target(keep=1.0), setting.space.dense)
    final = setting.final(point, protocol("scratch-e"), 0, None, keep=False)
    held_out = -(-images * 269 // 1079)
    # Named by what it is trained on: results of another choice of images are never taken for these.
    assert final.job.spec["data"]["images"] == {"train": images, "val": held_out}
    per_image = 3 * setting.space.cost(setting.space.dense).macs * setting.recipe.epochs
    assert final.macs == per_image * (images + held_out)
    assert "images" not in setting.dense(0, None).job.spec["data"]
    everything = make_setting(load_space(str(small_space)))
    assert (
        "images" not in everything.final(point, protocol("scratch-e"), 0, None, keep=False).job.spec["data"]
    )


def test_a_search_stopped_anywhere_continues_to_the_same_end(
    everyone: tuple[Plan, Path, Findings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _, undisturbed = everyone
    original, starts = work.run, []

    def interrupted(spec: Any, **how: Any) -> Any:
        starts.append(spec)
        if len(starts) % 4 == 0:
            raise KeyboardInterrupt
        return original(spec, **how)

    monkeypatch.setattr(work, "run", interrupted)
    stops = 0
    while True:
        try:
            findings = run(plan, tmp_path)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    assert len(starts) == undisturbed.trained + stops  # nothing that was finished is trained again
    assert outcome_of(findings) == outcome_of(undisturbed)


def test_worker_processes_find_the_same(small_space: Path, tmp_path: Path) -> None:
    plan = a_plan(small_space, seeds=1)
    serial = run(plan, tmp_path / "serial")
    pooled = run(plan, tmp_path / "pool", "processes", workers=2)
    assert outcome_of(pooled) == outcome_of(serial)


def test_a_diverged_dense_training_is_named_and_others_go_on(small_space: Path, tmp_path: Path) -> None:
    plan = a_plan(small_space, seeds=1, recipe={"lr": 1e30}, dense=False)
    findings = run(plan, tmp_path)
    (dense, *_) = findings.problems  # one line: who, what ended, the epoch, the checkpoint
    assert dense == (
        "slimming, seed 0: a training ended failed: the loss is nan in epoch 1 of 1, try a lower learning rate "
        "(last good checkpoint: none)"
    )
    assert {row.proposer for row in findings.rows} == {"uniform", "random"}
    assert {row.status for row in findings.rows} == {"failed"}


def test_finetuning_inherits_what_slimming_kept(small_space: Path, tmp_path: Path) -> None:
    plan = a_plan(small_space, seeds=1, protocols=["scratch-e", "finetune", "scratch-b"], dense=False)
    findings = run(plan, tmp_path)
    tuned = [row for row in findings.rows if row.protocol == "finetune"]
    assert {row.proposer for row in tuned} == {"slimming"}
    space = plan.setting.space
    for row in findings.rows:
        if row.protocol == "scratch-b":
            assert row.epochs == space.cost(space.dense).macs // row.reached.macs  # of one epoch, uncapped


def test_records_survive_storage_and_merge(everyone: tuple[Plan, Path, Findings]) -> None:
    _, root, findings = everyone
    record = findings.record
    path = save(record, root)
    assert Record.from_document(json.loads(path.read_text()), path) == record
    (merged,) = load_records(root)
    assert merged == record


def test_a_training_in_a_store_is_shared_by_everyone_who_wants_it(small_space: Path, tmp_path: Path) -> None:
    first = run(a_plan(small_space, ("uniform",), seeds=1, controls=False, dense=False), tmp_path)
    second = run(a_plan(small_space, seeds=1, dense=False), tmp_path)
    assert first.trained == 2
    shared = {row.id for row in first.rows}
    assert second.trained == 1 + len({row.id for row in second.rows} - shared)  # 1: slimming's dense training
