"""Variants timed in turns: each once a round, rounds repeated, ratios taken within a round."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import torch


@dataclass
class Clock:
    """Wall time and processor time of this process and its children; the latter is blind to other work."""

    def __post_init__(self) -> None:
        self.wall, self.cpu = self._now()

    def _now(self) -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        children = sum(_processor_seconds(child.pid) for child in active_children())
        return time.perf_counter(), time.process_time() + children

    def stop(self) -> tuple[float, float]:
        """Seconds since the beginning: wall, processor."""
        wall, cpu = self._now()
        return wall - self.wall, cpu - self.cpu


def _processor_seconds(pid: int | None) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_turns(
    variants: Mapping[str, Callable[[], float]], *, base: str, rounds: int, until: float, least: int = 2
) -> list[dict[str, Any]]:
    """Rates of all variants, and their ratios to one of them.

    Args:
        variants: By name; called, each does some work and says how much. Warmed up here, once.
        base: The variant that the others are compared with.
        rounds: How many at most.
        until: Value of `time.monotonic` after which no round begins, once there are `least`.
        least: Rounds in any case.

    Returns:
        Per variant and clock the best rate per second, and the ratio to `base`: of the best rates, and over the
        rounds the median, the smallest and the largest.
    """
    for run in variants.values():
        run()
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(rounds):
        if turn >= least and time.monotonic() > until:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            clock = Clock()
            work = variants[name]()
            wall, cpu = clock.stop()
            rates[name].append((work / wall, work / max(cpu, 1e-9)))
    rows = []
    for name in names:
        row: dict[str, Any] = {"variant": name, "rounds": len(rates[name])}
        for index, kind in enumerate(("wall", "cpu")):
            mine, theirs = ([pair[index] for pair in rates[who]] for who in (name, base))
            ratios = [own / other for own, other in zip(mine, theirs, strict=True)]
            row[kind] = {
                "per_second": round(max(mine), 2),
                "ratio": {
                    "best": round(max(mine) / max(theirs), 3),
                    "median": round(statistics.median(ratios), 3),
                    "range": [round(min(ratios), 3), round(max(ratios), 3)],
                },
            }
        rows.append(row)
    return rows


def where(device: torch.device) -> dict[str, Any]:
    """What stands beside every figure."""
    cuda = device.type == "cuda"
    names = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if cuda else (names or [platform.processor()])[0],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
