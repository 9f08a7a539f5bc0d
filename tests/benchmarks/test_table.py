"""The table's space is what it says, and the judge's numbers can be done by hand."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.table import build, judge
from benchmarks.table.__main__ import JUDGED, PAGE, main, page
from benchmarks.table.scores import SCORES
from benchmarks.table.searches import SEARCHES, in_order
from benchmarks.table.space import SEEDS, build_order, parts, points, the_space
from benchmarks.table.table import TABLE, Table, load, write
from prunas.costs.target import Target
from prunas.errors import InputError


def table_of(places: list[int], val: Any, test: Any) -> Table:
    """Some points of the space with made-up accuracies, shape (points, seeds)."""
    values = np.array(val, float), np.array(test, float)
    losses = np.zeros((len(places), values[0].shape[1], 4))
    return Table(tuple(points()[i] for i in places), *values, losses, values[0], {})


@pytest.fixture
def four() -> Table:
    """Four points of rising cost: 8, 16, 24, 32 channels in every stage; seeds disagree about the middle."""
    space = the_space()
    equal = [i for i, arch in enumerate(points()) if not arch.removed and len(set(space.counts(arch))) == 1]
    assert [int(space.counts(points()[i])[0]) for i in equal] == [8, 16, 24, 32]
    val = [[10, 10], [30, 20], [20, 30], [40, 40]]
    test = [[11, 13], [24, 20], [28, 32], [40, 44]]
    return table_of(equal, val, test)


def everything(four: Table) -> judge.Budget:
    return judge.Budget(four, 1.0, the_space().target(keep=1.0, metric="macs"))


# The space


def test_the_space_has_512_points_and_two_spaces_inside() -> None:
    assert len(points()) == len({arch.digest for arch in points()}) == 512
    assert [len(part) for part in parts()] == [64, 192, 256]
    assert not any(points()[i].removed for i in parts()[0])
    assert len(set(build_order())) == 512 * SEEDS
    assert {i for i, _ in build_order()[: 64 * SEEDS]} == set(parts()[0])


def test_every_point_of_the_space_is_a_network_of_its_cost() -> None:
    space = the_space()
    for arch in points()[::73]:
        built = sum(p.numel() for p in space.build(arch).parameters())
        assert built == space.cost(arch).params


# The file


def arrays(trained: set[int]) -> dict[str, Any]:
    test = np.full((512, SEEDS), np.nan, np.float32)
    test[sorted(trained)] = np.arange(512, dtype=np.float32)[sorted(trained), None]
    about = {"network": the_space().survey.fingerprint}
    same = {"val": test, "test": test, "seconds": test, "losses": np.repeat(test[..., None], 4, 2)}
    return {**same, "about": np.array(json.dumps(about))}


def test_a_table_that_is_half_done_is_exhaustive_for_a_smaller_space(tmp_path: Path) -> None:
    first, second, third = map(set, parts())
    for trained, whole in ((first, 64), (first | set(list(second)[:-1]), 64), (first | second, 256)):
        write(tmp_path / "t.npz", arrays(trained))
        table = load(tmp_path / "t.npz")
        assert len(table.points) == whole
        assert all(
            points()[int(value)] == arch for value, arch in zip(table.test[:, 0], table.points, strict=True)
        )
    write(tmp_path / "t.npz", arrays(first | second | third))
    assert len(load(tmp_path / "t.npz").points) == 512
    write(tmp_path / "t.npz", arrays(set(list(first)[1:])))
    with pytest.raises(InputError, match="not far enough"):
        load(tmp_path / "t.npz")


def test_a_table_of_another_network_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t.npz", {**arrays(set()), "about": np.array(json.dumps({"network": "another"}))})
    with pytest.raises(InputError, match="another network"):
        load(tmp_path / "t.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "none.npz")


def test_what_is_not_trained_yet_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tested(setting: Any, store: Any, point: int, seed: int) -> Any:
        if (point, seed) != (7, 1):
            return None
        values = {"score": 50.5, "losses": [4.0, 3.0, 2.0, 1.0], "seconds": 2.0, "device": "cpu"}
        return tuple(
            SimpleNamespace(values={**values, "score": score}, machine={"torch": "2", "python": "3"})
            for score in (50.5, 49.0)
        )

    setting: Any = SimpleNamespace(
        recipe=SimpleNamespace(epochs=4, to_json=dict), data="d", identity="i", images={"train": 5000}
    )
    monkeypatch.setattr(build, "_tested", tested)
    store: Any = None
    assert not build.collect(setting, store, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as file:
        assert np.argwhere(~np.isnan(file["test"])).tolist() == [[7, 1]]
        assert (file["val"][7, 1], file["test"][7, 1], file["losses"][7, 1, 2]) == (50.5, 49.0, 2.0)


# Scores


def test_a_score_that_knows_is_right_and_its_opposite_wrong(four: Table) -> None:
    budgets = [everything(four)]
    knows = judge.judge_score(four, lambda arch: float(the_space().cost(arch).macs), budgets)
    assert (knows.tau, knows.regret, knows.needed) == (1.0, (0.0,), (1,))
    wrong = judge.judge_score(four, lambda arch: -float(the_space().cost(arch).macs), budgets)
    # The truth is 12, 22, 30, 42: it begins with the worst, and meets the best last.
    assert (wrong.tau, wrong.regret, wrong.needed) == (-1.0, (30.0,), (4,))


def test_a_score_of_one_swap_and_a_seed_that_it_has_seen(four: Table) -> None:
    one = judge.judge_score(four, four.val[:, 0], [everything(four)], unseen=0)
    assert one.tau == pytest.approx(2 / 3)  # five pairs of six agree with the other seed: 13, 20, 32, 44
    half = judge.Budget(four, 0.6, Target("macs", int(four.cost("macs")[2])))
    seen = judge.judge_score(four, four.val[:, 0], [half], unseen=0)
    assert (seen.regret, seen.needed) == ((12.0,), (2,))  # takes the second, 20; the third has 32


def test_a_score_that_is_no_number_is_named(four: Table) -> None:
    with pytest.raises(InputError, match=four.points[0].digest):
        judge.judge_score(four, lambda arch: float("nan"), [everything(four)])


def test_counted_scores_and_those_that_see_widths() -> None:
    sources: Any = SimpleNamespace(sizes=[np.arange(32.0)] * 3)
    space = the_space()
    arch = points()[parts()[0][5]]
    assert SCORES["macs"](sources)(arch) == space.cost(arch).macs
    kept = sum(sum(range(32 - int(n), 32)) for n in space.counts(arch))
    assert SCORES["l1 kept"](sources)(arch) == kept
    assert SCORES["precrop"](sources)(space.dense) == 0.0 > SCORES["precrop"](sources)(arch)


# Searches


def test_the_course_of_a_search_by_hand(four: Table) -> None:
    def search(budget: judge.Budget, evaluate: judge.Evaluate, seed: int) -> None:
        for place in (1, 2, 1, 0, 3):  # the third costs nothing, and the last is one too many
            evaluate(budget.table.points[place])

    course = judge.judge_search(everything(four), search, 0, 3)
    # Seed 0 sees 30, 20, 10; seed 1 judges 20, 32, 13, where the best has 44.
    assert course == judge.Course((24.0, 24.0, 24.0), None)
    assert judge.judge_search(everything(four), search, 1, 3).regret == (40.0 - 24.0, 12.0, 12.0)
    whole = judge.judge_search(everything(four), search, 0, 6)
    assert (whole.needed, whole.regret) == (4, (24.0, 24.0, 24.0, 0.0, 0.0, 0.0))


def test_a_search_outside_its_budget_is_refused(four: Table) -> None:
    def dear(budget: judge.Budget, evaluate: judge.Evaluate, seed: int) -> None:
        evaluate(the_space().dense)

    small = judge.Budget(four, 0.5, the_space().target(keep=0.5, metric="macs"))
    with pytest.raises(InputError, match="costs more than 50%"):
        judge.judge_search(small, dear, 0, 2)
    with pytest.raises(InputError, match="no point"):
        judge.judge_search(small, lambda *_: None, 0, 2)
    with pytest.raises(InputError, match="not in the table"):
        four.at(points()[parts()[2][0]])


@pytest.mark.parametrize("name", ["random points", "evolution", "random", "tpe"])
def test_every_search_stays_within_its_budget_and_repeats_itself(name: str) -> None:
    places = list(range(512))
    cost = np.array([the_space().cost(arch).macs for arch in points()], float)
    planted = np.repeat(np.log(cost)[:, None], 3, 1)
    table = table_of(places, planted, planted)
    budget = judge.Budget(table, 0.2, the_space().target(keep=0.2, metric="macs"))
    first, again = (judge.judge_search(budget, SEARCHES[name], 1, 6) for _ in range(2))
    assert first == again
    assert list(first.regret) == sorted(first.regret, reverse=True)
    assert judge.judge_search(budget, lambda *how: in_order(cost, *how), 0, 2).needed == 1


def test_the_regret_of_a_proposed_point(four: Table) -> None:
    cost = four.cost("macs")
    asked = Target("macs", int(cost[1]))
    assert judge.lookup_regret(four, four.points[0], asked)["regret"] == 10.0  # 12, where 22 can be had
    above = judge.lookup_regret(four, four.points[2], asked)
    assert above == {"regret": 0.0, "reached": cost[2] / cost[1]}


# What is committed


@pytest.mark.skipif(not TABLE.exists(), reason="the table is not built")
def test_the_table_is_small_and_what_it_says() -> None:
    assert TABLE.stat().st_size < 1_000_000
    try:
        table = load()
    except InputError as error:  # being built in this checkout
        pytest.skip(str(error))
    assert table.about["recipe"]["epochs"] == table.losses.shape[2]
    assert ((table.val > 0) & (table.val < 100)).all()


@pytest.mark.skipif(not JUDGED.exists(), reason="nothing is judged yet")
def test_the_page_is_made_of_what_was_judged() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, json.loads(JUDGED.read_text(encoding="utf-8"))) == text


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import benchmarks.table.table as module

    full = table_of(parts_of(64), np.ones((64, 3)), np.ones((64, 3)))
    monkeypatch.setattr(module, "load", lambda: full)
    for name in ("nowhere:score", "benchmarks.table.table:TABLE"):
        assert main(["judge", "--score", name]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def parts_of(count: int) -> list[int]:
    return list(parts()[0])[:count]


def test_a_score_of_the_users_is_judged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import benchmarks.table.table as module

    cost = np.array([[the_space().cost(points()[i]).macs] * 3 for i in parts_of(64)], float)
    monkeypatch.setattr(module, "load", lambda: replace(table_of(parts_of(64), cost, cost)))
    assert main(["judge", "--score", "tests.benchmarks.test_table:by_macs"]) == 0
    assert "Kendall's tau 1.00, at equal MACs 1.00" in capsys.readouterr().out


def by_macs(arch: Any) -> float:
    return float(the_space().cost(arch).macs)
