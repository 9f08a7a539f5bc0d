"""The front door: `search`, `transfer`, `train` and `load_results`, alike for commands, notebooks and benchmarks.

    result = prunas.search("vgg11-digits", ["slimming", "tpe"], keep=[0.5, 0.25], seeds=3)
    print(result.table())
    net = result.space.build(result.best(keep=0.5).architecture)

Every function checks all it is given before anything is trained. A call that was stopped at any moment continues
when it is repeated; what is finished is fetched. `prepare_search` and its like stop where trainings would begin,
for whoever wants to look at the plan first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError, unknown
from prunas.experiments.forecast import Forecast, forecast
from prunas.experiments.plan import check_cap, make_plan, make_setting
from prunas.experiments.preflight import check_setting, preflight
from prunas.experiments.record import load_records, save
from prunas.experiments.search import Plan
from prunas.experiments.search import search as run_search
from prunas.experiments.steps import warnings_of
from prunas.experiments.transfer import designs_of, find_source, load_source, source_plan, stage_notes
from prunas.files import read_stored
from prunas.proposers.brief import Proposal, Source
from prunas.protocols import protocol as protocol_named
from prunas.report import can_draw
from prunas.results.record import Record
from prunas.results.rows import TrainingRow
from prunas.runs.execute import Outcome, Stop, never
from prunas.runs.executors import Executor, Report, check, chosen, executor, silent
from prunas.runs.store import Store
from prunas.spaces.load import load_point, load_space
from prunas.spaces.space import SearchSpace
from prunas.statistics import summary, tables, text
from prunas.surgery.given import Weights
from prunas.works.trainings import Setting, Training

if TYPE_CHECKING:
    from prunas.designs.align import Rounding

__all__ = [
    "Best",
    "PreparedSearch",
    "PreparedTraining",
    "SearchResult",
    "TrainingResult",
    "load_results",
    "prepare_search",
    "prepare_train",
    "prepare_transfer",
    "search",
    "train",
    "transfer",
]

Space = str | Path | SearchSpace
Watch = Callable[[Executor], Executor]
WRITERS: Mapping[str, Callable[[text.Table], str]] = {
    "text": text.as_text,
    "markdown": text.as_markdown,
    "latex": text.as_latex,
}


def unwatched(executor: Executor) -> Executor:
    """The executor as it is."""
    return executor


# Results


@dataclass(frozen=True, slots=True)
class Best:
    """The point that a search chooses for a target.

    Attributes:
        architecture: The point.
        row: Its final training, the first where there are several. The choice does not rest on its test score.
        val_score: The score on the validation split that chose it.
        unranked: Proposers with points at this target that have no validation score, and cannot be chosen.
    """

    architecture: Architecture
    row: TrainingRow
    val_score: float
    unranked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, or all searches of one setting.

    Attributes:
        record: Rows, costs, trials and notes: all that is stored.
        root: The folder that holds the runs.
        figures: Files that were drawn.
        trained: Trainings done by this call.
        stopped: Whether the search was asked to stop. The same call continues; nothing but its runs is stored.
        searched: The space that was searched; None where the result was read from a folder.
    """

    record: Record
    root: Path
    figures: tuple[Path, ...] = ()
    trained: int = 0
    stopped: bool = False
    searched: SearchSpace | None = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> tuple[TrainingRow, ...]:
        """One per final training."""
        return self.record.rows

    @property
    def space(self) -> SearchSpace:
        """The space; of a result that was read, as its trainings know it: without data, recipe and targets.

        Raises:
            InputError: There are no trainings, or the space has changed since.
        """
        if self.searched is not None:
            return self.searched
        for row in (*self.rows, *self.record.dense):
            return load_space(self._spec(row)["space"])
        raise InputError(f"no training of space {self.record.space!r} was begun")

    @property
    def problems(self) -> tuple[str, ...]:
        """Why something is missing, one line each."""
        return self.record.problems

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is there."""
        return not self.problems and all(row.status == "finished" for row in self.rows)

    @property
    def document(self) -> dict[str, Any]:
        """What `--json` prints and what is stored."""
        return tables.document(self.record, self.figures, self.trained)

    def table(self, form: str = "text") -> str:
        """The tables a person reads.

        Args:
            form: `text`, `markdown` or `latex`.

        Raises:
            InputError: There is no such form.
        """
        if form not in WRITERS:
            raise unknown("form of a table", form, WRITERS)
        return tables.tables(self.record, WRITERS[form])

    def lines(self) -> list[dict[str, Any]]:
        """One mapping per line of the table of results: proposer, target and protocol, unrounded."""
        return [line.to_json() for line in summary.table(self.rows, self.record.score)]

    def plot(self, path: Path | str, metric: str = "params") -> Path:
        """Draws the efficiency figure.

        Args:
            path: The file; its suffix decides its format, such as `.svg` or `.png`.
            metric: What the x axis counts: `params` or `macs`.

        Raises:
            InputError: No run has been tested, or the file cannot be written.
        """
        from prunas.report.efficiency import record_figure
        from prunas.report.figure import save_as
        from prunas.statistics.curves import undrawn

        if metric not in ("params", "macs"):
            raise unknown("metric of a plot", metric, ("params", "macs"))
        figure = record_figure(self.record, metric)  # type: ignore[arg-type]  # checked above
        if figure is None:
            why = "; ".join(undrawn(self.rows, self.record.score)) or "no run is there yet"
            raise InputError(f"nothing to plot; left out: {why}")
        return save_as(figure, Path(path))

    def best(self, keep: float | None = None, budget: int | str | None = None) -> Best:
        """The point of a target with the best score on the validation split.

        Final trainings meet the test split and have no validation score, so that only points which a sampler tried
        can be told apart without looking at the test split; the others are named as `unranked`.

        Args:
            keep: The target as a fraction; needed only where there are several targets.
            budget: The target as a number, such as `1.2M`.

        Raises:
            InputError: There is no such target, or none of its points has a validation score.
        """
        target = self._target(keep, budget)
        rows = [row for row in self.rows if row.asked == target]
        scores = {
            trial.architecture: trial.val_score
            for trial in self.record.trials
            if trial.asked == target and trial.fraction == 1 and trial.val_score is not None
        }
        # What was tried is the point as proposed, before its widths were aligned.
        ranked = [(scores[shape], row) for row in rows if (shape := _proposed(row)) in scores]
        if not ranked:
            raise InputError(
                f"no point at {target.label} has a validation score, and nothing is chosen by its test score; add "
                "a sampler to the search, such as tpe"
            )
        better = max if self.record.score.better == "higher" else min
        score, row = better(ranked, key=lambda pair: pair[0])
        others = dict.fromkeys(row.proposer for row in rows if _proposed(row) not in scores)
        architecture = Architecture.from_json(self._spec(row)["architecture"])
        return Best(architecture, row, score, tuple(others))

    def _target(self, keep: float | None, budget: int | str | None) -> Target:
        targets = list(dict.fromkeys(row.asked for row in self.rows))
        value = Target.parse(budget) if isinstance(budget, str) else budget
        matching = [
            target
            for target in targets
            if (keep is None or target.keep == keep) and (value is None or target.value == value)
        ]
        if len(matching) != 1:
            labels = ", ".join(target.label for target in targets) or "none"
            raise InputError(
                f"best() needs one target of this search, by keep or budget; there are: {labels}"
            )
        return matching[0]

    def _spec(self, row: TrainingRow) -> Mapping[str, Any]:
        """What was trained, and how, as the folder of the run says."""
        folder = Path(row.folder)
        folder = folder if folder.is_dir() else self.root / self.record.space / folder.name
        spec: Mapping[str, Any] = read_stored(folder / "job.json")["spec"]
        return spec


def _proposed(row: TrainingRow) -> str:
    return row.architecture if row.proposed is None else row.proposed.digest


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """One training of one point.

    Attributes:
        row: Its row, whatever became of it.
        outcome: How the attempt ended.
        folder: Of the run; its weights are in it.
    """

    row: TrainingRow
    outcome: Outcome
    folder: Path


# What is ready to begin


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
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

    def check_executor(self) -> None:
        """Refuses an executor that cannot be had; starts nothing."""
        name, options = chosen(self.executor, self.workers, self.executor_options)
        check(name, self.store, **options)

    def open(self, progress: Report, stop: Stop, watch: Watch, side_by_side: int = 1) -> Executor:
        """Opens the executor."""
        name, options = chosen(self.executor, self.workers, self.executor_options, side_by_side)
        return watch(executor(name, self.store, progress, stop, **options))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSearch(_Prepared):
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
            workers = forecast(work).workers(work) if side_by_side else 1
            return self.open(progress, stop, watch, workers)

        if self.source_plan is not None:
            source, trained = find_source(self.source_plan, self.store, partial(opened, self.source_plan))
            plan = replace(plan, source=source)
        findings = run_search(plan, self.store, partial(opened, plan))
        record, trained = findings.record, trained + findings.trained
        if stop():
            return SearchResult(record, self.store.root, (), trained, True, plan.setting.space)
        figures: tuple[Path, ...] = ()
        if draw and can_draw():
            from prunas.report.efficiency import draw_record

            figures = draw_record(record, self.store.root / record.space / "figures")
        save(record, self.store.root, figures, trained)
        return SearchResult(record, self.store.root, figures, trained, False, plan.setting.space)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTraining(_Prepared):
    """One training that is checked and can begin.

    Attributes:
        setting: Space, recipe and data.
        training: What will be done.
        asked: The params of the point, as a budget.
        seed: Of the initial weights and the batches.
        notes: What a person should know before it begins.
    """

    setting: Setting
    training: Training
    asked: Target
    seed: int
    notes: tuple[str, ...] = ()

    def run(self, progress: Report = silent, stop: Stop = never, watch: Watch = unwatched) -> TrainingResult:
        """Trains, or fetches what was trained; the arguments as of `PreparedSearch.run`."""
        with self.open(progress, stop, watch) as opened:
            opened.submit(self.training.job)
            (outcome,) = opened.completed()
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


# What users call


def search(
    space: Space,
    proposers: str | Sequence[str] = "slimming",
    *,
    progress: Report = silent,
    stop: Stop = never,
    **settings: Any,
) -> SearchResult:
    """Proposes shapes, trains them from scratch and compares them; continues what was begun.

    Trains in this process unless `executor` or `workers` say otherwise.

    Args:
        space: Name of a bundled space, the path of a TOML file, or a space.
        proposers: Who proposes.
        progress: Told (job, message) while trainings run.
        stop: When it turns true, running trainings save and stop.
        **settings: As of `prepare_search`.

    Raises:
        InputError: Something does not exist or cannot be trained, said before anything is trained.
    """
    return prepare_search(space, proposers, **settings).run(progress, stop)


def prepare_search(
    space: Space,
    proposers: str | Sequence[str] = "slimming",
    *,
    keep: float | Sequence[float] = (),
    budget: str | Sequence[str] = (),
    metric: str | None = None,
    protocol: str | Sequence[str] = "scratch-e",
    seeds: int = 3,
    trials: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    warm_start: str | Sequence[str] = (),
    controls: bool = True,
    dense: bool = True,
    dense_training: str = "scratch-e",
    weights: str | Path | Weights | None = None,
    cap: float | None = None,
    keep_weights: bool = False,
    align: "tuple[int, Rounding] | None" = None,
    recipe: str | Mapping[str, Any] | None = None,
    data: Path | str | None = None,
    download: bool = False,
    out: Path | str = "runs",
    executor: str | None = None,
    workers: int | None = None,
    executor_options: Mapping[str, Any] | None = None,
    notice: Callable[[str], object] | None = None,
) -> PreparedSearch:
    """Checks a search; trains and writes nothing.

    Args:
        space: Name of a bundled space, the path of a TOML file, or a space.
        proposers: Who proposes; the controls of what they decide join them.
        keep: Targets as fractions in (0, 1]; the space's own if there is no `budget` either.
        budget: Targets as numbers, such as `1.2M`.
        metric: What targets count; the space's own by default.
        protocol: How points are trained.
        seeds: Searches per proposer.
        trials: Candidates per target of every sampler, `random` included.
        options: Settings of proposers by name.
        warm_start: Pruning methods whose points every sampler tries first.
        controls: Whether uniform, random and taper join.
        dense: Whether the dense network is trained and tested too.
        dense_training: How the dense network of pruning methods is trained.
        weights: Of that network, which is then not trained: see `prunas.surgery.given.Weights.of`.
        cap: Largest factor of Scratch-B epochs.
        keep_weights: Whether final trainings keep their weights.
        align: What widths are rounded to, and how, such as `(8, "nearest")`.
        recipe: Name of a recipe, or what differs from the space's own, such as `{"epochs": 5}`; the key `name`
            names another recipe to start from.
        data: Folder of the data sets.
        download: Whether a data set that is not there may be fetched.
        out: Folder that holds all runs.
        executor: Name of what executes trainings.
        workers: Trainings at a time.
        executor_options: Further settings of the executor.
        notice: Told, in one line, what was repaired in the store; a warning by default.

    Raises:
        InputError: Something does not exist, or could only fail later.
    """
    setting = _setting(space, recipe, data, download, dense_training, weights)
    plan = make_plan(
        setting,
        _several(proposers),
        keep=_several(keep),
        budgets=_several(budget),
        metric=metric,
        protocols=_several(protocol),
        seeds=seeds,
        trials=trials,
        options=options,
        controls=controls,
        dense=dense,
        cap=cap,
        keep_weights=keep_weights,
        align=align,
        warm_start=_several(warm_start),
    )
    if trials is not None and not plan.trials:
        raise InputError(
            "--trials is for samplers and random, and none is in this search; add one, such as --proposer tpe"
        )
    prepared = PreparedSearch(
        plan=plan,
        store=_store(out, notice),
        executor=executor,
        workers=workers,
        executor_options=executor_options or {},
        notes=warnings_of(setting, plan.protocols, plan.proposers),
    )
    prepared.check_executor()
    preflight(plan, prepared.store)
    return prepared


def transfer(
    source: Space,
    target: Space,
    proposer: str = "slimming",
    *,
    progress: Report = silent,
    stop: Stop = never,
    **settings: Any,
) -> SearchResult:
    """Carries the pattern of found shapes to another network or data set, trains there and compares.

    Args:
        source: In which shapes are found; as of `search`.
        target: To which their pattern is carried.
        proposer: Who finds.
        progress: Told (job, message) while trainings run.
        stop: When it turns true, running trainings save and stop.
        **settings: As of `prepare_transfer`.

    Raises:
        InputError: As `search`.
    """
    return prepare_transfer(source, target, proposer, **settings).run(progress, stop)


def prepare_transfer(
    source: Space,
    target: Space,
    proposer: str = "slimming",
    *,
    from_found: bool = False,
    beside: str | Sequence[str] = (),
    keep: float | Sequence[float] = (),
    metric: str | None = None,
    protocol: str | Sequence[str] = "scratch-e",
    seeds: int = 3,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    controls: bool = True,
    dense: bool = True,
    recipe: str | Mapping[str, Any] | None = None,
    data: Path | str | None = None,
    download: bool = False,
    out: Path | str = "runs",
    executor: str | None = None,
    workers: int | None = None,
    executor_options: Mapping[str, Any] | None = None,
    notice: Callable[[str], object] | None = None,
) -> PreparedSearch:
    """Checks a transfer; trains and writes nothing.

    Args:
        source: In which shapes are found.
        target: To which their pattern is carried.
        proposer: Who finds.
        from_found: Whether the shapes shipped with prunas are taken, instead of a search on the source.
        beside: Further proposers on the target.
        keep: Targets as fractions; the target space's own by default.
        metric: And all that follows, as of `prepare_search`.
        protocol: How points are trained.
        seeds: Searches per proposer, on both spaces.
        options: Settings of proposers by name.
        controls: Whether uniform, random and taper join.
        dense: Whether the target's dense network is trained and tested too.
        recipe: Name of a recipe, or what differs from the spaces' own.
        data: Folder of the data sets.
        download: Whether a data set that is not there may be fetched.
        out: Folder that holds all runs.
        executor: Name of what executes trainings.
        workers: Trainings at a time.
        executor_options: Further settings of the executor.
        notice: Told, in one line, what was repaired in the store; a warning by default.

    Raises:
        InputError: As `prepare_search`, or the stages of the two networks cannot be matched.
    """
    designs = designs_of(proposer)
    setting = _setting(target, recipe, data, download)
    found_in = _space(source)
    common: dict[str, Any] = {
        "keep": _several(keep) or list(setting.space.study.keep),
        "metric": metric,
        "seeds": seeds,
    }
    names = (proposer, *designs, *_several(beside))
    # Both plans are made before anything is trained, so that what cannot be reached is said at once.
    shipped = load_source(found_in, proposer) if from_found else None
    plan = make_plan(
        setting,
        names,
        protocols=_several(protocol),
        dense=dense,
        controls=controls,
        options=options,
        source=shipped or Source(found_in, (), proposer),
        **common,
    )
    first = None
    if shipped is None:
        finding = {proposer: options[proposer]} if options and proposer in options else {}
        finder = make_plan(_setting(found_in, recipe, data, download), (proposer,), options=finding, **common)
        first = source_plan(finder, proposer)
    prepared = PreparedSearch(
        plan=plan,
        source_plan=first,
        store=_store(out, notice),
        executor=executor,
        workers=workers,
        executor_options=executor_options or {},
        notes=(
            *stage_notes(found_in, setting.space, names),
            *warnings_of(setting, plan.protocols, plan.proposers),
        ),
    )
    prepared.check_executor()
    preflight(plan, prepared.store)
    if first is not None:
        preflight(first, prepared.store)
    return prepared


def train(
    space: Space,
    architecture: Architecture | None = None,
    *,
    progress: Report = silent,
    stop: Stop = never,
    **settings: Any,
) -> TrainingResult:
    """Trains one point from scratch on train + validation and tests it once; keeps the weights.

    Args:
        space: Its space. Without `architecture` also `SPACE:PRESET` or the path of an architecture's JSON file.
        architecture: The point; the dense network, or what `space` names, by default.
        progress: Told (job, message) while it runs.
        stop: When it turns true, the training saves and stops.
        **settings: As of `prepare_train`.

    Raises:
        InputError: As `search`.
    """
    return prepare_train(space, architecture, **settings).run(progress, stop)


def prepare_train(
    space: Space,
    architecture: Architecture | None = None,
    *,
    protocol: str = "scratch-e",
    seed: int = 0,
    cap: float | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    data: Path | str | None = None,
    download: bool = False,
    out: Path | str = "runs",
    notice: Callable[[str], object] | None = None,
) -> PreparedTraining:
    """Checks a training; trains and writes nothing.

    Args:
        space: Its space, as of `train`.
        architecture: The point.
        protocol: `scratch-e`, `scratch-b` or `dsd`.
        seed: Of initial weights and batches.
        cap: Largest factor of Scratch-B epochs.
        recipe: Name of a recipe, or what differs from the space's own.
        data: Folder of the data sets.
        download: Whether a data set that is not there may be fetched.
        out: Folder that holds all runs.
        notice: Told, in one line, what was repaired in the store; a warning by default.

    Raises:
        InputError: As `prepare_search`.
    """
    how = protocol_named(protocol)
    check_cap(cap, [how])
    if architecture is not None:
        found = _space(space)
        found.check(architecture)
        arch = found.canonical(architecture)
    elif isinstance(space, SearchSpace):
        found, arch = space, space.dense
    else:
        found, arch = load_point(str(space))
    setting = _setting(found, recipe, data, download)
    asked = Target("params", found.cost(arch).params)
    training = setting.final(
        Proposal(asked, arch), how, seed, cap if cap is not None else found.study.cap, True
    )
    check_setting(setting)
    return PreparedTraining(
        setting=setting,
        training=training,
        asked=asked,
        seed=seed,
        store=_store(out, notice),
        executor="serial",
        notes=warnings_of(setting, [how]),
    )


def load_results(out: Path | str = "runs", space: str | None = None) -> list[SearchResult]:
    """What finished searches found, one result per space, recipe and data set.

    Args:
        out: Folder that holds all runs.
        space: Only this space's.

    Raises:
        InputError: There is none, one is damaged, or the folder is no store that this version reads.
    """
    root = Path(out)
    return [SearchResult(record, root) for record in load_records(root, space)]


def _several(given: Any) -> list[Any]:
    """One value or several, as a list."""
    return [given] if isinstance(given, (str, int, float)) else list(given)


def _space(given: Space) -> SearchSpace:
    return given if isinstance(given, SearchSpace) else load_space(str(given))


def _store(out: Path | str, notice: Callable[[str], object] | None) -> Store:
    return Store(Path(out)) if notice is None else Store(Path(out), notice=notice)


def _setting(
    space: Space,
    recipe: str | Mapping[str, Any] | None,
    data: Path | str | None,
    download: bool,
    dense_training: str = "scratch-e",
    weights: str | Path | Weights | None = None,
) -> Setting:
    changes = dict(recipe) if isinstance(recipe, Mapping) else {"name": recipe}
    name = changes.pop("name", None)
    return make_setting(
        _space(space),
        recipe_name=name,
        changes=changes,
        root=None if data is None else Path(data),
        download=download,
        dense_training=dense_training,
        weights=weights,
    )
