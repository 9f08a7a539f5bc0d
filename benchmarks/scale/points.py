"""What does proposing cost, when nothing is trained? Random points in numbers, and TPE after many trials.

python benchmarks/scale/points.py --json benchmarks/scale/points.json
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prunas.proposers.brief import Brief, Trial
from prunas.proposers.registry import entry
from prunas.spaces.load import load_space


def points(name: str, keep: float, count: int) -> dict[str, Any]:
    """Seconds for so many random points: proposed, checked, costed and told apart."""
    space = load_space(name)
    brief = Brief(space, (space.target(keep=keep),), seed=0, trials=count)
    wall, own = time.perf_counter(), time.process_time()
    proposals = entry("random").build().propose(brief, [])
    for proposal in proposals:
        space.check(proposal.architecture)
        space.cost(proposal.architecture)
    different = {proposal.architecture.digest for proposal in proposals}
    wall, own = time.perf_counter() - wall, time.process_time() - own
    return {
        "points": len(proposals),
        "different": len(different),
        "dimensions": len(space.dimensions),
        "seconds": round(wall, 1),
        "processor seconds": round(own, 1),
    }


def trial(name: str, keep: float, count: int, last: int = 100) -> dict[str, Any]:
    """Milliseconds of one trial of TPE, the mean of the last ones; accuracies are made up from digests."""
    space = load_space(name)
    brief = Brief(space, (space.target(keep=keep),), seed=0, trials=count)
    proposer, trials = entry("tpe").build(), list[Trial]()
    wall = own = 0.0
    while asked := proposer.propose(brief, trials):
        if len(trials) == count - last:
            wall, own = time.perf_counter(), time.process_time()
        trials += [Trial(p, 50 + int(p.architecture.digest, 16) % 97 / 3) for p in asked]
    wall, own = time.perf_counter() - wall, time.process_time() - own
    return {
        "trials": len(trials),
        "milliseconds of one of the last": round(1000 * wall / last, 1),
        "processor milliseconds": round(1000 * own / last, 1),
    }


def main() -> None:
    """Prints the figures and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {
        "random points": {
            name: points(name, keep, given.points)
            for name, keep in (("vgg16-c10", 0.1), ("preresnet164-c10", 0.4))
        },
        "tpe": {"vgg16-c10": trial("vgg16-c10", 0.1, given.trials)},
    }
    versions = {package: version(package) for package in ("numpy", "scipy", "optuna")}
    found |= {"threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"), "load": os.getloadavg()[0]}
    found |= {**versions, "python": platform.python_version(), "machine": platform.platform()}
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
