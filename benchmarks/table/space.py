"""The space of the table, its points in order, and the trainings of one of them."""

import itertools
from functools import cache
from pathlib import Path

from prunas.architecture import Architecture
from prunas.experiments.plan import make_setting
from prunas.proposers.brief import Proposal
from prunas.protocols import SCRATCH
from prunas.runs.job import Job
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.works.trainings import Setting

__all__ = [
    "FILE",
    "SEEDS",
    "build_order",
    "parts",
    "points",
    "setting_of",
    "test_job",
    "the_space",
    "training_job",
]

FILE = Path(__file__).parent / "three-stages.toml"
SEEDS = 3


@cache
def the_space() -> SearchSpace:
    """The space of the table."""
    return load_space(str(FILE))


@cache
def points() -> tuple[Architecture, ...]:
    """Every point of the space: widths of the three stages, widest last, then the blocks that are removed."""
    space = the_space()
    choices = [range(space.step, d.dense + 1, space.step) for d in space.dimensions]
    subsets = list(itertools.product((False, True), repeat=len(space.removable)))
    return tuple(
        space.point(
            dict(zip((d.name for d in space.dimensions), widths, strict=True)),
            removed=[block for block, gone in zip(space.removable, removed, strict=True) if gone],
        )
        for widths in itertools.product(*choices)
        for removed in subsets
    )


@cache
def parts() -> tuple[tuple[int, ...], ...]:
    """Points by what is trained first: those with all blocks, those that keep the last, the others.

    The first part, the first two and all three are spaces of their own, of 64, 256 and 512 points: a table that is
    stopped on the way is exhaustive for one of them.
    """
    last = the_space().removable[-1]
    levels = [0 if not arch.removed else 1 if last not in arch.removed else 2 for arch in points()]
    return tuple(tuple(i for i, of in enumerate(levels) if of == level) for level in range(3))


def build_order() -> list[tuple[int, int]]:
    """Point and seed of every training."""
    return [(i, seed) for part in parts() for seed in range(SEEDS) for i in part]


def setting_of(data: Path | None) -> Setting:
    """What all trainings of the table have in common.

    Args:
        data: Folder of the data sets.

    Raises:
        InputError: CIFAR-10 is not there.
    """
    return make_setting(the_space(), root=data)


def training_job(setting: Setting, arch: Architecture, seed: int) -> Job:
    """The training of a point on *train*, scored on validation; it keeps its weights for the test."""
    proposal = Proposal(setting.space.target(keep=1.0), arch)
    return setting.final(proposal, SCRATCH, seed, None, keep=True, splits=("train", "val")).job


def test_job(setting: Setting, arch: Architecture, training: Job, seed: int) -> Job:
    """The test of what that training kept."""
    return setting.work("test", {"architecture": arch.to_json(), "run": training.name}, seed)
