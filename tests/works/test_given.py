"""Weights that a user brings for the dense network: read safely, refused where they do not fit."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from prunas import api
from prunas.data import load
from prunas.errors import InputError
from prunas.experiments.forecast import forecast
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.preflight import preflight
from prunas.experiments.record import record_of, setting_digest
from prunas.experiments.repeat import command_of
from prunas.experiments.search import Findings, Plan, search
from prunas.experiments.steps import warnings_of
from prunas.names import ONE_GIVEN_NETWORK
from prunas.protocols import protocol
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.statistics.tables import document, tables
from prunas.surgery.given import Weights, fitted_state
from prunas.works.runtime import weights as kept_weights

CPU = torch.device("cpu")
SPACE = "vgg11-digits"


class Code:
    """Pickled as a call, which an unsafe loader would make."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code of a pickle was run",)


def briefly_trained() -> nn.Module:
    """A network of a user, trained by a loop of the user's own."""
    torch.manual_seed(7)
    net = load_space(SPACE).build()
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for epoch in range(3):
        for x, y in load("digits").batches("train", 64, device=CPU, seed=1, epoch=epoch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    return net.eval()


_NET: list[nn.Module] = []


def network() -> nn.Module:
    """What `call:` names: the same network every time."""
    if not _NET:
        _NET.append(briefly_trained())
    return _NET[0]


def drawn() -> nn.Module:
    """Another network at every call."""
    return nn.Linear(2, 2 + len(_CALLS.append(1) or _CALLS))


_CALLS: list[int] = []


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        return dict(network().state_dict())


@pytest.fixture
def path(state: dict[str, Tensor], tmp_path: Path) -> Path:
    file = tmp_path / "mine.pth"
    torch.save(state, file)
    return file


def a_plan(weights: Path | str | Weights | None, *proposers: str, **changes: Any) -> Plan:
    setting = make_setting(load_space(SPACE), changes={"epochs": 1, "images": 64}, weights=weights)
    return make_plan(
        setting, proposers, **{"keep": [0.5], "seeds": 2, "controls": False, "dense": False} | changes
    )


def run(plan: Plan, root: Path) -> Findings:
    store = Store(root)
    return search(plan, store, lambda: executor("serial", store))


def works_in(root: Path) -> list[str]:
    return sorted(folder.name.rpartition("-")[0] for folder in (root / SPACE).glob("*-????????????"))


def test_a_given_network_scores_what_its_users_evaluation_says(path: Path, tmp_path: Path) -> None:
    x, y = next(iter(load("digits").batches("val", 10_000, device=CPU)))
    with torch.no_grad():
        right = (network()(x).argmax(1) == y).sum().item()
    # Neither guessing nor without any fault, so that another network would score otherwise.
    assert 0.3 < right / len(y) < 1
    (dense,) = run(a_plan(path, "l1-global"), tmp_path).dense
    assert (dense.val_score, dense.protocol, dense.epochs) == (100 * right / len(y), "given", 0)


def test_a_method_prunes_the_given_network_and_nothing_is_trained_for_it(
    path: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    plan = a_plan(path, "l1-global", protocols=["scratch-e", "finetune"])
    findings = run(plan, tmp_path / "runs")
    assert findings.problems == ()
    # One given network for both seeds, and per seed a training from scratch and one of sliced weights.
    jobs = works_in(tmp_path / "runs")
    assert jobs.count("given") == 1
    assert "dense" not in jobs
    assert len(jobs) == 1 + 2 * 2
    (folder,) = (tmp_path / "runs" / SPACE).glob("given-*")
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept_weights(folder).items())
    assert [point.weights_of for point in findings.points["l1-global"]] == [folder.name] * 2
    val = load("digits").sizes["val"]
    assert {cost.macs for cost in findings.costs} == {
        plan.setting.space.cost(plan.setting.space.dense).macs * val
    }
    assert forecast(plan).trainings == 4
    assert run(plan, tmp_path / "runs").trained == 0


def test_the_score_right_after_pruning_is_that_of_the_sliced_network(
    path: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    plan = a_plan(path, "l1-global", protocols=["scratch-e", "finetune"])
    findings = run(plan, tmp_path)
    space, val = plan.setting.space, load("digits").batches("val", 10_000, device=CPU)
    x, y = next(iter(val))
    point = findings.points["l1-global"][0]
    assert point.kept is not None
    net = space.build(point.architecture, state, point.kept).eval()
    with torch.no_grad():
        expected = 100 * (net(x).argmax(1) == y).sum().item() / len(y)
    tuned = [row for row in findings.rows if row.protocol == "finetune"]
    # The network is given and nothing is drawn: both seeds prune alike, and their retrainings differ.
    assert [row.pruned_score for row in tuned] == [expected] * 2
    assert {row.pruned_score for row in findings.rows if row.protocol != "finetune"} == {None}
    assert len({row.id for row in tuned}) == 2
    (line,) = [line for line in document(findings.record)["table"] if line["protocol"] == "finetune"]
    assert line["pruned"] == expected
    text = tables(findings.record)
    assert "pruned %" in text.splitlines()[0]
    assert "Pruned: validation accuracy right after pruning, before any retraining." in text
    assert all(row.flags == (ONE_GIVEN_NETWORK,) for row in findings.rows)
    assert "one given network: seeds share one given network, so intervals speak of retraining" in text


def test_a_search_that_inherits_nothing_has_no_column_for_it(path: Path, tmp_path: Path) -> None:
    findings = run(a_plan(path, "uniform"), tmp_path)
    assert "pruned" not in tables(findings.record)
    assert {row.flags for row in findings.rows} == {()}  # nobody read the given network
    plan = a_plan(path, "uniform")
    assert not [note for note in record_of(plan).notes if "given dense network" in note]
    (warning,) = [
        note for note in warnings_of(plan.setting, plan.protocols, plan.proposers) if "given" in note
    ]
    assert warning.startswith("nobody in this search reads the given weights; add a method")


def test_initial_weights_of_a_given_network_are_not_known(path: Path) -> None:
    with pytest.raises(
        InputError, match="'ticket' starts from the weights that the dense network was born with"
    ):
        a_plan(path, "l1-global", protocols=["ticket"])
    assert a_plan(None, "l1-global", protocols=["ticket"])


def test_the_given_network_teaches(path: Path, tmp_path: Path) -> None:
    findings = run(a_plan(path, "l1-global", protocols=["scratch-e+distill"], seeds=1), tmp_path)
    assert works_in(tmp_path).count("given") == 1
    (given,) = (tmp_path / SPACE).glob("given-*")
    (row,) = findings.rows
    job = json.loads((Path(row.folder) / "job.json").read_text())
    assert (job["spec"]["teacher"]["run"], job["spec"]["inherit"]) == (given.name, None)
    assert (row.status, row.protocol) == ("finished", "scratch-e+distill")


def test_a_penalty_trains_on_from_the_given_network(path: Path, tmp_path: Path) -> None:
    plan = a_plan(path, "slimming", protocols=[])
    findings = run(plan, tmp_path)
    assert findings.problems == ()
    assert works_in(tmp_path) == ["dense", "dense", "given"]  # a penalised training per seed
    assert forecast(plan).trainings == 2
    (given,) = (tmp_path / SPACE).glob("given-*")
    penalised = [row for row in findings.dense if row.protocol == "penalty"]
    assert [row.search_seed for row in penalised] == [0, 1]
    for row in penalised:
        job = json.loads((Path(row.folder) / "job.json").read_text())
        assert job["spec"]["inherit"] == {"run": given.name, "kept": {}}


def test_the_content_is_the_identity_and_not_the_path(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.pth"
    elsewhere.write_bytes(path.read_bytes())
    here, there = (a_plan(each, "l1-global").setting for each in (path, elsewhere))
    one, other = here.dense(0, None).job, there.dense(1, None).job
    assert one.id == other.id
    assert one.places["weights"] == str(path)
    assert other.places["weights"] == str(elsewhere)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert one.spec["weights"] == {"kind": "file", "sha256": sha256}
    assert Weights.from_json(one.spec["weights"], path) == Weights.of(f"file:{path}") == here.dense_from


def test_a_record_says_what_its_seeds_share(path: Path) -> None:
    given, trained = (a_plan(each, "l1-global") for each in (path, None))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    (note,) = [
        note for note in record_of(given).notes if note not in record_of(trained).notes and "seeds" in note
    ]
    assert note.startswith(f"all seeds share one given dense network (mine.pth, sha256 {sha256[:12]})")
    assert (
        "retraining and of what a method draws by its seed, not of searching in other dense networks" in note
    )
    assert setting_digest(given) != setting_digest(trained)
    command = command_of(given) or []
    assert command[command.index("--weights") + 1] == f"file:{path}"
    assert record_of(given).plan["weights"] == {"kind": "file", "sha256": sha256}


def a_space(folder: Path, line: str) -> str:
    """A space's file with a line about weights."""
    (file := folder / "mine.toml").write_text(
        f"""network = "prunas.networks:vgg11"
arguments = {{ channels = 1, base = 8, pools = 2 }}
input = [1, 8, 8]
data = "digits"
recipe = "tiny"
{line}
"""
    )
    return str(file)


def test_a_spaces_file_names_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = a_space(tmp_path, 'weights = "parts/mine.pth"')
    (tmp_path / "parts").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"cannot read weights .*parts/mine\.pth"):
        make_setting(load_space(space))
    torch.save(load_space(space).build().state_dict(), file := tmp_path / "parts" / "mine.pth")
    setting = make_setting(load_space(space))
    assert setting.dense_from == Weights.of(file)
    assert make_setting(load_space(space), weights="none").dense_from is None
    for weights, words in ((None, []), ("none", ["--weights", "none"])):
        plan = make_plan(make_setting(load_space(space), weights=weights), ["l1-global"], keep=[0.5])
        command = command_of(plan) or []
        assert command
        assert [word for word in command if word in ("--weights", "none")] == words


@pytest.mark.parametrize("protocol", ["finetune", "finetune-rewound"])
def test_one_training_goes_on_from_given_weights(
    protocol: str, path: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    quick = {"epochs": 1, "images": 64}
    done = api.train(SPACE, protocol=protocol, weights=path, recipe=quick, out=tmp_path)
    assert (done.outcome.status, done.row.protocol) == ("finished", protocol)
    (given,) = (tmp_path / SPACE).glob("given-*")
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept_weights(given).items())
    narrow = api.prepare_search(SPACE, ["uniform"], keep=[0.5], out=tmp_path).plan.setting.space
    point = narrow.point(widths={narrow.dimensions[0].name: 3})
    with pytest.raises(InputError, match="a shape does not say which it keeps"):
        api.prepare_train(narrow, point, protocol=protocol, weights=path, out=tmp_path)
    with pytest.raises(InputError, match="none are given; name them with --weights FILE"):
        api.prepare_train(SPACE, protocol=protocol, out=tmp_path)
    with pytest.raises(InputError, match="'scratch-e' starts from new weights; add --protocol finetune"):
        api.prepare_train(SPACE, weights=path, out=tmp_path)


@pytest.mark.parametrize("command", ["search", "transfer", "train"])
def test_commands_take_weights(
    command: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prunas.cli import main

    words = {
        "search": ["search", SPACE, "--proposer", "l1-global", "--keep", "0.5", "--dry-run", "--yes"],
        "transfer": [
            "transfer",
            "--from",
            "vgg16-c10",
            "--to",
            SPACE,
            "--from-found",
            "--keep",
            "0.1",
            "--dry-run",
        ],
        "train": ["train", SPACE, "--protocol", "finetune", "--epochs", "1", "--images", "64"],
    }[command]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--weights", str(path), "--out", str(tmp_path / "runs")])
    assert ended.value.code == 0, capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*words, "--weights", "nowhere.pth", "--out", str(tmp_path / "runs")])
    assert ended.value.code == 2
    assert "cannot read weights" in capsys.readouterr().err


def test_a_dense_training_that_does_not_happen_has_no_say_in_warnings(path: Path) -> None:
    for weights, warned in ((None, True), (path, False)):
        plan = a_plan(weights, "l1-global", "slimming", protocols=["finetune"])
        assert bool(warnings_of(plan.setting, plan.protocols, plan.proposers)) == warned


@pytest.mark.parametrize("form", ["safetensors", "wrapped", "parallel", "half", "legacy"])
def test_the_usual_forms_of_a_checkpoint_are_read(
    form: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path, said = tmp_path / form, ""
    match form:
        case "safetensors":
            safetensors.torch.save_file(state, path)
        case "wrapped":
            torch.save({"epoch": 3, "model": {"state_dict": state}}, path)
            said = "the weights are those under 'model'"
        case "parallel":
            torch.save({"state_dict": nn.DataParallel(network()).state_dict()}, path)
            said = "the prefix 'module.' of all names in parallel was left out"
        case "half":
            torch.save({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, path)
            said = "tensors of half were converted to the precision of the network"
        case "legacy":
            torch.save(state, path, _use_new_zipfile_serialization=False)
    fitted, notes = fitted_state(Weights.of(path), state)
    assert list(fitted) == list(state)
    for name, tensor in fitted.items():
        expected = (
            state[name].half().float() if form == "half" and state[name].is_floating_point() else state[name]
        )
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, expected)
    assert any(note.startswith(said) for note in notes) if said else notes == ()


def test_a_function_and_a_run_give_weights(state: dict[str, Tensor], path: Path, tmp_path: Path) -> None:
    called = Weights.of(f"call:{__name__}:network")
    assert called == Weights.from_json(called.to_json())
    assert all(torch.equal(t, state[n]) for n, t in fitted_state(called, state)[0].items())
    runs = tmp_path / "runs"
    run(a_plan(path, "l1-global", protocols=[]), runs)
    (folder,) = (runs / SPACE).glob("given-*")
    for name in (folder.name, folder.name.rpartition("-")[2]):
        weights = Weights.of(f"run:{name}")
        assert all(torch.equal(t, state[n]) for n, t in fitted_state(weights, state, runs / SPACE)[0].items())
    preflight(a_plan(f"run:{folder.name}", "l1-global"), Store(runs))
    with pytest.raises(InputError, match="holds no run of that id that kept its weights"):
        preflight(a_plan("run:0123456789ab", "l1-global"), Store(runs))


def test_python_takes_weights_in_a_search(path: Path, tmp_path: Path) -> None:
    prepared = api.prepare_search(SPACE, ["l1-global"], keep=[0.5], weights=path, out=tmp_path)
    assert prepared.plan.setting.dense_from == Weights.of(path)


def test_code_in_a_pickle_is_never_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for name, write in {
        "zip": lambda file: torch.save({**state, "extra": Code()}, file),
        "plain": lambda file: file.write_bytes(pickle.dumps({"state_dict": Code()})),
        "network": lambda file: torch.save(network(), file),
    }.items():
        write(file := tmp_path / name)
        with pytest.raises(
            InputError, match=r"can run code; .*torch\.save\(net\.state_dict\(\), FILE\)"
        ) as refused:
            a_plan(file, "l1-global")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("form", ["pth", "safetensors", "empty", "text"])
def test_a_damaged_file_is_refused(form: str, state: dict[str, Tensor], path: Path, tmp_path: Path) -> None:
    content = {
        "pth": path.read_bytes()[:-1000],
        "safetensors": safetensors.torch.save(state)[:-1000],
        "empty": b"",
        "text": b"hello, this is no file of weights",
    }[form]
    (file := tmp_path / "damaged").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged are damaged, or no file of weights \(") as refused:
        a_plan(file, "l1-global")
    assert "\n" not in str(refused.value)


def test_another_network_is_refused_with_the_first_names_that_differ(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).state_dict(), file := tmp_path / "other.pth")
    names = list(load_space(SPACE).build().state_dict())
    expected = (
        f"does not fit the dense network: it lacks {', '.join(names[:3])} and {len(names) - 3} more; "
        "the network has no 0.weight, 0.bias, 1.weight and 1 more"
    )
    with pytest.raises(InputError) as refused:
        a_plan(file, "l1-global")
    assert str(refused.value).endswith(expected)


def test_shapes_that_differ_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    name = next(iter(state))
    sizes = "x".join(map(str, state[name].shape))
    torch.save(state | {name: torch.zeros(5, 1, 3, 3)}, file := tmp_path / "other.pth")
    with pytest.raises(InputError, match=f"{name} is float32 5x1x3x3, not float32 {sizes}$"):
        a_plan(file, "l1-global")


def test_what_is_no_state_dict_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    name = next(iter(state))
    for value, reason in [
        ([1, 2], "a state dict is needed, not a list"),
        ({"epoch": 3, **state}, "no state dict, for epoch is no tensor"),
        (state | {name: torch.full_like(state[name], float("nan"))}, f"not finite in {name}"),
    ]:
        torch.save(value, file := tmp_path / "odd.pth")
        with pytest.raises(InputError, match=reason):
            a_plan(file, "l1-global")


def test_a_file_that_changed_since_is_refused(path: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    plan = a_plan(path, "l1-global")
    torch.save({name: tensor + 1 for name, tensor in state.items()}, path)
    with pytest.raises(InputError, match="changed since this search was planned"):
        run(plan, tmp_path / "runs")
    store = Store(tmp_path / "runs")  # and by the process that trains, if it changes later
    with executor("serial", store) as serial:
        serial.submit(plan.setting.dense(0, None).job)
        (outcome,) = serial.completed()
    assert outcome.status == "failed"
    assert "changed since this search was planned" in str(outcome.error)
    weights = Weights.of(f"call:{__name__}:drawn")
    with pytest.raises(InputError, match="changed since this search was planned"):
        fitted_state(weights, state)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nowhere.pth", "cannot read weights .*nowhere.pth: No such file"),
        ("run:mine", "by its id of 12 hex digits"),
        ("call:mine", "name a function"),
        ("call:nowhere.at.all:mine", "cannot be called: ModuleNotFoundError"),
    ],
)
def test_a_reference_that_cannot_be_meant_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Weights.of(text)


def test_a_document_that_is_no_reference_is_refused() -> None:
    for wrong in ({}, {"kind": "url", "name": "x"}, {"kind": "file"}, {"kind": "run", "name": 3}):
        with pytest.raises(InputError, match="weights: "):
            Weights.from_json(wrong)


def test_given_weights_and_a_way_to_train_the_dense_network_exclude_each_other(path: Path) -> None:
    with pytest.raises(InputError, match=r"has given weights .* leave one of the two out"):
        replace(a_plan(path, "l1-global").setting, dense_training=protocol("dsd"))
