"""Data in a folder that only an argument names: the folder travels with the job, outside its identity."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.search import search
from prunas.runs.executors import executor
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.spaces.load import load_space

SMALL_NET = """
network = "prunas.networks:vgg11"
arguments = { classes = 2, base = 1, pools = 5 }
input = [3, 224, 224]
data = "folder"
recipe = "tiny"
keep = [0.6]
"""


@pytest.fixture(scope="module")
def digit_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zeros and ones of the digits as PNGs: ten of each to train on, two of each to test on."""
    root = tmp_path_factory.mktemp("pictures")
    digits = sklearn.datasets.load_digits()
    for digit in (0, 1):
        images = digits.images[digits.target == digit]
        for part, chosen in (("train", images[:10]), ("val", images[10:12])):
            folder = root / part / str(digit)
            folder.mkdir(parents=True)
            for number, image in enumerate(chosen):
                Image.fromarray((15 * image).astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing about data, or something that is wrong."""
    monkeypatch.setenv("PRUNAS_DATA", str(tmp_path / "nothing-here"))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("name", "options"), [("serial", {}), ("processes", {"workers": 1})])
def test_trainings_find_data_that_only_an_argument_names(
    digit_pictures: Path, tmp_path: Path, name: str, options: dict[str, int]
) -> None:
    path = tmp_path / "pictures.toml"
    path.write_text(SMALL_NET)
    setting = make_setting(load_space(str(path)), changes={"epochs": 1, "batch": 9}, root=digit_pictures)
    # Reconstruction reads calibration images in the driver, and its refit reads them in the worker.
    plan = make_plan(
        setting, ["uniform", "reconstruction"], seeds=1, controls=False, protocols=["scratch-e", "finetune"]
    )
    record = search(
        plan, Store(tmp_path / "runs"), lambda: executor(name, Store(tmp_path / "runs"), **options)
    )
    assert record.problems == ()
    assert {(row.proposer, row.protocol, row.status) for row in record.rows} == {
        ("uniform", "scratch-e", "finished"),
        ("reconstruction", "scratch-e", "finished"),
        ("reconstruction", "finetune", "finished"),
    }


@pytest.mark.usefixtures("elsewhere")
def test_the_folder_is_no_part_of_what_is_computed(digit_pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "pictures.toml"
    path.write_text(SMALL_NET)
    copy = shutil.copytree(digit_pictures, tmp_path / "copy")
    jobs = [
        make_setting(load_space(str(path)), root=root).dense(0, None).job
        for root in (digit_pictures, Path(copy))
    ]
    assert jobs[0].id == jobs[1].id
    assert jobs[0] == jobs[1]
    assert [Job.from_json(job.to_json()).places for job in jobs] == [
        {"data": str(digit_pictures)},
        {"data": str(copy)},
    ]


def test_a_relative_folder_travels_as_an_absolute_one(
    digit_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pictures.toml"
    path.write_text(SMALL_NET)
    monkeypatch.chdir(digit_pictures.parent)
    setting = make_setting(load_space(str(path)), root=Path(digit_pictures.name))
    assert setting.dense(0, None).job.places == {"data": str(digit_pictures)}


def test_places_cannot_hide_in_a_spec() -> None:
    with pytest.raises(Exception, match="spec must not name 'places'"):
        Job("train", {"places": {}}, "space", "label")
