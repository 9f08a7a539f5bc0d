"""The work `blockdrop/policy`: a small network learns which branches a trained network needs for an image.

Reference:
    Wu et al., BlockDrop: Dynamic Inference Paths in Residual Networks, CVPR 2018,
    https://arxiv.org/abs/1711.08393, sections 3.2 to 3.4, equations 2 to 7, the curriculum included.

For an image the policy network gives every removable branch a probability of staying. What is drawn of it is
compared with what it would do without chance: the trained network is run with either, and the difference of
the rewards weighs the gradient of what was drawn (REINFORCE with a self-critical baseline). At first only the
last branches may be dropped, then more of them.

Departures:
    - The trained network stays as it is: the joint stage of the paper adapts it to the policy, and a static
      depth keeps nothing of that. So the penalty of a wrong answer is that of the curriculum.
    - The curriculum frees a tenth of the branches per epoch; the paper one.
    - Images are not augmented, and as few as the options say.
    - The policy network is the paper's for CIFAR, whatever the images; of larger ones than 64 it sees block
      means.

All that is drawn hangs on the seed and the number of the step, so that a training that was killed continues
from its checkpoint to the same end.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prunas.data.dataset import stream_seed
from prunas.errors import InputError
from prunas.files import digest
from prunas.networks.resnet import ResNet
from prunas.recipe import Recipe
from prunas.tasks.classification import Classification
from prunas.training.checkpoint import Unusable, read_checkpoint, write_checkpoint
from prunas.works import processor
from prunas.works.runtime import (
    calibration,
    checkpoint_seconds,
    choose_algorithms,
    device,
    network,
    side_by_side,
    space_of_spec,
    task_of_spec,
)

__all__ = ["bounded", "free_branches", "rewards", "run", "surrogate"]

LR = 1e-3
"""Of Adam."""

LARGEST = 64
"""Height or width from which the policy network sees means of squares of pixels."""


def bounded(keep: Tensor, alpha: float) -> Tensor:
    """Probabilities that what is drawn keeps a branch: those of the policy, pulled towards 1/2.

    Args:
        keep: The policy's probabilities, in [0, 1].
        alpha: In (0.5, 1]; 1 leaves them as they are.
    """
    return alpha * keep + (1 - alpha) * (1 - keep)


def rewards(used: Tensor, right: Tensor, penalty: float) -> Tensor:
    """What each image's choice is worth (equation 2), shape (images,).

    Args:
        used: 1 where a branch is kept, shape (images, branches).
        right: Whether the network answered right, shape (images,).
        penalty: What a wrong answer costs.
    """
    return torch.where(right, 1 - used.mean(1) ** 2, torch.full_like(used[:, 0], -penalty))


def free_branches(epoch: int, branches: int) -> int:
    """How many of the last branches may be dropped in an epoch, counted from 0: a tenth of all more each time."""
    return min(branches, (1 + epoch) * math.ceil(branches / 10))


def surrogate(keep: Tensor, drawn: Tensor, advantage: Tensor, free: int, alpha: float, beta: float) -> Tensor:
    """The loss whose gradient is that of the expected reward, and of the entropy (equations 4, 6 and 7).

    Args:
        keep: The policy's probabilities, shape (images, branches).
        drawn: What was drawn of them, 0 or 1, likewise.
        advantage: Reward of what was drawn less that without chance, shape (images,).
        free: So many of the last branches were decided on; the others have no part in it.
        alpha: See `bounded`.
        beta: Weight of the entropy.
    """
    if not free:
        return keep.sum() * 0.0
    likely = bounded(keep, alpha)[:, -free:]
    chosen = drawn[:, -free:]
    said = torch.log(torch.where(chosen > 0, likely, 1 - likely)).sum(1)
    entropy = -(likely * likely.log()).sum(1)
    return (-advantage * said - beta * entropy).mean()


class PolicyNetwork(nn.Module):
    """A ResNet with one basic block a stage; one logit a branch.

    Args:
        branches: How many there are.
        channels: Of the images.
    """

    def __init__(self, branches: int, channels: int) -> None:
        super().__init__()
        self.net = ResNet(8, classes=branches, channels=channels)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (images, branches) for images (images, channels, height, width)."""
        factor = -(-max(images.shape[2:]) // LARGEST)
        seen = F.avg_pool2d(images, factor, ceil_mode=True) if factor > 1 else images
        return torch.sigmoid(self.net(seen))


class _Learning:
    """The policy network's training on images that are kept.

    Args:
        net: The trained network, on the device of the images.
        branches: Module path of the last layer of each branch, in order.
        images: On the device.
        labels: Likewise.
        options: Of the work.
        seed: Of all that is drawn.
    """

    def __init__(
        self,
        net: nn.Module,
        branches: Sequence[str],
        images: Tensor,
        labels: Tensor,
        options: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.net, self.images, self.labels, self.options, self.seed = net, images, labels, options, seed
        self.branches = len(branches)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed("policy", seed))
            self.policy = PolicyNetwork(self.branches, images.shape[1]).to(images.device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), LR)
        self.used = torch.ones(1, self.branches, device=images.device)
        for i, path in enumerate(branches):
            net.get_submodule(path).register_forward_hook(
                lambda module, inputs, output, i=i: (
                    output * self.used[:, i].view(-1, *[1] * (output.ndim - 1))
                )
            )
        self.steps_per_epoch = -(-len(images) // options["batch"])
        self.steps = self.steps_per_epoch * options["epochs"]
        self.done = 0

    @torch.no_grad()
    def right(self, images: Tensor, labels: Tensor, used: Tensor) -> Tensor:
        """Whether the network with these branches answers right, shape (images,)."""
        self.used = used
        answers: Tensor = self.net(images).argmax(1) == labels
        return answers

    def step(self) -> None:
        """One update, by the images that are due."""
        options, (epoch, part) = self.options, divmod(self.done, self.steps_per_epoch)
        order = torch.randperm(len(self.images), generator=self._generator("order", epoch))
        places = order.tensor_split(self.steps_per_epoch)[part].to(self.images.device)
        images, labels = self.images[places], self.labels[places]
        keep = self.policy.train()(images)
        chance = torch.rand(keep.shape, generator=self._generator("draw", self.done)).to(keep.device)
        drawn = (chance < bounded(keep, options["alpha"])).float().detach()
        greedy = (keep >= 0.5).float()
        free = free_branches(epoch, self.branches)
        for used in (drawn, greedy):
            used[:, : self.branches - free] = 1.0
        both = self.right(images.repeat(2, 1, 1, 1), labels.repeat(2), torch.cat((drawn, greedy)))
        by_chance, without = both.chunk(2)
        advantage = rewards(drawn, by_chance, options["penalty"]) - rewards(
            greedy, without, options["penalty"]
        )
        self.optimiser.zero_grad()
        surrogate(keep, drawn, advantage, free, options["alpha"], options["beta"]).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.done += 1

    def _generator(self, *parts: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed("policy", self.seed, *parts))

    @torch.no_grad()
    def learnt(self) -> dict[str, Any]:
        """What the policies are like: see `run`."""
        batch, self.policy = self.options["batch"], self.policy.eval()
        keep = torch.cat([self.policy(images) for images in torch.split(self.images, batch)])
        used = (keep >= 0.5).float()
        parts = zip(*(torch.split(of, batch) for of in (self.images, self.labels, used)), strict=True)
        right = torch.cat([self.right(*part) for part in parts])
        policies, counts = np.unique(used.cpu().numpy(), axis=0, return_counts=True)
        number = used.sum(1).double()
        return {
            "means": keep.double().mean(0).tolist(),
            "kept": used.double().mean(0).tolist(),
            "policies": len(policies),
            "commonest": float(counts.max() / len(used)),
            "branches": float(number.mean()),
            "spread": float(number.std(correction=0)),
            "right": float(right.double().mean()),
        }

    def state(self) -> dict[str, Tensor]:
        """Everything that changes, by name: live tensors of the policy, and the optimiser's."""
        tensors = {f"policy.{name}": tensor for name, tensor in self.policy.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        return tensors

    def resume(self, tensors: Mapping[str, Tensor], done: int) -> None:
        """Takes up what `state` gave after so many steps."""
        policy: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            holder, _, rest = name.partition(".")
            if holder == "policy":
                policy[rest] = tensor
            else:
                index, _, moment = rest.partition(".")
                moments.setdefault(int(index), {})[moment] = tensor
        self.policy.load_state_dict(policy)
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.done = done


def run(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Learns policies for the trained network of a run, as `prunas.proposers.agents.blockdrop` asks for them.

    Its options: `inherit` as of a training; `branches`: module path of the last layer of each branch;
    `images` of the training split at most, `epochs`, `batch`; `penalty` of a wrong answer; `alpha` and `beta`
    as of `surrogate`.

    Returns:
        Of each branch the mean probability (`means`) and the share of images (`kept`) with which it stays;
        how many `policies` differ, the share of images that the `commonest` serves, mean and standard
        deviation (`spread`) of the number of `branches` they keep, the share of images answered `right` with
        them; `macs` and `seconds`. None if `stop` said so.

    Raises:
        InputError: The task is not classification.
    """
    where, options, recipe = device(), spec["options"], Recipe.from_json(spec["recipe"])
    choose_algorithms(where)
    space, task = space_of_spec(spec), task_of_spec(spec)
    if not isinstance(task, Classification):
        raise InputError(
            f"task {task.name!r} has no answers that are right or wrong; a policy learns from those"
        )
    dense = space.cost(space.dense).macs
    onednn = where.type != "cpu" or processor.onednn_pays(space, space.dense, recipe)
    with side_by_side(where, stop) as (_, stepped), processor.convolutions(onednn):
        torch.set_num_threads(processor.threads(dense * options["batch"]))
        net = network(spec["seed"], space, space.dense, options["inherit"], task, recipe.images, folder)
        net.to(where).eval().requires_grad_(False)
        batches = [*calibration(task, options["images"], spec["seed"], recipe.images)]
        images, labels = (torch.cat(parts).to(where) for parts in zip(*batches, strict=True))
        learning = _Learning(net, options["branches"], images, labels, options, spec["seed"])
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            learning.policy.eval()(images[:1])
        seconds = _learn(
            learning, folder / "checkpoint.pt", digest([options, spec["seed"]]), progress, stepped
        )
        if seconds is None:
            return None
        started = time.perf_counter()
        learnt = learning.learnt()
    policy = counter.get_total_flops() // 2
    macs = len(images) * (options["epochs"] * (2 * dense + 3 * policy) + dense + policy)
    return {**learnt, "macs": macs, "seconds": seconds + time.perf_counter() - started}


def _learn(
    learning: _Learning,
    checkpoint: Path,
    key: str,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> float | None:
    """Takes all steps, from a checkpoint if there is one: the seconds they took; None if `stop` said so."""
    spent = 0.0
    try:
        found = read_checkpoint(checkpoint, key)
    except Unusable as problem:
        found = None
        progress({"warning": f"{problem}; starting over"})
    if found is not None:
        tensors, facts = found
        learning.resume(tensors, facts["done"])
        spent = facts["seconds"]
    started = saved = time.monotonic()

    def save() -> None:
        facts = {"done": learning.done, "seconds": spent + time.monotonic() - started}
        write_checkpoint(checkpoint, key, learning.state(), facts)

    while learning.done < learning.steps:
        learning.step()
        if learning.done % learning.steps_per_epoch == 0:
            epochs = learning.done // learning.steps_per_epoch
            progress({"step": epochs, "steps": learning.options["epochs"]})
        if stop():
            save()
            return None
        if time.monotonic() - saved >= checkpoint_seconds():
            save()
            saved = time.monotonic()
    checkpoint.unlink(missing_ok=True)
    return spent + time.monotonic() - started
