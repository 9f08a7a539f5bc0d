"""A finished search without any training: folders and a document, written as the real ones are."""

import itertools
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.report.evidence import Evidence, gather
from prunas.results.record import Record
from prunas.results.rows import SearchCost, TrainingRow
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.statistics.tables import document
from prunas.tasks.score import ACCURACY, Score

SPACE = "vgg11-digits"
KINDS: dict[str, Any] = {"slimming": "automatic", "magnitude": "automatic", "tpe": "sampler"}
MACHINE = {"python": "3.11.7", "platform": "Linux-made-up", "cpus": 2, "prunas": "0.1.0", "torch": "2.15.0"}


@cache
def space() -> SearchSpace:
    return load_space(SPACE)


def made(
    root: Path,
    proposers: Sequence[str] = ("slimming", "uniform", "random", "taper"),
    keeps: Sequence[float] = (0.1, 0.05),
    seeds: int = 3,
    protocol: str = "scratch-e",
    epochs: int = 3,
    notes: Sequence[str] = (),
    problems: Sequence[str] = (),
    draw: Callable[[int, float, int], Architecture] | None = None,
    score: Score = ACCURACY,
    **changes: Any,
) -> Evidence:
    """Every proposer i scores 90 - 2 i + seed at the first target, 5 points less at each further one.

    Where lower is better it scores (100 - v) / 100 instead of v. Its points keep (i + 2) / 10 of every layer, so
    that the widths are known, or are `draw(i, keep, seed)`.
    """
    whole = space().cost(space().dense).params
    rows = []
    for (i, proposer), (j, keep), seed in itertools.product(
        enumerate(proposers), enumerate(keeps), range(seeds)
    ):
        share = (i + 2) / 10 / (j + 1)
        if draw is None:
            point = space().counted([max(1, round(share * d.dense)) for d in space().dimensions])
        else:
            point = draw(i, keep, seed)
        run = f"{i:04x}{j:04x}{seed:04x}"
        folder = root / SPACE / f"{protocol}-{run}"
        spec = {
            "space": SPACE,
            "architecture": point.to_json(),
            "recipe": {"epochs": epochs, "batch": 32, "lr": 0.05, "images": 0, "precision": "fp32"},
            "epochs": epochs,
            "seed": seed,
            "score": "test",
            "split": "train+val",
            "inherit": None,
        }
        write(folder / "job.json", {"id": run, "spec": spec})
        write(folder / "result.json", {"result": {"device": "cpu", "threads": 1}, "machine": MACHINE})
        log = [{"epoch": n + 1, "loss": 2.0 / (n + 1 + i)} for n in range(epochs)]
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)) + "\n")
        value = 90.0 - 2 * i - 5 * j + seed
        fields: dict[str, Any] = {
            "id": run,
            "proposer": proposer,
            "kind": KINDS.get(proposer, "control"),
            "asked": Target(metric="params", value=round(whole * keep), keep=keep),
            "reached": space().cost(point),
            "protocol": protocol,
            "epochs": epochs,
            "train_macs": 10**9,
            "search_seed": seed,
            "train_seed": seed,
            "status": "finished",
            "val_score": None,
            "test_score": value if score.better == "higher" else (100.0 - value) / 100,
            "architecture": point.digest,
            "folder": str(folder),
        }
        rows.append(TrainingRow(**(fields | changes)))
    costs = [
        SearchCost(
            proposer=name, seed=seed, macs=10**9 * (i == 0), seconds=float(i == 0), trainings=int(i == 0)
        )
        for i, name in enumerate(proposers)
        for seed in range(seeds)
    ]
    record = Record(
        space=SPACE,
        data="digits",
        recipe="digits",
        epochs=epochs,
        setting="5e77196",
        score=score,
        rows=tuple(rows),
        costs=tuple(costs),
        notes=tuple(notes),
        problems=tuple(problems),
        plan={"command": ["search", SPACE, "--proposer", ",".join(proposers)]},
    )
    write(root / SPACE / "searches" / "0123456789ab.json", document(record))
    return gather(root, record)


def write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
