"""What do two ray nodes bring over one? The same one-core jobs on one node and on two, in turns.

Both nodes are on this machine. Where its two cores are not idle, CPU-bound jobs on two nodes fight others for more
cores, which says nothing about ray or the driver: README.md says what does.

    python benchmarks/scale/nodes.py --json benchmarks/scale/nodes.json
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import ray
from ray.cluster_utils import Cluster

from prunas.runs.executors import executor
from prunas.runs.job import Job
from prunas.runs.store import Store

STORE = 100_000_000  # bytes of a node's object store


def count(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Takes a fixed amount of processor time; asks after every part whether to stop."""
    end = time.process_time() + spec["seconds"]
    part = 0
    while time.process_time() < end and not stop():
        sum(i * i % 7 for i in range(10_000))
        part += 1
        progress({"epoch": part})
    return {"parts": part}


def wait(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Takes a fixed time without a core: a job on a core that nobody else wants, as far as the driver can tell."""
    end = time.monotonic() + spec["seconds"]
    while time.monotonic() < end and not stop():
        progress({"epoch": 1})
        time.sleep(0.01)
    return {}


def measure(
    cluster: Cluster, work: str, jobs: int, seconds: float, places: int, tag: str
) -> dict[str, float]:
    """Jobs per second with every worker up already, and the share of the time that places had a job under way."""
    with tempfile.TemporaryDirectory() as folder:

        def made(name: str, length: float) -> list[Job]:
            specs = [{"seconds": length, "of": f"{name} {tag} {i}"} for i in range(jobs)]
            return [Job(f"scale/{work}", spec, "nodes", "job") for spec in specs]

        with executor("ray", Store(Path(folder)), address=cluster.address) as running:
            assert running.capacity == places
            for job in made("warm", 0.1):
                running.submit(job)
            assert all(outcome.status == "finished" for outcome in running.completed())
            began = time.perf_counter()
            for job in made("timed", seconds):
                running.submit(job)
            outcomes = list(running.completed())
            took = time.perf_counter() - began
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    assert len(results) == jobs
    return {"rate": jobs / took, "held": sum(result.seconds for result in results) / (places * took)}


def main() -> None:
    """One node and two in turns, so that both see the same machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each job")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    here = {"PYTHONPATH": str(Path(__file__).parent), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ |= here | {"RAY_worker_niceness": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.add_node(num_cpus=1, object_store_memory=STORE, wait=True)
    rounds: dict[str, list[dict[str, float]]] = {"count": [], "wait": []}
    loads = []
    for turn in range(given.rounds):
        ask = (given.jobs, given.seconds)
        one = {work: measure(cluster, work, *ask, 1, f"{turn} one") for work in rounds}
        second = cluster.add_node(num_cpus=1, object_store_memory=STORE, wait=True)
        two = {work: measure(cluster, work, *ask, 2, f"{turn} two") for work in rounds}
        cluster.remove_node(second)
        loads.append(round(os.getloadavg()[0], 1))
        for work, own in rounds.items():
            own.append(
                {
                    "jobs per second, one node": round(one[work]["rate"], 3),
                    "jobs per second, two nodes": round(two[work]["rate"], 3),
                    "ratio": round(two[work]["rate"] / one[work]["rate"], 3),
                    "places held, one node": round(one[work]["held"], 4),
                    "places held, two nodes": round(two[work]["held"], 4),
                    "ratio on free cores": round(2 * two[work]["held"] / one[work]["held"], 3),
                }
            )
    found: dict[str, Any] = {"jobs": given.jobs, "seconds of each": given.seconds, "load": loads}
    for work, own in rounds.items():
        middle = {key: median(one[key] for one in own) for key in ("ratio", "ratio on free cores")}
        found[work] = {"median": middle, "rounds": own}
    found |= {
        "ray": ray.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
    }
    ray.shutdown()
    cluster.shutdown()
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
