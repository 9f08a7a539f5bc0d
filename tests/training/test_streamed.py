"""Training on streamed data: resumed within an epoch, replayed, and with targets that are no class ids."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunas.data import arrays, datasets
from prunas.data.dataset import DataSet
from prunas.recipe import recipe
from prunas.tasks.base import DataSetTask
from prunas.tasks.score import Score
from prunas.training.capture import StepCache, eager
from prunas.training.loop import Preempted, train
from tests.data.test_own_data import Listed, jitter
from tests.training.tape import TapeRecorder

RECIPE = recipe("tiny").replace(batch=8, lr=0.05)
DRAW = np.random.default_rng(3)
IMAGES = DRAW.integers(0, 256, (40, 1, 6, 6), np.uint8)
BOXES = {
    "boxes": np.tile(np.array([[1.0, 1, 3, 4]], np.float32), (40, 1, 1))
    + DRAW.random((40, 1, 1), np.float32),
    "labels": np.zeros((40, 1), np.int64),
}


class Corners(DataSetTask):
    """Learns the first box of an image, or any values."""

    name = "corners"
    score = Score(name="MAE", better="lower", low=0.0)
    statistics = 2

    def _errors(self, net: Any, batch: Any) -> torch.Tensor:
        x, y = batch
        wanted = y["boxes"][:, 0] if isinstance(y, dict) else y
        return (net(x) - wanted).abs().mean(1)

    def loss(self, net: Any, batch: Any) -> torch.Tensor:
        return self._errors(net, batch).mean()

    def totals(self, net: Any, batch: Any) -> torch.Tensor:
        errors = self._errors(net, batch).sum()
        return torch.stack((errors, torch.full_like(errors, len(batch[0]))))

    def result(self, totals: torch.Tensor) -> float:
        errors, samples = totals.tolist()
        return float(errors / samples)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 9), nn.ReLU(), nn.Linear(9, 4))


def augmented(workers: int) -> DataSet:
    def floats(index: int, x: Any, y: Any) -> Any:
        return jitter(index, x, y)

    plain = Listed(IMAGES.astype(np.float32), BOXES)
    return datasets(
        Listed(IMAGES.astype(np.float32), BOXES, floats), plain=plain, name="boxes", workers=workers
    )


def trained(
    data: DataSet, prepare: Any = eager, **options: Any
) -> tuple[list[float], dict[str, torch.Tensor]]:
    net = network()
    outcome = train(
        net,
        Corners(data),
        RECIPE,
        epochs=3,
        seed=5,
        split="train",
        score="val",
        device=torch.device("cpu"),
        prepare=prepare,
        **options,
    )
    return [*outcome.losses, outcome.score or 0.0], net.state_dict()


def same(one: Any, other: Any) -> bool:
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_workers_change_no_result() -> None:
    alone = trained(augmented(0))
    assert same(alone, trained(augmented(2)))
    assert alone[0][0] > alone[0][2]


@pytest.mark.parametrize("at", [2, 4, 6])
def test_an_epoch_is_resumed_where_it_was_stopped(tmp_path: Path, at: int) -> None:
    steps = iter(range(1, 100))
    with pytest.raises(Preempted, match=f"after {at} of 12 steps"):
        trained(augmented(1), folder=tmp_path, stop=lambda: next(steps) == at)
    assert same(trained(augmented(2), folder=tmp_path), trained(augmented(0)))


@pytest.mark.parametrize(
    "make",
    [
        partial(augmented, 1),
        lambda: arrays("bytes", (IMAGES, BOXES), resident=False),
        lambda: arrays("bytes", (IMAGES, BOXES)),
        lambda: arrays("values", (IMAGES.astype(np.float32), BOXES["boxes"][:, 0])),
    ],
    ids=["augmented", "streamed bytes", "bytes", "floats"],
)
def test_a_recorded_step_serves_both(make: Callable[[], DataSet]) -> None:
    recorders = []

    def recorder(device: torch.device) -> TapeRecorder:
        recorders.append(TapeRecorder())
        return recorders[-1]

    cache = StepCache(recorder)
    assert same(trained(make(), partial(cache.bench, "corners")), trained(make()))
    assert cache.captures == 2  # a whole batch, and the last of an epoch


def test_bytes_on_the_device_and_streamed_train_alike() -> None:
    held, streamed = (arrays("bytes", (IMAGES, BOXES), resident=resident) for resident in (True, False))
    assert same(trained(held), trained(streamed))
