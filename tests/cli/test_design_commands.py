"""`prunas design`: what the designs can do, the command line reaches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import prunas
from prunas import designs
from prunas.architecture import Architecture
from prunas.cli import main
from prunas.designs import kernels
from prunas.spaces.load import load_point, load_space

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())
Design = Callable[..., tuple[Architecture, str]]


@pytest.fixture
def design(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Design:
    """Calls `prunas design`: (the architecture it wrote, what it said)."""

    def call(*arguments: Any, to: str = "made.json") -> tuple[Architecture, str]:
        with pytest.raises(SystemExit) as ended:
            main(["design", *map(str, arguments), "--to", str(tmp_path / to), "--json"])
        printed = capsys.readouterr()
        assert ended.value.code == 0, printed.err
        document = json.loads(printed.out)
        jsonschema.validate(document, {"$ref": "#/$defs/design", "$defs": SCHEMA["$defs"]})
        _, arch = load_point(str(tmp_path / to))
        assert arch.digest == document["digest"]
        return arch, printed.err

    return call


def test_designs_of_a_budget_are_those_of_the_library(design: Design) -> None:
    space = load_space("vgg11-digits")
    target = space.target(keep=0.2, metric="macs")
    asked = ("vgg11-digits", "--keep", 0.2, "--metric", "macs")
    for name, made in (
        ("uniform-kernel", kernels.uniform_kernels(space, target, 3)),
        ("erk", kernels.erk(space, target, 3)),
        ("cross", kernels.cross(space, target, 3)),
    ):
        assert design(name, *asked, "--seed", 3)[0] == made
    assert design("cross", "vgg11-digits")[0] == kernels.cross(space)
    deep = load_space("preresnet20-digits")
    wanted = designs.equal_depth(deep, deep.target(keep=0.5))
    assert wanted.removed
    assert design("uniform-depth", "preresnet20-digits", "--budget", deep.target(keep=0.5).value)[0] == wanted


def test_shuffled_keeps_what_a_point_costs_unless_told(design: Design, tmp_path: Path) -> None:
    space = load_space("vgg11-digits")
    tapered, _ = design("taper", "vgg11-digits", "--params", "60k", "--macs", "300k", to="taper.json")
    drawn = [design("shuffled", tmp_path / "taper.json", "--seed", seed)[0] for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    for arch in drawn:
        assert space.cost(arch).params == pytest.approx(space.cost(tapered).params, rel=0.01)
    small, _ = design("shuffled", tmp_path / "taper.json", "--keep", 0.02)
    assert space.cost(small).params == pytest.approx(0.02 * space.cost(space.dense).params, rel=0.01)


def test_what_is_carried_is_what_the_points_decide(design: Design, tmp_path: Path) -> None:
    source, deep = load_space("preresnet20-digits"), load_space("preresnet164-c10")
    masked, _ = design("cross", "preresnet20-digits", "--keep", 0.3, to="masked.json")
    guided, said = design("guided", tmp_path / "masked.json")
    assert said == ""
    np.testing.assert_allclose(
        kernels.frequencies(source, [guided])["1/3x3"],
        kernels.frequencies(source, [masked])["1/3x3"],
        atol=0.01,
    )
    moved, said = design("transferred", tmp_path / "masked.json", "--onto", "preresnet164-c10", "--keep", 0.2)
    assert moved.masked
    assert "8x8 to 32x32, 4x4 to 16x16, 2x2 to 8x8" in said
    assert deep.cost(moved).params == pytest.approx(0.2 * deep.cost(deep.dense).params, rel=0.01)
    shallow, _ = design("uniform-depth", "preresnet20-digits", "--keep", 0.8, to="shallow.json")
    assert design("guided", tmp_path / "shallow.json")[0] == shallow
    assert shallow.removed
    fitted, _ = design("guided", tmp_path / "shallow.json", "--keep", 0.4)
    assert set(fitted.removed) > set(shallow.removed)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("uniform-depth", "vgg16-c10", "--keep", "0.5"), "no blocks that may be removed"),
        (("erk", "vgg16-c10"), "--keep 0.3 or --budget"),
        (
            ("uniform-kernel", "vgg16-c10", "--keep", "0.5", "--metric", "channels"),
            "params, macs or conv-params",
        ),
        (("transferred", "{point}", "--onto", "vgg16-c10"), "choose networks with as many stages"),
        (("guided", "{point}", "{masked}"), "width and kernel, and one of them can be carried"),
        (("shuffled", "{masked}"), "only widths can be dealt anew"),
        (("guided", "{point}", "--keep", "0"), "keep must lie in (0, 1]"),
    ],
)
def test_designs_that_cannot_be_are_refused_in_a_line(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = load_space("vgg11-digits")
    made = {
        "point": designs.uniform(space, space.target(keep=0.3)),
        "masked": kernels.cross(space),
    }
    for name, arch in made.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(arch.to_json()))
    words = [word.format(**{name: tmp_path / f"{name}.json" for name in made}) for word in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["design", *words, "--to", str(tmp_path / "made.json")])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "made.json").exists()
