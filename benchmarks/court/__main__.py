"""Tries found shapes, or writes what came of it.

python -m benchmarks.court --data DIR --out DIR [--minutes 60] [--protocol small|full] [--cell NAME]
python -m benchmarks.court plan --data DIR      # images per second of this machine, hours of every shape
python -m benchmarks.court collect --data DIR --out DIR    # writes what is finished, while another process trains
python -m benchmarks.court keep --data DIR --out DIR       # the same, and runs for another machine
python -m benchmarks.court report
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.reproduce.arguments import add_run_arguments
from prunas.errors import InputError, unknown


def main(arguments: list[str] | None = None) -> int:
    """0 if everything asked for is there, 1 if something is missing, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.court",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", nargs="?", choices=("plan", "collect", "keep", "report"), help="train nothing, but this"
    )
    parser.add_argument("--protocol", default="small", help="small (a CPU; the default) or full (a GPU)")
    parser.add_argument("--cell", help="only this shape, by the name of its file and point")
    add_run_arguments(parser, Path("runs/court"))
    chosen = parser.parse_args(arguments)
    try:
        if chosen.what == "report":
            _report()
            return 0
        return 0 if _train(chosen) else 1
    except InputError as error:
        print(f"court: {error}", file=sys.stderr)
        return 2


def _report() -> None:
    from benchmarks.court.page import README, page

    README.write_text(page(README.read_text(encoding="utf-8")), encoding="utf-8")


def _train(chosen: argparse.Namespace) -> bool:
    """Whether everything asked for is there."""
    from benchmarks.court.cases import cases
    from benchmarks.court.plan import foresee
    from benchmarks.court.results import HERE, LISTING
    from benchmarks.reproduce.run import collect_cells, keep_cells, run_cells

    def say(line: str) -> None:
        print(line, flush=True)

    every = cases(chosen.protocol)
    wanted = [case for case in every if chosen.cell in (None, case.name)]
    if not wanted:
        raise unknown("shape", chosen.cell, [case.name for case in every])
    if chosen.what == "plan":
        return foresee(wanted, say)
    common: dict[str, Any] = {"data": chosen.data, "out": chosen.out, "into": chosen.into or HERE, "say": say}
    if chosen.what == "collect":
        return collect_cells(wanted, LISTING, **common)
    if chosen.what == "keep":
        return keep_cells(every, LISTING, **common)
    return run_cells(
        wanted,
        LISTING,
        minutes=chosen.minutes,
        executor=chosen.executor,
        workers=chosen.workers,
        settings=chosen.executor_set,
        **common,
    )


if __name__ == "__main__":
    sys.exit(main())
