"""What does the driver cost per job? Jobs that do nothing, through a worker process.

python benchmarks/scale/overhead.py --json benchmarks/scale/overhead.json
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prunas.runs.executors import executor
from prunas.runs.job import Job
from prunas.runs.store import Store

TRAINING = 5.0  # seconds, of the training that the overhead is compared with


def nothing(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """A training without the training."""
    progress({"epoch": 1, "epochs": 1, "loss": 0.0, "score": 100.0})
    stop()
    return {"score": 100.0, "seconds": 0.0, "losses": [0.0] * 160}


def measure(folder: Path, name: str, jobs: int, **options: Any) -> dict[str, float]:
    """Milliseconds per job from submitting to having the result, with one worker that is up already."""
    widths = {f"features.{i}": 64 + i for i in range(16)}
    todo = [
        Job("scale/nothing", {"seed": seed, "widths": widths}, "overhead", "scratch-e")
        for seed in range(jobs + 5)
    ]
    with executor(name, Store(folder), **options) as running:
        for job in todo[:5]:
            running.submit(job)
        assert all(outcome.status == "finished" for outcome in running.completed())
        wall, driver = time.perf_counter(), time.process_time()
        for job in todo[5:]:
            running.submit(job)
        assert [outcome.status for outcome in running.completed()] == ["finished"] * jobs
        wall, driver = time.perf_counter() - wall, time.process_time() - driver
    with executor(name, Store(folder), **options) as running:
        again = time.perf_counter()
        for job in todo:
            running.submit(job)
        assert [outcome.status for outcome in running.completed()] == ["cached"] * len(todo)
        again = time.perf_counter() - again
    return {
        "milliseconds per job": round(1000 * wall / jobs, 2),
        "of these, the driver's processor time": round(1000 * driver / jobs, 2),
        "share of a 5-second training": round(wall / jobs / TRAINING, 5),
        "milliseconds per job that is finished already": round(1000 * again / len(todo), 2),
    }


def main() -> None:
    """Prints the figures and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"jobs": given.jobs}
    for name, options in (("serial", {}), ("processes", {"workers": 1})):
        with tempfile.TemporaryDirectory(
            dir=Path.cwd()
        ) as folder:  # a disk, where the temporary one may be memory
            found[name] = measure(Path(folder), name, given.jobs, **options)
    found |= {"load": os.getloadavg()[0], "python": platform.python_version(), "machine": platform.platform()}
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
