import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import prunas
from prunas.cli import main
from tests.report.made_runs import made

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    made(root)
    return root


def printed(capsys: pytest.CaptureFixture[str], name: str, *arguments: object) -> dict[str, object]:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    assert ended.value.code == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})
    return document


@pytest.mark.parametrize("what", ["pareto", "cost", "widths", "curves"])
def test_plots_lie_beside_the_others(what: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(capsys, "plot", "plot", what, "--out", root)
    folder = root / "vgg11-digits" / "figures"
    assert document["figures"] == [str(folder / f"{what}.svg"), str(folder / f"{what}.png")]
    assert (folder / f"{what}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_report_is_written_where_it_is_wanted(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "new" / "r.html"
    document = printed(capsys, "report", "report", "vgg11-digits", "--out", root, "--to", to)
    assert (document["file"], document["runs"]) == (str(to), 24)
    assert "score 6.00 points more than tapered shapes" in str(document["findings"])
    assert to.read_text().startswith("<!doctype html>")


def test_a_report_of_nothing_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--out", str(tmp_path), "--to", str(tmp_path / "r.html")])
    assert ended.value.code == 2
    assert "prunas search" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_report_needs_no_torch(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from prunas.cli import main\n"
        f"try: main(['report', '--out', {str(root)!r}, '--to', {str(tmp_path / 'r.html')!r}])\n"
        "except SystemExit as e: assert not e.code\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("text", "vgg11-digits on digits"),
        ("markdown", "vgg11-digits on digits"),
        ("latex", "vgg11-digits on digits"),
        ("csv", "space,setting,proposer,kind,protocol,masked,asked.metric"),
    ],
)
def test_tables_come_in_every_form(
    form: str, first: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--out", str(root), "--format", form])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert printed.startswith(first)
    assert {"markdown": "| slimming |", "latex": r"\toprule", "csv": ",slimming,automatic,"}.get(
        form, "-"
    ) in printed
    assert form != "csv" or printed.count("\n") == 1 + 4 * 2  # a heading, four proposers, two targets


def test_an_unknown_form_is_one_clear_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--out", str(root), "--format", "tex"])
    assert ended.value.code == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare", "vgg11-digit"), "unknown space in {out}: 'vgg11-digit'; did you mean vgg11-digits?"),
        (("plot", "efficiency", "vgg11-digit"), "did you mean vgg11-digits?"),
        (("plot", "pareto", "vgg11-digit"), "did you mean vgg11-digits?"),
        (("report", "vgg11-digit"), "did you mean vgg11-digits?"),
        (("runs", "vgg11-digit"), "did you mean vgg11-digits?"),
        (("compare", "NOSUCHSPACE"), "there are: vgg11-digits"),
        (
            ("compare", "vgg16-c10"),
            "no finished search of space 'vgg16-c10'; run `prunas search vgg16-c10` first",
        ),
        (("compare", "--markdown"), "--markdown is gone; use --format markdown"),
        (("report", "--to", "{out}"), "--to {out} is a folder; name a file in it"),
        (
            ("report", "--to", "{out}/vgg11-digits/searches/0123456789ab.json/r.html"),
            "is not a folder; name a",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: tuple[str, ...], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(root.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main([*(word.format(out=root) for word in words), "--out", str(root)])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert message.format(out=root) in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert sorted(root.rglob("*")) == before


def test_files_of_a_design_and_of_an_export_are_named_by_their_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, flag in (
        (("design", "uniform", "vgg11-digits", "--keep", "0.3", "--to"), "--to"),
        (("export", "vgg11-digits", "--init", "0", "--to", "safetensors", "--file"), "--file"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, str(tmp_path)])
        assert ended.value.code == 2
        assert f"{flag} {tmp_path} is a folder; name a file in it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
