"""Every method on a given network: those without a penalty train nothing for it, the others train on from it."""

from pathlib import Path

import pytest
import torch

from prunas.errors import InputError
from prunas.experiments.forecast import forecast
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.preflight import asks_penalty, preflight
from prunas.experiments.search import search
from prunas.names import ONE_GIVEN_NETWORK
from prunas.proposers.serving import check_served
from prunas.proposers.table import PROPOSERS
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space

METHODS = [name for name, line in PROPOSERS.items() if "dense" in line.needs]
SPACES = {
    "chain": 'network = "prunas.networks:vgg11"\narguments = { channels = 1, base = 4, pools = 2 }\n',
    "residual": (
        'network = "prunas.networks:preresnet20"\narguments = { channels = 1 }\n'
        '[vary]\ngates = ["*"]\nblocks = ["*"]\n'
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spaces of a chain and of a residual network, and weights of both."""
    folder = tmp_path_factory.mktemp("given")
    for name, text in SPACES.items():
        head, _, vary = text.partition("[vary]")
        rest = f'input = [1, 8, 8]\ndata = "digits"\nrecipe = "tiny"\nweights = "{name}.pth"\n'
        (folder / f"{name}.toml").write_text(head + rest + (f"[vary]{vary}" if vary else ""))
        torch.manual_seed(3)
        torch.save(load_space(str(folder / f"{name}.toml")).build().state_dict(), folder / f"{name}.pth")
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_it_proposes_from_given_weights(name: str, folder: Path, tmp_path: Path) -> None:
    line = PROPOSERS[name]
    for which in ("chain", "residual"):
        space = load_space(str(folder / f"{which}.toml"))
        try:
            check_served(name, space, line.dimensions[0])
        except InputError:
            continue
        break
    setting = make_setting(space, changes={"epochs": 1, "images": 64})
    keep = 0.8 if line.dimensions[0] == "depth" else 0.5
    plan = make_plan(setting, [name], keep=[keep], seeds=2, controls=False, dense=False, protocols=[])
    preflight(plan)
    store = Store(tmp_path)
    findings = search(plan, store, lambda: executor("serial", store))
    assert findings.problems == ()
    assert len(findings.points[name]) == 2
    jobs = [path.name.rpartition("-")[0] for path in (tmp_path / which).glob("*-????????????")]
    assert jobs.count("given") == 1
    penalised = asks_penalty(plan, name)
    assert jobs.count("dense") == (2 if penalised else 0)
    assert forecast(plan).trainings == (2 if penalised else 0)
    assert {row.protocol for row in findings.dense} == ({"given", "penalty"} if penalised else {"given"})


def test_the_penalties_of_the_table_are_asked_about(folder: Path) -> None:
    """Of the methods above some have a penalty and some have none; the control of slimming is tuned too."""
    setting = make_setting(load_space(str(folder / "chain.toml")), changes={"epochs": 1, "images": 64})
    asked = {
        name: asks_penalty(make_plan(setting, [name], keep=[0.5], controls=False), name)
        for name in ("slimming", "slimming-unpenalised", "l1-global")
    }
    assert asked == {"slimming": True, "slimming-unpenalised": True, "l1-global": False}


def test_what_answers_points_of_a_given_network_is_flagged_too(folder: Path, tmp_path: Path) -> None:
    setting = make_setting(load_space(str(folder / "chain.toml")), changes={"epochs": 1, "images": 64})
    plan = make_plan(setting, ["l1-global", "guided", "uniform"], keep=[0.5], seeds=2, dense=False)
    store = Store(tmp_path)
    rows = search(plan, store, lambda: executor("serial", store)).rows
    flagged = {row.proposer for row in rows if ONE_GIVEN_NETWORK in row.flags}
    assert flagged == {"l1-global", "guided", "taper"}
    assert {row.proposer for row in rows} - flagged == {"uniform", "random"}
