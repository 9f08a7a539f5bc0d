"""`prunas plot`: figures of finished searches, as SVG, PNG or PDF."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, Out, StoredSpace, listed
from prunas.cli.output import check_file, print_json, say
from prunas.cli.results import evidence_of, figure_folders
from prunas.errors import InputError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from prunas.report.evidence import Evidence
    from prunas.results.record import Record
    from prunas.statistics.text import Table

__all__ = ["budget", "cost", "curves", "efficiency", "kernels", "pareto", "proxy", "widths"]

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--proposer", help="Draw only these; the caption names the others. Repeat it, or use commas."
    ),
]
File = Annotated[
    Path | None,
    typer.Option("--to", help="The file, by its suffix SVG, PNG or PDF; else a folder of figures."),
]
Format = Annotated[str | None, typer.Option("--format", help="svg, png or pdf; svg,png by default.")]


def efficiency(
    space: StoredSpace = None,
    metric: Annotated[str, typer.Option("--metric", help="The x axis: params or macs.")] = "params",
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """Test scores over params or MACs, one curve per proposer."""
    from prunas.experiments.record import load_records
    from prunas.report.efficiency import record_figure
    from prunas.statistics.curves import undrawn

    if metric not in ("params", "macs"):
        raise unknown("metric of a plot", metric, ("params", "macs"))
    asked = _Asked(space, out, proposer, to, form)
    records = load_records(out, space)
    name = "efficiency" if metric == "params" else f"efficiency-{metric}"
    paths: list[Path] = []
    for record, folder in zip(records, figure_folders(out, records), strict=True):
        some, left_out = asked.chosen(record)
        phrases = [_not_asked(left_out)] if left_out else []
        figure = record_figure(some, metric, phrases)  # type: ignore[arg-type]
        if figure is None:
            why = "; ".join(undrawn(some.rows, some.score)) or "no run is there yet"
            say(f"{record.space} on {record.data}, recipe {record.recipe}: nothing to plot; left out: {why}")
        else:
            paths += asked.save(figure, folder, name, len(records))
    _print_figures(paths, as_json)


def pareto(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """The points that nobody beats, over params and over MACs."""
    from prunas.report.pareto import pareto_figure
    from prunas.statistics.summary import table

    def make(evidence: "Evidence", setting: str) -> "Figure":
        lines = table(evidence.rows, evidence.score)
        return pareto_figure(lines, setting=setting, score=evidence.score)

    _plot(_Asked(space, out, proposer, to, form), as_json, "pareto", make)


def cost(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """What searching cost against what it found."""
    from prunas.report.price import price_figure
    from prunas.statistics.prices import prices

    def make(evidence: "Evidence", setting: str) -> "Figure":
        found = prices(evidence.rows, evidence.costs, evidence.score)
        return price_figure(found, setting=setting, score=evidence.score)

    _plot(_Asked(space, out, proposer, to, form), as_json, "cost", make)


def budget(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """Test scores over retraining epochs: fine-tuned, rewound, from scratch, and where scratch overtakes."""
    from prunas.report.budget import budget_figure
    from prunas.statistics.retraining import crossings, retraining_table

    def numbers(evidence: "Evidence") -> "tuple[list[dict[str, Any]], Table]":
        found = evidence.budgets()
        return [each.to_json() for each in crossings(found)], retraining_table(found)

    def make(evidence: "Evidence", setting: str) -> "Figure":
        return budget_figure(evidence.budgets(), setting=setting)

    _plot(_Asked(space, out, proposer, to, form), as_json, "budget", make, ("crossings", numbers))


def widths(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """Widths per layer with their spread over seeds, and whether seeds agree more than with uniform."""
    from prunas.report.widths import widths_figure
    from prunas.statistics.widths import agreement_table

    def make(evidence: "Evidence", setting: str) -> "Figure":
        return widths_figure(evidence.spreads(), [at.stage for at in evidence.layers], setting=setting)

    def numbers(evidence: "Evidence") -> "tuple[list[dict[str, Any]], Table]":
        found = evidence.agreements()
        return [each.to_json() for each in found], agreement_table(evidence.search_agreements())

    _plot(_Asked(space, out, proposer, to, form), as_json, "widths", make, ("agreement", numbers))


def kernels(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """Keep frequencies of the positions of 3x3 kernels, by stage and target."""
    from prunas.report.kernels import kernels_figure
    from prunas.statistics.patterns import pattern_table

    def numbers(evidence: "Evidence") -> "tuple[list[dict[str, Any]], Table]":
        found = evidence.patterns()
        return [each.to_json() for each in found], pattern_table(found)

    def make(evidence: "Evidence", setting: str) -> "Figure":
        return kernels_figure(evidence.patterns(), evidence.maps, setting=setting)

    _plot(_Asked(space, out, proposer, to, form), as_json, "kernels", make, ("patterns", numbers))


def curves(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """Learning curves: training loss over epochs."""
    from prunas.report.learning import learning_figure

    _plot(
        _Asked(space, out, proposer, to, form),
        as_json,
        "curves",
        lambda e, setting: learning_figure(e.logs(), setting=setting),
    )


def proxy(
    space: StoredSpace = None,
    out: Out = Path("runs"),
    proposer: Only = None,
    to: File = None,
    form: Format = None,
    as_json: Json = False,
) -> None:
    """Cheap scores against those of trained candidates: rank correlation, and what trusting them costs."""
    from prunas.experiments.record import load_records
    from prunas.report.proxy import proxy_figure
    from prunas.statistics.proxy import proxies, proxy_table
    from prunas.statistics.summary import grouped
    from prunas.statistics.text import as_text

    asked = _Asked(space, out, proposer, to, form)
    records = load_records(out, space)
    paths: list[Path] = []
    numbers: list[dict[str, Any]] = []
    # Searches with other evaluators are other settings, and what they scored is compared here.
    alike = grouped(records, lambda each: (each.space, each.data, each.recipe, each.epochs))
    for (name, data, recipe, epochs), group in alike.items():
        setting, score = f"{name} on {data}, recipe {recipe} ({epochs} epochs)", group[0].score
        trials = [trial for record in group for trial in record.trials]
        if not trials:
            continue
        drawn, left_out = asked.among(name, (trial.proposer for trial in trials))
        found = proxies((trial for trial in trials if trial.proposer in drawn), score)
        if found:
            setting += _without(left_out)
            figure = proxy_figure(found, setting=setting, score=score)
            paths += asked.save(figure, out / name / "figures", f"proxy-{recipe}-{epochs}", len(alike))
            numbers += [each.to_json() | {"setting": setting} for each in found]
            if not as_json:
                typer.echo(f"{setting}\n\n{as_text(proxy_table(found, score))}")
    if not numbers:
        raise InputError(
            "nothing to plot: no candidates were both trained and scored by an evaluator; score the same ones "
            "twice, as in `prunas search --proposer random --trials 20` with and without --evaluator adaptive-bn"
        )
    _print_figures(paths, as_json, {"proxies": numbers})


@dataclass(frozen=True, slots=True)
class _Asked:
    """What figures of, who is drawn in them, and where they go.

    Attributes:
        space: Only this space's, if one is named.
        out: The folder that holds all runs.
        proposers: Only these are drawn, if any are named.
        to: The one file, if one is named.
        form: Formats, separated by commas, if any are named.
    """

    space: str | None
    out: Path
    proposers: list[str] | None
    to: Path | None
    form: str | None

    @property
    def formats(self) -> list[str]:
        """What a figure is written as.

        Raises:
            InputError: There is no such format, or it is not that of the file.
        """
        from prunas.report.figure import FORMATS

        formats = listed(self.form, "--format") or ["svg", "png"]
        for name in formats:
            if name not in FORMATS:
                raise unknown("format of a figure", name, FORMATS)
        if self.to is None:
            return formats
        check_file(self.to, "--to")
        suffix = self.to.suffix.removeprefix(".")
        if suffix not in FORMATS:
            if len(formats) > 1:
                raise InputError(f"--to {self.to} has no suffix of a figure; end it with .svg, .png or .pdf")
            return formats
        if self.form is not None and formats != [suffix]:
            raise InputError(f"--to {self.to} and --format {self.form} do not go together; leave one out")
        return [suffix]

    def among(self, space: str, proposers: Iterable[str]) -> tuple[list[str], list[str]]:
        """Who of those who have runs is drawn, and who is left out.

        Args:
            space: Whose runs they are, for the message.
            proposers: Who have runs there, in any number.

        Raises:
            InputError: Somebody who is named has none.
        """
        wanted = listed(self.proposers, "--proposer")
        names = list(dict.fromkeys(proposers))
        for name in wanted:
            if name not in names:
                raise unknown(f"proposer among the runs of {space}:", name, names)
        if not wanted:
            return names, []
        return wanted, [name for name in names if name not in wanted]

    def chosen(self, record: "Record") -> "tuple[Record, list[str]]":
        """The record with the rows of those who are drawn, and who is left out.

        Raises:
            InputError: Somebody who is named has no rows in it.
        """
        drawn, left_out = self.among(record.space, (row.proposer for row in record.rows))
        if not left_out:
            return record, []
        some = replace(
            record,
            rows=tuple(row for row in record.rows if row.proposer in drawn),
            costs=tuple(cost for cost in record.costs if cost.proposer in drawn),
        )
        return some, left_out

    def save(self, figure: "Figure", folder: Path, name: str, settings: int) -> Sequence[Path]:
        """Writes a figure.

        Args:
            figure: The figure.
            folder: Where it goes unless a file is named.
            name: What it is called there.
            settings: Figures that are drawn in all.

        Raises:
            InputError: One file is named for several figures.
        """
        from prunas.report.figure import save, save_as

        formats = self.formats
        if self.to is None:
            return save(figure, folder, name, formats)
        if settings > 1:
            raise InputError(f"--to takes one figure, and {settings} settings have one; name a space")
        suffix = f".{formats[0]}"
        return [save_as(figure, self.to if self.to.suffix == suffix else Path(f"{self.to}{suffix}"))]


def _plot(
    asked: _Asked,
    as_json: bool,
    name: str,
    make: Callable[["Evidence", str], "Figure"],
    numbers: "tuple[str, Callable[[Evidence], tuple[list[dict[str, Any]], Table]]] | None" = None,
) -> None:
    """Draws one figure for each setting.

    Args:
        asked: Of what, and where to.
        as_json: How to print.
        name: Of the files.
        make: Makes the figure of the evidence and what to call its setting.
        numbers: What else is printed: its key in the document, and what makes its records and its table.
    """
    from prunas.statistics.text import as_text

    found = [
        (folder, *_narrowed(asked, evidence)) for folder, evidence in evidence_of(asked.out, asked.space)
    ]
    asked.formats  # noqa: B018  # refused before anything is drawn
    paths = [
        path
        for folder, evidence, setting in found
        for path in asked.save(make(evidence, setting), folder, name, len(found))
    ]
    extra: dict[str, list[dict[str, Any]]] = {}
    if numbers is not None:
        key, tell = numbers
        extra[key] = []
        for _, evidence, _ in found:
            records, table = tell(evidence)
            extra[key] += [record | {"setting": evidence.setting} for record in records]
            if table.rows and not as_json:
                typer.echo(f"{evidence.setting}\n\n{as_text(table)}")
    _print_figures(paths, as_json, extra)


def _narrowed(asked: _Asked, evidence: "Evidence") -> "tuple[Evidence, str]":
    """The evidence of those who are drawn, and its setting, which says who is left out."""
    record, left_out = asked.chosen(evidence.record)
    return replace(evidence, record=record), evidence.setting + _without(left_out)


def _not_asked(names: Sequence[str]) -> str:
    return f"{', '.join(names)} (not asked for)"


def _without(names: Sequence[str]) -> str:
    """The end of a setting's name that says who is left out."""
    return f"; left out: {_not_asked(names)}" if names else ""


def _print_figures(paths: Sequence[Path], as_json: bool, extra: Mapping[str, Any] | None = None) -> None:
    if as_json:
        print_json({"schema": SCHEMA, "figures": list(map(str, paths)), **(extra or {})})
    else:
        for path in paths:
            typer.echo(str(path))
