"""Trains the grid, or writes what came of it.

python -m benchmarks.reproduce --minutes 25 --data DIR --out DIR [--protocol reduced|short|paper]
python -m benchmarks.reproduce report
"""

import argparse
import sys
from pathlib import Path

from prunas.errors import InputError

MARKS = "<!-- reproduce -->", "<!-- end reproduce -->"


def main(arguments: list[str] | None = None) -> int:
    """0 if everything asked for is there, 1 if something is missing, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument(
        "report", nargs="?", choices=("report",), help="train nothing; write pages and figures"
    )
    parser.add_argument("--protocol", default="reduced", help="reduced (a CPU), short or paper (a GPU)")
    parser.add_argument("--minutes", type=float, default=25, help="when trainings are to save and stop")
    parser.add_argument("--data", type=Path, help="folder of the data sets; PRUNAS_DATA does the same")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder that holds all runs")
    parser.add_argument("--cell", help="only this cell")
    parser.add_argument("--executor", default="serial", help="as of prunas search")
    parser.add_argument("--workers", type=int, help="trainings at a time, as of prunas search")
    parser.add_argument("--executor-set", action="append", default=[], help="setting of the executor")
    chosen = parser.parse_args(arguments)
    if chosen.report:
        write()
        return 0
    from benchmarks.reproduce.run import run

    try:
        complete = run(
            chosen.protocol,
            minutes=chosen.minutes,
            data=chosen.data,
            out=chosen.out,
            executor=chosen.executor,
            workers=chosen.workers,
            settings=chosen.executor_set,
            only=chosen.cell,
        )
    except InputError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    return 0 if complete else 1


def write() -> None:
    """Writes the figures, this folder's README, and the part of the repository's README that tells of it."""
    from benchmarks.reproduce import page

    page.draw()
    page.README.write_text(page.page(), encoding="utf-8")
    readme = page.HERE.parent.parent / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n{page.summary()}{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
