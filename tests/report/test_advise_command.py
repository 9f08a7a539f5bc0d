"""`prunas advise` and `prunas plot budget` on made-up finished searches."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import prunas
from prunas.cli import main
from tests.report.made_runs import made, space, write

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())
WHOLE = space().cost(space().dense).params


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0), *capsys.readouterr()


def valid(name: str, text: str) -> Any:
    document = json.loads(text)
    jsonschema.validate(document, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})
    return document


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slimming and uniform from scratch, and slimming fine-tuned and from scratch for 4 and 16 epochs.

    Fine-tuning wins by 10 points at 4 epochs and loses by 5 at 16.
    """
    root = tmp_path_factory.mktemp("runs")
    searches = {"plain": made(root, ("slimming", "uniform"), keeps=(0.1,), epochs=30)}
    for protocol, epochs, accuracy, apart in (
        ("finetune:4", 4, 80.0, 0.1),
        ("scratch-e:4", 4, 70.0, 0.2),
        ("finetune:16", 16, 82.0, 0.1),
        ("scratch-e:16", 16, 87.0, 0.2),
    ):
        searches[protocol] = made(root, ("slimming",), keeps=(0.1,), protocol=protocol, epochs=epochs)
        rows = searches[protocol].rows
        document = dict(searches[protocol].searches[0])
        document["epochs"] = 30
        document["runs"] = [
            row.to_json()
            | {"id": f"{protocol}{row.id}", "test_score": accuracy + apart * (row.search_seed - 1)}
            for row in rows
        ]
        write(root / "vgg11-digits" / "searches" / f"{protocol.replace(':', '-')}.json", document)
    plain = dict(searches["plain"].searches[0])
    apart = {"slimming": 0.1, "uniform": 0.2}
    plain["runs"] = [
        row.to_json() | {"test_score": row.test_score + apart[row.proposer] * row.search_seed}
        for row in searches["plain"].rows
    ]
    write(root / "vgg11-digits" / "searches" / "0123456789ab.json", plain)
    return root


def budget_of(shares: float) -> int:
    return round(WHOLE * shares)


@pytest.mark.parametrize(
    ("epochs", "answer", "question"),
    [(4, "fine-tune", "scratch or fine-tune"), (20, "scratch", "found or uniform")],
)
def test_the_users_own_runs_answer(
    capsys: pytest.CaptureFixture[str], root: Path, epochs: int, answer: str, question: str
) -> None:
    words = ("advise", "vgg11-digits", "--budget", budget_of(0.04), "--epochs", epochs, "--out", root)
    code, out, _ = run(capsys, *words, "--json")
    document = valid("advise", out)
    assert code == 0
    assert (document["answer"], document["basis"]) == (answer, "own")
    assert question in {each["question"] for each in document["evidence"]}
    assert all(each["own"] for each in document["evidence"])
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.startswith(f"{answer} (your runs decide)")
    assert "points [" in out


def test_without_any_run_it_says_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(
        capsys, "advise", "densenet40-c100", "--budget", "20k", "--epochs", 1, "--out", tmp_path, "--json"
    )
    document = valid("advise", out)
    assert (code, document["answer"], document["basis"], document["evidence"]) == (0, "uniform", "none", [])
    assert "Nothing decides" in document["reasons"][-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("advise", "vgg11-digit", "--budget", "1M", "--epochs", "40"), "did you mean"),
        (("advise", "vgg11-digits", "--budget", "many", "--epochs", "40"), "not a number above 0"),
        (("advise", "vgg11-digits", "--budget", "1G", "--epochs", "40"), "can be reached"),
        (("advise", "vgg11-digits", "--budget", "100k", "--epochs", "0"), "--epochs"),
    ],
)
def test_bad_input_is_told_with_code_two(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err


def test_the_budget_plot_prints_its_crossing(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    code, out, _ = run(capsys, "plot", "budget", "--out", root, "--json")
    document = valid("plot", out)
    assert code == 0
    (crossing,) = (each for each in document["crossings"] if each["family"] == "finetune")
    assert crossing["at"] == pytest.approx(4 * 4 ** (10 / 15))
    assert [Path(path).name for path in document["figures"]] == ["budget.svg", "budget.png"]
    code, out, _ = run(capsys, "plot", "budget", "--out", root)
    assert "overtakes finetune at about 10.1 epochs" in out


def test_no_budget_is_one_line_with_code_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made(tmp_path)
    code, out, err = run(capsys, "plot", "budget", "--out", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--protocol finetune:5" in err
