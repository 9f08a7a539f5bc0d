"""`prunas search`, `prunas transfer` and `prunas train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    RecipeSet,
    WeightsFile,
    Workers,
    Yes,
    alignment,
    computing,
    controls_of,
    evaluator_of,
    listed,
    number,
    options_of,
    recipe_of,
)
from prunas.cli.output import FAILED, PREEMPTED, at_terminal, confirm_long, print_json, print_rows, say
from prunas.cli.progress import progress
from prunas.proposers.evaluators import EVALUATORS
from prunas.protocols import PROTOCOLS
from prunas.report import can_draw

if TYPE_CHECKING:
    from prunas.api import PreparedSearch

__all__ = ["search", "train", "transfer"]

ProtocolNames = Annotated[
    str,
    typer.Option(
        "--protocol",
        help=f"How points are trained: {', '.join(PROTOCOLS)}. +distill has the dense network teach, :N sets "
        "epochs, scratch=NAME costs what NAME costs.",
    ),
]
ProposerSet = Annotated[
    list[str] | None, typer.Option("--set", help="Setting of a proposer, such as slimming.pull=1.")
]
WarmStart = Annotated[
    str | None,
    typer.Option(
        "--warm-start",
        help="Pruning methods whose points every sampler tries first: slimming,l1 makes tpe tpe+slimming+l1.",
    ),
]
EvaluatorName = Annotated[
    str | None,
    typer.Option(
        "--evaluator",
        help=f"How samplers and agents score candidates instead of training them: {', '.join(EVALUATORS)}.",
    ),
]
EvaluatorSet = Annotated[
    list[str] | None,
    typer.Option("--evaluator-set", help="Setting of the evaluator, such as norms=640; repeat it."),
]
Controls = Annotated[bool, typer.Option(help="Whether uniform, random and taper join in.")]
ControlsName = Annotated[
    str,
    typer.Option(
        "--controls",
        help="Who joins in: usual (uniform, random and taper); proxy: also random and tpe with the evaluator and "
        "as many evaluations as every method that searches by them.",
    ),
]
NoControls = Annotated[bool, typer.Option("--no-controls", help="Nobody joins in.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Check everything that a run checks, print what it would do; train nothing."
    ),
]
NO_FIGURE = "no figure: matplotlib is not installed; with it, `prunas plot efficiency` draws what is stored"


def search(
    space: Annotated[str, typer.Argument(help="Name of a bundled space, or a TOML file.")] = "vgg11-digits",
    proposer: Annotated[
        list[str] | None, typer.Option("--proposer", help="Who proposes; repeat it, or separate by commas.")
    ] = None,
    keep: Keep = None,
    budget: Budget = None,
    metric: Metric = None,
    protocol: ProtocolNames = "scratch-e",
    seeds: Annotated[int, typer.Option("--seeds", help="Searches per proposer.")] = 3,
    trials: Annotated[
        int | None, typer.Option("--trials", help="Candidates per target of every sampler, random included.")
    ] = None,
    warm_start: WarmStart = None,
    evaluator: EvaluatorName = None,
    evaluator_set: EvaluatorSet = None,
    option: ProposerSet = None,
    controls: ControlsName = "usual",
    no_controls: NoControls = False,
    dense: Annotated[bool, typer.Option(help="Whether the dense network is trained and tested too.")] = True,
    dense_training: Annotated[
        str,
        typer.Option("--dense-training", help="How the dense network is trained: scratch-e, dsd or dsd:0.5."),
    ] = "scratch-e",
    weights: WeightsFile = None,
    cap: Annotated[float | None, typer.Option("--cap", help="Largest factor of Scratch-B epochs.")] = None,
    keep_weights: Annotated[
        bool | None,
        typer.Option(
            help="Keep the weights of every final training, or of none; by default those up to 64 MiB."
        ),
    ] = None,
    align: Align = None,
    recipe: RecipeName = None,
    recipe_set: RecipeSet = None,
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
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Propose shapes, train them from scratch, compare."""
    from prunas.api import prepare_search
    from prunas.runs.executors import parsed_options

    computing(deterministic, eager)
    prepared = prepare_search(
        space,
        listed(proposer, "--proposer") or ["slimming"],
        keep=[number(text, "--keep") for text in listed(keep, "--keep")],
        budget=listed(budget, "--budget"),
        metric=metric,
        protocol=listed(protocol, "--protocol"),
        seeds=seeds,
        trials=trials,
        options=options_of(option or []),
        warm_start=listed(warm_start, "--warm-start"),
        evaluator=evaluator_of(evaluator, evaluator_set or []),
        controls=controls_of(controls, no_controls),
        dense=dense,
        dense_training=dense_training,
        weights=weights,
        cap=cap,
        keep_weights=keep_weights,
        align=alignment(align),
        recipe=recipe_of(recipe, epochs, batch, lr, images, precision, channels_last, recipe_set),
        data=data,
        download=download,
        out=out,
        executor=executor,
        workers=workers,
        executor_options=parsed_options(executor_set),
        notice=say,
    )
    _carry_out(prepared, yes, dry_run, as_json)


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
    protocol: ProtocolNames = "scratch-e",
    seeds: Annotated[int, typer.Option("--seeds", help="Searches per proposer, on both spaces.")] = 3,
    option: ProposerSet = None,
    controls: Controls = True,
    beside: Annotated[
        str | None, typer.Option("--beside", help="Further proposers on the target, such as shuffled,tpe.")
    ] = None,
    dense: Annotated[
        bool, typer.Option(help="Whether the target's dense network is trained and tested too.")
    ] = True,
    weights: WeightsFile = None,
    recipe: RecipeName = None,
    recipe_set: RecipeSet = None,
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
    from prunas.api import prepare_transfer
    from prunas.runs.executors import parsed_options

    computing(deterministic, eager)
    prepared = prepare_transfer(
        source,
        target,
        proposer,
        from_found=from_found,
        beside=listed(beside, "--beside"),
        keep=[number(text, "--keep") for text in listed(keep, "--keep")],
        metric=metric,
        protocol=listed(protocol, "--protocol"),
        seeds=seeds,
        options=options_of(option or []),
        controls=controls,
        dense=dense,
        weights=weights,
        recipe=recipe_of(recipe, epochs, batch, lr, images, precision, channels_last, recipe_set),
        data=data,
        download=download,
        out=out,
        executor=executor,
        workers=workers,
        executor_options=parsed_options(executor_set),
        notice=say,
    )
    _carry_out(prepared, True, dry_run, as_json)


def train(
    point: Annotated[str, typer.Argument(help="SPACE, SPACE:PRESET, or an architecture's JSON file.")],
    protocol: Annotated[
        str,
        typer.Option("--protocol", help="scratch-e, scratch-b or dsd; with --weights finetune and its like."),
    ] = "scratch-e",
    seed: Annotated[int, typer.Option("--seed", help="Of initial weights and batches.")] = 0,
    cap: Annotated[float | None, typer.Option("--cap", help="Largest factor of Scratch-B epochs.")] = None,
    weights: WeightsFile = None,
    recipe: RecipeName = None,
    recipe_set: RecipeSet = None,
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
    """Train one point on train + validation, from new or given weights, and test it once. Keeps the weights."""
    from prunas.api import prepare_train
    from prunas.runs.signals import stopping
    from prunas.statistics.flags import count_flags, flags_text
    from prunas.statistics.wording import value_text

    computing(deterministic, eager)
    prepared = prepare_train(
        point,
        protocol=protocol,
        seed=seed,
        cap=cap,
        weights=weights,
        recipe=recipe_of(recipe, epochs, batch, lr, images, precision, channels_last, recipe_set),
        data=data,
        download=download,
        out=out,
        notice=say,
    )
    for note in prepared.notes:
        say(note)
    with stopping() as stop, progress(1, prepared.training.epochs) as tally:
        result = prepared.run(tally, stop, tally.watch)
    row, outcome = result.row, result.outcome
    if outcome.status == "preempted":
        raise typer.Exit(PREEMPTED)
    if as_json:
        done = int(outcome.status == "finished")
        print_json({"schema": SCHEMA, "space": prepared.setting.space.name, "trained": done} | row.to_json())
    else:
        score = prepared.setting.score
        tested = "-" if row.test_score is None else value_text(row.test_score, score)
        typer.echo(f"{point}: {row.reached.params:,} params, {row.reached.macs:,} MACs, {row.epochs} epochs")
        marks = f" ({flags_text(count_flags([row], score), 1)})" if row.all_flags(score) else ""
        typer.echo(f"test {score.name} {tested}{marks}\n{result.folder}")
    if outcome.result is None:
        say(outcome.error or outcome.status)
        raise typer.Exit(FAILED)


def _carry_out(prepared: "PreparedSearch", yes: bool, dry_run: bool, as_json: bool) -> None:
    """Says what will be done, does it and prints what was found; exits with 1 if something is missing.

    Args:
        prepared: The search.
        yes: Whether long work begins unasked.
        dry_run: Whether nothing is trained.
        as_json: How to print.
    """
    from prunas.runs.signals import stopping
    from prunas.statistics.curves import undrawn

    for note in prepared.notes:
        say(note)
    if not can_draw():
        say(NO_FIGURE)
    if dry_run:
        _print_plan(prepared, as_json)
        return
    plan, first, works = prepared.plan, prepared.source_plan, prepared.forecasts
    if first is not None:
        names = f"{first.proposers[0]} at {len(first.targets)} targets, {first.seeds} seeds"
        say(f"{first.setting.space.name}: {names}, to be carried to {plan.setting.space.name}")
    names = f"{', '.join(plan.proposers)} at {len(plan.targets)} targets, {plan.seeds} seeds"
    say(f"{plan.setting.space.name}: {names}, {works[-1].trainings} trainings in {prepared.store.root}")
    if not yes:
        _confirm(prepared)
    trainings, epochs = sum(work.trainings for work in works), sum(work.epochs for work in works)
    with stopping() as stop, progress(trainings, epochs) as tally:
        result = prepared.run(tally, stop, tally.watch, side_by_side=True)
    if result.stopped:
        say("stopped as asked; the same command continues")
        raise typer.Exit(PREEMPTED)
    if as_json:
        print_json(result.document)
    else:
        typer.echo(result.table())
        for note in result.record.notes:
            typer.echo(f"Note: {note}")
        for path in result.figures:
            typer.echo(str(path))
        if can_draw() and not result.figures:
            say(f"no figure: it leaves out {'; '.join(undrawn(result.rows, result.record.score)) or 'all'}")
    for problem in result.problems:
        say(problem)
    if not result.complete:
        raise typer.Exit(FAILED)


def _confirm(prepared: "PreparedSearch") -> None:
    """Asks a person at a terminal before work that is estimated to take longer than ten minutes."""
    if not at_terminal():
        return
    seconds = prepared.forecasts[-1].seconds(prepared.plan)
    say(f"about {max(1, round(seconds / 60))} minutes if nothing is finished yet")
    confirm_long(seconds)


def _print_plan(prepared: "PreparedSearch", as_json: bool) -> None:
    """Prints what a run would do.

    Args:
        prepared: What it would carry out.
        as_json: How to print.
    """
    from prunas.experiments.forecast import dry_rows

    works = prepared.forecasts
    trainings, macs = sum(work.trainings for work in works), sum(work.macs for work in works)
    rows = dry_rows(prepared.plan)
    if as_json:
        print_json({"schema": SCHEMA, "trainings": trainings, "macs": macs, "runs": rows})
        return
    print_rows(rows, False)
    if (first := prepared.source_plan) is not None:
        typer.echo(f"{works[0].trainings} of them in {first.setting.space.name}, to find what is carried")
    typer.echo(f"{trainings} trainings, {macs:.3g} MACs; nothing was trained")
