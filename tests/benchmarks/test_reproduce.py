"""The grid asks for plans that exist, claims are judged by the rows, and the pages are what the results say."""

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reproduce import page
from benchmarks.reproduce import run as running
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.cells import Cell, Dense, Protocol, cells, every_cell, gpu, protocols
from benchmarks.reproduce.claims import (
    Claim,
    Result,
    bears,
    claims_digest,
    corrected,
    load_claims,
    load_critics,
    load_results,
    stranger,
    verdicts,
)
from benchmarks.reproduce.dense import dense_results
from benchmarks.reproduce.documents import whole, write_cell
from benchmarks.reproduce.share import Shared, Stored
from prunas.errors import InputError
from prunas.proposers.registry import entry
from prunas.protocols import protocol
from prunas.recipe import recipe
from prunas.runs.execute import Outcome, never
from prunas.runs.executors import Base, silent
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.spaces.load import load_space

HERE = Path(page.__file__).parent
PUBLISHED = json.loads((HERE / "published.json").read_text())
EVERY = [cell for name in protocols() for cell in cells(name)]
ROWS = {key: row for each in PUBLISHED["tables"].values() for key, row in each["rows"].items()}


# What is committed


def test_the_page_is_what_the_results_say() -> None:
    assert page.README.read_text(encoding="utf-8") == page.page()


def test_every_figure_of_the_page_is_there() -> None:
    text = page.README.read_text(encoding="utf-8")
    shown = {part.split(")")[0] for part in text.split("](figures/")[1:]}
    assert shown == {path.name for path in (HERE / "figures").glob("*.png")}
    for name in shown:
        assert (HERE / "figures" / name).with_suffix(".svg").is_file()


@pytest.mark.parametrize("path", sorted((HERE / "results").glob("*/*.json")), ids=lambda path: path.stem)
def test_results_name_no_machine_and_belong_to_their_cell(path: Path) -> None:
    document = json.loads(path.read_text())
    (cell,) = (cell for cell in cells(path.parent.name) if cell.name == path.stem)
    assert {row["proposer"] for row in document["runs"]} <= set(cell.proposers)
    assert {row["protocol"] for row in document["runs"]} <= set(cell.trained)
    assert len(document["runs"]) <= document["cell"]["planned"]
    assert all("/" not in row["folder"] for row in (*document["runs"], *document["dense"]))
    assert document["plan"]["seeds"] == cell.seeds
    assert "command" not in document["plan"]


def test_results_of_the_old_protocol_go_when_the_new_one_has_their_cell() -> None:
    old, new = (set(load_results(protocol_)) for protocol_ in ("early", "reduced"))
    assert not old & new
    text = page.page()
    assert ("results of the old protocol, and starve" in text) == bool(old)


def test_a_figure_is_complete_or_says_that_it_is_not() -> None:
    text = page.page()
    for protocol_ in protocols():
        for name, result in load_results(protocol_).items():
            done = sum(row.status == "finished" for row in result.record.rows)
            planned = result.cell["planned"]
            told = f"All {planned} final" if done == planned else f"Under way: {done} of {planned} final"
            section = text.split(f"## Protocol {protocol_}")[1].split(f"### {name}\n")[1].split("\n### ")[0]
            assert told in section


def test_every_result_belongs_to_its_cell() -> None:
    for path in (HERE / "results").glob("*/*.json"):
        assert path.stem in load_results(path.parent.name), path


def test_a_result_of_another_recipe_or_of_other_data_enters_no_table() -> None:
    protocol_ = next(name for name in protocols() if load_results(name))
    name, result = next(iter(load_results(protocol_).items()))
    assert stranger(protocol_, name, result) is None
    assert stranger(protocol_, "nowhere", result) is not None
    plan = result.document["plan"]
    for setting, value in (("precision", "tf32"), ("epochs", plan["recipe"]["epochs"] + 1)):
        document = {**result.document, "plan": {**plan, "recipe": {**plan["recipe"], setting: value}}}
        assert stranger(protocol_, name, Result(document, result.record)) == "another recipe or precision"


def test_data_that_differ_enter_no_table() -> None:
    result = load_results("early").get("efficiency-left") or load_results("reduced")["efficiency-left"]
    protocol_ = result.cell["protocol"]
    other = Result({**result.document, "data_identity": "0" * 12}, result.record)
    assert stranger(protocol_, "efficiency-left", other) == "other data"


def test_dense_results_are_of_the_recipe_of_their_cell() -> None:
    for protocol_ in protocols():
        for result in dense_results(protocol_).values():
            for run in result.runs:
                for key, value in {**result.of.protocol.changes, **run["settings"]}.items():
                    assert run["recipe"][key] == value
                assert run["scored"] == result.of.scored


# The grid


def test_table_6_prunes_the_printed_share_of_the_convolution_weights() -> None:
    for cell in (cell for cell in EVERY if "table 6" in cell.shows):
        assert cell.metric == "conv-params"
        printed = [float(row.rpartition("/")[2].rstrip("%")) for row in cell.rows]
        assert [100 * (1 - keep) for keep in cell.keep] == pytest.approx(printed)


@pytest.mark.parametrize("cell", EVERY, ids=lambda cell: cell.name_in_full)
def test_what_a_cell_names_exists(cell: Cell) -> None:
    space = load_space(str(HERE / cell.space) if cell.space.endswith(".toml") else cell.space)
    kinds = {entry(name).kind for name in cell.proposers}
    assert kinds <= {"automatic", "predefined", "design", "control"}
    assert entry(cell.proposers[0]).kind in ("automatic", "predefined")  # it finds, also on the source
    assert ("source" in {need for name in cell.proposers for need in entry(name).needs}) == bool(cell.source)
    if cell.preset:
        assert space.preset(cell.preset)
    for name in cell.trained:
        protocol(name)
    if cell.recipe or cell.protocol.recipe:
        recipe(cell.recipe or cell.protocol.recipe or "")
    for row in cell.rows:
        assert row in ROWS
    assert cell.preset or not cell.rows or len(cell.rows) == len(cell.keep)
    assert cell.seeds >= 3 or "imagenet" in cell.space


def test_names_are_unique_within_a_protocol_and_protocols_stay_apart() -> None:
    names = [cell.name_in_full for cell in EVERY]
    assert len(names) == len(set(names))
    assert {cell.protocol.name for cell in EVERY} == {"reduced", "early", "fast", "paper"}


def test_the_order_is_that_of_value() -> None:
    assert [cell.name for cell in every_cell("reduced")][:4] == [
        "rate",
        "efficiency-left",
        "retraining",
        "efficiency-right",
    ]
    assert [cell.name for cell in cells("fast")][:3] == ["efficiency-left", "retraining", "efficiency-right"]
    assert all(cell.shows == ("table 1",) for cell in cells("fast")[3:])
    assert [cell.name for cell in cells("paper")][:2] == ["vgg16-a", "vgg19-c10-slimming"]


def test_the_reduced_protocol_sees_all_images_in_one_precision() -> None:
    for cell in cells("reduced"):
        if cell.recipe is None:
            how = recipe("fast").replace(**cell.protocol.changes)
            assert (how.epochs, how.batch, how.lr, how.images, how.precision) == (15, 128, 0.2, 0, "fp32")
            assert cell.seeds >= 3


@pytest.mark.parametrize(
    "cell",
    [cell for name in protocols() for cell in every_cell(name) if isinstance(cell, Dense)],
    ids=lambda cell: cell.name_in_full,
)
def test_what_a_cell_of_dense_networks_names_exists(cell: Dense) -> None:
    for name in cell.spaces:
        load_space(str(HERE / name) if name.endswith(".toml") else name)
    for changes in cell.settings:
        recipe(cell.protocol.recipe or "paper").replace(**cell.protocol.changes, **changes)
    assert cell.scored in ("val", "test")
    assert all(set(changes) == set(cell.settings[0]) for changes in cell.settings)


def test_hours_on_a_gpu_are_known_for_every_network_of_cifar() -> None:
    for name in ("fast", "paper"):
        for cell in cells(name):
            if "imagenet" not in cell.space:
                space = load_space(str(HERE / cell.space) if cell.space.endswith(".toml") else cell.space)
                assert 0 < gpu().seconds(space.name, 256) <= gpu().seconds(space.name, 64)


def test_unstructured_cells_ask_for_what_is_left() -> None:
    for cell in EVERY:
        if "table 6" in cell.shows:
            for keep, row in zip(cell.keep, cell.rows, strict=True):
                assert round(100 * (1 - keep)) == int(row.rpartition("/")[2].rstrip("%"))


# Numbers of the study, from its tables


@pytest.mark.parametrize(
    ("table", "row", "way", "value"),
    [
        ("1", "CIFAR-10/VGG-16/VGG-16-A", "scratch-b", [93.78, 0.15]),
        ("1", "CIFAR-10/ResNet-110/ResNet-110-B", "scratch-b", [93.60, 0.25]),
        ("4", "CIFAR-100/PreResNet-164/60%", "finetune", [74.17, 0.33]),
        ("6", "CIFAR-10/VGG-19/30%", "scratch-b", [93.31, 0.26]),
        ("6", "ImageNet/ResNet-50/60%", "finetune", [76.09, None]),
        ("5", "ImageNet/ResNet-50/ResNet-41", "scratch-e", [75.61, None]),
    ],
)
def test_published_numbers(table: str, row: str, way: str, value: list[float | None]) -> None:
    assert PUBLISHED["tables"][table]["rows"][row][way] == value


def test_table_8_adds_up_to_what_it_prints() -> None:
    widths = PUBLISHED["widths"]
    assert round(sum(widths["mean"]), 1) == 1689.2
    assert sum(widths["dense"]) == 4224


def test_every_doubt_and_conflict_is_on_the_page() -> None:
    text = page.page()
    for doubt in PUBLISHED["doubts"]:
        assert doubt["text"] in text
    for conflict in PUBLISHED["conflicts"]:
        assert f"| {conflict['table']} | {conflict['printed']:.2f} | {conflict['readme']:.2f} |" in text


# Claims


def test_claims_have_a_margin_a_source_and_no_twin() -> None:
    margins, claims = load_claims()
    assert (margins.usual, margins.own) == (0.2, {"reduced": 0.5})
    assert len({claim.id for claim in claims}) == len(claims)
    assert sum(claim.negative for claim in claims) >= 3
    assert {claim.kind for claim in claims} == {"predefined", "automatic"}
    for claim in claims:
        assert claim.source == "prunas" or claim.source.startswith("section") or "arXiv:" in claim.source


def test_critics_name_claims_that_cells_of_the_reduced_protocol_answer() -> None:
    known = {claim.id: claim for claim in load_claims()[1]}
    for critic in load_critics():
        assert "arXiv:" in critic.who
        for name in critic.claims:
            assert any(bears(known[name], cell) for cell in cells("reduced"))


def test_a_change_of_the_claims_after_a_run_is_named() -> None:
    (cell,) = (cell for cell in cells("reduced") if cell.name == "retraining")
    assert not Result({"claims": claims_digest(cell)}, None).stale(cell)  # type: ignore[arg-type]
    assert Result({"claims": "0" * 12}, None).stale(cell)  # type: ignore[arg-type]


def test_a_claim_must_hold_at_every_target_and_against_chance_over_all_verdicts() -> None:
    (claim,) = (claim for claim in load_claims()[1] if claim.id == "kernel-centre")

    def document(*means: float) -> dict[str, object]:
        found, control = (
            [
                {
                    "proposer": proposer,
                    "asked": {"metric": "params", "value": 100 * (place + 1), "keep": 0.1 * (place + 1)},
                    "contrast": summary(mean, 0.01) if proposer == "magnitude" else summary(0.0, 0.01),
                }
                for place, mean in enumerate(means)
            ]
            for proposer in ("magnitude", "magnitude-untrained")
        )
        return {"patterns": [*found, *control]}

    def verdict(*means: float):  # type: ignore[no-untyped-def]
        cell = Cell(
            name="made",
            protocol=SMALL.protocol,
            shows=claim.about,
            space="",
            proposers=("magnitude",),
            seeds=3,
        )
        result = Result(document(*means), None)  # type: ignore[arg-type]
        return verdicts([claim], [cell], {"made": result}, 0.2)[0]

    assert verdict(0.1, 0.1).judgement == "holds"
    assert verdict(0.1, 0.001).judgement == "undecided"
    assert verdict(0.1, -0.1).judgement == "fails"
    alone = verdict(0.03, 0.03)
    assert alone.judgement == "holds"
    many = corrected([alone] * 20)
    assert {each.judgement for each in many} == {"undecided"}
    assert many[0].p == pytest.approx(20 * alone.p)


def test_every_cell_bears_on_a_claim() -> None:
    _, claims = load_claims()
    assert [cell.name_in_full for cell in EVERY if not any(bears(claim, cell) for claim in claims)] == []


def test_predefined_and_automatic_claims_are_judged_on_their_own_methods() -> None:
    _, claims = load_claims()
    for claim in claims:
        for cell in EVERY:
            if bears(claim, cell) and not claim.left.get("proposer"):
                assert entry(cell.proposers[0]).kind == claim.kind


# The runner, on digits in seconds


SMALL = Cell(
    name="small",
    protocol=Protocol("made-up", "for a test", 1, "tiny", {"epochs": 1, "images": 64}),
    shows=("figure 3 left",),
    space="vgg11-digits",
    source="vgg11-digits",
    proposers=("slimming", "transferred", "uniform"),
    keep=(0.3,),
    dense=False,
    seeds=2,
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(running, "every_cell", lambda name: [SMALL])
    return tmp_path


def go(root: Path, minutes: float = 10, out: str = "runs") -> tuple[bool, list[str]]:
    said: list[str] = []
    done = running.run(
        "made-up",
        minutes=minutes,
        data=None,
        out=root / out,
        executor="serial",
        workers=None,
        settings=[],
        into=root,
        say=said.append,
    )
    return done, said


def test_a_run_continues_where_the_last_one_stopped(small: Path) -> None:
    assert go(small, minutes=0) == (False, [])
    assert not (small / "results").exists()
    done, said = go(small)
    assert (done, said[-1]) == (True, "made-up/small: complete")
    path = small / "results" / "made-up" / "small.json"
    document = json.loads(path.read_text())
    assert len(document["runs"]) == document["cell"]["planned"] == 6
    runs = {folder.name for folder in (small / "runs" / "vgg11-digits").iterdir()}
    again, _ = go(small)
    assert again
    assert json.loads(path.read_text()) == document
    assert {folder.name for folder in (small / "runs" / "vgg11-digits").iterdir()} == runs


def lose_a_training(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file of a cell, which is then gone, and its row whose training has no result any more."""
    path = root / "results" / "made-up" / "small.json"
    document = json.loads(path.read_text())
    lost = document["runs"][-1]
    (root / "runs" / "vgg11-digits" / lost["folder"] / "result.json").unlink()
    path.unlink()
    return document, lost


def test_another_machine_continues_with_the_runs_that_were_kept(small: Path) -> None:
    go(small)
    before, lost = lose_a_training(small)
    said: list[str] = []
    assert not running.keep("made-up", data=None, out=small / "runs", into=small, say=said.append)
    with zipfile.ZipFile(small / "kept" / "made-up.zip") as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode() for name in names if name.endswith(".json")]
    assert said[-1] == f"{len(texts)} finished runs of cells under way are kept"
    assert not any('"places"' in text or str(small) in text for text in texts)
    # Only what is pruned: the two networks of slimming, not the points.
    assert {name.split("/")[1].split("-")[0] for name in names if name.endswith(".safetensors")} == {"dense"}
    assert sum(name.endswith(".safetensors") for name in names) == 2
    done, said = go(small, out="elsewhere")
    assert done
    assert said[0] == f"{len(texts)} finished runs were kept beside the results"
    begun = [path.parent.name for path in (small / "elsewhere").glob("*/*/attempts.jsonl")]
    assert begun == [lost["folder"]]
    again = json.loads((small / "results" / "made-up" / "small.json").read_text())
    assert [(row["id"], row["test_score"]) for row in again["runs"]] == [
        (row["id"], row["test_score"]) for row in before["runs"]
    ]
    assert running.keep("made-up", data=None, out=small / "elsewhere", into=small, say=said.append)
    assert not (small / "kept" / "made-up.zip").exists()


def test_kept_runs_that_are_damaged_are_one_line(small: Path) -> None:
    (small / "kept").mkdir()
    (small / "kept" / "made-up.zip").write_text("no archive")
    with pytest.raises(InputError, match=r"made-up\.zip cannot be read"):
        go(small)


def test_a_cell_whose_file_has_all_of_it_is_left_alone(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(small)
    assert go(small, out="elsewhere") == (True, ["made-up/small: complete, as its file says"])
    assert not (small / "elsewhere").exists()
    assert whole(SMALL, small / "results")
    assert not whole(replace(SMALL, keep=(0.3, 0.5)), small / "results")
    assert not whole(replace(SMALL, protocol=replace(SMALL.protocol, changes={})), small / "results")
    monkeypatch.setattr("benchmarks.reproduce.documents.data_identity", lambda data: f"{data} of today")
    assert not whole(SMALL, small / "results")


def test_a_file_never_gets_fewer_results_of_its_recipe(tmp_path: Path) -> None:
    def document(how: str, finished: int) -> dict[str, Any]:
        runs = [{"status": "finished" if i < finished else "failed"} for i in range(3)]
        return {"plan": {"recipe": how}, "runs": runs, "dense": []}

    path = tmp_path / "made-up" / "small.json"
    for how, finished, left in (("a", 2, 2), ("a", 1, 2), ("a", 3, 3), ("b", 1, 1)):
        write_cell(tmp_path, SMALL, document(how, finished))
        assert json.loads(path.read_text()) == document(how, left)


def test_a_cell_that_cannot_run_is_named_and_the_others_go_on(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Cell(
        name="lost", protocol=SMALL.protocol, shows=(), space="nowhere", proposers=("slimming",), seeds=1
    )
    monkeypatch.setattr(running, "every_cell", lambda name: [lost, SMALL])
    done, said = go(small)
    assert not done
    assert "made-up/lost" in said[0]
    assert "nowhere" in said[0]
    assert said[-1] == "made-up/small: complete"


def test_verdicts_come_from_the_rows(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(small)
    monkeypatch.setattr("benchmarks.reproduce.claims.cells", lambda protocol: [SMALL])
    results = load_results("made-up", small / "results")
    claim = Claim(
        id="c",
        says="",
        source="section 5",
        about=("figure 3 left",),
        kind="automatic",
        left={"proposer": "slimming", "train": "scratch-e"},
        right={"proposer": "uniform", "train": "scratch-e"},
    )
    rows = results["small"].record.rows
    accuracy = {(row.proposer, row.search_seed): row.score or 0.0 for row in rows}
    expected = [accuracy["slimming", seed] - accuracy["uniform", seed] for seed in range(2)]
    (verdict,) = verdicts([claim], [SMALL], results, 0.2)
    assert verdict.difference is not None
    assert verdict.difference.mean == pytest.approx(sum(expected) / 2)
    (unknown,) = verdicts([claim], [SMALL], {}, 0.2)
    assert (unknown.difference, unknown.judgement) == (None, "not run")


def summary(mean: float, half: float) -> dict[str, object]:
    return {"mean": mean, "std": half / 2, "n": 3, "low": mean - half, "high": mean + half}


def judged(claim: Claim, **document: object) -> tuple[str, str]:
    """Judgement and note of a claim about shapes or kernels on a made-up result."""
    cell = Cell(
        name="made",
        protocol=SMALL.protocol,
        shows=claim.about,
        space="vgg11-digits",
        proposers=("slimming",),
        seeds=3,
    )
    result = Result(document, None)  # type: ignore[arg-type]  # no rows are read
    (verdict,) = verdicts([claim], [cell], {"made": result}, 0.2)
    return verdict.judgement, verdict.note


def test_agreement_needs_its_control_and_every_target() -> None:
    (claim,) = (claim for claim in load_claims()[1] if claim.id == "seeds-agree")
    assert claim.control == {"proposer": "slimming-unpenalised"}

    def agreeing(against: str, keep: float, mean: float) -> dict[str, object]:
        asked = {"metric": "params", "value": round(1000 * keep), "keep": keep}
        return {"proposer": "slimming", "against": against, "asked": asked, "margin": summary(mean, 0.01)}

    uniform = [agreeing("uniform", keep, 0.1) for keep in (0.4, 0.1)]
    assert judged(claim, agreement=uniform) == (
        "undecided",
        "control slimming-unpenalised not run, least at 40 % against uniform",
    )
    control = [agreeing("slimming-unpenalised", keep, 0.05) for keep in (0.4, 0.1)]
    others = [agreeing("taper", 0.4, -0.5)]
    assert judged(claim, agreement=[*uniform, *control, *others])[0] == "holds"
    assert judged(claim, agreement=[*uniform, control[0]])[0] == "undecided"  # the control lacks a target
    same = agreeing("slimming-unpenalised", 0.4, -0.05)  # what is found without the penalty lies as near
    assert judged(claim, agreement=[*uniform, same, control[1]]) == (
        "fails",
        "least at 40 % against slimming-unpenalised",
    )
    largest = [agreeing("uniform", 0.4, 0.0), uniform[1]]
    assert judged(claim, agreement=[*largest, *control])[0] == "undecided"


def test_a_contrast_of_kernels_must_exceed_that_of_an_untrained_network() -> None:
    (claim,) = (claim for claim in load_claims()[1] if claim.id == "kernel-centre")

    def contrast(proposer: str, mean: float) -> dict[str, object]:
        asked = {"metric": "params", "value": 100, "keep": 0.1}
        return {"proposer": proposer, "asked": asked, "contrast": summary(mean, 0.01)}

    found = contrast("magnitude", 0.1)
    assert judged(claim, patterns=[found])[0] == "undecided"
    assert judged(claim, patterns=[found, contrast("magnitude-untrained", 0.0)])[0] == "holds"
    assert judged(claim, patterns=[found, contrast("magnitude-untrained", 0.2)])[0] == "fails"


def test_claims_about_shapes_name_a_control_that_their_cells_run() -> None:
    for claim in load_claims()[1]:
        if claim.measure == "accuracy":
            continue
        control = claim.control["proposer"]
        assert entry(control).controls == claim.left["proposer"]
        assert all(control in cell.proposers for cell in EVERY if bears(claim, cell))


def test_a_design_with_one_shape_for_all_seeds_says_so() -> None:
    """The committed designs were made before each seed left its own shape out."""
    _, claims = load_claims()
    told = {
        verdict.claim.id: verdict
        for verdict in verdicts(claims, cells("early"), load_results("early"), 0.2)
        if verdict.cell == "efficiency-left"
    }
    if told["guided-slimming"].judgement == "not run":
        pytest.skip("the old protocol's result is gone")
    assert told["guided-slimming"].note.startswith("one guided shape for all seeds")
    assert told["guided-slimming"].counts == "trainings"
    assert told["slimming-uniform"].counts == "searches"
    assert "one" not in told["slimming-uniform"].note


def test_bad_input_is_one_line_and_code_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["--protocol", "papre"], ["--protocol", "paper", "--cell", "nothing"]):
        assert main([*words, "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("reproduce: ")


def test_the_runner_needs_no_sampler_package() -> None:
    import subprocess
    import sys

    script = (
        "import sys\n"
        "for name in ('optuna', 'cmaes', 'thop', 'ray', 'submitit', 'onnx'): sys.modules[name] = None\n"
        "import benchmarks.reproduce.run, benchmarks.reproduce.page, prunas.works.runtime\n"
        "from prunas.proposers.pruning.slimming import Slimming\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=HERE.parent.parent)


RATES = Dense(
    name="rates",
    protocol=SMALL.protocol,
    shows=("the recipe's rate",),
    spaces=("vgg11-digits",),
    settings=({"lr": 0.05}, {"lr": 0.1}),
    scored="val",
    seeds=1,
)


def test_dense_networks_under_several_settings(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "every_cell", lambda name: [RATES])
    done, said = go(small)
    assert (done, said[-1]) == (True, "made-up/rates: complete")
    document = json.loads((small / "dense" / "made-up" / "rates.json").read_text())
    assert [(row["settings"], row["recipe"]["lr"]) for row in document["runs"]] == [
        ({"lr": 0.05}, 0.05),
        ({"lr": 0.1}, 0.1),
    ]
    assert all(row["recipe"]["images"] == 64 and row["scored"] == "val" for row in document["runs"])
    assert document["cell"]["planned"] == 2


def test_what_is_finished_is_written_without_training(small: Path) -> None:
    """Of a cell that is under way, by another process: what it has, and how much is missing."""
    go(small)
    path = small / "results" / "made-up" / "small.json"
    before, lost = lose_a_training(small)
    said: list[str] = []
    folders = sorted((small / "runs" / "vgg11-digits").iterdir())
    assert not running.collect("made-up", data=None, out=small / "runs", into=small, say=said.append)
    assert sorted((small / "runs" / "vgg11-digits").iterdir()) == folders
    half = json.loads(path.read_text())
    assert [row["id"] for row in half["runs"] if row["status"] == "finished"] == [
        row["id"] for row in before["runs"] if row["id"] != lost["id"]
    ]
    assert half["cell"]["planned"] == 6
    assert "hours left" in said[-1]


def test_a_cell_of_which_only_dense_networks_are_finished_has_no_file(small: Path) -> None:
    go(small)
    path = small / "results" / "made-up" / "small.json"
    path.unlink()
    for result in (small / "runs" / "vgg11-digits").glob("scratch-e-*/result.json"):
        result.unlink()
    said: list[str] = []
    assert not running.collect("made-up", data=None, out=small / "runs", into=small, say=said.append)
    assert "2 trainings finished" in said[-1]
    assert not path.exists()


def test_hours_left_count_what_the_found_shapes_cost(small: Path) -> None:
    go(small)
    _, lost = lose_a_training(small)
    grid = running._Grid(
        [SMALL], running.DENSE_NETWORKS, None, Store(small / "runs"), small, lambda line: None
    )
    done = grid._done(SMALL)
    assert done is not None
    assert done.asked - done.macs == lost["train_macs"] > 0


# One executor for all cells


class Pair(Base):
    """Two workers that take equally long; notes how many were busy whenever one job ended."""

    capacity = 2

    def __init__(self, store: Store) -> None:
        super().__init__(store, silent, never)
        self.busy: list[int] = []
        self.done: list[str] = []

    def completed(self) -> Iterator[Outcome]:
        while self._answers or self._waiting:
            if self._answers:
                yield self._answers.popleft()
                continue
            self.busy.append(min(2, len(self._waiting)))
            job = self._waiting.popleft()
            self.done.append(job.label)
            self._answer(Outcome(job, "finished"))

    def cancel(self, job: Job) -> None:
        """Nothing runs between two outcomes."""


def job(name: str) -> Job:
    return Job("train", {"name": name}, "space", name, {})


def test_no_worker_waits_while_a_search_has_work_left(tmp_path: Path) -> None:
    """Three jobs leave one of two workers idle at the end; a later cell's job runs beside, and only once."""
    inner, told = Pair(Store(tmp_path)), []
    shared = Shared(inner, lambda: iter([job("x"), job("y")]), lambda ended: told.append(ended.label))
    with shared.share() as first:
        for name in ("a", "b", "c"):
            first.submit(job(name))
        assert [outcome.job.label for outcome in first.completed()] == ["a", "b", "c"]
    with shared.share() as second:
        for name in ("x", "z"):
            second.submit(job(name))
        assert sorted(outcome.job.label for outcome in second.completed()) == ["x", "z"]
    assert sorted(inner.done) == sorted(set(inner.done))
    assert inner.busy[:3] == [2, 2, 2]
    assert {"a", "b", "c", "x", "z"} <= set(told)


def test_a_job_of_a_later_cell_that_is_already_under_way_keeps_no_worker_from_others(tmp_path: Path) -> None:
    """The first search asks for what the later cell would: the worker that it leaves idle does the next thing."""
    inner = Pair(Store(tmp_path))
    shared = Shared(inner, lambda: iter([job("a"), job("x")]), lambda ended: None)
    with shared.share() as only:
        only.submit(job("a"))
        assert [outcome.job.label for outcome in only.completed()] == ["a"]
    assert inner.busy == [2]
    assert [waiting.label for waiting in inner._waiting] == ["x"]


def test_the_plan_behind_a_search_on_the_source_waits_for_no_shape_of_it(small: Path) -> None:
    """While shapes are found on the source, what the transfer trains without them can run."""
    grid = running._Grid(
        [SMALL], running.DENSE_NETWORKS, None, Store(small / "runs"), small, lambda line: None
    )
    labels = Counter({job.id: job.label for job in grid.later()}.values())
    assert labels == {"dense": 2, "scratch-e": 2}  # uniform; nothing of what will be transferred


def test_a_single_worker_does_nothing_for_later_cells(tmp_path: Path) -> None:
    inner = Pair(Store(tmp_path))
    inner.capacity = 1
    shared = Shared(inner, lambda: iter([job("x")]), lambda ended: None)
    with shared.share() as only:
        only.submit(job("a"))
        assert [outcome.job.label for outcome in only.completed()] == ["a"]
    assert inner.done == ["a"]


def test_the_store_answers_without_training(tmp_path: Path) -> None:
    stored = Stored(Store(tmp_path))
    stored.submit(job("a"))
    assert [outcome.status for outcome in stored.completed()] == ["preempted"]
    assert [missing.label for missing in stored.missing] == ["a"]


def test_results_retire_those_of_the_old_protocol(tmp_path: Path) -> None:
    for name in ("early/a", "early/b", "reduced/a"):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / f"{name}.json").write_text("{}")
    (tmp_path / "early-a.png").write_text("")
    assert page.retire(tmp_path / "results", tmp_path) == ["a"]
    left = sorted(path.name for path in tmp_path.rglob("*.*") if path.is_file())
    assert left == ["a.json", "b.json"]
