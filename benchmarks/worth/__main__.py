"""How many TPE trials is one pruning run worth? See README.md.

python -m benchmarks.worth --minutes 45 --out benchmarks/worth      # repeat it until it is done
"""

import argparse
import os
import platform
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.worth.answer import answer, markdown
from benchmarks.worth.figure import draw
from benchmarks.worth.searches import Question, Unfinished, measure
from prunas.errors import InputError
from prunas.experiments.plan import make_setting
from prunas.files import read_json, write_json
from prunas.report.figure import save
from prunas.runs.executors import executor
from prunas.runs.store import Store
from prunas.spaces.load import load_space

HERE = Path(__file__).parent
PREEMPTED = 75


def main() -> int:
    """Searches and trains what is missing, and writes results, tables and figure when nothing is."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.worth", description="How many TPE trials is one pruning run worth?"
    )
    parser.add_argument("--space", default="vgg11-digits")
    parser.add_argument("--data", type=Path, help="folder of the data sets, where the space's are files")
    parser.add_argument("--keep", type=float, default=0.005, help="share of the parameters")
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--retrain", type=int, default=3, help="fresh trainings of every winner")
    parser.add_argument("--pulls", type=float, nargs="+", default=[5.0, 2.5, 10.0], help="of slimming")
    parser.add_argument("--proxy", type=float, default=1 / 3, help="share of the schedule of a short trial")
    parser.add_argument("--epochs", type=int, default=30, help="of a training")
    for name in ("images", "batch"):
        parser.add_argument(f"--{name}", type=int, help="instead of the recipe's")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many; go on later")
    parser.add_argument("--runs", type=Path, default=Path("runs/worth"), help="working folder")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--draw", action="store_true", help="train nothing: tables and figure anew")
    given = parser.parse_args()
    space = load_space(given.space)
    results = given.out / f"{space.name}.json"
    if not given.draw:
        changes = {name: getattr(given, name) for name in ("epochs", "images", "batch", "lr", "precision")}
        question = Question(
            keep=given.keep,
            searches=given.searches,
            trials=given.trials,
            retrain=given.retrain,
            pulls=tuple(given.pulls),
            proxy=given.proxy,
        )
        until = time.monotonic() + 60 * given.minutes
        setting = make_setting(space, changes=changes, root=given.data)
        store = Store(given.runs)

        def stop() -> bool:
            return time.monotonic() >= until

        def make():  # type: ignore[no-untyped-def]
            if given.workers == 1:
                return executor("serial", store, stop=stop)
            return executor("processes", store, stop=stop, workers=given.workers)

        def say(what: str) -> None:
            print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)

        try:
            found = measure(question, setting, store, make, stop, say)
        except Unfinished:
            print("not done; the same command goes on", file=sys.stderr)
            return PREEMPTED
        told = {
            key: value
            for key, value in vars(given).items()
            if key not in ("data", "runs", "out", "minutes", "workers", "draw")
        }
        asked = told | {"data": setting.data, "recipe": setting.recipe.to_json()}
        versions = {name: version(name) for name in ("torch", "optuna", "numpy")}
        where = {"machine": platform.platform(), "cores": os.cpu_count(), "date": str(date.today())}
        write_json(results, {"asked": asked, "found": found, "answer": answer(found)} | versions | where)
    document = read_json(results)
    found, asked = document["found"], document["asked"]
    about = (
        f"{asked['space']} at {100 * asked['keep']:g} % of the parameters, {asked['recipe']['epochs']} epochs"
    )
    save(draw(found, about), given.out, space.name)
    print(markdown(found), end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"benchmarks.worth: {error}", file=sys.stderr)
        sys.exit(2)
