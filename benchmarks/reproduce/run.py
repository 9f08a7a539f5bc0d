"""Trains cell after cell until the time is up; the next call continues where this one stopped."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import Cell, cells, plan_of
from prunas.errors import InputError
from prunas.experiments.record import save
from prunas.experiments.search import Plan, search
from prunas.files import write_json
from prunas.report.evidence import Evidence, gather
from prunas.results.record import Record
from prunas.results.rows import FINISHED
from prunas.runs.executors import chosen, parsed_options, silent
from prunas.runs.executors import executor as open_executor
from prunas.runs.signals import stopping
from prunas.runs.store import Store
from prunas.statistics import tables
from prunas.statistics.retraining import crossings

__all__ = ["RESULTS", "evidence_json", "run"]

RESULTS = Path(__file__).parent / "results"


def run(
    protocol: str,
    *,
    minutes: float,
    data: Path | None,
    out: Path,
    executor: str,
    workers: int | None,
    settings: list[str],
    only: str | None = None,
    say: Callable[[str], None] = print,
) -> bool:
    """Trains what is missing of a protocol's cells, in their order, and writes one JSON file for each.

    Args:
        protocol: `short`, `paper` or `reduced`.
        minutes: After so long trainings are asked to save and stop.
        data: Folder of the data sets.
        out: Folder that holds all runs.
        executor: Who executes trainings, as of `prunas search`.
        workers: Trainings at a time.
        settings: `KEY=VALUE` settings of the executor.
        only: Name of the only cell to train.
        say: Told what goes on.

    Returns:
        Whether all of it is there.

    Raises:
        InputError: Something cannot be read, or there is no such cell.
    """
    wanted = [cell for cell in cells(protocol) if only in (None, cell.name)]
    if not wanted:
        raise InputError(f"protocol {protocol!r} has no cell {only!r}")
    name, chosen_options = chosen(executor, workers, parsed_options(settings))
    end = time.monotonic() + 60 * minutes
    store, complete = Store(out, notice=say), True
    with stopping() as stopped:

        def stop() -> bool:
            return stopped() or time.monotonic() >= end

        def make() -> Any:
            return open_executor(name, store, silent, stop, **chosen_options)

        for cell in wanted:
            if stop():
                return False
            try:
                done = _cell(cell, data, store, make)
            except InputError as error:
                if not stop():
                    say(f"{cell.name_in_full}: {error}")
                done = False
            complete &= done
            say(f"{cell.name_in_full}: {'complete' if done else 'not complete'}")
    return complete


def _cell(cell: Cell, data: Path | None, store: Store, make: Callable[[], Any]) -> bool:
    plan, _ = plan_of(cell, data, store, make)
    record = search(plan, store, make).record
    save(record, store.root)
    rows = [row for row in record.rows if row.status == FINISHED]
    if rows:
        document = evidence_json(cell, plan, record, gather(store.root, record))
        write_json(RESULTS / cell.protocol.name / f"{cell.name}.json", document)
    return bool(rows) and len(rows) == len(record.rows) and not record.problems


def evidence_json(cell: Cell, plan: Plan, record: Record, evidence: Evidence) -> dict[str, Any]:
    """What is kept of a cell: every row, and what the run folders add. Nothing in it depends on where they lie."""
    document = tables.document(record)
    for key in ("figures", "trained", "problems", "table", "differences"):
        del document[key]  # the page is made of the rows
    document["plan"] = {key: value for key, value in record.plan.items() if key != "command"}
    for row in (*document["runs"], *document["dense"]):
        row["folder"] = Path(row["folder"]).name
    results = [run.result for run in evidence.runs.values() if run.result]
    machines = [result.get("machine", {}) for result in results]
    document["cell"] = {
        "name": cell.name,
        "protocol": cell.protocol.name,
        "planned": (1 if cell.preset else len(plan.targets))
        * (len(plan.proposers) * len(plan.protocols) * plan.seeds),
        "seconds": round(sum(result["result"]["seconds"] for result in results), 1),
        "device": sorted({str(result["result"].get("device")) for result in results}),
        "versions": sorted({_versions(machine) for machine in machines}),
        "written": datetime.now(UTC).date().isoformat(),
    }
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


def _versions(machine: Mapping[str, Any]) -> str:
    named = [f"{key} {machine[key]}" for key in ("prunas", "torch", "python") if key in machine]
    with suppress(KeyError):
        named.append(f"{machine['cpus']} CPUs")
    return ", ".join(named)
