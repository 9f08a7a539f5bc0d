"""What every proposer promises, whichever it is."""

import inspect
import json
import math
import pkgutil
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from prunas.errors import InputError
from prunas.proposers.brief import Brief, Pending, Source, Trial
from prunas.proposers.registry import configured, entry, finder_of
from prunas.proposers.table import PROPOSERS
from prunas.surgery.masks import kernel_masks

KEEP = {
    "vgg": (0.5, 0.02),
    "preresnet": (0.6, 0.2),
    "densenet": (0.7, 0.3),
    "streams": (0.5, 0.1),
    "stemmed": (0.6, 0.3),
    "blocks": (0.9, 0.5),
}
SERVED = {
    "width": [family for family in KEEP if family != "blocks"],
    "depth": ["blocks"],
    "kernel": ["vgg", "preresnet", "densenet"],
}


def served(name):
    """The families of networks that a proposer can serve, by what it decides."""
    return SERVED[PROPOSERS[name].dimensions[0]]


@pytest.fixture
def setting(spaces, weights, brief):
    """A brief that any proposer can serve."""

    def make(name, family=None, trials=3, seed=0):
        space = spaces[family or served(name)[0]]
        targets = tuple(space.target(keep=keep) for keep in KEEP[family or served(name)[0]])
        told = brief(space, weights(space), targets=targets, trials=trials, seed=seed)
        found = tuple(entry(finder_of(entry(name).dimensions[0])).build().propose(told, []))
        told = {"targets": targets, "trials": trials, "seed": seed}
        if entry(name).kind != "sampler":  # to a sampler, found points are its first trials
            told |= {"found": found, "found_by_others": found}
        return brief(space, weights(space), source=Source(space, found), **told)

    return make


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in sorted(PROPOSERS) for family in served(name)]
)
def test_points_lie_in_the_space_at_their_target_and_are_the_same_twice(
    name, family, setting, ended, accuracy
):
    told = setting(name, family)
    space, proposer = told.space, PROPOSERS[name].build()
    proposals, _ = ended(proposer, told, accuracy)
    assert {p.target for p in proposals} == set(told.targets)
    for p in proposals:
        space.check(p.architecture)
        assert space.canonical(p.architecture) == p.architecture
        reached = space.measure(p.architecture, p.target.metric)
        assert abs(reached / p.target.value - 1) <= 0.01 or "target_missed" in p.flags
        assert space.counts(p.architecture).min(initial=1) >= 1
        assert all(mask.any() for mask in kernel_masks(space.survey, p.architecture).values())
        net = space.build(p.architecture)
        assert all(parameter.numel() for parameter in net.parameters())
    again, _ = ended(PROPOSERS[name].build(), setting(name, family), accuracy)
    assert again == proposals


@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_nothing_is_proposed_once_all_is_answered(name, setting, ended, accuracy):
    told = setting(name)
    proposer = PROPOSERS[name].build()
    _, trials = ended(proposer, told, accuracy)
    assert list(proposer.propose(told, trials)) == []


@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_there_are_no_side_effects(name, setting, spaces, weights, brief):
    told = setting(name, "preresnet" if "preresnet" in served(name) else None)
    state = weights(told.space)
    told = brief(
        told.space,
        state,
        targets=told.targets,
        found=told.found,
        found_by_others=told.found,
        source=told.source,
        trials=2,
    )
    before = {tensor: t.clone() for tensor, t in state.items()}
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    proposer = PROPOSERS[name].build()
    proposer.propose(told, [])
    assert all(torch.equal(state[tensor], t) for tensor, t in before.items())
    assert random.getstate() == generators[0]
    assert np.random.get_state()[1].tolist() == generators[1]  # noqa: NPY002
    assert torch.get_rng_state().tolist() == generators[2]
    unasked = entry(name).build()
    settings, fresh = ({k: v for k, v in vars(p).items() if k[0] != "_"} for p in (proposer, unasked))
    assert settings == fresh
    assert proposer.propose(told, []) == unasked.propose(told, [])


@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_seeds_matter_to_what_draws_and_to_nothing_else(name, setting):
    proposed = [PROPOSERS[name].build().propose(setting(name, seed=seed), []) for seed in (0, 1)]
    assert (proposed[0] != proposed[1]) == PROPOSERS[name].draws


@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_another_target_changes_nothing_for_this_one(name, setting, spaces, weights, brief):
    both = setting(name)
    last = brief(
        both.space,
        weights(both.space),
        targets=both.targets[1:],
        trials=both.trials,
        found=both.found[1:],
        found_by_others=both.found[1:],
        source=both.source,
    )
    proposals = PROPOSERS[name].build().propose(both, [])
    alone = PROPOSERS[name].build().propose(last, [])
    assert [p for p in proposals if p.target == both.targets[1]] == list(alone)


def test_another_process_proposes_the_same_without_torch(spaces, brief, ended, accuracy):
    code = """
import json, sys
from prunas.proposers.table import PROPOSERS
from prunas.proposers.brief import Brief, Trial
from prunas.spaces.load import load_space
space = load_space("vgg11-digits")
brief = Brief(space, (space.target(keep=0.1), space.target(keep=0.02)), 5, trials=8)
told = []
for name in ("uniform", "random", "tpe"):
    proposer, trials = PROPOSERS[name].build(), []
    while asked := proposer.propose(brief, trials):
        told.append([p.architecture.digest for p in asked])
        trials += [Trial(p, 50 + len(trials) % 7) for p in asked]
print(json.dumps([told, "torch" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    elsewhere, imported = json.loads(done.stdout)
    space = spaces["vgg"]
    told = brief(space, targets=(space.target(keep=0.1), space.target(keep=0.02)), seed=5, trials=8)
    here = []
    for name in ("uniform", "random", "tpe"):
        proposer, trials = PROPOSERS[name].build(), []
        while asked := proposer.propose(told, trials):
            here.append([p.architecture.digest for p in asked])
            trials += [Trial(p, 50 + len(trials) % 7) for p in asked]
    assert elsewhere == here
    assert not imported


# The table


def test_unknown_names_and_options_are_answered_with_what_there_is():
    with pytest.raises(InputError, match="unknown proposer 'sliming'; did you mean slimming"):
        entry("sliming")
    with pytest.raises(InputError, match=r"unknown option of proposer Slimming: 'pul'; did you mean pull"):
        entry("slimming").build(pul=1)
    with pytest.raises(InputError, match=r"unknown option of proposer Uniform: 'x'; there are: none"):
        entry("uniform").build(x=1)
    with pytest.raises(InputError, match="pull must be 0 or more, not -1"):
        entry("slimming").build(pull=-1)
    with pytest.raises(InputError, match="draws must be at least 1, not 0"):
        entry("shuffled").build(draws=0)


def test_a_proposer_without_its_training_waits(spaces, brief):
    space = spaces["vgg"]
    with pytest.raises(Pending):
        entry("slimming").build().propose(brief(space, targets=(space.target(keep=0.5),), dense=None), [])


@pytest.mark.parametrize("name", [name for name, line in PROPOSERS.items() if "found" in line.needs])
def test_what_answers_found_points_says_so_when_there_are_none(name, spaces, brief):
    space = spaces["vgg"]
    with pytest.raises(
        InputError, match=f"'{name}' answers points that a pruning method found; add one, such as"
    ):
        entry(name).build().propose(brief(space, targets=(space.target(keep=0.5),)), [])


@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_a_brief_made_by_hand_is_served_or_refused_in_one_line(name, setting):
    told = setting(name)
    bare = Brief(told.space, told.targets, seed=0)
    try:
        PROPOSERS[name].build().propose(bare, [])
    except Pending:
        pass
    except InputError as error:
        assert "\n" not in str(error)


def test_a_penalty_without_a_schedule_is_refused(setting):
    for name in ("slimming", "sss"):
        told = setting(name)
        with pytest.raises(InputError, match="the brief's lr_sum is 0; give it"):
            PROPOSERS[name].build().propose(Brief(told.space, told.targets, seed=0), [])


@pytest.mark.parametrize("name", list(PROPOSERS))
def test_settings_are_declared_as_the_constructor_takes_them(name):
    make = pkgutil.resolve_name(PROPOSERS[name].path)
    taken = {
        key: parameter.default
        for key, parameter in inspect.signature(make).parameters.items()
        if key not in PROPOSERS[name].fixed and parameter.kind is not parameter.VAR_KEYWORD
    }
    declared = {option.name: option.default for option in PROPOSERS[name].options or ()}
    assert declared == taken


DECLARED = [(name, option) for name, line in PROPOSERS.items() for option in line.options or ()]


@pytest.mark.parametrize(("name", "option"), DECLARED)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, -math.inf, "abc", True, [1], {}, 10**400])
def test_no_setting_takes_what_means_nothing(name, option, value):
    if isinstance(value, str) and option.type is str and not option.choices:
        return  # the name of a preset, which the space knows
    with pytest.raises(InputError, match=rf"{option.name} ") as from_python:
        entry(name).build(**{option.name: value})
    with pytest.raises(InputError, match=rf"^(unknown )?{name}: {option.name} ") as from_a_table:
        configured(name, {name: {option.name: value}})
    assert "\n" not in f"{from_python.value}{from_a_table.value}"


@pytest.mark.parametrize(("name", "option"), DECLARED)
def test_defaults_are_taken_from_a_table_too(name, option):
    assert configured(name, {name: {option.name: option.default}})[1] == {option.name: option.default}
