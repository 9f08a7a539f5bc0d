"""Searches by samplers: their price, their trials, warm starts, shortened schedules, the studies made of them."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest

import prunas
from prunas.cli import main
from prunas.errors import InputError
from prunas.experiments.optuna_studies import open_storage, write_studies
from prunas.experiments.plan import make_plan, make_setting
from prunas.experiments.record import load_records, save
from prunas.experiments.search import Findings, Plan, search
from prunas.results.record import Record
from prunas.runs.pools.serial import Serial
from prunas.runs.store import Store
from prunas.spaces.load import load_space
from prunas.statistics import tables


def a_plan(space: Path, proposers: tuple[str, ...], epochs: int = 1, **changes: Any) -> Plan:
    setting = make_setting(load_space(str(space)), changes={"epochs": epochs})
    few = {"seeds": 1, "keep": [0.2], "controls": False, "dense": False}
    return make_plan(setting, proposers, **(few | changes))


def run(plan: Plan, root: Path) -> Findings:
    store = Store(root)
    return search(plan, store, lambda: Serial(store))


@pytest.fixture(scope="module")
def warm(small_space: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, Findings]:
    """A warm search beside a cold one, and one that stops schedules early."""
    options = {"tpe": {"startup": 2}, "cmaes": {"halving": 3}}
    names = ("tpe", "tpe+slimming", "cmaes", "nsga2")
    plan = a_plan(small_space, names, epochs=3, trials=3, options=options)
    root = tmp_path_factory.mktemp("runs")
    findings = run(plan, root)
    record = findings.record
    save(record, root)
    return root, plan, findings


def test_a_warm_start_brings_its_finder_along(warm: tuple[Path, Plan, Findings]) -> None:
    _, plan, findings = warm
    assert plan.proposers == ("slimming", "tpe", "cmaes", "nsga2", "tpe+slimming")
    assert findings.problems == ()
    assert {row.proposer for row in findings.rows} == set(plan.proposers)
    (found,) = findings.points["slimming"]
    first = next(trial for trial in findings.trials if trial.proposer == "tpe+slimming")
    assert first.architecture == found.architecture.digest
    trials = [trial.architecture for trial in findings.trials if trial.proposer == "tpe"]
    assert found.architecture.digest not in trials


def test_what_found_the_start_is_part_of_the_price(warm: tuple[Path, Plan, Findings]) -> None:
    _, _, findings = warm
    cost = {cost.proposer: cost for cost in findings.costs}
    own = [t for t in findings.trials if t.proposer == "tpe+slimming" and not t.duplicate]
    assert cost["slimming"].trainings == 1
    assert cost["tpe+slimming"].trainings == len(own) + 1 == 4
    assert cost["tpe+slimming"].macs == sum(t.train_macs for t in own) + cost["slimming"].macs
    assert cost["tpe"].trainings == 3
    assert "startup=2) by TPESampler(n_startup_trials=2," in cost["tpe"].made_with
    assert cost["slimming"].made_with == ""


def test_stopped_schedules_are_paid_for_and_never_answer(warm: tuple[Path, Plan, Findings]) -> None:
    _, _, findings = warm
    mine = [trial for trial in findings.trials if trial.proposer == "cmaes"]
    assert sorted({trial.fraction for trial in mine}) == pytest.approx([1 / 9, 1 / 3, 1])
    for trial in mine:  # three epochs make schedules of one, one and three; the second is the first again
        assert trial.epochs == max(1, round(3 * trial.fraction))
        assert trial.train_macs == 3 * trial.reached.macs * trial.epochs * 1079
    (cost,) = [cost for cost in findings.costs if cost.proposer == "cmaes"]
    assert cost.macs == sum(trial.train_macs for trial in mine if not trial.duplicate)
    assert cost.duplicates == sum(trial.duplicate for trial in mine) > 0
    (row,) = [row for row in findings.rows if row.proposer == "cmaes"]
    whole = [trial for trial in mine if trial.fraction == 1]
    assert row.architecture == max(whole, key=lambda trial: trial.val_score).architecture
    assert row.epochs == 3


def test_a_repeated_search_says_the_same(warm: tuple[Path, Plan, Findings]) -> None:
    root, plan, findings = warm
    again = run(plan, root)
    assert again.trained == 0
    assert (again.trials, again.costs, again.points) == (findings.trials, findings.costs, findings.points)


def test_trials_survive_storage_and_merge(warm: tuple[Path, Plan, Findings]) -> None:
    root, _, findings = warm
    record = findings.record
    path = root / "small-digits" / "searches"
    (document,) = [json.loads(p.read_text()) for p in path.glob("*.json")]
    assert Record.from_document(document, path) == record
    (merged,) = load_records(root)
    assert merged.trials == findings.trials


def test_a_point_off_the_grid_is_an_error(small_space: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from prunas import designs

    def off(space: Any, ratios: Any, target: Any) -> Any:
        group = space.dimensions[0].name
        return space.dense.replace(widths=((group, 10**6),))

    plan = a_plan(small_space, ("tpe",), trials=2)
    monkeypatch.setattr(designs, "fit", off)
    findings = run(plan, tmp_path)
    assert findings.trained == 0
    (problem,) = findings.problems
    assert problem.startswith("tpe, seed 0: group 'features.0' cannot have 1000000 units")


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (("uniform",), {"warm_start": ["slimming"]}, "--warm-start is for samplers"),
        (("tpe",), {"warm_start": ["slimmin"]}, "did you mean slimming"),
        (("tpe+magnitude",), {}, "'magnitude' finds kernel, and width is what is searched.*tpe.vary=kernel"),
        (
            ("tpe",),
            {"options": {"tpe": {"vary": "depth"}}},
            "'tpe' cannot serve space 'small-digits': it removes",
        ),
    ],
)
def test_warm_starts_that_mean_nothing_are_refused(
    names: tuple[str, ...], changes: Any, message: str, small_space: Path
) -> None:
    with pytest.raises(InputError, match=message):
        a_plan(small_space, names, **changes)


def test_warm_start_renames_every_sampler(small_space: Path) -> None:
    plan = a_plan(small_space, ("tpe", "gp", "uniform"), warm_start=["slimming", "l1"], controls=True)
    assert set(plan.proposers) == {
        "slimming", "l1", "tpe+slimming+l1", "gp+slimming+l1", "uniform", "random", "taper"
    }  # fmt: skip
    assert plan.trials["gp+slimming+l1"] == 16


def test_studies_hold_shapes_wider_than_the_dense_network(small_space: Path, tmp_path: Path) -> None:
    mine = tmp_path / small_space.name
    mine.write_text(small_space.read_text() + "\n[vary]\nceiling = 1.5\n")
    plan = a_plan(mine, ("tpe",), trials=4, keep=[1.0])
    record = run(plan, tmp_path / "runs").record
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    write_studies([record], tmp_path / "runs", open_storage(url))
    (name,) = optuna.get_all_study_names(url)
    shares = [
        share
        for trial in optuna.load_study(study_name=name, storage=url).trials
        for share in trial.params.values()
    ]
    assert 1.0 < max(shares) <= 1.5


def test_an_edited_space_is_named_and_refused(small_space: Path, tmp_path: Path) -> None:
    mine = tmp_path / small_space.name
    shutil.copy(small_space, mine)
    run(a_plan(mine, ("tpe",), trials=2), tmp_path / "runs")
    mine.write_text(small_space.read_text() + "\n[vary]\nstep = 2\nfloor = 2\n")
    with pytest.raises(
        InputError, match=r"space 'small-digits' was edited \(floor, step\) since searches in"
    ):
        run(a_plan(mine, ("tpe",), trials=2), tmp_path / "runs")
    mine.write_text(small_space.read_text() + "\n# what may vary is as it was\n")
    assert run(a_plan(mine, ("tpe",), trials=2), tmp_path / "runs").trained == 0


# Studies


@pytest.fixture(scope="module")
def database(warm: tuple[Path, Plan, Findings], tmp_path_factory: pytest.TempPathFactory) -> str:
    root, *_ = warm
    url = f"sqlite:///{tmp_path_factory.mktemp('database') / 'studies.db'}"
    write_studies(load_records(root), root, open_storage(url))
    return url


def test_studies_hold_what_was_tried(warm: tuple[Path, Plan, Findings], database: str) -> None:
    _, _, findings = warm
    names = optuna.get_all_study_names(database)
    studies = {name.split("/")[2]: optuna.load_study(study_name=name, storage=database) for name in names}
    setting = findings.setting
    assert f"small-digits/{setting}/tpe+slimming/seed0/params-20%" in names
    mine = [trial for trial in findings.trials if trial.proposer == "tpe"]
    trials = studies["tpe"].trials
    assert [t.value for t in trials] == [t.val_score for t in mine]
    assert [t.user_attrs["prunas"]["run"] for t in trials] == [t.id for t in mine]
    assert studies["tpe"].best_value == max(t.val_score for t in mine)
    assert all(0 < share <= 1 for t in trials for share in t.params.values())
    assert [t.values[1] for t in studies["nsga2"].trials] == [
        t.reached.macs for t in findings.trials if t.proposer == "nsga2"
    ]
    assert {t.state.name for t in studies["cmaes"].trials} == {"COMPLETE", "PRUNED"}
    assert "CmaEsSampler(" in studies["cmaes"].user_attrs["prunas"]["made_with"]


@pytest.fixture
def postgres() -> Iterator[str]:
    """URL of an empty database of a PostgreSQL server of this test's own; skips where none is installed."""
    pytest.importorskip("psycopg")
    root = os.geteuid() == 0  # whom PostgreSQL refuses
    if not all(map(shutil.which, ("initdb", "pg_ctl", *["runuser"] * root))):
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if root else os.environ.get("USER", "postgres")
    with tempfile.TemporaryDirectory(prefix="prunas-", ignore_cleanup_errors=True) as folder:
        if root:
            shutil.chown(folder, user)

        def run(*command: str) -> None:
            as_user = ["runuser", "-u", user, "--"] * root
            subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = f"{folder}/data"
        run("initdb", "-D", data, "-U", user, "-A", "trust")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run("pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "-t", "300", "start")
        try:
            yield f"postgresql://{user}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def test_a_postgresql_server_holds_the_same(
    warm: tuple[Path, Plan, Findings], database: str, postgres: str
) -> None:
    root, *_ = warm
    storage = open_storage(postgres)
    for _ in range(2):  # the second call replaces what the first wrote
        write_studies(load_records(root), root, storage)

    def held(where: Any) -> dict[str, list[Any]]:
        names = optuna.get_all_study_names(where)
        studies = (optuna.load_study(study_name=name, storage=where) for name in names)
        return {
            s.study_name: [(t.state, t.values, t.params, t.user_attrs) for t in s.trials] for s in studies
        }

    assert held(storage) == held(database) != {}
    storage.engine.dispose()


def test_studies_of_others_stay(warm: tuple[Path, Plan, Findings], tmp_path: Path) -> None:
    root, _, findings = warm
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    setting = findings.setting
    optuna.create_study(study_name=f"small-digits/{setting}/tpe/seed0/params-20%", storage=url)
    with pytest.raises(InputError, match="that prunas did not write; rename it"):
        write_studies(load_records(root), root, open_storage(url))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", '--storage "nonsense" does not answer: Could not parse'),
        (
            "sqlite:////no/such/folder/x.db",
            "--storage sqlite:////no/such/folder/x.db does not answer: unable to",
        ),
        ("nosuch://host/name", r"--storage nosuch://host/name does not answer: .*nosuch"),
        (
            "postgresql://me:secret@127.0.0.1:1/x",
            r"--storage postgresql://me:\*\*\*@127.0.0.1:1/x does not answer: .*refused",
        ),
    ],
)
def test_a_storage_that_does_not_answer_is_one_line(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as told:
        open_storage(url)
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


def test_a_missing_driver_is_one_line_with_the_command() -> None:
    with pytest.raises(InputError, match=r"needs a driver .* pip install 'prunas\[postgres\]'"):
        open_storage("mysql://me@127.0.0.1:1/x")


def test_the_command_writes_them_anew(
    warm: tuple[Path, Plan, Findings], database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _, findings = warm
    schema = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())

    def valid(name: str, document: Any) -> Any:
        jsonschema.validate(document, {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
        return document

    before = optuna.get_all_study_names(database)
    with pytest.raises(SystemExit) as ended:
        main(["optuna", "--storage", database, "--out", str(root), "--json"])
    assert ended.value.code == 0
    studies = valid("optuna", json.loads(capsys.readouterr().out))["studies"]
    assert {study["study"].split("/")[2] for study in studies} == {t.proposer for t in findings.trials}
    assert (
        sorted(optuna.get_all_study_names(database)) == sorted(before) == sorted(s["study"] for s in studies)
    )
    with pytest.raises(SystemExit) as ended:
        main(["optuna", "--storage", "postgresql://me@127.0.0.1:1/x", "--out", str(root)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prunas: --storage postgresql://me@127.0.0.1:1/x does not answer: ")
    document = valid("search", json.loads(json.dumps(tables.document(findings))))
    assert len(document["trials"]) == len(findings.trials)
