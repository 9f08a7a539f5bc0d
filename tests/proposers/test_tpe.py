import dataclasses

import numpy as np
import pytest

from prunas import designs
from prunas.proposers import entry
from prunas.proposers.brief import Trial


@pytest.fixture
def optimum(spaces):
    """A made-up accuracy: best at one proportion between the widths of the three stages."""
    space = spaces["vgg"]
    stages = np.array([d.stage for d in space.dimensions])

    def accuracy(proposal):
        ratios = designs.ratios(space, proposal.architecture)
        first, middle, last = (np.log(ratios[stages == s].mean()) for s in (0, 1, 2))
        return 90 - 10 * (abs(first - middle - 0.5) + abs(first - last - 2.0))

    return accuracy


def test_tpe_finds_the_optimum_sooner_than_random_does(spaces, brief, ended, optimum):
    space = spaces["vgg"]
    target = space.target(keep=0.02)
    best = {"tpe": [], "random": []}
    for name, scores in best.items():
        for seed in range(4):
            told = brief(space, targets=(target,), trials=30, seed=seed)
            _, trials = ended(entry(name).build(), told, optimum)
            assert len(trials) == 30
            scores.append(max(trial.accuracy for trial in trials))
    assert min(best["tpe"]) > np.mean(best["random"])
    assert np.mean(best["tpe"]) > np.mean(best["random"]) + 0.5


def test_a_search_resumes_as_if_it_had_not_stopped(spaces, brief, ended, accuracy):
    space = spaces["preresnet"]
    told = brief(space, targets=(space.target(keep=0.5), space.target(keep=0.2)), trials=9, seed=3)
    proposals, trials = ended(entry("tpe").build(), told, accuracy)
    assert len(proposals) == 18
    for known in (0, 2, 12, 16):
        again, _ = ended(entry("tpe").build(), told, accuracy, trials[:known])
        assert again == proposals[known:]


def test_results_steer_it(spaces, brief, ended, optimum):
    space = spaces["vgg"]
    told = brief(space, targets=(space.target(keep=0.02),), trials=20)
    up, _ = ended(entry("tpe").build(), told, optimum)
    down, _ = ended(entry("tpe").build(), told, lambda proposal: -optimum(proposal))
    assert up[:5] == down[:5]  # drawn at random
    assert np.mean([optimum(p) for p in up[5:]]) > np.mean([optimum(p) for p in down[5:]]) + 5


def test_shapes_are_tried_once(spaces, brief, ended, optimum):
    space = spaces["vgg"]
    told = brief(space, targets=(space.target(keep=0.02),), trials=30, seed=2)
    proposals, _ = ended(entry("tpe").build(), told, optimum)
    assert len({p.architecture for p in proposals}) == 30


def test_targets_end_by_themselves(spaces, brief):
    space = spaces["vgg"]
    targets = (space.target(keep=0.5), space.target(keep=0.1))
    told = brief(space, targets=targets, trials=2)
    proposer = entry("tpe").build()
    first, second = proposer.propose(told, [])
    done = [Trial(first, 50.0), Trial(second, 50.0), Trial(first, 60.0)]
    assert [p.target for p in proposer.propose(told, done)] == [targets[1]]


@pytest.mark.parametrize("step", [1, 8])
def test_points_are_on_the_grid(spaces, brief, ended, optimum, step):
    space = dataclasses.replace(spaces["vgg"], step=step, floor=step)
    told = brief(space, targets=(space.target(keep=0.2),), trials=8)
    proposals, _ = ended(entry("tpe").build(), told, optimum)
    for proposal in proposals:
        assert all(
            n % step == 0 or n == space.dense_counts[i]
            for i, n in enumerate(space.counts(proposal.architecture))
        )
        space.check(proposal.architecture)
