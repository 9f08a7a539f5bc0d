"""Small spaces of three families, and dense networks that nobody trained."""

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.networks.densenet import DenseNet
from prunas.proposers.brief import Brief, DenseNetwork, Penalty, Proposal, Proposer, Trial
from prunas.proposers.supernet.autoslim import steps
from prunas.proposers.supernet.quanta import fitted, quantised
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace


class Stemmed(nn.Module):
    """A stream with a norm of its own, read by two pre-activation blocks and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, bias=False)
        self.bn0 = nn.BatchNorm2d(12)
        for i in (1, 2):
            self.add_module(f"bn{i}", nn.BatchNorm2d(12))
            self.add_module(f"narrow{i}", nn.Conv2d(12, 8, 3, padding=1, bias=False))
            self.add_module(f"inner{i}", nn.BatchNorm2d(8))
            self.add_module(f"widen{i}", nn.Conv2d(8, 12, 3, padding=1, bias=False))
        self.bn = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn0(self.stem(x))
        x = x + self.widen1(self.inner1(self.narrow1(self.bn1(x).relu())).relu())
        x = x + self.widen2(self.inner2(self.narrow2(self.bn2(x).relu())).relu())
        return self.fc(self.bn(x).relu().mean((2, 3)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread_in_numpy() -> Iterator[None]:
    with threadpool_limits(1):  # small matrices: threads only wait for each other
        yield


@pytest.fixture(scope="session")
def spaces() -> dict[str, SearchSpace]:
    """VGG; PreResNet with inner widths and gates; DenseNet with gates only; two networks where all varies."""
    preresnet = load_space("preresnet20-c10")
    return {
        "vgg": load_space("vgg11-digits"),
        "preresnet": preresnet,
        "densenet": SearchSpace.from_model(
            partial(DenseNet, 13, growth=6), (3, 16, 16), name="densenet13", groups=(), gates=("*",)
        ),
        "blocks": dataclasses.replace(preresnet, groups=(), gates=(), blocks=("*",)),
        "stemmed": SearchSpace.from_model(Stemmed, (3, 10, 10), name="stemmed", gates=("*",)),
        "streams": dataclasses.replace(
            preresnet, groups=("*",), gates=("*",), exclude=("*.shortcut", "conv1")
        ),
    }


def greedy(space: SearchSpace, options: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """The greedy pass over a super-network whose shapes have made-up scores."""
    table = quantised(space, 8)
    target = Target(**options["target"])
    return {"path": list(steps(space, table, target, made_up, options["by"]))}


def made_up(counts: npt.NDArray[np.int64]) -> float:
    """A score that depends on nothing but the shape: wide layers are good, some more than others."""
    return float((np.sqrt(counts) * (1 + np.arange(len(counts)) % 3)).sum())


def controller(space: SearchSpace, options: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """The answer of a controller that has learnt nothing."""
    target = Target(**options["target"])
    table = quantised(space, 8)
    drawn = np.random.default_rng([seed, target.value]).integers(8, size=len(table))
    arch = fitted(space, table[np.arange(len(table)), drawn], (), target)
    return {"architecture": arch.to_json()}


def evaluate(space: SearchSpace, options: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """Scores that depend on nothing but the point."""
    digest = Architecture.from_json(options["architecture"]).digest
    return {"score": 50.0 + int(digest, 16) % 40}


def policy(space: SearchSpace, options: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """A policy that keeps early branches more often, and the same ones for every image."""
    return {"means": [1 - i / 10 for i, _ in enumerate(options["branches"])], "commonest": 1.0}


WORKS = {
    "supernet/greedy": greedy,
    "supernet/controller": controller,
    "evaluate": evaluate,
    "blockdrop/policy": policy,
}


@pytest.fixture
def weights() -> Callable[..., dict[str, Tensor]]:
    """Made-up weights of a dense network."""

    def make(space: SearchSpace, seed: int = 0) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = {name: t.detach().clone() for name, t in space.build().state_dict().items()}
            for norm in [
                name.removesuffix(".running_mean") for name in state if name.endswith("running_mean")
            ]:
                state[f"{norm}.weight"].uniform_(-1, 1)
                state[f"{norm}.bias"].uniform_(-0.1, 0.1)
        return state

    return make


@pytest.fixture
def brief() -> Callable[..., Brief]:
    """A brief whose dense training is finished and left the given weights; its images are noise."""

    def make(space: SearchSpace, state: Mapping[str, Tensor] | None = None, **changes: Any) -> Brief:
        def dense(penalty: Penalty | None) -> DenseNetwork:
            assert state is not None
            branches = penalty.options.get("branches", ()) if penalty else ()
            record = {f"until {path}": 1 - i / 10 for i, path in enumerate(branches)}
            record |= {f"scale {path}": float(i == 0) for i, path in enumerate(branches)}
            drawn = random.Random(penalty.options["seed"] if penalty and "seed" in penalty.options else 0)
            for path, channels in penalty.options.get("norms", ()) if penalty else ():
                for c in range(channels):
                    record |= {f"{kind} {path} {c}": drawn.uniform(0.1, 0.9) for kind in ("gate", "activity")}
            return DenseNetwork("run-of-the-dense-network", lambda: state, record)

        def calibration(images: int) -> list[tuple[Tensor, Tensor]]:
            generator = torch.Generator().manual_seed(1)  # at most 24: noise has little to tell
            drawn = torch.randn(min(images, 24), *space.survey.input, generator=generator)
            return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in drawn.split(16)]

        def initial() -> dict[str, Tensor]:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return {name: t.detach() for name, t in space.build().state_dict().items()}

        def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(net(batch[0]), batch[1])

        def work(name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
            return WORKS[name](space, options, told["seed"])

        told = {"space": space, "targets": (), "seed": 0, "lr_sum": 100.0}
        told |= {"dense": dense, "loss": loss, "work": work} | changes
        told["supernet"] = lambda options: DenseNetwork("run-of-the-super-network", dict, {})
        return Brief(**told | {"calibration": calibration, "initial": initial} | changes)

    return make


@pytest.fixture
def ended() -> Callable[..., tuple[list[Proposal], list[Trial]]]:
    """Asks until nothing is proposed, answering with an accuracy that only depends on the point."""

    def ask(
        proposer: Proposer, brief: Brief, accuracy: Callable[[Proposal], float], trials: Sequence[Trial] = ()
    ) -> tuple[list[Proposal], list[Trial]]:
        proposals, done = [], list(trials)
        while asked := proposer.propose(brief, done):
            proposals += asked
            done += [Trial(proposal, accuracy(proposal)) for proposal in asked]
            assert len(done) < 500
        return proposals, done

    return ask


@pytest.fixture
def accuracy() -> Callable[[Proposal], float]:
    """A made-up accuracy that depends on nothing but the point."""
    return lambda proposal: 50.0 + int(proposal.architecture.digest, 16) % 40
