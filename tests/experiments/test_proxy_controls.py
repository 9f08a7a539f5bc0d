"""Random and TPE with the evaluator of a method and as many evaluations: who found more?"""

from pathlib import Path

import pytest

from prunas.data import load
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.record import record_of
from prunas.experiments.search import search
from prunas.proposers.evaluators import evaluator
from prunas.proposers.registry import entry, proxy_controls
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.statistics.tables import rivalries

QUICK = {"steps": 2, "samples": 2, "finalists": 2, "images": 128, "quanta": 4, "sampled": 1}


@pytest.fixture
def setting():
    return make_setting(load_space("vgg11-digits"), changes={"epochs": 1, "images": 128})


def test_rivals_have_the_evaluator_and_the_evaluations_of_the_method(setting, tmp_path: Path) -> None:
    plan = make_plan(
        setting, ["enas"], keep=[0.4], seeds=1, controls="proxy", dense=False, options={"enas": QUICK}
    )
    assert {"random@enas", "tpe@enas", "uniform"} <= set(plan.proposers)
    store = Store(tmp_path)
    found = search(plan, store, lambda: executor("serial", store))
    assert found.problems == ()
    val = load("digits").sizes["val"]
    how = evaluator("supernet", quanta=4, sampled=1)
    # By hand: four shapes on a batch of 128 images each, and two finalists by the whole evaluator: on the 128
    # training images that there are, and the validation split.
    one = 128 + min(1000, val)
    assert how.images(val, 128) == one
    wanted = -(-(4 * min(128, val) + 2 * one) // one)
    for name in ("random@enas", "tpe@enas"):
        trials = [trial for trial in found.trials if trial.proposer == name]
        assert {trial.evaluator for trial in trials} == {how.label} == {"supernet quanta=4 sampled=1"}
        assert len(trials) - sum(trial.duplicate for trial in trials) == wanted
        assert [row.kind for row in found.rows if row.proposer == name] == ["control"]
    assert len(list((tmp_path / "vgg11-digits").glob("supernet-*-*"))) <= 1 + 1  # one network, one controller
    (compared,) = rivalries(found.record)
    assert [(each.proposer, each.against) for each in compared] == [
        ("enas", "random@enas"),
        ("enas", "tpe@enas"),
    ]
    words = record_of(plan).plan["command"] or []
    assert "tpe@enas" in words[words.index("--proposer") + 1] or "proxy" in words


def test_where_nobody_evaluates_there_is_nothing_to_rival(setting) -> None:
    with pytest.raises(InputError, match="nobody in this search makes any; add one that does"):
        make_plan(setting, ["slimming"], controls="proxy")
    with pytest.raises(InputError, match="'slimming' does not search by evaluations"):
        entry("tpe@slimming")
    with pytest.raises(InputError, match="only what tries candidates"):
        entry("uniform@enas")


def test_a_rival_brings_its_method_with_it(setting) -> None:
    plan = make_plan(setting, ["random@autoslim"], controls=False)
    assert set(plan.proposers) == {"autoslim", "random@autoslim"}
    assert proxy_controls(["autoslim", "slimming"]) == ("random@autoslim", "tpe@autoslim")
