"""`prunas watch`: a search that runs, looked at from another terminal."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunas import SCHEMA
from prunas.cli.options import Json, Out, StoredSpace
from prunas.cli.output import print_json, say
from prunas.cli.progress import EVERY

if TYPE_CHECKING:
    from prunas.inspection.watch import Watcher

__all__ = ["watch"]

IDLE = 45.0
"""Seconds without any running training after which a search is taken to be over: between two, none runs."""


def watch(
    space: StoredSpace = None,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show a search that runs, from another terminal: what is trained now, how far it is, what has ended."""
    from prunas.inspection.watch import Watcher, watch_text
    from prunas.runs.store import Store

    watcher = Watcher(Store(out, notice=say), space)
    document = watcher.look()
    if space is not None and not document["statuses"]:
        from prunas.experiments.record import check_known

        check_known(space, {path.parent.parent.name for path in out.glob("*/*/job.json")}, out)
    if as_json:
        print_json({"schema": SCHEMA, **document})
        return
    if once:
        typer.echo(watch_text(document))
        return
    _follow(watcher, every)
    say("nothing runs any more; `prunas compare` and `prunas report` show what was found")


def _follow(watcher: "Watcher", every: float) -> None:
    """Shows the runs until none has run for `IDLE` seconds: in place on a terminal, else now and then."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from prunas.inspection.watch import watch_text

    console = Console()
    in_place = console.is_terminal and not console.is_dumb_terminal
    busy = time.monotonic()

    def frame() -> str:
        nonlocal busy
        document = watcher.look()
        if document["running"]:
            busy = time.monotonic()
        return watch_text(document)

    if not in_place:
        while time.monotonic() - busy < IDLE:
            typer.echo(frame())
            time.sleep(max(every, EVERY))
        return
    with Live(console=console, auto_refresh=False) as live:
        while time.monotonic() - busy < IDLE:
            live.update(Text(frame(), no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(every)
