"""Rows for the tests of this room."""

from typing import Any

from prunas.costs.counted import Cost
from prunas.costs.target import Target
from prunas.results.rows import TrainingRow


def a_row(
    proposer: str = "slimming", test_score: float | None = 90.0, seed: int = 0, **changes: Any
) -> TrainingRow:
    fields: dict[str, Any] = {
        "id": f"{proposer}-{seed}",
        "proposer": proposer,
        "kind": "control" if proposer in ("uniform", "taper", "random") else "automatic",
        "asked": Target(metric="params", value=100_000, keep=0.1),
        "reached": Cost(params=99_500, macs=4_000_000, dense_params=99_500, dense_macs=4_000_000),
        "protocol": "scratch-e",
        "epochs": 20,
        "train_macs": 3_000_000_000,
        "search_seed": seed,
        "train_seed": seed,
        "status": "finished",
        "val_score": None,
        "test_score": test_score,
        "architecture": "0123456789ab",
        "folder": "runs/a",
        "flags": (),
    }
    return TrainingRow(**(fields | changes))


def costing(params: int, macs: int) -> Cost:
    return Cost(params=params, macs=macs, dense_params=params, dense_macs=macs)


def masked(params: int, macs: int) -> Cost:
    return Cost(params=params, macs=macs, dense_params=10 * params, dense_macs=10 * macs)


def keeping(fraction: float) -> Target:
    return Target(metric="params", value=round(1_000_000 * fraction), keep=fraction)
