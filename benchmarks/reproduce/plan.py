"""What the grid will take: images per second of this machine, measured once, and hours of every cell."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import HERE, Cell, Dense, cells, every_cell, foreseen, gpu, trainings_of
from prunas.errors import InputError
from prunas.experiments.forecast import forecast
from prunas.files import write_json
from prunas.protocols import BACKWARD
from prunas.recipe import Recipe
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace

__all__ = ["PLAN", "foresee"]

PLAN = HERE / "plan.json"
WIDTHS = ("vgg16-eighth-c10", "vgg16-quarter-c10")
"""Spaces between which the reduced protocol had to choose."""

STEPS = 8
LEAST = 4
"""A narrow network's step takes at least one of so many parts of the dense one's."""

Work = tuple[int, float, float]
"""Trainings, multiply-accumulates and optimiser steps."""


def foresee(data: Path | None, say: Callable[[str], None] = print) -> bool:
    """Measures this machine, adds up every cell, and writes `plan.json`.

    Args:
        data: Folder of the data sets. Cells whose data are not there are left out.
        say: Told what comes out.
    """
    rates: dict[str, float] = {}
    hours: dict[str, dict[str, list[float]]] = {"reduced": {}, "fast": {}, "paper": {}}
    device = gpu()
    for protocol, own in hours.items():
        for cell in every_cell(protocol):
            try:
                parts = _parts(cell, data)
            except InputError as error:
                say(f"{cell.name_in_full}: left out, {error}")
                continue
            seconds = 0.0
            for space, recipe, (_, macs, steps) in parts:
                if protocol == "reduced":
                    step = recipe.batch / rates.setdefault(space.name, _images_per_second(space, recipe))
                else:
                    step = recipe.batch * device.seconds(space.name, recipe.batch)
                dense_step = BACKWARD * space.cost(space.dense).macs * recipe.batch
                seconds += step * max(macs / dense_step, steps / LEAST)
            count = sum(work[0] for *_, work in parts)
            own[cell.name] = [count, round(seconds / 3600, 2)]
            say(f"{cell.name_in_full}: {count} trainings, {seconds / 3600:.1f} hours")
    for name in WIDTHS:
        if name not in rates:
            recipe = next(part[1] for part in _parts(cells("reduced")[0], data))
            rates[name] = _images_per_second(load_space(str(HERE / "spaces" / f"{name}.toml")), recipe)
    document = {
        "measured": {
            "images_per_core_second": {name: round(rate) for name, rate in sorted(rates.items())},
            "cores": os.cpu_count(),
            "processor": _processor(),
            "written": datetime.now(UTC).date().isoformat(),
        },
        "hours": hours,
    }
    write_json(PLAN, document)
    return True


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


def _images_per_second(space: SearchSpace, recipe: Recipe) -> float:
    """Images of training steps of the dense network per second of one core's time, which neighbours do not take."""
    import torch
    from torch.nn.functional import cross_entropy

    from prunas.training.step import arithmetic, autocast

    torch.set_num_threads(1)
    where = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        net = space.build().train().to(memory_format=layout)
        images = torch.randn(recipe.batch, *space.survey.called_with.shapes[0]).to(memory_format=layout)
        labels = torch.randint(10, (recipe.batch,))
    arithmetic(recipe, where)
    optimiser = torch.optim.SGD(net.parameters(), lr=recipe.lr, momentum=recipe.momentum, fused=True)
    best = float("inf")
    for _ in range(STEPS):
        start = time.process_time()
        with autocast(recipe, where):
            loss = cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        best = min(best, time.process_time() - start)
    return recipe.batch / best


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    lines = (line.partition(":") for line in text.splitlines())
    named = {key.strip(): value.strip() for key, _, value in lines}
    wide = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in named.get("flags", "")]
    return f"{named.get('model name', 'unknown')} ({(wide or ['no vectors'])[0]})"
