"""What came of it: runs, tables, the report."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, Latency, Out, StoredSpace, TimedBatch, TimedOn
from prunas.cli.output import check_file, print_json, print_rows, say
from prunas.errors import InputError, unknown

if TYPE_CHECKING:
    from prunas.cli.documents import RunRow
    from prunas.inspection.latency import Latency as Timed
    from prunas.report.evidence import Evidence
    from prunas.results.record import Record

__all__ = ["compare", "evidence_of", "figure_folders", "optuna", "report", "runs"]


def runs(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Every training that was begun, and how far it is."""
    from prunas.runs.store import Store

    store = Store(out, notice=say)
    if space is not None and not (out / space).is_dir():
        from prunas.experiments.record import check_known

        check_known(space, {path.parent.parent.name for path in out.glob("*/*/job.json")}, out)
    rows: list[RunRow] = []
    for run in store.runs(space):
        values = run.result.values if run.result else {}
        rows.append(
            {
                "id": run.job.id,
                "space": run.job.space,
                "label": run.job.label,
                "status": run.status,
                "score": values.get("score"),
                "seconds": values.get("seconds"),
                "folder": str(run.folder),
                "error": run.error,
            }
        )
    print_rows(rows, as_json, hide=("folder",))


def compare(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    markdown: Annotated[bool, typer.Option("--markdown", hidden=True)] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="text, the default; markdown, latex, or csv: one line per target, unrounded."
        ),
    ] = None,
    latency: Latency = False,
    batch: TimedBatch = 1,
    device: TimedOn = None,
    as_json: Json = False,
) -> None:
    """Tables of everything that finished searches found; one table per space, recipe and data set."""
    from prunas.experiments.record import load_records
    from prunas.statistics import tables, text
    from prunas.statistics.patterns import pattern_table
    from prunas.statistics.summary import table
    from prunas.statistics.widths import agreement_table

    writers = {"text": text.as_text, "markdown": text.as_markdown, "latex": text.as_latex, "csv": None}
    if markdown:
        raise InputError("--markdown is gone; use --format markdown")
    form = form or "text"
    if form not in writers:
        raise unknown("format", form, writers)
    records = load_records(out, space)
    write = writers[form]
    if write is None and not as_json:
        lines = [
            {"space": record.space, "setting": record.setting} | line.to_json()
            for record in records
            for line in table(record.rows, record.score)
        ]
        typer.echo(text.as_csv(lines), nl=False)
        return
    found = [evidence for _, evidence in evidence_of(out, space)]
    timed: list[Mapping[str, Timed]] = [{} for _ in records]
    if latency:
        from prunas.inspection.latency import latency_of_rows, place, with_latency

        where = place(device)
        timed = [latency_of_rows(r.rows, out / r.space, batch=batch, device=where) for r in records]
    if as_json:
        documents = [tables.document(record) for record in records]
        for document, evidence in zip(documents, found, strict=True):
            document["agreement"] = [each.to_json() for each in evidence.agreements()]
            document["patterns"] = [each.to_json() for each in evidence.patterns()]
        for document, times in zip(documents, timed, strict=True):
            document |= {"latency": [time.to_json() for time in times.values()]} if latency else {}
        print_json({"schema": SCHEMA, "records": documents})
        return
    assert write is not None
    for record, times, evidence in zip(records, timed, found, strict=True):
        typer.echo(f"{record.space} on {record.data}, recipe {record.recipe} ({record.epochs} epochs)\n")
        if times:
            typer.echo(
                tables.tables(
                    record, write, partial(with_latency, rows=record.rows, timed=times, score=record.score)
                )
            )
        else:
            typer.echo(tables.tables(record, write))
        if agreements := evidence.search_agreements():
            typer.echo(write(agreement_table(agreements)))
        if patterns := evidence.patterns():
            typer.echo(write(pattern_table(patterns)))


def optuna(
    storage: Annotated[
        str, typer.Option("--storage", help="Such as sqlite:///studies.db or postgresql://user@host/name.")
    ],
    space: StoredSpace = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write what samplers tried as Optuna studies, anew at every call; optuna-dashboard shows them."""
    from prunas.experiments.optuna_studies import open_storage, write_studies
    from prunas.experiments.record import load_records

    records = load_records(out, space)
    if not any(record.trials for record in records):
        raise InputError(
            f"no search in {out} tried candidates, so there are no studies to write; run a sampler first, as in "
            "`prunas search --proposer tpe`"
        )
    written = write_studies(records, out, open_storage(storage))
    if as_json:
        print_json({"schema": SCHEMA, "studies": [study._asdict() for study in written]})
    else:
        print_rows([study._asdict() for study in written], False)


def report(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    to: Annotated[Path, typer.Option("--to", help="The HTML file.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """One HTML file with findings, tables, figures and how far to trust them; it needs no network."""
    from prunas.files import write_atomic
    from prunas.report.headline import findings
    from prunas.report.page import page

    check_file(to, "--to")
    evidence = [each for _, each in evidence_of(out, space)]
    document = page(evidence, out).encode()
    write_atomic(to, lambda file: file.write(document))
    found = [finding for each in evidence for finding in findings(each.rows, each.dense_mean, each.score)]
    if as_json:
        sentences = [finding.sentence for finding in found]
        runs = sum(len(each.rows) for each in evidence)
        print_json({"schema": SCHEMA, "file": str(to), "runs": runs, "findings": sentences})
    else:
        for finding in found[:1]:
            typer.echo(finding.sentence)
        typer.echo(str(to))


def evidence_of(out: Path, space: str | None) -> list[tuple[Path, "Evidence"]]:
    """Every setting with the folder of its figures."""
    from prunas.experiments.record import load_records
    from prunas.report.evidence import gather

    records = load_records(out, space)
    evidence = [gather(out, record) for record in records]
    return list(zip(figure_folders(out, records), evidence, strict=True))


def figure_folders(out: Path, records: "Sequence[Record]") -> list[Path]:
    """Where the figures of each record go: one folder per space, and per setting where a space has several."""
    spaces = [record.space for record in records]
    folders = [out / space / "figures" for space in spaces]
    return [
        folder / record.setting if spaces.count(record.space) > 1 else folder
        for folder, record in zip(folders, records, strict=True)
    ]
