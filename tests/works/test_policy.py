"""How policies of branches are learnt: the paper's formulas, a planted answer, and a kill at any step."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunas.works.policy import _learn, _Learning, bounded, free_branches, rewards, surrogate

OPTIONS = {"epochs": 80, "batch": 64, "penalty": 1.0, "alpha": 0.8, "beta": 0.1, "images": 256}


def test_the_reward_is_that_of_the_paper() -> None:
    """17 of 54 blocks and a right answer, CIFAR-10's ResNet-110; a wrong answer costs the penalty."""
    used = (torch.arange(54) < 17).double()[None].repeat(2, 1)
    worth = rewards(used, torch.tensor([True, False]), 1.0)
    assert worth.tolist() == pytest.approx([0.90089, -1.0], abs=1e-5)


def test_probabilities_are_bounded_as_in_the_paper() -> None:
    keep = torch.tensor([[0.9]], dtype=torch.float64, requires_grad=True)
    likely = bounded(keep, 0.8)
    assert likely.item() == pytest.approx(0.74)
    likely.log().sum().backward()  # type: ignore[no-untyped-call]
    assert keep.grad is not None
    assert keep.grad.item() == pytest.approx(0.81081, abs=1e-5)


def gradient(keep: Tensor, drawn: Tensor, advantage: Tensor, free: int, beta: float) -> Tensor:
    keep = keep.clone().requires_grad_(True)
    surrogate(keep, drawn, advantage, free, 0.8, beta).backward()  # type: ignore[no-untyped-call]
    assert keep.grad is not None
    return keep.grad


def test_branches_that_are_not_free_yet_have_no_gradient() -> None:
    keep = torch.full((3, 4), 0.6, dtype=torch.float64)
    slope = gradient(keep, torch.ones_like(keep), torch.tensor([1.0, -1.0, 0.5]).double(), 2, 0.1)
    assert slope[:, :2].tolist() == [[0.0, 0.0]] * 3
    assert (slope[:, 2:] != 0).all()


def test_what_is_drawn_as_it_would_be_chosen_teaches_nothing_but_entropy() -> None:
    keep = torch.tensor([[0.9, 0.2]], dtype=torch.float64)
    nothing = torch.zeros(1, dtype=torch.float64)
    assert gradient(keep, torch.tensor([[1.0, 0.0]]).double(), nothing, 2, 0.0).tolist() == [[0.0, 0.0]]
    likely = 0.74
    slope = gradient(keep, torch.tensor([[1.0, 0.0]]).double(), nothing, 2, 0.1)
    assert slope[0, 0].item() == pytest.approx(0.1 * 0.6 * (math.log(likely) + 1))  # of beta * p ln p


def test_the_gradient_is_that_of_the_expected_reward_of_a_bandit() -> None:
    """All four choices of two branches, weighed by their probabilities; whatever the baseline."""
    keep = torch.tensor([0.7, 0.4], dtype=torch.float64)
    choices = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64)
    worth = torch.tensor([-1.0, 0.75, 0.3, -0.2], dtype=torch.float64)

    def probabilities(keep: Tensor) -> Tensor:
        likely = bounded(keep, 0.8)
        return torch.where(choices > 0, likely, 1 - likely).prod(1)

    known = keep.clone().requires_grad_(True)
    (-(probabilities(known) * worth).sum()).backward()  # type: ignore[no-untyped-call]
    for baseline in (0.0, 0.6):
        slopes = [
            gradient(keep[None], choice[None], (value - baseline)[None], 2, 0.0)[0]
            for choice, value in zip(choices, worth, strict=True)
        ]
        expected = (probabilities(keep)[:, None] * torch.stack(slopes)).sum(0)
        torch.testing.assert_close(expected, known.grad)


def test_the_curriculum_frees_the_last_branches_first_in_tenths() -> None:
    assert [free_branches(epoch, 9) for epoch in (0, 1, 8, 9)] == [1, 2, 9, 9]
    assert [free_branches(epoch, 54) for epoch in (0, 1, 8, 9)] == [6, 12, 54, 54]


class Adding(nn.Module):
    """A residual block that adds its input so many times."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.branch = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.branch.weight, times)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Doubling(nn.Module):
    """Answers the sign of an image, but a third class unless both blocks that double it are there."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Adding(0.0), Adding(1.0), Adding(0.0), Adding(1.0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(x).mean((1, 2, 3))
        return torch.stack((y, -y, torch.full_like(y, 3.0)), 1)


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _Learning]:
    monkeypatch.setattr(
        torch.backends.mkldnn, "enabled", False
    )  # kernels that do not depend on what ran before

    def make(**changes: Any) -> _Learning:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(2, (128,), generator=generator)
        images = 1 - 2.0 * labels[:, None, None, None] + 0.1 * torch.randn(128, 1, 8, 8, generator=generator)
        branches = [f"blocks.{i}.branch" for i in range(4)]
        return _Learning(Doubling().eval(), branches, images, labels, {**OPTIONS, **changes}, 0)

    return make


def test_blocks_that_do_nothing_are_dropped_and_nobody_drops_them_who_has_not_learnt(
    learning: Callable[..., _Learning], tmp_path: Path
) -> None:
    learner = learning()
    untaught = np.array(learner.learnt()["means"])
    assert abs(untaught[[1, 3]].min() - untaught[[0, 2]].max()) < 0.3
    assert _learn(learner, tmp_path / "checkpoint.pt", "key", lambda message: None, lambda: False) is not None
    learnt = learner.learnt()
    means = np.array(learnt["means"])
    assert means[[1, 3]].min() > means[[0, 2]].max() + 0.3
    assert learnt["kept"] == [0.0, 1.0, 0.0, 1.0]
    assert (learnt["policies"], learnt["commonest"], learnt["branches"], learnt["spread"]) == (
        1,
        1.0,
        2.0,
        0.0,
    )
    assert learnt["right"] == 1.0


class Killed(Exception):
    pass


def test_killed_at_any_step_it_learns_the_same(
    learning: Callable[..., _Learning], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = learning(epochs=6)
    assert _learn(undisturbed, tmp_path / "a.pt", "key", lambda message: None, lambda: False) is not None
    monkeypatch.setenv("PRUNAS_CHECKPOINT_SECONDS", "0.000001")
    path, warned = tmp_path / "b.pt", []
    for when, gently in zip(np.random.default_rng(3).integers(1, 4, 3), (False, True, False), strict=True):
        learner, steps = learning(epochs=6), itertools.count(1)

        def stop(when: int = int(when), gently: bool = gently, steps: Any = steps) -> bool:
            if next(steps) <= when:
                return False
            if gently:
                return True
            raise Killed

        if gently:
            assert _learn(learner, path, "key", warned.append, stop) is None
        else:
            with pytest.raises(Killed):
                _learn(learner, path, "key", warned.append, stop)
    learner = learning(epochs=6)
    assert _learn(learner, path, "key", lambda message: None, lambda: False) is not None
    for name, tensor in learner.state().items():
        assert torch.equal(tensor, undisturbed.state()[name]), name
    assert learner.learnt() == undisturbed.learnt()
    assert not path.exists()
    assert not any("warning" in message for message in warned)
