"""The front door: `search`, `transfer`, `train` and `load_results`, alike for commands, notebooks and benchmarks.

    result = prunas.search("vgg11-digits", ["slimming", "tpe"], keep=[0.5, 0.25], seeds=3)
    print(result.table())
    net = result.space.build(result.best(keep=0.5).architecture)

Every function checks all it is given before anything is trained. A call that was stopped at any moment continues
when it is repeated; what is finished is fetched. `prepare_search` and its like stop where trainings would begin,
for whoever wants to look at the plan first.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.experiments.asked import Space, setting_of, several, space_of, store_of
from prunas.experiments.plan import Plan, check_cap, make_plan
from prunas.experiments.preflight import check_given, check_setting
from prunas.experiments.prepared import PreparedSearch, PreparedTraining, inherited, ready_search
from prunas.experiments.record import load_records
from prunas.experiments.results import Best, SearchResult, TrainingResult
from prunas.experiments.steps import warnings_of
from prunas.experiments.transfer import designs_of, load_source, source_plan, stage_notes
from prunas.proposers.brief import Proposal, Source
from prunas.proposers.evaluators import Evaluator
from prunas.proposers.evaluators import evaluator as evaluator_named
from prunas.protocols import protocol as protocol_named
from prunas.runs.execute import Stop, never
from prunas.runs.executors import Report, silent
from prunas.spaces.load import load_point
from prunas.spaces.space import SearchSpace

if TYPE_CHECKING:
    from prunas.designs.align import Rounding
    from prunas.inspection.trained import TrainedRun
    from prunas.surgery.given import GivenWeights

__all__ = [
    "Best",
    "PreparedSearch",
    "PreparedTraining",
    "SearchResult",
    "TrainingResult",
    "load_results",
    "load_run",
    "prepare_search",
    "prepare_train",
    "prepare_transfer",
    "search",
    "train",
    "transfer",
]


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
    evaluator: "str | Mapping[str, Any] | Evaluator | None" = None,
    controls: "bool | Literal['proxy']" = True,
    dense: bool = True,
    dense_training: str = "scratch-e",
    weights: "GivenWeights | None" = None,
    cap: float | None = None,
    keep_weights: bool | None = None,
    align: "tuple[int, Rounding] | None" = None,
    recipe: str | Mapping[str, Any] | None = None,
    data: Any = None,
    task: str | Callable[..., Any] | None = None,
    loss: str | Callable[..., Any] | None = None,
    score: str | Callable[..., Any] | Mapping[str, Any] | None = None,
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
        evaluator: How candidates are scored instead of by training them: a name of
            `prunas.proposers.evaluators.EVALUATORS`, or `{"name": "adaptive-bn", "norms": 640}`.
        controls: Whether uniform, random and taper join; `proxy` adds random and tpe with the evaluator and the
            number of evaluations of every method that searches by evaluations.
        dense: Whether the dense network is trained and tested too.
        dense_training: How the dense network of pruning methods is trained.
        weights: Of that network, which is then not trained: a file, a state dict or what else
            `prunas.surgery.given.Weights.of` takes; the space's own by default, "none" for none.
        cap: Largest factor of Scratch-B epochs.
        keep_weights: Whether final trainings keep their weights; by default all of 64 MiB at most.
        align: What widths are rounded to, and how, such as `(8, "nearest")`.
        recipe: A recipe's name, or what differs from the space's own: `{"epochs": 5}`; `name` names another base.
        data: Folder of the data sets; or instead of the space's own data set, a function or an object, see
            `prunas.data.find.find_data`.
        task: What networks are trained for, instead of the space's own: a name, an import path, or a function of
            the data set that makes it; a lambda where trainings run in this process.
        loss: A function of (outputs, targets) instead of the task's loss, or where to import it from; see
            `prunas.tasks.load.with_loss`.
        score: Instead of the task's score, likewise; see `prunas.tasks.load.with_score`.
        download: Whether a data set that is not there may be fetched.
        out: Folder that holds all runs.
        executor: Name of what executes trainings.
        workers: Trainings at a time.
        executor_options: Further settings of the executor.
        notice: Told, in one line, what was repaired in the store; a warning by default.

    Raises:
        InputError: Something does not exist, or could only fail later.
    """
    setting = setting_of(space, recipe, data, download, dense_training, weights, task, loss, score)
    plan = make_plan(
        setting,
        several(proposers),
        keep=several(keep),
        budgets=several(budget),
        metric=metric,
        protocols=several(protocol),
        seeds=seeds,
        trials=trials,
        options=options,
        controls=controls,
        dense=dense,
        cap=cap,
        keep_weights=keep_weights,
        align=align,
        warm_start=several(warm_start),
        evaluator=None if evaluator is None else evaluator_named(evaluator),
    )
    _check_trials(trials, plan)
    return ready_search(plan, store_of(out, notice), executor, workers, executor_options)


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
    weights: "GivenWeights | None" = None,
    recipe: str | Mapping[str, Any] | None = None,
    data: Any = None,
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
        weights: Of the target's dense network, as of `prepare_search`; those of the source are in its own file.
        recipe: Name of a recipe, or what differs from the spaces' own.
        data: As of `prepare_search`.
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
    setting = setting_of(target, recipe, data, download, weights=weights)
    found_in = space_of(source)
    common: dict[str, Any] = {
        "keep": several(keep) or list(setting.space.study.keep),
        "metric": metric,
        "seeds": seeds,
    }
    names = (proposer, *designs, *several(beside))
    # Both plans are made before anything is trained, so that what cannot be reached is said at once.
    shipped = load_source(found_in, proposer) if from_found else None
    plan = make_plan(
        setting,
        names,
        protocols=several(protocol),
        dense=dense,
        controls=controls,
        options=options,
        source=shipped or Source(found_in, (), proposer),
        **common,
    )
    first = None
    if shipped is None:
        finding = {proposer: options[proposer]} if options and proposer in options else {}
        finder = make_plan(
            setting_of(found_in, recipe, data, download), (proposer,), options=finding, **common
        )
        first = source_plan(finder, proposer)
    store = store_of(out, notice)
    noted = partial(stage_notes, found_in, setting.space, names)
    return ready_search(plan, store, executor, workers, executor_options, source_plan=first, noted=noted)


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
    weights: "GivenWeights | None" = None,
    recipe: str | Mapping[str, Any] | None = None,
    data: Any = None,
    task: str | Callable[..., Any] | None = None,
    loss: str | Callable[..., Any] | None = None,
    score: str | Callable[..., Any] | Mapping[str, Any] | None = None,
    download: bool = False,
    out: Path | str = "runs",
    notice: Callable[[str], object] | None = None,
) -> PreparedTraining:
    """Checks a training; trains and writes nothing.

    Args:
        space: Its space, as of `train`.
        architecture: The point.
        protocol: `scratch-e`, `scratch-b` or `dsd`; with `weights` also what inherits, such as `finetune`.
        seed: Of initial weights and batches.
        cap: Largest factor of Scratch-B epochs.
        weights: Of the dense network, which the point inherits; it must have all of its widths. As of
            `prepare_search`.
        recipe: Name of a recipe, or what differs from the space's own.
        data: As of `prepare_search`.
        task: What the network is trained for, as of `prepare_search`.
        loss: Instead of the task's loss, as of `prepare_search`.
        score: Instead of the task's score, as of `prepare_search`.
        download: Whether a data set that is not there may be fetched.
        out: Folder that holds all runs.
        notice: Told, in one line, what was repaired in the store; a warning by default.

    Raises:
        InputError: As `prepare_search`.
    """
    how = protocol_named(protocol)
    check_cap(cap, [how])
    if architecture is not None:
        found = space_of(space)
        found.check(architecture)
        arch = found.canonical(architecture)
    elif isinstance(space, SearchSpace):
        found, arch = space, space.dense
    else:
        found, arch = load_point(str(space))
    setting = setting_of(found, recipe, data, download, weights=weights, task=task, loss=loss, score=score)
    store = store_of(out, notice)
    point, given = Proposal(Target("params", found.cost(arch).params), arch), None
    if how.weights == "sliced":
        given, point = inherited(setting, point, how)
    elif weights not in (None, "none"):
        raise InputError(
            f"protocol {how.name!r} starts from new weights; add --protocol finetune, or leave --weights out"
        )
    training = setting.final(point, how, seed, cap if cap is not None else found.study.cap, True)
    check_setting(setting)
    if given is not None:
        check_given(setting, store)
    return PreparedTraining(
        setting=setting,
        training=training,
        asked=point.target,
        seed=seed,
        given=given,
        store=store,
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


def load_run(run: Path | str, out: Path | str = "runs") -> "TrainedRun":
    """A finished training read back: its network with weights, in evaluation mode, and what is known of it.

    Args:
        run: The run's folder, as rows and results name it; or its id or the name of its folder.
        out: Folder that holds all runs, for an id or a name.

    Raises:
        InputError: There is no such run, it is not finished, it kept no weights, or it was trained with more than
            the network.
    """
    from prunas.inspection.trained import (
        load_run as read,
    )  # torch, which searches import in their trainings alone

    return read(run, out)


def _check_trials(trials: int | None, plan: Plan) -> None:
    """Refuses a number of candidates in a search that tries none."""
    if trials is not None and not plan.trials:
        raise InputError(
            "--trials is for samplers and random, and none is in this search; add one, such as --proposer tpe"
        )
