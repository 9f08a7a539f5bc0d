"""The report: one HTML file that needs nothing but a browser."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from prunas import __version__
from prunas.errors import InputError
from prunas.names import SEARCHERS
from prunas.report.budget import budget_figure
from prunas.report.checklist import checklist
from prunas.report.commands import commands
from prunas.report.efficiency import efficiency_figure
from prunas.report.evidence import Evidence
from prunas.report.figure import FAINT, GRID, INK, as_svg
from prunas.report.headline import findings, only_tuned
from prunas.report.kernels import kernels_figure
from prunas.report.learning import learning_figure
from prunas.report.pareto import pareto_figure
from prunas.report.price import price_figure
from prunas.report.styles import styles
from prunas.report.widths import widths_figure
from prunas.results.rows import TrainingRow
from prunas.spaces.picture import LEGEND
from prunas.statistics.curves import curves, undrawn
from prunas.statistics.patterns import pattern_table
from prunas.statistics.prices import prices
from prunas.statistics.ranking import rankings
from prunas.statistics.retraining import course_protocols, crossings, retraining_table
from prunas.statistics.summary import Line, comparisons, cost_table, grouped, table
from prunas.statistics.text import Table, asked_text, cost_text, count, difference_table, result_table
from prunas.statistics.trade import areas, hypervolume
from prunas.statistics.widths import agreement_table
from prunas.statistics.wording import area_unit, column_head, number, title_of, value_text

__all__ = ["inline", "page"]

_COLOURS = {  # a figure's own colours become those of the page, which change with its light and dark scheme
    INK: "ink",
    FAINT: "faint",
    GRID: "grid",
    "#ffffff": "paper",
    "#000000": "black",
    "#0072b2": "blue",
}


PICTURES, SHAPE = 400_000, 20_000
"""Characters of all pictures of shapes in a section, and of an architecture that its page can hand out."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    title: str
    svg: Markup
    wide: bool
    pick: bool  # whether its marks are runs


def page(evidence: Sequence[Evidence], out: Path) -> str:
    """The report over all settings as an HTML document.

    Args:
        evidence: One for each setting; at least one.
        out: The folder that holds all runs, for the commands.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sources = files("prunas.report")
    read = {
        name: (sources / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    }
    return environment.from_string(read["page.html"]).render(
        title=", ".join(dict.fromkeys(each.record.space for each in evidence)),
        version=__version__,
        css=Markup(read["page.css"]),
        js=Markup(read["page.js"]),
        sections=[_section(each, out, index) for index, each in enumerate(evidence)],
    )


def _section(evidence: Evidence, out: Path, index: int) -> dict[str, Any]:
    found = findings(evidence.rows, evidence.dense_mean, evidence.score)
    drawings = list(_drawings(evidence, f"s{index}"))
    return {
        "id": f"s{index}",
        "evidence": evidence,
        "findings": found,
        "leading": [
            each for each in found if each.against == found[0].against and each.fresh == found[0].fresh
        ],
        "crossings": [each.sentence for each in crossings(evidence.budgets())],
        "tuned": only_tuned(evidence.rows),
        "drawings": [each for each in drawings if isinstance(each, _Drawing)],
        "undrawn": [each for each in drawings if isinstance(each, str)],
        "series": list(styles(row.proposer for row in evidence.rows)),
        "tables": list(_tables(evidence)),
        "rows": evidence.rows,
        "asked": asked_text,
        "count": count,
        "test_head": column_head(evidence.score),
        "test_cell": lambda row: "-" if row.score is None else number(row.score, evidence.score),
        "data": _embedded(evidence),
        "checklist": checklist(evidence),
        "machines": _machines(evidence),
        "commands": commands(evidence, out),
    }


# Figures


def _drawings(evidence: Evidence, prefix: str) -> Iterable[_Drawing | str]:
    """Every figure; where there is nothing to draw, a line that says why."""
    setting, score = evidence.setting, evidence.score
    named: Any = {
        "space": evidence.record.space,
        "data": evidence.record.data,
        "recipe": evidence.record.recipe,
        "epochs": evidence.record.epochs,
        "score": score,
        "dense": evidence.dense_mean,
        "left_out": undrawn(evidence.rows, score),
    }
    name = title_of(score)
    makers: dict[str, Callable[[], Figure]] = {
        f"{name} over parameters": lambda: efficiency_figure(curves(evidence.rows, score), **named),
        f"{name} over MACs": lambda: efficiency_figure(curves(evidence.rows, score, "macs"), **named),
        "Pareto front": lambda: pareto_figure(table(evidence.rows, score), setting=setting, score=score),
        "What the search cost": lambda: price_figure(
            prices(evidence.rows, evidence.costs, score), setting=setting, score=score
        ),
        f"{name} over retraining epochs": lambda: budget_figure(evidence.budgets(), setting=setting),
        "Widths per layer": lambda: widths_figure(
            evidence.spreads(), [layer.stage for layer in evidence.layers], setting=setting
        ),
        "Kernel patterns": lambda: kernels_figure(evidence.patterns(), evidence.maps, setting=setting),
        "Learning curves": lambda: learning_figure(evidence.logs(), setting=setting),
    }
    for index, (title, make) in enumerate(makers.items()):
        try:
            figure = make()
        except InputError as error:
            yield f"{title}: {error}"
            continue
        svg = inline(figure, f"{prefix}f{index}")
        yield _Drawing(title, svg, figure.get_figwidth() > 4, "data-run=" in svg)


def inline(figure: Figure, prefix: str) -> Markup:
    """A figure's SVG as part of a page: ids of its own, colours of the page, runs marked by attributes."""
    svg = as_svg(figure)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'id="run-([^"]*)"', r'class="run" data-run="\1"', svg)
    svg = re.sub(r'id="series-[\d.]*-([^"]*)"', r'class="series" data-series="\1"', svg)
    svg = re.sub(r'(?<=[ \n])id="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for colour, name in _COLOURS.items():
        svg = re.sub(rf"(?<=: ){colour}\b", f"var(--{name})", svg, flags=re.IGNORECASE)
    return Markup(svg)


# Tables


def _tables(evidence: Evidence) -> Iterable[tuple[str, Table]]:
    rows = evidence.rows
    score = evidence.score
    lines = table(rows, score)
    yield "Results", result_table(lines, score)
    found = list(dict.fromkeys(row.proposer for row in rows if row.kind in SEARCHERS))
    if paired := comparisons(rows, found, ("taper", "uniform", "random"), score=score):
        yield "Found against controls", difference_table(paired, score)
    of_courses = course_protocols(rows)
    if compared := [line for line in lines if line.protocol not in of_courses]:
        yield "Over all targets", _overall(evidence, compared)
    if retrained := evidence.budgets():
        yield "Retraining budget", retraining_table(retrained)
    if agreements := evidence.search_agreements():
        yield "Widths: do searches agree?", agreement_table(agreements)
    if patterns := evidence.patterns():
        yield "Kernels: centre and edges against corners", pattern_table(patterns)
    if evidence.costs:
        yield "What searching cost", cost_text(cost_table(evidence.costs))


def _overall(evidence: Evidence, lines: Sequence[Line]) -> Table:
    score = evidence.score
    tested = [line for line in lines if line.score is not None]
    ranked = {(r.protocol, r.masked): r for r in rankings(evidence.rows, evidence.dense_mean, score=score)}
    area = {
        metric: {
            (a.protocol, a.masked, a.proposer): a for a in areas(curves(evidence.rows, score, metric), score)
        }
        for metric in ("params", "macs")
    }
    cells, notes = [], []
    for (protocol, masked), panel in grouped(tested, lambda line: (line.protocol, line.masked)).items():
        means = [line.score.mean for line in panel if line.score]
        worst = min(means, key=lambda mean: score.gain(mean, 0.0))
        references = {m: max(getattr(line, m) for line in panel) for m in ("params", "macs")}
        ranking = ranked[protocol, masked]
        ranks = dict(ranking.ranks)
        for proposer, own in grouped(panel, lambda line: line.proposer).items():
            volumes = {
                metric: hypervolume(
                    [(getattr(line, metric), line.score.mean) for line in own if line.score],
                    (references[metric], worst),
                    score,
                )
                for metric in references
            }
            values = [area[metric].get((protocol, masked, proposer)) for metric in references]
            cells.append(
                (
                    proposer,
                    protocol + (", masked" if masked else ""),
                    f"{ranks[proposer]:.2f}" if proposer in ranks else "-",
                    *("-" if value is None else number(value.score.mean, score) for value in values),
                    *(number(volumes[metric], score) for metric in references),
                )
            )
        targets = ", ".join(map(asked_text, ranking.targets)) or "no target"
        notes.append(
            f"{protocol}{', masked' if masked else ''}: ranks are means over {targets}. Volumes are hypervolumes: "
            f"decades of cost times {area_unit(score)}, counted from {count(references['params'])} parameters or "
            f"{count(references['macs'])} MACs and {value_text(worst, score)}."
        )
    notes.append(
        f"Area: test {score.name} averaged evenly over the logarithm of the cost, over the costs that all curves "
        "span. A target that even the worst proposer solves as well as the dense network is not ranked."
    )
    return Table(
        columns=(
            *("proposer", "protocol", "mean rank", "area, params", "area, MACs"),
            *("volume, params", "volume, MACs"),
        ),
        align="llrrrrr",
        rows=tuple(sorted(cells, key=lambda row: (row[1], row[2], row[0]))),
        notes=tuple(notes),
    )


def _machines(evidence: Evidence) -> list[tuple[str, int]]:
    """Every combination of versions and machine, with the number of trainings it did."""
    texts = []
    for run in evidence.runs.values():
        facts = {
            key: run.result.get("machine", {}).get(key) for key in ("prunas", "torch", "numpy", "python")
        }
        versions = ", ".join(f"{key} {value}" for key, value in facts.items() if value)
        machine = run.result.get("machine", {})
        where = [str(machine["platform"])] if "platform" in machine else []
        where += [f"{machine['cpus']} CPUs"] if "cpus" in machine else []
        where += [f"device {run.values['device']}"] if "device" in run.values else []
        where += [f"{run.values['threads']} threads" for _ in "1" if run.values.get("threads")]
        if versions:
            texts.append(f"{versions}; {', '.join(where)}")
    return [(text, texts.count(text)) for text in dict.fromkeys(texts)]


# Architectures


def _embedded(evidence: Evidence) -> Markup:
    """What the script shows of every run, as JSON that can stand inside a script element."""
    runs: dict[str, Any] = {}
    shapes = {
        row.architecture: _small(evidence.runs[row.id].spec.get("architecture")) for row in evidence.rows
    }
    for row in evidence.rows:
        run = evidence.runs[row.id]
        entry = runs.setdefault(
            row.id,
            {
                "widths": run.widths,
                "stored": "" if run.widths and not _more(run.spec) else run.stored,
                "folder": str(run.folder),
                "params": row.reached.params,
                "macs": row.reached.macs,
                "score": None
                if row.score is None
                else f"{value_text(row.score, evidence.score)} test {evidence.score.name}",
                "status": row.status,
                "seed": row.train_seed,
                "proposers": [],
                "shape": row.architecture,
                "as": [],
            },
        )
        entry["as"].append(_role(row))
        entry["proposers"].append(row.proposer)
    document = {
        "layers": [[layer.name, layer.stage, layer.dense] for layer in evidence.layers],
        "runs": runs,
        "legend": LEGEND,
        "pictures": _pictures(evidence),
        "shapes": shapes,
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _pictures(evidence: Evidence) -> dict[str, str]:
    """A drawing of every shape by its digest, as many as the page has room for."""
    pictures: dict[str, str] = {}
    room = PICTURES
    for row in evidence.rows:
        if row.architecture not in pictures and (svg := evidence.picture(row.id)):
            room -= len(svg)
            pictures[row.architecture] = svg if room > 0 else ""
    return pictures


def _small(document: Any) -> Any:
    """An architecture that the page can hand out; None of one whose masks are too large for that."""
    return document if document is not None and len(json.dumps(document)) <= SHAPE else None


def _more(spec: Mapping[str, Any]) -> bool:
    """Whether a point is more than widths."""
    return bool(spec["architecture"].keys() & {"removed", "kernels"})


def _role(row: TrainingRow) -> str:
    flags = f" [{', '.join(flag.replace('_', ' ') for flag in row.flags)}]" if row.flags else ""
    return f"{row.proposer}, {asked_text(row.asked)}, {row.protocol}, search seed {row.search_seed}{flags}"
