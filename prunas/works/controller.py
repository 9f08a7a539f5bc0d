"""The work `supernet/controller`: an LSTM learns to choose shapes, as `prunas.proposers.supernet.enas` says."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.data.dataset import stream_seed
from prunas.proposers.evaluators import evaluator
from prunas.proposers.supernet.quanta import fitted, quanta_point, quantised
from prunas.recipe import Recipe
from prunas.spaces.space import SearchSpace
from prunas.tasks.score import Score
from prunas.training.checkpoint import Unusable, read_checkpoint, write_checkpoint
from prunas.works.evaluators import Scorer
from prunas.works.greedy import COUNTERS, Batches, images_of
from prunas.works.runtime import choose_algorithms, device, side_by_side, space_of_spec, task_of_spec, weights

__all__ = ["Controller", "Learner", "Shapes", "reward", "run"]

UNITS = 64
RANGE = 0.1
"""Weights are born uniform in plus or minus this."""
TANH = 1.5
DECAY = 0.99
"""Of the running mean of rewards."""
ENTROPY = 1e-4
BATCH = 128
BAND = 0.05
"""Relative distance from the target up to which a shape is at it."""
TRIES = 20
EXCESS = 2.0
"""What a shape beyond the band pays per unit of its relative distance."""
SAVED_EVERY = 10
KEY = "controller"


class Controller(nn.Module):
    """An LSTM that makes one decision after the other, each told the one before.

    Args:
        widths: Choices of a width.
        decisions: Of every decision in order, whether it is on a block (two choices) and not on a width.
    """

    def __init__(self, widths: int, decisions: Sequence[bool]) -> None:
        super().__init__()
        self.widths, self.decisions = widths, tuple(decisions)
        self.told = nn.Embedding(widths + 2, UNITS)
        self.cell = nn.LSTMCell(UNITS, UNITS)
        self.width, self.block = nn.Linear(UNITS, widths), nn.Linear(UNITS, 2)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -RANGE, RANGE)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Drawn choices, shape (count, decisions)."""
        return self._passed(count, lambda t, p: torch.multinomial(p, 1, generator=generator)[:, 0])[0]

    def log_probabilities(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of choices (count, decisions), and entropy of all decisions; each (count,)."""
        _, logs, entropies = self._passed(len(choices), lambda t, p: choices[:, t])
        return logs, entropies

    def _passed(self, count: int, choose: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        weight = self.width.weight
        heard = weight.new_zeros(count, UNITS)
        state = weight.new_zeros(count, UNITS), weight.new_zeros(count, UNITS)
        choices: list[Tensor] = []
        logs, entropies = weight.new_zeros(count), weight.new_zeros(count)
        for t, block in enumerate(self.decisions):
            state = self.cell(heard, state)
            logits = TANH * torch.tanh((self.block if block else self.width)(state[0]))
            log = logits.log_softmax(1)
            choices.append(choose(t, log.exp()))
            logs = logs + log.gather(1, choices[-1][:, None])[:, 0]
            entropies = entropies - (log.exp() * log).sum(1)
            heard = self.told(choices[-1] + (self.widths if block else 0))
        return torch.stack(choices, 1), logs, entropies


class Learner:
    """A controller with its optimiser, the running mean of its rewards, and what it draws by.

    Attributes:
        controller: The controller.
        generator: Its random state.
    """

    def __init__(self, widths: int, decisions: Sequence[bool], lr: float, seed: int) -> None:
        """Draws the weights.

        Args:
            widths: As of `Controller`.
            decisions: As of `Controller`.
            lr: Adam's rate.
            seed: Of weights and draws.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.controller = Controller(widths, decisions)
        self.generator = torch.Generator().manual_seed(seed)
        self._optimiser = torch.optim.Adam(self.controller.parameters(), lr, foreach=False)
        self._mean = torch.full((), torch.nan)

    def learn(self, choices: Tensor, rewards: Tensor, entropy: float = ENTROPY) -> None:
        """One step of REINFORCE.

        Args:
            choices: Shape (samples, decisions).
            rewards: Shape (samples,).
            entropy: Weight of the entropy.
        """
        if self._mean.isnan():
            self._mean = rewards.mean()
        logs, entropies = self.controller.log_probabilities(choices)
        loss = -(logs * (rewards - self._mean)).mean() - entropy * entropies.mean()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._mean = DECAY * self._mean + (1 - DECAY) * rewards.mean()

    def state(self) -> dict[str, Tensor]:
        """Copies of everything that decides what comes next."""
        tensors = {f"controller.{name}": t.clone() for name, t in self.controller.state_dict().items()}
        for i, parameter in enumerate(self.controller.parameters()):
            for name, tensor in self._optimiser.state.get(parameter, {}).items():
                tensors[f"adam.{i}.{name}"] = tensor.clone()
        return tensors | {"mean": self._mean.clone(), "generator": self.generator.get_state()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes back to a state."""
        self.controller.load_state_dict(
            {n.removeprefix("controller."): t for n, t in tensors.items() if n.startswith("controller.")}
        )
        for i, parameter in enumerate(self.controller.parameters()):
            kept = {n.rpartition(".")[2]: t for n, t in tensors.items() if n.startswith(f"adam.{i}.")}
            if kept:
                self._optimiser.state[parameter] = kept
        self._mean = tensors["mean"]
        self.generator.set_state(tensors["generator"])


@dataclass(frozen=True, slots=True)
class Shapes:
    """What choices mean in a space: widths and blocks, in the order of the network.

    Attributes:
        space: The space.
        table: Widths of every dimension, as `quantised` gives it.
        order: For every decision, the dimension, or where the block is among the removable ones, behind them.
    """

    space: SearchSpace
    table: npt.NDArray[np.int64]
    order: tuple[int, ...]

    @classmethod
    def of(cls, space: SearchSpace, quanta: int) -> "Shapes":
        """Those of a super-network with so many widths of a layer."""
        survey = space.survey
        place = {layer.path: i for i, layer in enumerate(survey.layers)}
        first: dict[int, int] = {}
        for layer in survey.layers:
            for run in survey.forms[layer.writes]:
                first.setdefault(run.group, place[layer.path])
        at = [
            first.get(survey.group_index[d.name], 0) if d.kind == "group" else place[d.name]
            for d in space.dimensions
        ]
        for name in space.removable:
            inside = survey.blocks[survey.block_index[name]].branch
            at.append(min((place[path] for path in inside if path in place), default=0))
        return cls(space, quantised(space, quanta), tuple(np.argsort(at, kind="stable").tolist()))

    @property
    def decisions(self) -> list[bool]:
        """As of `Controller`."""
        return [part >= len(self.table) for part in self.order]

    def parts(self, choices: Sequence[int]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
        """Counts of every dimension, and the blocks that are removed, of one row of choices."""
        by_part = dict(zip(self.order, choices, strict=True))
        counts = np.array([row[by_part[i]] for i, row in enumerate(self.table)], np.int64)
        behind = len(self.table)
        removed = [name for i, name in enumerate(self.space.removable) if by_part[behind + i] == 0]
        return counts, tuple(removed)

    def point(self, choices: Sequence[int]) -> Architecture:
        """The point of one row of choices."""
        return quanta_point(self.space, *self.parts(choices))

    def distance(self, arch: Architecture, target: Target) -> float:
        """Relative distance of a point from a target, at least 0."""
        return abs(self.space.measure(arch, target.metric) / target.value - 1)

    def sample(self, learner: Learner, count: int, target: Target) -> Tensor:
        """Choices at the target, or the last of so many tries; shape (count, decisions)."""
        rows = []
        for _ in range(count):
            for _ in range(TRIES):
                row = learner.controller.sample(1, learner.generator)
                if self.distance(self.point(row[0].tolist()), target) <= BAND:
                    break
            rows.append(row)
        return torch.cat(rows)


def reward(score: Score, value: float, distance: float) -> float:
    """What a shape is worth: its score as a share of the score's range, less what it pays beyond the band."""
    span = score.high - score.low
    gained = score.gain(value, score.low if score.better == "higher" else score.high)
    share = gained / span if np.isfinite(span) else score.gain(value, 0.0)
    return share - EXCESS * max(0.0, distance - BAND)


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """A controller's learning and its answer, as `prunas.works.trainings.Setting.work` writes it down.

    Its options: those of `prunas.proposers.supernet.enas.ENAS` of that name, the `run` of the super-network, the
    `evaluator` that scores finalists, and the `target`. Stopped, it goes on after its last step.

    Returns:
        `architecture`, its `score`, mean `rewards` of the steps, `evaluations`, images `passed`, what they
        are `worth`, `macs` and `seconds`; None if `stop` said so.
    """
    options, where = spec["options"], device()
    choose_algorithms(where)
    space, recipe, task = space_of_spec(spec), Recipe.from_json(spec["recipe"]), task_of_spec(spec)
    how = evaluator(options["evaluator"]["name"], **options["evaluator"]["options"])
    target, state = Target.from_json(options["target"]), weights(folder.parent / options["run"])
    shapes = Shapes.of(space, how.setting("quanta"))
    seed = stream_seed("controller", spec["seed"], target.value)
    learner = Learner(shapes.table.shape[1], shapes.decisions, options["lr"], seed)
    with side_by_side(where, stop) as (_, stepped):
        torch.set_num_threads(1)
        session = _Session(learner, shapes, target, task.score, folder / "controller.pt", stepped)
        session.resume()
        batches = Batches(space, task, recipe, state, options["images"], where, BATCH)
        for step in range(len(session.facts["rewards"]), options["steps"]):
            if not session.learn(batches, step, options["samples"]):
                return None
            progress({"step": step + 1, "steps": options["steps"]})
        scorer = Scorer(space, task, recipe, how, state, seed=spec["seed"], device=where)
        while len(session.facts["finalists"]) < options["finalists"]:
            if not session.judge_one(scorer):
                return None
    session.path.unlink(missing_ok=True)
    finalists = session.facts.pop("finalists")
    arch, score = max(finalists, key=lambda final: task.score.gain(final[1], 0.0))
    worth = session.facts["passed"] / images_of(how, task, recipe)
    return (
        {"architecture": arch, "score": score, "worth": worth} | session.facts | {"seconds": session.seconds}
    )


class _Session:
    """A controller's learning so far: what outlives its process.

    Attributes:
        facts: Mean reward of every step, the finalists with their scores, and what all that took.
        path: Of the checkpoint.
    """

    def __init__(
        self,
        learner: Learner,
        shapes: Shapes,
        target: Target,
        score: Score,
        path: Path,
        stop: Callable[[], bool],
    ) -> None:
        self._learner, self._shapes, self._target, self._score = learner, shapes, target, score
        self.path, self._stop, self._started, self._before = path, stop, time.perf_counter(), 0.0
        self.facts: dict[str, Any] = {"rewards": [], "finalists": [], **dict.fromkeys(COUNTERS, 0)}

    @property
    def seconds(self) -> float:
        """Spent so far, by all processes."""
        return self._before + time.perf_counter() - self._started

    def resume(self) -> None:
        """Takes up a checkpoint if there is a whole one."""
        with suppress(Unusable):
            if (found := read_checkpoint(self.path, KEY)) is not None:
                tensors, facts = found
                self._learner.restore(tensors)
                self._before = facts.pop("seconds")
                self.facts = facts

    def learn(self, batches: Batches, step: int, samples: int) -> bool:
        """One step of the controller; False if it was stopped, and is taken again."""
        at_start = self._learner.state()
        choices = self._shapes.sample(self._learner, samples, self._target)
        rewards = []
        for row in choices.tolist():
            if self._stop():
                self._save(at_start)
                return False
            arch = self._shapes.point(row)
            distance = self._shapes.distance(arch, self._target)
            rewards.append(reward(self._score, batches.score(arch, step), distance))
        self._learner.learn(choices, torch.tensor(rewards))
        self.facts["rewards"].append(float(np.mean(rewards)))
        self._count(batches)
        if (step + 1) % SAVED_EVERY == 0:
            self._save(self._learner.state())
        return True

    def judge_one(self, scorer: Scorer) -> bool:
        """Samples a shape, brings it to the target and scores it; False if it was stopped before."""
        if self._stop():
            self._save(self._learner.state())
            return False
        row = self._shapes.sample(self._learner, 1, self._target)[0].tolist()
        arch = fitted(self._shapes.space, *self._shapes.parts(row), self._target)
        self.facts["finalists"].append([arch.to_json(), scorer.score(arch)])
        self._count(scorer)
        return True

    def _count(self, scorer: Batches | Scorer) -> None:
        """Adds up what scoring took since the last time: a step that is taken again counts once."""
        for name in COUNTERS:
            self.facts[name] += getattr(scorer, name)
            setattr(scorer, name, 0)

    def _save(self, tensors: Mapping[str, Tensor]) -> None:
        write_checkpoint(self.path, KEY, tensors, self.facts | {"seconds": self.seconds})
