"""Aligned widths: test vectors counted by hand, and properties over random points."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import prunas
from prunas import designs
from prunas.architecture import Architecture, KernelPattern
from prunas.cli import main
from prunas.errors import InputError
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())


@pytest.fixture(scope="module")
def vgg() -> SearchSpace:
    return load_space("vgg16-c10")


def widths_of(space: SearchSpace, arch: Architecture) -> list[int]:
    return space.costs.widths(arch).tolist()


@pytest.mark.parametrize(
    ("to", "mode", "expected"),
    [  # of 64 and 128: 1, 8, 11, 12, 20 and 60, 68, 126
        (8, "nearest", [8, 8, 8, 16, 24, 64, 72, 128]),
        (8, "up", [8, 8, 16, 16, 24, 64, 72, 128]),
        (8, "down", [8, 8, 8, 8, 16, 56, 64, 120]),
        (16, "nearest", [16, 16, 16, 16, 16, 64, 64, 128]),
        (16, "up", [16, 16, 16, 16, 32, 64, 80, 128]),
        (16, "down", [16, 16, 16, 16, 16, 48, 64, 112]),
        (1, "down", [1, 8, 11, 12, 20, 60, 68, 126]),
    ],
)
def test_widths_move_to_multiples(
    vgg: SearchSpace, to: int, mode: designs.Rounding, expected: list[int]
) -> None:
    names = [group.name for group in vgg.survey.groups]
    given = [1, 8, 11, 12, 20, 60, 68, 126]
    dense = {group.name: group.units for group in vgg.survey.groups}
    wide = [name for name in names if dense[name] >= 128][: len(given)]
    found = []
    for width, name in zip(given, (*names[:2], *wide), strict=False):
        aligned = designs.align(vgg, vgg.point({name: width}), to, mode)
        found.append(aligned.width(name, dense[name]))
        assert len(aligned.widths) == (
            found[-1] != dense[name]
        )  # nothing else moves, and dense is not stored
    assert found == expected


def test_two_equally_near_multiples_go_up_and_dense_stays_dense(vgg: SearchSpace) -> None:
    arch = vgg.point({"features.0": 12, "features.3": 20})
    assert dict(designs.align(vgg, arch, 8).widths) == {"features.0": 16, "features.3": 24}
    assert designs.align(vgg, vgg.dense, 8) == vgg.dense


def test_a_dense_width_that_is_no_multiple_counts_as_aligned_and_one_below_is_left_alone() -> None:
    space = load_space("preresnet20-digits")
    groups = {
        group.name: group.units
        for group in space.survey.groups
        if group.name in {d.name for d in space.dimensions if d.kind == "group"}
    }
    name, dense = max(groups.items(), key=lambda item: item[1])
    step = dense - 3  # the only multiple below the dense width
    arch = space.point({name: dense - 1})
    assert designs.align(space, arch, step, "up") == space.dense
    assert designs.align(space, arch, step, "down").width(name, dense) == step
    assert designs.align(space, arch, dense + 1, "up") == arch


@pytest.mark.parametrize("name", ["vgg16-c10", "preresnet20-digits", "densenet40-c10"])
@pytest.mark.parametrize("mode", ["nearest", "up", "down"])
def test_aligned_points_lie_in_the_space_and_align_to_themselves(name: str, mode: designs.Rounding) -> None:
    space = load_space(name)
    generator = np.random.default_rng(0)
    moved = 0
    for _ in range(10):
        counts = np.maximum(1, space.dense_counts * generator.uniform(0.05, 1, len(space.dimensions)))
        arch = space.counted(space.grid(counts))
        aligned = designs.align(space, arch, 4, mode)
        space.check(aligned)
        assert designs.align(space, aligned, 4, mode) == aligned
        for d, before, after in zip(space.dimensions, space.counts(arch), space.counts(aligned), strict=True):
            if d.kind == "group":
                assert after % 4 == 0 or after == d.dense or d.dense < 4
                assert 0 < after <= d.dense
                assert abs(after - before) < 4
        moved += aligned != arch
    assert moved == 10


def test_a_gate_keeps_the_channels_it_let_through_as_far_as_it_can() -> None:
    space = load_space("densenet40-c10")
    gate = max((d for d in space.dimensions if d.kind == "gate"), key=lambda d: d.dense)
    passing = list(range(0, 50, 2))  # 25
    arch = space.point(selected={gate.name: passing})
    (down,) = (dict(designs.align(space, arch, 8, mode).selected)[gate.name] for mode in ("down",))
    (up,) = (dict(designs.align(space, arch, 8, mode).selected)[gate.name] for mode in ("up",))
    assert (len(down), len(up)) == (24, 32)
    assert set(down) < set(passing) < set(up)


def test_what_cannot_be_aligned_is_refused(vgg: SearchSpace) -> None:
    with pytest.raises(InputError, match="8 and 16"):
        designs.align(vgg, vgg.dense, 0)
    with pytest.raises(InputError, match="did you mean nearest"):
        designs.align(vgg, vgg.dense, 8, "neares")  # type: ignore[arg-type]
    mask = KernelPattern(masks=(("features.0", KernelPattern.pack(np.ones((60, 3, 3, 3), bool))),))
    arch = vgg.point({"features.0": 60}, kernels=mask)
    with pytest.raises(InputError, match="mask"):
        designs.align(vgg, arch, 8)


def test_a_design_is_written_aligned_and_both_shapes_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "arch.json"
    arguments = ["design", "uniform", "vgg11-digits", "--keep", "0.3", "--align", "8:up", "--to", str(file)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, {"$ref": "#/$defs/design", "$defs": SCHEMA["$defs"]})
    space = load_space("vgg11-digits")
    proposed = designs.uniform(space, space.target(keep=0.3))
    assert document["proposed"]["architecture"] == proposed.to_json()
    written = Architecture.from_json(json.loads(file.read_text()))
    assert written == designs.align(space, proposed, 8, "up")
    assert document["digest"] == written.digest != proposed.digest == document["proposed"]["digest"]
    assert document["reached"]["params"] > document["proposed"]["reached"]["params"]
    for wrong in ("eight", "8:upp", "0"):
        with pytest.raises(SystemExit) as ended:
            main([*arguments[:6], wrong, "--to", str(file)])
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
