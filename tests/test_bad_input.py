"""Bad input of every kind: one line on standard error, exit code 2, nothing trained, written or lost."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from prunas.cli import main
from prunas.errors import InputError
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.preflight import preflight
from prunas.experiments.search import search
from prunas.runs.pools.serial import Serial
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace

Refused = Callable[..., str]

VGG = """network = "prunas.networks:vgg11"
arguments = { channels = 1, base = 4, pools = 2 }
input = [1, 8, 8]
data = "digits"
recipe = "tiny"
keep = [0.5]
"""

NETWORKS = """
import torch
from torch import nn


def stem(*rest):
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *rest)


def seven():
    return stem(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))


def spatial():
    return stem(nn.Conv2d(8, 10, 1))


def unbatched():
    return stem(nn.AdaptiveAvgPool2d(1), nn.Flatten(0), nn.Linear(16, 10))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = stem(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.body(x)), x


def pair():
    return Twice()


class Trainable(Twice):
    def forward(self, x):
        classes = self.head(self.body(x))
        return (classes, x) if self.training else classes


def only_in_training():
    return Trainable()


def lone():
    return stem(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 10))
"""


def tree(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a space, networks, architectures, a store of another version, odd files."""
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "vgg.toml").write_text(VGG)
    (folder / "networks.py").write_text(NETWORKS)
    for name in ("seven", "spatial", "pair", "only_in_training", "lone", "unbatched", "absent"):
        text = VGG.replace("prunas.networks:vgg11", f"networks.py:{name}")
        text = "".join(line for line in text.splitlines(True) if not line.startswith("arguments"))
        (folder / f"{name}.toml").write_text(text)
    space = load_space("vgg11-digits")
    (folder / "dense.json").write_text(json.dumps(space.dense.to_json()))
    (folder / "cut.json").write_text(json.dumps(space.dense.to_json())[:-20])
    (folder / "list.json").write_text("[1, 2]")
    (folder / "wide.json").write_text(json.dumps(space.dense.to_json() | {"widths": {"features.0": 10**6}}))
    (folder / "other.json").write_text(json.dumps(space.dense.to_json() | {"space": "nowhere"}))
    (folder / "latin.toml").write_bytes(b'network = "\xe4"\n')
    (folder / "file").write_text("a file")
    for name, version in (("old", 99), ("none", None)):
        (folder / name).mkdir()
        (folder / name / "prunas.json").write_text(json.dumps({"format": version}))
    (folder / "data" / "train" / "cat").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PRUNAS_DATA", str(folder / "data"))
    for name in ("PRUNAS_DEVICE", "PRUNAS_CHECKPOINT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def refused(there: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Calls the command line, which must refuse; the one line it says."""

    def call(*arguments: object) -> str:
        before = tree(there)
        environment = dict(os.environ)
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        os.environ.clear()
        os.environ.update(environment)
        printed = capsys.readouterr()
        assert ended.value.code == 2, printed.err
        assert printed.out == ""
        assert tree(there) == before
        line = printed.err.strip()
        assert line.startswith("prunas: ")
        assert "\n" not in line
        return line

    return call


def typed(value: object) -> str:
    """Name of a case: the words that are typed."""
    return " ".join(value)[:60] if isinstance(value, tuple) else ""


D = ("vgg.toml", "--epochs", "1", "--images", "200", "--seeds", "1", "--no-dense", "--no-controls")

SEARCHES = [
    # numbers
    (("--lr", "nan"), "lr must be a finite number above 0, not nan"),
    (("--lr", "inf"), "lr must be a finite number above 0, not inf"),
    (("--lr", "-0.1"), "lr must be a finite number above 0, not -0.1"),
    (("--lr", "0"), "lr must be a finite number above 0"),
    (("--epochs", "0"), "epochs must be a whole number above 0"),
    (("--images", "-5"), "images must be a whole number from 0"),
    (("--images", "999999"), "ask for fewer, or 0 for all"),
    (("--batch", "-1"), "batch must be a whole number above 0"),
    (("--trials", "0", "--proposer", "tpe"), "--trials must be a whole number of at least 1"),
    (("--seeds", "-2"), "--seeds must be a whole number of at least 1"),
    (("--keep", "nan"), "keep must lie in (0, 1], not nan"),
    (("--keep", "0.3,inf"), "keep must lie in (0, 1], not inf"),
    (("--keep", "1.5"), "keep must lie in (0, 1], not 1.5"),
    (("--keep", "30%"), "--keep: '30%' is not a number"),
    (("--budget", "inf"), "budget 'inf' is not a number above 0"),
    (("--budget", "1e400M"), "is not a number above 0"),
    (("--budget", "900G"), "can be reached"),
    (("--cap", "nan", "--protocol", "scratch-b"), "--cap must be 1 or more, not nan"),
    (("--align", "0"), "align"),
    (("--align", "-8"), "--align '-8' is not a number of channels"),
    (("--align", "8:sideways"), "sideways"),
    (("--precision", "fp8"), "unknown precision 'fp8'"),
    # settings of proposers
    (("--set", "slimming.pull=NaN"), "slimming: pull must be a finite number, not nan"),
    (("--set", "slimming.pull=Infinity"), "slimming: pull must be a finite number, not inf"),
    (("--set", "slimming.pull=-1"), "slimming: pull must be 0 or more, not -1"),
    (("--set", "slimming.pull=abc"), "slimming: pull must be a finite number, not 'abc'"),
    (("--set", "slimming.pull=[1]"), "slimming: pull must be a finite number, not [1]"),
    (("--set", "slimming.pull=true"), "slimming: pull must be a finite number, not True"),
    (("--set", "slimming.pul=1"), "did you mean pull?"),
    (("--set", "slimming.pull"), "does not read PROPOSER.SETTING=VALUE"),
    (("--set", "sliming.pull=1"), "did you mean slimming"),
    (("--set", "tpe.startup=3"), "--set tpe: 'tpe' is not in this search"),
    (("--proposer", "tpe", "--set", "tpe.startup=2.5"), "tpe: startup must be a whole number, not 2.5"),
    (("--proposer", "tpe", "--set", "tpe.vary=5"), "tpe: vary must be a name, not 5"),
    (("--proposer", "tpe", "--set", "tpe.vary=depth"), "'tpe' cannot serve space 'vgg'"),
    (("--proposer", "tpe", "--set", "tpe.neighbourhood=0.2"), "neighbourhood wants a found point"),
    (("--proposer", "nsga2", "--set", "nsga2.halving=3"), "halving compares by score alone"),
    (("--proposer", "l1", "--set", "l1.preset=VGG-16-A"), "l1: unknown preset"),
    (
        ("--proposer", "slimming,guided", "--set", "guided.form=fited"),
        "guided: form 'fited'; did you mean",
    ),
    # names
    (("--proposer", ""), "--proposer is empty"),
    (("--proposer", ","), "--proposer is empty"),
    (("--keep", ","), "--keep is empty"),
    (("--budget", ""), "--budget is empty"),
    (("--protocol", ""), "--protocol is empty"),
    (("--warm-start", ",", "--proposer", "tpe"), "--warm-start is empty"),
    (("--proposer", "slimming+tpe"), "only a sampler can start from found points"),
    (("--proposer", "tpe+uniform"), "'uniform' finds nothing by pruning"),
    (("--proposer", "transferred"), "prunas transfer --from SPACE"),
    (("--proposer", "sss"), "'sss' cannot serve space 'vgg'"),
    (("--metric", "flops"), "unknown metric 'flops'"),
    (("--metric", "latency"), "unknown metric 'latency'"),
    # protocols
    (("--proposer", "tpe", "--trials", "2", "--protocol", "finetune"), "such as --protocol scratch-e"),
    (
        ("--proposer", "slimming,uniform", "--protocol", "ticket"),
        "'uniform' proposes shapes without the weights",
    ),
    (("--protocol", "scratch-e:inf"), "whole epochs, as in scratch-e:20"),
    (("--protocol", "dsd:1.5"), "a share of weights, as in dsd:0.5"),
    (("--cap", "2"), "--cap limits the epochs of scratch-b"),
    (("--cap", "2", "--protocol", "scratch-b:3"), "--cap limits the epochs of scratch-b"),
    (("--trials", "4"), "--trials is for samplers and random"),
    (("--dense-training", "finetune"), "use scratch-e or dsd"),
    (("--dense-training", "dsd:0"), "a share of weights"),
    # executors and stores
    (("--workers", "0"), "workers must be a whole number from 1, not 0"),
    (("--workers", "4000"), "lower workers"),
    (("--executor", "proceses"), "did you mean processes"),
    (("--executor-set", "threads"), "does not read SETTING=VALUE"),
    (("--executor", "serial", "--executor-set", "threads=2"), "unknown option of executor 'serial'"),
    (("--executor", "processes", "--executor-set", "timeout=soon"), "timeout must be a number above 0"),
    (("--out", "file"), "choose a folder with --out"),
    (("--out", "old"), "was written in format 99"),
    (("--out", "none"), "was written in format None"),
    # batches
    (("--images", "1"), "cannot train"),
    (("--batch", "199"), "200 images in batches of 199 leave a batch of one"),
]


@pytest.mark.parametrize(("arguments", "says"), SEARCHES, ids=typed)
@pytest.mark.parametrize("dry", [True, False], ids=["dry", "run"])
def test_a_search_refuses_as_its_dry_run_does(
    refused: Refused, arguments: tuple[str, ...], says: str, dry: bool
) -> None:
    assert says in refused("search", *D, *arguments, *(["--dry-run"] * dry))


def test_both_splits_are_looked_at(refused: Refused) -> None:
    for batch, split in ((449, "train+val"), (539, "train")):  # 1,347 images, of which 1,079 are in train
        line = refused(
            "search", "vgg11-digits", "--batch", batch, "--keep", "0.3", "--epochs", "1", "--dry-run"
        )
        assert f"images in batches of {batch} leave a batch of one (in {split})" in line


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("seven", "has 7 outputs, and its data have 10 classes"),
        ("spatial", "returns a tensor of shape (2, 10, 8, 8) for 2 images; 10 numbers per image"),
        ("pair", "returns a tuple"),
        ("only_in_training", "returns a tuple"),
        ("unbatched", "space 'unbatched': the network takes 2 images and neither 1 nor 4"),
        ("absent", "cannot be imported"),
    ],
)
@pytest.mark.parametrize("command", ["search", "train"])
def test_a_network_that_cannot_be_trained_on_the_data(
    refused: Refused, command: str, space: str, says: str
) -> None:
    assert says in refused(command, f"{space}.toml", "--epochs", "1")


def test_a_batch_of_one_where_a_norm_sees_one_value(refused: Refused) -> None:
    assert "cannot process 1 images: ValueError: Expected more than 1 value" in refused(
        "search", "lone.toml", "--batch", "1", "--proposer", "uniform", "--no-controls"
    )


@pytest.mark.parametrize("name", ["my space.toml", "größe.toml", "<b>x.toml", "-x.toml", ".toml", "a&b.toml"])
@pytest.mark.parametrize("command", ["search", "show", "presets"])
def test_a_file_that_cannot_name_a_folder(refused: Refused, there: Path, command: str, name: str) -> None:
    (there / name).write_text(VGG)
    assert "cannot name the folder of its runs" in refused(command, f"./{name}")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("input =", "inputs =", ":3: inputs: unknown key 'inputs'; did you mean input"),
        ("input = [1, 8, 8]\n", "", "input: Field required"),
        ("[1, 8, 8]", "[1, 0, 8]", ":3: input: the input's shape [1, 0, 8] has sizes below 1"),
        ("[1, 8, 8]", "[3, 8, 8]", "does not accept an input of shape (3, 8, 8)"),
        ("keep = [0.5]", "keep = [nan]", ":6: keep.0: "),
        ("keep = [0.5]", "keep = [0.5, 2]", ":6: keep.1: "),
        ("keep = [0.5]", "cap = 0.5", ":6: cap: "),
        ("keep = [0.5]", "cap = nan", ":6: cap: "),
        ("keep = [0.5]", 'metric = "flops"', ":6: unknown metric 'flops'"),
        ('"digits"', '"digit"', "did you mean digits"),
        ('data = "digits"\n', "", "names no data set"),
        ('"tiny"', '"tinny"', "did you mean tiny"),
        ("keep = [0.5]", '[vary]\ngroups = ["nothing*"]', "pattern 'nothing*' matches nothing"),
        ("keep = [0.5]", "[vary]\nfloor = 0", ":7: vary.floor: "),
        ("keep = [0.5]", "[proposers.slimming]\npul = 1", "vgg.toml: proposers.slimming: unknown option"),
        ("keep = [0.5]", '[proposers.slimming]\npull = "high"', "pull must be a finite number, not 'high'"),
        ("keep = [0.5]", "[proposers.slimming]\npull = inf", "pull must be a finite number, not inf"),
        ("keep = [0.5]", "[proposers.sliming]\npull = 1", "did you mean slimming"),
        ("keep = [0.5]", "[proposers.tpe]\nstartup = 0", "tpe: startup must be at least 1, not 0"),
        ("channels = 1", "chanels = 1", "chanels"),
        ("vgg11", "vgg12", "cannot be imported"),
        ("keep = [0.5]", "keep = [0.5", "not valid TOML"),
    ],
)
def test_a_space_file_is_refused_before_anything_trains(
    refused: Refused, there: Path, before: str, after: str, says: str
) -> None:
    assert before in VGG
    (there / "vgg.toml").write_text(VGG.replace(before, after, 1))
    assert says in refused("search", "vgg.toml", "--seeds", "1", "--epochs", "1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "cut.json"), "cut.json is not valid JSON"),
        (("train", "list.json"), "list.json"),
        (("train", "wide.json"), "cannot have 1000000 units"),
        (("train", "other.json"), "unknown space 'nowhere'"),
        (("train", "file.json"), "file.json"),
        (("train", "dense.json", "--protocol", "finetune"), "inherits weights"),
        (("train", "dense.json", "--cap", "2"), "--cap limits the epochs of scratch-b"),
        (("train", "dense.json", "--lr", "nan"), "lr must be a finite number above 0"),
        (("train", "dense.json", "--batch", "449"), "leave a batch of one"),
        (("train", "dense.json", "--out", "old"), "was written in format 99"),
        (("show", "latin.toml"), "cannot read latin.toml"),
        (("show", "vgg.toml:nothing"), "unknown preset of space 'vgg': 'nothing'"),
        (("show", "networks.py:seven", "--input", "1,x"), "--input must be sizes"),
        (("show", "networks.py:seven"), "is a network, not a space"),
        (("design", "uniform", "vgg.toml", "--keep", "nan"), "keep must lie in (0, 1]"),
        (
            ("design", "uniform", "vgg.toml", "--keep", "0.5", "--budget", "1k"),
            "either --keep 0.3 or --budget",
        ),
        (("design", "taper", "vgg.toml", "--params", "x", "--macs", "1M"), "budget 'x' is not a number"),
        (("design", "guided", "cut.json"), "cut.json is not valid JSON"),
        (("advise", "vgg.toml", "--budget", "nan", "--epochs", "3"), "budget 'nan' is not a number above 0"),
        (("optuna", "--storage", "sqlite:///made.db"), "holds no finished search"),
        (("export", "nothing", "--to", "onnx"), "nothing"),
        (("export", "vgg.toml", "--init", "0", "--to", "doc"), "doc"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digit"), "did you mean vgg11-digits"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--proposer", "tpe"), "finds nothing"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--proposer", "sss"), "cannot serve"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--protocol", "finetune"), "scratch-e"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--beside", ","), "--beside is empty"),
        (
            ("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--set", "tpe.startup=3"),
            "not in this search",
        ),
        (("transfer", "--from", "seven.toml", "--to", "vgg11-digits", "--keep", "0.5"), "7 outputs"),
        (("transfer", "--from", "vgg.toml", "--to", "seven.toml", "--keep", "0.5"), "7 outputs"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--from-found"), "found shapes of"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--workers", "0"), "workers"),
        (("transfer", "--from", "vgg.toml", "--to", "vgg11-digits", "--lr", "inf"), "finite number"),
        (("search", "resnet34-imagenet"), "val"),
    ],
    ids=typed,
)
def test_every_command_refuses_in_one_line(refused: Refused, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(*arguments)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PRUNAS_DEVICE", "gpu0", "PRUNAS_DEVICE=gpu0 cannot be used here"),
        ("PRUNAS_DEVICE", "cuda:99", "PRUNAS_DEVICE=cuda:99 cannot be used here"),
        ("PRUNAS_CHECKPOINT_SECONDS", "often", "PRUNAS_CHECKPOINT_SECONDS must be a number above 0"),
        ("PRUNAS_CHECKPOINT_SECONDS", "nan", "PRUNAS_CHECKPOINT_SECONDS must be a number above 0"),
        ("PRUNAS_CHECKPOINT_SECONDS", "inf", "PRUNAS_CHECKPOINT_SECONDS must be a number above 0"),
        ("OMP_NUM_THREADS", "many", "OMP_NUM_THREADS must be a whole number above 0"),
        ("OMP_NUM_THREADS", "0", "OMP_NUM_THREADS must be a whole number above 0"),
    ],
)
@pytest.mark.parametrize("command", ["search", "train"])
def test_the_environment_is_looked_at(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: str, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert says in refused(command, "vgg.toml", "--epochs", "1")


def test_a_space_that_was_edited_is_refused_by_the_dry_run_too(refused: Refused, there: Path) -> None:
    store = Store(there / "runs")
    setting = make_setting(load_space("vgg.toml"), changes={"epochs": 1, "images": 200})
    plan = make_plan(setting, ["uniform"], seeds=1, controls=False, protocols=[], dense=False)
    search(plan, store, lambda: Serial(store))
    (there / "vgg.toml").write_text(VGG + "\n[vary]\nfloor = 2\n")
    assert "was edited (floor)" in refused("search", "vgg.toml", "--dry-run")


def test_a_target_that_a_proposer_cannot_reach(refused: Refused) -> None:
    line = refused("search", "preresnet20-digits", "--proposer", "sss", "--keep", "0.2", "--dry-run")
    assert "'sss' decides depth alone and cannot reach 20 % of params" in line


def test_python_meets_the_same_preflight(there: Path) -> None:
    space = SearchSpace.from_model(_net, (1, 8, 8), name="my net", data="digits")
    setting = make_setting(space, recipe_name="tiny")
    plan = make_plan(setting, ["uniform"], keep=[0.5], seeds=1, controls=False)
    with pytest.raises(InputError, match="'my net' cannot name the folder of its runs"):
        preflight(plan)
    store = Store(there / "runs")
    with pytest.raises(InputError, match="'my net' cannot name the folder of its runs"):
        search(plan, store, lambda: Serial(store))
    assert not (there / "runs").exists()


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def test_the_least_width_is_tried(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a survey does not see, a network that is too narrow for its own forward, is found before it trains."""
    space = load_space("vgg.toml")
    plan = make_plan(make_setting(space), ["uniform"], seeds=1, controls=False)
    preflight(plan)
    original = SearchSpace.build

    def too_narrow(self: SearchSpace, arch: object = None, *args: object) -> nn.Module:
        net = original(self, arch, *args)  # type: ignore[arg-type]
        first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
        if first.out_channels == 1:
            net.register_forward_pre_hook(lambda module, inputs: inputs[0].squeeze()[..., 9, 9])
        return net

    monkeypatch.setattr(SearchSpace, "build", too_narrow)
    with pytest.raises(
        InputError, match=r"cannot process 2 images at its least widths \(\[vary\] floor = 1\)"
    ):
        preflight(plan)


def test_transfer_has_a_dry_run(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(there / "vgg.toml", there / "second.toml")
    before = tree(there)
    arguments = ["transfer", "--from", "vgg.toml", "--to", "second.toml", "--keep", "0.5", "--seeds", "1"]
    for extra in (["--json"], []):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--epochs", "1", "--dry-run", *extra])
        printed = capsys.readouterr()
        assert not ended.value.code
        if extra:
            document = json.loads(printed.out)
            proposers = {row["proposer"] for row in document["runs"]}
            assert proposers == {"slimming", "guided", "transferred", "uniform", "random", "taper"}
            assert (
                document["trainings"] == 1 + 1 + 6 + 1
            )  # found there, found here, six rows, the dense network
        else:
            assert "1 of them in vgg, to find what is carried" in printed.out
    assert tree(there) == before
    assert torch.is_grad_enabled()


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib were not installed."""
    for name in list(sys.modules):
        if name.startswith(("matplotlib.", "prunas.report.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_a_search_says_so_first_and_keeps_all_but_the_figure(
    there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = str(tmp_path / "drawn-later")
    with pytest.raises(SystemExit) as ended:
        main(["search", *D, "--proposer", "uniform", "--out", runs])
    printed = capsys.readouterr()
    assert not ended.value.code
    assert printed.err.index("no figure: matplotlib is not installed") < printed.err.index("trainings in")
    assert "uniform" in printed.out
    assert len(list(Path(runs).glob("vgg/searches/*.json"))) == 1
    for words in (("efficiency",), ("pareto",)):
        with pytest.raises(SystemExit) as ended:
            main(["plot", *words, "--out", runs])
        assert ended.value.code == 2
        line = capsys.readouterr().err.strip()
        assert line == "prunas: the package matplotlib is not installed; `prunas doctor` says what is missing"
