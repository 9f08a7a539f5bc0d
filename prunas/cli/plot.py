"""`prunas plot`: figures of finished searches, as SVG and PNG."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, Out
from prunas.cli.output import print_json, say
from prunas.cli.results import evidence_of, figure_folders
from prunas.errors import InputError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from prunas.report.evidence import Evidence
    from prunas.statistics.text import Table

__all__ = ["budget", "cost", "curves", "efficiency", "kernels", "pareto", "proxy", "widths"]


def efficiency(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    metric: Annotated[str, typer.Option("--metric", help="The x axis: params or macs.")] = "params",
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Test scores over params or MACs, one curve per proposer."""
    from prunas.experiments.record import load_records
    from prunas.report.efficiency import draw_record
    from prunas.statistics.curves import undrawn

    if metric not in ("params", "macs"):
        raise unknown("metric of a plot", metric, ("params", "macs"))
    records = load_records(out, space)
    folders = figure_folders(out, records)
    drawn = [draw_record(r, folder, metric) for folder, r in zip(folders, records, strict=True)]  # type: ignore[arg-type]
    for record, paths in zip(records, drawn, strict=True):
        if not paths:
            why = "; ".join(undrawn(record.rows, record.score)) or "no run is there yet"
            say(f"{record.space} on {record.data}, recipe {record.recipe}: nothing to plot; left out: {why}")
    _print_figures([path for paths in drawn for path in paths], as_json)


def pareto(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """The points that nobody beats, over params and over MACs."""
    from prunas.report.pareto import pareto_figure
    from prunas.statistics.summary import table

    def make(evidence: "Evidence") -> "Figure":
        lines = table(evidence.rows, evidence.score)
        return pareto_figure(lines, setting=evidence.setting, score=evidence.score)

    _plot(space, out, as_json, "pareto", make)


def cost(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """What searching cost against what it found."""
    from prunas.report.price import price_figure
    from prunas.statistics.prices import prices

    def make(evidence: "Evidence") -> "Figure":
        found = prices(evidence.rows, evidence.costs, evidence.score)
        return price_figure(found, setting=evidence.setting, score=evidence.score)

    _plot(space, out, as_json, "cost", make)


def budget(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Test scores over retraining epochs: fine-tuned, rewound, from scratch, and where scratch overtakes."""
    from prunas.report.budget import budget_figure
    from prunas.statistics.retraining import crossings, retraining_table

    def numbers(evidence: "Evidence") -> "tuple[list[dict[str, Any]], Table]":
        found = evidence.budgets()
        return [each.to_json() for each in crossings(found)], retraining_table(found)

    def make(evidence: "Evidence") -> "Figure":
        return budget_figure(evidence.budgets(), setting=evidence.setting)

    _plot(space, out, as_json, "budget", make, ("crossings", numbers))


def widths(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Widths per layer with their spread over seeds, and whether seeds agree more than with uniform."""
    from prunas.report.widths import widths_figure
    from prunas.statistics.widths import agreement_table

    def make(evidence: "Evidence") -> "Figure":
        return widths_figure(
            evidence.spreads(), [at.stage for at in evidence.layers], setting=evidence.setting
        )

    def numbers(evidence: "Evidence") -> "tuple[list[dict[str, Any]], Table]":
        found = evidence.agreements()
        return [each.to_json() for each in found], agreement_table(evidence.search_agreements())

    _plot(space, out, as_json, "widths", make, ("agreement", numbers))


def kernels(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Keep frequencies of the positions of 3x3 kernels, by stage and target."""
    from prunas.report.kernels import kernels_figure
    from prunas.statistics.patterns import pattern_table

    def numbers(evidence: "Evidence") -> "tuple[list[dict[str, Any]], Table]":
        found = evidence.patterns()
        return [each.to_json() for each in found], pattern_table(found)

    def make(evidence: "Evidence") -> "Figure":
        return kernels_figure(evidence.patterns(), evidence.maps, setting=evidence.setting)

    _plot(space, out, as_json, "kernels", make, ("patterns", numbers))


def curves(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Learning curves: training loss over epochs."""
    from prunas.report.learning import learning_figure

    _plot(space, out, as_json, "curves", lambda e: learning_figure(e.logs(), setting=e.setting))


def proxy(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Cheap scores against those of trained candidates: rank correlation, and what trusting them costs."""
    from prunas.experiments.record import load_records
    from prunas.report.figure import save
    from prunas.report.proxy import proxy_figure
    from prunas.statistics.proxy import proxies, proxy_table
    from prunas.statistics.summary import grouped
    from prunas.statistics.text import as_text

    records = load_records(out, space)
    paths: list[Path] = []
    numbers: list[dict[str, Any]] = []
    # Searches with other evaluators are other settings, and what they scored is compared here.
    alike = grouped(records, lambda each: (each.space, each.data, each.recipe, each.epochs))
    for (name, data, recipe, epochs), group in alike.items():
        setting, score = f"{name} on {data}, recipe {recipe} ({epochs} epochs)", group[0].score
        found = proxies((trial for record in group for trial in record.trials), score)
        if found:
            figure = proxy_figure(found, setting=setting, score=score)
            paths += save(figure, out / name / "figures", f"proxy-{recipe}-{epochs}")
            numbers += [each.to_json() | {"setting": setting} for each in found]
            if not as_json:
                typer.echo(f"{setting}\n\n{as_text(proxy_table(found, score))}")
    if not numbers:
        raise InputError(
            "nothing to plot: no candidates were both trained and scored by an evaluator; score the same ones "
            "twice, as in `prunas search --proposer random --trials 20` with and without --evaluator adaptive-bn"
        )
    _print_figures(paths, as_json, {"proxies": numbers})


def _plot(
    space: str | None,
    out: Path,
    as_json: bool,
    name: str,
    make: Callable[["Evidence"], "Figure"],
    numbers: "tuple[str, Callable[[Evidence], tuple[list[dict[str, Any]], Table]]] | None" = None,
) -> None:
    """Draws one figure for each setting.

    Args:
        space: Only this space's.
        out: The folder that holds all runs.
        as_json: How to print.
        name: Of the files.
        make: Makes the figure.
        numbers: What else is printed: its key in the document, and what makes its records and its table.
    """
    from prunas.report.figure import save
    from prunas.statistics.text import as_text

    found = evidence_of(out, space)
    paths = [path for folder, evidence in found for path in save(make(evidence), folder, name)]
    extra: dict[str, list[dict[str, Any]]] = {}
    if numbers is not None:
        key, tell = numbers
        extra[key] = []
        for _, evidence in found:
            records, table = tell(evidence)
            extra[key] += [record | {"setting": evidence.setting} for record in records]
            if table.rows and not as_json:
                typer.echo(f"{evidence.setting}\n\n{as_text(table)}")
    _print_figures(paths, as_json, extra)


def _print_figures(paths: Sequence[Path], as_json: bool, extra: Mapping[str, Any] | None = None) -> None:
    if as_json:
        print_json({"schema": SCHEMA, "figures": list(map(str, paths)), **(extra or {})})
    else:
        for path in paths:
            typer.echo(str(path))
