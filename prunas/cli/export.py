"""`prunas export`: a network that needs no prunas."""

from pathlib import Path
from typing import Annotated

import typer

from prunas.cli.options import Json, Out
from prunas.cli.output import check_file, check_folder, print_json

__all__ = ["export"]


def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A finished run: its folder, id or name. With --init also SPACE, SPACE:PRESET, a JSON file.",
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="onnx, pt2, python or safetensors.")],
    init: Annotated[
        int | None,
        typer.Option("--init", help="Fresh weights of this seed for a shape that was not trained."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="Where to write; by default NAME.FORMAT here, of python the folder NAME."
        ),
    ] = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a network with its weights to files that need no prunas, and check them by running them."""
    from prunas.inspection import export as exporting

    form = exporting.form_of(to)
    folder = form == "python"
    check = check_folder if folder else check_file
    if file is not None:
        check(file, "--file")
    network = exporting.find(what, out, init)
    target = file or Path(network.name if folder else f"{network.name}.{form}")
    check(target, "--file")
    written = exporting.export(network, form, target)
    if as_json:
        print_json(written.to_json())
    else:
        typer.echo(
            f"{written.file}: {written.origin}; differs from torch by {written.difference:.1g} (relative)"
        )
