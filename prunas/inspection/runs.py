"""One run looked at by its folder: how it was trained, and how far it came. Torch-free."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from prunas.architecture import Architecture
from prunas.errors import InputError, unknown
from prunas.results.record import Record
from prunas.results.rows import TrainingRow
from prunas.runs.store import Run, Store
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.statistics.flags import count_flags, flags_text
from prunas.statistics.text import asked_text, duration
from prunas.statistics.wording import value_text
from prunas.tasks.score import Score

__all__ = ["Records", "RunDocument", "ShownRun", "is_run", "run_folder", "shown_run"]

Records = Callable[[Path, str], Sequence[Record]]
"""Reads the stored searches of a space in a folder of runs."""

_ID = re.compile(r"(.+-)?[0-9a-f]{12}")


class RunDocument(TypedDict):
    """One training: what it is, how far it came, and for whom it was trained.

    Where no stored search names it, nobody `proposed` it here; before the end there is no score.
    """

    id: str
    name: str
    folder: str
    status: str
    protocol: str
    split: str
    score: float | None
    score_name: str
    epochs: int
    epochs_done: int
    seed: int
    seconds: float | None
    finished: str | None
    device: str | None
    proposed: list[str]
    error: str | None


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A training with the point it trains.

    Attributes:
        space: Its search space, as the training knew it.
        architecture: The point.
        document: What is known of the training.
        text: The same for a person, some lines.
    """

    space: SearchSpace
    architecture: Architecture
    document: RunDocument
    text: str


def is_run(what: str, root: Path) -> bool:
    """Whether a user means a run: a folder with a job in it, an id, or the name of such a folder in `root`.

    Args:
        what: What was typed.
        root: The folder that holds all runs.
    """
    if (Path(what) / "job.json").is_file():
        return True
    return bool(_ID.fullmatch(what)) and any(root.glob(f"*/*{what}/job.json"))


def run_folder(what: str, root: Path, hint: str = "") -> Path:
    """The folder of a run.

    Args:
        what: The folder, the run's id, or the name of its folder.
        root: The folder that holds all runs, for an id or a name.
        hint: What else a user may have meant, for the message.

    Raises:
        InputError: There is no such run, or `root` is no store that this version reads.
    """
    if (Path(what) / "job.json").is_file():
        return Path(what)
    Store(root, notice=lambda text: None)
    folders = {path.parent for path in root.glob("*/*/job.json")}
    named = [path for path in folders if what in (path.name, path.name.rpartition("-")[2])]
    if not named:
        raise InputError(f"{unknown(f'run in {root}:', what, [path.name for path in folders])}{hint}")
    return named[0]


def shown_run(what: str, root: Path, records: Records) -> ShownRun:
    """A training by its folder, finished or not.

    Args:
        what: The run's folder, its id, or the name of its folder.
        root: The folder that holds all runs, for an id or a name.
        records: Reads the searches that may name it; an `InputError` of it means there are none.

    Raises:
        InputError: There is no such run, or it is a work that trains no network.
    """
    folder = run_folder(what, root)
    store = Store(folder.parent.parent, notice=lambda text: None)
    run = store.run_in(folder)
    if run is None:
        raise InputError(f"{folder / 'job.json'} is damaged; repeat the command that began the run")
    if "architecture" not in run.job.spec:
        raise InputError(f"run {run.job.name} is {run.job.work!r} and trains no network; name a training")
    spec = run.job.spec
    named, score = _named(records, store.root, run)
    values: dict[str, Any] = dict(run.result.values) if run.result else {}
    document: RunDocument = {
        "id": run.job.id,
        "name": run.job.name,
        "folder": str(folder),
        "status": run.status,
        "protocol": run.job.label,
        "split": spec.get("score", ""),
        "score": values.get("score"),
        "score_name": values.get("score_name", score.name if score else ""),
        "epochs": spec.get("epochs", 0),
        "epochs_done": _epochs_done(folder),
        "seed": spec.get("seed", 0),
        "seconds": run.result.seconds if run.result else None,
        "finished": run.result.finished if run.result else None,
        "device": values.get("device"),
        "proposed": [_words(row, score) for row in named],
        "error": run.error,
    }
    arch = Architecture.from_json(spec["architecture"])
    return ShownRun(load_space(spec["space"]), arch, document, _text(document, score, spec))


def _named(records: Records, root: Path, run: Run) -> tuple[list[TrainingRow], Score | None]:
    """The rows of stored searches that this training is, and what their score means."""
    rows: list[TrainingRow] = []
    score = None
    with suppress(InputError):  # no search of this space has ended yet, or one is damaged
        for record in records(root, run.job.space):
            named = [row for row in (*record.rows, *record.dense) if row.id == run.job.id]
            rows += named
            if named:
                score = record.score
    return rows, score


def _words(row: TrainingRow, score: Score | None) -> str:
    """Who proposed a point, and what a reader must know of it."""
    flags = flags_text(count_flags([row], score), 1) if score and row.all_flags(score) else ""
    return f"{row.proposer} at {asked_text(row.asked)}" + (f" ({flags})" if flags else "")


def _epochs_done(folder: Path) -> int:
    """Epochs in the log of a run."""
    try:
        return len((folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    except OSError:
        return 0


def _text(document: RunDocument, score: Score | None, spec: Any) -> str:
    done = document["epochs_done"]
    ended = f" {document['finished']} in {duration(document['seconds'])}" if document["seconds"] else ""
    so_far = "" if document["status"] == "finished" else f", {done} of {document['epochs']} epochs done"
    lines = [f"run {document['name']}: {document['status']}{ended}{so_far}"]
    if document["score"] is not None:
        value = f"{document['score']:.4g}" if score is None else value_text(document["score"], score)
        lines.append(f"{document['split']} {document['score_name'] or 'score'} {value}")
    where = f" on {document['device']}" if document["device"] else ""
    recipe = spec.get("recipe", {})
    settings = [f"{key} {recipe[key]}" for key in ("batch", "lr", "schedule", "precision") if key in recipe]
    lines.append(
        f"{document['protocol']}, {document['epochs']} epochs{where}, seed {document['seed']}"
        + (f", {', '.join(settings)}" if settings else "")
    )
    lines += [f"proposed by {words}" for words in document["proposed"]]
    if document["error"]:
        lines.append(f"error: {document['error']}")
    return "\n".join([*lines, document["folder"]])
