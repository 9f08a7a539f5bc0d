import dataclasses

import pytest
from torch import nn

from prunas.errors import InputError
from prunas.names import POLICIES_DIFFER
from prunas.proposers.agents.blockdrop import BlockDrop, removal_order
from prunas.proposers.brief import Pending
from prunas.proposers.serving import check_served
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.tasks.score import Score

MEANS = (0.9, 0.1, 0.8, 0.95, 0.2, 0.9, 0.9, 0.9, 0.3)


@pytest.fixture(scope="module")
def deep():
    """ResNet-20: three stages of three blocks, all of which may go."""
    space = load_space("resnet20-c10")
    return dataclasses.replace(space, groups=(), gates=(), blocks=("*",))


def asked(space, brief, learnt, **changes):
    """A brief whose policy has been learnt, and what was asked of it."""
    requests = []

    def work(name, options):
        requests.append((name, options))
        return learnt

    told = brief(space, {}, targets=(space.target(keep=0.66, metric="macs"),), work=work, **changes)
    return told, requests


def test_blocks_go_by_their_mean_the_later_one_first_and_a_stage_keeps_its_first(deep):
    blocks = list(deep.removable)
    assert len(blocks) == 9
    assert removal_order(deep, dict.fromkeys(blocks, 0.5)) == [blocks[i] for i in (8, 7, 5, 4, 2, 1, 6, 3, 0)]
    means = dict(zip(blocks, MEANS, strict=True))
    assert removal_order(deep, means) == [blocks[i] for i in (1, 4, 8, 2, 7, 5, 6, 0, 3)]


def test_the_least_used_blocks_go_until_the_budget_is_met(deep, brief):
    told, requests = asked(deep, brief, {"means": MEANS, "commonest": 0.8})
    (made,) = BlockDrop().propose(told, [])
    assert made.architecture.removed == tuple(sorted(deep.removable[i] for i in (1, 4, 8)))
    assert deep.measure(made.architecture, "macs") <= told.targets[0].value
    assert (made.weights_of, made.kept) == ("run-of-the-dense-network", {})
    ((name, options),) = requests
    assert name == "blockdrop/policy"
    assert options["branches"] == [f"{block}.bn2" for block in deep.removable]
    assert options["inherit"] == {"run": "run-of-the-dense-network", "kept": {}}


@pytest.mark.parametrize(("commonest", "flagged"), [(0.49, True), (0.5, False)])
def test_policies_that_differ_are_flagged(deep, brief, commonest, flagged):
    told, _ = asked(deep, brief, {"means": [0.5] * 9, "commonest": commonest})
    (made,) = BlockDrop().propose(told, [])
    assert (POLICIES_DIFFER in made.flags) == flagged


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


def test_what_it_cannot_serve_is_refused_before_anything_is_trained(deep, brief):
    plain = SearchSpace.from_model(Plain, (3, 8, 8), name="plain")
    with pytest.raises(
        InputError, match=r"blockdrop removes residual branches, .* slimming and samplers such as"
    ):
        BlockDrop().propose(brief(plain, targets=(plain.target(keep=0.5),), dense=None), [])
    with pytest.raises(InputError, match=r"'blockdrop' cannot serve space 'plain': .*; these can: l1, "):
        check_served("blockdrop", plain)
    error = Score(name="RMSE", better="lower")
    targets = (deep.target(keep=0.6),)
    with pytest.raises(InputError, match="scored by its RMSE; sss removes blocks for any task"):
        BlockDrop().propose(brief(deep, targets=targets, score=error, dense=None), [])
    with pytest.raises(Pending):
        BlockDrop().propose(brief(deep, targets=targets, dense=None), [])
