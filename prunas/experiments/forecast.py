"""What carrying out a plan will take, before anything is trained."""

import time
from dataclasses import dataclass

from typing_extensions import TypedDict

from prunas import designs
from prunas.costs.target import Target
from prunas.experiments.plan import Plan
from prunas.experiments.preflight import asks_penalty
from prunas.proposers.registry import entry
from prunas.protocols import BACKWARD, SCRATCH, Protocol
from prunas.works import processor

__all__ = ["DryRow", "Forecast", "dry_rows", "forecast"]


class DryRow(TypedDict):
    """One proposer at one target under one protocol; the cost is None where the points are not known yet."""

    proposer: str
    asked: str
    metric: str
    budget: int
    protocol: str
    seeds: int
    params: int | None
    macs: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan will take, from its targets: the points themselves are not known yet.

    Attributes:
        trainings: How many.
        macs: Multiply-accumulates of all of them.
        steps: Optimiser steps of all of them.
        epochs: Epochs of all of them.
    """

    trainings: int
    macs: int
    steps: int
    epochs: int

    def workers(self, plan: Plan) -> int:
        """Trainings at a time on a CPU, unless told otherwise; see `prunas.works.processor`."""
        dense = plan.setting.space.cost(plan.setting.space.dense)
        return processor.workers(dense.macs * plan.setting.recipe.batch, self.steps)

    def seconds(self, plan: Plan) -> float:
        """An estimate of the time, from a few training steps of the dense network, timed now.

        A narrow network does not save time in proportion: a step is taken to cost at least a quarter of the
        dense one's. Trainings side by side are taken to share the processor evenly.
        """
        import torch

        from prunas.training.step import Step, arithmetic
        from prunas.works.runtime import device, task_of

        setting = plan.setting
        recipe, space = setting.recipe, setting.space
        where = device()
        with torch.random.fork_rng(devices=[]):
            net = space.build().to(where)
        torch.set_num_threads(processor.threads(space.cost(space.dense).macs * recipe.batch))
        task = task_of(setting.task, setting.data_reference, setting.root)
        feed = task.feed(task.members("train")[: recipe.batch], recipe.batch, device=where)
        draw = next(iter(feed.draws(None)))
        arithmetic(recipe, where)
        step = Step(net, task, feed.gather, recipe, where)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            with torch.random.fork_rng():
                step(draw)
            if where.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        dense_step = BACKWARD * setting.space.cost(setting.space.dense).macs * recipe.batch
        at_once = self.workers(plan) if where.type == "cpu" else 1
        return best * max(self.macs / dense_step, self.steps / 4) / at_once


def forecast(plan: Plan) -> Forecast:
    """What is known of a plan before anything is trained."""
    setting = plan.setting
    dense_cost = setting.space.cost(setting.space.dense)
    batch = setting.recipe.batch
    trainings = macs = steps = passed = 0

    def add(count: int, share: float, split: str, how: Protocol = SCRATCH) -> None:
        nonlocal trainings, macs, steps, passed
        trainings += count
        passes = how.length(setting.recipe, setting.space, share, plan.cap) * count
        macs += round(how.forward_passes(share) * dense_cost.macs * share * setting.images[split] * passes)
        steps += round(-(-setting.images[split] // batch) * passes)
        passed += round(passes)

    how_scored = plan.evaluator
    for name in plan.proposers:
        line = entry(name)
        inherits = how_scored is not None and how_scored.entry.source == "dense"
        reads_dense = "dense" in line.needs or (inherits and plan.trials.get(name, 1) > 1)
        # Given weights are trained on by penalties alone.
        if reads_dense and (setting.dense_from is None or asks_penalty(plan, name)):
            add(plan.seeds, 1.0, "train", setting.dense_training)
        for target in plan.targets:
            share = min(1.0, target.value / setting.space.measure(setting.space.dense, target.metric))
            trials = plan.trials.get(name, 1)
            if trials > 1 and how_scored is None:
                add(plan.seeds * trials, share, "train")
            elif trials > 1:  # a pass or two over a few images, of networks that are mostly narrow
                trainings += plan.seeds * trials
                macs += round(share * dense_cost.macs * setting.images["train"] / 10) * plan.seeds * trials
            for how in plan.protocols:
                if line.serves(how):
                    add(plan.seeds, share, "train+val", how)
    for how in plan.references:
        add(plan.seeds, 1.0, "train+val", how)
    return Forecast(trainings, macs, steps, passed)


def dry_rows(plan: Plan) -> list[DryRow]:
    """One row per proposer, target and protocol that can train its points; those of methods are not known yet."""
    space = plan.setting.space

    def row(name: str, target: Target, how: Protocol) -> DryRow:
        cost = None
        if name == "uniform":
            arch = designs.uniform(space, target)
            cost = space.cost(arch if plan.align is None else designs.align(space, arch, *plan.align))
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
        row(name, target, how)
        for name in plan.proposers
        for target in plan.targets
        for how in plan.protocols
        if entry(name).serves(how)
    ]
