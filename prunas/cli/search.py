"""`prunas search`, `prunas transfer` and `prunas train`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunas import SCHEMA
from prunas.cli.options import (
    Align,
    Batch,
    Budget,
    ChannelsLast,
    Data,
    Deterministic,
    Download,
    Eager,
    Epochs,
    ExecutorName,
    ExecutorSet,
    Images,
    Json,
    Keep,
    Metric,
    Out,
    Precision,
    Rate,
    RecipeName,
    Workers,
    alignment,
    changes_of,
    computing,
    listed,
    load,
    number,
    options_of,
    remember,
    setting_of,
)
from prunas.cli.output import FAILED, PREEMPTED, print_json, print_rows, say
from prunas.cli.progress import progress
from prunas.cli.running import check_executor, executor_of, stopping, store_at
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.experiments.search import Findings, Plan
    from prunas.protocols import Protocol
    from prunas.runs.executors import Executor
    from prunas.runs.store import Store
    from prunas.works.trainings import Setting

__all__ = ["search", "train", "transfer"]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Check everything that a run checks, print what it would do; train nothing."
    ),
]
ASK_ABOVE = 600  # seconds of estimated work above which a terminal is asked


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
    warm_start: Annotated[
        str | None,
        typer.Option(
            "--warm-start",
            help="Pruning methods whose points every sampler tries first: slimming,l1 makes tpe tpe+slimming+l1.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of a proposer, such as slimming.pull=1.")
    ] = None,
    controls: Annotated[bool, typer.Option(help="Whether uniform, random and taper join in.")] = True,
    dense: Annotated[bool, typer.Option(help="Whether the dense network is trained and tested too.")] = True,
    dense_training: Annotated[
        str,
        typer.Option("--dense-training", help="How the dense network is trained: scratch-e, dsd or dsd:0.5."),
    ] = "scratch-e",
    cap: Annotated[float | None, typer.Option("--cap", help="Largest factor of Scratch-B epochs.")] = None,
    keep_weights: Annotated[bool, typer.Option(help="Keep the weights of every final training.")] = False,
    align: Align = None,
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
    executor: ExecutorName = None,
    workers: Workers = None,
    executor_set: ExecutorSet = None,
    deterministic: Deterministic = False,
    eager: Eager = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before long work.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Propose shapes, train them from scratch, compare."""
    from prunas.experiments.forecast import forecast
    from prunas.experiments.plan import make_plan
    from prunas.experiments.search import search as run_search

    changes = (epochs, batch, lr, images, precision, channels_last)
    computing(deterministic, eager)
    setting = setting_of(space, recipe, data, download, *changes, dense_training=dense_training)
    plan = make_plan(
        setting,
        listed(proposer, "--proposer") or ["slimming"],
        keep=[number(text, "--keep") for text in listed(keep, "--keep")],
        budgets=listed(budget, "--budget"),
        metric=metric,
        protocols=listed(protocol, "--protocol"),
        seeds=seeds,
        trials=trials,
        options=options_of(option or []),
        controls=controls,
        dense=dense,
        cap=cap,
        keep_weights=keep_weights,
        align=alignment(align),
        warm_start=listed(warm_start, "--warm-start"),
    )
    if trials is not None and not plan.trials:
        raise InputError(
            "--trials is for samplers and random, and none is in this search; add one, such as --proposer tpe"
        )
    store = store_at(out)
    _check(plan, store, executor, workers, executor_set)
    work = forecast(plan)
    _warn(setting, plan.protocols, plan.proposers)
    if dry_run:
        _print_plan(plan, as_json)
        return
    say(
        f"{plan.setting.space.name}: {', '.join(plan.proposers)} at {len(plan.targets)} targets, {seeds} seeds, "
        f"{work.trainings} trainings in {out}"
    )
    with stopping() as stop:
        if not yes:
            _confirm(plan)
        with progress(work.trainings, work.epochs) as tally:

            def make() -> "Executor":
                at_once = work.workers(plan)
                return executor_of(executor, workers, executor_set, store, tally, stop, at_once)

            findings = run_search(plan, store, make)
    _finish(plan, findings, store, stop, as_json)


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
    controls: Annotated[bool, typer.Option(help="Whether uniform, random and taper join in.")] = True,
    beside: Annotated[
        str | None, typer.Option("--beside", help="Further proposers on the target, such as shuffled,tpe.")
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
    executor: ExecutorName = None,
    workers: Workers = None,
    executor_set: ExecutorSet = None,
    deterministic: Deterministic = False,
    eager: Eager = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Carry the pattern of found shapes to another network or data set, train there, compare."""
    from prunas.experiments.forecast import forecast
    from prunas.experiments.plan import make_plan
    from prunas.experiments.preflight import preflight
    from prunas.experiments.search import search as run_search
    from prunas.experiments.transfer import designs_of, find_source, load_source, source_plan, stage_notes
    from prunas.proposers.brief import Source

    designs = designs_of(proposer)
    changes = (epochs, batch, lr, images, precision, channels_last)
    computing(deterministic, eager)
    setting = setting_of(target, recipe, data, download, *changes)
    keeps = [number(text, "--keep") for text in listed(keep, "--keep")] or list(setting.space.keep)
    common: dict[str, Any] = {"keep": keeps, "metric": metric, "seeds": seeds}
    options = options_of(option or [])
    placeholder = Source(setting.space, ())
    names = (proposer, *designs, *listed(beside, "--beside"))
    # Both plans are made before anything is trained, so that what cannot be reached is said at once.
    asked: dict[str, Any] = {
        "protocols": listed(protocol, "--protocol"),
        "dense": dense,
        "controls": controls,
        "options": options,
        **common,
    }
    plan = make_plan(setting, names, source=placeholder, **asked)
    store = store_at(out)
    _check(plan, store, executor, workers, executor_set)
    if from_found:
        found, trained, first = load_source(load(source), proposer), 0, None
    else:
        finding = {proposer: options[proposer]} if proposer in options else {}
        whole = make_plan(
            setting_of(source, recipe, data, download, *changes), (proposer,), options=finding, **common
        )
        first = source_plan(whole, proposer)
        preflight(first, store)
    for note in stage_notes(load(source), setting.space, names):
        say(note)
    _warn(setting, plan.protocols, plan.proposers)
    if dry_run:
        _print_plan(plan, as_json, first)
        return
    work = forecast(plan)
    source_work = None if first is None else forecast(first)
    trainings = work.trainings + (0 if source_work is None else source_work.trainings)
    epochs_left = work.epochs + (0 if source_work is None else source_work.epochs)
    with stopping() as stop, progress(trainings, epochs_left) as tally:

        def make(side_by_side: int) -> "Executor":
            return executor_of(executor, workers, executor_set, store, tally, stop, side_by_side)

        if first is not None and source_work is not None:
            say(
                f"{source}: {proposer} at {len(first.targets)} targets, {seeds} seeds, to be carried to {target}"
            )
            beside_each_other = source_work.workers(first)
            found, trained = find_source(first, store, lambda: make(beside_each_other))
        plan = make_plan(setting, names, source=found, **asked)
        findings = run_search(plan, store, lambda: make(work.workers(plan)))
    _finish(plan, findings, store, stop, as_json, trained)


def train(
    point: Annotated[str, typer.Argument(help="SPACE, SPACE:PRESET, or an architecture's JSON file.")],
    protocol: Annotated[str, typer.Option("--protocol", help="scratch-e, scratch-b or dsd.")] = "scratch-e",
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
    deterministic: Deterministic = False,
    eager: Eager = False,
    as_json: Json = False,
) -> None:
    """Train one point from scratch on train + validation and test it once. Keeps the weights."""
    from prunas.costs.target import Target
    from prunas.experiments.plan import check_cap, make_setting
    from prunas.experiments.preflight import check_setting
    from prunas.proposers.brief import Proposal
    from prunas.protocols import protocol as protocol_named
    from prunas.spaces.load import load_point
    from prunas.statistics.flags import count_flags, flags_text

    how = protocol_named(protocol)
    check_cap(cap, [how])
    found, arch = load_point(point)
    changes = changes_of(epochs, batch, lr, images, precision, channels_last)
    computing(deterministic, eager)
    remember(data)
    setting = make_setting(found, recipe_name=recipe, changes=changes, root=data, download=download)
    asked = Target("params", found.cost(arch).params)
    training = setting.final(Proposal(asked, arch), how, seed, cap if cap is not None else found.cap, True)
    check_setting(setting)
    _warn(setting, [how])
    store = store_at(out)
    with (
        stopping() as stop,
        progress(1, training.epochs) as tally,
        executor_of("serial", None, None, store, tally, stop) as executor,
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
        print_json(
            {"schema": SCHEMA, "space": found.name, "trained": int(outcome.status == "finished")}
            | row.to_json()
        )
    else:
        accuracy = "-" if row.test_score is None else f"{row.test_score:.2f} %"
        typer.echo(f"{point}: {row.reached.params:,} params, {row.reached.macs:,} MACs, {row.epochs} epochs")
        marks = f" ({flags_text(count_flags([row]), 1)})" if row.all_flags else ""
        typer.echo(f"test accuracy {accuracy}{marks}\n{folder}")
    if outcome.result is None:
        say(outcome.error or outcome.status)
        raise typer.Exit(FAILED)


def _check(
    plan: "Plan", store: "Store", executor: str | None, workers: int | None, settings: Sequence[str] | None
) -> None:
    """Refuses what could only fail later, for a run and for its dry run alike."""
    from prunas.experiments.preflight import preflight

    check_executor(executor, workers, settings, store)
    preflight(plan, store)


def _warn(setting: "Setting", protocols: "Sequence[Protocol]", proposers: Sequence[str] = ()) -> None:
    """Says before anything is trained that trainings will be too short, or slow by what this processor emulates.

    Args:
        setting: Space, recipe and data.
        protocols: How points are trained.
        proposers: Who proposes them.
    """
    from prunas.experiments.steps import few_steps
    from prunas.proposers.registry import entry

    if few := few_steps(setting, protocols, any("dense" in entry(name).needs for name in proposers)):
        say(f"{setting.space.name}: {few}")
    if setting.recipe.precision != "bf16":
        return
    from prunas.training.precision import fast_bf16
    from prunas.works.runtime import device

    if not fast_bf16(device()):
        say(
            "bf16 will be slow, a tenth of fp32's speed: a processor without AVX512-BF16 or AMX emulates it; "
            "--precision auto takes what is fast"
        )


def _finish(
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
    from prunas.statistics.curves import undrawn

    if stop():
        say("stopped as asked; the same command continues")
        raise typer.Exit(PREEMPTED)
    record = record_of(plan, findings)
    figures = record.draw(store.root / record.space / "figures")
    document = record.document(figures, findings.trained + trained, findings.problems)
    save(record, document, store.root, plan)
    if as_json:
        print_json(document)
    else:
        typer.echo(record.tables())
        for note in record.notes:
            typer.echo(f"Note: {note}")
        for path in figures:
            typer.echo(str(path))
        if not figures:
            say(f"no figure: it leaves out {'; '.join(undrawn(record.rows)) or 'all'}")
    for problem in findings.problems:
        say(problem)
    if findings.problems or any(row.status != "finished" for row in findings.rows):
        raise typer.Exit(FAILED)


def _confirm(plan: "Plan") -> None:
    """Asks a person at a terminal before work that is estimated to take longer than ten minutes."""
    from prunas.experiments.forecast import forecast

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    seconds = forecast(plan).seconds(plan)
    say(f"about {max(1, round(seconds / 60))} minutes if nothing is finished yet")
    if seconds > ASK_ABOVE and not typer.confirm("go on?", default=True, err=True):
        raise typer.Exit(0)


def _print_plan(plan: "Plan", as_json: bool, first: "Plan | None" = None) -> None:
    """Prints what a run would do.

    Args:
        plan: What it would carry out.
        as_json: How to print.
        first: What it would carry out before, to find the source of a transfer.
    """
    from prunas.experiments.forecast import dry_rows, forecast

    works = [forecast(each) for each in (first, plan) if each is not None]
    trainings, macs = sum(work.trainings for work in works), sum(work.macs for work in works)
    rows = dry_rows(plan)
    if as_json:
        print_json({"schema": SCHEMA, "trainings": trainings, "macs": macs, "runs": rows})
        return
    print_rows(rows, False)
    if first is not None:
        typer.echo(f"{works[0].trainings} of them in {first.setting.space.name}, to find what is carried")
    typer.echo(f"{trainings} trainings, {macs:.3g} MACs; nothing was trained")
