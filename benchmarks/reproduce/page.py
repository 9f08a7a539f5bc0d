"""Tables, figures and this folder's README, from the committed results alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import Cell, Dense, Protocol, cells, every_cell, protocols
from benchmarks.reproduce.claims import Result, Verdict, corrected, load_claims, load_results, verdicts
from benchmarks.reproduce.dense import dense_results, dense_table
from benchmarks.reproduce.progress import ORDER, critics_heard, device_text, far, planned, progress, unpruned
from benchmarks.reproduce.study import baselines, beside, claims_listed, doubts, study
from benchmarks.reproduce.texts import ABOUT, INTRODUCTION
from prunas.report.budget import budget_figure
from prunas.report.figure import save
from prunas.statistics.curves import curves, dense_score, undrawn
from prunas.statistics.retraining import courses, retraining_table
from prunas.statistics.summary import comparisons, table
from prunas.statistics.text import Table, as_markdown, difference_table, duration, interval_text, result_table

__all__ = ["README", "draw", "judged", "page", "retire", "summary"]

HERE = Path(__file__).parent
README = HERE / "README.md"
KINDS = {"predefined": "Predefined widths", "automatic": "Found by the method"}


def page() -> str:
    """The README of this folder."""
    margins, claims = load_claims()
    published = json.loads((HERE / "published.json").read_text(encoding="utf-8"))
    known = protocols()
    ordered = [known[name] for name in ORDER]
    own_margins = ", ".join(f"{margin} of the protocol {name}" for name, margin in margins.own.items())
    parts = [
        INTRODUCTION.format(
            margin=margins.usual,
            margins=own_margins,
            protocols="\n".join(f"- **{each.name}**: {each.says}; {each.seeds} seeds." for each in ordered),
            planned=planned(),
        ),
        "## What is done\n",
        as_markdown(progress(ordered)),
    ]
    by_protocol = judged()
    parts.append(critics_heard(by_protocol))
    for protocol in ordered:
        results = load_results(protocol.name)
        if results or dense_results(protocol.name):
            parts.append(_section(protocol, results, by_protocol[protocol.name]))
    parts.append(study(published))
    reproducing = [each for each in ordered if any(cell.rows for cell in cells(each.name))]
    parts += ["### Unpruned networks\n", as_markdown(baselines(published, reproducing))]
    for protocol in reproducing:
        if ours := beside(published, cells(protocol.name), load_results(protocol.name)):
            parts += [f"### Beside the study: {protocol.name}\n", ours]
    parts += [doubts(published), claims_listed(claims, published, margins.usual)]
    return "\n".join(parts)


def judged() -> dict[str, list[Verdict]]:
    """Every verdict of the page by protocol, corrected for all of them."""
    margins, claims = load_claims()
    alone = {name: verdicts(claims, cells(name), load_results(name), margins.of(name)) for name in ORDER}
    together = iter(corrected([verdict for some in alone.values() for verdict in some]))
    return {name: [next(together) for _ in some] for name, some in alone.items()}


def summary(cell: str = "efficiency-left") -> str:
    """What the repository's README tells of one cell: how far it is, its results, the claims judged on it."""
    name = next(name for name in ORDER if cell in load_results(name))
    result = load_results(name)[cell]
    some = [each for each in judged()[name] if each.cell == cell and each.judgement != "not run"]
    record = result.record
    shown = next(each.shows for each in cells(name) if each.name == cell)
    parts = [f"Protocol `{name}`: {protocols()[name].says}. {far(result)} {unpruned(result)}".rstrip() + "\n"]
    if _figure(result) is not None:
        parts.append(f"![{', '.join(shown)}](benchmarks/reproduce/figures/{name}-{cell}.png)\n")
    if record.rows:
        parts.append(as_markdown(result_table(table(record.rows, record.score), record.score)))
    if some:
        parts.append(as_markdown(_verdict_table(some)))
    return "\n".join(parts)


def retire(results: Path = HERE / "results", figures: Path = HERE / "figures") -> list[str]:
    """Removes what the protocol `early` has of cells of which `reduced` has results by now, and names it."""
    gone = []
    for path in sorted((results / "early").glob("*.json")):
        if (results / "reduced" / path.name).exists():
            path.unlink()
            for suffix in ("svg", "png"):
                (figures / f"early-{path.stem}.{suffix}").unlink(missing_ok=True)
            gone.append(path.stem)
    return gone


def draw(folder: Path = HERE / "figures") -> list[Path]:
    """Every figure of the committed results, as SVG and PNG."""
    paths: list[Path] = []
    for protocol in ORDER:
        for name, result in load_results(protocol).items():
            if (figure := _figure(result)) is not None:
                paths += save(figure, folder, f"{protocol}-{name}")
    return paths


def _figure(result: Result) -> Any:
    """The figure of a cell; None where there is nothing to draw yet."""
    record = result.record
    if found := courses(record.rows, record.score):
        return budget_figure(found, setting=_setting(result))
    if not (drawn := curves(record.rows, record.score)):
        return None
    from prunas.report.efficiency import efficiency_figure

    dense = dense_score(record.dense, record.score)
    return efficiency_figure(
        drawn,
        space=record.space,
        data=record.data,
        recipe=f"{record.recipe}, protocol {result.cell['protocol']}, {device_text(result)}",
        epochs=record.epochs,
        score=record.score,
        dense=dense.mean if dense else None,
        left_out=undrawn(record.rows, record.score),
    )


def _setting(result: Result) -> str:
    record = result.record
    return (
        f"{record.space} on {record.data}, recipe {record.recipe} ({record.epochs} epochs), protocol "
        f"{result.cell['protocol']}, {device_text(result)}"
    )


# One protocol


def _section(protocol: Protocol, results: Mapping[str, Result], own: Sequence[Verdict]) -> str:
    parts = [f"## Protocol {protocol.name}\n", f"{protocol.says[0].upper()}{protocol.says[1:]}.\n"]
    parts += [ABOUT[protocol.name]] if protocol.name in ABOUT else []
    for kind, heading in KINDS.items():
        if some := [each for each in own if each.claim.kind == kind and each.judgement != "not run"]:
            parts += [f"### {heading}: the claims\n", as_markdown(_verdict_table(some))]
    dense = dense_results(protocol.name)
    for cell in every_cell(protocol.name):
        if isinstance(cell, Dense):
            if (sweep := dense.get(cell.name)) is not None:
                parts += [f"### {cell.name}\n", sweep.about(_command(cell)), as_markdown(dense_table(sweep))]
        elif (result := results.get(cell.name)) is not None:
            parts += _cell(cell, result)
    return "\n".join(parts)


def _cell(cell: Cell, result: Result) -> list[str]:
    """What came of one plan."""
    rows, score = result.record.rows, result.record.score
    parts = [f"### {cell.name}\n", _about(cell, result)]
    if _figure(result) is not None:
        parts.append(f"![{', '.join(cell.shows)}](figures/{cell.protocol.name}-{cell.name}.png)\n")
    found = courses(rows, score)
    if found:
        parts.append(as_markdown(retraining_table(found)))
    others = [row for row in rows if not found or row.protocol in cell.also]
    if others:
        parts.append(as_markdown(result_table(table(others, score), score)))
    found_by = dict.fromkeys(row.proposer for row in rows if row.kind not in ("control", "dense"))
    paired = comparisons(rows, list(found_by), ("uniform", "uniform-kernel", "taper"), score=score)
    if paired and not found:
        parts.append(as_markdown(difference_table(paired, score)))
    return parts


def _command(cell: Cell | Dense) -> str:
    chosen = f"--protocol {cell.protocol.name} --cell {cell.name}"
    return f"python -m benchmarks.reproduce {chosen} --data DIR --out DIR"


def _about(cell: Cell, result: Result) -> str:
    told = result.cell
    where = f", carried over from {Path(cell.source).stem}" if cell.source else ""
    lines = [
        f"{result.record.space} on {result.record.data}{where}; {', '.join(cell.shows)}. {far(result)}",
        f"{device_text(result)}; {'; '.join(told['versions'])}; {told['written']}; "
        f"{duration(told['seconds'])} of training.",
        unpruned(result),
        f"`{_command(cell)}`",
    ]
    if result.stale(cell):
        lines.append("**The claims on this cell have changed since its first run.**")
    return " ".join(filter(None, lines)) + "\n"


def _verdict_table(judged: Iterable[Verdict]) -> Table:
    rows = []
    for each in judged:
        difference, scale = each.difference, 1.0 if each.claim.measure == "accuracy" else 100.0
        rows.append(
            (
                f"{each.claim.says}{' (the study against pruning)' if each.claim.negative else ''}",
                each.claim.source,
                each.row or each.cell,
                "-" if difference is None else f"{scale * difference.mean:+.2f}",
                "-" if difference is None else interval_text(difference, "+", scale),
                "-" if difference is None else f"{difference.n} {each.counts}",
                "-" if each.p is None else f"{each.p:.3f}",
                f"**{each.judgement}**" + (f", {each.note}" if each.note else ""),
            )
        )
    return Table(
        columns=("claim", "source", "where", "difference", "95 % interval", "n", "p", "verdict"),
        align="lllrlrrl",
        rows=tuple(rows),
        notes=(
            "Difference of test accuracy between the two sides of the claim in percentage points, paired by seed; "
            "of shapes and kernels in percent of widths or kernels. A claim must hold at every target, one about "
            "shapes or kernels also beyond a control that has everything but the cause; shown is the comparison "
            "that says least for it, with its own interval. p: of the verdict, over all its comparisons and the "
            "margin, corrected over all verdicts of the page of benchmarks/reproduce (Holm).",
        ),
    )
