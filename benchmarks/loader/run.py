"""Share of a training step that waits for data: 10,000 JPEG files, streamed, and torchvision's ResNet-18.

python -m benchmarks.loader.run --json benchmarks/loader/loader.json
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

from prunas.data.folder import load_folder
from prunas.data.pictures import Preparation
from prunas.data.streamed import Streamed, cores
from prunas.recipe import recipe
from prunas.tasks.classification import Classification
from prunas.training.step import Step

CLASSES = 10


def write_images(root: Path, images: int, side: int) -> None:
    """Writes JPEG files of smooth noise, which take about as long to decode as photographs of that size."""
    draw = np.random.default_rng(0)
    for k in range(images):
        part = "train" if k % 10 else "test"
        folder = root / part / f"{k // 10 % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 256, (side // 4, side // 4, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{k}.jpg", quality=90)


def measure(data: Streamed, workers: int, batch: int, steps: int, device: torch.device) -> dict[str, float]:
    """Seconds of some steps, by the clock and of the processor, and how many of them waited for data.

    The first batch is timed apart: workers start with it, once a training.
    """
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=CLASSES).to(device)
    chosen = replace(data, workers=workers)
    feed = chosen.feed(data.members("train"), batch, device=device, augment=True)
    step = Step(net.train(), Classification(data), feed.gather, recipe("paper").replace(batch=batch), device)
    step.set_lr(0.01)
    draws = feed.draws(0)
    started = time.perf_counter()
    draw = next(draws)
    first = time.perf_counter() - started
    step(draw)
    began, processor, waited = time.perf_counter(), time.process_time(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        draw = next(draws)
        waited += time.perf_counter() - asked
        step(draw)
        if device.type == "cuda":
            torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return {
        "first_batch_seconds": first,
        "seconds_per_step": seconds / steps,
        "processor_seconds_per_step": (time.process_time() - processor) / steps,
        "waiting_share": waited / seconds,
    }


def decoding(data: Streamed, batch: int, batches: int) -> float:
    """Seconds of the processor for reading a batch: decoding, cropping, stacking."""
    feed = replace(data, workers=0).feed(
        data.members("train"), batch, device=torch.device("cpu"), augment=True
    )
    draws = feed.draws(0)
    next(draws)
    began = time.process_time()
    for _ in range(batches):
        next(draws)
    return (time.process_time() - began) / batches


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="0,1,2", help="numbers of worker processes, measured in turns")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    numbers = [int(word) for word in given.workers.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), given.images, given.side)
        how = Preparation(size=given.side, resize=given.side)
        data = load_folder(Path(folder), 0, False, how)
        rounds = [
            {n: measure(data, n, given.batch, given.steps, device) for n in numbers}
            for _ in range(given.rounds)
        ]
        read = decoding(data, given.batch, given.steps)
    rows = [
        {
            "workers": n,
            **{key: statistics.median(turn[n][key] for turn in rounds) for key in rounds[0][n]},
            "waiting_shares": [round(turn[n]["waiting_share"], 4) for turn in rounds],
        }
        for n in numbers
    ]
    document = {
        "images": given.images,
        "side": given.side,
        "batch": given.batch,
        "steps": given.steps,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "reading_processor_seconds_per_batch": read,
        "rows": rows,
    }
    print(json.dumps(document, indent=1))
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return document


if __name__ == "__main__":
    main()
