"""What everything that carries out cells is told on the command line."""

import argparse
from pathlib import Path

__all__ = ["add_run_arguments"]


def add_run_arguments(parser: argparse.ArgumentParser, out: Path) -> None:
    """Adds the options that say how cells are trained.

    Args:
        parser: The parser.
        out: Folder that holds all runs unless told otherwise.
    """
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which trainings stop")
    parser.add_argument("--data", type=Path, help="folder of the data sets; PRUNAS_DATA does the same")
    parser.add_argument("--out", type=Path, default=out, help="folder that holds all runs")
    parser.add_argument("--into", type=Path, help="folder that results are written to; by default this one")
    parser.add_argument("--executor", help="as of prunas search; by default a process for every core")
    parser.add_argument("--workers", type=int, help="trainings at a time, as of prunas search")
    parser.add_argument("--executor-set", action="append", default=[], help="setting of the executor")
