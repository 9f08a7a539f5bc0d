"""Plug-ins: the package of `docs/plugins.md`, installed and used; and packages that are wrong in one way."""

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

import prunas
from prunas import designs
from prunas.cli import main
from prunas.costs.metrics import METRICS
from prunas.data import load
from prunas.errors import InputError
from prunas.experiments.forecast import forecast
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.preflight import preflight
from prunas.names import METRIC_NAMES, REGISTERED, Registry
from prunas.plugins import resolve
from prunas.proposers.brief import Penalty, Proposal
from prunas.proposers.registry import entry, installed_proposers
from prunas.proposers.table import PROPOSERS
from prunas.protocols import is_fresh, protocol
from prunas.report.styles import styles
from prunas.runs.job import Job
from prunas.spaces.load import bundled_spaces, installed_spaces, load_space
from prunas.statistics.text import asked_text
from prunas.works import train

PAGE = (Path(prunas.__file__).parent.parent / "docs" / "plugins.md").read_text()
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution on sys.path, as pip would: its files, and a dist-info with its entry points."""
    before = set(sys.modules)

    def put(name: str, files: Mapping[str, str], points: Mapping[str, Mapping[str, str]]) -> Path:
        site = tmp_path / f"site-{name}"
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in names.items())
                for group, names in points.items()
            )
        )
        monkeypatch.syspath_prepend(str(site))
        return site

    yield put
    for name in set(sys.modules) - before:
        if sys.modules[name].__name__.partition(".")[0] in ("prunas_ramp", "broken", "other", "bright"):
            del sys.modules[name]


@pytest.fixture
def ramp(install: Install) -> Path:
    """The package of the page: every block under the file name in front of it."""
    files = dict(re.findall(r"^`([\w./-]+)`[^`]*(?:`[^`\n]+`[^`]*)*```\w+\n(.*?)```", PAGE, re.M | re.S))
    points = tomllib.loads(files.pop("pyproject.toml"))["project"]["entry-points"]
    assert sorted(files) == [
        "prunas_ramp/__init__.py",
        "prunas_ramp/method.py",
        "prunas_ramp/ramp-digits.toml",
    ]
    return install("prunas-ramp", files, points)


def test_the_command_of_the_page_searches_in_a_worker(
    ramp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = re.findall(r"^prunas (search .*)$", PAGE, re.M)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(command), "--no-controls", "--no-dense", "--json"])
    assert ended.value.code == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert (row["proposer"], row["kind"], row["status"]) == ("ramp", "control", "finished")
    job = json.loads((tmp_path / row["folder"] / "job.json").read_text())
    assert job["spec"]["space"] == "ramp-digits"  # by name: the same run wherever the package is installed
    widths = job["spec"]["architecture"]["widths"]
    dense = {group.name: group.units for group in load_space("ramp-digits").survey.groups}
    shares = [widths.get(group, units) / units for group, units in dense.items()]
    # --set ramp.last=0.25: of three stages, the last two have 0.25 and 0.625, in whole channels of 8 and 32.
    assert shares[-1] / shares[1] == pytest.approx(0.25 / 0.625, abs=0.1)


def test_listings_hold_what_is_installed(ramp: Path) -> None:
    known, problems = installed_proposers()
    assert problems == ()
    assert list(known) == [*PROPOSERS, "ramp"]
    assert entry("ramp").build(last=2.0).last == 2.0
    spaces, problems = installed_spaces()
    assert problems == ()
    assert set(spaces) - set(bundled_spaces()) == {"ramp-digits"}
    with pytest.raises(InputError, match="did you mean ramp"):
        entry("rampe")
    with pytest.raises(InputError, match="ramp: last must be above 0"):
        entry("ramp").build(last=0)


ENTRY = """
from prunas.proposers.entry import Entry
X = Entry("other:X", {kind!r}, "d", "r", dimensions=({dimension!r},){more})
"""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise RuntimeError('no licence\\nhere')", "cannot be imported: RuntimeError: no licence here"),
        ("Y = 1", "cannot be imported: AttributeError"),
        ("X = 3", "names a int, not an Entry"),
        (ENTRY.format(kind="contrl", dimension="width", more=""), "did you mean control"),
        (ENTRY.format(kind="control", dimension="colour", more=""), "colour"),
        (
            ENTRY.format(kind="control", dimension="width", more=", needs=('found-by-all',)"),
            "did you mean found",
        ),
    ],
)
def test_a_broken_proposer_is_one_line_and_breaks_nothing_else(
    install: Install, source: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install("broken-pack", {"broken.py": source}, {"prunas.proposers": {"bad": "broken:X"}})
    with pytest.raises(InputError, match=re.escape(says)) as raised:
        entry("bad")
    assert "proposer 'bad' of package broken-pack 1.0" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert entry("slimming") is PROPOSERS["slimming"]
    with pytest.raises(SystemExit) as ended:
        main(["proposers", "--json"])
    printed = capsys.readouterr()
    assert ended.value.code == 0
    assert [row["name"] for row in json.loads(printed.out)] == list(PROPOSERS)
    assert printed.err.splitlines() == [str(raised.value)]


def test_figures_draw_a_plug_in_as_its_entry_says(install: Install) -> None:
    source = """
from prunas.proposers.entry import Entry
from prunas.proposers.look import GREEN, SOLID, Style
X = Entry("other:X", "automatic", "d", "r", look=Style(GREEN, "*", SOLID))
"""
    install("other", {"other.py": source}, {"prunas.proposers": {"star": "other:X"}})
    drawn = styles(["star", "unheard-of", "taper"])
    assert list(drawn) == ["taper", "star", "unheard-of"]
    assert (drawn["star"].marker, drawn["unheard-of"].marker) == ("*", "o")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("3", "names a int, not a path"),
        ("'nowhere/bad.toml'", "must be a file called bad.toml"),
        ("__file__", "must be a file called bad.toml"),
    ],
)
def test_a_broken_space_is_one_line(install: Install, value: str, says: str) -> None:
    install("broken-pack", {"broken.py": f"X = {value}\n"}, {"prunas.spaces": {"bad": "broken:X"}})
    with pytest.raises(InputError, match=re.escape(says)):
        load_space("bad")
    assert load_space("vgg11-digits").name == "vgg11-digits"
    spaces, (problem,) = installed_spaces()
    assert spaces == bundled_spaces()
    assert "space 'bad' of package broken-pack 1.0" in problem


def test_names_that_clash(install: Install) -> None:
    for name in ("one", "two"):
        install(name, {}, {"prunas.proposers": {"mine": "other:X", "slimming": "other:X"}})
    assert entry("slimming") is PROPOSERS["slimming"]
    with pytest.raises(InputError, match=r"of packages .*one 1\.0.*uninstall all but one"):
        entry("mine")
    known, problems = installed_proposers()
    assert known == dict(PROPOSERS)
    assert len(problems) == 2
    assert any("prunas has one of that name" in problem for problem in problems)


def test_a_name_that_cannot_be_typed(install: Install) -> None:
    install("broken-pack", {"other.py": ""}, {"prunas.proposers": {"my.name": "other:X"}})
    with pytest.raises(InputError, match="rename it"):
        entry("my.name")


def test_doctor_names_a_broken_package(install: Install, tmp_path: Path) -> None:
    from prunas.cli.doctor import examine

    install("broken-pack", {"broken.py": "X = 3"}, {"prunas.spaces": {"bad": "broken:X"}})
    (check,) = [check for check in examine(None, tmp_path) if check["what"] == "plug-in"]
    assert check["status"] == "wrong"
    assert "broken-pack" in check["detail"]


@pytest.mark.parametrize(
    ("registry", "name"), [(registry, name) for registry, names in REGISTERED.items() for name in names]
)
def test_every_registered_name_leads_somewhere(registry: Registry, name: str) -> None:
    assert callable(resolve(registry, name))


def test_a_registered_name_outlives_the_place_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving a work and a penalty to another module changes no job's id, and the job still finds them."""
    spec = {"penalty": Penalty("slimming/scale", {"strength": 0.1}).to_json(), "seed": 1}
    before, penalty = Job("train", spec, "space", "dense"), resolve("prunas.penalties", "slimming/scale")
    elsewhere = ModuleType("elsewhere")
    elsewhere.__dict__.update(run=resolve("prunas.works", "train"), ScalePenalty=penalty)
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    moved = {
        "prunas.works": {"train": "elsewhere:run"},
        "prunas.penalties": {"slimming/scale": "elsewhere:ScalePenalty"},
    }
    monkeypatch.setattr("prunas.plugins.REGISTERED", moved)
    spec = {"penalty": Penalty("slimming/scale", {"strength": 0.1}).to_json(), "seed": 1}
    assert Job("train", spec, "space", "dense").id == before.id
    assert resolve("prunas.works", "train") is elsewhere.run
    assert resolve("prunas.penalties", "slimming/scale") is penalty
    assert "prunas." not in json.dumps(before.to_json())


def test_another_package_adds_a_penalty(install: Install) -> None:
    install(
        "other",
        {"other.py": "class Pull:\n    strength = 0.5\n"},
        {"prunas.penalties": {"other/pull": "other:Pull"}},
    )
    assert resolve("prunas.penalties", "other/pull")().strength == 0.5


def test_an_unknown_work_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown work 'trane'.*train"):
        resolve("prunas.works", "trane")


BRIGHT = {
    "bright.py": """
from dataclasses import replace

from prunas.data import load
from tests.tasks.brightness import Brightness


def half(folder, download, split_seed):
    data = load("digits", folder, download, split_seed)
    splits = {name: members[::2] for name, members in data.splits.items()}
    return replace(data, name="half-digits", identity="half", splits=splits)


def liar(folder, download, split_seed):
    return load("digits")
"""
}
SPACE = """
network = "prunas.networks:vgg11"
arguments = { channels = 1, base = 4, pools = 2, classes = 1 }
input = [1, 8, 8]
data = "half-digits"
task = "bright"
recipe = "tiny"
"""


def test_another_package_adds_a_task_and_a_data_set(install: Install, tmp_path: Path) -> None:
    install(
        "bright-pack",
        BRIGHT,
        {"prunas.tasks": {"bright": "bright:Brightness"}, "prunas.data": {"half-digits": "bright:half"}},
    )
    (tmp_path / "bright.toml").write_text(SPACE)
    setting = make_setting(load_space(str(tmp_path / "bright.toml")), changes={"epochs": 1})
    assert (setting.data, setting.identity, setting.task.name) == ("half-digits", "half", "bright")
    assert setting.images["train"] == -(-load("digits").sizes["train"] // 2)
    spec = setting.dense(0, None).job.spec
    assert spec["task"] == {"name": "bright", "identity": setting.task.identity}  # no path, no source
    done = train.run(spec, folder=tmp_path, progress=lambda _: None, stop=lambda: False)
    assert done is not None and (done["score_name"], done["score"] > 0) == ("RMSE", True)


def test_a_data_set_is_called_as_its_entry_point_says(install: Install) -> None:
    install("bright-pack", BRIGHT, {"prunas.data": {"mine": "bright:liar", "digits": "bright:half"}})
    with pytest.raises(InputError, match="data set 'mine' is called 'digits' by its loader"):
        load("mine")
    assert load("digits").name == "digits"  # a name of prunas stays prunas's
    with pytest.raises(InputError, match=r"unknown data set 'min'.*mine"):
        load("min")


def test_the_task_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n(import torch\n.*?)```", PAGE, re.S)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(source)
    Path("page.toml").write_text(
        SPACE.replace('"bright"', '"mine.py:Brightness"').replace("half-digits", "digits")
    )
    setting = make_setting(load_space("page.toml"), changes={"epochs": 1, "images": 64})
    preflight(make_plan(setting, ["uniform"], seeds=1, controls=False))
    assert setting.score.label == "RMSE"


def test_another_package_adds_a_protocol(install: Install) -> None:
    install(
        "other",
        {
            "other.py": "from dataclasses import dataclass\n"
            "from prunas.protocols import Protocol\n"
            "@dataclass(frozen=True, kw_only=True)\n"
            "class Halved(Protocol):\n"
            "    def schedule(self, recipe, space, arch, cap=None):\n"
            "        return recipe, recipe.epochs // 2\n"
            "    def length(self, recipe, space, share, cap=None):\n"
            "        return recipe.epochs // 2\n"
            "HALVED = Halved(name='halved')\n"
        },
        {"prunas.protocols": {"halved": "other:HALVED", "wrong": "other:Halved"}},
    )
    setting = make_setting(load_space("vgg11-digits"))
    plan = make_plan(
        setting, ["uniform"], keep=[0.5], protocols=["halved"], seeds=1, dense=False, controls=False
    )
    point = Proposal(plan.targets[0], setting.space.dense)
    training = setting.final(point, plan.protocols[0], 0, None, False)
    assert (training.epochs, training.protocol) == (7, "halved")  # of the recipe's 15
    assert forecast(plan).epochs == 7
    assert is_fresh("halved")
    with pytest.raises(InputError, match=r"protocol 'halved:3': it takes no number"):
        protocol("halved:3")
    with pytest.raises(InputError, match=r"protocol 'wrong'.* is no Protocol called 'wrong'"):
        protocol("wrong")
    with pytest.raises(InputError, match=r"unknown protocol 'halve'.*halved"):
        protocol("halve")


def test_another_package_adds_a_metric(install: Install) -> None:
    install(
        "other",
        {
            "other.py": "from prunas.costs.metrics import METRICS, Metric\n"
            "memory = METRICS['memory']\n"
            "KILO = Metric(name='kib', label='KiB', unit='KiB', table=lambda s, c: memory.table(s, c) // 1024,\n"
            "              of=lambda s, a: memory.of(s, a) // 1024)\n"
            "JUMPY = Metric(name='jumpy', label='', unit='', table=memory.table, of=memory.of, monotone=False)\n"
        },
        {"prunas.metrics": {"kib": "other:KILO", "jumpy": "other:JUMPY"}},
    )
    space = load_space("vgg11-digits")
    point = designs.uniform(space, target := space.target(keep=0.5, metric="kib"))
    assert not designs.missed(space, point, target)
    assert asked_text(target) == "50 % KiB"
    with pytest.raises(InputError, match=r"metric 'jumpy'.* is not monotone"):
        space.target(keep=0.5, metric="jumpy")
    with pytest.raises(InputError, match=r"unknown metric 'kibi'.*kib"):
        space.target(keep=0.5, metric="kibi")


def test_help_names_the_metrics_there_are() -> None:
    assert tuple(METRICS) == METRIC_NAMES
