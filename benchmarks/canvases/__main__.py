"""Shrinks trained networks with three seeds each, and writes what came of it.

python -m benchmarks.canvases unet lraspp fcos yolo   # needs NAME.pth of train.py; continues what was stopped
python -m benchmarks.canvases --table                 # the table of README.md from the JSON files beside it
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.canvases.table import HERE, NAMES, written

WAYS = ("finetune", "finetune-large", "finetune-large+distill", "scratch-e")
KEEP = 0.4
TAUGHT = ("unet", "lraspp", "yolo")
"""Those whose task can be taught by the dense network."""


def shrunk(name: str, seeds: list[int], trained: Path, out: Path) -> dict[str, Any]:
    """Scores of one network: as given, right after pruning, and by seed after every full training."""
    import prunas

    runs = []
    for seed in seeds:
        small = prunas.shrink(
            str(HERE / f"{name}.toml"),
            weights=str(trained / f"{name}.pth"),
            keep=KEEP,
            metric="macs",
            proposers=["l1"],
            protocol=[way for way in WAYS if name in TAUGHT or "distill" not in way],
            seed=seed,
            out=out,
            progress=lambda job, message: print(f"{job.name}: {message}", flush=True),
        )
        record = small.record
        if record.problems:
            raise SystemExit("; ".join(record.problems))
        print(small.table(), flush=True)
        runs.append(record)
        if len(runs) > 1 and record.dense != runs[0].dense:
            raise SystemExit(f"{name}: seeds differ in the given network")
    first = runs[0]
    (shape,) = first.shapes
    return {
        "score": f"{first.score.name} ({first.score.unit})",
        "epochs": first.picked.epochs,
        "dense": {
            "macs": first.dense.cost.macs,
            "val": first.dense.val_score,
            "test": first.dense.test_score,
        },
        "pruned": {"macs": shape.cost.macs, "val": shape.pruned_score},
        "runs": [
            {
                "seed": record.seed,
                "val": {row.protocol: row.val_score for row in record.trainings},
                "picked": {"way": record.picked.protocol, "test": record.picked.test_score},
                "control": {"way": record.control.protocol, "test": record.control.test_score}
                if record.control
                else None,
            }
            for record in runs
        ],
    }


def main() -> None:
    """Runs what is asked for; a file for each network is written as soon as its seeds are through."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canvases")
    parser.add_argument("networks", nargs="*", choices=(*NAMES, []))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trained", type=Path, default=Path("runs/canvases"))
    parser.add_argument("--out", type=Path, default=Path("runs/canvases/store"))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    for name in given.networks:
        result = shrunk(name, [int(seed) for seed in given.seeds.split(",")], given.trained, given.out)
        (HERE / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    if given.table:
        print(written())


if __name__ == "__main__":
    main()
