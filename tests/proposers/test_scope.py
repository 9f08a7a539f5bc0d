import numpy as np
import pytest

from prunas.proposers.pruning.channels import comparable, structure
from prunas.proposers.registry import configured, entry
from prunas.proposers.table import PROPOSERS

SCOPED = [name for name, line in PROPOSERS.items() if any(o.name == "scope" for o in line.options or ())]


def test_dimensions_of_one_structure_have_one_class_whatever_their_width(spaces):
    space = spaces["vgg"]
    *inner, last = structure(space)
    assert set(inner) != {last}  # the last convolution is read by the classifier
    assert len({space.dimensions[i].dense for i, of in enumerate(inner) if of == inner[1]}) > 1
    streams = spaces["streams"]
    by_role = {}
    for d, of in zip(streams.dimensions, structure(streams), strict=True):
        by_role.setdefault(d.role, set()).add(of)
    roles = list(by_role)
    assert all(by_role[a].isdisjoint(by_role[b]) for a in roles for b in roles if a != b)


def test_places_are_shares_of_a_class_and_keep_ties_and_order(spaces):
    space = spaces["vgg"]
    generator = np.random.default_rng(0)
    scores = [generator.integers(0, 9, d.dense) * 10.0 ** (i % 3) for i, d in enumerate(space.dimensions)]
    assert comparable(space, scores, "global") is scores
    places = comparable(space, scores, "isomorphic")
    classes = structure(space)
    for of in set(classes):
        members = [i for i, other in enumerate(classes) if other == of]
        raw, placed = (np.concatenate([values[i] for i in members]) for values in (scores, places))
        brute = np.array([(raw <= value).mean() for value in raw])
        assert placed == pytest.approx(brute)


@pytest.mark.parametrize("name", ["l1-global", "slimming", "taylor"])
def test_every_class_loses_the_same_share(name, spaces, weights, brief):
    space = spaces["vgg"]
    state = weights(space)
    for i, d in enumerate(space.dimensions):  # global scope would empty some and spare others
        names = [key for key in state if key.startswith("features")]
        at = names.index(f"{d.name}.weight")
        norm = names[at + 1].rpartition(".")[0]
        state[f"{d.name}.weight"] *= 3.0 ** (i % 4)
        state[f"{norm}.weight"] *= 3.0 ** (i % 4)
    told = brief(space, state, targets=(space.target(keep=0.5, metric="channels"),))
    (found,) = entry(name).build(scope="isomorphic").propose(told, [])
    shares = {}
    for of, kept, dense in zip(
        structure(space), space.counts(found.architecture), space.dense_counts, strict=True
    ):
        before = shares.get(of, (0, 0))
        shares[of] = (before[0] + kept, before[1] + dense)
    for kept, dense in shares.values():
        assert abs(kept - dense / 2) <= 1 + 0.05 * dense  # ties, and the threshold's own unit
    (everywhere,) = entry(name).build().propose(told, [])
    assert everywhere.architecture != found.architecture


@pytest.mark.parametrize("name", SCOPED)
def test_isomorphic_points_lie_in_the_space_too(name, spaces, weights, brief):
    for family in ("preresnet", "streams", "densenet"):
        space = spaces[family]
        told = brief(space, weights(space), targets=(space.target(keep=0.5),))
        line, settings = configured(name, {name: {"scope": "isomorphic"}})
        (found,) = line.build(**settings).propose(told, [])
        space.check(found.architecture)
        assert (
            "target_missed" in found.flags
            or abs(space.measure(found.architecture, "params") / found.target.value - 1) <= 0.01
        )


def test_every_method_with_one_threshold_over_channels_has_the_option():
    assert {"slimming", "l1-global", "thinet-global", "reconstruction-global", "taylor"} <= set(SCOPED)
