"""Evaluators inside one work: for loops of so many evaluations that a job each would cost too much."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prunas.architecture import Architecture
from prunas.plugins import resolve
from prunas.proposers.evaluators import Evaluator
from prunas.recipe import Recipe
from prunas.spaces.space import SearchSpace
from prunas.tasks.base import Task
from prunas.works.evaluate import computing, measure, pays_last
from prunas.works.runtime import calibration, chosen_units

__all__ = ["Scorer"]


class Scorer:
    """Scores points of a space by an evaluator that inherits weights, in this process.

    What `Brief.evaluate` gives for the same weights and seed, without a job for each point: weights and
    calibration images are read once, and a point that was scored is remembered.

    Attributes:
        passed: Images that were passed so far, of all networks.
        macs: Multiply-accumulates of all that.
        evaluations: Points that were scored, each counted once.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        recipe: Recipe,
        how: Evaluator,
        state: Mapping[str, Tensor],
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        """Reads the calibration images.

        Args:
            space: The space.
            task: What points are judged by.
            recipe: Gives precision and memory layout.
            how: An evaluator whose source is a network.
            state: State dict of that network, on the CPU, such as `prunas.works.runtime.weights` reads.
            seed: Of the calibration images.
            device: Where networks run.
        """
        self._space, self._task, self._recipe = space, task, recipe
        self._how, self._state, self._seed, self._device = how, dict(state), seed, device
        norms = how.request(space.dense, "")["norms"]
        self._batches = list(calibration(task, norms, seed, recipe.images)) if norms else []
        self._known: dict[Any, float] = {}
        self.passed = self.macs = self.evaluations = 0

    def score(self, arch: Architecture, kept: Mapping[str, Sequence[int]] | None = None) -> float:
        """Score of a point on the validation split.

        Args:
            arch: The point.
            kept: Units of each narrowed group that stay; by default the evaluator chooses.
        """
        key = (
            arch.digest,
            None if kept is None else tuple(sorted((g, tuple(units)) for g, units in kept.items())),
        )
        if key not in self._known:
            self._known[key] = self._measured(arch, kept)
        return self._known[key]

    def _measured(self, arch: Architecture, kept: Mapping[str, Sequence[int]] | None) -> float:
        options = self._how.request(arch, "", kept, self._seed)
        inherit, state = options["inherit"], self._state
        units = inherit.get("kept")
        if units is None:
            units = chosen_units(self._space, arch, state, inherit["select"])
        if rebuild := inherit.get("rebuild"):
            images = partial(calibration, self._task, seed=self._seed, subset=self._recipe.images)
            rebuilt = resolve("prunas.rebuilds", rebuild["name"])
            state = rebuilt(self._space, arch, state, units, images, **rebuild["options"])
        with computing(self._space, arch, self._recipe, self._device):
            with torch.random.fork_rng(devices=[]):
                net = self._space.build(arch, state, units)
            last = pays_last(self._recipe, self._space, arch, self._device)
            measured = measure(
                net,
                self._task,
                self._recipe,
                self._device,
                self._batches,
                images=options.get("images", 0),
                channels_last=last,
            )
        assert measured is not None  # nobody asks it to stop
        score, passed = measured
        self.passed += passed
        self.macs += passed * self._space.cost(arch).macs
        self.evaluations += 1
        return score
