"""A task of the user's: a score that is better where it is lower, from a file beside the space, from search on."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from prunas.data import load
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.preflight import preflight
from prunas.experiments.record import setting_digest
from prunas.proposers.brief import Proposal
from prunas.spaces.load import load_space
from prunas.tasks.base import training_loss
from prunas.tasks.load import CLASSIFICATION, load_task
from prunas.works import train
from tests.commands import command
from tests.tasks.brightness import Brightness

SOURCE = Path(__file__).with_name("brightness.py").read_text()
SPACE = """
network = "prunas.networks:vgg11"
arguments = { channels = 1, base = 4, pools = 2, classes = 1 }
input = [1, 8, 8]
data = "digits"
task = "mine.py:Brightness"
recipe = "tiny"
keep = [0.4]
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a space and its task."""
    monkeypatch.chdir(tmp_path)
    Path("bright.toml").write_text(SPACE)
    Path("mine.py").write_text(SOURCE)
    return tmp_path


def grey_levels(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float64).mean((1, 2, 3))


def test_images_without_classes_are_not_mixed(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("search", "bright.toml", "--recipe-set", "mixup=0.2") == 2
    assert "has no images of classes to mix" in capsys.readouterr().err
    assert not (there / "runs").exists()


def test_a_search_ends_in_numbers_of_the_task(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--proposer", "slimming", "--proposer", "tpe", "--trials", "4", "--seeds", "1", "--no-controls"]
    short = ["--epochs", "2", "--images", "320", "--workers", "1", "--json"]
    assert command("search", "bright.toml", *words, *short) == 0
    says = json.loads(capsys.readouterr().out)
    folders = [Path(row["folder"]) for row in (*says["runs"], *says["dense"], *says["trials"])]
    results = {folder: json.loads((folder / "result.json").read_text())["result"] for folder in folders}
    assert {result["score_name"] for result in results.values()} == {"RMSE"}
    assert {Path(row["folder"]): row["test_score"] for row in says["runs"]}.items() <= {
        folder: result["score"] for folder, result in results.items()
    }.items()
    assert not any("accuracy" in key for result in results.values() for key in result)
    # The best trial is the one of the lowest score.
    trials = {row["architecture"]: row["val_score"] for row in says["trials"]}
    assert len(set(trials.values())) > 1
    (answer,) = (row for row in says["runs"] if row["proposer"] == "tpe")
    assert answer["architecture"] == min(trials, key=lambda arch: trials[arch])
    # The score of a network that kept its weights, from its outputs in float64 and the pixels of the files.
    (dense,) = (row for row in says["dense"] if row["val_score"] is not None)
    space, data = load_space("bright.toml"), load("digits")
    net = space.build()
    net.load_state_dict(safetensors.torch.load_file(Path(dense["folder"]) / "weights.safetensors"))
    images, _ = next(iter(data.batches("val", 1000, device=torch.device("cpu"))))
    with torch.no_grad():
        outputs = net.eval().double()(images.double()).squeeze(1).numpy()
    errors = outputs - grey_levels(data.pixels[data.splits["val"]])
    assert dense["val_score"] == pytest.approx(math.sqrt((errors**2).mean()), rel=1e-4)
    # The task travels with the run, not with the file.
    spec = json.loads((Path(answer["folder"]) / "job.json").read_text())["spec"]
    assert spec["task"] == {
        "name": "mine.py:Brightness",
        "identity": Brightness(data).identity,
        "source": SOURCE,
    }
    log = [json.loads(line) for line in (Path(dense["folder"]) / "log.jsonl").read_text().splitlines()]
    assert [line["train_score"] for line in log] == results[Path(dense["folder"])]["train_scores"]
    # Tables, figures and report say what the score is, and never what it is not.
    assert says["score"]["name"] == "RMSE"
    assert command("compare", "bright") == 0
    table = capsys.readouterr().out
    assert "test RMSE (grey levels)" in table
    assert "Lower RMSE is better." in table
    assert command("plot", "efficiency", "bright") == 0
    assert command("report", "bright") == 0
    written = [table, capsys.readouterr().out, Path("report.html").read_text()]
    written += [path.read_text() for path in there.glob("runs/bright/figures/*.svg")]
    assert len(written) == 4
    assert not any("accurac" in text.lower() for text in written)


def test_the_task_names_the_run(there: Path) -> None:
    def final(**changes: Any) -> Any:
        setting = make_setting(load_space("bright.toml"), changes={"images": 64}, **changes)
        point = Proposal(setting.space.target(keep=0.4), setting.space.dense)
        plan = make_plan(setting, ["uniform"], seeds=1, controls=False)
        return setting.final(point, plan.protocols[0], 0, None, keep=False).job, setting_digest(plan)

    job, setting = final()
    assert (job.id, setting) == (final()[0].id, final()[1])
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.py").write_text(SOURCE)
    assert final(task="elsewhere/mine.py:Brightness")[0].id == job.id  # where it lies does not matter
    Path("mine.py").write_text(SOURCE.replace("square().mean()", "abs().mean()"))
    other, other_setting = final()
    assert other.id != job.id and other_setting != setting


def test_a_task_that_says_nothing_of_teachers_is_refused_before_anything_is_trained(there: Path) -> None:
    words = (
        "search",
        "bright.toml",
        "--proposer",
        "l1-global",
        "--keep",
        "0.5",
        "--protocol",
        "finetune+distill",
    )
    assert command(*words, "--images", "64", "--epochs", "1", "--no-controls", "--yes") == 2
    assert not list(there.glob("runs/**/result.json"))
    plan = make_plan(make_setting(load_space("bright.toml")), ["l1-global"], protocols=["finetune+distill"])
    with pytest.raises(
        InputError, match=r"task 'brightness' cannot be taught .* use a protocol without \+distill"
    ):
        preflight(plan)
    # Once it does, it can.
    says = (
        "\n    def distillation_loss(self, student, teacher, temperature):\n"
        "        return (student - {}).square().mean()\n"
    )
    Path("mine.py").write_text(SOURCE + says.format("teacher"))
    preflight(
        make_plan(make_setting(load_space("bright.toml")), ["l1-global"], protocols=["finetune+distill"])
    )
    Path("mine.py").write_text(SOURCE + says.format("pupil"))
    plan = make_plan(make_setting(load_space("bright.toml")), ["l1-global"], protocols=["finetune+distill"])
    with pytest.raises(InputError, match=r"cannot train the network of space 'bright': NameError: .*pupil"):
        preflight(plan)


def test_classification_is_named_by_its_data_alone() -> None:
    setting = make_setting(load_space("vgg11-digits"), changes={"images": 64})
    assert (setting.task.name, setting.task.identity) == (CLASSIFICATION.name, setting.identity)
    assert "task" not in setting.dense(0, None).job.spec


def test_a_task_is_given_in_python(there: Path) -> None:
    space = load_space("bright.toml")
    setting = make_setting(space, task=Brightness)
    assert setting.task.name == "tests.tasks.brightness:Brightness"
    assert setting.task.versions
    assert setting.score == Brightness.score
    preflight(make_plan(setting, ["uniform"], seeds=1, controls=False))

    def local(data: Any) -> Brightness:
        return Brightness(data)

    for nowhere in (local, lambda data: Brightness(data), partial(Brightness)):  # for this process alone
        setting = make_setting(space, task=nowhere)
        assert setting.live == [setting.task.name]
        assert setting.score == Brightness.score


def test_a_task_may_bring_its_own_samples(there: Path) -> None:
    Path("mine.py").write_text(SOURCE + "\n\ndef alone():\n    from prunas.data import load\n\n"
                               "    return Brightness(load('digits'))\n")  # fmt: skip
    Path("bright.toml").write_text(SPACE.replace('data = "digits"\n', "").replace(":Brightness", ":alone"))
    setting = make_setting(load_space("bright.toml"), changes={"epochs": 1, "images": 64})
    assert (setting.data, setting.identity) == ("", "")
    plan = make_plan(setting, ["uniform"], seeds=1, controls=False)
    preflight(plan)
    done = train.run(
        setting.dense(0, None).job.spec, folder=there, progress=lambda _: None, stop=lambda: False
    )
    assert done is not None and done["score"] > 0


def test_a_task_that_changed_under_a_running_search_is_refused(there: Path) -> None:
    setting = make_setting(load_space("bright.toml"), changes={"epochs": 1, "images": 64})
    spec = setting.dense(0, None).job.spec
    changed = {**spec, "task": {**spec["task"], "identity": "0" * 12}}
    refused = "task 'mine.py:Brightness' is not the one this run was planned with; undo its change"
    with pytest.raises(InputError, match=refused):
        train.run(changed, folder=there, progress=lambda _: None, stop=lambda: False)
    # A module, whose source does not travel, is compared by its files.
    of_module = make_setting(load_space("bright.toml"), task=Brightness).task
    load_task(of_module, load("digits"))
    with pytest.raises(InputError, match="is not the one this run was planned with"):
        load_task(replace(of_module, versions=("0" * 64,)), load("digits"))


Edit = Callable[[str], str]
NOT_MET: dict[str, tuple[Edit, str]] = {
    "raises on import": (lambda s: "1 / 0\n" + s, "cannot be imported: ZeroDivisionError: division by zero"),
    "other name": (lambda s: s.replace("Brightness", "Darkness"), "has no attribute 'Brightness'"),
    "leaves": (lambda s: "import sys\nsys.exit(3)\n" + s, "calls sys.exit"),
    "no task": (lambda s: s + "\n\nBrightness = id\n", "a int is no task: it has no name"),
    "no loss": (lambda s: s.replace("def loss", "def lost"), "a Brightness is no task: it has no loss"),
    "no score": (lambda s: s.replace("score = Score(", "score = dict("), "its score is {"),
    "score of no direction": (lambda s: s.replace('"lower"', '"down"'), "better must be 'higher' or 'lower'"),
    "no statistics": (lambda s: s.replace("statistics = 2", "statistics = 0"), "its statistics is 0"),
    "vector loss": (lambda s: s.replace(".square().mean()", ".square()"), "cannot train the network"),
    "other statistics": (lambda s: s.replace("statistics = 2", "statistics = 3"), "a tensor of shape (2,)"),
    "another pass": (
        lambda s: s.replace("net(images)", "net(1 * images)"),
        "totals must call the network with the same tensors",
    ),
    "loss raises": (
        lambda s: s.replace("images):\n", "images):\n        1 / 0\n", 1),
        "cannot train the network of space 'bright': ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(("edit", "says"), NOT_MET.values(), ids=list(NOT_MET))
def test_a_task_that_cannot_serve_is_refused_before_anything_trains(
    there: Path, capsys: pytest.CaptureFixture[str], edit: Edit, says: str
) -> None:
    Path("mine.py").write_text(edit(SOURCE))
    assert command("search", "bright.toml", "--proposer", "uniform", "--seeds", "1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not list(there.glob("runs/bright/*/job.json"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("mine.py:Brightness", "brightness", "unknown task 'brightness'; did you mean regression?"),
        ("mine.py:Brightness", "yours.py:Brightness", "cannot read yours.py"),
        ("mine.py:Brightness", "no_such_package.tasks:Brightness", "cannot be imported"),
        ("classes = 1 ", "classes = 2 ", "one number an image is wanted"),
        ('task = "mine.py:Brightness"\n', "", "has 1 outputs, and its data have 10 classes"),
        ('data = "digits"\n', "", "cannot be made of nothing, as the space names no data set"),
    ],
)
def test_a_space_whose_task_cannot_be_had_is_refused(
    there: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    Path("bright.toml").write_text(SPACE.replace(old, new))
    assert command("search", "bright.toml", "--proposer", "uniform", "--seeds", "1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_label_smoothing_is_refused_for_a_task_without_labels(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = '[recipe]\nname = "tiny"\nlabel_smoothing = 0.1\n'
    Path("bright.toml").write_text(SPACE.replace('recipe = "tiny"\n', "") + table)
    assert command("search", "bright.toml", "--proposer", "uniform", "--seeds", "1", "--dry-run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "task 'brightness' has no labels to smooth, and the recipe says label_smoothing = 0.1" in line
    task = Brightness(load("digits"))
    assert training_loss(task) == task.loss  # without smoothing nothing is asked


@pytest.mark.parametrize("value", ["float('nan')", "-1.0", "float('inf')"])
def test_a_score_out_of_its_range_ends_the_training(there: Path, value: str) -> None:
    Path("mine.py").write_text(SOURCE.replace("(squares / images) ** 0.5", value))
    setting = make_setting(load_space("bright.toml"), changes={"epochs": 1, "images": 64})
    with pytest.raises(
        InputError, match=r"task 'brightness': its RMSE of .* is .*, and should be a number from 0.0"
    ):
        train.run(setting.dense(0, None).job.spec, folder=there, progress=lambda _: None, stop=lambda: False)


def test_a_task_may_leave_training_batches_unjudged(there: Path) -> None:
    # totals with a pass of its own would move running statistics; unjudged, there is none.
    own_pass = SOURCE.replace("batch[0]).square().sum()", "1 * batch[0]).square().sum()")
    Path("mine.py").write_text(
        own_pass.replace("statistics = 2", "statistics = 2\n    scores_training = False")
    )
    setting = make_setting(load_space("bright.toml"), changes={"epochs": 2, "images": 64})
    preflight(make_plan(setting, ["uniform"], seeds=1, controls=False))
    told: list[Any] = []
    done = train.run(setting.dense(0, None).job.spec, folder=there, progress=told.append, stop=lambda: False)
    assert done is not None and done["train_scores"] == [None, None] and done["score"] > 0
    assert [message["score"] for message in told] == [None, None]
    state = safetensors.torch.load_file(there / "weights.safetensors")
    counted = {int(t) for name, t in state.items() if name.endswith("num_batches_tracked")}
    assert counted == {2 * math.ceil(64 / setting.recipe.batch)}
