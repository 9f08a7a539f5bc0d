"""What is checked and can begin: a search, a transfer or one training; nothing is trained before `run`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.experiments.forecast import Forecast, forecast
from prunas.experiments.plan import Plan
from prunas.experiments.preflight import preflight
from prunas.experiments.record import save
from prunas.experiments.results import SearchResult, TrainingResult
from prunas.experiments.search import search
from prunas.experiments.steps import warnings_of
from prunas.experiments.transfer import find_source
from prunas.proposers.brief import Proposal
from prunas.protocols import Protocol
from prunas.report import can_draw
from prunas.runs.execute import Stop, never
from prunas.runs.executors import Executor, Report, check, chosen, executor, silent
from prunas.runs.store import Store
from prunas.works.trainings import Setting, Training

__all__ = ["Prepared", "PreparedSearch", "PreparedTraining", "Watch", "ready_search", "unwatched"]

Watch = Callable[[Executor], Executor]


def unwatched(executor: Executor) -> Executor:
    """The executor as it is."""
    return executor


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is checked and can begin.

    Attributes:
        store: Where runs live.
        executor: Name of the executor, or None; see `prunas.runs.executors.chosen`.
        workers: Trainings at a time, or None.
        executor_options: Further settings of the executor.
    """

    store: Store
    executor: str | None = None
    workers: int | None = None
    executor_options: Mapping[str, Any] = field(default_factory=dict)

    def check_executor(self, live: Sequence[str] = ()) -> None:
        """Refuses an executor that cannot be had, or cannot train these live objects; starts nothing."""
        name, options = chosen(self.executor, self.workers, self.executor_options)
        check(name, self.store, live, **options)

    def open(self, progress: Report, stop: Stop, watch: Watch, side_by_side: int = 1) -> Executor:
        """Opens the executor."""
        name, options = chosen(self.executor, self.workers, self.executor_options, side_by_side)
        return watch(executor(name, self.store, progress, stop, **options))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSearch(Prepared):
    """A search or a transfer that is checked and can begin; nothing is trained or written yet.

    Attributes:
        plan: What will be done.
        source_plan: Of a transfer, what finds the points that are carried over; None if they are there.
        notes: What a person should know before it begins.
    """

    plan: Plan
    source_plan: Plan | None = None
    notes: tuple[str, ...] = ()

    @property
    def forecasts(self) -> tuple[Forecast, ...]:
        """What carrying it out will take: the search on the source, if there is one, and the search itself."""
        return tuple(forecast(plan) for plan in (self.source_plan, self.plan) if plan is not None)

    def run(
        self,
        progress: Report = silent,
        stop: Stop = never,
        watch: Watch = unwatched,
        side_by_side: bool = False,
        draw: bool = True,
    ) -> SearchResult:
        """Carries it out, or continues it; stores the record and draws its figure.

        Args:
            progress: Told (job, message) while trainings run.
            stop: When it turns true, running trainings save and stop.
            watch: Wraps the executor, to be told of every outcome.
            side_by_side: Whether several worker processes may be used where no executor is named. They import the
                script that started them, which must then guard what it does by `if __name__ == "__main__":`.
            draw: Whether the figure is drawn.

        Raises:
            InputError: Something cannot be trained, or the store cannot be used.
            KeyboardInterrupt: Stopped; the same call continues.
        """
        plan, trained = self.plan, 0

        def opened(work: Plan) -> Executor:
            alone = work.setting.live or not side_by_side
            workers = 1 if alone else forecast(work).workers(work)
            return self.open(progress, stop, watch, workers)

        if self.source_plan is not None:
            source, trained = find_source(self.source_plan, self.store, partial(opened, self.source_plan))
            plan = replace(plan, source=source)
        findings = search(plan, self.store, partial(opened, plan))
        record, trained = findings.record, trained + findings.trained
        if stop():
            return SearchResult(record, self.store.root, (), trained, True, plan.setting.space)
        figures: tuple[Path, ...] = ()
        if draw and can_draw():
            from prunas.report.efficiency import draw_record

            figures = draw_record(record, self.store.root / record.space / "figures")
        save(record, self.store.root, figures, trained)
        return SearchResult(record, self.store.root, figures, trained, False, plan.setting.space)


def ready_search(
    plan: Plan,
    store: Store,
    executor: str | None = None,
    workers: int | None = None,
    executor_options: Mapping[str, Any] | None = None,
    *,
    source_plan: Plan | None = None,
    noted: Callable[[], tuple[str, ...]] = tuple,
) -> PreparedSearch:
    """A search or a transfer that is ready to begin: executor, data, networks and store are checked.

    Args:
        plan: What will be done.
        store: Where runs live.
        executor: Name of what executes trainings.
        workers: Trainings at a time.
        executor_options: Further settings of the executor.
        source_plan: Of a transfer, what finds the points that are carried over; None if they are there.
        noted: Says what a person should know before what is said of the plan itself; asked once all is checked.

    Raises:
        InputError: Something could only fail later.
    """
    prepared = PreparedSearch(
        plan=plan,
        source_plan=source_plan,
        store=store,
        executor=executor,
        workers=workers,
        executor_options=executor_options or {},
    )
    settings = [each.setting for each in (plan, source_plan) if each is not None]
    prepared.check_executor([name for setting in settings for name in setting.live])
    preflight(plan, store)
    if source_plan is not None:
        preflight(source_plan, store)
    notes = (*noted(), *warnings_of(plan.setting, plan.protocols, plan.proposers, plan.evaluator))
    return replace(prepared, notes=notes)


def inherited(setting: Setting, point: Proposal, how: Protocol) -> tuple[Training, Proposal]:
    """The dense network with given weights, as a job, and a point that inherits them.

    Args:
        setting: With given weights.
        point: A shape; of a narrowed layer only a method knows which channels it keeps.
        how: The protocol, for messages.

    Raises:
        InputError: There are no given weights, or the point has narrowed layers.
    """
    if setting.dense_from is None:
        raise InputError(
            f"protocol {how.name!r} inherits weights, and none are given; name them with --weights FILE"
        )
    if point.architecture.widths:
        raise InputError(
            "this point has fewer channels than the dense network, and a shape does not say which it keeps; let a "
            f"method choose: prunas search --proposer l1-global --protocol {how.name} --weights FILE"
        )
    given = setting.given(setting.dense_from)
    return given, replace(point, kept={}, weights_of=given.job.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTraining(Prepared):
    """One training that is checked and can begin.

    Attributes:
        setting: Space, recipe and data.
        training: What will be done.
        asked: The params of the point, as a budget.
        seed: Of the initial weights and the batches.
        given: The dense network whose given weights the point inherits; None if it inherits none.
        notes: What a person should know before it begins.
    """

    setting: Setting
    training: Training
    asked: Target
    seed: int
    given: Training | None = None
    notes: tuple[str, ...] = ()

    def run(self, progress: Report = silent, stop: Stop = never, watch: Watch = unwatched) -> TrainingResult:
        """Trains, or fetches what was trained; the arguments as of `PreparedSearch.run`."""
        with self.open(progress, stop, watch) as opened:
            for training in filter(None, (self.given, self.training)):
                opened.submit(training.job)
                (outcome,) = opened.completed()
                if outcome.result is None:
                    break
        folder = self.store.folder(self.training.job)
        row = self.training.row(
            self.setting.space,
            outcome,
            proposer="train",
            kind="predefined",
            asked=self.asked,
            search_seed=self.seed,
            folder=str(folder),
        )
        return TrainingResult(row, outcome, folder)
