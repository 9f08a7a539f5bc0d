"""A finished training read back by `prunas.load_run`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import prunas
from prunas.errors import InputError

QUICK: dict[str, Any] = {"epochs": 1, "images": 128}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    return prunas.train("vgg11-digits", recipe=QUICK, out=root / "runs", seed=3).folder


def test_network_and_record_are_those_of_the_run(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    for what in (trained, trained.name, result["id"]):
        run = prunas.load_run(what, out=trained.parents[1])
        assert (run.name, run.folder) == (trained.name, trained)
    assert run.score == result["result"]["score"]
    assert (run.score_name, run.split, run.protocol) == ("accuracy", "test", "scratch-e")
    assert (run.epochs, run.seed, run.data) == (1, 3, "digits")
    assert run.recipe.images == 128
    assert run.architecture == run.space.dense
    assert run.cost == run.space.cost(run.architecture)
    assert not any(module.training for module in run.network.modules())
    kept = safetensors.torch.load_file(trained / "weights.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in run.network.state_dict().items())
    assert "network" not in repr(run).partition("architecture")[0]


def test_given_weights_are_a_run_too(tmp_path: Path) -> None:
    space = prunas.load_space("vgg11-digits")
    torch.manual_seed(5)
    net = space.build()
    torch.save(net.state_dict(), tmp_path / "mine.pth")
    out = tmp_path / "runs"
    prunas.search(
        space, ["l1"], keep=[0.5], seeds=1, controls=False, dense=False, recipe=QUICK, out=out,
        weights=str(tmp_path / "mine.pth"), keep_weights=True,
    )  # fmt: skip
    (folder,) = out.glob("vgg11-digits/given-*")
    given = prunas.load_run(folder)
    assert (given.protocol, given.epochs, given.split) == ("given", 0, "val")
    images = torch.randn(2, *space.survey.input)
    with torch.no_grad():
        assert torch.equal(given.network(images), net.eval()(images))
    (folder,) = out.glob("vgg11-digits/scratch-e-*")
    small = prunas.load_run(folder)
    assert small.cost.params < given.cost.params
    assert small.network(images).shape == (2, 10)


def test_what_has_no_network_is_one_line(trained: Path, tmp_path: Path) -> None:
    def without(*names: str) -> Path:
        folder = tmp_path / "-".join(names) / trained.name
        shutil.copytree(trained, folder)
        for name in names:
            (folder / name).unlink()
        return folder

    for folder, message in (
        (without("result.json"), "is not finished; repeat the command"),
        (without("weights.safetensors"), "kept no weights; repeat its search with --keep-weights"),
        (tmp_path, "run in"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            prunas.load_run(folder, out=tmp_path / "none")
        assert "\n" not in str(caught.value)
    damaged = without("job.json") / "job.json"
    damaged.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        prunas.load_run(damaged.parent)


def test_a_work_that_is_no_training_is_one_line(trained: Path, tmp_path: Path) -> None:
    from prunas.runs.job import Job

    job = Job("evaluate", {"seed": 0}, "vgg11-digits", "evaluate")
    folder = tmp_path / job.name
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(job.to_json()))
    with pytest.raises(InputError, match="'evaluate' and leaves no network; name a training"):
        prunas.load_run(folder)
