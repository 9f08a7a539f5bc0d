"""Tables, figures and this folder's README, from the committed results alone."""

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import Cell, Protocol, cells, protocols
from benchmarks.reproduce.claims import Claim, Result, Verdict, bears, load_claims, load_results, verdicts
from prunas.report.budget import budget_figure
from prunas.report.figure import save
from prunas.results.rows import FINISHED
from prunas.statistics.claims import standard_errors
from prunas.statistics.curves import curves, dense_score, undrawn
from prunas.statistics.inference import score_bounds
from prunas.statistics.retraining import courses, retraining_table
from prunas.statistics.summary import Summary, comparisons, summarise, table
from prunas.statistics.text import Table, as_markdown, difference_table, duration, interval_text, result_table

__all__ = ["README", "draw", "page", "summary"]

HERE = Path(__file__).parent
README = HERE / "README.md"
ORDER = ("reduced", "short", "paper")
KINDS = {"predefined": "Predefined widths", "automatic": "Found by the method"}
WAYS = ("unpruned", "finetune", "scratch-e", "scratch-b")

INTRODUCTION = """\
# The study, reproduced

Liu et al., *Rethinking the Value of Network Pruning*, ICLR 2019
([arXiv:1810.05270](https://arxiv.org/abs/1810.05270)): its claims, its numbers, and what came of them here.

`grid.toml` lists the cells in order of value, `claims.toml` the study's claims and questions of our own with the
difference that matters ({margin} percentage points), both written down before the first run; `published.json`
holds the study's numbers, `results/` what was measured, one small file a cell. This page and its figures are made
of these files alone (`python -m benchmarks.reproduce report`), and a test checks that they are.

```sh
python -m benchmarks.reproduce --protocol reduced --minutes 90 --data DIR --out DIR   # a CPU
python -m benchmarks.reproduce --protocol short --minutes 25 --data DIR --out DIR     # a GPU
python -m benchmarks.reproduce --protocol paper --minutes 25 --data DIR --out DIR
python -m benchmarks.reproduce report
```

A run trains what is missing, saves when its time is up, and continues when it is called again. Searches,
transfers and trainings are those of `prunas search` and `prunas transfer`; `--executor`, `--workers` and
`--executor-set` are theirs too, so that several trainings share a device. On a machine without a package index:
besides torch, torchvision and numpy it imports {packages};
neither Optuna nor cmaes nor thop.

Three protocols, never mixed in a table:

{protocols}
"""

PACKAGES = (
    "matplotlib, networkx, platformdirs, pydantic, rich, safetensors, scipy, typer and what they depend on"
)


def page() -> str:
    """The README of this folder."""
    margin, claims = load_claims()
    published = json.loads((HERE / "published.json").read_text(encoding="utf-8"))
    known = protocols()
    ordered = [known[name] for name in ORDER]
    parts = [
        INTRODUCTION.format(
            margin=margin,
            packages=PACKAGES,
            protocols="\n".join(f"- **{each.name}**: {each.says}; {each.seeds} seeds." for each in ordered),
        ),
        "## What is done\n",
        as_markdown(_progress(ordered)),
    ]
    for protocol in ordered:
        own, results = cells(protocol.name), load_results(protocol.name)
        if results:
            parts.append(_section(protocol, own, results, verdicts(claims, own, results, margin)))
    parts.append(_study(published))
    reproducing = [each for each in ordered if any(cell.rows for cell in cells(each.name))]
    parts += ["### Unpruned networks\n", as_markdown(_baselines(published, reproducing))]
    for protocol in reproducing:
        if beside := _beside(published, cells(protocol.name), load_results(protocol.name)):
            parts += [f"### Beside the study: {protocol.name}\n", beside]
    parts += [_doubts(published), _claims(claims, published, margin)]
    return "\n".join(parts)


def summary(protocol: str = "reduced", cell: str = "efficiency-left") -> str:
    """What the repository's README tells of one cell: its results, and the claims judged on it."""
    margin, claims = load_claims()
    results = load_results(protocol)
    judged = [each for each in verdicts(claims, cells(protocol), results, margin) if each.cell == cell]
    record = results[cell].record
    lines = result_table(table(record.rows, record.score), record.score)
    return as_markdown(lines) + "\n" + as_markdown(_verdict_table(judged))


def draw(folder: Path = HERE / "figures") -> list[Path]:
    """Every figure of the committed results, as SVG and PNG."""
    paths: list[Path] = []
    for protocol in ORDER:
        for name, result in load_results(protocol).items():
            record, stem = result.record, f"{protocol}-{name}"
            if found := courses(record.rows, record.score):
                paths += save(budget_figure(found, setting=_setting(result)), folder, stem)
            elif drawn := curves(record.rows, record.score):
                from prunas.report.efficiency import efficiency_figure

                dense = dense_score(record.dense, record.score)
                figure = efficiency_figure(
                    drawn,
                    space=record.space,
                    data=record.data,
                    recipe=f"{record.recipe}, protocol {protocol}, {_device(result)}",
                    epochs=record.epochs,
                    score=record.score,
                    dense=dense.mean if dense else None,
                    left_out=undrawn(record.rows, record.score),
                )
                paths += save(figure, folder, stem)
    return paths


# What is done


def _progress(known: Sequence[Protocol]) -> Table:
    rows = []
    for protocol in known:
        results = load_results(protocol.name)
        for cell in cells(protocol.name):
            result = results.get(cell.name)
            done = sum(row.status == FINISHED for row in result.record.rows) if result else 0
            rows.append(
                (
                    protocol.name,
                    cell.name,
                    ", ".join(cell.shows),
                    f"{done} of {result.cell['planned']}" if result else "-",
                    duration(result.cell["seconds"]) if result else "-",
                    _device(result) if result else "-",
                    result.cell["written"] if result else "-",
                )
            )
    return Table(
        columns=("protocol", "cell", "answers", "final trainings", "time", "device", "date"),
        align="lllrrll",
        rows=tuple(rows),
        notes=(
            "Time: of all trainings added up, those that searches needed included, those of a transfer's source "
            "not; - means not run yet.",
        ),
    )


def _device(result: Result) -> str:
    return ", ".join(result.cell["device"]).replace("cpu", "CPU")


def _setting(result: Result) -> str:
    record = result.record
    return (
        f"{record.space} on {record.data}, recipe {record.recipe} ({record.epochs} epochs), protocol "
        f"{result.cell['protocol']}, {_device(result)}"
    )


# One protocol


def _section(
    protocol: Protocol, own: Sequence[Cell], results: Mapping[str, Result], judged: Sequence[Verdict]
) -> str:
    parts = [f"## Protocol {protocol.name}\n", f"{protocol.says[0].upper()}{protocol.says[1:]}.\n"]
    if protocol.name == "reduced":
        parts.append(
            "The verdicts are on the claims *in this setting*: they show what so small an experiment decides, and "
            "do not speak for the study's networks and schedules. Two AMD EPYC virtual cores, busy with other "
            "work: times are upper bounds. `slimming.pull` was chosen from two trainings of the source network, "
            "1.0 and 2.5, by validation accuracy. The final trainings of efficiency-left (2026-11-26) saw "
            "the 5,000 images of the validation split alone; those of retraining (2026-11-30) the 5,000 that the "
            "dense network saw and 556 of validation, as all do now. `finetune-rewound` into less than the "
            "recipe's epochs was trained when it squeezed the schedule, and is left out until it has been trained "
            "again.\n"
        )
    for kind, heading in KINDS.items():
        if some := [each for each in judged if each.claim.kind == kind and each.judgement != "not run"]:
            parts += [f"### {heading}: the claims\n", as_markdown(_verdict_table(some))]
    for cell in own:
        if (result := results.get(cell.name)) is None:
            continue
        parts += [f"### {cell.name}\n", _about(cell, result)]
        parts.append(f"![{', '.join(cell.shows)}](figures/{protocol.name}-{cell.name}.png)\n")
        rows, score = result.record.rows, result.record.score
        if found := courses(rows, score):
            parts.append(as_markdown(retraining_table(found)))
            continue
        parts.append(as_markdown(result_table(table(rows, score), score)))
        found_by = dict.fromkeys(row.proposer for row in rows if row.kind not in ("control", "dense"))
        if paired := comparisons(rows, list(found_by), ("uniform", "uniform-kernel", "taper"), score=score):
            parts.append(as_markdown(difference_table(paired, score)))
    return "\n".join(parts)


def _about(cell: Cell, result: Result) -> str:
    told = result.cell
    where = f", carried over from {Path(cell.source).stem}" if cell.source else ""
    dense = dense_score(result.record.dense, result.record.score)
    return (
        f"{result.record.space} on {result.record.data}{where}; {', '.join(cell.shows)}. "
        f"{_device(result)}; {'; '.join(told['versions'])}; {told['written']}; "
        f"{duration(told['seconds'])} of training. "
        + ("" if dense is None else f"Unpruned: {_value(dense)} (n = {dense.n}). ")
        + f"`python -m benchmarks.reproduce --protocol {cell.protocol.name} --cell {cell.name} --minutes 90 "
        "--data DIR --out DIR`\n"
    )


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
                "-" if difference is None else str(difference.n),
                f"**{each.judgement}**" + (f", {each.note}" if each.note else ""),
            )
        )
    return Table(
        columns=("claim", "source", "where", "difference", "95 % interval", "n", "verdict"),
        align="lllrlrl",
        rows=tuple(rows),
        notes=(
            "Difference of test accuracy between the two sides of the claim in percentage points, paired by seed, "
            "mean over targets; of shapes and kernels in percent of widths or kernels. Those claims must hold at "
            "every target, on their own and beyond a control that has everything but the cause; shown is the "
            "comparison that says least for them.",
        ),
    )


# The study's numbers


def _study(published: Mapping[str, Any]) -> str:
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


def _baselines(published: Mapping[str, Any], reproducing: Sequence[Protocol]) -> Table:
    """The unpruned networks: ours under each protocol, the study's and the original method's."""
    trained: dict[str, dict[str, str]] = {}
    for protocol in reproducing:
        results, ours = load_results(protocol.name), trained.setdefault(protocol.name, {})
        for cell in cells(protocol.name):
            record = results[cell.name].record if cell.name in results else None
            dense = dense_score(record.dense, record.score) if record else None
            if dense is not None:
                ours |= dict.fromkeys(cell.rows, _value(dense))
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
    columns = ("", "unpruned network", *ours_by, "the study's", "the original method's")
    return Table(columns=columns, align="ll" + "r" * (len(columns) - 2), rows=tuple(rows.values()))


def _beside(published: Mapping[str, Any], own: Sequence[Cell], results: Mapping[str, Result]) -> str:
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
                        *(key, way, _printed(printed[key][way]), _value(ours), str(ours.n)),
                        f"{ours.mean - mean:+.2f}",
                        "-" if apart is None else f"{apart:+.1f}",
                    )
                )
    if not rows:
        return ""
    columns = ("network", "how", "study", "ours", "n", "ours - study", "in standard errors")
    return as_markdown(Table(columns=columns, align="llrrrrr", rows=tuple(rows)))


def _ours(result: Result, way: str, asked: Any) -> Summary | None:
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


def _value(value: Summary) -> str:
    return f"{value.mean:.2f}" + ("" if value.std is None else f" ± {value.std:.2f}")


def _doubts(published: Mapping[str, Any]) -> str:
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


def _claims(claims: Sequence[Claim], published: Mapping[str, Any], margin: float) -> str:
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
