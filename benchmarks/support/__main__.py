"""Measures the support table row by row, and writes its page: `python -m benchmarks.support`."""

import argparse
import fnmatch
import sys
import warnings
from datetime import date
from importlib.metadata import version

import torch

from benchmarks.support import page
from benchmarks.support.networks import NETWORKS
from benchmarks.support.row import LIBRARIES, measure, processor, sources, wrong


def main() -> int:
    """Measures what is missing or out of date; 1 if any row is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.support", description=__doc__)
    parser.add_argument(
        "pattern", nargs="*", default=["*"], help="names of networks; shell patterns are welcome"
    )
    parser.add_argument("--kind", choices=tuple(page.KINDS), help="only these")
    parser.add_argument("--page", action="store_true", help="measure nothing, write README.md")
    chosen = parser.parse_args()
    rows = {row["network"]: row for row in page.read(page.ROWS) if row["network"] in NETWORKS}
    if not chosen.page:
        torch.set_num_threads(1)
        warnings.simplefilter("error")
        present = sources()
        where = f"torch {version('torch')}, torchvision {version('torchvision')}, {processor()}, one thread"
        for name, network in NETWORKS.items():
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen.pattern):
                continue
            if chosen.kind not in (None, network.kind) or rows.get(name, {}).get("sources") == present:
                continue
            with warnings.catch_warnings():
                if network.kind in LIBRARIES:  # which warn of their own accord
                    warnings.simplefilter("ignore")
                row = measure(network)
            row |= {"sources": present, "date": str(date.today()), "where": where}
            rows[name] = row
            page.write(page.ROWS, [rows[other] for other in NETWORKS if other in rows])
            faults = "; ".join(wrong(row)) or row.get("refused", "right")
            print(f"{name}: {faults} ({row['took']:.0f} s)", flush=True)
    rows = {name: rows[name] for name in NETWORKS if name in rows}
    page.README.write_text(page.page(list(rows.values()), page.read(page.PEER)), encoding="utf-8")
    faulty = {name: faults for name, row in rows.items() if (faults := wrong(row))}
    for name, faults in faulty.items():
        print(f"WRONG {name}: {'; '.join(faults)}", file=sys.stderr)
    old = sum(row["sources"] != sources() for row in rows.values())
    print(f"{len(rows)} rows, {len(faulty)} wrong, {len(NETWORKS) - len(rows)} missing, {old} out of date")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
