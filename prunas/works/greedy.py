"""The work `supernet/greedy`: the greedy pass of `prunas.proposers.supernet.autoslim`."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.files import read_json, write_json
from prunas.proposers.evaluators import Evaluator, evaluator
from prunas.proposers.supernet.autoslim import counts_after, steps
from prunas.proposers.supernet.quanta import quanta_point, quantised
from prunas.recipe import Recipe
from prunas.spaces.space import SearchSpace
from prunas.tasks.base import Task, judge
from prunas.training.evaluate import Tally
from prunas.training.step import Forward
from prunas.works.evaluate import computing, pays_last
from prunas.works.runtime import choose_algorithms, device, side_by_side, space_of_spec, task_of_spec, weights
from prunas.works.supernet import Slices

__all__ = ["COUNTERS", "Batches", "images_of", "run"]

BATCH = 256
"""Images whose statistics batch norms use."""

COUNTERS = ("macs", "evaluations", "passed")


class _Stopped(Exception):
    pass


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """The steps of a greedy pass, as `prunas.works.trainings.Setting.work` writes it down.

    Its options: `run`: the super-network's; `evaluator`: that which reads it; `target`: the smallest, where it
    ends; `by`; `images` of the validation split that every step is measured on. A pass that was stopped goes on
    after its last step.

    Returns:
        `path`: the dimension of each step; `scores` after each; `evaluations`, images `passed`, what they are
        `worth`, `macs` and `seconds`; None if `stop` said so.
    """
    options, where, started = spec["options"], device(), time.perf_counter()
    choose_algorithms(where)
    space, recipe, task = space_of_spec(spec), Recipe.from_json(spec["recipe"]), task_of_spec(spec)
    how = evaluator(options["evaluator"]["name"], **options["evaluator"]["options"])
    target = Target.from_json(options["target"])
    table = quantised(space, how.setting("quanta"))
    kept = folder / "path.json"
    done: dict[str, Any] = {"path": [], "scores": [], "seconds": 0.0}
    if kept.is_file():
        done |= cast(dict[str, Any], read_json(kept))
    spent = done["seconds"]
    with side_by_side(where, stop) as (_, stepped):
        batches = Batches(
            space, task, recipe, weights(folder.parent / options["run"]), options["images"], where
        )
        for name in COUNTERS:
            setattr(batches, name, done.get(name, 0))
        known: dict[tuple[int, ...], float] = {}

        def gain(counts: npt.NDArray[np.int64]) -> float:
            if stepped():
                raise _Stopped
            key = tuple(counts.tolist())
            if key not in known:
                known[key] = batches.score(quanta_point(space, counts))
            return task.score.gain(known[key], 0.0)

        try:
            for step in steps(space, table, target, gain, options["by"], done["path"]):
                done["path"].append(step)
                counts = counts_after(table, done["path"])
                gain(counts)
                done["scores"].append(known[tuple(counts.tolist())])
                done |= {name: getattr(batches, name) for name in COUNTERS}
                done["seconds"] = spent + time.perf_counter() - started
                write_json(kept, done)
                progress({"step": len(done["path"]), "steps": int((table.shape[1] - 1) * len(table))})
        except _Stopped:
            return None
    done["seconds"] = spent + time.perf_counter() - started
    counted = {name: getattr(batches, name) for name in COUNTERS}
    return done | counted | {"worth": batches.passed / images_of(how, task, recipe)}


def images_of(how: Evaluator, task: Task, recipe: Recipe) -> int:
    """Images that one evaluation passes through a network."""
    return how.images(len(task.members("val")), len(task.members("train", recipe.images)))


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


class Batches:
    """Scores slices of a super-network on fixed batches, with the batches' own statistics in batch norms.

    Attributes:
        macs: Multiply-accumulates so far.
        evaluations: Slices that were scored so far.
        passed: Images that were passed so far, of all slices.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        recipe: Recipe,
        state: Mapping[str, torch.Tensor],
        images: int,
        where: torch.device,
        batch: int = BATCH,
    ) -> None:
        """Reads the batches.

        Args:
            space: The space.
            task: What slices are judged by.
            recipe: Gives the precision.
            state: The super-network's, on the CPU.
            images: Of the validation split, all if it has fewer.
            where: The device.
            batch: Images whose statistics batch norms use.
        """
        self._space, self._task, self._recipe, self._where = space, task, recipe, where
        self.macs = self.evaluations = self.passed = 0
        with torch.random.fork_rng(devices=[]):
            net = space.build(space.dense, state, {}).to(where)
        self._slices = Slices(space, net.eval())
        members = task.members("val", images if 0 < images < len(task.members("val")) else 0)
        self.images = len(members)
        feed = task.feed(members, min(batch, len(members)), device=where)
        self._batches = [feed.gather(draw) for draw in feed.draws(None)]
        if pays_last(recipe, space, space.dense, where):
            self._batches = tree_map_only(torch.Tensor, _channels_last, self._batches)

    @torch.no_grad()
    def score(self, arch: Architecture, batch: int | None = None) -> float:
        """Score of a point, on all batches or on one.

        Args:
            arch: The point.
            batch: Which one, counted on and on; None: all.
        """
        chosen = self._batches if batch is None else [self._batches[batch % len(self._batches)]]
        tally, images = Tally(self._task, self._where), 0
        with computing(self._space, arch, self._recipe, self._where):
            run = self._slices.at(arch, statistics_of_batches=True)
            forward = Forward(cast(nn.Module, run), self._recipe, self._where)
            for one in chosen:
                tally.add(self._task.totals(forward, one))
                images += self._task.size(one)
        self.macs += images * self._space.cost(arch).macs
        self.evaluations += 1
        self.passed += images
        return judge(self._task, tally.totals(), "validation batches")
