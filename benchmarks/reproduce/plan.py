"""What the grid will take: images per second of this machine, measured once, and hours of every cell."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import HERE, Cell, Dense, every_cell, foreseen, gpu, protocols, trainings_of
from prunas.errors import InputError
from prunas.experiments.forecast import forecast
from prunas.files import read_json, write_json
from prunas.protocols import BACKWARD
from prunas.recipe import Recipe, recipe
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace

__all__ = ["PLAN", "foresee", "images_per_second"]

PLAN = HERE / "plan.json"
WIDTHS = ("vgg16-eighth-c10", "vgg16-quarter-c10")
"""Spaces between which the reduced protocol had to choose."""

COUNTED = ("reduced", "fast", "paper")

STEPS = 8
LEAST = 4
"""A narrow network's step takes at least one of so many parts of the dense one's."""

Work = tuple[int, float, float]
"""Trainings, multiply-accumulates and optimiser steps."""


def foresee(data: Path | None, only: str | None = None, say: Callable[[str], None] = print) -> bool:
    """Measures this machine, adds up every cell, and writes `plan.json` after each.

    Args:
        data: Folder of the data sets. Cells whose data are not there are left out.
        only: The only protocol to add up.
        say: Told what comes out.
    """
    document = read_json(PLAN) if PLAN.exists() else {"measured": {}, "hours": {}}
    rates: dict[str, float] = {}
    for name in WIDTHS:
        space = load_space(str(HERE / "spaces" / f"{name}.toml"))
        rates[name] = images_per_second(space, recipe("fast").replace(**protocols()["reduced"].changes))
    for protocol in (only,) if only else COUNTED:
        hours = document["hours"].setdefault(protocol, {})
        for cell in every_cell(protocol):
            try:
                hours[cell.name] = _hours(cell, data, rates)
            except InputError as error:
                say(f"{cell.name_in_full}: left out, {error}")
                continue
            say(f"{cell.name_in_full}: {hours[cell.name][0]} trainings, {hours[cell.name][1]:.1f} hours")
            document["measured"] = {
                "images_per_core_second": {name: round(rate) for name, rate in sorted(rates.items())},
                "cores": os.cpu_count(),
                "processor": _processor(),
                "written": datetime.now(UTC).date().isoformat(),
            }
            write_json(PLAN, document)
    return True


def _hours(cell: Cell | Dense, data: Path | None, rates: dict[str, float]) -> tuple[int, float]:
    """Trainings of a cell and their hours, one after another: of one core, or of the GPU."""
    seconds, count, device = 0.0, 0, gpu()
    for space, how, (trainings, macs, steps) in _parts(cell, data):
        if cell.protocol.name == "reduced":
            if space.name not in rates:
                rates[space.name] = images_per_second(space, how)
            step = how.batch / rates[space.name]
        else:
            step = how.batch * device.seconds(space.name, how.batch)
        dense_step = BACKWARD * space.cost(space.dense).macs * how.batch
        seconds += step * max(macs / dense_step, steps / LEAST)
        count += trainings
    return count, round(seconds / 3600, 2)


def _parts(cell: Cell | Dense, data: Path | None) -> list[tuple[SearchSpace, Recipe, Work]]:
    """What a cell trains, by space."""
    if isinstance(cell, Cell):
        made = []
        for plan in foreseen(cell, data):
            ahead = forecast(plan)
            setting = plan.setting
            made.append((setting.space, setting.recipe, (ahead.trainings, ahead.macs, ahead.steps)))
        return made
    return [
        (space, Recipe.from_json(training.job.spec["recipe"]), (1, training.macs, _steps(space, training)))
        for space, _, _, training in trainings_of(cell, data)
    ]


def _steps(space: SearchSpace, training: Any) -> float:
    images = training.macs / (BACKWARD * space.cost(space.dense).macs)
    return float(images / training.job.spec["recipe"]["batch"])


def images_per_second(space: SearchSpace, how: Recipe) -> float:
    """Images of training steps of the dense network per second of one core's own time."""
    import torch
    from torch.nn.functional import cross_entropy

    from prunas.training.step import arithmetic, autocast

    torch.set_num_threads(1)
    where = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layout = torch.channels_last if how.channels_last else torch.contiguous_format
        net = space.build().train().to(memory_format=layout)
        images = torch.randn(how.batch, *space.survey.called_with.shapes[0]).to(memory_format=layout)
        labels = torch.randint(10, (how.batch,))
    arithmetic(how, where)
    optimiser = torch.optim.SGD(net.parameters(), lr=how.lr, momentum=how.momentum, fused=True)
    best = float("inf")
    for _ in range(STEPS):
        start = time.process_time()
        with autocast(how, where):
            loss = cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        best = min(best, time.process_time() - start)
    return how.batch / best


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    lines = (line.partition(":") for line in text.splitlines())
    named = {key.strip(): value.strip() for key, _, value in lines}
    wide = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in named.get("flags", "")]
    return f"{named.get('model name', 'unknown')} ({(wide or ['no vectors'])[0]})"
