"""Lambdas, a script's functions, loaded arrays: trained in this process, named by what they are."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import prunas
from prunas import live
from prunas.data import load
from prunas.errors import InputError
from prunas.tasks.classification import Classification

QUICK: dict[str, Any] = {"keep": 0.5, "seeds": 1, "recipe": {"epochs": 1, "images": 64}, "controls": False}


def network(width: int = 8, activation: type[nn.Module] = nn.ReLU, scale: float = 1.0) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), activation(), nn.Conv2d(width, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    if scale != 1:
        nn.init.normal_(net[0].weight, std=scale)
    return net


class Mine(Classification):
    """Classification by another name."""

    name = "mine"


def a_space(factory: Callable[[], nn.Module] | None = None, **settings: Any) -> prunas.SearchSpace:
    return prunas.SearchSpace.from_model(
        factory or (lambda: network()), (1, 8, 8), name="lambdas", **{"data": load("digits")} | settings
    )


def test_a_lambda_and_a_loaded_data_set_are_searched_and_found_again(tmp_path: Path) -> None:
    ways = {"protocol": ["scratch-e", "finetune"], "out": tmp_path} | QUICK
    found = prunas.search(a_space(), "l1-global", executor="serial", **ways)
    assert (found.problems, found.complete, found.record.data) == ((), True, "digits")
    assert {row.protocol for row in found.rows} == {"scratch-e", "finetune"}
    again = prunas.search(
        a_space(), "l1-global", executor="serial", **ways
    )  # another lambda that does the same
    assert (again.trained, again.rows) == (0, found.rows)
    (read,) = prunas.load_results(tmp_path)
    assert read.space.survey == found.space.survey
    assert found.record.plan["command"] is None  # no command can say it


def test_tasks_may_be_live_too(tmp_path: Path) -> None:
    space = a_space()
    usual = prunas.search(space, "uniform", out=tmp_path, executor="serial", **QUICK)
    other = prunas.search(
        space, "uniform", task=lambda data: Mine(data), out=tmp_path, executor="serial", **QUICK
    )
    assert other.trained == usual.trained == 2
    same = a_space(task=lambda data: Mine(data))
    assert prunas.search(same, "uniform", out=tmp_path, executor="serial", **QUICK).trained == 0
    trained = prunas.train(space, task=lambda data: Mine(data), recipe=QUICK["recipe"], out=tmp_path)
    assert trained.outcome.status == "finished"


def test_a_data_set_may_replace_the_spaces_own(small_space: Path, tmp_path: Path) -> None:
    found = prunas.search(
        str(small_space), "uniform", data=load("digits"), out=tmp_path, executor="serial", **QUICK
    )
    assert (found.complete, found.record.data) == (True, "digits")
    with pytest.raises(
        InputError, match="data: a list; give a DataSet, or train, val and test as arrays or Datasets"
    ):
        prunas.search(str(small_space), "uniform", data=[1, 2], out=tmp_path, **QUICK)


@pytest.mark.parametrize("name", ["processes", "ray", "slurm"])
def test_executors_with_other_processes_refuse_what_is_live(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"executor '{name}' trains in other processes, which cannot make live:netw"
    ):
        prunas.search(a_space(), "uniform", executor=name, out=tmp_path / "runs", **QUICK)
    assert not (tmp_path / "runs").exists()


def test_another_process_is_told_what_to_do(tmp_path: Path) -> None:
    reference = json.dumps(a_space().reference)
    code = "import json, sys, prunas; prunas.load_space(json.loads(sys.argv[1])).build()"
    done = subprocess.run(
        [sys.executable, "-c", code, reference], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "was made in Python by another process; make it again in this one" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(width=9),
        lambda: network(activation=nn.GELU),
        lambda: network(scale=2.0),
        lambda: nn.Sequential(network()),
    ],
    ids=["width", "activation", "initial weights", "names"],
)
def test_another_network_has_another_name(other: Callable[[], nn.Module]) -> None:
    assert a_space(other).reference != a_space().reference


def test_names_do_not_hang_on_the_random_state() -> None:
    one = a_space().reference
    torch.rand(5)
    before = torch.get_rng_state()
    assert a_space().reference == one
    assert torch.equal(torch.get_rng_state(), before)


def test_code_is_told_apart_by_what_it_does() -> None:
    def made(number: int, plus: int) -> Callable[[], int]:
        return lambda: number + plus

    assert live.code_digest(made(1, 2)) == live.code_digest(made(1, 2))
    others = [made(1, 3), lambda: 3, partial(made, 1, 2), partial(made, 1, 3), made, Mine, network, print]
    digests = [live.code_digest(other) for other in [made(1, 2), *others]]
    assert len(set(digests)) == len(digests)
    used = {"__name__": "elsewhere"}
    exec("WIDTH = 3\ndef inner(): return WIDTH\nouter = lambda: inner()", used)
    before = live.code_digest(used["outer"])
    exec("WIDTH = 4", used)
    assert live.code_digest(used["outer"]) != before


def test_names_say_what_they_name() -> None:
    name = live.name_of("my data", value := object(), "1f")
    assert (name, live.label(name), live.label("digits")) == ("live:my_data_1f", "my_data", "digits")
    assert live.value(name) is value
    assert live.names_in({"a": [name, "other"], "b": {"c": name}}) == [name]
