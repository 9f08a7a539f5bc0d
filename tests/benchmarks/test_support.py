"""The published support table is what the survey says today, and what is wrong in it is named with its cause."""

import copy
import json
import os
import random
import signal
import threading
import tomllib
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from benchmarks.support import __main__ as command
from benchmarks.support import oracle, page
from benchmarks.support.networks import NETWORKS, Network
from benchmarks.support.row import TOLERANCE, measure, surveyed, wrong
from benchmarks.support.side_by_side import rows_of
from prunas.surgery.assemble import build

ROWS = {row["network"]: row for row in page.read(page.ROWS)}
SAMPLE = ("resnet18", "squeezenet1_1", "vgg11_bn", "densenet40 (CIFAR)")
OURS = ("torchvision", "bundled", "family")
"""Kinds of networks that every machine with the development tools can make, and that must have a row."""

LIBRARIES = ("timm", "transformers")
"""Kinds that are made where that library is installed."""

SAID = ("params", "macs", "groups", "maskable", "units", "gates", "blocks")


def test_every_network_has_a_row_and_what_is_wrong_has_its_cause() -> None:
    makeable = [name for name, row in ROWS.items() if row["kind"] not in LIBRARIES or find_spec(row["kind"])]
    assert [name for name in NETWORKS if name in ROWS] == makeable
    assert {n for n, network in NETWORKS.items() if network.kind in OURS} <= set(ROWS)
    causes = tomllib.loads(page.FAULTS.read_text(encoding="utf-8"))["faults"]
    assert {name for name, row in ROWS.items() if wrong(row)} == {
        n for cause in causes for n in cause["networks"]
    }
    assert not [name for name, row in ROWS.items() if row["kind"] == "torchvision" and "refused" in row]


def test_the_page_is_what_the_results_say() -> None:
    assert page.README.read_text(encoding="utf-8") == page.page(list(ROWS.values()), page.read(page.PEER))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_survey_today_says_what_the_row_says(name: str) -> None:
    _, said = surveyed(NETWORKS[name])
    assert {field: said[field] for field in SAID} == {field: ROWS[name][field] for field in SAID}
    assert [item["why"] for item in said["frozen"]] == [item["why"] for item in ROWS[name]["frozen"]]


@pytest.mark.parametrize("name", ["squeeze and excitation", "layer scale", "group norm", "auxiliary head"])
def test_a_row_measured_today_is_right(name: str) -> None:
    row = measure(NETWORKS[name])
    assert wrong(row) == []
    assert row["groups"] == ROWS[name]["groups"] > 0
    assert row["singly"]["points"] == row["groups"] + row["gates"] + row["blocks"]


def test_points_of_a_network_with_blocks_are_right() -> None:
    network = NETWORKS["mobilenet_v3_small"]
    made, _ = surveyed(network)
    judge = oracle.Oracle(network.factory, made, oracle.batch_of(network.probe, network.batch))
    chance = random.Random(0)
    removed = [block.name for block in made.blocks[:2]]
    chosen = oracle.point(made, oracle.random_kept(made, chance), removed)
    found = judge.difference(oracle.random_selection(made, chosen, chance))
    assert max(found.eval, found.train) <= TOLERANCE
    assert found.effect > 0.1


def test_the_oracle_notices_wrong_units() -> None:
    network = NETWORKS["squeeze and excitation"]
    made, _ = surveyed(network)
    images = oracle.batch_of(network.probe, network.batch)
    judge = oracle.Oracle(network.factory, made, images)
    kept = oracle.random_kept(made, random.Random(0))
    other = kept | {"conv": tuple(range(len(kept["conv"])))}
    assert other != kept
    built = build(
        judge.factory, made, oracle.point(made, kept).arch, weights=judge.dense.state_dict(), kept=other
    )
    with torch.no_grad(), oracle.masked(judge.dense, made, oracle.point(made, kept)) as reference:
        expected, _ = reference(False, images)
        assert oracle.relative(built.eval()(*images), expected) > 1e-3


def fresh(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "network": "resnet18", "kind": "torchvision", "params": 1000, "groups": 3, "inexact": [],
        "left_behind": [], "extraordinary": [], "singly": None,
        "points": {"groups": {"eval": 1e-15, "train": 1e-14, "effect": 0.5}},
    }  # fmt: skip
    return row | changes


def test_what_is_right_is_not_wrong() -> None:
    assert wrong(fresh()) == []
    assert wrong(fresh(groups=0, points={"groups": {"eval": 0.0, "train": 0.0, "effect": 0.0}})) == []
    assert wrong(fresh(points={}, params=10**9)) == []
    assert wrong({"network": "x", "kind": "family", "refused": "one line"}) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"points": {"groups": {"eval": 1e-6, "train": 0.0, "effect": 0.5}}},
            "another function in eval mode",
        ),
        (
            {"points": {"groups": {"eval": 0.0, "train": float("inf"), "effect": 0.5}}},
            "another function in train",
        ),
        (
            {"points": {"groups": {"eval": float("nan"), "train": 0.0, "effect": 0.5}}},
            "another function in eval",
        ),
        ({"singly": {"eval": 0.1, "train": 0.0, "effect": 0.5}}, "singly: another function in eval mode"),
        ({"points": {"groups": {"eval": 0.0, "train": 0.0, "effect": 0.0}}}, "no point changes the output"),
        ({"points": {}}, "its function was not compared"),
        ({"inexact": ["dense: (1, 2) for (1, 3)"]}, "another cost than torch counts"),
        ({"left_behind": ["torch's random state"]}, "the survey changes torch's random state"),
        ({"extraordinary": ["the built network is a GraphModule"]}, "the built network is a GraphModule"),
        ({"error": "KeyError: 3"}, "KeyError: 3"),
        ({"refused": "cannot be traced"}, "torchvision's classification models must survey"),
    ],
)
def test_what_is_wrong_is_told(changes: dict[str, Any], fault: str) -> None:
    assert any(told.startswith(fault) or fault in told for told in wrong(fresh(**changes)))


def test_the_command_fails_and_prints_a_wrong_row(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = copy.deepcopy(ROWS["resnet18"])
    row["points"]["groups"]["train"] = 0.5
    for name in ("ROWS", "PEER", "README"):
        monkeypatch.setattr(page, name, tmp_path / name)
    page.write(page.ROWS, [row])
    monkeypatch.setattr("sys.argv", ["support", "--page"])
    assert command.main() == 1
    told = capsys.readouterr()
    assert told.err == "WRONG resnet18: groups: another function in train mode (5e-01)\n"
    assert "\n- resnet18: " in page.README.read_text(encoding="utf-8")
    page.write(page.ROWS, [ROWS["resnet18"]])
    assert command.main() == 0


def test_both_couple_the_same_channels_where_torch_pruning_is_right() -> None:
    rows = page.read(page.PEER)
    agreed = {
        row["network"] for row in rows if row["outcome"] == "right" and row["equal"] == row["compared"] > 0
    }
    assert {"resnet18", "resnet50", "vgg11_bn", "densenet121", "mobilenet_v2"} <= agreed


def measure_or_die(network: Network) -> dict[str, Any]:
    """Measures nothing: one network ends its process, one is never done, the others have a row at once."""
    if network.name == "squeezenet1_0":
        os.abort()
    if network.name == "squeezenet1_1":
        threading.Event().wait()
    return {"network": network.name, "took": 0.0, "threads": torch.get_num_threads()}


def test_a_process_that_dies_or_hangs_costs_its_own_row_only() -> None:
    names = ["vgg11", "squeezenet1_0", "squeezenet1_1", "vgg13", "vgg16"]
    rows = {row["network"]: row for row in rows_of(names, 2, timeout=10.0, measure=measure_or_die)}
    assert sorted(rows) == sorted(names)
    assert {rows[name]["threads"] for name in ("vgg11", "vgg13", "vgg16")} == {1}
    assert wrong(rows["squeezenet1_0"]) == [f"its process ended with code {-signal.SIGABRT}"]
    assert wrong(rows["squeezenet1_1"]) == ["it was not done after 10 s"]
    assert {"kind", "inputs", "took"} <= rows["squeezenet1_1"].keys()


def test_rows_come_side_by_side_as_from_one_process(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ROWS", "PEER", "README"):
        monkeypatch.setattr(page, name, tmp_path / name)
    names = ["layer scale", "group norm"]
    monkeypatch.setattr("sys.argv", ["support", *names, "--processes", "2"])
    assert command.main() == 0
    rows = {row["network"]: row for row in page.read(page.ROWS)}
    assert list(rows) == [name for name in NETWORKS if name in names]
    for name in names:
        changing = ("seconds", "making", "took", "date", "where", "sources")
        alone = {key: value for key, value in measure(NETWORKS[name]).items() if key not in changing}
        assert {key: value for key, value in rows[name].items() if key not in changing} == json.loads(
            json.dumps(alone)
        )
    capsys.readouterr()
    assert command.main() == 0  # nothing is left to measure
    assert capsys.readouterr().out.startswith("2 rows, 0 wrong")


def test_no_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["support", "--processes", "0"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    assert "--processes must be at least 1" in capsys.readouterr().err
