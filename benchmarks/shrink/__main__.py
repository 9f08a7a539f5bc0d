"""The tables of README.md, of what `prunas shrink` wrote: `python -m benchmarks.shrink [FOLDER ...]`."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import between_marks

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE / "README.md"


def gathered(folders: Sequence[str]) -> list[dict[str, Any]]:
    """What the table needs of every shrinking, the largest share and the least seed first."""
    documents = [json.loads((Path(folder) / "result.json").read_text()) for folder in folders]
    kept = ("seed", "epochs", "asked", "dense", "shapes", "trainings", "picked", "control", "latency")
    for document in documents:
        for training in (*document["trainings"], document["picked"], document["control"]):
            del training["folder"]
    rows = [{key: document[key] for key in kept} for document in documents]
    return sorted(rows, key=lambda row: (-row["asked"]["keep"], row["seed"]))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each shrinking, and the mean gain over the control for each share of MACs."""
    lines = [
        "| MACs kept | seed | picked by validation | test % | uniform, `finetune` | gain | given network |",
        "| --: | --: | :-- | --: | --: | --: | --: |",
    ]
    gains: dict[float, list[float]] = {}
    for row in rows:
        keep, picked, control = row["asked"]["keep"], row["picked"], row["control"]
        gain = picked["test_score"] - control["test_score"]
        gains.setdefault(keep, []).append(gain)
        lines.append(
            f"| {keep:.0%} | {row['seed']} | {picked['proposer']}, `{picked['protocol']}` "
            f"| {picked['test_score']:.2f} | {control['test_score']:.2f} | {gain:+.2f} "
            f"| {row['dense']['test_score']:.2f} |"
        )
    means = [
        f"{keep:.0%}: {statistics.mean(values):+.2f} ({min(values):+.2f} to {max(values):+.2f}, n = {len(values)})"
        for keep, values in gains.items()
    ]
    return (
        "\n".join([*lines, "", f"Mean gain in points over seeds of retraining: {'; '.join(means)}."]) + "\n"
    )


def ways(rows: Sequence[Mapping[str, Any]]) -> str:
    """Validation scores after one epoch of each way, mean over seeds and the shapes that were retrained."""
    scores: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        for training in row["trainings"]:
            if training["round"] == "short":
                scores.setdefault((training["protocol"], row["asked"]["keep"]), []).append(
                    training["val_score"]
                )
    keeps = sorted({keep for _, keep in scores}, reverse=True)
    names = dict.fromkeys(protocol for protocol, _ in scores)
    lines = [
        "| retrained for one epoch by | " + " | ".join(f"{keep:.0%} of MACs: val %" for keep in keeps) + " |",
        "| :-- |" + " --: |" * len(keeps),
    ]
    for name in sorted(names):
        means = [statistics.mean(scores[name, keep]) for keep in keeps]
        lines.append(f"| `{name}` | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    return "\n".join(lines) + "\n"


def page(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page with its tables made anew."""
    return between_marks(text, table(rows) + "\n" + ways(rows) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        RESULTS.write_text(json.dumps(gathered(sys.argv[1:]), indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), json.loads(RESULTS.read_text())))
