"""The command line: thin. Each command asks one room, prints for a person or, with --json, for a program.

Messages and progress go to standard error; standard output holds the result alone. Exit codes: 0 ok, 1 some runs
failed, 2 bad input, 75 preempted, 130 Ctrl-C. Heavy imports happen inside the commands, so that `prunas --help`
is immediate.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from prunas import __version__
from prunas.cli import advise as advising
from prunas.cli import catalogue, design, plot, results
from prunas.cli import export as exporting
from prunas.cli import new as newly
from prunas.cli import search as searching
from prunas.cli import shrink as shrinking
from prunas.cli import watch as watching
from prunas.cli.output import BAD_INPUT, INTERRUPTED, say
from prunas.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Pruning as neural architecture search: which shape is worth training?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
design_app = typer.Typer(help="Make a shape in a second: no training, no torch.", no_args_is_help=True)
plot_app = typer.Typer(help="Draw figures from finished searches (SVG and PNG).", no_args_is_help=True)


@plot_app.callback()
def _figures(context: typer.Context) -> None:
    # A figure is drawn before there is garbage to speak of, and looking for it was a sixth of the whole time.
    gc.disable()
    context.call_on_close(gc.enable)


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


COMMANDS: dict[typer.Typer, tuple[Callable[..., None], ...]] = {
    app: (
        searching.search, searching.transfer, shrinking.shrink, searching.train, catalogue.show, catalogue.spaces,
        catalogue.proposers, catalogue.presets, catalogue.tasks, results.runs, watching.watch, results.compare,
        results.report, advising.advise, results.optuna, exporting.export, newly.new, catalogue.doctor,
    ),
    design_app: (
        design.uniform, design.taper, design.guided, design.transferred, design.shuffled, design.uniform_depth,
        design.uniform_kernel, design.erk, design.cross,
    ),
    plot_app: (
        plot.efficiency, plot.pareto, plot.cost, plot.budget, plot.widths, plot.kernels, plot.curves, plot.proxy,
    ),
}  # fmt: skip
for group, commands in COMMANDS.items():
    for command in commands:
        group.command()(command)
app.add_typer(design_app, name="design")
app.add_typer(plot_app, name="plot")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its code.

    Args:
        arguments: Instead of those of the process.
    """
    if (here := str(Path.cwd())) not in sys.path:  # a user's modules, as `python -m prunas` finds them
        sys.path.insert(0, here)
    try:
        code = app(arguments, standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this code
            raise KeyboardInterrupt
    except InputError as error:
        say(f"prunas: {error}")
        code = BAD_INPUT
    except KeyboardInterrupt:
        say("\nstopped; the same command continues")
        code = INTERRUPTED
    except typer.Abort:
        code = INTERRUPTED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "prunas"):
            raise
        say(f"prunas: the package {package} is not installed; `prunas doctor` says what is missing")
        code = BAD_INPUT
    except Exception as error:
        show_usage = getattr(error, "show", None)
        if show_usage is None:
            raise
        show_usage()
        code = BAD_INPUT
    sys.exit(code if isinstance(code, int) else 0)
