"""Measures the support table row by row, and writes its page: `python -m benchmarks.support`."""

import argparse
import fnmatch
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version

from benchmarks.support import page
from benchmarks.support.networks import NETWORKS
from benchmarks.support.row import Row, processor, sources, wrong
from benchmarks.support.side_by_side import measured, rows_of


def main() -> int:
    """Measures what is missing or out of date; 1 if any row is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.support", description=__doc__)
    parser.add_argument(
        "pattern", nargs="*", default=["*"], help="names of networks; shell patterns are welcome"
    )
    parser.add_argument("--kind", choices=tuple(page.KINDS), help="only these")
    parser.add_argument("--page", action="store_true", help="measure nothing, write README.md")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="measure N networks at a time, each in a process with one thread; one that dies or is not done after "
        "five minutes has a row that says so",
    )
    chosen = parser.parse_args()
    if chosen.processes is not None and chosen.processes < 1:
        parser.error("--processes must be at least 1")
    rows = {row["network"]: row for row in page.read(page.ROWS) if row["network"] in NETWORKS}
    if not chosen.page:
        present = sources()
        where = f"torch {version('torch')}, torchvision {version('torchvision')}, {processor()}, one thread"
        names = [
            name
            for name, network in NETWORKS.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen.pattern)
            and chosen.kind in (None, network.kind)
            and rows.get(name, {}).get("sources") != present
        ]
        for row in _measured(names, chosen.processes):
            row |= {"sources": present, "date": str(date.today()), "where": where}
            rows[row["network"]] = row
            page.write(page.ROWS, [rows[other] for other in NETWORKS if other in rows])
            faults = "; ".join(wrong(row)) or row.get("refused", "right")
            print(f"{row['network']}: {faults} ({row['took']:.0f} s)", flush=True)
    rows = {name: rows[name] for name in NETWORKS if name in rows}
    page.README.write_text(page.page(list(rows.values()), page.read(page.PEER)), encoding="utf-8")
    faulty = {name: faults for name, row in rows.items() if (faults := wrong(row))}
    for name, faults in faulty.items():
        print(f"WRONG {name}: {'; '.join(faults)}", file=sys.stderr)
    old = sum(row["sources"] != sources() for row in rows.values())
    print(f"{len(rows)} rows, {len(faulty)} wrong, {len(NETWORKS) - len(rows)} missing, {old} out of date")
    return 1 if faulty else 0


def _measured(names: list[str], processes: int | None) -> Iterator[Row]:
    """The rows of some networks as they come: from this process, or from several side by side."""
    return rows_of(names, processes) if processes else (measured(NETWORKS[name]) for name in names)


if __name__ == "__main__":
    sys.exit(main())
