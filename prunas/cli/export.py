"""`prunas export`: a network that needs no prunas."""

from pathlib import Path
from typing import Annotated

import typer

from prunas.cli.options import Json, Out
from prunas.cli.output import check_file, print_json

__all__ = ["export"]


def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A finished run: its folder, id or name. With --init also SPACE, SPACE:PRESET, a JSON file.",
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="onnx, pt2 or safetensors.")],
    init: Annotated[
        int | None,
        typer.Option("--init", help="Fresh weights of this seed for a shape that was not trained."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where to write; by default NAME.FORMAT in this folder.")
    ] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a network with its weights to a file that needs no prunas, and check it by running it."""
    from prunas.inspection import export as exporting

    form = exporting.form_of(to)
    if file is not None:
        check_file(file, "--file")
    network = exporting.find(what, out, init)
    target = file or Path(f"{network.name}.{form}")
    check_file(target, "--file")
    written = exporting.export(network, form, target)
    if as_json:
        print_json(written.to_json())
    else:
        typer.echo(
            f"{written.file}: {written.origin}; differs from torch by {written.difference:.1g} (relative)"
        )
