"""The questions: each part answers one, as a JSON document."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from itertools import count
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.speed import floor, official
from benchmarks.speed.timing import in_turns
from prunas import networks
from prunas.data.dataset import Draw
from prunas.data.resident import Resident, resident
from prunas.recipe import RECIPES, Recipe
from prunas.tasks.classification import Classification
from prunas.training.capture import StepCache, StepRunner, cuda_recorder, eager
from prunas.training.loop import train
from prunas.training.precision import algorithm_search

PAPER = RECIPES["paper"]
FAST = PAPER.replace(precision="bf16", channels_last=True)

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "VGG-16": networks.vgg16,
    "ResNet-20": networks.resnet20,
    "ResNet-56": networks.resnet56,
    "PreResNet-164": networks.preresnet164,
}


def noise(images: int = 20_000) -> Resident:
    """Random images in the form of CIFAR-10: for timing the content does not matter."""
    draw = np.random.default_rng(0)
    return resident(
        "noise",
        draw.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8),
        draw.integers(0, 10, images),
        {
            "train": np.arange(images - 1000),
            "val": np.arange(images - 1000, images - 500),
            "test": np.arange(500),
        },
        peak=255,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        pad=4,
        flip=True,
    )


class Runner:
    """Our own steps, one after another, without the loop around them."""

    def __init__(
        self,
        stack: ExitStack,
        make: Callable[[], nn.Module],
        data: Resident,
        recipe: Recipe,
        device: torch.device,
        *,
        captured: bool = False,
        masks: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        net = make().to(device=device, memory_format=layout).train()
        members = data.members("train")
        feed = data.feed(
            members, recipe.batch, device=device, augment=recipe.augment, channels_last=recipe.channels_last
        )
        prepare = partial(StepCache(cuda_recorder).bench, "speed") if captured else eager
        self.bench: StepRunner = stack.enter_context(
            prepare(net, Classification(data), feed.gather, recipe, device, None, masks)
        )
        self.bench.step.set_lr(0.01)
        whole = len(members) // recipe.batch  # full batches only, as the official loop has them here
        self._draws: Iterator[Draw] = (
            draw for epoch in count() for draw, _ in zip(feed.draws(0, epoch), range(whole), strict=False)
        )
        self.images = recipe.batch

    def step(self) -> None:
        """Takes one step."""
        self.bench.advance(next(self._draws))

    def run(self, steps: int, *, read_back: bool = False) -> float:
        """Takes some steps; how many images that were."""
        for _ in range(steps):
            self.step()
            if read_back:
                self.bench.step.totals()
        return steps * self.images


def ladder(
    name: str, data: Resident, device: torch.device, *, batch: int, steps: int, rounds: int, until: float
) -> dict[str, Any]:
    """From the official loop to ours, one thing added on each rung; then the floor."""
    make, cuda = NETWORKS[name], device.type == "cuda"
    paper, fast = PAPER.replace(batch=batch), FAST.replace(batch=batch)
    with ExitStack() as stack:
        source = official.batches(data, batch, device)
        loop = official.Loop(make(), device)
        quiet = official.Loop(make(), device, read_back=False)
        runner = partial(Runner, stack, make, data, device=device)
        same = data.batches("train", batch, device=device, seed=0, augment=True)  # restarted in every round

        def from_loader(loop: official.Loop) -> float:
            for x, y in (next(source) for _ in range(steps)):
                loop.step(x, y)
            return steps * batch

        def from_device(loop: official.Loop) -> float:
            nonlocal same
            for step, (x, y) in enumerate(same):
                loop.step(x, y)
                if step == steps - 1:
                    break
            same = data.batches("train", batch, device=device, seed=0, augment=True)
            return steps * batch

        fused = runner(recipe=paper)
        last = runner(recipe=paper.replace(channels_last=True))
        bf16 = runner(recipe=fast)
        variants: dict[str, Callable[[], float]] = {
            "official loop": lambda: from_loader(loop),
            "+ resident images": lambda: from_device(loop),
            "+ no read-back": lambda: from_device(quiet),
            "+ fused SGD": lambda: fused.run(steps),
            "+ channels_last": lambda: last.run(steps),
            "+ bf16": lambda: bf16.run(steps),
        }
        if cuda:
            graph, exact = runner(recipe=fast, captured=True), runner(recipe=paper, captured=True)
            tf32 = runner(recipe=paper.replace(precision="tf32", channels_last=True), captured=True)
            # A batch of another size: cuDNN would find the algorithms that were searched for this one.
            plain = runner(recipe=fast.replace(batch=batch - 1), captured=True)
            defaults = official.Loop(make(), device, convolutions="tf32")

            def without_search() -> float:
                with algorithm_search(False):  # matters in the first call, which captures
                    return plain.run(steps)

            variants["official loop, torch's defaults (TF32)"] = lambda: from_loader(defaults)
            variants["+ CUDA graph"] = lambda: graph.run(steps)
            variants[f"CUDA graph, no search for algorithms, batch {batch - 1}"] = without_search
            variants["CUDA graph, tf32, channels_last"] = lambda: tf32.run(steps)
            variants["CUDA graph, fp32, NCHW"] = lambda: exact.run(steps)
        whole = Whole(make, data, device, steps)
        variants["train(), fp32"] = lambda: whole.run(paper)
        variants["train(), bf16 and channels_last"] = lambda: whole.run(fast)
        rows = in_turns(variants, base="official loop", rounds=rounds, until=until)
        best = max(row["wall"]["per_second"] for row in rows)
        found = {"network": name, "batch": batch, "steps": steps, "rows": rows}
        return found | {"floor": _floor(make, data, device, batch, best, rows)}


class Whole:
    """`train()` itself, an epoch of so many steps at a time; its captures are kept, as a search keeps them."""

    def __init__(
        self, make: Callable[[], nn.Module], data: Resident, device: torch.device, steps: int
    ) -> None:
        self._net, self._data, self._device, self._steps = make(), data, device, steps
        self._benches, self._seed = StepCache(cuda_recorder), count()

    def run(self, recipe: Recipe) -> float:
        """One epoch."""
        images = self._steps * recipe.batch
        train(
            self._net,
            Classification(self._data),
            recipe.replace(images=images, lr=0.01),
            epochs=1,
            seed=next(self._seed),
            split="train",
            score=None,
            device=self._device,
            prepare=partial(self._benches.bench, "whole"),
        )
        return images


def _floor(
    make: Callable[[], nn.Module],
    data: Resident,
    device: torch.device,
    batch: int,
    best: float,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    if device.type == "cuda":
        rates, asked = floor.rates(device), floor.demand(make, data.shape)
        seconds = max(
            asked["flops_per_image"] / rates["gemm bf16"], 2 * asked["elements_per_image"] / rates["copy"]
        )
        return {"rates": rates, **asked, "images_per_second": 1 / seconds, "share": best * seconds}
    clock = "cpu" if torch.get_num_threads() == 1 else "wall"
    per_second = {row["variant"]: row[clock]["per_second"] for row in rows}
    found: dict[str, Any] = {
        "is": "the step's convolutions, each alone, forward and backward",
        "clock": clock,
    }
    x = torch.zeros(batch, *data.shape)
    for what, variant, bf16 in (("fp32", "+ channels_last", False), ("bf16", "+ bf16", True)):
        seconds = floor.convolution_seconds(make(), x, device, bf16=bf16, channels_last=True, seconds=6.0)
        found[what] = {"images_per_second": batch / seconds, "share": per_second[variant] * seconds / batch}
    return found


def at_once(
    name: str, data: Resident, device: torch.device, *, lanes: int, steps: int, rounds: int, until: float
) -> dict[str, Any]:
    """K captured trainings on K streams, taking turns step by step, against the same one after another."""
    with ExitStack() as stack:
        runners = [Runner(stack, NETWORKS[name], data, FAST, device, captured=True) for _ in range(lanes)]
        streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(lanes)]

        def on(stream: Any) -> AbstractContextManager[object]:
            return torch.cuda.stream(stream) if stream is not None else nullcontext()

        def in_sequence() -> float:
            for runner in runners:
                runner.run(steps)
                if device.type == "cuda":
                    torch.cuda.synchronize()
            return lanes * steps * runners[0].images

        def together() -> float:
            for _ in range(steps):
                for stream, runner in zip(streams, runners, strict=True):
                    with on(stream):
                        runner.step()
            return lanes * steps * runners[0].images

        variants = {"in sequence": in_sequence, f"{lanes} at once": together}
        rows = in_turns(variants, base="in sequence", rounds=rounds, until=until)
    return {"network": name, "batch": FAST.batch, "lanes": lanes, "rows": rows}


def preparation(name: str, data: Resident, device: torch.device, *, epochs: int = 30) -> dict[str, Any]:
    """Seconds to build a network, warm up and capture its step, over those of a short training.

    Every repetition has a batch of its own size, with search and without: shapes not yet seen, as the convolutions
    of a pruned network are. cuDNN finds algorithms again whether or not it may search.
    """
    rows = []
    sizes = {True: range(FAST.batch - 5, FAST.batch - 1), False: range(FAST.batch - 9, FAST.batch - 5)}
    for search in (True, False) if device.type == "cuda" else (False,):
        built, first = [], []
        for batch in sizes[search]:
            with ExitStack() as stack:
                stack.enter_context(algorithm_search(search))
                start = time.perf_counter()
                made = NETWORKS[name]()
                built.append(time.perf_counter() - start)
                recipe = FAST.replace(batch=batch)
                runner = Runner(stack, lambda made=made: made, data, recipe, device, captured=True)
                _wait(device)
                start = time.perf_counter()
                runner.run(1)
                _wait(device)
                first.append(time.perf_counter() - start)
                steps = 100 if device.type == "cuda" else 2
                start = time.perf_counter()
                runner.run(steps)
                _wait(device)
                step = (time.perf_counter() - start) / steps
        training = epochs * step * 50_000 / FAST.batch
        once = min(built[1:]) + max(0.0, min(first[1:]) - step)  # the very first also loads libraries
        row = {"search": search, "build_seconds": min(built[1:]), "first_step_seconds": min(first[1:])}
        rows.append(row | {"step_seconds": step, "training_seconds": training, "share": once / training})
    return {"network": name, "epochs": epochs, "rows": rows}


def masked(
    name: str, data: Resident, device: torch.device, *, steps: int, rounds: int, until: float
) -> dict[str, Any]:
    """A step under a mask on every convolution, against one without."""
    captured = device.type == "cuda"
    draw = torch.Generator().manual_seed(0)
    masks = {
        f"{path}.weight": (torch.rand(m.weight.shape, generator=draw) < 0.5).float()
        for path, m in NETWORKS[name]().named_modules()
        if isinstance(m, nn.Conv2d)
    }
    rows = []
    for batch in (64, 512) if captured else (64,):
        recipe = FAST.replace(batch=batch)
        with ExitStack() as stack:
            dense = Runner(stack, NETWORKS[name], data, recipe, device, captured=captured)
            sparse = Runner(stack, NETWORKS[name], data, recipe, device, captured=captured, masks=masks)
            variants = {"dense": partial(dense.run, steps), "masked": partial(sparse.run, steps)}
            found = in_turns(variants, base="dense", rounds=rounds, until=until)
        rows += [row | {"batch": batch} for row in found]
    return {"network": name, "rows": rows}


def accuracy(
    name: str, data: Resident, recipe: Recipe, make: Callable[[], nn.Module], device: torch.device, seeds: int
) -> dict[str, Any]:
    """Test accuracy of fp32 eager steps, of bf16, and of captured steps, on the same seeds."""
    benches = StepCache(cuda_recorder)
    ways = {
        "fp32, eager": (recipe.replace(precision="fp32", channels_last=False), eager),
        "bf16, channels_last": (
            recipe.replace(precision="bf16", channels_last=True),
            partial(benches.bench, name),
        ),
    }
    if device.type == "cuda":
        ways["fp32, captured"] = (ways["fp32, eager"][0], partial(benches.bench, name))
    found: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(seeds):
        for way, (chosen, prepare) in ways.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                net = make()
            trained = train(
                net,
                Classification(data),
                chosen,
                epochs=chosen.epochs,
                seed=seed,
                split="train+val",
                score="test",
                device=device,
                prepare=prepare,
            )
            found[way].append(trained.score or 0.0)
    plain = found["fp32, eager"]
    rows = [
        {
            "variant": way,
            "accuracies": [round(value, 3) for value in values],
            "mean": round(fmean(values), 3),
            "std": round(stdev(values), 3),
            "difference_of_means": round(fmean(values) - fmean(plain), 3),
        }
        for way, values in found.items()
    ]
    return {"data": name, "seeds": seeds, "recipe": recipe.to_json(), "rows": rows}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
