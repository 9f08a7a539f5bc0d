"""Trials that fail: counted, told to the sampler, listed; what nothing can do without still ends its search."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest

import prunas
from prunas.cli import main
from prunas.errors import InputError
from prunas.experiments.forecast import dry_rows
from prunas.experiments.optuna_studies import open_storage, write_studies
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.record import record_of, save
from prunas.experiments.search import Findings, Plan, search
from prunas.proposers.baselines.controls import flagged
from prunas.proposers.brief import Brief, Trial
from prunas.proposers.registry import entry
from prunas.runs.pools.serial import Serial
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.training.loop import Diverged, TrainingOutcome
from prunas.works import train as work

Numbers = set[int]
LOSS = "the loss is nan in epoch 1 of 1, try a lower learning rate (last good checkpoint: none)"


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> Callable[[Numbers], list[int]]:
    """Replaces training by one that knows its result at once and diverges at the calls given."""

    def install(failing: Numbers) -> list[int]:
        calls: list[int] = []

        def train(net: Any, *args: Any, epochs: int, score: str, **kwargs: Any) -> TrainingOutcome:
            calls.append(len(calls))
            if len(calls) - 1 in failing:
                raise Diverged(LOSS)
            accuracy = 50 + 10 * (sum(p.numel() for p in net.parameters()) % 97) / 97
            return TrainingOutcome(
                epochs=epochs, steps=1, seconds=1.0, losses=(1.0,), train_accuracies=(accuracy,),
                val_accuracies=(), accuracy=accuracy, regulariser={}, images_per_second=1.0, execution={},
            )  # fmt: skip

        monkeypatch.setattr(work, "train", train)
        return calls

    return install


def a_plan(space: Path, name: str, **changes: Any) -> Plan:
    setting = make_setting(load_space(str(space)), changes={"epochs": 9})
    few = {"seeds": 1, "keep": [0.5, 0.2], "controls": False, "dense": False, "trials": 6}
    return make_plan(setting, [name], **(few | changes))


def run(plan: Plan, root: Path) -> Findings:
    store = Store(root)
    return search(plan, store, lambda: Serial(store))


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2", "qmc", "random"])
def test_a_search_goes_on_without_a_trial_that_diverged(
    name: str, small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]]
) -> None:
    diverging({2, 5})
    findings = run(a_plan(small_space, name), tmp_path)
    failed = {t.id: (t.val_score, t.error) for t in findings.trials if t.status == "failed"}
    assert list(failed.values()) == [(None, LOSS)] * 2
    distinct = {trial.id for trial in findings.trials}
    assert len(distinct) == 12 or name == "random"  # a failed trial counts; random draws some shapes twice
    assert {row.asked.keep for row in findings.rows if row.status == "finished"} == {0.5, 0.2}
    for row in findings.rows:
        of_target = [t for t in findings.trials if t.asked == row.asked and t.val_score is not None]
        assert row.architecture == max(of_target, key=lambda trial: trial.val_score or 0).architecture
    (problem,) = findings.problems
    assert problem.startswith(
        f"{name}, seed 0: 2 of {len(findings.trials)} trials failed, the search went on"
    )
    assert problem.endswith(LOSS)
    (cost,) = findings.costs
    assert cost.trainings == len(distinct)  # what it spent on failed trials is paid for too


@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_schedules_of_any_length_may_fail(
    number: int, small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]]
) -> None:
    diverging({number})
    options = {"tpe": {"halving": 3, "batch": 2}}
    findings = run(a_plan(small_space, "tpe", keep=[0.2], options=options), tmp_path)
    assert [trial.status for trial in findings.trials].count("failed") == 1
    assert len(findings.rows) == 1
    assert sum(trial.fraction for trial in findings.trials if not trial.duplicate) >= 6 - 1e-9


def test_when_every_trial_of_a_target_fails_the_others_are_answered(
    small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]]
) -> None:
    diverging({0, 2})  # trials of the first target and the second take turns
    findings = run(a_plan(small_space, "tpe", trials=2), tmp_path)
    assert [row.asked.keep for row in findings.rows] == [0.2]
    assert any("every trial at 50 % failed" in problem for problem in findings.problems)


def test_the_same_command_tries_a_failed_trial_again(
    small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]]
) -> None:
    diverging({1})
    plan = a_plan(small_space, "random")  # whose points do not depend on results
    first = run(plan, tmp_path)
    calls = diverging(set())
    second = run(plan, tmp_path)
    assert len(calls) == 1
    assert second.problems == ()
    before, after = ([t.architecture for t in findings.trials] for findings in (first, second))
    assert before == after


def test_a_dense_training_that_fails_ends_only_who_needs_it(
    small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]]
) -> None:
    diverging({0})
    setting = make_setting(load_space(str(small_space)), changes={"epochs": 1})
    names = ["l1", "uniform"]
    plan = make_plan(setting, names, seeds=1, keep=[0.2], controls=False, dense=False)
    findings = run(plan, tmp_path)
    assert {row.proposer for row in findings.rows} == {"uniform"}
    assert findings.problems == (f"l1, seed 0: a training ended failed: {LOSS}",)


def test_a_stopped_search_counts_no_trial_as_failed(
    small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]]
) -> None:
    calls = diverging(set())
    plan, store = a_plan(small_space, "tpe"), Store(tmp_path)
    stopped = search(plan, store, lambda: Serial(store, stop=lambda: len(calls) >= 3))
    assert "failed" not in {trial.status for trial in stopped.trials}
    assert stopped.rows == ()


def test_failed_trials_are_stored_printed_and_written_as_studies(
    small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]], capsys: Any
) -> None:
    diverging({2})
    arguments = ["search", small_space, "--proposer", "tpe", "--trials", "4", "--keep", "0.2", "--seeds", "1"]
    arguments += ["--no-controls", "--no-dense", "--epochs", "1", "--out", tmp_path, "--json"]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    schema = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())
    jsonschema.validate(document, {"$ref": "#/$defs/search", "$defs": schema["$defs"]})
    assert ended.value.code == 1  # some runs failed
    assert LOSS in printed.err
    assert [trial["status"] for trial in document["trials"]].count("failed") == 1
    assert [run["status"] for run in document["runs"]] == ["finished"]

    plan = a_plan(small_space, "tpe", keep=[0.2], trials=4)
    findings = run(plan, tmp_path)
    record = record_of(plan, findings)
    save(record, record.document(), tmp_path, plan)
    diverging({0})
    plan = a_plan(small_space, "nsga2", keep=[0.2], trials=4)
    findings = run(plan, tmp_path / "other")
    record = record_of(plan, findings)
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    write_studies([record], tmp_path / "other", open_storage(url))
    (name,) = optuna.get_all_study_names(url)
    trials = optuna.load_study(study_name=name, storage=url).trials
    assert [trial.state.name for trial in trials] == [
        "FAIL" if trial.val_score is None else "COMPLETE" for trial in findings.trials
    ]
    assert trials[0].user_attrs["prunas"]["error"] == LOSS


def test_found_points_that_cannot_be_trained_leave_nothing_to_search_around(small_space: Path) -> None:
    space = load_space(str(small_space))
    target = space.target(keep=0.2)
    from prunas import designs

    found = (flagged(space, designs.uniform(space, target), target),)
    brief = Brief(space, (target,), seed=0, trials=3, found=found)
    failed = [Trial(found[0], None)]
    assert entry("cmaes+slimming").build().propose(brief, failed)  # from the middle of its ranges
    with pytest.raises(InputError, match="tpe: no found point of 20 % could be trained"):
        entry("tpe+slimming").build(neighbourhood=0.2).propose(brief, failed)


def test_studies_of_a_search_without_trials_are_said_not_to_be(
    small_space: Path, tmp_path: Path, diverging: Callable[[Numbers], list[int]], capsys: Any
) -> None:
    diverging(set())
    arguments = [
        "search",
        small_space,
        "--proposer",
        "uniform",
        "--keep",
        "0.2",
        "--seeds",
        "1",
        "--no-dense",
    ]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in [*arguments, "--no-controls", "--out", tmp_path / "runs"]])
    assert not ended.value.code
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["optuna", "--storage", f"sqlite:///{tmp_path / 'made.db'}", "--out", str(tmp_path / "runs")])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert "tried candidates, so there are no studies to write" in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "made.db").exists()


def test_controls_that_no_protocol_can_train_do_not_join(small_space: Path) -> None:
    setting = make_setting(load_space(str(small_space)))
    assert make_plan(setting, ["slimming"], protocols=["finetune"]).proposers == ("slimming",)
    both = make_plan(setting, ["slimming"], protocols=["finetune", "scratch-e"])
    assert set(both.proposers) == {"slimming", "uniform", "random", "taper"}
    rows = {(row["proposer"], row["protocol"]) for row in dry_rows(both)}
    assert rows == {("slimming", "finetune"), *((name, "scratch-e") for name in both.proposers)}
