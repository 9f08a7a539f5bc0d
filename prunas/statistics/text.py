"""Tables as text: for the terminal, Markdown and LaTeX with rounded numbers, CSV with exact ones."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from prunas.costs.metrics import metric
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.statistics.flags import flag_note, flags_text
from prunas.statistics.inference import BOOTSTRAP_FROM, LEVEL, bootstrap
from prunas.statistics.summary import CostLine, Difference, Line, Summary
from prunas.statistics.wording import (
    column_head,
    decimals,
    difference_words,
    direction_note,
    number,
    pruned_head,
)
from prunas.tasks.score import Score

__all__ = [
    "Table",
    "as_csv",
    "as_html",
    "as_latex",
    "as_markdown",
    "as_text",
    "asked_text",
    "cost_text",
    "count",
    "difference_table",
    "duration",
    "interval_text",
    "result_table",
    "size_text",
]

_UNITS = ("", "k", "M", "G", "T", "P", "E")
_INTERVAL = f"{100 * LEVEL:.0f} % interval"
_RESAMPLED = f"{100 * LEVEL:.0f} % bootstrap"
_SAME = (
    0.01  # relative: within it a control costs the same, as a point that misses its target by less has met it
)


def count(value: float) -> str:
    """A count in three or four digits with an SI unit: 940, 25.1k, 1.23M, 313.2M, 7.50P."""
    power = 0
    while value / 1000**power >= (999.95 if power else 999.5) and power < len(_UNITS) - 1:
        power += 1
    scaled = value / 1000**power
    decimals = 0 if power == 0 else 2 if scaled < 9.995 else 1
    return f"{scaled:.{decimals}f}{_UNITS[power]}"


def asked_text(asked: Target) -> str:
    """A target as a user types it: `10 %` or `1.2M` of the parameters; another metric is named."""
    suffix = "" if asked.metric == "params" else f" {_metric_label(asked.metric)}"
    return asked.label + suffix


def _metric_label(name: str) -> str:
    """What a metric's numbers are called; of a package that is not installed, its name."""
    try:
        return metric(name).label
    except InputError:
        return name


def duration(seconds: float) -> str:
    """Wall time in two to four digits: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells ready to print.

    Attributes:
        columns: Headings.
        align: One `l` or `r` per column.
        rows: Cells, as many in each row as there are columns.
        notes: Sentences that stand below.
    """

    columns: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses a ragged table."""
        if any(len(part) != len(self.columns) for part in (self.align, *self.rows)):
            raise ValueError(f"every part of the table needs {len(self.columns)} columns")


def result_table(lines: Sequence[Line], score: Score) -> Table:
    """The table of a comparison, one row per line.

    A protocol that all lines share is said once, in a note. Where weights are inherited, a column has the score
    before any retraining. Where a run is flagged, a last column says so.

    Args:
        lines: As `prunas.statistics.summary.table` gives them.
        score: What they are summaries of.
    """
    protocols = [line.protocol + (", masked" if line.masked else "") for line in lines]
    single = len(set(protocols)) == 1
    notes = [f"Trained by {protocols[0]}."] if single else []
    left_out = sum(line.left_out for line in lines)
    if left_out:
        runs = "1 run is" if left_out == 1 else f"{left_out} runs are"
        notes.append(f"{runs} left out: not finished, or not tested.")
    notes += direction_note(score)
    notes += _equal_note(line.score for line in lines)
    inherited = any(line.pruned is not None for line in lines)
    if inherited:
        notes.append(f"Pruned: validation {score.name} right after pruning, before any retraining.")
    flagged = {flag for line in lines for flag in line.flags}
    notes += [note] if (note := flag_note(flagged, score)) else []
    rows = []
    for line, protocol in zip(lines, protocols, strict=True):
        who = (asked_text(line.asked), line.proposer, line.kind, *([] if single else [protocol]))
        cost = count(line.params), count(line.macs)
        marks = [flags_text(line.flags, line.score.n if line.score else line.left_out)] if flagged else []
        before = ["-" if line.pruned is None else number(line.pruned, score)] if inherited else []
        rows.append(
            (*who, *cost, *before, *_summary_cells(line.score, score), count(line.train_macs), *marks)
        )
    return Table(
        columns=(
            *("asked", "proposer", "kind", *([] if single else ["protocol"])),
            *("params", "MACs", *([pruned_head(score)] if inherited else [])),
            *(column_head(score), "std", "n", _INTERVAL, "train MACs"),
            *(["flags"] if flagged else []),
        ),
        align="lll"
        + ("" if single else "l")
        + "rr"
        + ("r" if inherited else "")
        + "rrrlr"
        + ("l" if flagged else ""),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def difference_table(differences: Sequence[Difference], score: Score) -> Table:
    """Paired gains in the test score, one row per target; with a bootstrap interval if n allows it.

    Args:
        differences: What stands in the table, its p values corrected over all of it; see `comparisons`. Where a
            control costs more or less than the points it is compared with, a last column says how much.
        score: What they are gains in.
    """
    resampled = any(each.summary.n >= BOOTSTRAP_FROM for each in differences)
    rows = "its one row" if len(differences) == 1 else f"all {len(differences)} rows of this table"
    notes = [
        f"Differences of {difference_words(score)}, paired by search seed; "
        f"p of a t test, corrected over {rows} (Holm).",
        *_equal_note(each.summary for each in differences),
    ]
    sizes = [size_text(each.params_off, each.macs_off) for each in differences]
    if any(sizes):
        notes.append(
            "Control's size: what it has more or less than the point it is compared with, in the pair that is "
            "furthest apart, if over 1 %."
        )
    return Table(
        columns=(
            *("asked", "proposer", "against", "protocol", "difference", "std", "n", _INTERVAL),
            *([_RESAMPLED] if resampled else []),
            "p",
            *(["control's size"] if any(sizes) else []),
        ),
        align="llllrrrl" + ("l" if resampled else "") + "r" + ("l" if any(sizes) else ""),
        rows=tuple(
            (
                asked_text(each.asked),
                each.proposer,
                each.against,
                each.protocol + (", masked" if each.masked else ""),
                *_summary_cells(each.summary, score, sign="+"),
                *([_interval(bootstrap(each.values), "+", decimals(score))] if resampled else []),
                "-" if each.p_holm is None else f"{each.p_holm:.3f}",
                *([size] if any(sizes) else []),
            )
            for each, size in zip(differences, sizes, strict=True)
        ),
        notes=tuple(notes),
    )


def size_text(params_off: float, macs_off: float) -> str:
    """How a control's cost differs from that of what it is compared with: `+2.4 % MACs`; empty within 1 %.

    Args:
        params_off: Its parameters over the other's, minus 1.
        macs_off: The same of the multiply-accumulates.
    """
    parts = ((params_off, "params"), (macs_off, "MACs"))
    return ", ".join(f"{100 * off:+.1f} % {metric}" for off, metric in parts if abs(off) > _SAME)


def cost_text(lines: Sequence[CostLine]) -> Table:
    """What finding the points cost and what that is spread over, one row per proposer."""
    rows = []
    for line in lines:
        price = f"{line.trainings:.4g}", count(line.macs), duration(line.seconds)
        if not line.complete:
            price = ("unknown", "unknown", "unknown")
        spread = (
            "-" if each is None else f"{each:.4g}" for each in (line.targets, line.seeds, line.together)
        )
        rows.append((line.proposer, str(line.n), *price, *spread))
    notes = [
        "Mean price of one search: every training that its answers rest on, those of the searches it answers "
        "included, shared ones once; final trainings are not in it. It is spread over so many targets, and holds "
        "trainings of so many search seeds; in all: the trainings behind all its searches, shared ones once."
    ]
    if not all(line.complete for line in lines):
        notes.append("Unknown: it rests on shipped shapes, whose searches nobody priced.")
    return Table(
        columns=("proposer", "searches", "trainings", "MACs", "time", "targets", "seeds", "trainings in all"),
        align="lrrrrrrr",
        rows=tuple(rows),
        notes=tuple(notes),
    )


def interval_text(summary: Summary, sign: str = "", scale: float = 1.0, digits: int = 2) -> str:
    """A summary's interval, or `-` if it has none.

    Args:
        summary: The summary.
        sign: `+` to write the sign of numbers above 0 too.
        scale: Multiplies the ends; 100 writes a fraction in percent.
        digits: Behind the point.
    """
    if summary.low is None or summary.high is None:
        return "-"
    return _interval((scale * summary.low, scale * summary.high), sign, digits)


def as_text(table: Table) -> str:
    """Aligned columns for a terminal; a first cell equal to the one above it is left blank."""
    shown = []
    above = None
    for row in table.rows:
        shown.append(("" if row[0] == above else row[0], *row[1:]))
        above = row[0]
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    lines = [table.columns, tuple("-" * width for width in widths), *shown]
    text = ["  ".join(map(_pad, line, widths, table.align)).rstrip() for line in lines]
    return "\n".join([*text, *table.notes]) + "\n"


def as_html(table: Table) -> str:
    """A table for a notebook, its notes below."""

    def row(cells: Iterable[str], tag: str) -> str:
        sides = {"l": "left", "r": "right"}
        return "".join(
            f'<{tag} style="text-align:{sides[side]}">{escape(cell)}</{tag}>'
            for cell, side in zip(cells, table.align, strict=True)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in table.notes)
    return f"<table><thead><tr>{row(table.columns, 'th')}</tr></thead><tbody>{body}</tbody></table>{notes}"


def as_markdown(table: Table) -> str:
    """A GitHub table."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (table.columns, *table.rows)]
    rule = ["--:" if align == "r" else ":--" for align in table.align]
    lines = [f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)]) + "\n"


def as_latex(table: Table) -> str:
    """A `tabular` with the rules of the booktabs package; notes become comments."""
    head, *body = (" & ".join(map(_latex, row)) + r" \\" for row in (table.columns, *table.rows))
    lines = [rf"\begin{{tabular}}{{{table.align}}}", r"\toprule", head, r"\midrule", *body]
    notes = [f"% {note}" for note in table.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"


def as_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """What `to_json` of lines, differences, costs or rows gave, unrounded, under one heading.

    A mapping inside a record becomes columns of its own (`asked.value`), a list one cell separated by spaces,
    None an empty cell, and so does a column that only other records have (`flags.target_missed`).
    """
    flat = [_flat(record) for record in records]
    file = io.StringIO()
    if flat:
        columns = dict.fromkeys(column for record in flat for column in record)
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    return file.getvalue()


def _summary_cells(summary: Summary | None, score: Score, sign: str = "") -> tuple[str, str, str, str]:
    if summary is None:
        return "-", "-", "0", "-"
    std = "-" if summary.std is None else number(summary.std, score)
    interval = interval_text(summary, sign, digits=decimals(score))
    return number(summary.mean, score, sign), std, str(summary.n), interval


def _equal_note(summaries: Iterable[Summary | None]) -> list[str]:
    """Why a row of several values has no interval, if one has none."""
    if any(each is not None and each.n > 1 and each.low is None for each in summaries):
        return ["No interval where all values are equal: they do not tell how far others would lie."]
    return []


def _interval(ends: tuple[float, float] | None, sign: str = "", digits: int = 2) -> str:
    return "-" if ends is None else f"[{ends[0]:{sign}.{digits}f}, {ends[1]:{sign}.{digits}f}]"


def _pad(cell: str, width: int, align: str) -> str:
    return cell.rjust(width) if align == "r" else cell.ljust(width)


_LATEX = str.maketrans(
    {character: "\\" + character for character in "%&_#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _latex(cell: str) -> str:
    return cell.translate(_LATEX)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": content for inner, content in value.items()}
        elif isinstance(value, list | tuple):
            flat[key] = " ".join(map(str, value))
        else:
            flat[key] = value
    return flat
