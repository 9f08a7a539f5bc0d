"""`prunas plot`: figures of finished searches, as SVG and PNG."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, Out
from prunas.cli.output import print_json
from prunas.cli.results import evidence_of, figure_folders
from prunas.errors import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from prunas.report.evidence import Evidence

__all__ = ["cost", "curves", "efficiency", "pareto", "widths"]


def efficiency(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    metric: Annotated[str, typer.Option("--metric", help="The x axis: params or macs.")] = "params",
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Test accuracy over params or MACs, one curve per proposer."""
    from prunas.experiments.record import load_records

    if metric not in ("params", "macs"):
        raise unknown("metric of a plot", metric, ("params", "macs"))
    records = load_records(out, space)
    folders = figure_folders(out, records)
    drawn = [r.draw(folder, metric) for folder, r in zip(folders, records, strict=True)]  # type: ignore[arg-type]
    _print_figures([path for paths in drawn for path in paths], as_json)


def pareto(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """The points that nobody beats, over params and over MACs."""
    from prunas.report.pareto import pareto_figure
    from prunas.statistics.summary import table

    _plot(space, out, as_json, "pareto", lambda e: pareto_figure(table(e.rows), setting=e.setting))


def cost(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """What searching cost against what it found."""
    from prunas.report.price import price_figure
    from prunas.statistics.prices import prices

    _plot(space, out, as_json, "cost", lambda e: price_figure(prices(e.rows, e.costs), setting=e.setting))


def widths(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Widths per layer with their spread over seeds."""
    from prunas.report.widths import widths_figure

    def make(evidence: "Evidence") -> "Figure":
        return widths_figure(
            evidence.spreads(), [at.stage for at in evidence.layers], setting=evidence.setting
        )

    _plot(space, out, as_json, "widths", make)


def curves(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Learning curves: training loss over epochs."""
    from prunas.report.learning import learning_figure

    _plot(space, out, as_json, "curves", lambda e: learning_figure(e.logs(), setting=e.setting))


def _plot(
    space: str | None, out: Path, as_json: bool, name: str, make: Callable[["Evidence"], "Figure"]
) -> None:
    from prunas.report.figure import save

    drawn = [(folder, make(evidence)) for folder, evidence in evidence_of(out, space)]
    _print_figures([path for folder, figure in drawn for path in save(figure, folder, name)], as_json)


def _print_figures(paths: Sequence[Path], as_json: bool) -> None:
    if as_json:
        print_json({"schema": SCHEMA, "figures": list(map(str, paths))})
    else:
        typer.echo("\n".join(map(str, paths)))
