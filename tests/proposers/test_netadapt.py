import dataclasses
from itertools import islice

import numpy as np
import pytest

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.brief import Pending
from prunas.proposers.pruning.netadapt import NetAdapt, budgets, narrowed
from prunas.proposers.registry import entry
from prunas.tasks.score import Score


def judged_by(space, loss):
    """A work that scores a point by what it keeps: 90 minus a loss of the shares kept."""

    def work(name, options):
        assert name == "evaluate"
        counts = space.counts(Architecture.from_json(options["architecture"]))
        return {"score": 90.0 - float(loss(counts / space.dense_counts))}

    return work


@pytest.mark.parametrize(("iterations", "saved"), [(10, 0.21), (30, 0.44), (10_000, 0.625)])
def test_the_steps_add_up_as_published(iterations, saved):
    *_, last = islice(budgets(0.025, 0.96), iterations)
    assert 1 - last == pytest.approx(saved, abs=0.005)
    assert 1 - last == pytest.approx(0.025 * (1 - 0.96**iterations) / 0.04, rel=1e-9)


def test_candidates_narrow_one_dimension_each_by_as_little_as_the_limit_allows(spaces):
    space = spaces["vgg"]
    whole = space.measure(space.dense, "macs")
    counts = space.dense_counts
    candidates = narrowed(space, counts, "macs", 0.95 * whole)
    assert len(candidates) > 1
    for candidate in candidates:
        (i,) = np.flatnonzero(candidate != counts)
        wider = candidate.copy()
        wider[i] += 1
        cost = space.measures(np.array([candidate, wider]), "macs")
        assert cost[0] <= 0.95 * whole < cost[1]
    assert narrowed(space, counts, "macs", 1.0) == []


@pytest.mark.parametrize("useless", [1, 4])
def test_a_layer_that_the_score_does_not_feel_goes_first(useless, spaces, weights, brief):
    space = spaces["vgg"]

    def loss(kept):
        return 50 * (1 - np.delete(kept, useless)).sum()

    least = space.dense_counts.copy()
    least[useless] = 1
    target = Target("macs", int(space.measures(least[None], "macs")[0]) + 10)
    told = brief(space, weights(space), targets=(target,), work=judged_by(space, loss))
    (found,) = NetAdapt(step=0.02, decay=1.0).propose(told, [])
    kept = space.counts(found.architecture) / space.dense_counts
    assert kept[useless] == kept.min()
    assert np.delete(kept, useless).min() > 0.9
    # A score that says nothing does not single it out.
    told = dataclasses.replace(told, work=judged_by(space, lambda kept: 0.0))
    (blind,) = NetAdapt(step=0.02, decay=1.0).propose(told, [])
    assert blind.architecture != found.architecture


def test_a_lower_score_may_be_the_better_one(spaces, weights, brief):
    space = spaces["vgg"]

    def work(name, options):
        counts = space.counts(Architecture.from_json(options["architecture"]))
        return {"score": float((1 - np.delete(counts / space.dense_counts, 2)).sum())}

    error = Score(name="error", better="lower", low=0.0)
    told = brief(
        space, weights(space), targets=(space.target(keep=0.9, metric="macs"),), work=work, score=error
    )
    (found,) = NetAdapt().propose(told, [])
    kept = space.counts(found.architecture) / space.dense_counts
    assert kept.argmin() == 2


def test_all_candidates_of_an_iteration_are_asked_for_before_it_waits(spaces, weights, brief):
    space = spaces["vgg"]
    asked, known = [], {}

    def work(name, options):
        key = Architecture.from_json(options["architecture"]).digest
        asked.append(key)
        if key not in known:
            raise Pending
        return {"score": known[key]}

    told = brief(space, weights(space), targets=(space.target(keep=0.9, metric="macs"),), work=work)
    rounds = []
    while True:
        asked.clear()
        try:
            (found,) = NetAdapt().propose(told, [])
            break
        except Pending:
            new = set(asked) - known.keys()
            rounds.append(len(new))
            known |= {key: 50.0 + int(key, 16) % 40 for key in new}
    dense_counts = space.dense_counts
    first = narrowed(space, dense_counts, "macs", 0.95 * space.measure(space.dense, "macs"))
    assert rounds[0] == 1 + len(first)  # where it stands, and every candidate
    at_once = brief(
        space,
        weights(space),
        targets=told.targets,
        work=lambda n, o: {"score": 50.0 + int(Architecture.from_json(o["architecture"]).digest, 16) % 40},
    )
    assert NetAdapt().propose(at_once, []) == [found]


@pytest.mark.parametrize("metric", ["params", "macs", "channels"])
@pytest.mark.parametrize("family", ["vgg", "preresnet", "densenet", "streams"])
def test_every_target_is_met_and_the_largest_filters_stay(family, metric, spaces, weights, brief):
    space = spaces[family]
    targets = tuple(space.target(keep=keep, metric=metric) for keep in (0.8, 0.5))
    proposals = NetAdapt(step=0.15).propose(brief(space, weights(space), targets=targets), [])
    assert [p.target for p in proposals] == list(targets)
    for p in proposals:
        assert space.measure(p.architecture, metric) <= p.target.value


def test_steps_that_cannot_reach_the_target_are_refused_before_anything_is_trained(spaces, brief):
    space = spaces["vgg"]
    told = brief(space, targets=(space.target(keep=0.3, metric="macs"),))  # its dense training fails
    with pytest.raises(InputError, match=r"netadapt: steps from 0.025 on .* save 62.5% in all, and .* 70.0%"):
        NetAdapt(step=0.025).propose(told, [])


def test_its_control_takes_any_candidate_without_scores(spaces, weights, brief):
    space = spaces["vgg"]
    targets = (space.target(keep=0.5, metric="macs"),)
    told = brief(space, weights(space), targets=targets, work=None)  # nothing can be scored
    (found,) = entry("netadapt-random").build().propose(told, [])
    assert space.measure(found.architecture, "macs") <= targets[0].value
    (other,) = entry("netadapt-random").build().propose(dataclasses.replace(told, seed=1), [])
    assert other.architecture != found.architecture
