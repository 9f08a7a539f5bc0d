"""A search that runs, looked at from outside: what is trained now, how far it is, what has ended. Torch-free."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from prunas.runs.store import Run, Store
from prunas.statistics.text import Table, as_text, duration

__all__ = ["RunningRow", "WatchDocument", "Watcher", "watch_text"]


class RunningRow(TypedDict):
    """A training that some process trains now; `loss` and `left` are None before they are known."""

    id: str
    space: str
    label: str
    epochs_done: int
    epochs: int
    loss: float | None
    seconds: float
    left: float | None


class WatchDocument(TypedDict):
    """How far the runs of a folder are: numbers by status, what runs now, and the latest that finished."""

    statuses: dict[str, int]
    running: list[RunningRow]
    latest: str | None


@dataclass(slots=True)
class Watcher:
    """Looks at the runs of a folder again and again, and reads what is finished only once.

    Attributes:
        store: Where the runs live.
        space: Only this space's, if one is named.
    """

    store: Store
    space: str | None = None
    _finished: dict[Path, Run] = field(default_factory=dict)

    def look(self) -> WatchDocument:
        """How far the runs are now."""
        runs = list(self._runs())
        ended = [run for run in runs if run.result is not None]
        latest = max(ended, key=lambda run: run.result.finished if run.result else "", default=None)
        return {
            "statuses": dict(Counter(run.status for run in runs)),
            "running": [_running(run) for run in runs if run.status == "running"],
            "latest": None if latest is None else _said(latest),
        }

    def _runs(self) -> Iterable[Run]:
        for folder in sorted(
            {path.parent for path in self.store.root.glob(f"{self.space or '*'}/*/job.json")}
        ):
            run = self._finished.get(folder) or self.store.run_in(folder)
            if run is not None:
                if run.status == "finished":
                    self._finished[folder] = run
                yield run


def _running(run: Run) -> RunningRow:
    """What the folder of a training says while it is trained."""
    log = _lines(run.folder / "log.jsonl")
    epochs, done = int(run.job.spec.get("epochs", 0)), len(log)
    began = [line["started"] for line in _lines(run.folder / "attempts.jsonl")[-1:] if "started" in line]
    since = datetime.now(UTC) - datetime.fromisoformat(began[0]) if began else None
    per_epoch = [line["seconds"] for line in log if isinstance(line.get("seconds"), float)]
    left = (epochs - done) * sum(per_epoch) / len(per_epoch) if per_epoch else None
    return {
        "id": run.job.id,
        "space": run.job.space,
        "label": run.job.label,
        "epochs_done": done,
        "epochs": epochs,
        "loss": log[-1].get("loss") if log else None,
        "seconds": since.total_seconds() if since else 0.0,
        "left": left,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file that somebody may be writing."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    read = []
    for text in texts:
        try:
            line = json.loads(text)
        except ValueError:
            break
        if isinstance(line, dict):
            read.append(line)
    return read


def _said(run: Run) -> str:
    values = run.result.values if run.result else {}
    score = values.get("score")
    named = "" if score is None else f": {values.get('score_name') or 'score'} {score:.4g}"
    return f"{run.job.space}/{run.job.name}{named}"


def watch_text(document: WatchDocument) -> str:
    """A line that says how far the runs are, and below it the table of what runs now."""
    order = ("finished", "running", "unfinished", "failed")
    counts = [f"{document['statuses'][name]} {name}" for name in order if name in document["statuses"]]
    line = ", ".join(counts) or "no run was begun yet"
    if document["latest"] is not None:
        line += f"; last finished {document['latest']}"
    rows = tuple(
        (
            f"{row['space']}/{row['label']}-{row['id']}",
            f"{row['epochs_done']}/{row['epochs']}",
            "-" if row["loss"] is None else f"{row['loss']:.3f}",
            duration(row["seconds"]),
            "-" if row["left"] is None else duration(row["left"]),
        )
        for row in document["running"]
    )
    if not rows:
        return line
    table = Table(columns=("running", "epochs", "loss", "for", "left"), align="lrrrr", rows=rows)
    return f"{line}\n{as_text(table)}".rstrip("\n")
