"""The plan of a search: everything that decides it, and how it is made of what a user asked."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prunas import designs
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import ANSWERS_OTHERS, FINDERS
from prunas.plugins import foreign_code
from prunas.proposers.brief import Source
from prunas.proposers.entry import Entry
from prunas.proposers.evaluators import Evaluator
from prunas.proposers.registry import configured, entry, finder_of, joining_controls, proxy_controls
from prunas.proposers.serving import check_served
from prunas.proposers.table import PROPOSERS
from prunas.protocols import SCRATCH, Protocol, protocol
from prunas.recipe import finite, recipe
from prunas.spaces.reference import Reference
from prunas.spaces.space import SearchSpace
from prunas.surgery.given import Weights, fitted_state
from prunas.tasks.base import Split, Task
from prunas.tasks.load import CLASSIFICATION, TaskReference, find_task, make_task, with_loss, with_score
from prunas.works.trainings import Setting

if TYPE_CHECKING:
    from prunas.surgery.given import GivenWeights

__all__ = ["TRIALS", "Plan", "check_cap", "controls_of", "make_plan", "make_setting"]

SPLITS: tuple[Split, ...] = ("train", "train+val")
"""What networks are trained on."""

TRIALS = 16
"""Candidates per target of a sampler that is not told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides a search.

    Attributes:
        setting: Space, recipe and data.
        proposers: Names, in the order of the table.
        targets: Budgets, largest first.
        protocols: How points are trained.
        seeds: Searches per proposer, with seeds 0, 1, ...
        trials: Candidates per target of a sampler.
        options: Settings of proposers by name; the space's own come first.
        cap: Largest factor of Scratch-B epochs where a protocol names none, or None.
        dense: Whether the dense network is trained and tested too.
        keep_weights: Whether final trainings keep their weights; None: see `prunas.works.train.KEPT_UP_TO`.
        source: What was found in another space, if designs are to be transferred.
        align: What the widths of every proposal are aligned to, and how; see `prunas.designs.align`. None leaves
            them as proposed.
        evaluator: How candidates are scored, by samplers and by methods that leave it open; None trains them.
    """

    setting: Setting
    proposers: tuple[str, ...]
    targets: tuple[Target, ...]
    protocols: tuple[Protocol, ...]
    seeds: int
    trials: Mapping[str, int]
    options: Mapping[str, Mapping[str, Any]]
    cap: float | None = None
    dense: bool = True
    keep_weights: bool | None = None
    source: Source | None = None
    align: tuple[int, designs.Rounding] | None = None
    evaluator: Evaluator | None = None

    @property
    def references(self) -> tuple[Protocol, ...]:
        """How the dense network is trained and tested: as points are from scratch, and as its own training is."""
        # What has epochs of its own is a retraining budget, not how a dense network is trained; it has no teacher.
        fresh = [how for how in self.protocols if not how.needs and how.epochs is None]
        scratch = next(iter(fresh), None)
        if not self.dense or scratch is None:
            return ()
        own = self.setting.dense_training
        return (scratch,) if own in (SCRATCH, scratch) else (scratch, own)

    @property
    def unpruned(self) -> Target:
        """The dense network as a budget."""
        space, metric = self.setting.space, self.targets[0].metric
        return Target(metric, space.measure(space.dense, metric), 1.0)


def controls_of(
    names: Collection[str], space: SearchSpace, options: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """The controls that join these proposers unless told otherwise."""
    lines = [configured(name, space.study.options, options)[0] for name in names]
    found = {line.dimensions[0] for line in lines if line.kind in FINDERS}
    return {
        control
        for dimension in {line.dimensions[0] for line in lines}
        for control in joining_controls(dimension)
        if dimension in found or "found" not in entry(control).needs
    }


def make_setting(
    space: SearchSpace,
    *,
    recipe_name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    root: Path | None = None,
    download: bool = False,
    dense_training: str = "scratch-e",
    task: str | Callable[..., Task] | None = None,
    loss: str | Callable[..., Any] | None = None,
    score: str | Callable[..., Any] | Mapping[str, Any] | None = None,
    data: Any = None,
    weights: "GivenWeights | None" = None,
) -> Setting:
    """Space, task, recipe and data of an experiment; loads the data.

    Args:
        space: The search space.
        recipe_name: Instead of the space's own recipe.
        changes: Recipe settings that differ, without those that are None. A precision of `auto` is resolved here,
            before anything is hashed: see `prunas.training.precision`. So is what hangs on the size of the dense
            network: see `Recipe.settled`.
        root: Folder of the data sets; the environment's PRUNAS_DATA or the user's data folder by default.
        download: Whether a data set may be fetched.
        dense_training: How the dense network of pruning methods is trained: `scratch-e` or `dsd`.
        task: Instead of the space's own: a name, or a function of an importable module; see
            `prunas.tasks.load.find_task`. It is called with the space's data set, or with nothing if that names
            none.
        loss: Instead of the space's own: what replaces the task's loss; see `prunas.tasks.load.with_loss`.
        score: Instead of the space's own: what replaces the task's score; see `prunas.tasks.load.with_score`.
        data: Instead of the space's own data set: a name, a function of an importable module, or an object; see
            `prunas.data.find.find_data`.
        weights: Of the dense network of pruning methods, which is then not trained: see
            `prunas.surgery.given.Weights.of`. The space's own by default; "none" has it trained all the same.

    Raises:
        InputError: Something does not exist or cannot be read, or the weights do not fit the network.
    """
    asked = _asked_task(space, task, loss, score)
    if not space.study.data and data is None and asked == CLASSIFICATION:
        raise InputError(f"space {space.name!r} names no data set; add `data = ...` to its file")
    changed = {key: value for key, value in (changes or {}).items() if value is not None}
    if changed.get("precision") == "auto":
        from prunas.training.precision import fastest
        from prunas.works.runtime import device

        changed = fastest(device()) | {key: value for key, value in changed.items() if key != "precision"}
    usual = recipe(recipe_name) if recipe_name else space.study.default_recipe()
    chosen = usual.replace(**changed).settled(space.cost(space.dense).params)
    folder = None if root is None else root.expanduser().absolute()
    from prunas.data.find import load_data

    found = _find_data(data, space)
    loaded = None if found is None else load_data(found, folder, download)
    made, reference = make_task(asked, loaded)
    _check_data(made)
    if made.inputs.shapes != space.survey.called_with.shapes:
        whose = f"task {made.name!r}" if loaded is None else f"data set {loaded.name!r}"
        raise InputError(
            f"{whose} has images of {made.inputs}; the network of space {space.name!r} takes "
            f"{space.survey.called_with}"
        )
    dense_from = _given(weights, space)
    notes = made.notes if dense_from is None else (*made.notes, *_weights_notes(dense_from, space))
    if space.survey.part:
        notes = (*notes, str(space.survey.part))
    return Setting(
        space=space,
        recipe=chosen,
        data=loaded.name if loaded is not None else "",
        identity=loaded.identity if loaded is not None else "",
        data_from=None if found is None or loaded is None else replace(found, identity=loaded.identity),
        images={split: len(made.members(split, chosen.images)) for split in SPLITS},
        notes=notes,
        dense_training=protocol(dense_training),
        chance=made.chance,
        root=folder,
        task=reference,
        score=made.score,
        dense_from=dense_from,
    )


def _check_data(task: Task) -> None:
    """Refuses data that say nothing of the task: a split of one class, targets that are no numbers."""
    try:
        with foreign_code(f"task {task.name!r}"):
            useless = task.unusable()
    except InputError:
        raise
    except Exception as error:  # whatever a user's task raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"task {task.name!r} cannot look at its data: {why}") from error
    if useless is not None:
        raise InputError(f"task {task.name!r}: its data {useless}")


def _asked_task(
    space: SearchSpace,
    task: str | Callable[..., Task] | None,
    loss: str | Callable[..., Any] | None,
    score: str | Callable[..., Any] | Mapping[str, Any] | None,
) -> TaskReference:
    """The task of an experiment; what is not asked for is the space's own, in files beside the space's."""
    study, here, beside = space.study, Path(), Path(space.source).parent
    found = find_task(*((study.task, beside) if task is None else (task, here)))
    found = with_loss(found, *((study.loss, beside) if loss is None else (loss, here)))
    return with_score(found, *((study.score, beside) if score is None else (score, here)))


def _given(weights: "GivenWeights | None", space: SearchSpace) -> Weights | None:
    """The weights of the dense network that a user means, or else those that the space names."""
    if isinstance(weights, Weights) or weights == "none":
        return weights if isinstance(weights, Weights) else None
    if weights is not None:
        return Weights.of(weights)
    return Weights.of(space.study.weights, Path(space.source).parent) if space.study.weights else None


def _find_data(data: Any, space: SearchSpace) -> Reference | None:
    """The data set that a user means, or else the one that the space names."""
    from prunas.data.find import find_data

    if data is not None:
        return find_data(data, Path())
    study = space.study
    return find_data(study.data, Path(space.source).parent, study.data_options) if study.data else None


def _weights_notes(weights: Weights, space: SearchSpace) -> tuple[str, ...]:
    """How given weights were read, one line each.

    Raises:
        InputError: The weights do not fit the network. Those of a run are looked at when the store is known.
    """
    from prunas.works.runtime import initial

    return () if weights.kind == "run" else fitted_state(weights, initial(space, 0))[1]


def make_plan(
    setting: Setting,
    proposers: Sequence[str],
    *,
    keep: Sequence[float] = (),
    budgets: Sequence[str] = (),
    metric: str | None = None,
    protocols: Sequence[str] = ("scratch-e",),
    seeds: int = 3,
    trials: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    controls: "bool | Literal['proxy']" = True,
    dense: bool = True,
    cap: float | None = None,
    keep_weights: bool | None = None,
    source: Source | None = None,
    align: tuple[int, designs.Rounding] | None = None,
    warm_start: Sequence[str] = (),
    evaluator: Evaluator | None = None,
) -> Plan:
    """The plan of a search.

    Args:
        setting: Space, recipe and data.
        proposers: Names; the controls of what they decide join them.
        keep: Targets as fractions; the space's own if neither these nor `budgets` are given.
        budgets: Targets as numbers, such as `1.2M`.
        metric: What targets count; the space's own by default.
        protocols: How points are trained; none only searches.
        seeds: Searches per proposer.
        trials: Candidates per target of every sampler, `random` included; by default 16, and 1 for `random`.
        options: Settings of proposers by name.
        controls: Whether the controls join; `proxy`: beside them, random and tpe with the evaluator and the
            number of evaluations of every method that searches by evaluations.
        dense: Whether the dense network is trained and tested too.
        cap: Largest factor of Scratch-B epochs where a protocol names none; the space's own by default.
        keep_weights: Whether final trainings keep their weights; by default all of 64 MiB at most.
        source: What was found in another space, for transferred designs.
        align: What the widths of every proposal are aligned to, and how; controls answer points as proposed.
        warm_start: Pruning methods whose points are the first trials of every sampler: `tpe` becomes
            `tpe+slimming`. They join the proposers.
        evaluator: How candidates are scored; None trains them.

    Raises:
        InputError: Something does not exist or cannot be reached.
    """
    space, options = setting.space, options or {}
    _check_asked(proposers, seeds, trials)
    ways = tuple(dict.fromkeys(map(protocol, protocols)))
    check_cap(cap, ways)
    _check_initial(setting, ways)
    _check_file_settings(space)
    if evaluator is not None:
        _check_evaluator(evaluator, space, {**space.study.options, **options})
    if align is not None:
        _check_align(space, align, ways)

    def line(name: str) -> Entry:
        return configured(name, space.study.options, options)[0]

    chosen = _with_starts(set(proposers), warm_start, line)
    _check_served_by(ways, chosen, line)
    if controls:  # those that no protocol of this plan can train would stay without a result
        joining = controls_of(chosen, space, options)
        chosen |= {name for name in joining if not ways or any(line(name).serves(how) for how in ways)}
    if controls == "proxy":
        if not (rivals := proxy_controls(sorted(chosen))):
            raise InputError(
                "--controls proxy gives others the evaluations of a method, and nobody in this search makes any; "
                "add one that does, such as --proposer autoslim"
            )
        chosen |= set(rivals)
    chosen |= {line(name).rivals for name in chosen if line(name).rivals}
    trying = (trials or 1) > 1 or any(line(n).kind == "sampler" or line(n).evaluates for n in chosen)
    if evaluator is not None and not trying:
        raise InputError("--evaluator scores candidates, and nobody here tries any; add --proposer tpe, say")
    _check_options(options, chosen)
    _check_needs(chosen, space, source, line)
    return Plan(
        setting=setting,
        proposers=(*(n for n in PROPOSERS if n in chosen), *sorted(chosen - PROPOSERS.keys())),
        targets=_targets(space, keep, budgets, metric),
        protocols=ways,
        seeds=seeds,
        trials={
            name: trials or (TRIALS if line(name).kind == "sampler" else 1)
            for name in chosen
            if "trials" in line(name).needs
        },
        options=options,
        cap=cap if cap is not None else space.study.cap,
        dense=dense,
        keep_weights=keep_weights,
        source=source,
        align=align,
        evaluator=evaluator,
    )


def _check_evaluator(how: Evaluator, space: SearchSpace, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses an evaluator that cannot score the space's points, or a sampler that trains shorter schedules."""
    how.check(space)
    if how.entry.source != "none" and space.ceiling > 1:
        raise InputError(
            f"evaluator {how.name!r} scores slices of a network, and space {space.name!r} lets layers be wider than "
            "that network; take short-training, or leave the ceiling out"
        )
    for name, settings in options.items():
        if settings.get("halving"):
            raise InputError(
                f"{name}: halving trains shorter schedules, and {how.name!r} scores candidates without any; leave "
                "halving or --evaluator out"
            )


def _check_initial(setting: Setting, protocols: Sequence[Protocol]) -> None:
    """Refuses protocols that start from the initial weights of a network that is given, which nobody knows."""
    names = [how.name for how in protocols if how.weights == "initial"]
    if names and setting.dense_from is not None:
        raise InputError(
            f"protocol {names[0]!r} starts from the weights that the dense network was born with, and those of a "
            "given network are not known; leave it out, or have the network trained with --weights none"
        )


def _check_asked(proposers: Sequence[str], seeds: int, trials: int | None) -> None:
    """Refuses a search by nobody, and numbers of searches and candidates that cannot be meant."""
    for flag, count in (("--seeds", seeds), ("--trials", 1 if trials is None else trials)):
        if not isinstance(count, int) or count < 1:
            raise InputError(f"{flag} must be a whole number of at least 1, not {count}")
    if not proposers:
        raise InputError("nobody proposes; name someone, such as --proposer slimming")


def _targets(
    space: SearchSpace, keep: Sequence[float], budgets: Sequence[str], metric: str | None
) -> tuple[Target, ...]:
    """The budgets that are asked for, largest first; those of the space's study if there are none."""
    targets = [space.target(keep=share, metric=metric) for share in keep]
    targets += [space.target(budget=Target.parse(text), metric=metric) for text in budgets]
    targets = targets or [space.target(keep=share, metric=metric) for share in space.study.keep]
    return tuple(sorted(dict.fromkeys(targets), key=lambda target: -target.value))


def _check_align(
    space: SearchSpace, align: tuple[int, designs.Rounding], protocols: Sequence[Protocol]
) -> None:
    """Refuses an alignment that cannot be meant, and protocols that inherit channels it would change."""
    designs.align(space, space.dense, *align)
    for how in protocols:
        if how.weights != "fresh":
            raise InputError(
                f"protocol {how.name!r} inherits the channels a method kept, and --align changes how many "
                "there are; use one that starts from scratch"
            )


def _check_served_by(
    protocols: Sequence[Protocol], chosen: Collection[str], line: Callable[[str], Entry]
) -> None:
    """Refuses proposers whose points no protocol can train."""
    for name in sorted(chosen):
        if protocols and not any(line(name).serves(how) for how in protocols):
            inherits = ", ".join(how.name for how in protocols)
            raise InputError(
                f"{name!r} proposes shapes without the weights that {inherits} inherits; add a protocol that "
                "starts from scratch, such as --protocol scratch-e"
            )


def _with_starts(names: Collection[str], warm_start: Sequence[str], line: Callable[[str], Entry]) -> set[str]:
    """Proposers, samplers joined with the methods whose points they try first, and those methods.

    Raises:
        InputError: There is no sampler to start.
    """
    chosen = set(names)
    if warm_start:
        cold = {name for name in chosen if line(name).kind == "sampler" and not line(name).starts}
        if not cold:
            raise InputError("--warm-start is for samplers; add one, such as --proposer tpe")
        chosen = chosen - cold | {"+".join((name, *warm_start)) for name in cold}
    return chosen | {start for name in chosen for start in line(name).starts}


def _check_options(options: Mapping[str, Any], chosen: Collection[str]) -> None:
    """Refuses settings of proposers that are not asked.

    Raises:
        InputError: The message names those that are.
    """
    known = {*chosen, *(name.partition("+")[0] for name in chosen)}
    for name in options:
        entry(name)
        if name not in known:
            raise InputError(
                f"--set {name}: {name!r} is not in this search, which asks {', '.join(sorted(chosen))}; add it "
                "with --proposer, or leave its settings out"
            )


def _check_needs(
    chosen: Collection[str], space: SearchSpace, source: Source | None, line: Callable[[str], Entry]
) -> None:
    """Refuses proposers that wait for what nobody in this search finds, and those that cannot serve the space.

    Raises:
        InputError: The message says what to add.
    """
    pruned = {line(name).dimensions[0] for name in chosen if line(name).kind in FINDERS}
    for name in chosen:
        needs, dimension = line(name).needs, line(name).dimensions[0]
        for start in line(name).starts:
            if line(start).dimensions[0] != dimension:
                raise InputError(
                    f"{name!r}: {start!r} finds {line(start).dimensions[0]}, and {dimension} is what is searched; "
                    f"see vary, as in --set {name.partition('+')[0]}.vary={line(start).dimensions[0]}"
                )
        if ANSWERS_OTHERS & set(needs) and dimension not in pruned:
            raise InputError(
                f"{name!r} answers what a pruning method found; add one, such as --proposer {finder_of(dimension)}"
            )
        if "source" in needs and source is None:
            raise InputError(
                f"{name!r} needs a space its shapes come from; use `prunas transfer --from SPACE`"
            )
        check_served(name, space, dimension)


def check_cap(cap: float | None, protocols: Sequence[Protocol]) -> None:
    """Refuses a cap that cannot be meant, or that no protocol would heed.

    Raises:
        InputError: It is below 1 or not finite, or no protocol is Scratch-B without a cap of its own.
    """
    if cap is None:
        return
    if not (finite(cap) and cap >= 1):
        raise InputError(f"--cap must be 1 or more, not {cap}; without any cap: --protocol scratch-b:inf")
    if not any(how.capped for how in protocols):
        names = ", ".join(how.name for how in protocols) or "none"
        raise InputError(
            f"--cap limits the epochs of scratch-b, and the protocols are {names}; add --protocol scratch-b, or "
            "leave the cap out"
        )


def _check_file_settings(space: SearchSpace) -> None:
    """Refuses settings of proposers in a space's file that do not exist or cannot have that value."""
    for name in space.study.options:
        try:
            configured(name, space.study.options)
        except InputError as error:
            raise InputError(f"{space.source or space.name}: proposers.{name}: {error}") from error
