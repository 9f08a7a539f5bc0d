"""`python -m benchmarks.speed`: measures what it can in the time given and writes each answer as it comes."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import parts
from benchmarks.speed.timing import where
from prunas import data as datasets
from prunas.recipe import RECIPES
from prunas.training.precision import SEARCHED


def main() -> None:
    """Parses arguments and goes through the parts in the order of their weight."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10; random images without it")
    parser.add_argument("--minutes", type=float, default=9.0, help="after this long no part begins")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/speed/results"), help="folder of the answers"
    )
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="", help="names of parts, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="two steps a round: shows that it runs")
    given = parser.parse_args()
    device = torch.device(given.device)
    cuda = device.type == "cuda"
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = SEARCHED  # as trainings have it
    end = time.monotonic() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in given.only.split(",") if name]
    for name, answer in _parts(given, device, cuda).items():
        if (chosen and name not in chosen) or time.monotonic() > end:
            continue
        before = where(device)
        try:
            document = answer(end)
        except Exception as error:  # one part must not cost the others
            document = {"error": f"{type(error).__name__}: {error}"}
        document = {"part": name, **document, "where": before, "load_after": where(device)["load"]}
        text = json.dumps(document, indent=1)
        (given.out / f"{device.type}-{name}.json").write_text(text + "\n")
        print(text, flush=True)


def _parts(given: Any, device: torch.device, cuda: bool) -> dict[str, Callable[[float], dict[str, Any]]]:
    data: Any = datasets.load("cifar10", given.data) if given.data else parts.noise()
    rounds = 2 if given.tiny else given.rounds

    def until(end: float) -> float:
        """A part may take a quarter of what is left."""
        now = time.monotonic()
        return now + (end - now) / 4

    def ladder(network: str, batch: int, steps: int) -> Callable[[float], dict[str, Any]]:
        steps = 2 if given.tiny else steps
        return lambda end: parts.ladder(
            network, data, device, batch=batch, steps=steps, rounds=rounds, until=until(end)
        )

    def at_once(lanes: int, steps: int) -> Callable[[float], dict[str, Any]]:
        return lambda end: parts.at_once(
            "ResNet-56", data, device, lanes=lanes, steps=steps, rounds=rounds, until=until(end)
        )

    def digits(seeds: int) -> Callable[[float], dict[str, Any]]:
        def answer(end: float) -> dict[str, Any]:
            from prunas.networks import vgg11

            make = lambda: vgg11(channels=1, base=16, pools=2)  # noqa: E731
            recipe = RECIPES["digits"].replace(epochs=10)
            return parts.accuracy("digits", datasets.load("digits"), recipe, make, device, seeds)

        return answer

    def cifar(seeds: int) -> Callable[[float], dict[str, Any]]:
        recipe = RECIPES["short"].replace(epochs=5, images=1000, batch=64, lr=0.05)
        return lambda end: parts.accuracy("cifar10", data, recipe, parts.NETWORKS["ResNet-20"], device, seeds)

    def masked(network: str, steps: int) -> Callable[[float], dict[str, Any]]:
        return lambda end: parts.masked(network, data, device, steps=steps, rounds=rounds, until=until(end))

    def pool(precision: str) -> Callable[[float], dict[str, Any]]:
        from benchmarks.speed.pool import pool as measure

        return lambda end: measure("resnet20-c10", images=1280, rounds=rounds - 1, precision=precision)

    if cuda:
        return {
            "ladder-resnet56-64": ladder("ResNet-56", 64, 60),
            "ladder-vgg16-64": ladder("VGG-16", 64, 60),
            "at-once-4": at_once(4, 60),
            "at-once-8": at_once(8, 60),
            "ladder-resnet56-512": ladder("ResNet-56", 512, 20),
            "ladder-vgg16-512": ladder("VGG-16", 512, 20),
            "preparation-resnet56": lambda end: parts.preparation("ResNet-56", data, device),
            "preparation-vgg16": lambda end: parts.preparation("VGG-16", data, device),
            "masked-resnet56": masked("ResNet-56", 40),
            "masked-vgg16": masked("VGG-16", 40),
            "ladder-preresnet164-64": ladder("PreResNet-164", 64, 30),
            "ladder-preresnet164-512": ladder("PreResNet-164", 512, 10),
            "accuracy-digits": digits(6),
        }
    found = {
        "ladder-vgg16-64": ladder("VGG-16", 64, 4),
        "ladder-resnet56-64": ladder("ResNet-56", 64, 4),
        "masked-resnet56": masked("ResNet-56", 4),
        "masked-vgg16": masked("VGG-16", 2),
        "preparation-resnet56": lambda end: parts.preparation("ResNet-56", data, device),
        "ladder-resnet20-64": ladder("ResNet-20", 64, 12),
        "accuracy-digits": digits(6),
    }
    if given.data:
        found |= {"pool-bf16": pool("bf16"), "pool-fp32": pool("fp32"), "accuracy-cifar10": cifar(5)}
    return found


if __name__ == "__main__":
    main()
