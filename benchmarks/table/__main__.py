"""Builds the table, judges on it, writes its page.

python -m benchmarks.table build --data DIR --out DIR [--minutes 60]     # repeat it until it is done
"""

import argparse
import sys
from pathlib import Path

from prunas.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """0 if everything asked for is there, 1 if something is missing, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("what", choices=("build",))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which trainings stop")
    parser.add_argument("--data", type=Path, help="folder of the data sets; PRUNAS_DATA does the same")
    parser.add_argument("--out", type=Path, default=Path("runs/table"), help="folder that holds all runs")
    parser.add_argument("--executor", help="as of prunas search; by default a process for every core")
    parser.add_argument("--workers", type=int, help="trainings at a time, as of prunas search")
    chosen = parser.parse_args(arguments)
    from benchmarks.table.build import build

    try:
        complete = build(
            minutes=chosen.minutes,
            data=chosen.data,
            out=chosen.out,
            executor=chosen.executor,
            workers=chosen.workers,
            say=lambda line: print(line, flush=True),
        )
    except InputError as error:
        print(f"table: {error}", file=sys.stderr)
        return 2
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
