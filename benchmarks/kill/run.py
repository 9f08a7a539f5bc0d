"""Does a search survive being killed at any moment? Kills drivers and workers of real searches, and compares.

A search on the digits is run once in peace and then again and again while its processes are killed (SIGKILL) at
random moments, until it ends by itself each time. Everything is checked after every search: see README.md.

    python benchmarks/kill/run.py --kills 100 --minutes 15      # repeat it until all kills are done
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEARCH = (
    "--proposer",
    "slimming,random",
    "--trials",
    "2",
    "--keep",
    "0.02,0.008",
    "--seeds",
    "1",
    "--epochs",
    "12",
)
TIMES = ("seconds", "images_per_second")  # what may differ between two runs of the same


class Campaign:
    """Searches under fire, in one folder.

    Args:
        folder: Where they live.
        search: Options of `prunas search` that say what is searched.
        checkpoint: Seconds between two checkpoints of a training.
        seed: Of the moments and of who is killed.
    """

    def __init__(self, folder: Path, search: Sequence[str], checkpoint: float, seed: int) -> None:
        self.folder, self.search, self.checkpoint = folder, tuple(search), checkpoint
        self.random, self.coin = random.Random(seed), random.Random(f"who {seed}")
        self.peace: dict[str, Any] | None = None

    def command(self, out: Path) -> list[str]:
        """One search."""
        driver = [sys.executable, str(HERE / "drive.py"), "search", "vgg11-digits", *self.search]
        patient = ["--executor", "processes", "--workers", "2", "--executor-set", "retries=1000"]
        return [*driver, *patient, "--out", str(out), "--yes", "--json"]

    def begin(self, out: Path) -> subprocess.Popen[str]:
        """Starts a driver."""
        environment = os.environ | {"PRUNAS_CHECKPOINT_SECONDS": str(self.checkpoint)}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(out), env=environment, stdout=pipe, stderr=pipe, text=True)

    def in_peace(self) -> tuple[dict[str, Any], float]:
        """The table nobody disturbed, and how long it took."""
        out = self.folder / "in-peace"
        shutil.rmtree(out, ignore_errors=True)
        began = time.monotonic()
        table, problems = self._end(self.begin(out))
        if table is None or problems:
            raise SystemExit(f"the search fails in peace: {problems}")
        return outcome(out, table), time.monotonic() - began

    def under_fire(
        self, out: Path, kills: int, *, pause: float = 0.0, steps: int = 0, spread: bool = False
    ) -> dict[str, Any]:
        """One search, from its start to its end, with so many kills or fewer; what came of it.

        Args:
            out: Its folder, which is emptied.
            kills: At most.
            pause: Seconds between two kills are up to this; these hit anything, imports and proposers too.
            steps: Instead, training steps between two kills are up to this.
            spread: Instead, kills lie anywhere among the training steps of the whole search.
        """
        whole = steps_taken(self.folder / "in-peace") if spread else 0
        at = sorted(self.random.randint(1, whole) for _ in range(kills)) if spread else []
        shutil.rmtree(out, ignore_errors=True)
        killed: list[dict[str, Any]] = []
        finished: dict[str, bytes] = {}
        lost: list[str] = []
        problems: list[str] = []
        driver = self.begin(out)
        while True:
            waiting = len(killed) < kills
            if waiting:
                moment = time.monotonic() + self.random.uniform(0.0, pause)
                until = at[len(killed)] if spread else steps_taken(out)
                until += self.random.randint(1, steps) if steps else 0
            if waiting and self._wait(driver, out, moment, until):
                who = self.coin.choice(["driver", "worker"])
                workers = workers_of(driver.pid)
                if not workers:
                    who = "driver"
                os.kill(driver.pid if who == "driver" else self.random.choice(workers), signal.SIGKILL)
                killed.append({"who": who, "results by then": len(finished)})
                lost += [name for name, content in finished.items() if read(out / name) != content]
                finished |= results(out)
                if who == "driver":
                    driver.communicate()
                    driver = self.begin(out)
                continue
            table, problems = self._end(driver)
            break
        lost += [name for name, content in finished.items() if read(out / name) != content]
        if self.peace is None:
            self.peace, _ = self.in_peace()
        found = outcome(out, table)
        return {
            "kills": killed,
            "results lost": lost,
            "problems": problems,
            "same table": found["table"] == self.peace["table"],
            "same runs": found["runs"] == self.peace["runs"],
            **repeats(out),
        }

    @staticmethod
    def _wait(driver: subprocess.Popen[str], out: Path, moment: float, enough: int) -> bool:
        """Until a moment has come and so many steps are done; whether the driver is still there."""
        while driver.poll() is None:
            if time.monotonic() >= moment and steps_taken(out) >= enough:
                return True
            time.sleep(0.01)
        return False

    @staticmethod
    def _end(driver: subprocess.Popen[str]) -> tuple[dict[str, Any] | None, list[str]]:
        text, errors = driver.communicate()
        table = json.loads(text) if text.strip() else None
        return table, [] if driver.returncode == 0 else [f"exit code {driver.returncode}: {errors[-2000:]}"]


def workers_of(pid: int) -> list[int]:
    """Worker processes of a driver: its children that were spawned to serve (Linux)."""
    children = (int(child) for child in read(Path(f"/proc/{pid}/task/{pid}/children")).split())
    return [child for child in children if b"spawn_main" in read(Path(f"/proc/{child}/cmdline"))]


def read(path: Path) -> bytes:
    """What is in a file; nothing if it is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def steps_taken(out: Path) -> int:
    """Training steps of all attempts at all runs, so far."""
    return sum(read(path).count(b"\n") for path in out.glob("*/*/steps.jsonl"))


def results(out: Path) -> dict[str, bytes]:
    """Everything finished so far, byte for byte."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("*/*/result.json")}


def outcome(out: Path, table: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a search found, without what depends on the clock."""
    runs = {}
    for name, content in results(out).items():
        values = json.loads(content)["result"]
        runs[name] = {key: value for key, value in values.items() if key not in TIMES}
    return {"table": timeless(table), "runs": runs}


def timeless(document: Any) -> Any:
    """A document without durations, folders and counts of what this very call trained."""
    if isinstance(document, Mapping):
        left_out = (*TIMES, "trained", "folder", "figures", "cost", "costs", "price")
        return {key: timeless(value) for key, value in document.items() if key not in left_out}
    if isinstance(document, list):
        return [timeless(value) for value in document]
    return document


def repeats(out: Path) -> dict[str, Any]:
    """Steps taken more than once, from the record that `counted.py` keeps of every attempt.

    What an attempt repeats is what the one before it did beyond the checkpoint that it takes up.
    """
    again: list[dict[str, float]] = []
    after_result = 0
    for path in out.glob("*/*/steps.jsonl"):
        attempts: list[tuple[int, list[float]]] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            value = json.loads(line)
            if isinstance(value, dict):
                attempts.append((value["from"], []))
            else:
                attempts[-1][1].append(value)
        for (start, times), (next_start, _) in pairwise(attempts):
            steps = start + len(times) - next_start
            if steps > 0:
                began = times[-steps - 1] if len(times) > steps else times[0]
                again.append({"steps": steps, "seconds": round(times[-1] - began, 3)})
        written = (path.parent / "result.json").stat().st_mtime
        after_result += sum(1 for _, times in attempts if times and times[0] > written)
    return {"attempts that repeated steps": again, "runs trained after they were finished": after_result}


def summary(searches: Sequence[Mapping[str, Any]], checkpoint: float) -> dict[str, Any]:
    """The figures."""
    kills = [kill for search in searches for kill in search["kills"]]
    again = [entry for search in searches for entry in search["attempts that repeated steps"]]
    return {
        "kills": len(kills),
        "of drivers": sum(kill["who"] == "driver" for kill in kills),
        "of workers": sum(kill["who"] == "worker" for kill in kills),
        "after the first result": sum(kill["results by then"] > 0 for kill in kills),
        "searches": len(searches),
        "searches with another table": sum(not search["same table"] for search in searches),
        "searches with other runs": sum(not search["same runs"] for search in searches),
        "searches with problems": sum(bool(search["problems"]) for search in searches),
        "finished results lost": sum(len(search["results lost"]) for search in searches),
        "runs trained after they were finished": sum(
            search["runs trained after they were finished"] for search in searches
        ),
        "attempts that repeated steps": len(again),
        "most seconds repeated": max((entry["seconds"] for entry in again), default=0.0),
        "seconds between checkpoints": checkpoint,
    }


def main() -> None:
    """Goes on where the last call stopped, for so many minutes, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--checkpoint", type=float, default=1.0, help="seconds")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/kill"), help="working folder; may be deleted"
    )
    parser.add_argument("--json", type=Path, default=HERE / "result.json")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    log = given.folder / "searches.json"
    searches: list[dict[str, Any]] = json.loads(log.read_text()) if log.exists() else []
    campaign = Campaign(given.folder, SEARCH, given.checkpoint, seed=len(searches))
    campaign.peace, seconds = campaign.in_peace()
    while (done := sum(len(s["kills"]) for s in searches)) < given.kills and time.monotonic() < until:
        left = min(10, given.kills - done)
        ways: tuple[dict[str, Any], ...] = ({"spread": True}, {"steps": 400}, {"pause": seconds / 2})
        found = campaign.under_fire(given.folder / "under-fire", left, **ways[len(searches) % len(ways)])
        searches.append(found)
        log.write_text(json.dumps(searches, indent=1) + "\n")
        print(
            f"{done + len(found['kills'])} kills: {json.dumps(summary(searches, given.checkpoint))}",
            flush=True,
        )
    figures = summary(searches, given.checkpoint)
    versions = {"python": platform.python_version(), "machine": platform.platform(), "cores": os.cpu_count()}
    given.json.write_text(json.dumps({**figures, "search": " ".join(SEARCH), **versions}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
