"""`prunas shrink`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunas.cli.options import (
    Batch,
    ChannelsLast,
    Data,
    Deterministic,
    Download,
    Eager,
    ExecutorName,
    ExecutorSet,
    Images,
    Json,
    Metric,
    Out,
    Precision,
    Rate,
    RecipeName,
    RecipeSet,
    WeightsFile,
    Workers,
    Yes,
    computing,
    listed,
    options_of,
    recipe_of,
)
from prunas.cli.output import (
    FAILED,
    PREEMPTED,
    at_terminal,
    check_file,
    confirm_long,
    print_json,
    print_rows,
    say,
)
from prunas.cli.progress import progress, span
from prunas.cli.search import DryRun, ProposerSet
from prunas.errors import InputError

if TYPE_CHECKING:
    from prunas.shrinking import PreparedShrink

__all__ = ["shrink"]


def shrink(
    space: Annotated[str, typer.Argument(help="Name of a bundled space, or a TOML file.")],
    weights: WeightsFile = None,
    keep: Annotated[float | None, typer.Option("--keep", help="Share that is kept, such as 0.5.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Or what is kept, such as 1.2M.")] = None,
    metric: Metric = None,
    within: Annotated[
        str | None, typer.Option("--for", help="Time that all of it may take, such as 2h or 30m.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Or epochs that all trainings together may take.")
    ] = None,
    proposer: Annotated[
        list[str] | None, typer.Option("--proposer", help="Who proposes; repeat it, or separate by commas.")
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option("--protocol", help="Ways to retrain, such as finetune,scratch-e.")
    ] = None,
    option: ProposerSet = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the retraining.")] = 0,
    to: Annotated[Path, typer.Option("--to", help="Folder the smaller network is written to.")] = Path(
        "shrunk"
    ),
    recipe: RecipeName = None,
    recipe_set: RecipeSet = None,
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
    """Make a trained network smaller: prune, retrain in several ways, keep the best by validation."""
    from prunas.runs.executors import parsed_options
    from prunas.shrinking import prepare_shrink

    computing(deterministic, eager)
    if to.exists() and not to.is_dir():
        raise InputError(f"--to {to} is no folder; name one, which may be new")
    check_file(to / "result.json", "--to")
    prepared = prepare_shrink(
        space,
        weights=weights,
        keep=keep,
        budget=budget,
        metric=metric,
        proposers=listed(proposer, "--proposer"),
        protocol=listed(protocol, "--protocol"),
        epochs=epochs,
        time=within,
        seed=seed,
        options=options_of(option or []),
        recipe=recipe_of(recipe, None, batch, lr, images, precision, channels_last, recipe_set),
        data=data,
        download=download,
        out=out,
        executor=executor,
        workers=workers,
        executor_options=parsed_options(executor_set),
        notice=say,
    )
    _carry_out(prepared, to, yes, dry_run, as_json)


def _carry_out(prepared: "PreparedShrink", to: Path, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Says what will be done, does it, writes the files and prints what was picked."""
    from prunas.experiments.shrink import Stopped
    from prunas.runs.signals import stopping

    for note in prepared.notes:
        say(note)
    work, plan = prepared.forecast, prepared.plan
    if dry_run and as_json:
        print_json(prepared.document)
        return
    target = plan.search.targets[0]
    seconds = work.seconds(plan.search)
    lines = [
        f"{plan.setting.space.name} to {target.label} of its {target.metric}, from {plan.setting.dense_from}",
        *(
            f"  {index}. {each.does}{_size(each.trainings, each.epochs)}"
            for index, each in enumerate(plan.rounds, 1)
        ),
        f"at most {work.trainings} trainings, {work.epochs} epochs, about {span(seconds)}; "
        f"runs in {prepared.store.root}, files in {to}",
    ]
    if dry_run:
        print_rows([each.to_json() for each in plan.rounds], False)
        typer.echo(f"{lines[-1]}; nothing was trained")
        return
    for line in lines:
        say(line)
    if at_terminal() and not yes:
        confirm_long(seconds)
    with stopping() as stop, progress(work.trainings, work.epochs) as tally:
        try:
            shrunk = prepared.run(tally, stop, tally.watch, side_by_side=True)
        except Stopped:
            say("stopped as asked; the same command continues")
            raise typer.Exit(PREEMPTED) from None
    files, missing = shrunk.save(to)
    if as_json:
        print_json({**shrunk.document, "files": [str(file) for file in files]})
    else:
        typer.echo(shrunk.table())
        for note in shrunk.record.notes:
            typer.echo(f"Note: {note}")
        for file in files:
            typer.echo(str(file))
        typer.echo(shrunk.sentence)
    for line in (*missing, *shrunk.record.problems):
        say(line)
    if shrunk.record.problems:
        raise typer.Exit(FAILED)


def _size(trainings: int, epochs: int) -> str:
    return f" ({trainings} x {epochs} epochs)" if trainings else ""
