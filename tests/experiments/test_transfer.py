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
from prunas.proposers.brief import Brief, DenseNetwork, Proposal, Source
from prunas.proposers.pruning.channels import threshold
from prunas.proposers.pruning.slimming import scores
from prunas.proposers.registry import entry
from prunas.spaces.load import load_space

PRERESNET = """
network = "prunas.networks.resnet:PreResNet"
arguments = {{ depth = {depth}, channels = 1, base = 2 }}
input = [1, 8, 8]
data = "digits"
recipe = "tiny"
keep = [{keep}]

[vary]
groups = []
blocks = ["*"]
"""
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


def notes_beside_short_trainings(document):
    """One epoch is short, which every document here says; the other notes."""
    short, *others = document["notes"]
    assert "a training takes" in short
    return others


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
    # What is transferred rests on the search of the other seed in the source, and costs what that did.
    by_name = {(cost["proposer"], cost["seed"]): cost for cost in document["cost"]}
    carried = next(name for name in everyone if name.startswith("transferred"))
    source = load_space(str(small_space))
    for seed in (0, 1):
        cost = by_name[carried, seed]
        assert (cost["trainings"], cost["seeds"], cost["complete"]) == (1, [1 - seed], True)
        assert cost["macs"] == 3 * source.cost(source.dense).macs * 1079
        assert (tmp_path / source.name / f"dense-{cost['rests_on'][0]['id']}").is_dir()
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
    stages = np.array([d.stage for d in source.dimensions])
    expected = {}
    for path in tmp_path.glob("small-digits/dense-*/weights.safetensors"):
        counts, _ = threshold(source, scores(source, load_file(path)), source.target(keep=0.5), "slimming")
        ratios = counts / source.dense_counts
        means = {stage: np.mean(ratios[stages == stage]) for stage in set(stages.tolist())}
        seed = json.loads((path.parent / "job.json").read_text())["spec"]["seed"]
        # Of two seeds each takes what the other found.
        expected[1 - seed] = [max(1, int(means[d.stage] * d.dense + 0.5)) for d in target.dimensions]
    digests = {
        row["search_seed"]: row["architecture"]
        for row in document["runs"]
        if row["proposer"] == "transferred" and row["asked"]["keep"] == 0.5
    }
    assert digests == {seed: target.counted(wanted).digest for seed, wanted in expected.items()}


def test_the_shipped_shapes_of_the_study_are_there():
    space = load_space("vgg16-c10")
    source = load_source(space, "slimming")
    (point,) = source.points
    assert space.cost(point.architecture)[:2] == (2_472_429, 181_085_138)
    moved = designs.transferred(space, [point.architecture], load_space("vgg19-c100"))
    assert load_space("vgg19-c100").cost(moved)[:2] == (3_098_909, 213_417_552)


def test_a_source_leaves_one_seed_out_where_it_knows_the_seeds():
    space = load_space("vgg11-digits")
    points = tuple(Proposal(space.target(keep=keep), space.dense) for keep in (0.3, 0.2, 0.1))
    source = Source(space, points, seeds=(0, 1, 2))
    assert source.without(1).points == (points[0], points[2])
    assert source.without(1).seeds == (0, 2)
    for lone in (Source(space, points), Source(space, points[:1], seeds=(1,))):
        assert lone.without(1) is lone
    brief = Brief(space, (space.target(keep=0.3),), 1, source=Source(space, points, shipped=True))
    (made,) = entry("transferred").build().propose(brief, [])
    assert made.flags == ("none_left_out",)


def test_what_cannot_be_transferred_is_said(capsys, small_space, wider, tmp_path):
    with pytest.raises(InputError, match="slimming"):
        designs_of("uniform")
    with pytest.raises(InputError, match="vgg16-c10 by slimming"):
        load_source(load_space("vgg19-c10"), "slimming")
    for proposer, says in (("uniform", "these do"), ("sss", "these can: slimming, l1, ")):
        code, document, err = transfer(
            capsys, "--from", small_space, "--to", wider, "--proposer", proposer, "--out", tmp_path
        )
        assert (code, document) == (2, None)
        assert says in err
        assert err.count("\n") == 1


def test_blocks_are_carried_as_shares_to_a_deeper_network(capsys, tmp_path):
    shallow, deep = tmp_path / "shallow-digits.toml", tmp_path / "deep-digits.toml"
    shallow.write_text(PRERESNET.format(depth=20, keep=0.6))
    deep.write_text(PRERESNET.format(depth=38, keep=0.6))
    code, document, err = transfer(
        *(capsys, "--from", shallow, "--to", deep, "--proposer", "sss", "--out", tmp_path / "runs"),
        *("--set", 'transferred-depth.form="as-found"'),
    )
    assert code == 0, err
    assert notes_beside_short_trainings(document) == []
    assert {row["proposer"] for row in document["runs"]} == {
        *("sss", "guided-depth", "transferred-depth", "uniform-depth")
    }
    found, space = load_space(str(shallow)), load_space(str(deep))
    plan = entry("sss").build()
    expected = {}
    for path in sorted((tmp_path / "runs" / "shallow-digits").glob("dense-*/result.json")):
        record = json.loads(path.read_text())["result"]["penalty"]
        trained = DenseNetwork("run", dict, record)
        brief = Brief(found, (found.target(keep=0.6),), 0, lr_sum=1.0, dense=lambda _, t=trained: t)
        removed = plan.propose(brief, [])[0].architecture.removed
        gone = []
        for stage in ("layer1", "layer2", "layer3"):
            kept = 2 - sum(name.startswith(stage) for name in removed)  # of two blocks
            gone += [f"{stage}.{i}" for i in range(2 * kept, 4)]
        seed = json.loads((path.parent / "job.json").read_text())["spec"]["seed"]
        expected[1 - seed] = space.point(removed=gone).digest  # of two seeds each takes what the other found
    digests = {
        row["search_seed"]: row["architecture"]
        for row in document["runs"]
        if row["proposer"] == "transferred-depth"
    }
    assert digests == expected
    assert len(digests) == 2


def test_stages_that_were_matched_are_noted_and_those_that_cannot_be_are_refused_at_once(
    capsys, small_space, tmp_path
):
    finer = tmp_path / "finer-digits.toml"  # two maps instead of three
    finer.write_text(small_space.read_text().replace("pools = 2", "pools = 1"))
    arguments = ("--keep", "0.5", "--out", tmp_path / "runs")
    code, document, err = transfer(capsys, "--from", small_space, "--to", finer, *arguments)
    note = (
        "stages of small-digits and finer-digits matched by how far their maps have shrunk: 8x8 to 8x8, "
        "4x4 to 4x4; 2x2 of small-digits not used"
    )
    assert code == 0, err
    assert note in err
    assert notes_beside_short_trainings(document) == [note]
    code, document, err = transfer(capsys, "--from", finer, "--to", small_space, "--out", tmp_path / "other")
    assert (code, document) == (2, None)
    assert "the 2x2 of 'small-digits' (it has 8x8, 4x4)" in err
    assert not (tmp_path / "other").exists()
