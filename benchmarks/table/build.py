"""Trains every point of the space with every seed; the next call continues where this one stopped."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table.space import (
    FILE,
    SEEDS,
    build_order,
    points,
    setting_of,
    test_job,
    the_space,
    training_job,
)
from benchmarks.table.table import TABLE, write
from prunas.runs.executors import chosen, parsed_options, silent
from prunas.runs.executors import executor as open_executor
from prunas.runs.signals import stopping
from prunas.runs.store import Result, Store
from prunas.works import processor
from prunas.works.trainings import Setting

__all__ = ["build", "collect"]

AT_ONCE = 32
"""Trainings after which their tests are run."""

WRITTEN = 8
"""The table is written whenever so many times `AT_ONCE` trainings have ended."""


def build(
    *,
    minutes: float,
    data: Path | None,
    out: Path,
    executor: str | None = None,
    workers: int | None = None,
    settings: list[str] | None = None,
    into: Path = TABLE,
    say: Callable[[str], None] = print,
) -> bool:
    """Trains and tests what is missing, in the order of `build_order`, and writes the table as it grows.

    Args:
        minutes: After so long trainings are asked to save and stop.
        data: Folder of the data sets.
        out: Folder that holds all runs.
        executor: Who executes trainings, as of `prunas search`.
        workers: Trainings at a time.
        settings: `KEY=VALUE` settings of the executor.
        into: File of the table.
        say: Told how far it is.

    Returns:
        Whether the table is complete.

    Raises:
        InputError: CIFAR-10 is not there, or a training failed for good.
    """
    setting, store = setting_of(data), Store(out, notice=say)
    name, options = chosen(executor, workers, parsed_options(settings or []), processor.cores())
    end = time.monotonic() + 60 * minutes
    missing = [key for key in build_order() if _tested(setting, store, *key) is None]
    groups = [missing[at : at + AT_ONCE] for at in range(0, len(missing), AT_ONCE)]
    say(f"{len(build_order()) - len(missing)} of {len(build_order())} trainings are there")
    with stopping() as stopped:

        def stop() -> bool:
            return stopped() or time.monotonic() >= end

        with open_executor(name, store, silent, stop, **options) as running:
            for number, group in enumerate(groups, 1):
                for tested in (False, True):
                    for point, seed in group:
                        arch = points()[point]
                        job = training_job(setting, arch, seed)
                        running.submit(test_job(setting, arch, job, seed) if tested else job)
                    for outcome in running.completed():
                        if outcome.status in ("failed", "lost"):
                            say(f"run {outcome.job.name}: {outcome.error}")
                if stop():
                    break
                say(f"{time.strftime('%H:%M:%S', time.gmtime())} {AT_ONCE * number} of {len(missing)}")
                if number % WRITTEN == 0:
                    collect(setting, store, into)
    return collect(setting, store, into)


def collect(setting: Setting, store: Store, into: Path = TABLE) -> bool:
    """Writes what is there into the table; whether that is everything."""
    shape = (len(points()), SEEDS)
    val, test, seconds = (np.full(shape, np.nan, np.float32) for _ in range(3))
    losses = np.full((*shape, setting.recipe.epochs), np.nan, np.float32)
    results: list[Result] = []
    for point, seed in build_order():
        if (pair := _tested(setting, store, point, seed)) is None:
            continue
        trained, tested = pair
        val[point, seed], test[point, seed] = trained.values["score"], tested.values["score"]
        losses[point, seed], seconds[point, seed] = trained.values["losses"], trained.values["seconds"]
        results.append(trained)
    if results:
        write(
            into,
            {
                "val": val,
                "test": test,
                "losses": losses,
                "seconds": seconds,
                "about": np.array(json.dumps(_about(setting, results), sort_keys=True)),
            },
        )
    return len(results) == len(build_order())


def _tested(setting: Setting, store: Store, point: int, seed: int) -> tuple[Result, Result] | None:
    """The results of a training and of its test; None as long as one is missing."""
    training = training_job(setting, points()[point], seed)
    trained = store.result(training)
    if trained is None:
        return None
    tested = store.result(test_job(setting, points()[point], training, seed))
    return None if tested is None else (trained, tested)


def _about(setting: Setting, results: list[Result]) -> Mapping[str, Any]:
    """What the numbers of a table are worth nothing without."""
    machines = {f"torch {each.machine['torch']}, python {each.machine['python']}" for each in results}
    return {
        "space": FILE.stem,
        "network": the_space().survey.fingerprint,
        "data": setting.data,
        "data_identity": setting.identity,
        "images": dict(setting.images),
        "recipe": setting.recipe.to_json(),
        "device": sorted({str(each.values["device"]) for each in results}),
        "versions": sorted(machines),
        "written": datetime.now(UTC).date().isoformat(),
    }
