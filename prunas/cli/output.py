"""Printing: results on standard output, everything else on standard error."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from prunas.errors import InputError

__all__ = [
    "ASK_ABOVE",
    "BAD_INPUT",
    "FAILED",
    "INTERRUPTED",
    "PREEMPTED",
    "at_terminal",
    "check_file",
    "check_folder",
    "confirm_long",
    "print_json",
    "print_rows",
    "say",
]

FAILED, BAD_INPUT, PREEMPTED, INTERRUPTED = 1, 2, 75, 130
"""Exit codes."""

ASK_ABOVE = 600
"""Seconds of estimated work above which a person at a terminal is asked."""


def say(message: str) -> None:
    """Tells a person something, on standard error."""
    typer.echo(message, err=True)


def at_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm_long(seconds: float) -> None:
    """Asks the person at the terminal before work that is estimated to take longer than `ASK_ABOVE`.

    Raises:
        typer.Exit: The answer is no.
    """
    if seconds > ASK_ABOVE and not typer.confirm("go on?", default=True, err=True):
        raise typer.Exit(0)


def check_file(path: Path, flag: str) -> None:
    """Refuses, before any work, a path that no file can be written to.

    Args:
        path: Where a file is to go.
        flag: The option that said so, for the message.

    Raises:
        InputError: It is a folder, or lies in something that is none.
    """
    if path.is_dir():
        raise InputError(f"{flag} {path} is a folder; name a file in it")
    _check_above(path, flag)


def check_folder(path: Path, flag: str) -> None:
    """Refuses, before any work, a path that can be no folder to write to; arguments as of `check_file`.

    Raises:
        InputError: It is a file, or lies in something that is no folder or cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{flag} {path} is a file; name a folder")
    _check_above(path / "file", flag)


def _check_above(path: Path, flag: str) -> None:
    """Refuses a path below something that is no folder, or that cannot be written to."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"{flag} {path}: {above} is not a folder; name a file in a folder")
    if not os.access(above, os.W_OK):
        raise InputError(f"{flag} {path}: {above} cannot be written to; name another place")


def print_json(document: Any) -> None:
    """Prints one JSON document."""
    typer.echo(json.dumps(document, indent=1, allow_nan=False))


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, hide: Sequence[str] = ()) -> None:
    """Prints a table, or as JSON all of it.

    Args:
        rows: One mapping per row, all with the same keys.
        as_json: Whether a program reads it.
        hide: Columns that only programs see.
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        say("none")
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
