"""The front door of `shrink`: a trained network in, a smaller trained one out.

    small = prunas.shrink("mine.toml", weights="mine.pth", keep=0.5, metric="macs", time="2h")
    print(small.table())
    small.save("small")

Everything is checked before anything is trained. A call that was stopped at any moment continues when it is
repeated; what is finished is fetched.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunas import SCHEMA
from prunas.errors import InputError
from prunas.experiments.asked import Space, setting_of, several, space_of, store_of
from prunas.experiments.forecast import Forecast
from prunas.experiments.preflight import check_taught, preflight
from prunas.experiments.prepared import Prepared, Watch, unwatched
from prunas.experiments.record import setting_digest
from prunas.experiments.shrink import shrink as carried_out
from prunas.experiments.shrink_plan import WAYS, ShrinkPlan, make_shrink_plan, parsed_time
from prunas.experiments.steps import warnings_of
from prunas.files import digest, read_json, write_json
from prunas.protocols import BACKWARD
from prunas.runs.execute import Stop, never
from prunas.runs.executors import Executor, Report, silent
from prunas.runs.store import Store
from prunas.shrunk import Shrunk
from prunas.spaces.presets import slug
from prunas.spaces.space import SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from prunas.surgery.given import GivenWeights

__all__ = ["PreparedShrink", "Shrunk", "prepare_shrink", "shrink"]

TRAINING_SHARE = 0.8
"""Share of a budget of time that goes into retraining; the rest is for pruning, scoring and writing files."""

UNUSED = 0.75
"""Share of a budget below which a plan says that it does not need all of it."""


def shrink(
    space: "Space | Callable[[], nn.Module]",
    *,
    weights: "GivenWeights | None" = None,
    keep: float | None = None,
    progress: Report = silent,
    stop: Stop = never,
    **settings: Any,
) -> Shrunk:
    """A smaller trained network from a trained one: pruned and retrained in several ways, the best by validation.

    Args:
        space: Name of a bundled space, the path of a TOML file, a space, or with `input` a function that returns a
            fresh network.
        weights: Of the trained network, see `prepare_shrink`.
        keep: The share of `metric` that is kept, in (0, 1).
        progress: Told (job, message) while trainings run.
        stop: When it turns true, running trainings save and stop.
        **settings: As of `prepare_shrink`.

    Raises:
        InputError: Something does not exist or cannot be done, said before anything is trained.
        prunas.experiments.shrink.Stopped: As `stop` asked; the same call continues.
    """
    return prepare_shrink(space, weights=weights, keep=keep, **settings).run(progress, stop)


def prepare_shrink(
    space: "Space | Callable[[], nn.Module]",
    *,
    weights: "GivenWeights | None" = None,
    keep: float | None = None,
    budget: str | None = None,
    metric: str | None = None,
    proposers: str | Sequence[str] = (),
    protocol: str | Sequence[str] = (),
    epochs: int | None = None,
    time: str | float | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    input: Sequence[int] | None = None,
    task: str | Callable[..., Any] | None = None,
    loss: str | Callable[..., Any] | None = None,
    score: str | Callable[..., Any] | Mapping[str, Any] | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    data: Any = None,
    download: bool = False,
    out: Path | str = "runs",
    executor: str | None = None,
    workers: int | None = None,
    executor_options: Mapping[str, Any] | None = None,
    notice: Callable[[str], object] | None = None,
) -> "PreparedShrink":
    """Checks a shrinking; trains and writes nothing.

    Args:
        space: As of `shrink`.
        weights: Of the trained network: a file, a state dict or what else `prunas.surgery.given.Weights.of` takes;
            the space's own by default.
        keep: The target as a fraction of the network, in (0, 1).
        budget: Or as a number, such as `1.2M`.
        metric: What the target counts; the space's own by default.
        proposers: Who proposes shapes; by default every pruning method that the network allows, and a taper.
        protocol: Ways to retrain; by default those of `prunas.experiments.shrink_plan.WAYS`.
        epochs: Passes over the training images that all trainings together may take.
        time: Or the time that they may take: `2h`, `30m`, or seconds. The measured speed says once how many epochs
            that is; the same call continues with the same plan.
        seed: Of the retraining.
        options: Settings of proposers by name.
        input: Shape of one input without the batch, of a function that returns a network.
        task: And all that follows, as of `prepare_search`.
        loss: Of the task.
        score: Of the task.
        recipe: Of the dense network's training; retraining is derived from it.
        data: As of `prepare_search`; of a function that returns a network, the name of a data set too.
        download: Whether a data set that is not there may be fetched.
        out: Folder that holds all runs.
        executor: Name of what executes trainings.
        workers: Trainings at a time.
        executor_options: Further settings of the executor.
        notice: Told, in one line, what was repaired in the store; a warning by default.

    Raises:
        InputError: Something does not exist, or could only fail later.
    """
    if time is not None and epochs is not None:
        raise InputError("a budget is --for or --epochs, not both")
    chosen, root = _network(space, input, data)
    setting = setting_of(chosen, recipe, root, download, weights=weights, task=task, loss=loss, score=score)
    asked: dict[str, Any] = {
        "keep": keep,
        "budget": budget,
        "metric": metric,
        "proposers": several(proposers),
        "protocols": several(protocol),
        "seed": seed,
        "options": options,
    }
    plan = partial(make_shrink_plan, setting, **asked)
    return _ready(
        plan,
        Prepared(
            store=store_of(out, notice),
            executor=executor,
            workers=workers,
            executor_options=executor_options or {},
        ),
        epochs=epochs,
        seconds=None if time is None else parsed_time(time),
        asked=asked,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedShrink(Prepared):
    """A shrinking that is checked and can begin; nothing is trained or written yet.

    Attributes:
        plan: What will be done.
        decision: What a budget of time was found to mean, and the file that keeps it; None without such a budget.
        notes: What a person should know before it begins.
    """

    plan: ShrinkPlan
    decision: tuple[Path, Mapping[str, Any]] | None = None
    notes: tuple[str, ...] = ()

    @property
    def forecast(self) -> Forecast:
        """What carrying it out will take, at most."""
        return _forecast_of(self.plan)

    @property
    def document(self) -> dict[str, Any]:
        """The plan, as `prunas shrink --dry-run --json` prints it."""
        target, work = self.plan.search.targets[0], self.forecast
        return {
            "schema": SCHEMA,
            "space": self.plan.setting.space.name,
            "asked": target.to_json(),
            "proposers": list(self.plan.search.proposers),
            "protocols": [*self.plan.ways, *self.plan.fresh],
            "rounds": [each.to_json() for each in self.plan.rounds],
            "trainings": work.trainings,
            "epochs": work.epochs,
            "macs": work.macs,
        }

    def run(
        self,
        progress: Report = silent,
        stop: Stop = never,
        watch: Watch = unwatched,
        side_by_side: bool = False,
    ) -> Shrunk:
        """Carries it out, or continues it; the arguments as of `prunas.api.PreparedSearch.run`.

        Raises:
            InputError: Nothing could be retrained, or the store cannot be used.
            Stopped: As asked.
        """
        if self.decision is not None and not self.decision[0].exists():
            write_json(*self.decision)

        def opened() -> Executor:
            at_once = self.forecast.workers(self.plan.search) if side_by_side else 1
            return self.open(progress, stop, watch, at_once)

        record = carried_out(self.plan, self.store, opened, stop)
        record = replace(record, notes=(*self.notes, *record.notes))
        return Shrunk(record, self.plan.setting.space)


def _forecast_of(plan: ShrinkPlan) -> Forecast:
    """What carrying out a plan takes, at most, from its target: the shapes themselves are not known yet."""
    setting, recipe = plan.setting, plan.setting.recipe
    images = setting.images["train"]
    dense_macs = setting.space.cost(setting.space.dense).macs
    short, full = plan.allotment.trainings(len(plan.ways), len(plan.fresh))
    penalties = recipe.epochs * len(plan.penalised)
    passes = plan.share * plan.passes + BACKWARD * penalties
    macs = dense_macs * images * passes
    epochs = plan.epochs + penalties
    return Forecast(
        trainings=short + full + len(plan.penalised),
        macs=round(macs),
        steps=-(-images // recipe.batch) * epochs,
        epochs=epochs,
    )


def _decided_epochs(
    plan: ShrinkPlan, store: Store, seconds: float, asked: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """How many epochs a budget of time means here: decided once, by the measured speed, and kept in the store.

    Args:
        plan: Without a budget.
        store: Where the decision is kept.
        seconds: The budget.
        asked: What the user asked, as JSON values: another question is another decision.

    Returns:
        The file, and what is or will be written there; nothing is written here.
    """
    setting = plan.setting
    name = digest([setting_digest(plan.search), dict(asked), seconds])
    path = store.root / setting.space.name / "shrinkings" / f"{name}.json"
    if path.exists():
        document = read_json(path)
        if not isinstance(document, dict) or not isinstance(document.get("epochs"), int):
            raise InputError(f"{path} is damaged; delete it, and the speed is measured anew")
        return path, document
    images = setting.images["train"]
    passes = plan.passes / plan.epochs  # a teacher costs more
    macs = setting.space.cost(setting.space.dense).macs * images * plan.share * passes
    epoch = Forecast(1, round(macs), -(-images // setting.recipe.batch), 1).seconds(plan.search)
    epochs = int(TRAINING_SHARE * seconds / epoch)
    return path, {"asked": dict(asked), "seconds": seconds, "epoch_seconds": epoch, "epochs": epochs}


def _ready(
    make: Callable[..., ShrinkPlan],
    prepared: Prepared,
    *,
    epochs: int | None,
    seconds: float | None,
    asked: Mapping[str, Any],
) -> PreparedShrink:
    """A shrinking that is ready to begin: executor, data, network, weights and store are checked.

    Args:
        make: Makes the plan with a budget, `epochs`.
        prepared: Where runs live, and who executes them.
        epochs: The budget.
        seconds: Or the budget as a time.
        asked: What the user asked, as JSON values.

    Raises:
        InputError: Something could only fail later, or the budget is too small.
    """
    if epochs is not None and not (isinstance(epochs, int) and epochs > 0):
        raise InputError(f"--epochs must be a whole number above 0, not {epochs!r}")
    notes: tuple[str, ...] = ()
    plan = make(epochs=epochs)
    prepared.check_executor(plan.setting.live)
    preflight(plan.search, prepared.store)
    if taught := [way for way in plan.ways if plan.way(way, 1).teacher is not None]:
        try:
            check_taught(plan.setting)
        except InputError as error:
            if asked["protocols"]:
                raise
            notes = (f"{', '.join(taught)} left out: {error}",)
            make = partial(make, protocols=[way for way in WAYS if way not in taught])
            plan = make(epochs=epochs)
    decision = None
    if seconds is not None:
        decision = _decided_epochs(plan, prepared.store, seconds, asked)
        plan = make(epochs=decision[1]["epochs"])
        preflight(plan.search, prepared.store)
    longest = plan.allotment.epochs >= plan.setting.recipe.epochs
    if plan.budget is not None and longest and plan.epochs < UNUSED * plan.budget:
        notes += (
            f"{plan.epochs} of {plan.budget} epochs are used: no training is longer than the recipe's "
            f"{plan.setting.recipe.epochs}; see --recipe-set epochs=...",
        )
    fields = {each.name: getattr(prepared, each.name) for each in dataclasses.fields(Prepared)}
    notes = (*notes, *warnings_of(plan.setting, ()))
    return PreparedShrink(**fields, plan=plan, decision=decision, notes=notes)


def _network(
    given: "Space | Callable[[], nn.Module]", input: Sequence[int] | None, data: Any
) -> tuple[SearchSpace, Any]:
    """The space that a user means, or that of a network that a function returns, and the folder of its data."""
    if isinstance(given, (str, Path, SearchSpace)):
        if input is not None:
            raise InputError("input= is for a function that returns a network; a space knows its own")
        return space_of(given), data
    if not callable(given) or input is None:
        raise InputError(
            "give a space, or a function that returns a fresh network with the shape of one input, as in "
            "input=(3, 32, 32)"
        )
    name = slug(getattr(given, "__name__", "")) or "network"
    if isinstance(data, str):
        return SearchSpace.from_model(given, input, name=name, data=data), None
    return SearchSpace.from_model(given, input, name=name), data
