"""The plan of `shrink`: which shapes, which ways to retrain them, in which rounds, within which budget.

Rounds in the manner of successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943): every shape is scored
right after pruning, which costs no training; the best few are retrained shortly in every way that inherits
weights; the best pairs of a shape and a way are retrained in full, and the best of those by validation is picked.
What people do first, uniform widths with the channels of the largest weights, fine-tuned, always goes through to
the end as the control. Ways from scratch would lose any short comparison, so that they begin in the last round,
with the best shape and as many epochs as the others.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunas.errors import InputError
from prunas.experiments.plan import Plan, make_plan
from prunas.experiments.preflight import asks_penalty
from prunas.names import FINDERS
from prunas.proposers.registry import entry
from prunas.proposers.serving import check_served, refusal
from prunas.proposers.table import PROPOSERS
from prunas.protocols import Protocol, finetuning, protocol
from prunas.results.shrunk import Round
from prunas.spaces.space import SearchSpace
from prunas.works.trainings import Setting

__all__ = [
    "CONTROL",
    "WAYS",
    "Allotment",
    "ShrinkPlan",
    "allot",
    "make_shrink_plan",
    "parsed_time",
]

CONTROL = "l1"
"""Who proposes the control: uniform widths, with the channels of the largest weights."""

MATCHED = "taper"
"""A shape without a method's hand, matched to what the methods found."""

WAYS = ("finetune", "finetune-large", "finetune-large+distill", "finetune-rewound", "scratch-e")
"""Ways to retrain, the plainest first."""

RUNGS = ((3, 3, True), (2, 2, True), (2, 1, False), (1, 1, False))
"""From the richest plan to the poorest: shapes retrained shortly, pairs retrained in full, ways from scratch."""

SHORT = 5
"""A short training is so many times shorter than a full one."""

PENALTY_SHARE = 0.25
"""Largest share of the budget that trainings with a penalty may take, unless the user names their method."""

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """How a budget is spent on retraining.

    Attributes:
        shapes: Shapes in the short round.
        short: Epochs of a short training; 0 without a short round.
        finalists: Pairs of a shape and a way that are retrained in full.
        scratch: Whether ways from scratch join the last round.
        epochs: Of a full training.
    """

    shapes: int
    short: int
    finalists: int
    scratch: bool
    epochs: int

    def trainings(self, ways: int, fresh: int) -> tuple[int, int]:
        """Trainings of the short round, and of the full one with its control, at most.

        Args:
            ways: Ways that inherit weights.
            fresh: Ways from scratch.
        """
        extra = fresh if self.scratch else 0
        return (self.shapes * ways if self.short else 0), self.finalists + 1 + extra

    def total(self, ways: int, fresh: int) -> int:
        """Epochs of all trainings together, at most."""
        short, full = self.trainings(ways, fresh)
        return short * self.short + full * self.epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkPlan:
    """Everything that decides what `shrink` does.

    Attributes:
        search: Who proposes shapes at the one target; no training of its own but those with a penalty.
        ways: Ways to retrain that inherit weights, without epochs of their own.
        fresh: Ways from scratch.
        allotment: How many of what.
        budget: Epochs that may be spent, penalties included; None: as many as the usual lengths take.
        seed: Of the retraining. Methods draw with seed 0: all seeds share one given network.
        penalised: Those of the proposers that train with a penalty.
    """

    search: Plan
    ways: tuple[str, ...]
    fresh: tuple[str, ...]
    allotment: Allotment
    budget: float | None
    seed: int
    penalised: tuple[str, ...]

    @property
    def setting(self) -> Setting:
        """Space, recipe, data and weights."""
        return self.search.setting

    @property
    def share(self) -> float:
        """Target over the dense network, in the metric of the target."""
        space, target = self.setting.space, self.search.targets[0]
        return target.value / space.measure(space.dense, target.metric)

    @property
    def epochs(self) -> int:
        """Passes of all retraining together, at most."""
        return self.allotment.total(len(self.ways), len(self.fresh))

    @property
    def passes(self) -> float:
        """Forward passes of the smaller network that an image costs in all retraining together, at most."""

        def of(name: str) -> float:
            return self.way(name, 1).forward_passes(self.share)

        plan, inheriting = self.allotment, [of(way) for way in self.ways]
        short = plan.shapes * plan.short * sum(inheriting)
        full = plan.finalists * max(inheriting) + inheriting[0] + sum(map(of, self.fresh))
        return short + plan.epochs * full

    def way(self, name: str, epochs: int) -> Protocol:
        """A way to retrain that lasts so many epochs."""
        return protocol(f"{name}:{epochs}")

    @property
    def rounds(self) -> tuple[Round, ...]:
        """What will be done, in order."""
        allotment, names = self.allotment, ", ".join(self.search.proposers)
        short, full = allotment.trainings(len(self.ways), len(self.fresh))
        penalties = len(self.penalised)
        penalty_epochs = self.setting.recipe.epochs if penalties else 0
        first = f"prune by {names}; score every shape on validation as it is, without retraining"
        if penalties:
            first += f"; {', '.join(self.penalised)} fine-tunes the dense network with its penalty first"
        rounds = [Round(name="prune", trainings=penalties, epochs=penalty_epochs, does=first)]
        if allotment.short:
            does = f"retrain the best {allotment.shapes} shapes shortly by {', '.join(self.ways)}"
            rounds.append(Round(name="short", trainings=short, epochs=allotment.short, does=does))
        best = f"the best {allotment.finalists}" if allotment.short else "every shape and way"
        does = f"retrain {best} in full, and as control {CONTROL} (uniform widths) by {self.ways[0]}"
        if allotment.scratch and self.fresh:
            does += f"; the best shape also by {', '.join(self.fresh)}"
        rounds.append(Round(name="full", trainings=full, epochs=allotment.epochs, does=does))
        tested = "pick the best by validation; test it, the control and the given network once"
        rounds.append(Round(name="test", trainings=0, epochs=0, does=tested))
        return tuple(rounds)


def allot(shapes: int, ways: int, fresh: int, *, usual: int, longest: int, budget: float | None) -> Allotment:
    """The richest plan that leaves full trainings their usual length, within a budget.

    Args:
        shapes: Shapes there are.
        ways: Ways that inherit weights; at least 1.
        fresh: Ways from scratch.
        usual: Epochs of a full training without a budget.
        longest: Epochs of a full training that more budget does not exceed.
        budget: Epochs of all trainings together; None: what the richest plan takes at the usual length.

    Raises:
        InputError: The budget does not suffice for any plan.
    """
    lengths = [usual] if budget is None else list(range(max(usual, longest), 0, -1))
    for most, finalists, scratch in RUNGS:
        made = [
            _rung(min(most, shapes), ways, finalists, scratch and fresh > 0, epochs) for epochs in lengths
        ]
        affordable = [plan for plan in made if budget is None or plan.total(ways, fresh) <= budget]
        poorest = (most, finalists, scratch) == RUNGS[-1]
        if affordable and (affordable[0].epochs >= usual or poorest):
            return affordable[0]
    least = _rung(1, ways, 1, False, 1).total(ways, fresh)
    raise InputError(
        f"a budget of {max(0, int(budget or 0))} epochs is too small, for the shortest plan takes {least}; give "
        f"--epochs {least} or more, more time with --for, or name fewer ways with --protocol"
    )


def _rung(shapes: int, ways: int, finalists: int, scratch: bool, epochs: int) -> Allotment:
    pairs = shapes * ways
    short = max(1, epochs // SHORT) if pairs > finalists else 0
    return Allotment(
        shapes=shapes, short=short, finalists=min(finalists, pairs), scratch=scratch, epochs=epochs
    )


def make_shrink_plan(
    setting: Setting,
    *,
    keep: float | None = None,
    budget: str | None = None,
    metric: str | None = None,
    proposers: Sequence[str] = (),
    protocols: Sequence[str] = (),
    epochs: float | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> ShrinkPlan:
    """The plan of a shrinking.

    Args:
        setting: Space, recipe, data and given weights.
        keep: The target as a fraction of the dense network, in (0, 1).
        budget: Or as a number, such as `1.2M`.
        metric: What the target counts; the space's own by default.
        proposers: Who proposes; by default every pruning method of widths that the network allows.
        protocols: Ways to retrain, without epochs; by default all of `WAYS` that there are.
        epochs: Passes of all trainings together; an epoch of the dense network counts as 1 / keep of them.
        seed: Of the retraining.
        options: Settings of proposers by name.

    Raises:
        InputError: Something does not exist, cannot be reached or does not fit the budget.
    """
    space = setting.space
    _check_setting(setting)
    if (keep is None) == (budget is None):
        raise InputError(
            "shrink needs one target; give --keep, such as --keep 0.5, or --budget, such as 1.2M"
        )
    if keep is not None and not 0 < keep < 1:
        raise InputError(f"--keep must be above 0 and below 1, the share that is kept, not {keep:g}")
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"--seed must be a whole number from 0, not {seed!r}")
    if space.ceiling > 1:
        raise InputError(
            f"space {space.name!r} lets layers be wider than the given network ([vary] ceiling = "
            f"{space.ceiling:g}), and shrink inherits its weights; leave the ceiling at 1, or search and train "
            "from scratch"
        )
    ways, fresh = _ways(protocols)
    check_served(CONTROL, space)
    names = tuple(dict.fromkeys((CONTROL, *proposers))) if proposers else _fitting(space)
    for name in names:
        _check_proposer(name)

    def searched(chosen: Sequence[str]) -> Plan:
        return make_plan(
            setting,
            chosen,
            keep=[] if keep is None else [keep],
            budgets=[] if budget is None else [budget],
            metric=metric,
            protocols=(),
            seeds=1,
            options={name: of for name, of in (options or {}).items() if name in chosen},
            controls=False,
            dense=False,
        )

    search = searched(names)
    target = search.targets[0]
    share = target.value / space.measure(space.dense, target.metric)
    if share >= 1:
        raise InputError(
            f"--budget {target.label} of {target.metric} is no less than the network has already"
        )
    penalised = tuple(name for name in names if "dense" in entry(name).needs and asks_penalty(search, name))
    penalty = setting.recipe.epochs / share
    if not proposers:
        room = 0.0 if epochs is None else PENALTY_SHARE * epochs
        affordable = penalised[: int(room // penalty)]
        names = tuple(name for name in names if name not in penalised or name in affordable)
        search, penalised = searched(names), affordable
    left = None if epochs is None else epochs - penalty * len(penalised)
    allotment = allot(
        len(names),
        len(ways),
        len(fresh),
        usual=finetuning(setting.recipe, space)[0],
        longest=setting.recipe.epochs,
        budget=left,
    )
    if options and (unknown_names := [name for name in options if name not in names]):
        raise InputError(
            f"--set {unknown_names[0]}: it proposes nothing here; {', '.join(names)} do, or add --proposer"
        )
    return ShrinkPlan(
        search=search,
        ways=ways,
        fresh=fresh if allotment.scratch else (),
        allotment=allotment,
        budget=epochs,
        seed=seed,
        penalised=penalised,
    )


def _check_setting(setting: Setting) -> None:
    """Refuses a setting in which nothing is given, or nothing can be picked."""
    if setting.dense_from is None:
        raise InputError(
            "shrink starts from a trained network; give its weights (--weights FILE), or search shapes for "
            "training from scratch with `prunas search`"
        )
    if setting.images["train+val"] <= setting.images["train"]:
        raise InputError(
            f"data set {setting.data!r} has no validation split, by which shrink picks; give it one (the "
            "test split is met once, after the choice)"
        )


def _ways(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ways to retrain: those that inherit weights, and those from scratch.

    Raises:
        InputError: One does not exist or its length is not a number of epochs, or none inherits weights.
    """
    chosen = dict.fromkeys(names or WAYS)
    made = {}
    for name in chosen:
        if ":" in name:
            raise InputError(
                f"--protocol {name}: epochs come from the budget; leave out :{name.partition(':')[2]}"
            )
        protocol(name)  # refuses an unknown one with the nearest names
        if not _takes_epochs(name):
            raise InputError(
                f"--protocol {name}: its length is not a number of epochs that a budget could give; there are: "
                f"{', '.join(WAYS)}"
            )
        made[name] = protocol(f"{name}:1")
    inheriting = tuple(name for name, how in made.items() if how.weights == "sliced")
    fresh = tuple(name for name, how in made.items() if how.weights == "fresh")
    if not inheriting:
        raise InputError("--protocol: none of these inherits the given weights; add finetune")
    return inheriting, fresh


def _takes_epochs(name: str) -> bool:
    """Whether a way to retrain lasts as many epochs as it is given."""
    try:
        return protocol(f"{name}:1").epochs == 1
    except InputError:
        return False


def _fitting(space: SearchSpace) -> tuple[str, ...]:
    """The pruning methods of widths that a network allows, and the shape that is matched to what they find."""
    sliced = protocol(WAYS[0])
    names = [
        name
        for name, line in PROPOSERS.items()
        if line.kind in FINDERS
        and line.dimensions[0] == "width"
        and line.serves(sliced)
        and refusal(name, space) is None
    ]
    return (*names, MATCHED)


def _check_proposer(name: str) -> None:
    line = entry(name)
    if line.dimensions[0] != "width":
        raise InputError(
            f"--proposer {name}: it decides {line.dimensions[0]}, and shrink narrows widths; use `prunas search`"
        )
    if line.kind == "sampler":
        raise InputError(
            f"--proposer {name}: its trials are trained from scratch, and shrink keeps given weights; use "
            "`prunas search`"
        )


def parsed_time(text: str | float) -> float:
    """Seconds of `2h`, `30m`, `1h30m`, `45s`, or of a number of seconds.

    Raises:
        InputError: It is no length of time above 0.
    """
    if isinstance(text, int | float):
        seconds = float(text)
    else:
        match = _TIME.fullmatch(text.replace(" ", ""))
        hours, minutes, rest = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
        seconds = 3600 * hours + 60 * minutes + rest
    if not 0 < seconds < float("inf"):
        raise InputError(f"--for {text!r} is no length of time; write 2h, 30m or 1h30m")
    return seconds
