"""Builds the table, judges on it, writes its page.

python -m benchmarks.table build --data DIR --out DIR [--minutes 60]     # repeat it until it is done
python -m benchmarks.table judge --score mine:score      # a function from a point to a number, on the table alone
python -m benchmarks.table judge --data DIR --out DIR    # every score, search and proposer; writes judged.json
python -m benchmarks.table report                        # the tables of README.md, of judged.json
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.pages import between_marks
from prunas.errors import InputError
from prunas.files import read_json, write_json

HERE = Path(__file__).parent
PAGE, JUDGED = HERE / "README.md", HERE / "judged.json"


def main(arguments: list[str] | None = None) -> int:
    """0 if everything asked for is there, 1 if something is missing, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("build", "judge", "report"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which trainings stop")
    parser.add_argument("--data", type=Path, help="folder of the data sets; PRUNAS_DATA does the same")
    parser.add_argument("--out", type=Path, default=Path("runs/table"), help="folder that holds all runs")
    parser.add_argument("--executor", help="as of prunas search; by default a process for every core")
    parser.add_argument("--workers", type=int, help="trainings at a time, as of prunas search")
    parser.add_argument(
        "--score", help="only this one: module:function, higher for what it takes to be better"
    )
    parser.add_argument("--proposer", action="append", help="only this one; may be repeated")
    chosen = parser.parse_args(arguments)
    try:
        return {"build": _build, "judge": _judge, "report": _report}[chosen.what](chosen)
    except InputError as error:
        print(f"table: {error}", file=sys.stderr)
        return 2


def say(line: str) -> None:
    """Tells how far it is."""
    print(line, file=sys.stderr, flush=True)


def _build(chosen: argparse.Namespace) -> int:
    from benchmarks.table.build import build

    complete = build(
        minutes=chosen.minutes,
        data=chosen.data,
        out=chosen.out,
        executor=chosen.executor,
        workers=chosen.workers,
        say=say,
    )
    return 0 if complete else 1


def _judge(chosen: argparse.Namespace) -> int:
    from benchmarks.table.judge import budgets_of, judge_score
    from benchmarks.table.table import load

    table = load()
    if chosen.score:
        verdict = judge_score(table, _function(chosen.score))
        print(f"{len(table.points)} points: Kendall's tau {verdict.tau:.2f}", end="")
        print("" if verdict.tau_equal_cost is None else f", at equal MACs {verdict.tau_equal_cost:.2f}")
        for budget, regret, needed in zip(budgets_of(table), verdict.regret, verdict.needed, strict=True):
            print(f"{budget.keep:.0%} of the MACs: regret {regret:.2f}, {needed} trainings to the best 1 %")
        return 0
    from benchmarks.table.verdicts import judged

    document = judged(table, chosen.data, chosen.out, say, chosen.proposer or ())
    if chosen.proposer:
        print(json.dumps(document["proposers"], indent=1))
        return 0
    write_json(JUDGED, document)
    return _report(chosen)


def _report(chosen: argparse.Namespace) -> int:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read_json(JUDGED)), encoding="utf-8")
    return 0


def page(text: str, document: dict[str, Any]) -> str:
    """The page with its tables made anew."""
    from benchmarks.table.verdicts import markdown

    return between_marks(text, markdown(document) + "\n")


def _function(name: str) -> Any:
    """A function by import path.

    Raises:
        InputError: There is none.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute or "score")
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--score {name}: {error}; give module:function") from error
    if not callable(function):
        raise InputError(
            f"--score {name} is a {type(function).__name__}; give a function from a point to a number"
        )
    return function


if __name__ == "__main__":
    sys.exit(main())
