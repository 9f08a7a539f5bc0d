"""Published shapes of `search_spaces/found/` cost what they should."""

import json

import pytest

from prunas.architecture import Architecture
from prunas.experiments.transfer import load_source
from prunas.spaces.load import load_space, space_folder

FILES = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((space_folder() / "found").glob("*.json"))
}
POINTS = {
    point["name"]: (document, point)
    for document in FILES.values()
    for point in document["points"]
    if "published" in point
}

GOLDEN_MACS = {
    "AMC MobileNet-V1 50 % FLOPs": 293_870_000,
    "MobileNet-V1 x0.75": 325_400_448,
    "AutoSlim MobileNet-V1 150M": 149_825_128,
    "AutoSlim MobileNet-V1 325M": 324_756_536,
    "TAS ResNet-20": 22_444_472,
    "TAS ResNet-56": 59_858_430,
}
"""Counted elsewhere."""

WEIGHTS = {
    "AMC MobileNet-V1 50 % FLOPs": 2_392_680,
    "MobileNet-V1 x0.75": 2_569_144,
    "AutoSlim MobileNet-V1 150M": 1_875_776,
    "AutoSlim MobileNet-V1 325M": 3_983_064,
    "TAS ResNet-20": 226_808 + 10,  # the source leaves out the biases of the classifier
}
"""Parameters without those of batch norms, counted elsewhere."""

OTHERWISE = {
    "TAS ResNet-56": (57_930_000, 59_858_430),
    "MetaPruning MobileNet-V1": (316_000_000, 311_663_518),
    "MetaPruning ResNet-50": (1_000_000_000, 1_027_554_986),
}
"""MACs as published, and as we count the network of the published list: they cannot be brought together."""


def test_there_are_as_many_as_are_said_to_be():
    assert len(POINTS) == 14
    assert set(GOLDEN_MACS) | set(OTHERWISE) <= set(POINTS)
    assert all(document["source"] and point["cost"] for document, point in POINTS.values())


@pytest.mark.parametrize("name", sorted(POINTS))
def test_it_lies_in_its_space_at_the_cost_that_is_written_down(name):
    document, point = POINTS[name]
    space = load_space(document["space"])
    arch = Architecture.from_json(point["architecture"])
    space.check(arch)
    cost = space.cost(arch)
    assert {"params": cost.params, "macs": cost.macs} == point["cost"]
    if name in GOLDEN_MACS:
        assert cost.macs == GOLDEN_MACS[name]
    if name in WEIGHTS:
        norms = [row for row in space.survey.rows if row.layer in space.survey.layer_at and not row.macs]
        widths = space.costs.widths(arch).tolist()
        layers = {row.layer for row in norms if space.survey.layer_at[row.layer].kind == "norm"}
        of_norms = sum(
            row.params * space.survey.size(row.writes, widths) for row in norms if row.layer in layers
        )
        assert cost.params - of_norms == WEIGHTS[name]


@pytest.mark.parametrize("name", sorted(POINTS))
def test_its_cost_is_the_published_one_or_both_are_listed(name):
    _, point = POINTS[name]
    macs = point["published"].get("macs")
    if name in OTHERWISE:
        assert (macs, point["cost"]["macs"]) == OTHERWISE[name]
    elif macs is not None:
        assert point["cost"]["macs"] == pytest.approx(macs, rel=0.002)


@pytest.mark.parametrize(
    ("space", "proposer"),
    sorted({(document["space"], document["proposer"]) for document, _ in POINTS.values()}),
)
def test_transfers_take_them(space, proposer):
    source = load_source(load_space(space), proposer)
    assert source.shipped
    assert source.points
