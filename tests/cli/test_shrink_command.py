"""`prunas shrink`: what it prints for people and programs, what it writes, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import prunas
from prunas.cli import main
from prunas.networks import vgg11

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "mine.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(vgg11(channels=1, base=4, pools=2).state_dict(), path)
    return path


def valid(name: str, text: str) -> Any:
    document = json.loads(text)
    jsonschema.validate(document, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})
    return document


def arguments(small_space: Path, weights: Path, tmp_path: Path, *more: str) -> list[object]:
    few = [
        "--proposer",
        "l1",
        "--protocol",
        "finetune,finetune-large+distill",
        "--epochs",
        "3",
        "--executor",
        "serial",
    ]
    given = [small_space, "--weights", weights, "--keep", "0.5", "--metric", "macs"]
    return ["shrink", *given, *few, "--out", tmp_path / "runs", "--to", tmp_path / "small", *more]


def test_it_prints_its_plan_and_one_sentence_and_writes_its_files(
    cli: Run, small_space: Path, weights: Path, tmp_path: Path
) -> None:
    code, out, err = cli(*arguments(small_space, weights, tmp_path))
    assert code == 0
    assert "small-digits to 50 % of its macs" in err
    assert "3. pick the best by validation; test it, the control and the given network once" in err
    assert "at most 3 trainings, 3 epochs" in err
    sentence = out.splitlines()[-1]
    assert sentence.startswith("small-digits at 50 % of its MACs: l1, retrained by finetune")
    assert "given network's" in sentence
    written = {path.name for path in (tmp_path / "small").iterdir()}
    assert {"weights.safetensors", "weights.pth", "network.py", "result.json", "report.html"} <= written
    # Again: everything is fetched, and a program reads the same.
    code, out, _ = cli(*arguments(small_space, weights, tmp_path, "--json"))
    document = valid("shrink", out)
    assert (code, document["trained"]) == (0, 0)
    assert document["picked"] in document["trainings"]
    assert {Path(file).name for file in document["files"]} == written


def test_a_dry_run_says_the_same_plan_and_writes_nothing(
    cli: Run, small_space: Path, weights: Path, tmp_path: Path
) -> None:
    code, out, _ = cli(*arguments(small_space, weights, tmp_path, "--dry-run", "--json"))
    document = valid("shrink --dry-run", out)
    assert (code, document["trainings"], document["epochs"]) == (0, 3, 3)
    assert [each["name"] for each in document["rounds"]] == ["prune", "full", "test"]
    code, out, _ = cli(*arguments(small_space, weights, tmp_path, "--dry-run"))
    assert code == 0
    assert "nothing was trained" in out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--keep", "1.5"], "--keep must be above 0 and below 1"),
        (["--for", "soon"], "a budget is --for or --epochs, not both"),
        (["--protocol", "finetune:3"], "epochs come from the budget"),
        (["--to", "{weights}"], "is no folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    cli: Run, more: list[str], reason: str, small_space: Path, weights: Path, tmp_path: Path
) -> None:
    more = [part.format(weights=weights) for part in more]
    code, out, err = cli(*arguments(small_space, weights, tmp_path, *more))
    assert (code, out) == (2, "")
    assert reason in err.splitlines()[-1]
    assert not any(tmp_path.iterdir())
