"""From what a user asked to a `Plan`, and what carrying it out will take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunas import data as datasets
from prunas import designs
from prunas.costs import Metric, Target
from prunas.errors import InputError
from prunas.experiments.jobs import BACKWARD, FINETUNE_SHARE, Setting
from prunas.experiments.search import FINDERS, Plan
from prunas.proposers import PROPOSERS, entry
from prunas.proposers.brief import Source
from prunas.recipe import Protocol, Recipe, protocol, recipe
from prunas.space import SearchSpace

__all__ = ["Forecast", "dry_rows", "forecast", "make_plan", "make_setting"]

CONTROLS = {
    "width": ("uniform", "random", "taper"),
    "depth": ("uniform-depth",),
    "kernel": ("uniform-kernel", "erk"),
}
"""What a proposer is compared with unless told otherwise, by what it decides."""

FINDING = {"width": "slimming", "depth": "sss", "kernel": "magnitude"}

TRIALS = 16
"""Candidates per target of a sampler that is not told otherwise."""


def make_setting(
    space: SearchSpace,
    *,
    recipe_name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    root: Path | None = None,
    download: bool = False,
) -> Setting:
    """Space, recipe and data of an experiment; loads the data.

    Args:
        space: The search space.
        recipe_name: Instead of the space's own recipe.
        changes: Recipe settings that differ, without those that are None.
        root: Folder of the data sets.
        download: Whether a data set may be fetched.

    Raises:
        InputError: Something does not exist or cannot be read.
    """
    if not space.data:
        raise InputError(f"space {space.name!r} names no data set; add `data = ...` to its file")
    changed = {key: value for key, value in (changes or {}).items() if value is not None}
    chosen: Recipe = recipe(recipe_name or space.recipe).replace(**changed)
    found = datasets.load(space.data, root, download)
    if found.shape != space.survey.input:
        raise InputError(
            f"data set {found.name!r} has images of {'x'.join(map(str, found.shape))}; the network of space "
            f"{space.name!r} takes {'x'.join(map(str, space.survey.input))}"
        )
    images = {split: len(found.members(split, chosen.images)) for split in ("train", "train+val")}
    return Setting(space, chosen, found.name, found.identity, images, found.notes)


def make_plan(
    setting: Setting,
    proposers: Sequence[str],
    *,
    keep: Sequence[float] = (),
    budgets: Sequence[str] = (),
    metric: Metric | None = None,
    protocols: Sequence[str] = ("scratch-e",),
    seeds: int = 3,
    trials: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    controls: bool = True,
    dense: bool = True,
    cap: float | None = None,
    keep_weights: bool = False,
    source: Source | None = None,
) -> Plan:
    """The plan of a search.

    Args:
        setting: Space, recipe and data.
        proposers: Names; the controls of what they decide join them.
        keep: Targets as fractions; the space's own if neither these nor `budgets` are given.
        budgets: Targets as numbers, such as `1.2M`.
        metric: What targets count; the space's own by default.
        protocols: How points are trained.
        seeds: Searches per proposer.
        trials: Candidates per target of every sampler, `random` included; by default 16, and 1 for `random`.
        options: Settings of proposers by name.
        controls: Whether the controls join.
        dense: Whether the dense network is trained and tested too.
        cap: Largest factor of Scratch-B epochs; the space's own by default.
        keep_weights: Whether final trainings keep their weights.
        source: What was found in another space, for transferred designs.

    Raises:
        InputError: Something does not exist or cannot be reached.
    """
    space = setting.space
    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {seeds}")
    if trials is not None and trials < 1:
        raise InputError(f"--trials must be at least 1, not {trials}")
    chosen = set(proposers)
    found = {entry(name).dimensions[0] for name in chosen if entry(name).kind in FINDERS}
    if controls:
        for dimension in {entry(name).dimensions[0] for name in chosen}:
            chosen |= {c for c in CONTROLS[dimension] if dimension in found or "found" not in entry(c).needs}
    for name in chosen:
        dimension = entry(name).dimensions[0]
        if {"found", "found-by-all"} & set(entry(name).needs) and dimension not in found:
            raise InputError(
                f"{name!r} answers what a pruning method found; add one, such as --proposer {FINDING[dimension]}"
            )
        if "source" in entry(name).needs and source is None:
            raise InputError(
                f"{name!r} needs a space its shapes come from; use `prunas transfer --from SPACE`"
            )
        if dimension == "width" and not space.dimensions:
            raise InputError(
                f"{name!r} decides widths, and space {space.name!r} lets none vary (see its [vary])"
            )
        if dimension == "depth" and not space.removable:
            raise InputError(
                f"{name!r} removes blocks, and space {space.name!r} lets none vary (see its [vary])"
            )
    targets = [space.target(keep=share, metric=metric) for share in keep]
    targets += [space.target(budget=Target.parse(text), metric=metric) for text in budgets]
    targets = targets or [space.target(keep=share, metric=metric) for share in space.keep]
    return Plan(
        setting=setting,
        proposers=tuple(name for name in PROPOSERS if name in chosen),
        targets=tuple(sorted(dict.fromkeys(targets), key=lambda target: -target.value)),
        protocols=tuple(protocol(name) for name in dict.fromkeys(protocols)),
        seeds=seeds,
        trials={
            name: trials or (TRIALS if entry(name).kind == "sampler" else 1)
            for name in chosen
            if "trials" in entry(name).needs
        },
        options=options or {},
        cap=cap if cap is not None else space.cap,
        dense=dense,
        keep_weights=keep_weights,
        source=source,
    )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan will take, from its targets: the points themselves are not known yet.

    Attributes:
        trainings: How many.
        macs: Multiply-accumulates of all of them.
        steps: Optimiser steps of all of them.
    """

    trainings: int
    macs: int
    steps: int

    def seconds(self, plan: Plan) -> float:
        """An estimate of the time, from a few training steps of the dense network, timed now.

        A narrow network does not save time in proportion: a step is taken to cost at least a quarter of the
        dense one's.
        """
        import torch

        from prunas.experiments.work import device, limit_threads

        setting = plan.setting
        recipe = setting.recipe
        where = device()
        with torch.random.fork_rng(devices=[]):
            net = setting.space.build().to(where)
        limit_threads(setting.space.cost(setting.space.dense).macs * recipe.batch)
        images = torch.zeros(recipe.batch, *setting.space.survey.input, device=where)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            net(images).sum().backward()
            if where.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        dense_step = BACKWARD * setting.space.cost(setting.space.dense).macs * recipe.batch
        return best * max(self.macs / dense_step, self.steps / 4)


def forecast(plan: Plan) -> Forecast:
    """What is known of a plan before anything is trained."""
    setting = plan.setting
    dense_cost = setting.space.cost(setting.space.dense)
    dense_metric = {"params": dense_cost.params, "macs": dense_cost.macs}
    epochs, batch = setting.recipe.epochs, setting.recipe.batch
    trainings = macs = steps = 0

    def add(count: int, share: float, split: str, factor: float = 1.0) -> None:
        nonlocal trainings, macs, steps
        trainings += count
        passes = epochs * factor * count
        macs += round(BACKWARD * dense_cost.macs * share * setting.images[split] * passes)
        steps += round(-(-setting.images[split] // batch) * passes)

    cap = float("inf") if plan.cap is None else plan.cap
    for name in plan.proposers:
        needs = entry(name).needs
        if "dense" in needs:
            add(plan.seeds, 1.0, "train")
        for target in plan.targets:
            share = min(1.0, target.value / dense_metric.get(target.metric, target.value))
            trials = plan.trials.get(name, 1)
            if trials > 1:
                add(plan.seeds * trials, share, "train")
            for how in plan.protocols:
                if how.weights != "sliced":
                    add(
                        plan.seeds,
                        share,
                        "train+val",
                        min(cap, 1 / share) if how.budget == "macs" else 1,
                    )
                elif "dense" in needs:
                    add(plan.seeds, share, "train+val", FINETUNE_SHARE)
    if plan.dense:
        add(plan.seeds, 1.0, "train+val")
    return Forecast(trainings, macs, steps)


def dry_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row per final training that a plan asks for; the points of pruning methods are not known yet."""
    space = plan.setting.space

    def row(name: str, target: Target, how: Protocol) -> dict[str, Any]:
        cost = space.cost(designs.uniform(space, target)) if name == "uniform" else None
        return {
            "proposer": name,
            "asked": target.label,
            "metric": target.metric,
            "budget": target.value,
            "protocol": how.name,
            "seeds": plan.seeds,
            "params": cost.params if cost else None,
            "macs": cost.macs if cost else None,
        }

    return [
        row(name, target, how) for name in plan.proposers for target in plan.targets for how in plan.protocols
    ]
