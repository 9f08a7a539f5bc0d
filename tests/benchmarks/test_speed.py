"""The speed benchmark compares like with like, and its ratios are ratios."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.speed import floor, official, parts, timing
from prunas.data.resident import resident


def small():
    draw = np.random.default_rng(0)
    return resident(
        "small",
        draw.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
        np.arange(6),
        {"train": np.arange(4), "val": np.arange(4, 5), "test": np.arange(5, 6)},
        peak=255,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        pad=2,
        flip=True,
    )


def test_the_official_loop_sees_images_that_ours_sees():
    data = small()
    feed = data.feed(np.arange(4), 4, device=torch.device("cpu"), augment=True)
    crops = itertools.product(range(5), range(5), range(2))
    draws = torch.tensor([[0, row, column, mirrored] for row, column, mirrored in crops]).T
    torch.manual_seed(0)
    source = official.Images(data)
    for image in range(4):
        draws[0] = image
        ours, labels = feed.gather((draws,))
        for _ in range(5):
            x, y = source[image]
            assert (ours - x).abs().amax((1, 2, 3)).min() < 1e-6
            assert y == labels[0]


def test_ratios_are_taken_within_rounds(monkeypatch):
    # Seconds of wall and processor time of each call: a is as fast as b, but in the second round all is slower.
    seconds = iter([(1.0, 1.0), (0.5, 0.25), (1.0, 2.0), (2.0, 2.0)])

    class Clock:
        def stop(self):
            return next(seconds)

    monkeypatch.setattr(timing, "Clock", Clock)
    order = []
    variants = {name: lambda name=name: order.append(name) or 10.0 for name in "ab"}
    a, b = timing.in_turns(variants, base="a", rounds=2, until=float("inf"))
    assert "".join(order) == "ab" + "ab" + "ba"  # warm, then rounds that begin with another one each time
    assert a["wall"]["ratio"] == {"best": 1.0, "median": 1.0, "range": [1.0, 1.0]}
    assert b["wall"] == {"per_second": 20.0, "ratio": {"best": 2.0, "median": 2.0, "range": [2.0, 2.0]}}
    assert b["cpu"] == {"per_second": 40.0, "ratio": {"best": 4.0, "median": 2.5, "range": [1.0, 4.0]}}


def test_rounds_end_with_the_time_but_not_before_there_are_some():
    rows = timing.in_turns({"a": lambda: 1.0}, base="a", rounds=50, until=0.0, least=3)
    assert rows[0]["rounds"] == 3


def test_a_batch_size_is_searched_or_not_but_never_both(monkeypatch):
    """cuDNN keeps what it has searched, so a second setting must meet shapes of its own."""
    met = set()

    class Runner:
        def __init__(self, stack, make, data, recipe, device, captured):
            self.batch = recipe.batch

        def run(self, steps):
            met.add((self.batch, torch.backends.cudnn.benchmark))

    monkeypatch.setattr(parts, "Runner", Runner)
    monkeypatch.setattr(parts, "_wait", lambda device: None)
    monkeypatch.setitem(parts.NETWORKS, "none", torch.nn.Identity)
    before = torch.backends.cudnn.benchmark
    answer = parts.preparation("none", None, torch.device("cuda"))
    assert [row["search"] for row in answer["rows"]] == [True, False]
    assert len(met) == len({batch for batch, _ in met}) == 8
    assert {search for _, search in met} == {True, False}
    # Nor those of the ladder, which comes first in the same process.
    assert not {batch for batch, _ in met} & {parts.FAST.batch, parts.FAST.batch - 1}
    assert torch.backends.cudnn.benchmark is before


@pytest.mark.parametrize("convolutions", ["ieee", "tf32"])
def test_the_official_loop_does_not_inherit_the_precision_of_others(monkeypatch, convolutions):
    told = []
    monkeypatch.setattr(official, "float32_arithmetic", lambda device, **how: told.append((device.type, how)))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 6))
    loop = official.Loop(net, torch.device("cpu"), convolutions=convolutions)
    for _ in range(2):
        loop.step(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))
    assert told == [("cpu", {"convolutions": convolutions, "products": "ieee"})] * 2


def test_what_a_step_asks_is_known_from_elsewhere():
    found = floor.demand(parts.NETWORKS["ResNet-20"], (3, 32, 32))
    # 40.6 million MACs forward, twice as many backward, but no gradient for the images.
    stem = 2 * 9 * 3 * 16 * 32 * 32
    assert found["flops_per_image"] == pytest.approx(3 * 2 * 40.55e6 - stem, rel=0.01)


def test_a_runner_trains_and_never_meets_a_partial_batch():
    with parts.ExitStack() as stack:
        data, recipe = small(), parts.FAST.replace(batch=3)
        make = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 6))  # noqa: E731
        runner = parts.Runner(stack, make, data, recipe, torch.device("cpu"))
        before = runner.bench.step.net[1].weight.clone()
        assert runner.run(5, read_back=True) == 15
        assert not torch.equal(before, runner.bench.step.net[1].weight)
