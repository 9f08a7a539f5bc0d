"""What it costs to propose from a trained network, in epochs of that network's own training.

    python benchmarks/proposing/run.py --data DIR [SPACE ...]

In one process, in turn: a few training steps, one proposer, a few training steps, the next proposer. An epoch is
the median step times the steps of an epoch. The dense training itself is not counted.
"""

import argparse
import json
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path

import torch

from prunas import data as datasets
from prunas.data.dataset import DataSet
from prunas.proposers.brief import Brief, DenseNetwork
from prunas.proposers.table import PROPOSERS
from prunas.recipe import recipe
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.tasks.classification import Classification
from prunas.training.step import Step
from prunas.works.runtime import CALIBRATION_BATCH, initial

CPU = torch.device("cpu")
METHODS = ("slimming", "l1-global", "magnitude", "thinet-global", "reconstruction-global")
LIMITS = {
    "slimming": 0.01,
    "l1-global": 0.01,
    "magnitude": 0.01,
    "thinet-global": 10,
    "reconstruction-global": 10,
}
"""Epochs a proposal may cost; for limits below one, or 2 s."""


def measure(space: SearchSpace, data: DataSet, warm: int, steps: int, keep: list[float]) -> dict:
    made = recipe("paper")
    torch.manual_seed(0)
    net = space.build()
    feed = data.feed(data.members("train"), made.batch, device=CPU, augment=True)
    step = Step(net, Classification(data), feed.gather, made, CPU)
    step.set_lr(0.02)
    draws = feed.draws(0)
    for _ in range(warm):
        step(next(draws))
    timed: list[float] = []

    def train() -> None:
        for _ in range(steps):
            start = time.perf_counter()
            step(next(draws))
            timed.append(time.perf_counter() - start)

    found = {}
    for name in METHODS:
        train()
        state = {key: t.clone() for key, t in net.state_dict().items()}
        brief = Brief(
            space=space,
            targets=tuple(space.target(keep=share, metric="params") for share in keep),
            seed=0,
            lr_sum=made.lr_sum(data.steps("train", made.batch), made.epochs),
            dense=lambda penalty, state=state: DenseNetwork("dense", lambda: state, {}),
            initial=lambda: initial(space, 0),
            calibration=lambda images: data.calibration(images, seed=0, device=CPU, batch=CALIBRATION_BATCH),
        )
        start = time.perf_counter()
        proposals = PROPOSERS[name].build().propose(brief, [])
        found[name] = time.perf_counter() - start
        assert len(proposals) == len(keep)
    train()
    epoch = statistics.median(timed) * data.steps("train", made.batch)
    return {
        "step_seconds": round(statistics.median(timed), 4),
        "epoch_seconds": round(epoch, 1),
        "proposers": {
            name: {
                "seconds": round(seconds, 2),
                "epochs": round(seconds / epoch, 5),
                "limit_epochs": LIMITS[name],
                "met": seconds <= LIMITS[name] * epoch or (LIMITS[name] < 1 and seconds <= 2),
            }
            for name, seconds in found.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spaces", nargs="*", default=["vgg16-c10", "resnet56-c10", "preresnet164-c10"])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--warm", type=int, default=40, help="training steps before anything is timed")
    parser.add_argument("--steps", type=int, default=5, help="timed training steps between two proposers")
    parser.add_argument("--keep", default="0.6,0.4", help="targets, as fractions of the parameters")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    given = parser.parse_args()
    keep = [float(share) for share in given.keep.split(",")]
    result = {
        "date": date.today().isoformat(),
        "machine": {
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "keep": keep,
        "spaces": {},
    }
    for name in given.spaces:
        space = load_space(name)
        result["spaces"][name] = measure(
            space, datasets.load(space.study.data, given.data), given.warm, given.steps, keep
        )
        print(name, json.dumps(result["spaces"][name], indent=1), flush=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
