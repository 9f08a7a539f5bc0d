"""The arithmetic behind the answer, on numbers made up so that it can be done by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.worth import answer as worth
from benchmarks.worth.__main__ import HERE
from benchmarks.worth.searches import FRESH, Question, Unfinished, measure
from prunas.experiments.plan import make_setting
from prunas.runs.pools.serial import Serial
from prunas.runs.store import Store
from prunas.spaces.load import load_space


def trial(name: str, macs: int, val: float, best: str) -> dict[str, Any]:
    return {
        "architecture": name,
        "macs": 7 * macs,
        "training macs": macs,
        "val": val,
        "best": best,
        "top": val,
    }


@pytest.fixture
def found() -> dict[str, Any]:
    """Two searches: slimming tests 80 and 84, at its better pull 90 and 84; tpe goes from 60 to 90."""
    tpe = [trial("a", 10, 50.0, "a"), trial("b", 20, 70.0, "b"), trial("c", 30, 60.0, "b")]
    warm = [trial("p", 10, 80.0, "p"), trial("d", 10, 85.0, "d"), trial("e", 10, 1.0, "d")]
    tests = {"a": 60.0, "b": 90.0, "p": 80.0, "q": 90.0, "d": 95.0, "t": 81.0}
    pruned = [
        {
            "search": s,
            "pull": pull,
            "architecture": name,
            "macs": {"p": 100, "q": 200}[name],
            "dense training macs": 600,
            "training macs": 10,
            "val": val,
        }
        for s in (0, 1)
        for pull, name, val in ((5.0, "p", 80.0), (2.5, "q", 90.0 - 20 * s))
    ]
    return {
        "pruned": pruned,
        "fixed": [{"proposer": "taper", "search": s, "architecture": "t", "macs": 90} for s in (0, 1)],
        "courses": [
            {"proposer": name, "search": s, "before": before, "trials": trials}
            for name, before, trials in (
                ("tpe", 0, tpe),
                ("random", 0, tpe[:2]),  # ran out of shapes
                ("tpe+slimming", 600, warm),
            )
            for s in (0, 1)
        ],
        "tests": [
            {"search": s, "architecture": name, "test": [value + 3 * s, value + 5 * s]}
            for s in (0, 1)
            for name, value in tests.items()
        ],
        "proxy": [
            {"search": 0, "whole": [1.0, 2.0, 3.0], "short": [1.0, 2.0, 3.0]},
            {"search": 1, "whole": [1.0, 2.0, 3.0], "short": [3.0, 1.0, 2.0]},
        ],
        "epochs": {"whole": 30, "short": 10},
    }


def test_curves_follow_what_is_best_on_validation(found: dict[str, Any]) -> None:
    drawn = worth.curves(found)
    first, second = drawn["tpe"]
    assert (first["accuracy"], second["accuracy"]) == ([60.0, 90.0, 90.0], [64.0, 94.0, 94.0])
    assert first["macs"] == [10, 30, 60]
    assert [own["before"] for own in drawn["tpe+slimming"]] == [600, 600]
    assert drawn["random"][0]["accuracy"] == [60.0, 90.0, 90.0]
    assert drawn["random"][0]["macs"] == [10, 30, 30]


def test_tuning_takes_the_pull_that_validates_best_and_is_paid_for(found: dict[str, Any]) -> None:
    assert worth.pruning_tests(found) == {"slimming": [80.0, 84.0], "slimming, tuned": [90.0, 84.0]}
    assert worth.pruning_costs(found, 1) == {"slimming": 600, "slimming, tuned": 1220}
    assert worth.pruning_costs(found, 10) == {"slimming": 60, "slimming, tuned": 140}


def test_a_sampler_gets_there_when_its_mean_does() -> None:
    none = worth.crossing([[-5.0, -5.1], [-1.0, -1.05]])
    assert none == {"not worse": None, "mean": None, "better": None}
    # t interval of two values: mean +- 12.706 * half their difference
    found = worth.crossing([[-2.0, -1.0], [-0.5, -0.49], [0.5, -0.4], [0.1, 0.101]])
    assert found == {"not worse": 1, "mean": 3, "better": 4}


def test_the_answer(found: dict[str, Any]) -> None:
    says = worth.answer(found)
    assert says["trials"] == 3
    assert says["training macs of a trial"] == 20
    macs = {
        "slimming": 100,
        "slimming, tuned": 150,
        "taper": 90,
        "tpe": 140,
        "random": 140,
        "tpe+slimming": 70,
    }
    assert says["macs of the point"] == macs
    reached = says["trials that reach"]
    # +10 in both searches: equal values have no interval, which decides nothing.
    assert reached["slimming"]["tpe"] == {"not worse": None, "mean": 2, "better": None}
    assert reached["slimming, tuned"]["tpe"]["mean"] == 2
    assert "tpe+slimming" not in reached["slimming"]
    assert says["trials that cost as much"]["slimming"] == {1: 30, 3: 10, 10: 3}
    assert says["warm start"]["against slimming"]["mean"] == 15
    assert says["warm start"]["against tpe"]["mean"] == 5
    assert says["rank correlation of the short schedule"]["mean"] == pytest.approx((1 - 1 / 3) / 2)


def test_never_is_more_than_was_tried(found: dict[str, Any]) -> None:
    for entry in found["tests"]:
        if entry["architecture"] in ("p", "q"):
            entry["test"] = [99.0]
    text = worth.markdown(found)
    assert "| slimming | tpe | 2 | > 3 | > 3 |" in text
    assert "| slimming | 600 / 200 / 60 | 100 | 99.00 | - |" in text


def test_it_is_measured_by_searches_and_fresh_trainings(small_space: Path, tmp_path: Path) -> None:
    question = Question(keep=0.2, searches=2, trials=2, retrain=1, pulls=(1.0, 2.0), proxy=1 / 3)
    setting = make_setting(load_space(str(small_space)), changes={"epochs": 3})
    store, began, said = Store(tmp_path), list[str](), list[str]()

    def stop() -> bool:
        return len(began) > 3

    def ask(stop: Any = lambda: False) -> dict[str, Any]:
        return measure(
            question,
            setting,
            store,
            lambda: Serial(store, lambda job, _: began.append(job.id), stop),
            stop,
            said.append,
        )

    with pytest.raises(Unfinished):
        ask(stop)
    found = ask()
    trained = {run.job.id: run.job.spec for run in store.runs()}
    assert all(run.status == "finished" for run in store.runs())
    began.clear()
    assert ask() == found
    assert began == []
    tested = [spec for spec in trained.values() if spec["score"] == "test"]
    assert {spec["seed"] for spec in tested} == {FRESH, FRESH + 10}
    assert {spec["seed"] for spec in trained.values() if spec["score"] == "val"} == {0, 1}
    assert {spec["split"] for spec in tested} == {"train+val"}
    assert {spec["epochs"] for spec in tested} == {3}
    assert sum(spec["penalty"] is not None for spec in trained.values()) == 4  # two searches, two pulls
    wanted = {(entry["search"], entry["architecture"]) for entry in found["pruned"] + found["fixed"]}
    wanted |= {(c["search"], trial["best"]) for c in found["courses"] for trial in c["trials"]}
    assert {(entry["search"], entry["architecture"]) for entry in found["tests"]} == wanted
    assert [len(pair["whole"]) for pair in found["proxy"]] == [len(pair["short"]) for pair in found["proxy"]]
    assert {name: len(own) for name, own in worth.curves(found).items()} == {
        "tpe": 2,
        "tpe+slimming": 2,
        "random": 2,
        "tpe, short": 2,
    }


def test_the_page_shows_the_results() -> None:
    document = json.loads((HERE / "vgg11-digits.json").read_text())
    assert worth.markdown(document["found"]) in (HERE / "README.md").read_text()
    said = json.loads(json.dumps(worth.answer(document["found"])))
    assert said == document["answer"]
