"""Measured latency: what a shape gains on a device, which its counts do not say.

Machines are noisy and differ, so that a time alone says little. A point is timed beside the dense network in one
process, turn by turn, and what counts is the ratio of neighbours. Odd widths can be slower than what they were cut
from.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.files import read_stored
from prunas.results.rows import TrainingRow
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.statistics import summary
from prunas.statistics.text import Table
from prunas.tasks.score import Score
from prunas.tracing.example import sample
from prunas.training.capture import WARM_UP, Recorder, cuda_recorder
from prunas.training.precision import algorithm_search, float32_arithmetic
from prunas.works.runtime import device as training_device

# torch's timer comes with what builds extensions, which speaks of compilers that nobody asked for.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.utils.benchmark import Timer

__all__ = ["Latency", "latency_of", "latency_of_rows", "latency_text", "place", "with_latency"]

TURNS, SECONDS = (5, 15), 3.0
"""Fewest and most turns of every network, and for how long there may be more than the fewest."""

TURN = 0.01
"""Seconds that one turn of the dense network takes at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long one forward pass takes: evaluation mode, float32 multiplied exactly, channels first.

    Attributes:
        architecture: Digest of the point.
        ratio: Median over the turns of this network's time over the dense network's in the same turn.
        seconds: Median time of a pass of this network.
        dense_seconds: Median time of a pass of the dense network.
        batch: Images in a pass.
        device: `cpu`, or the name of the accelerator.
        threads: CPU threads.
        torch: Its version.
        captured: Whether a pass was replayed as a CUDA graph. Eager passes of a few images take a GPU as long as
            Python takes to launch them, whatever their widths.
        masked: Whether the point has a kernel pattern. It is timed without: its zeros are multiplied like any
            weight.
    """

    architecture: str
    ratio: float
    seconds: float
    dense_seconds: float
    batch: int
    device: str
    threads: int
    torch: str
    captured: bool
    masked: bool

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, and the precision."""
        return asdict(self) | {"precision": "fp32"}


def place(name: str | None) -> torch.device:
    """The device of a name; that of trainings if there is none.

    Raises:
        InputError: There is no such device here.
    """
    try:
        where = torch.device(name) if name else training_device()
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here; try --device cpu") from error
    return where


def latency_of(space: SearchSpace, arch: Architecture, *, batch: int, device: torch.device) -> Latency:
    """Times a point beside the dense network, turn by turn. Weights are fresh: they do not change the time.

    Args:
        space: The space.
        arch: A checked point.
        batch: Images in a pass.
        device: Where.

    Raises:
        InputError: There are no images in a batch, or too many for the device.
    """
    if batch < 1:
        raise InputError(f"--batch must be at least 1, not {batch}")
    narrow, threads = space.canonical(arch.replace(kernels=None)), torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    example = sample(space.survey.called_with, batch, device=device, generator=generator)
    with torch.random.fork_rng(devices=[]):
        nets = {s: space.build(s).to(device).eval() for s in dict.fromkeys([space.dense, narrow])}
    float32_arithmetic(device, convolutions="ieee", products="ieee")
    try:
        with torch.inference_mode(), algorithm_search(False):
            passes_of = {shape: partial(net, *example.args, **example.kwargs) for shape, net in nets.items()}
            replayed = _recorded(list(passes_of.values()), cuda_recorder(device))
            timers = {
                shape: Timer("run()", globals={"run": run}, num_threads=threads)
                for shape, run in zip(nets, replayed or passes_of.values(), strict=True)
            }
            passes = max(1, round(TURN / timers[space.dense].timeit(1).mean))
            turns: list[dict[Architecture, float]] = []
            start = time.perf_counter()
            while len(turns) < TURNS[0] or (len(turns) < TURNS[1] and time.perf_counter() - start < SECONDS):
                turns.append({shape: timer.timeit(passes).mean for shape, timer in timers.items()})
    except torch.OutOfMemoryError as error:
        raise InputError(f"a batch of {batch} does not fit the device; lower --batch") from error
    return Latency(
        architecture=arch.digest,
        ratio=median(turn[narrow] / turn[space.dense] for turn in turns),
        seconds=median(turn[narrow] for turn in turns),
        dense_seconds=median(turn[space.dense] for turn in turns),
        batch=batch,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=threads,
        torch=torch.__version__,
        captured=replayed is not None,
        masked=arch.masked,
    )


def _recorded(
    passes: Sequence[Callable[[], object]], recorder: Recorder | None
) -> list[Callable[[], object]] | None:
    """What replays the passes; None where one of them cannot be recorded, because only like compares with like."""
    if recorder is None:
        return None
    recorded = []
    try:
        for run in passes:
            with recorder.aside(), recorder.strict():
                for _ in range(WARM_UP):
                    run()
            recorded.append(recorder.record(run))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    return recorded


def latency_of_rows(
    rows: Iterable[TrainingRow], root: Path, *, batch: int, device: torch.device
) -> dict[str, Latency]:
    """Times every point of a comparison once; by digest.

    Args:
        rows: Trainings of one space.
        root: The folder of its runs, tried where a row's own folder has moved.
        batch: Images in a pass.
        device: Where.

    Raises:
        InputError: A run's folder is gone, or its space has changed since.
    """
    timed: dict[str, Latency] = {}
    for row in rows:
        if row.architecture in timed:
            continue
        folder = Path(row.folder)
        spec = read_stored((folder if folder.is_dir() else root / folder.name) / "job.json")["spec"]
        space, arch = load_space(spec["space"]), Architecture.from_json(spec["architecture"])
        space.check(arch)
        timed[row.architecture] = latency_of(space, arch, batch=batch, device=device)
    return timed


def with_latency(
    table: Table, rows: Sequence[TrainingRow], timed: Mapping[str, Latency], score: Score
) -> Table:
    """The table of a comparison with two more columns: milliseconds of a pass, and the ratio to the dense network.

    Args:
        table: The table of these rows, from `prunas.statistics.text.result_table`.
        rows: The rows.
        timed: From `latency_of_rows`; means over the points of a line are shown.
        score: What the scores of the rows mean.
    """
    lines = []
    for line, cells in zip(summary.table(rows, score), table.rows, strict=True):
        points = {
            row.architecture
            for row in rows
            if (row.proposer, row.kind, row.protocol, row.masked, row.asked)
            == (line.proposer, line.kind, line.protocol, line.masked, line.asked)
        }
        times = [timed[point] for point in sorted(points)]
        own = fmean(1000 * each.seconds for each in times), fmean(each.ratio for each in times)
        lines.append((*cells, f"{own[0]:.3g}", f"{own[1]:.2f}"))
    note = f"Latency: {conditions(next(iter(timed.values())))}."
    return Table((*table.columns, "ms", "x dense"), table.align + "rr", tuple(lines), (*table.notes, note))


def conditions(latency: Latency) -> str:
    """Under which conditions something was timed, in words."""
    threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
    where = f"{latency.device} ({threads})" if latency.device == "cpu" else latency.device
    way = "replayed as a CUDA graph" if latency.captured else "eager"
    return (
        f"a pass of {latency.batch} images on {where}, fp32, {way}, torch {latency.torch}; the ratio is to "
        "the dense network, timed in turns; masked networks take as long as without masks"
    )


def latency_text(latency: Latency) -> str:
    """What `show` prints."""
    return (
        f"latency {1000 * latency.seconds:.3g} ms, {latency.ratio:.2f} of the dense network's "
        f"{1000 * latency.dense_seconds:.3g} ms: {conditions(latency)}"
    )
