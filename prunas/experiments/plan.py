"""From what a user asked to a `Plan`, and what carrying it out will take."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunas import data as datasets
from prunas import designs
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.experiments.search import Plan
from prunas.names import FINDERS
from prunas.proposers.brief import Source
from prunas.proposers.entry import Entry
from prunas.proposers.registry import configured, entry
from prunas.proposers.serving import check_served
from prunas.proposers.table import PROPOSERS
from prunas.protocols import Protocol, protocol
from prunas.recipe import Recipe, finite, recipe
from prunas.spaces.space import SearchSpace
from prunas.statistics.inference import chance_ceiling
from prunas.works.trainings import Setting

__all__ = ["CONTROLS", "TRIALS", "check_cap", "controls_of", "make_plan", "make_setting"]

CONTROLS = {
    "width": ("uniform", "random", "taper"),
    "depth": ("uniform-depth",),
    "kernel": ("uniform-kernel", "erk"),
}
"""What a proposer is compared with unless told otherwise, by what it decides."""


FINDING = {"width": "slimming", "depth": "sss", "kernel": "magnitude"}

TRIALS = 16
"""Candidates per target of a sampler that is not told otherwise."""


def controls_of(
    names: Collection[str], space: SearchSpace, options: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """The controls that join these proposers unless told otherwise."""
    lines = [configured(name, space.options, options)[0] for name in names]
    found = {line.dimensions[0] for line in lines if line.kind in FINDERS}
    return {
        control
        for dimension in {line.dimensions[0] for line in lines}
        for control in CONTROLS[dimension]
        if dimension in found or "found" not in entry(control).needs
    }


def make_setting(
    space: SearchSpace,
    *,
    recipe_name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    root: Path | None = None,
    download: bool = False,
    dense_training: str = "scratch-e",
) -> Setting:
    """Space, recipe and data of an experiment; loads the data.

    Args:
        space: The search space.
        recipe_name: Instead of the space's own recipe.
        changes: Recipe settings that differ, without those that are None. A precision of `auto` is resolved here,
            before anything is hashed: see `prunas.training.precision`.
        root: Folder of the data sets.
        download: Whether a data set may be fetched.
        dense_training: How the dense network of pruning methods is trained: `scratch-e` or `dsd`.

    Raises:
        InputError: Something does not exist or cannot be read.
    """
    if not space.data:
        raise InputError(f"space {space.name!r} names no data set; add `data = ...` to its file")
    changed = {key: value for key, value in (changes or {}).items() if value is not None}
    if changed.get("precision") == "auto":
        from prunas.training.precision import fastest
        from prunas.works.runtime import device

        changed = fastest(device()) | {key: value for key, value in changed.items() if key != "precision"}
    chosen: Recipe = recipe(recipe_name or space.recipe).replace(**changed)
    found = datasets.load(space.data, root, download)
    if found.shape != space.survey.input:
        raise InputError(
            f"data set {found.name!r} has images of {'x'.join(map(str, found.shape))}; the network of space "
            f"{space.name!r} takes {'x'.join(map(str, space.survey.input))}"
        )
    images = {split: len(found.members(split, chosen.images)) for split in ("train", "train+val")}
    trained = protocol(dense_training)
    tested = np.bincount(found.labels[found.splits["test"]])
    chance = chance_ceiling(tested.max() / tested.sum(), int(tested.sum()))
    return Setting(space, chosen, found.name, found.identity, images, found.notes, trained, chance)


def make_plan(
    setting: Setting,
    proposers: Sequence[str],
    *,
    keep: Sequence[float] = (),
    budgets: Sequence[str] = (),
    metric: str | None = None,
    protocols: Sequence[str] = ("scratch-e",),
    seeds: int = 3,
    trials: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    controls: bool = True,
    dense: bool = True,
    cap: float | None = None,
    keep_weights: bool = False,
    source: Source | None = None,
    align: tuple[int, designs.Rounding] | None = None,
    warm_start: Sequence[str] = (),
) -> Plan:
    """The plan of a search.

    Args:
        setting: Space, recipe and data.
        proposers: Names; the controls of what they decide join them.
        keep: Targets as fractions; the space's own if neither these nor `budgets` are given.
        budgets: Targets as numbers, such as `1.2M`.
        metric: What targets count; the space's own by default.
        protocols: How points are trained; none only searches.
        seeds: Searches per proposer.
        trials: Candidates per target of every sampler, `random` included; by default 16, and 1 for `random`.
        options: Settings of proposers by name.
        controls: Whether the controls join.
        dense: Whether the dense network is trained and tested too.
        cap: Largest factor of Scratch-B epochs where a protocol names none; the space's own by default.
        keep_weights: Whether final trainings keep their weights.
        source: What was found in another space, for transferred designs.
        align: What the widths of every proposal are aligned to, and how; controls answer points as proposed.
        warm_start: Pruning methods whose points are the first trials of every sampler: `tpe` becomes
            `tpe+slimming`. They join the proposers.

    Raises:
        InputError: Something does not exist or cannot be reached.
    """
    space = setting.space
    for flag, count in (("--seeds", seeds), ("--trials", 1 if trials is None else trials)):
        if not isinstance(count, int) or count < 1:
            raise InputError(f"{flag} must be a whole number of at least 1, not {count}")
    if not proposers:
        raise InputError("nobody proposes; name someone, such as --proposer slimming")
    ways = tuple(dict.fromkeys(map(protocol, protocols)))
    check_cap(cap, ways)
    _check_file_settings(space)
    if align is not None:
        designs.align(space, space.dense, *align)  # refuses what cannot be meant
        for how in ways:
            if how.weights != "fresh":
                raise InputError(
                    f"protocol {how.name!r} inherits the channels a method kept, and --align changes how many "
                    "there are; use one that starts from scratch"
                )

    def line(name: str) -> Entry:
        return configured(name, space.options, options or {})[0]

    chosen = set(proposers)
    if warm_start:
        cold = {name for name in chosen if line(name).kind == "sampler" and not line(name).starts}
        if not cold:
            raise InputError("--warm-start is for samplers; add one, such as --proposer tpe")
        chosen = chosen - cold | {"+".join((name, *warm_start)) for name in cold}
    chosen |= {start for name in chosen for start in line(name).starts}
    found = {line(name).dimensions[0] for name in chosen if line(name).kind in FINDERS}

    def served(name: str) -> bool:
        return not ways or any(line(name).serves(how) for how in ways)

    for name in sorted(chosen):
        if not served(name):
            inherits = ", ".join(how.name for how in ways)
            raise InputError(
                f"{name!r} proposes shapes without the weights that {inherits} inherits; add a protocol that "
                "starts from scratch, such as --protocol scratch-e"
            )
    if controls:  # those that no protocol of this plan can train would stay without a result
        chosen |= {name for name in controls_of(chosen, space, options or {}) if served(name)}
    known = chosen | {name.partition("+")[0] for name in chosen}
    for name in options or {}:
        entry(name)
        if name not in known:
            raise InputError(
                f"--set {name}: {name!r} is not in this search, which asks {', '.join(sorted(chosen))}; add it "
                "with --proposer, or leave its settings out"
            )
    for name in chosen:
        needs, dimension = line(name).needs, line(name).dimensions[0]
        for start in line(name).starts:
            if line(start).dimensions[0] != dimension:
                raise InputError(
                    f"{name!r}: {start!r} finds {line(start).dimensions[0]}, and {dimension} is what is searched; "
                    f"see vary, as in --set {name.partition('+')[0]}.vary={line(start).dimensions[0]}"
                )
        if {"found", "found-by-others"} & set(needs) and dimension not in found:
            raise InputError(
                f"{name!r} answers what a pruning method found; add one, such as --proposer {FINDING[dimension]}"
            )
        if "source" in needs and source is None:
            raise InputError(
                f"{name!r} needs a space its shapes come from; use `prunas transfer --from SPACE`"
            )
        check_served(name, space, dimension)
    targets = [space.target(keep=share, metric=metric) for share in keep]
    targets += [space.target(budget=Target.parse(text), metric=metric) for text in budgets]
    targets = targets or [space.target(keep=share, metric=metric) for share in space.keep]
    return Plan(
        setting=setting,
        proposers=(*(n for n in PROPOSERS if n in chosen), *sorted(chosen - PROPOSERS.keys())),
        targets=tuple(sorted(dict.fromkeys(targets), key=lambda target: -target.value)),
        protocols=ways,
        seeds=seeds,
        trials={
            name: trials or (TRIALS if line(name).kind == "sampler" else 1)
            for name in chosen
            if "trials" in line(name).needs
        },
        options=options or {},
        cap=cap if cap is not None else space.cap,
        dense=dense,
        keep_weights=keep_weights,
        source=source,
        align=align,
    )


def check_cap(cap: float | None, protocols: Sequence[Protocol]) -> None:
    """Refuses a cap that cannot be meant, or that no protocol would heed.

    Raises:
        InputError: It is below 1 or not finite, or no protocol is Scratch-B without a cap of its own.
    """
    if cap is None:
        return
    if not (finite(cap) and cap >= 1):
        raise InputError(f"--cap must be 1 or more, not {cap}; without any cap: --protocol scratch-b:inf")
    if not any(how.capped for how in protocols):
        names = ", ".join(how.name for how in protocols) or "none"
        raise InputError(
            f"--cap limits the epochs of scratch-b, and the protocols are {names}; add --protocol scratch-b, or "
            "leave the cap out"
        )


def _check_file_settings(space: SearchSpace) -> None:
    """Refuses settings of proposers in a space's file that do not exist or cannot have that value."""
    for name in space.options:
        try:
            configured(name, space.options)
        except InputError as error:
            raise InputError(f"{space.source or space.name}: proposers.{name}: {error}") from error
