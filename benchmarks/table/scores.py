"""Cheap scores that are judged on the table: counted, read off a dense network, or off an untrained one.

A score is a function from a point to a number, higher for what it takes to be better. `Sources` has what they
read: the dense network of a seed, trained once, initial weights, and training images.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.table.judge import Score
from benchmarks.table.space import the_space
from prunas.architecture import Architecture
from prunas.data.dataset import stream_seed
from prunas.designs.fit import ratios
from prunas.errors import InputError
from prunas.proposers.brief import Brief
from prunas.proposers.evaluators import EVALUATORS, Evaluator, evaluator
from prunas.proposers.pruning.channels import Scores, highest
from prunas.proposers.pruning.l1 import sums
from prunas.proposers.pruning.precrop import logarithm
from prunas.proposers.pruning.slimming import scores as scales
from prunas.proposers.pruning.taylor import importances
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.tasks.base import Task
from prunas.works.evaluators import Scorer
from prunas.works.runtime import calibration, task_of_spec, weights
from prunas.works.trainings import Setting, Training

__all__ = ["SCORES", "Sources"]

BATCH, IMAGES, SCORED = 64, 1024, 1000
"""Training images of one batch, training images that `taylor` looks at, validation images of an evaluation."""

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Sources:
    """What scores may read, for one seed.

    Attributes:
        setting: Of the table's trainings.
        store: Where the dense network's run lies.
        seed: Of that training, and of initial weights.
    """

    setting: Setting
    store: Store
    seed: int

    @cached_property
    def dense(self) -> Mapping[str, Tensor]:
        """The state dict of the dense network, trained on *train* if it is not there.

        Raises:
            InputError: Its training failed.
        """
        return self._trained(self.setting.dense(self.seed, None))

    def supernet(self, settings: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The state dict of the super-network with these settings, likewise."""
        return self._trained(self.setting.supernet(self.seed, settings))

    def _trained(self, training: Training) -> Mapping[str, Tensor]:
        with executor("serial", self.store) as running:
            running.submit(training.job)
            for outcome in running.completed():
                if outcome.result is None:
                    raise InputError(f"{training.job.name} cannot be had: {outcome.error or outcome.status}")
        return weights(self.store.folder(training.job))

    @cached_property
    def task(self) -> Task:
        """The task with its images."""
        return task_of_spec(self.setting.dense(self.seed, None).job.task)

    def images(self, count: int) -> Any:
        """Batches of training images without augmentation."""
        return calibration(self.task, count, self.seed, 0)

    @cached_property
    def sizes(self) -> Scores:
        """Sum of the absolute weights of each channel of the dense network, per dimension."""
        return sums(the_space(), self.dense)[0]

    def untrained(self, arch: Architecture) -> nn.Module:
        """The network of a point with initial weights of its own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("weights", self.seed))
            return the_space().build(arch)


# Counted


def _counted(metric: str, sources: Sources) -> Score:
    return lambda arch: float(the_space().measure(arch, metric))


def _precrop(sources: Sources) -> Score:
    """Expected paths of a network with these widths, in logarithms; see `prunas.proposers.pruning.precrop`."""
    gains = logarithm(the_space())
    return lambda arch: float(gains @ np.log(ratios(the_space(), arch)))


# Read off the dense network


def _kept(of: Callable[[Sources], Scores], sources: Sources) -> Score:
    """Sum of the highest channel scores that a point keeps: it sees widths alone."""
    by_dimension = of(sources)

    def score(arch: Architecture) -> float:
        counts = the_space().counts(arch).tolist()
        return float(sum(of[highest(of, n)].sum() for of, n in zip(by_dimension, counts, strict=True)))

    return score


def _taylor(sources: Sources) -> Scores:
    task = sources.task
    brief = Brief(the_space(), (), sources.seed, calibration=sources.images, loss=task.loss)
    return importances(brief, sources.dense, IMAGES)


def _evaluated(how: Evaluator, sources: Sources) -> Score:
    """Validation accuracy by an evaluator of prunas that reads the dense network or a super-network."""
    state = sources.supernet(how.supernet) if how.entry.source == "supernet" else sources.dense
    recipe = sources.setting.recipe
    return Scorer(the_space(), sources.task, recipe, how, state, seed=sources.seed, device=CPU).score


# Read off a network that is not trained


def _gradients(net: nn.Module, loss: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Weights and gradients of the layers with a matrix."""
    layers = [p for p in net.parameters() if p.ndim > 1]
    gradients = torch.autograd.grad(loss, layers)
    return [(w.detach(), g) for w, g in zip(layers, gradients, strict=True)]


def _on_a_batch(measure: Callable[[Tensor, Tensor], Tensor], sources: Sources) -> Score:
    (batch,) = list(sources.images(BATCH))

    def score(arch: Architecture) -> float:
        net = sources.untrained(arch).train()
        parts = _gradients(net, sources.task.loss(net, batch))
        return sum(float(measure(w, g)) for w, g in parts)

    return score


def _synflow(sources: Sources) -> Score:
    """SynFlow (Tanaka et al., NeurIPS 2020, arXiv:2006.05467) in logarithms.

    All weights are replaced by their absolute values, norms let everything pass, and a network that has lost no
    path has a large sum of weight times gradient of its output on ones.
    """

    def score(arch: Architecture) -> float:
        net = sources.untrained(arch).double().eval()
        with torch.no_grad():
            for p in net.parameters():
                p.abs_()
        ones = torch.ones(1, *sources.task.inputs.shapes[0], dtype=torch.float64)
        paths = sum(float((w * g).sum()) for w, g in _gradients(net, net(ones).sum()))
        return math.log(paths)

    return score


SCORES: Mapping[str, Callable[[Sources], Score]] = {
    "params": partial(_counted, "params"),
    "macs": partial(_counted, "macs"),
    "activations": partial(_counted, "activations"),
    "precrop": _precrop,
    "synflow": _synflow,
    "gradient norm": partial(_on_a_batch, lambda w, g: g.norm()),
    "snip": partial(_on_a_batch, lambda w, g: (w * g).abs().sum()),
    "l1 kept": partial(_kept, lambda sources: sources.sizes),
    "scales kept": partial(_kept, lambda sources: scales(the_space(), sources.dense)),
    "taylor kept": partial(_kept, _taylor),
    **{
        name: partial(_evaluated, evaluator(name, images=SCORED))
        for name, line in EVALUATORS.items()
        if line.source != "none"
    },
}
"""Makers of scores by name; each is called with what it may read."""
