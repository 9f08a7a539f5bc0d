"""AMC: an agent decides layer by layer how much of it stays, and learns from the scores of what comes of it.

References:
    He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018,
    https://arxiv.org/abs/1802.03494, sections 3.1 to 3.3 and algorithm 1. `amc-pocketflow`: Wu et al.,
    PocketFlow, NeurIPS 2018 workshop on compact deep neural networks; documentation of its channel pruner
    with reinforcement learning.

An episode passes once over the dimensions, in the order in which their readers are executed. In each the
agent sees eleven numbers (`prunas.proposers.agents.walk`) and answers the share of channels that stays. The
wall cuts a share that would leave the budget out of reach even with all later dimensions at their least. The
candidate is then a trial like that of any sampler, scored as the search scores its trials, and its score is
the reward of every step. First episodes draw their shares uniformly; then the agent decides, with truncated
normal noise that decays, and takes one update per step after each episode (`prunas.proposers.agents.ddpg`).

PocketFlow's agent has other networks and rates, a discount of 0.9, eight numbers to see, noise on its
parameters in place of its actions, a wider least share, and learns within an episode, once its memory is
full.

Departures:
    - Dimensions are groups and gates: a step decides a group once, for all layers that write or read it, and
      the wall counts them all; in the released code the others of a residual sum are left out, and the budget
      may be exceeded.
    - The wall is exact on whole counts and in any metric. What the agent decided is fitted to the target at
      the end (`prunas.designs.fit`), because all proposers answer the same budgets; the agent learns from the
      shares that were trained. So the reward `error-cost`, the paper's for a guaranteed accuracy, weighs
      errors by a cost that hardly varies.
    - Widths are rounded to the space's step, upwards; the released code rounds to multiples of 8 behind the
      wall.
    - The reward is on the validation split, top-1, and a share of the score's range where it has one.
    - The paper cuts by weights' size and solves for the weights that remain before it scores. Here that is
      the search's choice, as for all samplers; without one, trials are trained.
    - Numbers of episodes are those of the search's trials; a third of them are drawn (the released code: 100
      of 800). PocketFlow's memory holds a quarter of them (50 of 200). A shape that comes again costs nothing
      and counts as no trial.
    - The released code sees ten other numbers; the paper's eleven are used. Their height, width and stride
      come from positions, so that pooling between two layers counts as stride.
    - `lower` is 0.2 as in the released code, or less where a budget needs it; PocketFlow's 1.5 * log10(1 +
      share).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from prunas import designs
from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.agents.ddpg import DDPG, Settings
from prunas.proposers.agents.walk import Walk, usual_lower
from prunas.proposers.baselines.controls import flagged
from prunas.proposers.brief import Brief, Proposal, Trial
from prunas.proposers.registry import check_values
from prunas.proposers.replay import DUPLICATES, Replay, call, one_thread, replayed
from prunas.spaces.space import SearchSpace
from prunas.tasks.score import Score

__all__ = ["AMC", "PocketFlow", "goodness", "truncated_normal", "weighed_error"]

SIGMA, DECAY = 0.5, 0.95
"""Standard deviation of the first noise on actions, and what each episode multiplies it by."""

PARAMETER_NOISE = 1.0, 1e-5
"""Standard deviation of the noise on parameters, in the first and in the last episode."""


@dataclass(kw_only=True)
class AMC:
    """AMC's agent: the best of its trials on the validation split becomes the point.

    Attributes:
        lower: Least share of a dimension that is kept, in (0, 1); None: 0.2, or less where a budget needs it.
        startup: Share of the trials that come before the agent has learnt anything, in (0, 1].
        reward: `score`, or `error-cost`: the error times the logarithm of the MACs, negative.
    """

    lower: float | None = None
    startup: float = 1 / 3
    reward: str = "score"
    _searches: dict[Target, "Episodes"] = field(default_factory=dict, init=False, repr=False, compare=False)

    name: ClassVar[str] = "amc"
    agent: ClassVar[Settings] = Settings()
    sees: ClassVar[Literal["eleven", "eight"]] = "eleven"
    features: ClassVar[int] = 11
    least_error: ClassVar[float] = 0.0
    learns_within: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuses settings that mean nothing."""
        check_values(self.name, **self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @property
    def made_with(self) -> str:
        """Everything that decides what is proposed: settings and versions."""
        return f"{call(type(self).__name__, self._settings)} by {self.agent} of torch {torch.__version__}"

    def propose(self, brief: Brief, trials: Sequence[Trial]) -> list[Proposal]:
        """The next candidates of every target that has trials left."""
        space = brief.space
        if len(space.dimensions) < 2:
            raise InputError(
                f"{self.name} decides one dimension after another, and space {space.name!r} lets "
                f"{len(space.dimensions)} vary; uniform has the only width that meets a target there"
            )
        if self.reward != "score" and not math.isfinite(brief.score.high - brief.score.low):
            raise InputError(
                f"{self.name}: reward {self.reward} wants a score with a worst and a best value, and "
                f"{brief.score.name} has none; use reward = score"
            )
        with one_thread():
            return replayed(self._searches, brief, trials, lambda told, target: Episodes(self, told, target))

    def usual_lower(self, share: float) -> float:
        """`lower` where nobody sets it, by the share of the dense cost that is allowed."""
        return usual_lower(share)

    def walk(self, space: SearchSpace, target: Target) -> Walk:
        """The way through a space under a budget.

        Raises:
            InputError: The budget cannot be met with the least shares that are asked for.
        """
        if self.lower is None:
            share = target.value / space.measure(space.dense, target.metric)
            usual = Walk(space, target, self.usual_lower(min(share, 1.0)), self.name)
            return usual if usual.reachable else Walk(space, target, 0.0, self.name)  # narrow layers round up
        walk = Walk(space, target, self.lower, self.name)
        if not walk.reachable:
            least = space.measure(space.counted(walk.least), target.metric)
            raise InputError(
                f"{self.name}: with lower = {self.lower:g} of every dimension, space {space.name!r} has {least:,} "
                f"{target.metric}, more than {target.label}, {target.value:,}; set a smaller lower or leave it "
                "out, or take tpe, which has none"
            )
        return walk

    def value(self, score: Score, of: float, macs: int) -> float:
        """The reward of a trial.

        Args:
            score: What its score means.
            of: The score.
            macs: Of the candidate, for one image.
        """
        share = goodness(score, of)
        if self.reward == "score":
            return share
        return weighed_error(share, macs, self.least_error)

    def startups(self, trials: int) -> int:
        """How many of so many trials come before the agent has learnt anything."""
        return max(1, round(self.startup * trials))

    def first_actions(self, generator: np.random.Generator, steps: int) -> list[float] | None:
        """The actions of an episode before the agent has learnt; None leaves them to the agent."""
        return list(generator.uniform(size=steps))


@dataclass(kw_only=True)
class PocketFlow(AMC):
    """PocketFlow's agent; attributes as of `AMC`."""

    startup: float = 0.25

    name = "amc-pocketflow"
    agent = Settings((64, 64), True, 1e-3, 1e-3, discount=0.9, follow=0.05)
    sees = "eight"
    features = 8
    least_error = 0.15
    learns_within = True

    def usual_lower(self, share: float) -> float:
        """PocketFlow's 1.5 * log10(1 + share), which reaches 0.45 at the dense cost."""
        return float(1.5 * np.log10(1 + share))

    def first_actions(self, generator: np.random.Generator, steps: int) -> list[float] | None:
        """The agent's, of parameters with noise."""
        return None


class Episodes(Replay):
    """One agent under one budget: what was told to it, and what is open.

    Args:
        method: The proposer, with its settings.
        brief: What is asked.
        target: The budget.
    """

    def __init__(self, method: AMC, brief: Brief, target: Target) -> None:
        super().__init__(brief, target)
        self.method = method
        self.walk = method.walk(brief.space, target)
        self.steps = len(self.walk.order)
        self.startups = method.startups(brief.trials)
        seed = int(np.random.SeedSequence([brief.seed, target.value]).generate_state(1)[0])
        self.agent = DDPG(method.features, method.agent, self.startups * self.steps, seed)
        self.found_points = dict.fromkeys(
            point.architecture for point in brief.found if point.target == target
        )
        self.open: list[Proposal] = []
        self.known: set[Architecture] = set()
        self.worst = math.inf
        self.repeats = 0
        self.begun = 0

    def _waiting(self) -> list[Proposal]:
        return list(self.open)

    def _begin_round(self) -> None:
        """Once all are answered: first those that nothing was learnt for, side by side, then one at a time."""
        if self.open:
            return
        if not self.results and not self.begun:
            self.begun = len(self.found_points)
            drawn = max(0, min(self.startups, self.brief.trials) - len(self.found_points))
            space = self.brief.space
            self.open = [flagged(space, point, self.target) for point in self.found_points]
            self.open += [self._episode() for _ in range(drawn)]
        elif len(self.known) < self.brief.trials and self.repeats < DUPLICATES:
            self.open = [self._episode()]

    def _episode(self) -> Proposal:
        """A candidate: one way through the network, fitted to the target."""
        method, space = self.method, self.brief.space
        generator = np.random.default_rng([self.brief.seed, self.target.value, self.begun])
        first = method.first_actions(generator, self.steps) if self.begun < self.startups else None
        within = method.learns_within
        policy = self.agent.policy(self._parameter_noise() if within else 0.0)
        counts = space.dense_counts.copy()
        for step in range(self.steps):
            if first is not None:
                action = first[step]
            else:
                if within and self.agent.full:
                    self.agent.learn()
                action = self.agent.act(policy, self.walk.states(counts, method.sees)[step])
                if not within:
                    sigma = SIGMA * DECAY ** (self.begun - self.startups)
                    action = truncated_normal(action, sigma, generator.uniform())
            counts[self.walk.order[step]] = self.walk.decided(step, action, counts)
        self.begun += 1
        return flagged(space, designs.fit(space, counts / space.dense_counts, self.target), self.target)

    def _parameter_noise(self) -> float:
        """Exponentially from the first to the last episode."""
        first, last = PARAMETER_NOISE
        return first * math.pow(last / first, min(1.0, self.begun / max(1, self.brief.trials - 1)))

    def _tell(self, trial: Trial) -> None:
        method, space, arch = self.method, self.brief.space, trial.proposal.architecture
        self.results.append(trial)
        self.open = _without_first(self.open, arch)
        self.repeats = self.repeats + 1 if arch in self.known else 0
        self.known.add(arch)
        counts = space.counts(arch)
        if trial.score is not None:
            reward = method.value(self.brief.score, trial.score, space.cost(arch).macs)
            self.worst = min(reward, self.worst)
        else:
            reward = self.worst if math.isfinite(self.worst) else 0.0
        self.agent.remember(self.walk.states(counts, method.sees), self.walk.actions(counts), reward)
        if not method.learns_within and len(self.results) > self.startups:
            for _ in range(self.steps):
                self.agent.learn()


def _without_first(proposals: Sequence[Proposal], arch: Architecture) -> list[Proposal]:
    """Proposals without the first of a shape; all of them if there is none."""
    at = next((i for i, proposal in enumerate(proposals) if proposal.architecture == arch), len(proposals))
    return [*proposals[:at], *proposals[at + 1 :]]


def truncated_normal(mean: float, sigma: float, uniform: float) -> float:
    """A draw of the normal distribution cut to [0, 1].

    Args:
        mean: Of the distribution before it is cut, in [0, 1].
        sigma: Its standard deviation, above 0.
        uniform: What is drawn, in [0, 1): the share of the distribution below the result.
    """
    low, high = ndtr((0 - mean) / sigma), ndtr((1 - mean) / sigma)
    return float(np.clip(mean + sigma * ndtri(low + uniform * (high - low)), 0.0, 1.0))


def goodness(score: Score, value: float) -> float:
    """A score as a share of its range, 1 the best; as it is, larger ones better, where the range is open.

    Args:
        score: What it means.
        value: The score.
    """
    if not math.isfinite(score.high - score.low):
        return score.gain(value, 0.0)
    worst = score.low if score.better == "higher" else score.high
    return score.gain(value, worst) / (score.high - score.low)


def weighed_error(share: float, macs: int, least: float = 0.0) -> float:
    """The error times the logarithm of the cost, negative (equation 3 of AMC).

    Args:
        share: Of the score's range that was reached.
        macs: Multiply-accumulates for one image.
        least: Errors below this count as so large; PocketFlow's 0.15.
    """
    return -max(least, 1 - share) * math.log(macs)
