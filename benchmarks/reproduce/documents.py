"""What is kept of a cell: one JSON document, written as its trainings end."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import Cell, Dense, Named, data_identity, recipe_of, trainings_of
from benchmarks.reproduce.claims import claims_digest
from benchmarks.reproduce.share import Stored
from prunas.errors import InputError
from prunas.experiments.search import Plan, search
from prunas.files import canonical, digest, read_json, write_json
from prunas.report.evidence import Evidence, gather
from prunas.results.record import Record
from prunas.results.rows import FINISHED
from prunas.runs.store import Result, Store
from prunas.statistics import tables
from prunas.statistics.retraining import crossings

__all__ = [
    "DENSE",
    "HERE",
    "RESULTS",
    "Done",
    "dense_done",
    "evidence_json",
    "made",
    "plan_done",
    "whole",
    "write_cell",
]

HERE = Path(__file__).parent
RESULTS, DENSE = "results", "dense"
"""Folders: of plans, which `prunas advise` reads too, and of cells of dense networks."""


class Done:
    """How far a cell is.

    Attributes:
        complete: Whether nothing of it is missing.
        trainings: Distinct ones that are finished.
        macs: Multiply-accumulates of these.
        seconds: What they took.
        asked: Multiply-accumulates of all that it asks for by now; shapes not found yet are not among it.
    """

    def __init__(
        self, complete: bool, trainings: int, macs: float, seconds: float, asked: float = 0.0
    ) -> None:
        """Of one cell."""
        self.complete, self.trainings, self.macs, self.seconds = complete, trainings, macs, seconds
        self.asked = asked


def plan_done(cell: Cell, plan: Plan, store: Store, into: Path) -> Done:
    """Writes what is finished of a cell into its file, if any of its points is; trains nothing."""
    record = search(plan, store, lambda: Stored(store)).record
    final = [row for row in record.rows if row.status == FINISHED]
    rows = [*final, *(row for row in record.dense if row.status == FINISHED)]
    evidence = gather(store.root, record)
    complete = bool(final) and not record.problems and len(final) == len(record.rows)
    if final:
        document = evidence_json(cell, plan, record, evidence) | {"claims": claims_digest(cell)}
        if complete:
            document["cell"]["complete"] = cell_digest(cell)
        write_cell(into / RESULTS, cell, document)
    once = {row.id: row for row in rows}
    seconds = sum(evidence.runs[name].values.get("seconds", 0.0) for name in once)
    macs = sum(row.train_macs for row in once.values())
    asked = sum({row.id: row.train_macs for row in (*record.rows, *record.dense)}.values())
    return Done(complete, len(once), macs, seconds, asked)


def dense_done(cell: Dense, data: Path | None, store: Store, into: Path) -> Done:
    """The same of a cell of dense networks."""
    wanted = trainings_of(cell, data)
    found = [(*told, store.result(told[-1].job)) for told in wanted]
    there = [(*rest, result) for *rest, result in found if result is not None]
    if there:
        write_cell(into / DENSE, cell, _dense_json(cell, there, len(wanted)))
    seconds = sum(float(result.values["seconds"]) for *_, result in there)
    return Done(
        len(there) == len(wanted), len(there), sum(training.macs for *_, training, _ in there), seconds
    )


def whole(cell: Cell, folder: Path) -> bool:
    """Whether the file of a cell holds all of it, as the grid asks for it now."""
    path = folder / cell.protocol.name / f"{cell.name}.json"
    if not path.exists():
        return False
    document = read_json(path)
    same_data = data_identity(document["data"]) in (None, document.get("data_identity"))
    return same_data and document["cell"].get("complete") == cell_digest(cell)


def cell_digest(cell: Cell) -> str:
    """Names everything that decides what a cell trains, except its data."""
    asked = {each.name: getattr(cell, each.name) for each in fields(cell) if each.name != "protocol"}
    return digest(asked | {"recipe": recipe_of(cell).identity})


def write_cell(folder: Path, cell: Named, document: dict[str, Any]) -> None:
    """Replaces a cell's file where there is news; what its claims were at its first run stays.

    A file with more finished trainings of the same recipe stays as it is: they ran on another machine.
    """
    path = folder / cell.protocol.name / f"{cell.name}.json"
    before: Mapping[str, Any] = {}
    with suppress(InputError):
        before = read_json(path)
    if _finished(before) > _finished(document) and _recipes(before) >= _recipes(document):
        return
    if "claims" in before:
        document["claims"] = before["claims"]
    if before.get("runs") != document["runs"] or before.get("dense") != document.get("dense"):
        write_json(path, document)


def _finished(document: Mapping[str, Any]) -> int:
    """Finished trainings of a file; those of cells of dense networks have no status, for all of them are."""
    runs = (*document.get("runs", ()), *document.get("dense", ()))
    return sum(run.get("status", FINISHED) == FINISHED for run in runs)


def _recipes(document: Mapping[str, Any]) -> set[str]:
    """Those of a file: of its plan, of the file, or of each training."""
    told = (document.get("plan", document).get("recipe"), *(run.get("recipe") for run in document["runs"]))
    return {canonical(each) for each in told if each is not None}


def _dense_json(cell: Dense, there: Sequence[Sequence[Any]], planned: int) -> dict[str, Any]:
    results: list[Result] = [told[-1] for told in there]
    return {
        "runs": [
            {
                "space": space.name,
                "settings": dict(changes),
                "recipe": training.job.spec["recipe"],
                "seed": seed,
                "params": space.cost(space.dense).params,
                "macs": space.cost(space.dense).macs,
                "train_macs": training.macs,
                "seconds": round(float(result.values["seconds"]), 1),
                "scored": cell.scored,
                "score": result.values["score"],
                "folder": training.job.name,
            }
            for space, changes, seed, training, result in there
        ],
        "cell": {"name": cell.name, "protocol": cell.protocol.name, "planned": planned}
        | made([result.values for result in results], [result.machine for result in results]),
    }


def evidence_json(cell: Cell, plan: Plan, record: Record, evidence: Evidence) -> dict[str, Any]:
    """Every row of a cell, and what the run folders add. Nothing in it depends on where they lie."""
    document = tables.document(record)
    for key in ("figures", "trained", "problems", "table", "differences"):
        del document[key]  # the page is made of the rows
    document["plan"] = {key: value for key, value in record.plan.items() if key != "command"}
    for row in (*document["runs"], *document["dense"]):
        row["folder"] = Path(row["folder"]).name
    results = [run.result for run in evidence.runs.values() if run.result]
    document["data_identity"] = plan.setting.identity
    document["cell"] = {
        "name": cell.name,
        "protocol": cell.protocol.name,
        "planned": (1 if cell.preset else len(plan.targets))
        * (len(plan.proposers) * len(plan.protocols) * plan.seeds),
    } | made([result["result"] for result in results], [result.get("machine", {}) for result in results])
    document["agreement"] = [each.to_json() for each in evidence.agreements()]
    document["patterns"] = [each.to_json() for each in evidence.patterns()]
    document["crossings"] = [each.to_json() for each in crossings(evidence.budgets())]
    document["widths"] = [
        {
            "proposer": each.proposer,
            "asked": each.asked.to_json(),
            "n": each.n,
            "mean": each.mean,
            "std": each.std,
        }
        for each in evidence.spreads()
        if each.proposer != "uniform"
    ]
    return document


def made(values: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How long it took, where and when."""
    return {
        "seconds": round(sum(each["seconds"] for each in values), 1),
        "device": sorted({str(each.get("device")) for each in values}),
        "versions": sorted({_versions(machine) for machine in machines}),
        "written": datetime.now(UTC).date().isoformat(),
    }


def _versions(machine: Mapping[str, Any]) -> str:
    named = [f"{key} {machine[key]}" for key in ("prunas", "torch", "python") if key in machine]
    with suppress(KeyError):
        named.append(f"{machine['cpus']} CPUs")
    return ", ".join(named)
