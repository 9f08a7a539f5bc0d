import dataclasses
import importlib.util
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import optuna
import pytest

from prunas import designs
from prunas.errors import InputError
from prunas.proposers.brief import Proposal, Trial
from prunas.proposers.registry import configured, entry
from prunas.proposers.table import PROPOSERS
from prunas.spaces.load import load_space
from prunas.tasks.score import Score

SAMPLERS = [name for name, line in PROPOSERS.items() if line.kind == "sampler"]
OPTUNA = [name for name in SAMPLERS if ".optuna." in PROPOSERS[name].path]


@pytest.fixture(scope="module")
def wide():
    """A space with many shapes at any budget."""
    return load_space("vgg16-c10")


def means(space, arch):
    """Mean ratio of every stage."""
    stages = np.array([d.stage for d in space.dimensions])
    return np.array([designs.ratios(space, arch)[stages == s].mean() for s in sorted(set(stages.tolist()))])


@pytest.fixture
def optimum(spaces):
    """A made-up accuracy: best at one proportion between the widths of the three stages."""
    space = spaces["vgg"]

    def accuracy(proposal):
        first, middle, last = np.log(means(space, proposal.architecture))
        return 90 - 10 * (abs(first - middle - 0.5) + abs(first - last - 2.0))

    return accuracy


def shapes(proposals):
    return {(p.architecture, p.fraction) for p in proposals}


def test_the_table_has_them_all():
    assert set(OPTUNA) == {"tpe", "gp", "cmaes", "nsga2", "qmc"}
    assert set(SAMPLERS) - set(OPTUNA) == {"amc", "amc-pocketflow"}


def test_tpe_finds_the_optimum_sooner_than_random_does(spaces, brief, ended, optimum):
    space = spaces["vgg"]
    target = space.target(keep=0.02)
    best = {"tpe": [], "random": []}
    for name, scores in best.items():
        for seed in range(4):
            told = brief(space, targets=(target,), trials=40, seed=seed)
            proposals, trials = ended(entry(name).build(), told, optimum)
            assert len(shapes(proposals)) <= 40 <= len(proposals)
            scores.append(max(trial.score for trial in trials))
    assert min(best["tpe"]) > np.mean(best["random"]) + 1


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_results_steer_them(name, spaces, brief, ended, optimum):
    space, trials = spaces["vgg"], {"tpe": 20, "gp": 10, "cmaes": 40}[name]
    told = brief(space, targets=(space.target(keep=0.02),), trials=trials)
    up, _ = ended(entry(name).build(), told, optimum)
    down, _ = ended(entry(name).build(), told, lambda proposal: -optimum(proposal))
    assert up[0] == down[0]  # drawn at random
    later = trials // 2
    assert np.mean([optimum(p) for p in up[later:]]) > np.mean([optimum(p) for p in down[later:]]) + 5


def test_nsga2_prefers_what_costs_less_at_equal_accuracy(wide, brief, ended):
    target = wide.target(keep=0.1)
    told = brief(wide, targets=(target,), trials=48)
    proposals, _ = ended(entry("nsga2").build(), told, lambda proposal: 50.0)
    macs = [wide.cost(p.architecture).macs for p in proposals]
    assert np.mean(macs[-8:]) < 0.8 * np.mean(macs[:8])  # the last generation against the first
    blind, _ = ended(entry("cmaes").build(), told, lambda proposal: 50.0)
    assert np.mean([wide.cost(p.architecture).macs for p in blind[-8:]]) > np.mean(macs[-8:])


@pytest.mark.parametrize(
    ("name", "options", "trials"),
    [
        *((name, {}, 7) for name in SAMPLERS if name != "gp"),
        ("gp", {"startup": 2}, 4),
        ("tpe", {"halving": 3}, 5),
        ("tpe", {"batch": 3}, 9),
        ("cmaes", {"batch": 4, "halving": 2, "shortest": 0.25}, 6),
    ],
)
def test_a_search_resumes_as_if_it_had_not_stopped(name, options, trials, spaces, brief, ended, accuracy):
    space = spaces["preresnet"]
    targets = (space.target(keep=0.5), space.target(keep=0.2))
    told = brief(space, targets=targets, trials=trials, seed=3)
    proposals, done = ended(entry(name).build(**options), told, accuracy)
    assert len(shapes(proposals)) >= 2 * trials
    for known in (0, 2, len(done) // 2, len(done) - 2):
        _, rest = ended(entry(name).build(**options), told, accuracy, done[:known])
        for target in targets:
            assert [t for t in rest if t.proposal.target == target] == [
                t for t in done if t.proposal.target == target
            ]


def test_another_process_proposes_the_same(wide, brief):
    code = """
import json
from prunas.proposers.table import PROPOSERS
from prunas.proposers.brief import Brief, Trial
from prunas.spaces.load import load_space
space = load_space("vgg16-c10")
brief = Brief(space, (space.target(keep=0.1), space.target(keep=0.02)), 5, trials=7)
told = []
for name, line in PROPOSERS.items():
    if line.kind == "sampler":
        proposer, trials = line.build(), []
        while asked := proposer.propose(brief, trials):
            told.append([p.architecture.digest for p in asked])
            trials += [Trial(p, 50 + int(p.architecture.digest, 16) % 97 / 3) for p in asked]
print(json.dumps(told))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2"},
    )
    told = brief(wide, targets=(wide.target(keep=0.1), wide.target(keep=0.02)), seed=5, trials=7)
    here = []
    for name in SAMPLERS:
        proposer, trials = PROPOSERS[name].build(), []
        while asked := proposer.propose(told, trials):
            here.append([p.architecture.digest for p in asked])
            trials += [Trial(p, 50 + int(p.architecture.digest, 16) % 97 / 3) for p in asked]
    assert sum(map(len, here)) >= 2 * 7 * len(SAMPLERS)
    assert json.loads(run.stdout) == here


@pytest.mark.parametrize("name", ["tpe", "cmaes", "nsga2", "qmc"])
def test_known_shapes_come_again_and_count_as_no_trial(name, spaces, brief, ended, optimum):
    space = spaces["vgg"]
    told = brief(space, targets=(space.target(keep=0.002),), trials=12, seed=2)
    proposals, _ = ended(entry(name).build(), told, optimum)
    seen = [p.architecture in {q.architecture for q in proposals[:i]} for i, p in enumerate(proposals)]
    assert sum(seen) > 0
    assert seen.count(False) == 12 or all(seen[-30:])  # or it had nothing new to say any more


def test_a_budget_with_few_shapes_ends_the_search(spaces, brief, ended, accuracy):
    space = spaces["vgg"]
    least = space.target(budget=space.least("params"))
    told = brief(space, targets=(least,), trials=12)
    proposals, _ = ended(entry("tpe").build(), told, accuracy)
    assert len(shapes(proposals)) == 1
    assert len(proposals) == 31  # thirty times nothing new


def test_targets_end_by_themselves(wide, brief):
    targets = (wide.target(keep=0.5), wide.target(keep=0.1))
    told = brief(wide, targets=targets, trials=2)
    proposer = entry("tpe").build()
    first, second = proposer.propose(told, [])
    other = Proposal(targets[0], designs.uniform(wide, targets[0]))  # which the sampler did not ask for
    done = [Trial(first, 50.0), Trial(second, 50.0), Trial(other, 60.0)]
    fresh = entry("tpe").build().propose(told, done)
    assert [p.target for p in fresh if p.architecture not in (first.architecture, other.architecture)]
    assert proposer.propose(told, done) == fresh


@pytest.mark.parametrize("step", [1, 8])
@pytest.mark.parametrize("level", ["stage", "layer"])
def test_points_are_on_the_grid(spaces, brief, ended, optimum, step, level):
    space = dataclasses.replace(spaces["vgg"], step=step, floor=step)
    told = brief(space, targets=(space.target(keep=0.2),), trials=8)
    proposals, _ = ended(entry("tpe").build(level=level), told, optimum)
    for proposal in proposals:
        assert all(
            n % step == 0 or n == space.dense_counts[i]
            for i, n in enumerate(space.counts(proposal.architecture))
        )
        space.check(proposal.architecture)


def test_layers_of_a_stage_differ_at_layer_level_only(wide, brief):
    told = brief(wide, targets=(wide.target(keep=0.1),), trials=3)
    last = [i for i, d in enumerate(wide.dimensions) if d.stage == wide.dimensions[-1].stage]
    spread = {}
    for level in ("stage", "layer"):
        (proposal,) = entry("tpe").build(level=level).propose(told, [])
        spread[level] = np.ptp(designs.ratios(wide, proposal.architecture)[last])
    assert spread["stage"] < 0.01 < spread["layer"]


@pytest.mark.parametrize("level", ["stage", "layer"])
def test_depth_is_the_nearest_not_above_the_target(level, spaces, brief, ended, accuracy):
    space = spaces["blocks"]
    target = space.target(keep=0.6)
    told = brief(space, targets=(target,), trials=6)
    proposals, _ = ended(entry("tpe").build(vary="depth", level=level), told, accuracy)
    assert len(shapes(proposals)) > 3
    for proposal in proposals:
        arch = proposal.architecture
        assert not arch.widths and arch.removed
        assert space.cost(arch).params <= target.value
    stages = {block.name: block.stage for block in space.survey.blocks}
    names = list(stages)
    last_first = [
        all(
            other in p.architecture.removed
            for name in p.architecture.removed
            for other in names[names.index(name) :]
            if stages[other] == stages[name] and other in space.removable
        )
        for p in proposals
    ]
    assert all(last_first) if level == "stage" else not all(last_first)


@pytest.mark.parametrize("level", ["stage", "layer"])
def test_kernels_have_one_density_per_part(level, spaces, brief):
    space = spaces["vgg"]
    target = space.target(keep=0.3)
    told = brief(space, targets=(target,), trials=2)
    (proposal,) = entry("tpe").build(vary="kernel", level=level).propose(told, [])
    pattern = proposal.architecture.kernels
    convolutions = [layer for layer in space.survey.layers if layer.kind == "conv"]
    assert not proposal.architecture.widths
    assert abs(space.cost(proposal.architecture).params / target.value - 1) < 0.01
    assert all(len(set(values)) == 1 for _, values in pattern.frequencies)
    keys = {key for key, _ in pattern.frequencies}
    assert keys <= {c.path if level == "layer" else f"{c.stage}/3x3" for c in convolutions}
    assert len({values for _, values in pattern.frequencies}) > 2


# Schedules that are stopped early


def test_only_the_best_of_a_length_go_on_to_a_longer_one(wide, brief, ended, accuracy):
    told = brief(wide, targets=(wide.target(keep=0.1),), trials=12)
    proposals, trials = ended(entry("tpe").build(halving=3, shortest=1 / 9), told, accuracy)
    lengths = sorted({p.fraction for p in proposals})
    assert lengths == pytest.approx([1 / 9, 1 / 3, 1])
    begun, length_of = [], {}
    for proposal in proposals:
        if proposal.architecture not in length_of:
            begun.append(proposal.fraction)
        length_of.setdefault(proposal.architecture, []).append(proposal.fraction)
    assert begun[:17] == pytest.approx(
        [1 / 9] * 9 + [1 / 3] * 5 + [1.0] * 3
    )  # Hyperband's numbers for 3 lengths
    scores = {}
    for trial, following in itertools.zip_longest(trials, trials[1:]):
        fraction, arch = trial.proposal.fraction, trial.proposal.architecture
        scores.setdefault(fraction, []).append(trial.score)
        if fraction == 1 or following is None:
            continue
        better = sum(score > trial.score for score in scores[fraction])
        went_on = following.proposal.architecture == arch
        assert went_on == (better < max(1, len(scores[fraction]) // 3))
    spent = sum(fraction for _, fraction in shapes(proposals))
    assert 12 <= spent < 12 + 1 + 1 / 3 + 1 / 9  # the last candidate is brought to its end
    stopped = [lengths for lengths in length_of.values() if lengths[-1] < 1]
    assert len(stopped) > len(length_of) / 3


def test_short_schedules_are_told_to_the_sampler_as_pruned(wide, brief, accuracy, monkeypatch):
    told = brief(wide, targets=(wide.target(keep=0.1),), trials=4)
    proposer, trials, studies = entry("tpe").build(halving=3), [], []
    create = optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **how: studies.append(create(**how)) or studies[-1])
    while asked := proposer.propose(told, trials):
        trials += [Trial(p, accuracy(p)) for p in asked]
    (study,) = studies
    for trial in study.trials:
        ours = [t for t in trials if round(100 * t.proposal.fraction) in {*trial.intermediate_values, 100}]
        assert set(trial.intermediate_values.values()) <= {t.score for t in ours}
        assert trial.state.name == ("COMPLETE" if trial.value in {t.score for t in trials} else "PRUNED") or (
            trial.state.name == "PRUNED" and max(trial.intermediate_values) < 100
        )
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}


# Pruning as a prior


@pytest.fixture
def found(wide):
    """Two made-up findings: narrow late layers, and narrow early ones; the target they answer."""
    target = wide.target(keep=0.5)
    stages = np.array([d.stage for d in wide.dimensions])
    return target, [
        Proposal(target, designs.fit(wide, np.exp(slope * stages), target), kept={}, weights_of="run")
        for slope in (-0.4, 0.4)
    ]


@pytest.mark.parametrize("name", SAMPLERS)
def test_found_points_are_tried_first(name, wide, brief, ended, accuracy, found):
    target, points = found
    told = brief(wide, targets=(target,), trials=5, found=tuple(points))
    proposer = entry(name).build()
    first = proposer.propose(told, [])
    assert [p.architecture for p in first] == [p.architecture for p in points]
    assert all(p.weights_of is None for p in first)  # a sampler knows shapes only
    proposals, _ = ended(proposer, told, accuracy)
    assert len(shapes(proposals)) == 5


def test_results_of_found_points_steer(wide, brief, found):
    """CMA-ES starts at the better one of the two."""
    target, points = found
    told = brief(wide, targets=(target,), trials=30, found=tuple(points))
    slopes = []
    for better in (0, 1):
        proposer = entry("cmaes").build()
        trials = [Trial(p, 60.0 if i == better else 50.0) for i, p in enumerate(proposer.propose(told, []))]
        for _ in range(8):
            (asked,) = proposer.propose(told, trials)
            trials.append(Trial(asked, 55.0))
        ratios = np.log([means(wide, t.proposal.architecture) for t in trials[2:]])
        slopes.append(np.polyfit(np.arange(ratios.shape[1]), ratios.mean(0), 1)[0])
    assert slopes[0] < -0.1 and slopes[1] > 0.1


@pytest.mark.parametrize("name", OPTUNA)
def test_a_neighbourhood_confines_the_search(name, wide, brief, found):
    target, points = found
    told = brief(wide, targets=(target,), trials=8, found=tuple(points))
    proposer = entry(name).build(neighbourhood=0.1)
    trials = [Trial(p, 50.0 + i) for i, p in enumerate(proposer.propose(told, []))]
    while asked := proposer.propose(told, trials):
        trials += [Trial(p, 40.0 + int(p.architecture.digest, 16) % 9) for p in asked]
    centre = means(wide, points[1].architecture)  # the better one
    tried = {t.proposal.architecture for t in trials[2:]}
    assert len(tried) == 6
    for arch in tried:
        moved = means(wide, arch) / centre
        assert moved.max() / moved.min() < 1.1**2 * 1.06  # each within 10 %, and rounding
    spread = [means(wide, arch) / centre for arch in tried]
    assert np.ptp(spread, 0).max() > 0.03


def test_a_neighbourhood_of_nothing_is_refused(wide, brief):
    told = brief(wide, targets=(wide.target(keep=0.1),), trials=3)
    with pytest.raises(InputError, match=r"gp: neighbourhood wants a found point .*: gp\+slimming"):
        entry("gp").build(neighbourhood=0.1).propose(told, [])


def test_names_join_a_sampler_and_what_it_starts_from():
    line = entry("tpe+slimming+l1")
    assert (line.kind, line.starts, line.path) == ("sampler", ("slimming", "l1"), entry("tpe").path)
    assert {"found", "trials"} <= set(line.needs)
    for name, message in (
        ("uniform+slimming", "only a sampler can start from found points"),
        ("tpe+uniform", "'uniform' finds nothing by pruning"),
        ("tpe+slimmin", "did you mean slimming"),
        ("tp+slimming", "did you mean tpe"),
    ):
        with pytest.raises(InputError, match=message):
            entry(name)


def test_settings_of_a_sampler_are_those_of_its_warm_start_too():
    space = {"tpe": {"startup": 3, "level": "layer"}}
    user = {"tpe": {"startup": 4}, "tpe+slimming": {"neighbourhood": 0.2}}
    assert configured("tpe+slimming", space, user)[1] == {
        "startup": 4,
        "level": "layer",
        "neighbourhood": 0.2,
    }
    assert configured("tpe", space, user)[1] == {"startup": 4, "level": "layer"}
    assert configured("gp", space, user)[1] == {}
    line, _ = configured("tpe", {"tpe": {"vary": "depth"}})
    assert line.dimensions == ("depth",)
    with pytest.raises(InputError, match="tpe: vary 'dept'; did you mean depth"):
        configured("tpe", {"tpe": {"vary": "dept"}})


# What is recorded, what is refused


@pytest.mark.parametrize("name", OPTUNA)
def test_what_is_recorded_is_what_optuna_got(name, wide, brief, monkeypatch):
    proposer = entry(name).build()
    given = []
    made = getattr(optuna.samplers, proposer.optuna_name)
    monkeypatch.setattr(optuna.samplers, proposer.optuna_name, lambda **how: given.append(how) or made(**how))
    proposer.propose(brief(wide, targets=(wide.target(keep=0.1),), trials=3), [])
    (arguments,) = given
    for key, value in arguments.items():
        assert (f"{key}={value!r}" in proposer.made_with) == (key not in ("seed", "x0"))
    assert f"optuna {optuna.__version__}" in proposer.made_with
    assert "vary='width', level='stage'" in proposer.made_with


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tpe", {"vary": "hight"}, "tpe: vary 'hight'"),
        ("tpe", {"level": "net"}, "tpe: level 'net'"),
        ("tpe", {"startup": 0}, "tpe: startup must be at least 1, not 0"),
        ("gp", {"neighbourhood": 1.5}, "gp: neighbourhood must be at least 0 and below 1, not 1.5"),
        ("qmc", {"batch": 0}, "qmc: batch must be at least 1, not 0"),
        ("tpe", {"halving": 1}, r"tpe: halving must be 0 \(off\) or 2 to 10, not 1"),
        ("tpe", {"halving": 3, "shortest": 1}, "tpe: shortest must be between 0 and 1, not 1"),
        ("nsga2", {"halving": 3}, "nsga2: halving compares by score alone"),
        ("nsga2", {"population": 1}, "nsga2: population must be at least 2"),
        ("cmaes", {"population": 0}, "cmaes: population must be at least 1"),
        ("cmaes", {"startup": 3}, "unknown option of proposer CMAES: 'startup'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        entry(name).build(**options)


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as told:
        entry("cmaes").build()
    assert str(told.value) == "proposer 'cmaes' needs the package cmaes; pip install 'prunas[samplers]'"


@pytest.mark.parametrize(
    ("name", "options"),
    [("tpe", {}), ("tpe", {"halving": 3}), ("cmaes", {}), ("nsga2", {}), ("tpe", {"neighbourhood": 0.5})],
)
def test_a_lower_score_is_searched_as_a_higher_one(wide, brief, ended, found, accuracy, name, options):
    """The same candidates where scores and direction are both turned round; others where only one of them is."""
    target, points = found
    told = brief(wide, targets=(target,), trials=14, found=tuple(points))
    lower = dataclasses.replace(told, score=Score(name="error", better="lower"))
    plain, turned, wrong = (
        ended(entry(name).build(**options), asked, score)[0]
        for asked, score in ((told, accuracy), (lower, lambda p: -accuracy(p)), (lower, accuracy))
    )
    assert turned == plain
    assert wrong != plain
