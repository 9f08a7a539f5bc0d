"""The command line: thin. Each command asks one room, prints for a person or, with --json, for a program.

Messages and progress go to standard error; standard output holds the result alone. Exit codes: 0 ok, 1 some runs
failed, 2 bad input, 75 preempted, 130 Ctrl-C. Heavy imports happen inside the commands, so that `prunas --help`
is immediate.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from prunas import SCHEMA, __version__
from prunas.errors import InputError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from prunas.architecture import Architecture
    from prunas.experiments.jobs import Setting
    from prunas.experiments.record import Record
    from prunas.experiments.search import Findings, Plan
    from prunas.report.evidence import Evidence
    from prunas.runs.executors import Executor, Report
    from prunas.runs.store import Store
    from prunas.space import SearchSpace

__all__ = ["app", "main"]

FAILED, BAD_INPUT, PREEMPTED, INTERRUPTED = 1, 2, 75, 130
ASK_ABOVE = 600  # seconds of estimated work above which a terminal is asked

app = typer.Typer(
    help="Pruning as neural architecture search: which shape is worth training?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
design_app = typer.Typer(help="Make a shape in a second: no training, no torch.", no_args_is_help=True)
plot_app = typer.Typer(help="Draw figures from finished searches (SVG and PNG).", no_args_is_help=True)
app.add_typer(design_app, name="design")
app.add_typer(plot_app, name="plot")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Out = Annotated[Path, typer.Option("--out", help="Folder that holds all runs.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data sets; PRUNAS_DATA does the same.")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch a data set that is not there.")]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="Instead of the space's own recipe.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Epochs of the recipe.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Batch size of the recipe.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate of the recipe.")]
Images = Annotated[int | None, typer.Option("--images", help="Train on this many images only.")]
Precision = Annotated[str | None, typer.Option("--precision", help="fp32 or bf16.")]
ChannelsLast = Annotated[
    bool | None, typer.Option("--channels-last/--channels-first", help="Memory layout of the recipe.")
]
ExecutorName = Annotated[str, typer.Option("--executor", help="serial or processes.")]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Worker processes of one thread each (implies processes).")
]
Metric = Annotated[str | None, typer.Option("--metric", help="What targets count: params, macs or channels.")]
Keep = Annotated[str | None, typer.Option("--keep", help="Targets as fractions, such as 0.3,0.1.")]
Budget = Annotated[str | None, typer.Option("--budget", help="Targets as numbers, such as 1.2M,400k.")]
To = Annotated[Path, typer.Option("--to", help="File the architecture is written to.")]
SpaceName = Annotated[str, typer.Argument(help="Name of a bundled space, or a TOML file.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prunas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# Search and train


@app.command()
def search(
    space: Annotated[str, typer.Argument(help="Name of a bundled space, or a TOML file.")] = "vgg11-digits",
    proposer: Annotated[
        list[str] | None, typer.Option("--proposer", help="Who proposes; repeat it, or separate by commas.")
    ] = None,
    keep: Keep = None,
    budget: Budget = None,
    metric: Metric = None,
    protocol: Annotated[str, typer.Option("--protocol", help="How points are trained.")] = "scratch-e",
    seeds: Annotated[int, typer.Option("--seeds", help="Searches per proposer.")] = 3,
    trials: Annotated[
        int | None, typer.Option("--trials", help="Candidates per target of every sampler, random included.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of a proposer, such as slimming.pull=1.")
    ] = None,
    controls: Annotated[bool, typer.Option(help="Whether uniform, random and taper join in.")] = True,
    dense: Annotated[bool, typer.Option(help="Whether the dense network is trained and tested too.")] = True,
    cap: Annotated[float | None, typer.Option("--cap", help="Largest factor of Scratch-B epochs.")] = None,
    keep_weights: Annotated[bool, typer.Option(help="Keep the weights of every final training.")] = False,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Rate = None,
    images: Images = None,
    precision: Precision = None,
    channels_last: ChannelsLast = None,
    data: Data = None,
    download: Download = False,
    out: Out = Path("runs"),
    executor: ExecutorName = "serial",
    workers: Workers = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before long work.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Propose shapes, train them from scratch, compare."""
    from prunas.experiments.plan import forecast, make_plan
    from prunas.experiments.search import search as run_search

    setting = _setting(space, recipe, data, download, epochs, batch, lr, images, precision, channels_last)
    plan = make_plan(
        setting,
        _list(proposer or ["slimming"]),
        keep=[_number(text, "--keep") for text in _list(keep)],
        budgets=_list(budget),
        metric=metric,  # type: ignore[arg-type]  # checked by the plan
        protocols=_list(protocol),
        seeds=seeds,
        trials=trials,
        options=_options_of(option or []),
        controls=controls,
        dense=dense,
        cap=cap,
        keep_weights=keep_weights,
    )
    work = forecast(plan)
    if dry_run:
        _print_plan(plan, as_json)
        return
    store = _store(out)
    _say(
        f"{plan.setting.space.name}: {', '.join(plan.proposers)} at {len(plan.targets)} targets, {seeds} seeds, "
        f"{work.trainings} trainings in {out}"
    )
    with _stopping() as stop, _progress(work.trainings) as report:
        if not yes:
            _confirm(plan)
        findings = run_search(plan, store, lambda: _executor(executor, workers, store, report, stop))
    _finish_search(plan, findings, store, stop, as_json)


@app.command()
def transfer(
    source: Annotated[str, typer.Option("--from", help="Space in which shapes are found.")],
    target: Annotated[str, typer.Option("--to", help="Space to which their pattern is carried.")],
    proposer: Annotated[
        str, typer.Option("--proposer", help="Who finds; slimming or magnitude, say.")
    ] = "slimming",
    from_found: Annotated[
        bool, typer.Option("--from-found", help="Take the shapes shipped in search_spaces/found/.")
    ] = False,
    keep: Keep = None,
    metric: Metric = None,
    protocol: Annotated[str, typer.Option("--protocol", help="How points are trained.")] = "scratch-e",
    seeds: Annotated[int, typer.Option("--seeds", help="Searches per proposer, on both spaces.")] = 3,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of a proposer, such as slimming.pull=1.")
    ] = None,
    dense: Annotated[
        bool, typer.Option(help="Whether the target's dense network is trained and tested too.")
    ] = True,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Rate = None,
    images: Images = None,
    precision: Precision = None,
    channels_last: ChannelsLast = None,
    data: Data = None,
    download: Download = False,
    out: Out = Path("runs"),
    executor: ExecutorName = "serial",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Carry the pattern of found shapes to another network or data set, train there, compare."""
    from prunas.experiments.plan import forecast, make_plan
    from prunas.experiments.search import search as run_search
    from prunas.experiments.transfer import designs_of, find_source, load_source, source_plan
    from prunas.proposers.brief import Source

    designs = designs_of(proposer)
    changes = (epochs, batch, lr, images, precision, channels_last)
    setting = _setting(target, recipe, data, download, *changes)
    keeps = [_number(text, "--keep") for text in _list(keep)] or list(setting.space.keep)
    common: dict[str, Any] = {
        "keep": keeps,
        "metric": metric,
        "seeds": seeds,
        "options": _options_of(option or []),
    }
    placeholder = Source(setting.space, ())
    names = (proposer, *designs)
    # Both plans are made before anything is trained, so that what cannot be reached is said at once.
    plan = make_plan(setting, names, protocols=_list(protocol), dense=dense, source=placeholder, **common)
    store = _store(out)
    if from_found:
        found, trained = load_source(_load(source), proposer), 0
    with _stopping() as stop, _progress(forecast(plan).trainings) as report:
        if not from_found:
            first = make_plan(_setting(source, recipe, data, download, *changes), (proposer,), **common)
            _say(
                f"{source}: {proposer} at {len(first.targets)} targets, {seeds} seeds, to be carried to {target}"
            )
            found, trained = find_source(
                source_plan(first, proposer), store, lambda: _executor(executor, workers, store, report, stop)
            )
        plan = make_plan(setting, names, protocols=_list(protocol), dense=dense, source=found, **common)
        findings = run_search(plan, store, lambda: _executor(executor, workers, store, report, stop))
    _finish_search(plan, findings, store, stop, as_json, trained)


@app.command()
def train(
    point: Annotated[str, typer.Argument(help="SPACE, SPACE:PRESET, or an architecture's JSON file.")],
    protocol: Annotated[str, typer.Option("--protocol", help="scratch-e or scratch-b.")] = "scratch-e",
    seed: Annotated[int, typer.Option("--seed", help="Of initial weights and batches.")] = 0,
    cap: Annotated[float | None, typer.Option("--cap", help="Largest factor of Scratch-B epochs.")] = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Rate = None,
    images: Images = None,
    precision: Precision = None,
    channels_last: ChannelsLast = None,
    data: Data = None,
    download: Download = False,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Train one point from scratch on train + validation and test it once. Keeps the weights."""
    from prunas.costs import Target
    from prunas.experiments.plan import make_setting
    from prunas.proposers.brief import Proposal
    from prunas.recipe import protocol as protocol_named
    from prunas.space import load_point

    found, arch = load_point(point)
    how = protocol_named(protocol)
    changes = _changes(epochs, batch, lr, images, precision, channels_last)
    _remember(data)
    setting = make_setting(found, recipe_name=recipe, changes=changes, root=data, download=download)
    asked = Target("params", found.cost(arch).params)
    training = setting.final(Proposal(asked, arch), how, seed, cap if cap is not None else found.cap, True)
    store = _store(out)
    with (
        _stopping() as stop,
        _progress(1) as report,
        _executor("serial", None, store, report, stop) as executor,
    ):
        executor.submit(training.job)
        (outcome,) = executor.completed()
    if outcome.status == "preempted":
        raise typer.Exit(PREEMPTED)
    folder = str(store.folder(training.job))
    row = training.row(
        found, outcome, proposer="train", kind="predefined", asked=asked, search_seed=seed, folder=folder
    )
    if as_json:
        _print_json(
            {"schema": SCHEMA, "space": found.name, "trained": int(outcome.status == "finished")}
            | row.to_json()
        )
    else:
        accuracy = "-" if row.test_acc is None else f"{row.test_acc:.2f} %"
        typer.echo(f"{point}: {row.reached.params:,} params, {row.reached.macs:,} MACs, {row.epochs} epochs")
        typer.echo(f"test accuracy {accuracy}\n{folder}")
    if outcome.result is None:
        _say(outcome.error or outcome.status)
        raise typer.Exit(FAILED)


# Designs


@design_app.command("uniform")
def design_uniform(
    space: SpaceName,
    keep: Annotated[float | None, typer.Option("--keep", help="Fraction of the dense network.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Or a number, such as 1.2M.")] = None,
    metric: Metric = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """One ratio for all layers, fitted to a budget."""
    from prunas import designs

    found = _load(space)
    _design(found, designs.uniform(found, _target(found, keep, budget, metric)), to, as_json)


@design_app.command("taper")
def design_taper(
    space: SpaceName,
    params: Annotated[str, typer.Option("--params", help="Parameters to reach, such as 1.2M.")],
    macs: Annotated[str, typer.Option("--macs", help="MACs to reach with them, such as 90M.")],
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """Widths min(W, a * b^stage) with given parameters and MACs."""
    from prunas import designs
    from prunas.costs import Target

    found = _load(space)
    made = designs.taper(found, Target.parse(params), Target.parse(macs))
    if not made.matched:
        _say("no taper has both: the parameters are met, the MACs are as near as they come")
    _design(found, made.architecture, to, as_json)


@design_app.command("guided")
def design_guided(
    points: Annotated[list[Path], typer.Argument(help="Architecture JSON files found in one space.")],
    keep: Annotated[
        float | None, typer.Option("--keep", help="Fit to this fraction of the dense network.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Or to a number, such as 1.2M.")] = None,
    metric: Metric = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The mean stage ratios of found shapes; fitted to a budget if one is given."""
    from prunas import designs

    source, found = _found(points)
    target = _target(source, keep, budget, metric) if keep or budget else None
    _design(source, designs.guided(source, found, target), to, as_json)


@design_app.command("transferred")
def design_transferred(
    points: Annotated[list[Path], typer.Argument(help="Architecture JSON files found in one space.")],
    onto: Annotated[str, typer.Option("--onto", help="Space to carry their stage ratios to.")],
    keep: Annotated[
        float | None, typer.Option("--keep", help="Fit to this fraction of the dense network.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Or to a number, such as 1.2M.")] = None,
    metric: Metric = None,
    to: To = Path("arch.json"),
    as_json: Json = False,
) -> None:
    """The mean stage ratios of shapes found in one space, applied to another."""
    from prunas import designs

    source, found = _found(points)
    space = _load(onto)
    target = _target(space, keep, budget, metric) if keep or budget else None
    _design(space, designs.transferred(source, found, space, target), to, as_json)


# What there is


@app.command()
def show(
    point: Annotated[str, typer.Argument(help="SPACE, SPACE:PRESET, or an architecture's JSON file.")],
    as_json: Json = False,
) -> None:
    """What can vary, what is frozen and why, and what it costs."""
    from prunas.experiments.show import show_document, show_text
    from prunas.space import load_point

    found, arch = load_point(point)
    document = show_document(found, arch)
    if as_json:
        _print_json({"schema": SCHEMA} | document)
    else:
        typer.echo(show_text(found, arch, document))


@app.command()
def spaces(as_json: Json = False) -> None:
    """The bundled search spaces."""
    from prunas.space import bundled_spaces, load_space

    found = [load_space(name) for name in bundled_spaces()]
    rows = [
        {
            "name": s.name,
            "network": s.network,
            "data": s.data,
            "recipe": s.recipe,
            "params": s.cost(s.dense).params,
            "macs": s.cost(s.dense).macs,
            "dimensions": len(s.dimensions),
        }
        for s in found
    ]
    _print_rows(rows, as_json)


@app.command()
def proposers(as_json: Json = False) -> None:
    """The methods that propose shapes."""
    from prunas.proposers import PROPOSERS

    rows = [
        {
            "name": name,
            "kind": entry.kind,
            "description": entry.description,
            "reference": entry.reference,
            "dimensions": list(entry.dimensions),
            "needs": list(entry.needs),
            "trainings_per_target": entry.trainings_per_target,
        }
        for name, entry in PROPOSERS.items()
    ]
    _print_rows(rows, as_json, hide=("reference", "needs", "trainings_per_target"))


@app.command()
def presets(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None, as_json: Json = False
) -> None:
    """Named architectures, published ones first."""
    from prunas.space import bundled_spaces, load_space

    rows = []
    for name in [space] if space else bundled_spaces():
        found = load_space(name)
        for preset in found.presets:
            cost = found.cost(preset.architecture)
            rows.append(
                {
                    "name": preset.name,
                    "slug": preset.slug,
                    "space": found.name,
                    "params": cost.params,
                    "macs": cost.macs,
                }
            )
    _print_rows(rows, as_json)


@app.command()
def runs(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Every training that was begun, and how far it is."""
    store = _store(out)
    rows = []
    for run in store.runs(space):
        values = run.result.values if run.result else {}
        rows.append(
            {
                "id": run.job.id,
                "space": run.job.space,
                "label": run.job.label,
                "status": run.status,
                "accuracy": values.get("accuracy"),
                "seconds": values.get("seconds"),
                "folder": str(run.folder),
                "error": run.error,
            }
        )
    _print_rows(rows, as_json, hide=("folder",))


@app.command()
def compare(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    as_json: Json = False,
) -> None:
    """Tables of everything that finished searches found; one table per space, recipe and data set."""
    from prunas.experiments.record import load_records

    records = load_records(out, space)
    if as_json:
        _print_json({"schema": SCHEMA, "records": [record.document() for record in records]})
        return
    for record in records:
        typer.echo(f"{record.space} on {record.data}, recipe {record.recipe} ({record.epochs} epochs)\n")
        typer.echo(record.tables(markdown))


@plot_app.command("efficiency")
def plot_efficiency(
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
    folders = _figure_folders(out, records)
    drawn = [r.draw(folder, metric) for folder, r in zip(folders, records, strict=True)]  # type: ignore[arg-type]
    _print_figures([path for paths in drawn for path in paths], as_json)


@plot_app.command("pareto")
def plot_pareto(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """The points that nobody beats, over params and over MACs."""
    from prunas.report.pareto import pareto_figure
    from prunas.statistics.summary import table

    _plot(space, out, as_json, "pareto", lambda e: pareto_figure(table(e.rows), setting=e.setting))


@plot_app.command("cost")
def plot_cost(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """What searching cost against what it found."""
    from prunas.report.price import price_figure
    from prunas.statistics.prices import prices

    _plot(space, out, as_json, "cost", lambda e: price_figure(prices(e.rows, e.costs), setting=e.setting))


@plot_app.command("widths")
def plot_widths(
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


@plot_app.command("curves")
def plot_curves(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Learning curves: training loss over epochs."""
    from prunas.report.learning import learning_figure

    _plot(space, out, as_json, "curves", lambda e: learning_figure(e.logs(), setting=e.setting))


@app.command()
def report(
    space: Annotated[str | None, typer.Argument(help="Only this space's.")] = None,
    out: Out = Path("runs"),
    to: Annotated[Path, typer.Option("--to", help="The HTML file.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """One HTML file with findings, tables, figures and how far to trust them; it needs no network."""
    from prunas.files import write_atomic
    from prunas.report.headline import findings
    from prunas.report.page import page

    evidence = [each for _, each in _evidence(out, space)]
    document = page(evidence, out).encode()
    write_atomic(to, lambda file: file.write(document))
    found = [finding for each in evidence for finding in findings(each.rows, each.dense_mean)]
    if as_json:
        sentences = [finding.sentence for finding in found]
        runs = sum(len(each.rows) for each in evidence)
        _print_json({"schema": SCHEMA, "file": str(to), "runs": runs, "findings": sentences})
    else:
        for finding in found[:1]:
            typer.echo(finding.sentence)
        typer.echo(str(to))


@app.command()
def doctor(data: Data = None, out: Out = Path("runs"), as_json: Json = False) -> None:
    """What is wrong with this installation, and what can be done about it."""
    from prunas.experiments.doctor import examine

    checks = examine(data, out)
    if as_json:
        _print_json({"schema": SCHEMA, "checks": checks})
    else:
        for check in checks:
            typer.echo(f"{check['status']:>7}  {check['what']}: {check['detail']}")
    if any(check["status"] == "wrong" for check in checks):
        raise typer.Exit(FAILED)


# Helpers


def _finish_search(
    plan: "Plan",
    findings: "Findings",
    store: "Store",
    stop: Callable[[], bool],
    as_json: bool,
    trained: int = 0,
) -> None:
    """Stores what a search found, prints it, and exits with 1 if something is missing.

    Args:
        plan: What was asked.
        findings: What came of it.
        store: Where runs live.
        stop: Whether it was stopped.
        as_json: How to print.
        trained: Trainings done before, to find the source of a transfer.
    """
    from prunas.experiments.record import record_of, save

    if stop():
        _say("stopped as asked; the same command continues")
        raise typer.Exit(PREEMPTED)
    record = record_of(plan, findings)
    figures = record.draw(store.root / record.space / "figures")
    document = record.document(figures, findings.trained + trained, findings.problems)
    save(record, document, store.root, plan)
    if as_json:
        _print_json(document)
    else:
        typer.echo(record.tables())
        for note in record.notes:
            typer.echo(f"Note: {note}")
        for path in figures:
            typer.echo(str(path))
    for problem in findings.problems:
        _say(problem)
    if findings.problems or any(row.status != "finished" for row in findings.rows):
        raise typer.Exit(FAILED)


def _evidence(out: Path, space: str | None) -> list[tuple[Path, "Evidence"]]:
    """Every setting with the folder of its figures."""
    from prunas.experiments.record import load_records
    from prunas.report.evidence import gather

    records = load_records(out, space)
    found = []
    for folder, record in zip(_figure_folders(out, records), records, strict=True):
        evidence = gather(
            out,
            space=record.space,
            data=record.data,
            recipe=record.recipe,
            epochs=record.epochs,
            setting=record.setting,
            rows=record.rows,
            dense=record.dense,
            costs=record.costs,
            notes=record.notes,
        )
        found.append((folder, evidence))
    return found


def _plot(
    space: str | None, out: Path, as_json: bool, name: str, make: Callable[["Evidence"], "Figure"]
) -> None:
    from prunas.report.figure import save

    drawn = [(folder, make(evidence)) for folder, evidence in _evidence(out, space)]
    _print_figures([path for folder, figure in drawn for path in save(figure, folder, name)], as_json)


def _figure_folders(out: Path, records: "Sequence[Record]") -> list[Path]:
    """Where the figures of each record go: one folder per space, and per setting where a space has several."""
    spaces = [record.space for record in records]
    folders = [out / space / "figures" for space in spaces]
    return [
        folder / record.setting if spaces.count(record.space) > 1 else folder
        for folder, record in zip(folders, records, strict=True)
    ]


def _print_figures(paths: Sequence[Path], as_json: bool) -> None:
    if as_json:
        _print_json({"schema": SCHEMA, "figures": list(map(str, paths))})
    else:
        typer.echo("\n".join(map(str, paths)))


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=1, allow_nan=False))


def _print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, hide: Sequence[str] = ()) -> None:
    if as_json:
        _print_json(list(rows))
        return
    if not rows:
        _say("none")
        return
    columns = [key for key in rows[0] if key not in hide]
    cells = [columns, *([_cell(row[key]) for key in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _list(given: str | Sequence[str] | None) -> list[str]:
    texts = [given] if isinstance(given, str) else list(given or ())
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{flag}: {text!r} is not a number") from error


def _options_of(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`slimming.pull=1` and the like, by proposer."""
    from prunas.proposers import entry

    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, _, value = text.partition("=")
        name, _, field = key.partition(".")
        if not (value and field):
            raise InputError(f"--set {text!r} does not read PROPOSER.SETTING=VALUE")
        entry(name)
        try:
            options.setdefault(name, {})[field] = json.loads(value)
        except ValueError:
            options.setdefault(name, {})[field] = value
    return options


def _changes(
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    images: int | None,
    precision: str | None,
    channels_last: bool | None,
) -> dict[str, Any]:
    if precision not in (None, "fp32", "bf16"):
        raise unknown("precision", str(precision), ("fp32", "bf16"))
    return {
        "epochs": epochs,
        "batch": batch,
        "lr": lr,
        "images": images,
        "precision": precision,
        "channels_last": channels_last,
    }


def _setting(space: str, recipe: str | None, data: Path | None, download: bool, *changes: Any) -> "Setting":
    from prunas.experiments.plan import make_setting

    _remember(data)
    return make_setting(
        _load(space), recipe_name=recipe, changes=_changes(*changes), root=data, download=download
    )


def _remember(data: Path | None) -> None:
    """Tells trainings, in this process and in workers, where the data sets are."""
    if data is not None:
        os.environ["PRUNAS_DATA"] = str(data)


def _load(space: str) -> "SearchSpace":
    from prunas.space import load_space

    return load_space(space)


def _found(points: Sequence[Path]) -> tuple["SearchSpace", list["Architecture"]]:
    from prunas.space import load_point

    loaded = [load_point(str(path)) for path in points]
    names = {space.name for space, _ in loaded}
    if len(names) > 1:
        raise InputError(f"the points come from different spaces: {', '.join(sorted(names))}")
    return loaded[0][0], [arch for _, arch in loaded]


def _target(space: "SearchSpace", keep: float | None, budget: str | None, metric: str | None) -> Any:
    from prunas.costs import Target

    if (keep is None) == (budget is None):
        raise InputError("give a budget, either --keep 0.3 or --budget 1.2M")
    number = None if budget is None else Target.parse(budget)
    return space.target(keep=keep, budget=number, metric=metric)  # type: ignore[arg-type]  # checked there


def _design(space: "SearchSpace", arch: "Architecture", to: Path, as_json: bool) -> None:
    from prunas.files import write_json

    write_json(to, arch.to_json())
    cost = space.cost(arch)
    if as_json:
        _print_json(
            {
                "schema": SCHEMA,
                "space": space.name,
                "architecture": arch.to_json(),
                "digest": arch.digest,
                "reached": cost.to_json(),
                "file": str(to),
            }
        )
    else:
        typer.echo(f"{to}: {cost.params:,} params, {cost.macs:,} MACs")


def _store(out: Path) -> "Store":
    from prunas.runs.store import Store

    return Store(out, notice=_say)


def _executor(
    name: str, workers: int | None, store: "Store", report: "Report", stop: Callable[[], bool]
) -> "Executor":
    from prunas.runs.executors import executor

    if workers is not None:
        if workers < 1:
            raise InputError(f"--workers must be at least 1, not {workers}")
        return executor("processes", store, report, stop, workers=workers)
    return executor(name, store, report, stop)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """While active, SIGTERM only asks: the training saves at its next step."""
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        asked = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(total: int) -> Iterator["Report"]:
    """A live bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    seen: dict[str, int] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)

        def report(job: Any, message: Mapping[str, Any]) -> None:
            seen.setdefault(job.id, len(seen))
            done = max(0, len(seen) - 1)
            if "epoch" in message:
                state = f"epoch {message['epoch']}/{message['epochs']} loss {message['loss']:.3f}"
            else:
                state = str(message.get("waiting", ""))
            bar.update(task, completed=done, total=max(total, len(seen)), description=f"{job.label} {state}")

        yield report


def _confirm(plan: "Plan") -> None:
    """Asks a person at a terminal before work that is estimated to take longer than ten minutes."""
    from prunas.experiments.plan import forecast

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    seconds = forecast(plan).seconds(plan)
    _say(f"about {max(1, round(seconds / 60))} minutes if nothing is finished yet")
    if seconds > ASK_ABOVE and not typer.confirm("go on?", default=True, err=True):
        raise typer.Exit(0)


def _print_plan(plan: "Plan", as_json: bool) -> None:
    from prunas.experiments.plan import dry_rows, forecast

    work = forecast(plan)
    rows = dry_rows(plan)
    if as_json:
        _print_json({"schema": SCHEMA, "trainings": work.trainings, "macs": work.macs, "runs": rows})
    else:
        _print_rows(rows, False)
        typer.echo(f"{work.trainings} trainings, {work.macs:.3g} MACs; nothing was trained")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its code.

    Args:
        arguments: Instead of those of the process.
    """
    try:
        code = app(arguments, standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this code
            raise KeyboardInterrupt
    except InputError as error:
        _say(f"prunas: {error}")
        code = BAD_INPUT
    except KeyboardInterrupt:
        _say("\nstopped; the same command continues")
        code = INTERRUPTED
    except typer.Abort:
        code = INTERRUPTED
    except Exception as error:
        show_usage = getattr(error, "show", None)
        if show_usage is None:
            raise
        show_usage()
        code = BAD_INPUT
    sys.exit(code if isinstance(code, int) else 0)
