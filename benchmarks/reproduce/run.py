"""Trains cell after cell until the time is up; the next call continues where this one stopped, on any machine."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.reproduce.cells import Cell, Named, every_cell, foreseen, plan_of, trainings_of
from benchmarks.reproduce.documents import DENSE, HERE, RESULTS, Done, dense_done, plan_done, whole
from benchmarks.reproduce.kept import KEPT, keep_runs, restore_runs
from benchmarks.reproduce.share import Shared, Stored
from prunas.errors import InputError
from prunas.experiments.forecast import forecast
from prunas.experiments.record import save
from prunas.experiments.search import Plan, search
from prunas.files import read_json
from prunas.proposers.registry import entry
from prunas.runs.executors import chosen, parsed_options, silent
from prunas.runs.executors import executor as open_executor
from prunas.runs.job import Job
from prunas.runs.signals import stopping
from prunas.runs.store import Store
from prunas.works import processor
from prunas.works.trainings import Training

__all__ = ["Listing", "collect", "collect_cells", "keep", "keep_cells", "run", "run_cells"]


@dataclass(frozen=True, slots=True)
class Listing:
    """How cells that are lists of trainings, and no plans, are carried out.

    Attributes:
        trainings: Called with a cell and the folder of the data sets: all of them.
        done: Called with a cell, that folder, the store, and the folder for results: writes what is finished, and
            tells how far it is.
        folder: Where in the folder for results it writes that.
    """

    trainings: Callable[[Any, Path | None], Sequence[Training]]
    done: Callable[[Any, Path | None, Store, Path], Done]
    folder: str


DENSE_NETWORKS = Listing(
    lambda cell, data: [each[-1] for each in trainings_of(cell, data)], dense_done, DENSE
)


def run(
    protocol: str,
    *,
    minutes: float,
    data: Path | None,
    out: Path,
    executor: str | None,
    workers: int | None,
    settings: list[str],
    only: str | None = None,
    into: Path = HERE,
    say: Callable[[str], None] = print,
) -> bool:
    """Trains what is missing of a protocol's cells, in their order, and writes one JSON file for each.

    A cell's file is written whenever one of its trainings has ended. A cell whose file has all of it is left
    alone, and what `keep` wrote beside the results is not trained again.

    Args:
        protocol: `reduced`, `early`, `fast` or `paper`.
        minutes: After so long trainings are asked to save and stop.
        data: Folder of the data sets.
        out: Folder that holds all runs.
        executor: Who executes trainings, as of `prunas search`; by default a process for every core, or one GPU.
        workers: Trainings at a time.
        settings: `KEY=VALUE` settings of the executor.
        only: Name of the only cell to train.
        into: Folder that results are written to.
        say: Told what goes on.

    Returns:
        Whether all of it is there.

    Raises:
        InputError: Something cannot be read, or there is no such cell.
    """
    return run_cells(
        _wanted(protocol, only),
        DENSE_NETWORKS,
        minutes=minutes,
        data=data,
        out=out,
        executor=executor,
        workers=workers,
        settings=settings,
        into=into,
        say=say,
    )


def run_cells(
    cells: Sequence[Named],
    listing: Listing,
    *,
    minutes: float,
    data: Path | None,
    out: Path,
    executor: str | None,
    workers: int | None,
    settings: list[str],
    into: Path,
    say: Callable[[str], None] = print,
) -> bool:
    """`run` for the cells of any grid, at least one; those that are no plans are carried out as `listing` says."""
    grid = _Grid(cells, listing, data, Store(out, notice=say), into, say)
    name, options = chosen(executor, workers, parsed_options(settings), processor.cores())
    end = time.monotonic() + 60 * minutes
    with stopping() as stopped:

        def stop() -> bool:
            return stopped() or time.monotonic() >= end

        if stop():
            return False
        grid.restore()
        with open_executor(name, grid.store, silent, stop, **options) as inner:
            return grid.run(Shared(inner, grid.later, grid.ended), stop)


def collect(
    protocol: str,
    *,
    data: Path | None,
    out: Path,
    only: str | None = None,
    into: Path = HERE,
    say: Callable[[str], None] = print,
) -> bool:
    """Writes what is finished of a protocol's cells, and trains nothing; another process may be training.

    Args:
        protocol: As of `run`.
        data: Folder of the data sets.
        out: Folder that holds all runs.
        only: Name of the only cell.
        into: Folder that results are written to.
        say: Told how far each cell is.

    Returns:
        Whether all of it is there.

    Raises:
        InputError: Something cannot be read, or there is no such cell.
    """
    return collect_cells(_wanted(protocol, only), DENSE_NETWORKS, data=data, out=out, into=into, say=say)


def collect_cells(
    cells: Sequence[Named],
    listing: Listing,
    *,
    data: Path | None,
    out: Path,
    into: Path,
    say: Callable[[str], None] = print,
) -> bool:
    """`collect` for the cells of any grid, as `run_cells`."""
    grid = _Grid(cells, listing, data, Store(out, notice=say), into, say)
    return all(grid.collected())


def keep(
    protocol: str,
    *,
    data: Path | None,
    out: Path,
    into: Path = HERE,
    say: Callable[[str], None] = print,
) -> bool:
    """`collect` of all cells, and keeps the runs of those under way; see `keep_cells`."""
    return keep_cells(every_cell(protocol), DENSE_NETWORKS, data=data, out=out, into=into, say=say)


def keep_cells(
    cells: Sequence[Named],
    listing: Listing,
    *,
    data: Path | None,
    out: Path,
    into: Path,
    say: Callable[[str], None] = print,
) -> bool:
    """`collect_cells`, and the finished runs of cells under way go into one file beside the results.

    From there `run_cells` takes them on a machine that does not have them. Networks that runs to come rest on are
    among them, so that the file is some megabytes; when the last cell is complete it goes.

    Args:
        cells: All cells of one protocol of a grid.
        listing: As of `run_cells`.
        data: Folder of the data sets.
        out: Folder that holds all runs.
        into: Folder that results are written to.
        say: Told how far each cell is, and how many runs are kept.
    """
    grid = _Grid(cells, listing, data, Store(out, notice=say), into, say)
    grid.restore()
    done = grid.collected()
    under_way = [cell for cell, complete in zip(grid.cells, done, strict=True) if not complete]
    kept = keep_runs(grid.kept, (job for cell in under_way for job in grid.asked(cell)), grid.store)
    say(f"{kept} finished runs of cells under way are kept")
    return all(done)


def _wanted(protocol: str, only: str | None) -> Sequence[Named]:
    wanted = [cell for cell in every_cell(protocol) if only in (None, cell.name)]
    if not wanted:
        raise InputError(f"protocol {protocol!r} has no cell {only!r}")
    return wanted


class _Grid:
    """Cells at work, in their order."""

    def __init__(
        self,
        cells: Sequence[Named],
        listing: Listing,
        data: Path | None,
        store: Store,
        into: Path,
        say: Callable[[str], None],
    ) -> None:
        self.cells, self.data, self.store, self.into, self.say = cells, data, store, into, say
        self.listing = listing
        self.kept = into / KEPT / f"{cells[0].protocol.name}.zip"
        self._at: Named = cells[0]
        self._plans: dict[str, Plan] = {}
        self._ahead: dict[str, float] = {}
        self._workers = 1

    def run(self, shared: Shared, stop: Callable[[], bool]) -> bool:
        """Trains what is missing; whether nothing is missing any more."""
        complete, self._workers = True, shared.inner.capacity
        for cell in self.cells:
            if stop():
                return False
            self._at = cell
            done = False
            try:
                if self.left_alone(cell):
                    continue
                self._train(cell, shared, stop)
                done = not stop() or self._known(cell)
            except InputError as error:
                if not stop():
                    self.say(f"{cell.name_in_full}: {error}")
            else:
                done = done and self.written(cell, quiet=True)
            complete &= done
            self.say(f"{cell.name_in_full}: {'complete' if done else 'not complete'}")
        return complete

    def restore(self) -> None:
        """Takes over what was kept of runs on another machine."""
        if restored := restore_runs(self.kept, self.store):
            self.say(f"{restored} finished runs were kept beside the results")

    def collected(self) -> list[bool]:
        """Writes what is finished of cells whose file has not all of it; whether each is complete by now."""
        return [self.left_alone(cell) or self.written(cell) for cell in self.cells]

    def left_alone(self, cell: Named) -> bool:
        """`whole`, and says so."""
        if complete := self.whole(cell):
            self.say(f"{cell.name_in_full}: complete, as its file says")
        return complete

    def whole(self, cell: Named) -> bool:
        """Whether the file of a cell has all that the grid asks for."""
        if isinstance(cell, Cell):
            return whole(cell, self.into / RESULTS)
        path = self.into / self.listing.folder / cell.protocol.name / f"{cell.name}.json"
        if not path.exists():
            return False
        folders = {run["folder"] for run in read_json(path)["runs"]}
        return all(training.job.name in folders for training in self.listing.trainings(cell, self.data))

    def asked(self, cell: Named) -> list[Job]:
        """What a cell asks for, as far as that is known by what is finished."""
        stored = Stored(self.store)
        if not isinstance(cell, Cell):
            return [training.job for training in self.listing.trainings(cell, self.data)]
        with suppress(InputError):  # its data are not here, or its source has found nothing yet
            plan, _ = plan_of(cell, self.data, self.store, lambda: stored)
            search(plan, self.store, lambda: stored)
        return stored.asked

    def _known(self, cell: Named) -> bool:
        return not isinstance(cell, Cell) or cell.name in self._plans

    def _train(self, cell: Named, shared: Shared, stop: Callable[[], bool]) -> None:
        if isinstance(cell, Cell):
            plan, _ = plan_of(cell, self.data, self.store, shared.share)
            if stop():
                return
            self._plans[cell.name] = plan
            save(search(plan, self.store, shared.share).record, self.store.root)
            return
        with shared.share() as executor:
            for training in self.listing.trainings(cell, self.data):
                executor.submit(training.job)
            for outcome in executor.completed():
                if outcome.status in ("failed", "lost"):
                    self.say(f"{cell.name_in_full}: run {outcome.job.name}: {outcome.error}")

    def ended(self, job: Job) -> None:
        """Writes the file of the cell at work, and tells how much is left."""
        if self._known(self._at):
            self.written(self._at)

    def written(self, cell: Named, quiet: bool = False) -> bool:
        """Writes what is finished of a cell; whether that is all of it."""
        if (done := self._done(cell)) is None:
            return False
        if not quiet:
            # Found shapes cost more than the uniform ones that stand for them in what is foreseen.
            hours = _hours(done, max(self._whole(cell), done.asked), self._workers)
            left = "" if hours is None else f", about {hours:.1f} hours left of it"
            when = time.strftime("%H:%M", time.gmtime())
            self.say(f"{when} {cell.name_in_full}: {done.trainings} trainings finished{left}")
        return done.complete

    def _done(self, cell: Named) -> Done | None:
        """How far a cell is; None while it is not known what it will train."""
        if not isinstance(cell, Cell):
            return self.listing.done(cell, self.data, self.store, self.into)
        plan = self._plans.get(cell.name) or self._stored_plan(cell)
        return None if plan is None else plan_done(cell, plan, self.store, self.into)

    def _stored_plan(self, cell: Cell) -> Plan | None:
        """The plan of a cell if its source is there, or it has none."""
        try:
            plan, _ = plan_of(cell, self.data, self.store, lambda: Stored(self.store))
        except InputError:
            return None
        if plan.source is not None and set(plan.source.seeds) != set(range(cell.seeds)):
            return None
        self._plans[cell.name] = plan
        return plan

    def _whole(self, cell: Named) -> float:
        """Multiply-accumulates of all of a cell, as far as they can be foreseen."""
        if cell.name not in self._ahead:
            if isinstance(cell, Cell):
                whole = float(sum(forecast(plan).macs for plan in foreseen(cell, self.data)[-1:]))
            else:
                whole = float(sum(training.macs for training in self.listing.trainings(cell, self.data)))
            self._ahead[cell.name] = whole
        return self._ahead[cell.name]

    def later(self) -> Iterator[Job]:
        """Jobs that the cell at work and those behind it will ask for and that can run now."""
        for cell in self.cells[self.cells.index(self._at) :]:
            try:
                jobs = [] if self.whole(cell) else self._ahead_of(cell)
            except InputError:
                continue
            yield from (job for job in jobs if self.store.result(job) is None)

    def _ahead_of(self, cell: Named) -> list[Job]:
        if not isinstance(cell, Cell):
            return [training.job for training in self.listing.trainings(cell, self.data)]
        stored = Stored(self.store)
        for plan in foreseen(cell, self.data):
            known = tuple(name for name in plan.proposers if "source" not in entry(name).needs)
            search(replace(plan, proposers=known), self.store, lambda: stored)
        return stored.missing


def _hours(done: Done, whole: float, workers: int) -> float | None:
    """Hours that the rest of a cell takes at the pace of what is finished; None before anything is."""
    if not done.macs:
        return None
    return done.seconds * max(0.0, whole / done.macs - 1) / workers / 3600
