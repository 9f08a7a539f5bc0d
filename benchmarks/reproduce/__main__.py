"""Trains the grid, or writes what came of it.

python -m benchmarks.reproduce --minutes 25 --data DIR --out DIR [--protocol reduced|fast|paper]
python -m benchmarks.reproduce plan --data DIR                  # images per second, hours of every cell
python -m benchmarks.reproduce collect --data DIR --out DIR     # what is finished, while another process trains
python -m benchmarks.reproduce keep --data DIR --out DIR        # the same, and runs for another machine
python -m benchmarks.reproduce report
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.reproduce.arguments import add_run_arguments
from prunas.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """0 if everything asked for is there, 1 if something is missing, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("plan", "collect", "keep", "report"), help="train nothing, but do this"
    )
    parser.add_argument("--protocol", help="reduced (a CPU; the default), fast or paper (a GPU)")
    parser.add_argument("--cell", help="only this cell")
    add_run_arguments(parser, Path("runs"))
    chosen = parser.parse_args(arguments)
    if chosen.what == "report":
        write()
        return 0
    try:
        complete = _train(chosen)
    except InputError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    return 0 if complete else 1


def _train(chosen: argparse.Namespace) -> bool:
    """Whether everything asked for is there."""
    from benchmarks.reproduce.plan import foresee
    from benchmarks.reproduce.run import collect, keep, run

    def say(line: str) -> None:
        print(line, flush=True)

    protocol = chosen.protocol or "reduced"
    common: dict[str, Any] = {"data": chosen.data, "out": chosen.out, "say": say}
    common |= {} if chosen.into is None else {"into": chosen.into}
    if chosen.what == "plan":
        return foresee(chosen.data, chosen.protocol, say)
    if chosen.what == "collect":
        return collect(protocol, only=chosen.cell, **common)
    if chosen.what == "keep":
        return keep(protocol, **common)
    return run(
        protocol,
        only=chosen.cell,
        minutes=chosen.minutes,
        executor=chosen.executor,
        workers=chosen.workers,
        settings=chosen.executor_set,
        **common,
    )


def write() -> None:
    """Writes the figures and this folder's README."""
    from benchmarks.reproduce import page

    for name in page.retire():
        print(f"early/{name}: removed, for reduced has this cell")
    page.draw()
    page.README.write_text(page.page(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
