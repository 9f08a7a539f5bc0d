"""A user's data set by import path or as an object: found, trained on, sent with the job; a change is named."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunas
from prunas.data import arrays
from prunas.data.find import find_data, load_data
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.files import read_json
from prunas.runs.execute import execute
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.works.runtime import task_of_spec
from tests.commands import command

SOURCE = """
import numpy as np
from sklearn.datasets import load_digits

def make(size=8, shift=0):
    bunch = load_digits()
    return bunch.images[:300, None, :size, :size] / 16 + shift, bunch.target[:300]

def pictures(folder):
    return np.load(folder / "x.npy"), np.load(folder / "y.npy")
"""
SPACE = """
network = "prunas.networks:vgg11"
arguments = { channels = 1, base = 4, pools = 2 }
input = [1, 8, 8]
data = "mine.py:make"
recipe = "tiny"
keep = [0.4]
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(SPACE)
    Path("mine.py").write_text(SOURCE)
    return tmp_path


def setting_of(**changes: Any) -> Any:
    return make_setting(load_space("own.toml"), changes={"images": 64, "epochs": 1}, **changes)


def test_a_search_trains_on_what_a_file_makes(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--proposer",
        "uniform",
        "--no-controls",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--workers",
        "2",
        "--json",
    ]
    assert command("search", "own.toml", *words) == 0
    says = json.loads(capsys.readouterr().out)
    (row,) = says["runs"]
    spec = read_json(Path(row["folder"]) / "job.json")["spec"]
    assert spec["data"]["name"] == "mine.py:make"
    assert spec["data"]["source"] == SOURCE
    assert "no test split was given" in " ".join(says["notes"])
    # The source travels: what lies in the folder by now does not matter.
    Path("mine.py").unlink()
    data = task_of_spec(spec).data  # type: ignore[attr-defined]
    assert (data.identity, data.shape, data.classes) == (spec["data"]["identity"], (1, 8, 8), 10)


def test_options_of_the_table_are_arguments_and_part_of_the_identity(there: Path) -> None:
    plain = setting_of()
    Path("own.toml").write_text(
        SPACE.replace('data = "mine.py:make"', 'data = { name = "mine.py:make", shift = 1 }')
    )
    shifted = setting_of()
    assert shifted.identity != plain.identity
    assert shifted.dense(0, None).job.spec["data"]["options"] == {"shift": 1}
    x = load_data(shifted.data_reference).held[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(x, load_data(plain.data_reference).held[0] + 1)  # type: ignore[attr-defined]
    Path("own.toml").write_text(
        SPACE.replace('data = "mine.py:make"', 'data = { name = "mine.py:make", sift = 1 }')
    )
    with pytest.raises(InputError, match=r"data set 'mine.py:make': .*'sift'.*\[data\]"):
        setting_of()


def test_a_function_may_take_the_folder_and_a_change_of_its_files_is_one_line(there: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 1, 8, 8)), np.arange(40) % 4
    np.save("x.npy", x)
    np.save("y.npy", y)
    reference = find_data("mine.py:pictures", Path())
    data = load_data(reference, there)
    assert data.sizes["test"] == 8
    assert load_data(reference, there) is data
    copy = there / "copy"
    copy.mkdir()
    np.save(copy / "x.npy", x + 1)
    np.save(copy / "y.npy", y)
    planned = type(reference).from_json({**reference.to_json(), "identity": data.identity})
    with pytest.raises(
        InputError, match=r"^data set 'mine.py:pictures' is not the one this run was planned with; [^\n]*$"
    ):
        load_data(planned, copy)


def test_a_changed_identity_fails_the_run_with_one_line(there: Path) -> None:
    job = setting_of().dense(0, None).job
    changed = {**job.spec, "data": {**job.spec["data"], "identity": "0" * 12}}
    outcome = execute(type(job)(job.work, changed, job.space, job.label, job.places), Store(there / "runs"))
    assert outcome.status == "failed"
    assert "'mine.py:make' is not the one this run was planned with" in str(outcome.error)
    assert "\n" not in str(outcome.error)


def test_data_are_given_in_python(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.toml").write_text(SPACE.replace('data = "mine.py:make"\n', ""))
    rng = np.random.default_rng(1)
    pair = rng.normal(size=(120, 1, 8, 8)), np.arange(120) % 10
    quick = partial(
        prunas.search,
        "own.toml",
        ["uniform"],
        controls=False,
        seeds=1,
        recipe={"epochs": 1},
        executor="serial",
    )
    for given in (arrays("mine", pair), pair, lambda: pair, "mine.py:make"):
        found = quick(data=given, out=there / "runs")
        assert len(found.rows) == 1 and found.complete
        assert found.record.plan["command"] is None
    with pytest.raises(InputError, match=r"^data: a int; give a DataSet"):
        quick(data=3)


def test_an_object_is_known_in_its_own_process_alone(there: Path) -> None:
    setting = setting_of(data=arrays("mine", (np.zeros((120, 1, 8, 8)), np.arange(120) % 10)))
    spec = setting.dense(0, None).job.spec
    assert spec["data"]["name"].startswith("live:mine_")
    assert task_of_spec(spec).data.name == "mine"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="was made in Python by another process"):
        task_of_spec({**spec, "data": {**spec["data"], "name": "live:mine_0"}})


def test_registered_data_name_their_runs_as_ever(small_space: Path) -> None:
    setting = make_setting(load_space(str(small_space)))
    assert setting.dense(0, None).job.spec["data"] == {"name": "digits", "identity": "1194de9ff0d0"}
    make_plan(setting, ["uniform"], seeds=1)


REFUSED = {
    "no file": ("absent.py:make", r"cannot read .*absent.py"),
    "no module": ("absent_package.mine:make", "cannot be imported: ModuleNotFoundError"),
    "no function": ("mine.py:absent", "cannot be imported: AttributeError"),
    "option": ({"name": "digits", "size": 9}, "unknown option of data set 'digits' 'size'"),
    "raises": ("bad.py:raises", "data set 'bad.py:raises' cannot be made: KeyError: 'x'"),
    "ends": ("bad.py:ends", r"calls sys.exit\(3\)"),
    "none": ("bad.py:none", "data set 'bad.py:none': it gave a NoneType; give a DataSet"),
    "NaN": ("bad.py:nan", "data set 'bad': sample 1 of train has a target that is not finite"),
}


@pytest.mark.parametrize(("data", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_is_one_line(there: Path, data: Any, says: str) -> None:
    Path("bad.py").write_text(
        "import sys, numpy as np\n"
        "def raises(): return {}['x']\n"
        "def ends(): sys.exit(3)\n"
        "def none(): return None\n"
        "def nan(): return np.zeros((4, 3)), np.array([0.0, np.nan, 0, 0])\n"
    )
    text = json.dumps(data) if isinstance(data, str) else '{ name = "digits", size = 9 }'
    Path("own.toml").write_text(SPACE.replace('"mine.py:make"', text))
    with pytest.raises(InputError, match=says) as caught:
        setting_of()
    assert "\n" not in str(caught.value)
    assert re.search(r"data set|option", str(caught.value))
