"""The study's tables beside ours, doubts about them, and the list of all claims."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reproduce.cells import Cell, Protocol, cells
from benchmarks.reproduce.claims import Claim, Result, bears, load_results
from benchmarks.reproduce.progress import ORDER, value_text
from prunas.statistics.claims import standard_errors
from prunas.statistics.curves import dense_score
from prunas.statistics.inference import score_bounds
from prunas.statistics.summary import Spread, summarise
from prunas.statistics.text import Table, as_markdown

__all__ = ["baselines", "beside", "claims_listed", "doubts", "study"]

WAYS = ("unpruned", "finetune", "scratch-e", "scratch-b")


def study(published: Mapping[str, Any]) -> str:
    parts = [
        "## The study's tables\n",
        f"{published['study']}. {published['runs']}. Test accuracy in percent.\n",
        f"Original: {published['original']}\n",
    ]
    for number, printed in published["tables"].items():
        rows = []
        for key, row in printed["rows"].items():
            cells_ = [_printed(row.get(way)) for way in WAYS]
            original = "-" if row["original"] is None else f"{row['original']:.2f}"
            rows.append((key, original, *cells_))
        made = Table(
            columns=(
                *("network", "unpruned, original", "unpruned, study"),
                *("fine-tuned", "Scratch-E", "Scratch-B"),
            ),
            align="lrrrrr",
            rows=tuple(rows),
        )
        parts += [f"### Table {number}: {printed['method']} ({printed['kind']})\n", as_markdown(made)]
    widths = published["widths"]
    made = Table(
        columns=("layer", "width", "kept", "std"),
        align="rrrr",
        rows=tuple(
            (str(i + 1), str(dense), f"{mean:.1f}", f"{std:.1f}")
            for i, (dense, mean, std) in enumerate(
                zip(widths["dense"], widths["mean"], widths["std"], strict=True)
            )
        ),
    )
    parts += [f"### Table 8: widths that slimming keeps in {widths['model']}\n", as_markdown(made)]
    return "\n".join(parts)


def baselines(published: Mapping[str, Any], reproducing: Sequence[Protocol]) -> Table:
    """The unpruned networks: ours under each protocol, the study's and the original method's."""
    trained: dict[str, dict[str, str]] = {}
    for protocol in reproducing:
        results, ours = load_results(protocol.name), trained.setdefault(protocol.name, {})
        for cell in cells(protocol.name):
            record = results[cell.name].record if cell.name in results else None
            dense = dense_score(record.dense, record.score) if record else None
            if dense is not None:
                ours |= dict.fromkeys(cell.rows, value_text(dense))
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, printed in published["tables"].items():
        for key, row in printed["rows"].items():
            name = key.rpartition("/")[0]
            same = [other for other in printed["rows"] if other.rpartition("/")[0] == name]
            own = [next((ours[k] for k in same if k in ours), "-") for ours in trained.values()]
            original = "-" if row["original"] is None else f"{row['original']:.2f}"
            line = (f"table {number}", name, *own, _printed(row["unpruned"]), original)
            rows.setdefault((number, name), line)
    ours_by = [f"ours, {name}" for name in trained]
    columns = ("printed in", "unpruned network", *ours_by, "the study's", "the original method's")
    return Table(columns=columns, align="ll" + "r" * (len(columns) - 2), rows=tuple(rows.values()))


def beside(published: Mapping[str, Any], own: Sequence[Cell], results: Mapping[str, Result]) -> str:
    """Ours beside the study's, cell by cell, under one protocol."""
    printed = {key: row for each in published["tables"].values() for key, row in each["rows"].items()}
    rows = []
    for cell in own:
        result = results.get(cell.name)
        if result is None or not cell.rows:
            continue
        targets = sorted(
            dict.fromkeys(row.asked for row in result.record.rows), key=lambda target: -target.value
        )
        for key, asked in zip(cell.rows, targets, strict=False):
            for way in WAYS:
                ours = _ours(result, way, asked)
                if ours is None or way not in printed[key]:
                    continue
                mean, std = printed[key][way]
                n = 1 if key.startswith("ImageNet") else 5
                apart = standard_errors(ours, mean, std, n)
                rows.append(
                    (
                        *(key, way, _printed(printed[key][way]), value_text(ours), str(ours.n)),
                        f"{ours.mean - mean:+.2f}",
                        "-" if apart is None else f"{apart:+.1f}",
                    )
                )
    if not rows:
        return ""
    columns = ("network", "how", "study", "ours", "n", "ours - study", "in standard errors")
    return as_markdown(Table(columns=columns, align="llrrrrr", rows=tuple(rows)))


def _ours(result: Result, way: str, asked: Any) -> Spread | None:
    if way == "unpruned":
        return dense_score(result.record.dense, result.record.score)
    values = [
        row.score
        for row in result.record.rows
        if row.protocol == way and row.asked == asked and row.score is not None
    ]
    return summarise(values, score_bounds(result.record.score)) if values else None


def _printed(value: Sequence[float | None] | None) -> str:
    if value is None:
        return "-"
    mean, std = value
    return f"{mean:.2f}" + ("" if std is None else f" ± {std:.2f}")


def doubts(published: Mapping[str, Any]) -> str:
    keys = [f"{number}/{key}" for number, each in published["tables"].items() for key in each["rows"]]
    lines = ["## Doubts about the printed numbers\n"]
    for doubt in published["doubts"]:
        about = [key for key in keys if any(fnmatch.fnmatchcase(key, pattern) for pattern in doubt["rows"])]
        where = f"table {', '.join(dict.fromkeys(pattern[0] for pattern in doubt['rows']))}"
        rows = f" ({', '.join(key.split('/', 2)[2] for key in about)})" if 0 < len(about) <= 2 else ""
        lines.append(f"- {where[0].upper()}{where[1:]}{rows}: {doubt['text']}")
    lines.append("\nThe study's table and the readme of its code disagree in these cells:\n")
    made = Table(
        columns=("network", "table", "readme"),
        align="lrr",
        rows=tuple((c["table"], f"{c['printed']:.2f}", f"{c['readme']:.2f}") for c in published["conflicts"]),
    )
    return "\n".join([*lines, as_markdown(made)])


def claims_listed(claims: Sequence[Claim], published: Mapping[str, Any], margin: float) -> str:
    where = {name: cells(name) for name in ORDER}
    rows = []
    for claim in claims:
        able = [
            f"{name}: {', '.join(names)}"
            for name, own in where.items()
            if (names := [cell.name for cell in own if bears(claim, cell)])
        ]
        missing = "none: needs ImageNet" if claim.about[0].startswith("table") else "none"
        inside, printed = _printed_rows(claim, published, margin)
        told = f"{inside} of {printed} rows" if printed else "-"
        rows.append((claim.id, claim.says, claim.source, claim.kind, told, "; ".join(able) or missing))
    made = Table(
        columns=("id", "claim", "source", "kind", "in the study's own means", "cells"),
        align="llllll",
        rows=tuple(rows),
        notes=(
            "In the study's own means: rows of its tables whose printed means differ as the claim says, with the "
            "margin and without the spread of the runs. - means that it prints no numbers.",
        ),
    )
    return "## All claims, and the cells that bear on them\n\n" + as_markdown(made)


def _printed_rows(claim: Claim, published: Mapping[str, Any], margin: float) -> tuple[int, int]:
    """How many printed rows of the study bear a claim out, and how many there are."""
    inside, differences_ = 0, []
    for number, printed in published["tables"].items():
        for key, row in printed["rows"].items():
            sides = [row.get(side.get("train", "")) for side in (claim.left, claim.right)]
            if f"table {number}" in claim.about and claim.covers(key) and all(sides):
                differences_.append(round(sides[0][0] - sides[1][0], 2))
    floor = margin if claim.relation == "more" else -margin
    inside = sum(each > floor or (claim.relation != "more" and each == floor) for each in differences_)
    return inside, len(differences_)
