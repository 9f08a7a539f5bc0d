"""A plan written down, and the command that repeats it. Torch-free."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from prunas.costs.target import Target
from prunas.data import data_folder
from prunas.experiments.plan import TRIALS, Plan, controls_of
from prunas.experiments.transfer import designs_of
from prunas.proposers.registry import configured
from prunas.proposers.table import PROPOSERS
from prunas.protocols import SCRATCH
from prunas.recipe import RECIPES, Recipe
from prunas.spaces.reference import PATH
from prunas.spaces.space import SearchSpace
from prunas.surgery.given import Weights
from prunas.works.trainings import Setting

__all__ = ["PlanDocument", "command_of", "plan_document"]


class SourceDocument(TypedDict):
    """Where the shapes come from that a search carries over."""

    space: str
    proposer: str
    shipped: bool


class PlanDocument(TypedDict, total=False):
    """What a record keeps of its plan; nothing where records of different plans are joined."""

    space: str
    data: str
    recipe: Mapping[str, Any]
    dense_training: str
    task: Mapping[str, Any]
    weights: Mapping[str, Any]
    proposers: list[str]
    targets: list[Target]
    protocols: list[str]
    seeds: int
    trials: Mapping[str, int]
    options: Mapping[str, Mapping[str, Any]]
    cap: float | None
    dense: bool
    keep_weights: bool
    align: list[int | str] | None
    source: SourceDocument | None
    evaluator: Mapping[str, Any]
    command: list[str] | None


_FLAGS = {
    "epochs": "--epochs",
    "batch": "--batch",
    "lr": "--lr",
    "images": "--images",
    "precision": "--precision",
}


def plan_document(plan: Plan) -> dict[str, Any]:
    """Everything that decides a search, as JSON values; the same for the same search on every machine."""
    setting, source = plan.setting, plan.source
    return {
        "space": setting.space.name,
        "data": setting.data,
        "recipe": setting.recipe.to_json(),
        "dense_training": setting.dense_training.name,
        **({} if setting.task.implied else {"task": setting.task.to_json()}),
        **({} if setting.dense_from is None else {"weights": setting.dense_from.to_json()}),
        "proposers": list(plan.proposers),
        "targets": [target.to_json() for target in plan.targets],
        "protocols": [protocol.name for protocol in plan.protocols],
        "seeds": plan.seeds,
        "trials": dict(plan.trials),
        "options": {name: dict(options) for name, options in plan.options.items()},
        "cap": plan.cap,
        "dense": plan.dense,
        "keep_weights": plan.keep_weights is True,  # what is dropped or small changes no result
        "align": list(plan.align) if plan.align else None,
        **({} if plan.evaluator is None else {"evaluator": plan.evaluator.to_json()}),
        "source": None
        if source is None
        else {"space": source.space.name, "proposer": source.proposer, "shipped": source.shipped},
    }


def command_of(plan: Plan) -> list[str] | None:
    """The words of `prunas` that carry out this plan again, but for --out; None if only Python can say it."""
    spaces = [plan.setting.space] + ([plan.source.space] if plan.source else [])
    recipe = _recipe(plan.setting.recipe, plan.setting.space)
    if plan.setting.live or not all(map(_typed, spaces)) or recipe is None or not _in_file(plan.setting):
        return None
    head = _search(plan) if plan.source is None else _transfer(plan)
    if head is None:
        return None
    words = [*head, *_targets(plan)]
    words += [
        "--protocol",
        ",".join(protocol.name for protocol in plan.protocols),
        "--seeds",
        str(plan.seeds),
    ]
    for name, options in plan.options.items():
        for field, value in options.items():
            words += ["--set", f"{name}.{field}={json.dumps(value)}"]
    words += [] if plan.dense else ["--no-dense"]
    words += _weights(plan.setting)
    words += recipe
    data = plan.setting.data_reference
    if data is not None and data.name != "digits" and (plan.setting.root is not None or not data.by_path):
        words += ["--data", str(data_folder(plan.setting.root))]
    return words


def _in_file(setting: Setting) -> bool:
    """Whether the space's file names this task, with this loss and this score, and these data."""
    study, task, data = setting.space.study, setting.task, setting.data_reference
    table = dict(study.score)
    written = (study.task, study.loss, table.pop("function", ""))
    named = (task.name, task.loss.name if task.loss else "", task.score.name if task.score else "")
    given = ("", {}) if data is None else (data.name, dict(data.options))
    asked = study.data.rpartition("/")[2] if PATH.fullmatch(study.data) else study.data
    return (
        tuple(path.rpartition("/")[2] for path in written) == named
        and table == task.described
        and given == (asked, dict(study.data_options))
    )


def _typed(space: SearchSpace) -> str:
    """What a user types to mean this space; "" if it was made in Python."""
    return space.known_as if isinstance(space.known_as, str) and space.known_as else space.source


def _weights(setting: Setting) -> list[str]:
    """What names the given weights of the dense network where the space's own file does not."""
    if (named := setting.space.study.weights) and setting.dense_from is None:
        return ["--weights", "none"]
    if setting.dense_from is None or (
        named and Weights.of(named, Path(setting.space.source).parent) == setting.dense_from
    ):
        return []
    return ["--weights", str(setting.dense_from)]


def _search(plan: Plan) -> list[str] | None:
    setting, space = plan.setting, plan.setting.space
    words = ["search", _typed(space), *_proposers(plan)]
    usual = {
        name: TRIALS if configured(name, space.study.options, plan.options)[0].kind == "sampler" else 1
        for name in plan.trials
    }
    if dict(plan.trials) != usual:
        numbers = set(plan.trials.values())
        if len(numbers) > 1:
            return None
        words += ["--trials", str(numbers.pop())]
    if plan.cap is not None and plan.cap != space.study.cap:
        words += ["--cap", f"{plan.cap:g}"]
    if setting.dense_training != SCRATCH:
        words += ["--dense-training", setting.dense_training.name]
    if plan.evaluator is not None:
        words += ["--evaluator", plan.evaluator.name]
        for name, value in plan.evaluator.options.items():
            words += ["--evaluator-set", f"{name}={value}"]
    if plan.keep_weights is not None:
        words += ["--keep-weights" if plan.keep_weights else "--no-keep-weights"]
    return words + (["--align", ":".join(map(str, plan.align))] if plan.align else [])


def _transfer(plan: Plan) -> list[str] | None:
    source, setting = plan.source, plan.setting
    assert source is not None
    plain = plan.cap == setting.space.study.cap and setting.dense_training == SCRATCH
    told = all(target.keep is not None for target in plan.targets) and set(plan.trials.values()) <= {1}
    if not (plain and told and source.proposer) or plan.keep_weights is not None or plan.align:
        return None
    words = ["transfer", "--from", _typed(source.space), "--to", _typed(setting.space)]
    words += ["--proposer", source.proposer]
    words += ["--from-found"] if source.shipped else []
    carried = {source.proposer, *designs_of(source.proposer)}
    joining = controls_of(carried, plan.setting.space, plan.options)
    names = set(plan.proposers)
    if not joining <= names:
        words += ["--no-controls"]
        joining = set()
    beside = [name for name in plan.proposers if name not in carried | joining]
    return words + (["--beside", ",".join(beside)] if beside else [])


def _proposers(plan: Plan) -> list[str]:
    """Names and whether controls join them, the shorter way where both mean the same."""
    names, every = set(plan.proposers), {name for name, line in PROPOSERS.items() if line.joins}
    given = names - every
    if given and names == given | controls_of(given, plan.setting.space, plan.options):
        return ["--proposer", ",".join(_ordered(plan, given))]
    return ["--proposer", ",".join(plan.proposers), "--no-controls"]


def _ordered(plan: Plan, names: Iterable[str]) -> list[str]:
    chosen = set(names)
    return [name for name in plan.proposers if name in chosen]


def _targets(plan: Plan) -> list[str]:
    keeps = [repr(target.keep) for target in plan.targets if target.keep is not None]
    budgets = [str(target.value) for target in plan.targets if target.keep is None]
    words = ["--keep", ",".join(keeps)] if keeps else []
    words += ["--budget", ",".join(budgets)] if budgets else []
    return [*words, "--metric", plan.targets[0].metric]


def _recipe(recipe: Recipe, space: SearchSpace) -> list[str] | None:
    """The fewest flags that make this recipe of the space's own or of a named one; None if there are none."""
    parameters = space.cost(space.dense).params
    ways: list[list[str]] = []
    if (usual := space.study.default_recipe()).name == recipe.name:
        ways.append(_changes(recipe, usual, parameters))
    if recipe.name in RECIPES:
        ways.append(["--recipe", recipe.name, *_changes(recipe, RECIPES[recipe.name], parameters)])
    return min(ways, key=len, default=None)


def _changes(recipe: Recipe, named: Recipe, parameters: int) -> list[str]:
    """The flags that make a recipe of another one of its name, settled for so many parameters."""
    before = dataclasses.asdict(named.settled(parameters))
    changes = {field: value for field, value in dataclasses.asdict(recipe).items() if value != before[field]}
    if named.replace(**changes).settled(parameters) != recipe:
        changes["label_smoothing_from"] = 0
    words: list[str] = []
    for field, value in changes.items():
        if field == "channels_last":
            words += ["--channels-last" if value else "--channels-first"]
        elif field in _FLAGS:
            words += [_FLAGS[field], str(value)]
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["--recipe-set", f"{field}={text}"]
    return words
