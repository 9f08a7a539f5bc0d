"""Deep deterministic policy gradient with one action, in [0, 1].

References:
    Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016,
    https://arxiv.org/abs/1509.02971; with the reward baseline of He et al., AMC, ECCV 2018,
    https://arxiv.org/abs/1802.03494, equation 2. Parameter noise: Plappert et al., Parameter Space Noise for
    Exploration, ICLR 2018, https://arxiv.org/abs/1706.01905.

Everything is drawn from the agent's seed and computed by one thread, so that the same calls give the same
agent.
"""

import copy
from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import nn

__all__ = ["DDPG", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How an agent learns; the defaults are AMC's.

    Attributes:
        hidden: Units of the two hidden layers of actor and critic.
        normalised: Whether layer norms follow them.
        actor_lr: Learning rate of the actor (Adam).
        critic_lr: Learning rate of the critic (Adam).
        discount: Of the value of the next state, in [0, 1].
        tau: Share by which the target networks follow, in (0, 1].
        batch: Transitions of an update.
        follow: Share by which the baseline follows the mean reward of every batch, in [0, 1].
    """

    hidden: tuple[int, int] = (300, 300)
    normalised: bool = False
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    discount: float = 1.0
    tau: float = 0.01
    batch: int = 64
    follow: float = 0.5


class DDPG:
    """An actor, a critic, their slow copies, and what they remember.

    Args:
        features: Numbers of a state.
        settings: How it learns.
        capacity: Transitions that are remembered; the oldest go first.
        seed: Of initial weights, of the batches and of noise.

    Attributes:
        baseline: Moving average of the mean rewards of batches, which rewards are taken relative to.
        remembered: Transitions in memory.
    """

    def __init__(self, features: int, settings: Settings, capacity: int, seed: int) -> None:
        self.settings, self.capacity = settings, capacity
        self.baseline: float | None = None
        self.remembered, self._next = 0, 0
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = nn.Sequential(
                *_hidden(features, settings), nn.Linear(settings.hidden[1], 1), nn.Sigmoid()
            )
            self.critic = nn.Sequential(*_hidden(features + 1, settings), nn.Linear(settings.hidden[1], 1))
        self._slow_actor, self._slow_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self._optimisers = (
            torch.optim.Adam(self.actor.parameters(), settings.actor_lr),
            torch.optim.Adam(self.critic.parameters(), settings.critic_lr),
        )
        states = torch.zeros(capacity, features)
        self._memory = (
            states,
            torch.zeros(capacity, 1),
            torch.zeros(capacity, 1),
            states.clone(),
            states[:, :1] > 0,
        )

    @property
    def full(self) -> bool:
        """Whether the memory is."""
        return self.remembered == self.capacity

    @torch.no_grad()
    def policy(self, noise: float = 0.0) -> nn.Module:
        """A copy of the actor, with normal noise of this standard deviation added to all its parameters."""
        actor = copy.deepcopy(self.actor)
        if noise:
            for parameter in actor.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=self._generator), alpha=noise)
        return actor

    @staticmethod
    @torch.no_grad()
    def act(policy: nn.Module, state: npt.ArrayLike) -> float:
        """The action of a policy in a state, in [0, 1]."""
        return float(policy(torch.as_tensor(state, dtype=torch.float32)[None]))

    def remember(self, states: npt.ArrayLike, actions: npt.ArrayLike, reward: float) -> None:
        """Takes the transitions of one episode into memory, each with the episode's reward.

        Args:
            states: Shape (steps, features).
            actions: Shape (steps,), in [0, 1].
            reward: Of the episode.
        """
        seen, acted = (torch.as_tensor(values, dtype=torch.float32) for values in (states, actions))
        after = torch.cat((seen[1:], torch.zeros_like(seen[:1])))
        last = torch.arange(len(seen)) == len(seen) - 1
        places = (self._next + torch.arange(len(seen))) % self.capacity
        rewards = torch.full((len(seen), 1), reward)
        for kept, values in zip(
            self._memory, (seen, acted[:, None], rewards, after, last[:, None]), strict=True
        ):
            kept[places] = values
        self._next = (self._next + len(seen)) % self.capacity
        self.remembered = min(self.remembered + len(seen), self.capacity)

    def learn(self) -> None:
        """One update of all four networks by a batch drawn from memory, with replacement."""
        how = self.settings
        places = torch.randint(self.remembered, (how.batch,), generator=self._generator)
        states, actions, rewards, after, last = (kept[places] for kept in self._memory)
        mean = float(rewards.mean())
        self.baseline = mean if self.baseline is None else self.baseline + how.follow * (mean - self.baseline)
        with torch.no_grad():
            ahead = self._slow_critic(torch.cat((after, self._slow_actor(after)), 1))
            value = rewards - self.baseline + how.discount * ahead.masked_fill(last, 0.0)
        actor_step, critic_step = self._optimisers
        critic_step.zero_grad()
        nn.functional.mse_loss(self.critic(torch.cat((states, actions), 1)), value).backward()  # type: ignore[no-untyped-call]
        critic_step.step()
        actor_step.zero_grad()
        for parameter in self.critic.parameters():
            parameter.requires_grad_(False)
        (-self.critic(torch.cat((states, self.actor(states)), 1)).mean()).backward()
        for parameter in self.critic.parameters():
            parameter.requires_grad_(True)
        actor_step.step()
        with torch.no_grad():
            for slow, fast in ((self._slow_actor, self.actor), (self._slow_critic, self.critic)):
                torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), how.tau)


def _hidden(features: int, settings: Settings) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for inputs, outputs in zip((features, settings.hidden[0]), settings.hidden, strict=True):
        modules.append(nn.Linear(inputs, outputs))
        if settings.normalised:
            modules.append(nn.LayerNorm(outputs))
        modules.append(nn.ReLU())
    return modules
