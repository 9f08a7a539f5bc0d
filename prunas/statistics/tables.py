"""What a record says in tables, and the document that keeps them beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prunas import SCHEMA
from prunas.names import SEARCHERS
from prunas.results.record import Record
from prunas.statistics import summary, text
from prunas.statistics.alignment import alignment_table

__all__ = ["differences", "document", "rivalries", "tables"]


def differences(record: Record) -> list[summary.Difference]:
    """What was found against the tapered shape with its params and MACs, paired by seed."""
    finders = [row.proposer for row in record.rows if row.kind in SEARCHERS]
    return summary.comparisons(record.rows, list(dict.fromkeys(finders)), score=record.score)


def rivalries(record: Record) -> list[list[summary.Difference]]:
    """What each method found against the controls with its evaluator and as many evaluations, by seed."""
    rivals: dict[str, list[str]] = {}
    for name in dict.fromkeys(row.proposer for row in record.rows):
        _, at, method = name.partition("@")
        if at:
            rivals.setdefault(method, []).append(name)
    compared = [
        summary.comparisons(record.rows, [m], names, score=record.score) for m, names in rivals.items()
    ]
    return [differences for differences in compared if differences]


def document(record: Record, figures: Sequence[Path] = (), trained: int = 0) -> dict[str, Any]:
    """The record as `--json` prints it and as it is stored, with the statistics of its rows.

    Args:
        record: The record.
        figures: Files that were drawn of it.
        trained: Trainings done by the call that made it.
    """
    return {
        "schema": SCHEMA,
        **record.to_json(),
        "table": [line.to_json() for line in summary.table(record.rows, record.score)],
        "differences": [
            difference.to_json()
            for compared in (differences(record), *rivalries(record))
            for difference in compared
        ],
        "figures": [str(path) for path in figures],
        "trained": trained,
    }


def tables(
    record: Record,
    write: Callable[[text.Table], str] = text.as_text,
    extended: Callable[[text.Table], text.Table] = lambda table: table,
) -> str:
    """The tables a person reads.

    Args:
        record: The record.
        write: Writes one table: `as_text`, `as_markdown` or `as_latex` of `prunas.statistics.text`.
        extended: Adds columns to the table of results, such as measured latency.
    """
    results = text.result_table(summary.table(record.rows, record.score), record.score)
    parts = [write(extended(results))]
    if compared := differences(record):
        parts.append(write(text.difference_table(compared, record.score)))
    parts += [write(text.difference_table(compared, record.score)) for compared in rivalries(record)]
    if record.costs:
        parts.append(write(text.cost_text(summary.cost_table(record.costs))))
    if any(row.proposed for row in record.rows):
        parts.append(write(alignment_table(record.rows)))
    return "\n".join(parts)
