"""What do two ray nodes bring over one? The same CPU-bound jobs, one core each, on one node and on two.

Needs two cores that are otherwise idle; both nodes are on this machine.

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
from typing import Any

import ray
from ray.cluster_utils import Cluster

from prunas.runs.executors import executor
from prunas.runs.job import Job
from prunas.runs.store import Store


def count(
    spec: Mapping[str, Any],
    *,
    folder: Path,
    progress: Callable[[Mapping[str, Any]], object],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Keeps one core busy with a fixed amount of arithmetic; asks after every part whether to stop."""
    total = 0
    for part in range(spec["parts"]):
        total += sum(i * i % 7 for i in range(100_000))
        if stop():
            return {}
        progress({"epoch": part})
    return {"total": total}


def throughput(cluster: Cluster, jobs: int, parts: int, tag: str) -> float:
    """Jobs per second with every worker up already."""
    with tempfile.TemporaryDirectory() as folder:
        warm = [Job("nodes:count", {"parts": 1, "of": f"warm {tag} {i}"}, "nodes", "job") for i in range(8)]
        todo = [Job("nodes:count", {"parts": parts, "of": f"{tag} {i}"}, "nodes", "job") for i in range(jobs)]
        with executor("ray", Store(Path(folder)), address=cluster.address) as running:
            for job in warm:
                running.submit(job)
            assert all(outcome.status == "finished" for outcome in running.completed())
            began = time.perf_counter()
            for job in todo:
                running.submit(job)
            assert all(outcome.status == "finished" for outcome in running.completed())
            return jobs / (time.perf_counter() - began)


def main() -> None:
    """One node and two in turns, so that both see the same machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--parts", type=int, default=200, help="of each job; 200 take about two seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ |= {"PYTHONPATH": str(Path(__file__).parent), "RAY_USAGE_STATS_ENABLED": "0"}
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000, wait=True)
    rates: dict[str, list[float]] = {"one node": [], "two nodes": []}
    for turn in range(given.rounds):
        rates["one node"].append(throughput(cluster, given.jobs, given.parts, f"{turn} one"))
        second = cluster.add_node(num_cpus=1, object_store_memory=100_000_000, wait=True)
        rates["two nodes"].append(throughput(cluster, given.jobs, given.parts, f"{turn} two"))
        cluster.remove_node(second)
    ratios = [two / one for one, two in zip(rates["one node"], rates["two nodes"], strict=True)]
    found = {
        "jobs per second": {name: [round(rate, 3) for rate in values] for name, values in rates.items()},
        "ratio of each round": [round(ratio, 3) for ratio in ratios],
        "ratio": round(sorted(ratios)[len(ratios) // 2], 3),
        "load at the end": os.getloadavg()[0],
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
