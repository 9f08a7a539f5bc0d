"""`prunas new`: the first TOML file of a network."""

from pathlib import Path
from typing import Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, listed, number, sizes
from prunas.cli.output import print_json, say

__all__ = ["new"]


def new(
    network: Annotated[
        str, typer.Argument(help="What makes the network: net.py:make, torchvision.models:resnet50.")
    ],
    shape: Annotated[str, typer.Option("--input", help="Shape of one input, such as 3,224,224.")],
    name: Annotated[str, typer.Option("--name", help="Of the space; NAME.toml is written here.")] = "",
    data: Annotated[
        str, typer.Option("--data", help="A data set by name, or what makes one: net.py:data.")
    ] = "",
    task: Annotated[
        str, typer.Option("--task", help="A task by name, or what makes one.")
    ] = "classification",
    recipe: Annotated[str, typer.Option("--recipe", help="Recipe of the trainings.")] = "paper",
    keep: Annotated[str, typer.Option("--keep", help="Targets as fractions, such as 0.5,0.3.")] = "0.5",
    metric: Annotated[str, typer.Option("--metric", help="What targets count.")] = "macs",
    as_json: Json = False,
) -> None:
    """Survey a network and write its first TOML file: what can vary, what that saves, what is held and why."""
    from prunas.inspection.draft import draft, write_draft

    made = draft(
        network,
        sizes(shape),
        name=name,
        data=data,
        task=task,
        recipe=recipe,
        keep=[number(text, "--keep") for text in listed(keep, "--keep")],
        metric=metric,
    )
    file = write_draft(made, Path())
    if as_json:
        print_json({"schema": SCHEMA, "file": str(file), **made.to_json()})
        return
    typer.echo(
        f"{file}: {made.varying} widths vary, {len(made.excluded)} are held as they save next to nothing"
    )
    if not data:
        say(f"write `data` into {file} first: the name of a data set, or net.py:FUNCTION")
    say(f"next: prunas search {file} --proposer l1-global --dry-run; or, of trained weights, {made.next}")
