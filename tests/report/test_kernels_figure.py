import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import jsonschema
import pytest

import prunas
from prunas.architecture import Architecture, KernelPattern
from prunas.cli import main
from prunas.errors import InputError
from prunas.report.evidence import Evidence
from prunas.report.figure import as_svg, save
from prunas.report.kernels import kernels_figure
from prunas.report.page import page
from tests.report.made_runs import made, space

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())


def planted(i: int, keep: float, seed: int) -> Architecture:
    """Proposer 0 keeps arms of 3 * keep and corners of keep, seeds a hundredth apart; the others all alike."""
    arm, corner = (3 * keep + seed / 100, keep) if i == 0 else (2 * keep, 2 * keep)
    values = (corner, arm, corner, arm, arm, arm, corner, arm, corner)
    return space().point(
        kernels=KernelPattern(tuple((f"{stage}/3x3", values) for stage in range(3)), seed=seed)
    )


def contrast(keep: float, seed: int) -> float:
    """Mean over the three stages; the first has 16 kernels, so that its counts are sixteenths."""
    arm, corner = 3 * keep + seed / 100, keep
    return ((round(16 * arm) - round(16 * corner)) / 16 + 2 * (arm - corner)) / 3


CONTRASTS = [[contrast(keep, seed) for seed in range(3)] for keep in (0.2, 0.1)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def evidence(root: Path) -> Evidence:
    return made(root, ("magnitude", "uniform-kernel"), keeps=(0.2, 0.1), draw=planted)


def printed(capsys: pytest.CaptureFixture[str], name: str, *arguments: object) -> Any:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})
    return document


def test_every_cell_carries_its_number(evidence: Evidence, tmp_path: Path) -> None:
    figure = kernels_figure(evidence.patterns(), evidence.maps, setting=evidence.setting)
    save(figure, tmp_path, "kernels")  # a layout that does not fit is a warning
    svg = "{http://www.w3.org/2000/svg}"
    shown = ["".join(e.itertext()).strip() for e in ET.fromstring(as_svg(figure)).iter(f"{svg}text")]
    assert {"magnitude", "8x8", "4x4", "2x2"} <= set(shown)
    assert "uniform-kernel" not in shown  # it finds nothing
    words = [label.get_text().split("\n") for label in figure.axes[0].get_xticklabels()]
    assert [word[0] for word in words] == ["20 %", "10 %"]
    assert [float(word[1]) for word in words] == pytest.approx([100 * fmean(c) for c in CONTRASTS], abs=0.1)
    # Five arms and four corners in the two stages of many kernels: 61 and 20 % first, then 31; so are 5/16.
    assert [shown.count(text) for text in ("61", "20", "31")] == [10, 8, 15]
    assert sum(text.replace(".", "").isdigit() for text in shown) == 2 * 3 * 9


def test_numbers_of_the_command_and_of_compare(
    evidence: Evidence, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, document in (
        ("plot", printed(capsys, "plot", "plot", "kernels", "--out", root)),
        ("compare", printed(capsys, "compare", "compare", "--out", root)["records"][0]),
    ):
        first, second = document["patterns"]
        assert (first["proposer"], first["n"], name) == ("magnitude", 3, name)
        assert [stage["stage"] for stage in first["stages"]] == [0, 1, 2]
        assert first["stages"][2]["mean"] == pytest.approx(
            [0.2, 0.61, 0.2, *[0.61] * 3, 0.2, 0.61, 0.2], abs=1e-3
        )
        for found, contrasts in zip((first, second), CONTRASTS, strict=True):
            assert found["contrast"]["mean"] == pytest.approx(fmean(contrasts), abs=1e-3)
            half = 4.30265 * stdev(contrasts) / math.sqrt(3)  # t of two degrees of freedom
            assert found["contrast"]["high"] - found["contrast"]["mean"] == pytest.approx(half, abs=3e-3)


def test_the_page_shows_patterns_where_some_were_found(
    evidence: Evidence, root: Path, tmp_path: Path
) -> None:
    html = page([evidence], root)
    assert "<figcaption>Kernel patterns</figcaption>" in html
    assert "plot kernels" in html
    assert "Kernels: centre and edges against corners" in html
    narrow = page([made(tmp_path)], tmp_path)
    assert "<figcaption>Kernel patterns" not in narrow
    assert "Kernel patterns: nothing to plot" in narrow  # and it says why
    assert "plot kernels" not in narrow
    assert "Widths: do searches agree?" in narrow


def test_no_pattern_is_said() -> None:
    with pytest.raises(InputError, match="nothing to plot: no finished run has found a pattern"):
        kernels_figure([], [], setting="")


def test_agreement_is_printed_with_the_widths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # At 10 % of the parameters the uniform shape keeps some 31 % of every width; here 20 %, seeds 1 % apart.
    dense = [d.dense for d in space().dimensions]

    def near(i: int, keep: float, seed: int) -> Architecture:
        return space().counted([max(1, round((0.2 + seed / 100) * width)) for width in dense])

    made(tmp_path, ("slimming", "random"), keeps=(0.1,), draw=near)
    uniform = space().counts(prunas.designs.uniform(space(), space().target(keep=0.1)))
    document = printed(capsys, "plot", "plot", "widths", "--out", tmp_path)
    (told,) = [a for a in document["agreement"] if (a["proposer"], a["against"]) == ("slimming", "uniform")]
    shares = [[max(1, round((0.2 + seed / 100) * w)) / w for w in dense] for seed in range(3)]
    to = [
        sum(abs(s - u / w) for s, u, w in zip(row, uniform, dense, strict=True)) / len(dense)
        for row in shares
    ]
    assert told["other"] == pytest.approx(sum(to) / 3)
    assert 0 < told["own"] < 0.02 < 0.08 < told["other"]
    assert told["margin"]["low"] > 0
    assert {(a["proposer"], a["against"]) for a in document["agreement"]} == {
        *(("slimming", "random"), ("random", "slimming"), ("slimming", "uniform"), ("random", "uniform"))
    }
    assert printed(capsys, "compare", "compare", "--out", tmp_path)["records"][0]["agreement"]
    with pytest.raises(SystemExit):
        main(["plot", "widths", "--out", str(tmp_path)])
    assert "between seeds %" in capsys.readouterr().out
