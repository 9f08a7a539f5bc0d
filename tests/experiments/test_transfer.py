import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from safetensors.torch import load_file

import prunas
from prunas import designs
from prunas.cli import main
from prunas.errors import InputError
from prunas.experiments.transfer import designs_of, load_source
from prunas.proposers.channels import threshold
from prunas.proposers.slimming import scores
from prunas.space import load_space

SCHEMA = json.loads((Path(prunas.__file__).parent / "schema.json").read_text())


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory, small_space: Path) -> Path:
    """A wider network with the same stages."""
    path = tmp_path_factory.mktemp("wider") / "wider-digits.toml"
    path.write_text(small_space.read_text().replace("base = 4", "base = 6"))
    return path


def transfer(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["transfer", *map(str, arguments), "--epochs", "1", "--seeds", "2", "--no-dense", "--json"])
    printed = capsys.readouterr()
    return ended.value.code, json.loads(printed.out) if printed.out else None, printed.err


@pytest.mark.parametrize(
    ("proposer", "everyone"),
    [
        ("slimming", {"slimming", "guided", "transferred", "uniform", "random", "taper"}),
        ("magnitude", {"magnitude", "guided-kernel", "transferred-kernel", "uniform-kernel", "erk"}),
    ],
)
def test_a_transfer_ends_in_a_comparison_on_the_target(
    capsys, small_space, wider, tmp_path, proposer, everyone
):
    arguments = ("--from", small_space, "--to", wider, "--proposer", proposer, "--out", tmp_path)
    code, document, err = transfer(capsys, *arguments)
    assert code == 0, err
    jsonschema.validate(document, {"$ref": "#/$defs/search", "$defs": SCHEMA["$defs"]})
    assert {row["proposer"] for row in document["runs"]} == everyone
    assert {row["kind"] for row in document["runs"] if "transferred" in row["proposer"]} == {"design"}
    # On the source only the dense networks are trained: nothing there is compared.
    assert {path.name.split("-")[0] for path in tmp_path.glob("small-digits/*-*")} == {"dense"}
    assert transfer(capsys, *arguments)[1]["trained"] == 0


def test_transferred_points_carry_the_mean_stage_ratios(capsys, small_space, wider, tmp_path):
    _, document, _ = transfer(
        capsys,
        "--from",
        small_space,
        "--to",
        wider,
        "--out",
        tmp_path,
        "--set",
        'transferred.form="as-found"',
    )
    source, target = load_space(str(small_space)), load_space(str(wider))
    found = []
    for path in tmp_path.glob("small-digits/dense-*/weights.safetensors"):
        counts, _ = threshold(source, scores(source, load_file(path)), source.target(keep=0.5), "slimming")
        found.append(counts / source.dense_counts)
    stages = np.array([d.stage for d in source.dimensions])
    means = {stage: np.mean([ratios[stages == stage] for ratios in found]) for stage in set(stages.tolist())}
    wanted = [max(1, int(means[d.stage] * d.dense + 0.5)) for d in target.dimensions]
    (digest,) = {
        row["architecture"]
        for row in document["runs"]
        if row["proposer"] == "transferred" and row["asked"]["keep"] == 0.5
    }
    assert target.counted(wanted).digest == digest


def test_the_shipped_shapes_of_the_study_are_there():
    space = load_space("vgg16-c10")
    source = load_source(space, "slimming")
    (point,) = source.points
    assert space.cost(point.architecture)[:2] == (2_472_429, 181_085_138)
    moved = designs.transferred(space, [point.architecture], load_space("vgg19-c100"))
    assert load_space("vgg19-c100").cost(moved)[:2] == (3_098_909, 213_417_552)


def test_what_cannot_be_transferred_is_said(capsys, small_space, wider, tmp_path):
    with pytest.raises(InputError, match="slimming"):
        designs_of("uniform")
    with pytest.raises(InputError, match="vgg16-c10 by slimming"):
        load_source(load_space("vgg19-c10"), "slimming")
    code, document, err = transfer(
        capsys, "--from", small_space, "--to", wider, "--proposer", "sss", "--out", tmp_path
    )
    assert (code, document) == (2, None)
    assert "these do" in err
