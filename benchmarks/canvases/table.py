"""The table of README.md, from the JSON files beside it."""

import json
from pathlib import Path
from typing import Any

__all__ = ["HERE", "NAMES", "README", "results", "written"]

HERE = Path(__file__).resolve().parent
NAMES = ("unet", "lraspp", "fcos", "yolo")
README = HERE / "README.md"

WAYS = ("finetune", "finetune-large", "finetune-large+distill", "scratch-e")
"""The columns, in order."""


def results() -> dict[str, dict[str, Any]]:
    """What was measured, by network; those without a file are not there."""
    files = {name: HERE / f"{name}.json" for name in NAMES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def written() -> str:
    """Both tables, in Markdown."""
    validation = [
        ["network, score", "MACs, dense → pruned", "dense", "right after pruning", *WAYS],
        ["-"] * 4 + ["-"] * len(WAYS),
    ]
    test = [["network", "dense", "picked, by seed", "`finetune` (control)"], ["-"] * 4]
    for name, result in results().items():
        dense, pruned, runs = result["dense"], result["pruned"], result["runs"]
        ways = [[run["val"].get(way) for run in runs] for way in WAYS]
        validation.append(
            [
                f"{name}, {result['score']}",
                f"{dense['macs'] / 1e6:.2f}M → {pruned['macs'] / 1e6:.2f}M",
                f"{dense['val']:.1f}",
                f"{pruned['val']:.1f}",
                *(_over_seeds(scores) for scores in ways),
            ]
        )
        picked = ", ".join(f"{run['picked']['test']:.1f} ({run['picked']['way']})" for run in runs)
        control = _over_seeds([run["control"]["test"] for run in runs])
        test.append([name, f"{dense['test']:.1f}", picked, control])
    return f"On validation:\n\n{_markdown(validation)}\n\nOn test:\n\n{_markdown(test)}\n"


def _over_seeds(scores: list[float | None]) -> str:
    """Mean, and range in brackets; a dash where a way was not tried."""
    known = [score for score in scores if score is not None]
    if not known:
        return "–"
    return f"{sum(known) / len(known):.1f} [{min(known):.1f}, {max(known):.1f}]"


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
