"""On a CPU: a pool of one-thread workers against one training after another with all threads."""

import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any


def pool(space: str, *, images: int, rounds: int, precision: str) -> dict[str, Any]:
    """Training images per second of all that runs at the same time, by what the runs themselves recorded.

    Starting processes and evaluating are not counted. Rounds alternate between the two ways.
    """
    from prunas.experiments.plan import make_setting
    from prunas.proposers.brief import Proposal
    from prunas.protocols import PROTOCOLS
    from prunas.runs.executors import executor
    from prunas.runs.store import Store
    from prunas.spaces.load import load_space

    workers = os.cpu_count() or 1
    changes = {"epochs": 1, "images": images, "batch": 64, "precision": precision, "channels_last": True}
    setting = make_setting(load_space(space), changes=changes)
    proposal = Proposal(setting.space.target(keep=1.0), setting.space.dense)
    rates: dict[str, list[float]] = {"all threads": [], "pool": []}
    seed = 0
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        with executor("serial", store) as serial, executor("processes", store, workers=workers) as many:
            for turn in range(rounds + 1):
                for name, running, jobs in (("all threads", serial, 1), ("pool", many, workers)):
                    for _ in range(jobs):
                        training = setting.candidate(proposal.architecture, seed)
                        running.submit(training.job)
                        seed += 1
                    found = [outcome.result for outcome in running.completed()]
                    if turn:  # the first imports torch and reads the images
                        rates[name].append(sum(r.values["images_per_second"] for r in found if r))
    ratios = [own / other for own, other in zip(rates["pool"], rates["all threads"], strict=True)]
    return {
        "space": space,
        "precision": precision,
        "workers": workers,
        "images_per_second": {name: round(max(values), 1) for name, values in rates.items()},
        "ratio": {
            "best": round(max(rates["pool"]) / max(rates["all threads"]), 3),
            "median": round(median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
        },
        "protocol": PROTOCOLS["scratch-e"].name,
    }
