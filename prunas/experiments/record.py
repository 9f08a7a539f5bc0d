"""The records of searches: begun from a plan, stored, read and merged. Torch-free.

`compare` and `plot` read nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunas import live
from prunas.costs.metrics import metric as named_metric
from prunas.errors import InputError, unknown
from prunas.experiments.repeat import command_of, plan_document
from prunas.experiments.search import Plan
from prunas.experiments.steps import few_steps, reads_dense, trains_dense
from prunas.experiments.transfer import stage_notes
from prunas.files import digest, read_json, write_json
from prunas.proposers.registry import entry
from prunas.protocols import SCRATCH
from prunas.results.record import Record
from prunas.runs.store import Store
from prunas.spaces.load import installed_spaces
from prunas.statistics.tables import document
from prunas.tasks.score import Score

__all__ = ["check_known", "committed_evidence", "load_records", "merge", "record_of", "save"]


def record_of(plan: Plan) -> Record:
    """The record of a search that has found nothing yet: what was asked, and what a reader should know."""
    setting, notes = plan.setting, (*plan.setting.notes, *_shared_note(plan))
    if plan.align is not None:
        to, mode = plan.align
        notes += (f"widths were aligned to multiples of {to} ({mode}) after they were proposed",)
    if few := few_steps(setting, plan.protocols, trains_dense(setting, plan.proposers)):
        notes += (few,)
    if plan.source is not None:
        notes += stage_notes(plan.source.space, setting.space, plan.proposers)
    return Record(
        space=setting.space.name,
        data=live.label(setting.data),
        recipe=setting.recipe.name,
        epochs=setting.recipe.epochs,
        setting=setting_digest(plan),
        score=setting.score,
        notes=notes,
        plan=plan_document(plan) | {"command": command_of(plan)},
    )


def _shared_note(plan: Plan) -> tuple[str, ...]:
    """What a reader should know about a search in a given network; nothing if nobody reads its weights."""
    weights = plan.setting.dense_from
    if weights is None or not reads_dense(plan.proposers):
        return ()
    content = f", sha256 {weights.sha256[:12]}" if weights.sha256 else ""
    return (
        f"all seeds share one given dense network ({weights.label}{content}), so intervals speak of retraining "
        "and of what a method draws by its seed, not of searching in other dense networks; which images it was "
        "trained on is not known here",
    )


def setting_digest(plan: Plan) -> str:
    """Twelve hex digits over what rows must share to be compared."""
    setting = plan.setting
    shared: list[Any] = [setting.space.survey.fingerprint, setting.recipe.identity, setting.identity]
    if setting.dense_training != SCRATCH:  # what is found in another dense network is not the same finding
        shared.append(setting.dense_training.name)
    if setting.dense_from is not None:
        shared.append(setting.dense_from.to_json())
    if not setting.task.implied:
        shared.append(setting.task.to_json())
    identities = {named_metric(target.metric).identity for target in plan.targets} - {""}
    shared += sorted(identities)  # budgets of other measurements are other budgets
    if plan.align is not None:
        shared.append(list(plan.align))
    if plan.evaluator is not None:  # what candidates were chosen by decides what was found
        shared.append({"evaluator": plan.evaluator.to_json()})
    return digest(shared)


def save(record: Record, root: Path, figures: Sequence[Path] = (), trained: int = 0) -> Path:
    """Stores a search's document under a name that its plan decides, so that a repeated search replaces it.

    Args:
        record: Of one search.
        root: The folder given as --out.
        figures: Files that were drawn of it.
        trained: Trainings done by the call that made it.
    """
    asked = {key: value for key, value in record.plan.items() if key != "command"}
    path = root / record.space / "searches" / f"{digest([record.setting, asked])}.json"
    write_json(path, document(record, figures, trained))
    return path


def load_records(root: Path, space: str | None = None) -> list[Record]:
    """Every stored search, merged by setting.

    Args:
        root: The folder given as --out.
        space: Only this space's.

    Raises:
        InputError: There is none, one is damaged, or the folder is no store that this version reads.
    """
    Store(root, notice=lambda text: None)
    paths = sorted(root.glob("*/searches/*.json"))
    searched = {path.parent.parent.name for path in paths}
    if space is not None and space not in searched and not (root / space).is_dir():
        check_known(space, searched, root)
    chosen = [path for path in paths if space in (None, path.parent.parent.name)]
    if not chosen:
        what = f"space {space!r}" if space else "any space"
        command = f"prunas search {space}" if space else "prunas search"
        raise InputError(f"{root} holds no finished search of {what}; run `{command}` first")
    return merge([Record.from_document(read_json(path), path) for path in chosen])


def check_known(space: str, stored: Iterable[str], root: Path) -> None:
    """Refuses a name that neither a stored space nor a bundled or installed one has, with the nearest ones.

    Args:
        space: What the user typed.
        stored: Names of the spaces that have something in `root`.
        root: The folder given as --out.

    Raises:
        InputError: Nothing is called so.
    """
    names, offered = set(stored), installed_spaces()[0]
    if space in names or space in offered:
        return
    if names:
        raise unknown(f"space in {root}:", space, names)
    raise unknown("space", space, offered)


def committed_evidence() -> dict[str, Record]:
    """What was measured on the study's questions and committed, by protocol and cell: `reduced/efficiency-left`.

    It lies inside an installed package, or in `benchmarks/reproduce/results` of a checkout.
    """
    package = Path(__file__).parent.parent
    inside = package / "evidence"
    folder = inside if inside.is_dir() else package.parent / "benchmarks" / "reproduce" / "results"
    return {
        f"{path.parent.name}/{path.stem}": Record.from_document(read_json(path), path)
        for path in sorted(folder.glob("*/*.json"))
    }


def merge(records: Iterable[Record]) -> list[Record]:
    """One record per setting; what two searches share is counted once.

    Designs that were carried over from several spaces are told apart by name.
    """
    merged: dict[tuple[str, str, Score], Record] = {}
    for record in _told_apart(list(records)):
        key = (record.space, record.setting, record.score)
        merged[key] = merged.get(key, record).joined(record)
    return list(merged.values())


def _told_apart(records: Sequence[Record]) -> list[Record]:
    """The records, `transferred` renamed to `transferred from SPACE` where a setting has it from several."""
    sources: dict[str, set[tuple[str, bool]]] = {}
    for record in records:
        if source := record.plan.get("source"):
            sources.setdefault(record.setting, set()).add((source["space"], source["shipped"]))
    return [
        _renamed(record) if record.plan.get("source") and len(sources[record.setting]) > 1 else record
        for record in records
    ]


def _renamed(record: Record) -> Record:
    source = record.plan["source"]
    where = source["space"] + (" (shipped)" if source["shipped"] else "")

    def named(name: str) -> str:
        return f"{name} from {where}" if "source" in entry(name).needs else name

    return replace(
        record,
        rows=tuple(replace(row, proposer=named(row.proposer)) for row in record.rows),
        costs=tuple(replace(cost, proposer=named(cost.proposer)) for cost in record.costs),
    )
