"""A trained network made smaller: what is tried, within which budget, what is picked and what is written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import prunas
from prunas.data import load
from prunas.errors import InputError
from prunas.experiments.forecast import Forecast
from prunas.experiments.plan import make_setting
from prunas.experiments.shrink import Stopped
from prunas.experiments.shrink_plan import Allotment, allot, make_shrink_plan, parsed_time
from prunas.networks import vgg11
from prunas.results.shrunk import Retrained, best_of
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.shrinking import prepare_shrink
from prunas.shrunk import Shrunk
from prunas.spaces.load import load_space
from prunas.tasks.score import ACCURACY, Score
from prunas.works import tested, train
from prunas.works.runtime import weights as kept_weights

CPU = torch.device("cpu")
FEW: dict[str, Any] = {"proposers": ["l1", "l1-global"], "protocol": ["finetune", "scratch-e"], "epochs": 11}


def small_vgg() -> nn.Module:
    """The network of `small_space`, as a user's own factory."""
    return vgg11(channels=1, base=4, pools=2)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A network that its user trained, in a loop of the user's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = small_vgg()
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for epoch in range(4):
            for x, y in load("digits").batches("train", 64, device=CPU, seed=1, epoch=epoch):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def weights(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "mine.pth"
    torch.save({"state_dict": trained.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def shrunk(small_space: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Shrunk:
    root = tmp_path_factory.mktemp("runs")
    return prunas.shrink(small_space, weights=weights, keep=0.5, metric="macs", out=root, **FEW)


def accuracy(net: nn.Module, split: Any) -> float:
    """In percent, by an evaluation of the user's own."""
    x, y = next(iter(load("digits").batches(split, 10_000, device=CPU)))
    with torch.no_grad():
        return 100 * (net(x).argmax(1) == y).sum().item() / len(y)


# End to end


def test_the_smaller_network_is_within_its_target_and_scores_what_the_record_says(
    shrunk: Shrunk, trained: nn.Module
) -> None:
    record = shrunk.record
    assert record.problems == ()
    assert record.shape.cost.macs <= 0.5 * record.dense.cost.macs * 1.01
    assert sum(p.numel() for p in shrunk.network.parameters()) == record.shape.cost.params
    assert shrunk.dense_score == accuracy(trained, "test")
    assert record.dense.val_score == accuracy(trained, "val")
    assert shrunk.score == accuracy(shrunk.network, "test")
    assert record.picked.val_score == accuracy(shrunk.network, "val")
    assert not shrunk.network.training


def test_every_round_is_in_the_record_and_the_control_goes_through_to_the_end(shrunk: Shrunk) -> None:
    record = shrunk.record
    assert {shape.proposer for shape in record.shapes} == {"l1", "l1-global"}
    assert all(shape.pruned_score is not None for shape in record.shapes)
    full = [training for training in record.trainings if training.round == "full"]
    assert {(each.proposer, each.protocol) for each in full} >= {
        ("l1", "finetune"),
        ("l1-global", "finetune"),
    }
    assert record.control in full and record.picked in full
    assert sum(training.epochs for training in record.trainings) <= FEW["epochs"]
    # The test split says something about what was picked, the control and the given network alone.
    assert {each.folder for each in full if each.test_score is not None} == {
        record.picked.folder,
        record.control.folder if record.control else "",
    }


def test_repeating_the_call_trains_nothing_and_says_the_same(
    shrunk: Shrunk, small_space: Path, weights: Path
) -> None:
    root = shrunk.folder.parent.parent
    again = prunas.shrink(small_space, weights=weights, keep=0.5, metric="macs", out=root, **FEW)
    assert again.record == shrunk.record
    assert again.record.trained == 0 < shrunk.record.trained


def test_a_score_right_after_pruning_is_that_of_inherited_weights_with_new_statistics(shrunk: Shrunk) -> None:
    """Computed here with torch alone: means over batches of what each batch norm sees."""
    store, data = Store(shrunk.folder.parent.parent), load("digits")
    scores = []
    for path in shrunk.folder.parent.glob("evaluate-*/job.json"):
        job = Job.from_json(json.loads(path.read_text()))
        options, result = job.spec["options"], store.result(job)
        arch = prunas.Architecture.from_json(options["architecture"])
        state = kept_weights(shrunk.folder.parent / options["inherit"]["run"])
        net = shrunk.space.build(arch, state, options["inherit"]["kept"])
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum = None
        net.train()
        with torch.no_grad():
            for x, _ in data.calibration(512, seed=0, device=CPU, batch=64, subset=0):
                net(x)
        assert result is not None
        assert accuracy(net.eval(), "val") == pytest.approx(result.values["score"], abs=1.0)  # rounding
        scores.append(result.values["score"])
    assert sorted(scores, reverse=True) == [shape.pruned_score for shape in shrunk.record.shapes]


def test_files_need_no_prunas(shrunk: Shrunk, tmp_path: Path) -> None:
    files, missing = shrunk.save(tmp_path / "small", latency=False)
    plain = ["architecture.json", "result.json"]
    assert missing == []
    assert [file.name for file in files] == sorted(
        [*plain, "network.onnx", "network.py", "report.html", "weights.pth", "weights.safetensors"]
    )
    state = torch.load(tmp_path / "small" / "weights.pth", weights_only=True)
    kept = safetensors.torch.load_file(tmp_path / "small" / "weights.safetensors")
    wanted = shrunk.network.state_dict()
    assert state.keys() == kept.keys() == wanted.keys()
    assert all(
        torch.equal(state[name], value) and torch.equal(kept[name], value) for name, value in wanted.items()
    )
    compile((tmp_path / "small" / "network.py").read_text(), "network.py", "exec")
    document = json.loads((tmp_path / "small" / "result.json").read_text())
    assert prunas.Architecture.from_json(document["architecture"]) == shrunk.architecture
    assert document["picked"] == shrunk.record.picked.to_json()


def test_the_page_says_what_was_picked_and_shows_every_training(shrunk: Shrunk, tmp_path: Path) -> None:
    shrunk.save(tmp_path, latency=False)
    page = (tmp_path / "report.html").read_text()
    assert shrunk.sentence.replace("'", "&#39;") in page
    assert page.count("<tr>") == 3 + 4 + len(shrunk.record.trainings) + len(shrunk.record.shapes)
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    assert "<th></th>" not in page and page.index("<h1") < page.index("<h2")  # read aloud in order


def test_a_function_and_a_state_dict_in_memory_are_enough(
    trained: nn.Module, shrunk: Shrunk, tmp_path: Path
) -> None:
    found = prunas.shrink(
        small_vgg,
        input=(1, 8, 8),
        data="digits",
        weights=trained.state_dict(),
        keep=0.5,
        metric="macs",
        proposers="l1",
        protocol="finetune",
        epochs=2,
        recipe={"name": "tiny"},
        out=tmp_path,
    )
    assert found.record.space == "small-vgg"
    assert found.dense_score == shrunk.dense_score
    assert found.table().count("\n") > 5


# Selection


def planted(monkeypatch: pytest.MonkeyPatch, val: dict[tuple[str, bool], float]) -> list[Any]:
    """Trainings that take no time and have planted scores, by way and by whether they are full ones.

    The test score of what was trained is the opposite of its validation score.
    """
    started = []

    def run(spec: Any, *, folder: Path, progress: Any, stop: Any) -> dict[str, Any]:
        started.append(spec)
        way = folder.name.rpartition("-")[0]
        if spec["keep_weights"]:
            arch = prunas.Architecture.from_json(spec["architecture"])
            state = load_space(spec["space"]).build(arch).state_dict()
            safetensors.torch.save_file(state, folder / "weights.safetensors")
        return {"score": val[way, spec["keep_weights"]]}

    def run_tested(spec: Any, *, folder: Path, progress: Any, stop: Any) -> dict[str, Any]:
        started.append(spec)
        way = spec["options"]["run"].rpartition("-")[0]
        return {"score": 50.0 if way == "given" else 100 - val[way, True], "macs": 0, "seconds": 0.0}

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(tested, "run", run_tested)
    return started


@pytest.mark.parametrize(
    ("best", "scores"),
    [
        ("scratch-e", {"finetune": (90.0, 60.0), "finetune-rewound": (80.0, 70.0), "scratch-e": (0.0, 75.0)}),
        (
            "finetune-rewound",
            {"finetune": (90.0, 60.0), "finetune-rewound": (80.0, 70.0), "scratch-e": (0.0, 65.0)},
        ),
        ("finetune", {"finetune": (10.0, 71.0), "finetune-rewound": (80.0, 70.0), "scratch-e": (0.0, 65.0)}),
    ],
)
def test_the_best_full_training_by_validation_is_picked_whatever_its_test_score(
    best: str,
    scores: dict[str, tuple[float, float]],
    small_space: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted(monkeypatch, {(way, full): pair[full] for way, pair in scores.items() for full in (False, True)})
    ways = {"protocol": list(scores), "proposers": ["l1", "l1-global"], "epochs": 40}
    found = prunas.shrink(small_space, weights=weights, keep=0.5, out=tmp_path, **ways)
    assert found.record.picked.protocol == best
    assert found.score == 100 - scores[best][1]
    control = found.record.control
    assert control is not None
    assert (control.proposer, control.protocol, control.val_score) == (
        "l1",
        "finetune",
        scores["finetune"][1],
    )


def test_where_lower_is_better_the_lowest_comes_first_and_the_unfinished_last() -> None:
    def row(name: str, value: float | None) -> Retrained:
        return Retrained(
            proposer=name, architecture="", protocol="finetune", round="full", epochs=1, train_macs=1,
            status="finished", val_score=value, folder=name,
        )  # fmt: skip

    rows = (row("a", 0.5), row("b", None), row("c", 0.1), row("d", 0.5))
    error = Score(name="error", better="lower")
    assert [each.proposer for each in best_of(rows, error)] == ["c", "a", "d", "b"]
    assert [each.proposer for each in best_of(rows, ACCURACY)] == ["a", "d", "c", "b"]


def test_the_test_split_is_met_once_each_by_three_networks_when_all_is_decided(
    small_space: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunas.data.resident import Resident

    fed: list[set[int]] = []
    original = Resident.feed

    def spy(self: Any, members: Any, *args: Any, **kwargs: Any) -> Any:
        fed.append(set(members.tolist()))
        return original(self, members, *args, **kwargs)

    monkeypatch.setattr(Resident, "feed", spy)
    found = prunas.shrink(small_space, weights=weights, keep=0.5, metric="macs", out=tmp_path, **FEW)
    test = set(load("digits").splits["test"].tolist())
    looks = [index for index, members in enumerate(fed) if members & test]
    networks = {
        found.record.picked.folder,
        getattr(found.record.control, "folder", None),
        "the given network",
    }
    assert looks == list(range(len(fed) - len(networks), len(fed)))
    for path in tmp_path.glob("*/*/job.json"):
        job = json.loads(path.read_text())
        if job["work"] == "train":
            assert (job["spec"]["split"], job["spec"]["score"]) == ("train", "val")


# Stopped and continued


def test_what_was_killed_anywhere_continues_to_the_same_end(
    shrunk: Shrunk, small_space: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, starts = train.run, []

    def interrupted(spec: Any, **how: Any) -> Any:
        starts.append(spec)
        if len(starts) % 2 == 0:
            raise KeyboardInterrupt
        return original(spec, **how)

    monkeypatch.setattr(train, "run", interrupted)
    stops = 0
    while True:
        try:
            again = prunas.shrink(small_space, weights=weights, keep=0.5, metric="macs", out=tmp_path, **FEW)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 1
    trainings = {training.folder for training in shrunk.record.trainings}
    assert len(starts) == len(trainings) + stops  # nothing that was finished is trained again

    def without_folders(record: Any) -> Any:
        def bare(training: Retrained) -> Retrained:
            return replace(training, folder=Path(training.folder).name)

        return replace(
            record,
            trainings=tuple(map(bare, record.trainings)),
            picked=bare(record.picked),
            control=bare(record.control),
        )

    assert without_folders(again.record) == without_folders(shrunk.record)


def test_being_asked_to_stop_stops_and_the_same_call_continues(
    small_space: Path, weights: Path, tmp_path: Path
) -> None:
    asked = {"weights": weights, "keep": 0.5, "metric": "macs", "out": tmp_path, **FEW}
    with pytest.raises(Stopped):
        prunas.shrink(small_space, stop=lambda: True, **asked)
    assert prunas.shrink(small_space, **asked).record.problems == ()


def test_a_training_that_fails_is_named_and_the_others_go_on(
    small_space: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = train.run

    def failing(spec: Any, *, folder: Path, **how: Any) -> Any:
        if spec["inherit"] is None:
            raise InputError("planted")
        return original(spec, folder=folder, **how)

    monkeypatch.setattr(train, "run", failing)
    found = prunas.shrink(small_space, weights=weights, keep=0.5, metric="macs", out=tmp_path, **FEW)
    (problem,) = found.record.problems
    assert problem.startswith("run scratch-e-") and problem.endswith("ended failed: planted")
    assert found.record.picked.protocol == "finetune"
    assert [each.status for each in found.record.trainings if each.protocol == "scratch-e"] == ["failed"]


# Budgets


@pytest.mark.parametrize("shapes", [1, 3, 8])
@pytest.mark.parametrize(("ways", "fresh"), [(1, 0), (2, 1), (4, 1)])
def test_a_plan_stays_within_its_budget_and_more_of_it_is_never_less(
    shapes: int, ways: int, fresh: int
) -> None:
    made: list[Allotment] = []
    for budget in range(1, 400):
        try:
            plan = allot(shapes, ways, fresh, usual=10, longest=40, budget=budget)
        except InputError:
            assert not made  # what is enough once stays enough
            continue
        assert plan.total(ways, fresh) <= budget
        assert plan.shapes <= shapes and plan.finalists <= plan.shapes * ways
        assert 1 <= plan.epochs <= 40
        if made and made[-1].trainings(ways, fresh) == plan.trainings(ways, fresh):
            assert plan.epochs >= made[-1].epochs
        made.append(plan)
    assert made[-1].scratch == (fresh > 0)
    assert made[-1].epochs == 40
    # A single pair has nobody to be compared with.
    assert (made[-1].short == 0) == (min(3, shapes) * ways <= 3)


def test_a_budget_that_is_too_small_is_refused_with_one_that_is_not(small_space: Path, weights: Path) -> None:
    asked: dict[str, Any] = {"weights": weights, "keep": 0.5}
    with pytest.raises(
        InputError, match=r"a budget of 1 epochs is too small.*give --epochs (\d+) or more"
    ) as error:
        prepare_shrink(small_space, epochs=1, **asked)
    least = int(str(error.value).partition("--epochs ")[2].split()[0])
    assert prepare_shrink(small_space, epochs=least, **asked).forecast.epochs <= least
    with pytest.raises(InputError, match="too small"):
        prepare_shrink(small_space, epochs=least - 1, **asked)


def test_the_measured_speed_decides_once_what_a_time_means(
    small_space: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"weights": weights, "keep": 0.5, "time": "30s", "out": tmp_path, "proposers": "l1"}
    asked |= {"protocol": "finetune"}
    monkeypatch.setattr(Forecast, "seconds", lambda self, plan: 6.0 * self.epochs)
    first = prepare_shrink(small_space, **asked)
    assert first.decision is not None
    assert first.decision[1]["epochs"] == 4  # eight tenths of 30 s at 6 s an epoch
    assert first.forecast.epochs == 4
    assert not list(tmp_path.iterdir())  # nothing is written before it runs
    planted(monkeypatch, {("finetune", True): 50.0})
    first.run()
    monkeypatch.setattr(Forecast, "seconds", lambda self, plan: 0.01 * self.epochs)
    assert prepare_shrink(small_space, **asked).plan.allotment == first.plan.allotment
    assert prepare_shrink(small_space, **asked | {"time": "2m"}).forecast.epochs > 4


def test_a_budget_that_the_plan_does_not_need_is_said(small_space: Path, weights: Path) -> None:
    asked: dict[str, Any] = {"weights": weights, "keep": 0.5, "proposers": "l1", "protocol": "finetune"}
    (note,) = (note for note in prepare_shrink(small_space, epochs=100, **asked).notes if "are used" in note)
    assert note.startswith("8 of 100 epochs are used: no training is longer than the recipe's 4")
    assert not any("are used" in note for note in prepare_shrink(small_space, epochs=8, **asked).notes)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("30m", 1800), ("1h30m", 5400), ("45s", 45), ("90min", 5400), (12, 12)],
)
def test_times_are_read_as_people_write_them(text: Any, seconds: float) -> None:
    assert parsed_time(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "0h", "-3m", "2 weeks", 0, float("inf"), float("nan")])
def test_what_is_no_time_is_refused(text: Any) -> None:
    with pytest.raises(InputError, match="is no length of time; write 2h"):
        parsed_time(text)


def test_a_penalty_is_trained_only_where_the_budget_allows_or_the_user_asks(
    weights: Path, small_space: Path
) -> None:
    setting = make_setting(load_space(str(small_space)), weights=weights)

    def names(**asked: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        plan = make_shrink_plan(setting, keep=0.5, metric="macs", **asked)
        return plan.search.proposers, plan.penalised

    everyone, penalised = names()
    assert {"l1", "l1-global", "thinet", "reconstruction", "taper"} <= set(everyone)
    assert "slimming" not in everyone and penalised == ()
    # The tiny recipe's 4 epochs of the dense network cost as much as 8 of one with half of its MACs.
    assert names(epochs=31)[1] == ()
    assert names(epochs=32)[1] == ("slimming",)
    assert names(proposers=["slimming"], epochs=20) == (("slimming", "l1"), ("slimming",))


# The work


def test_the_work_test_scores_what_a_run_kept(shrunk: Shrunk, trained: nn.Module) -> None:
    store, scores = Store(shrunk.folder.parent.parent), {}
    for path in shrunk.folder.parent.glob("test-*/job.json"):
        job = Job.from_json(json.loads(path.read_text()))
        result = store.result(job)
        assert result is not None
        scores[job.spec["options"]["run"]] = result.values["score"]
    (given,) = (run for run in scores if run.startswith("given-"))
    assert scores[given] == accuracy(trained, "test")
    assert scores[shrunk.folder.name] == accuracy(shrunk.network, "test")
