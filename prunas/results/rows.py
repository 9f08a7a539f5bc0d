"""The row of a result: one training as every table, figure and `--json` document sees it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema, with_config

from prunas.costs.counted import Cost
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.names import CHANCE_LEVEL, RowKind
from prunas.tasks.score import Score

__all__ = [
    "FINISHED",
    "Metric",
    "Point",
    "Proposed",
    "SearchCost",
    "Spent",
    "TrainingRow",
    "TrialRow",
    "check_range",
]

Metric = Literal["params", "macs"]
FINISHED = "finished"

Point = Annotated[
    Mapping[str, Any], WithJsonSchema({"type": "object", "required": ["format", "space", "network"]})
]
"""An architecture as JSON values; `Architecture.from_json` checks the rest of it."""

_Count = Annotated[int, Field(ge=0)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_T = TypeVar("_T")


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Proposed:
    """A point as it was proposed, before its widths were aligned.

    Attributes:
        architecture: The point, as JSON values.
        digest: Its digest.
        reached: Its cost.
    """

    architecture: Point = field(hash=False)
    digest: str
    reached: Cost

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {
            "architecture": dict(self.architecture),
            "digest": self.digest,
            "reached": self.reached.to_json(),
        }


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One training of one point.

    Attributes:
        id: Of the run, unique in its store.
        proposer: Who proposed the point.
        kind: What sort of proposer that is; `dense` is the unpruned network itself.
        asked: The budget.
        reached: The cost of the point, which need not be the budget.
        protocol: Initial weights and length, for example `scratch-e`.
        epochs: Passes over the training split, as this run was to make them.
        train_macs: Multiply-accumulates of the whole training, as planned by protocol and recipe.
        search_seed: Of the search that found the point. Rows that share it are compared as pairs.
        train_seed: Of this training.
        status: `finished`, or what happened instead.
        val_score: On the validation split, finite, as the record's `Score` says; None if it was not measured.
        test_score: On the test split after the last epoch, likewise; None if this run is one that must not see
            the test split, or has not ended.
        architecture: Digest of the point.
        folder: Of the run.
        flags: What a reader must know about the point, for example `penalty_not_acted`.
        proposed: The point before its widths were aligned; None in a search that aligns none.
        chance: The best test score that guessing reaches by chance; None where the task gives none.
        pruned_score: On the validation split right after pruning, before any retraining; None of what inherits no
            weights, and in results from before it was measured.
    """

    id: str
    proposer: str
    kind: RowKind
    asked: Target
    reached: Cost
    protocol: str
    epochs: _Count
    train_macs: _Count
    search_seed: int
    train_seed: int
    status: str
    val_score: float | None
    test_score: float | None
    architecture: str
    folder: str
    flags: tuple[str, ...] = ()
    proposed: Proposed | None = None
    chance: float | None = None
    pruned_score: float | None = None

    def all_flags(self, score: Score) -> tuple[str, ...]:
        """The flags of the point, and `chance_level` if its test score cannot be told from guessing.

        Args:
            score: What the scores of the row mean.
        """
        if self.score is None or self.chance is None or score.gain(self.score, self.chance) > 0:
            return self.flags
        return (*self.flags, CHANCE_LEVEL)

    @property
    def score(self) -> float | None:
        """The test score, if the run is finished and has one."""
        return self.test_score if self.status == FINISHED else None

    @property
    def masked(self) -> bool:
        """Whether weights are masked out, so that a dense device gains less than the counts say."""
        cost = self.reached
        return (cost.params, cost.macs) != (cost.dense_params, cost.dense_macs)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        nested = {"asked": self.asked.to_json(), "reached": self.reached.to_json(), "flags": list(self.flags)}
        nested["proposed"] = self.proposed.to_json() if self.proposed else None
        return dataclasses.asdict(self) | nested

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrainingRow":
        """The row `to_json` wrote.

        Raises:
            InputError: A field is missing, unknown, of another type or out of its range; the message names
                the row and the field.
        """
        return _read(_ROW, document, f"result row {document.get('id', '?')}")


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One training that a search rests on.

    Attributes:
        id: Of its run.
        macs: Multiply-accumulates of the training.
        seconds: Its wall time; 0 if it has not finished.
    """

    id: str
    macs: _Count
    seconds: Annotated[float, Field(ge=0)]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCost:
    """What the answers of one search (one proposer, one seed, all its targets) rest on before any final training.

    What answers points of other searches rests on those too: a control that matches a found point, a design, a
    sampler that starts from found points.

    Attributes:
        proposer: Who searched.
        seed: The search seed.
        macs: Multiply-accumulates of all trainings.
        seconds: Wall time of all trainings.
        trainings: How many there are, each counted once.
        duplicates: Proposals whose training was there already; they cost nothing.
        made_with: Settings, classes and versions that decide what was proposed, of samplers.
        rests_on: The trainings; None in a record from before prices held those of other searches.
        targets: The budgets that it answers: what the price is spread over.
        seeds: Search seeds that the trainings belong to, ascending: those of the source for what is transferred.
        complete: Whether all of it is known. What rests on shipped shapes is not.
    """

    proposer: str
    seed: int
    macs: _Count
    seconds: Annotated[float, Field(ge=0)]
    trainings: _Count
    duplicates: _Count = 0
    made_with: str = ""
    rests_on: tuple[Spent, ...] | None = None
    targets: tuple[Target, ...] = ()
    seeds: tuple[int, ...] = ()
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        trainings = None if self.rests_on is None else list(map(dataclasses.asdict, self.rests_on))
        nested = {"rests_on": trainings, "seeds": list(self.seeds)}
        return dataclasses.asdict(self) | nested | {"targets": [each.to_json() for each in self.targets]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "SearchCost":
        """The cost `to_json` wrote.

        Raises:
            InputError: As `TrainingRow.from_json`.
        """
        return _read(_SEARCH_COST, document, f"search cost of {document.get('proposer', '?')}")


@with_config(_STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One candidate that a sampler had trained on the training split, to choose among.

    Attributes:
        id: Of the run; trials of several searches may share it.
        proposer: Who proposed it.
        asked: The budget.
        search_seed: Of the search.
        architecture: Digest of the point as it was proposed.
        reached: Its cost as trained.
        epochs: Passes over the training split.
        train_macs: Multiply-accumulates of the training.
        fraction: `epochs` over those of the recipe, as it was asked for.
        val_score: On the validation split, finite, as the record's `Score` says; None if the training failed.
        duplicate: Whether this search had proposed the same training before.
        folder: Of the run.
        status: `finished`, or what happened instead.
        error: Why, in one line.
        evaluator: What scored it, as `Evaluator.label` says; "": a training of `fraction` of the schedule.
    """

    id: str
    proposer: str
    asked: Target
    search_seed: int
    architecture: str
    reached: Cost
    epochs: _Count
    train_macs: _Count
    fraction: Annotated[float, Field(gt=0, le=1)]
    val_score: float | None
    duplicate: bool
    folder: str
    status: str = FINISHED
    error: str = ""
    evaluator: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        nested = {"asked": self.asked.to_json(), "reached": self.reached.to_json()}
        return dataclasses.asdict(self) | nested

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrialRow":
        """The row `to_json` wrote.

        Raises:
            InputError: As `TrainingRow.from_json`.
        """
        return _read(_TRIAL_ROW, document, f"trial {document.get('id', '?')}")


def check_range(row: TrainingRow | TrialRow, score: Score) -> None:
    """Refuses scores that there cannot be.

    Args:
        row: Its scores are looked at.
        score: What they mean.

    Raises:
        InputError: One lies outside of the range; the message names the row and the field.
    """
    what = f"result row {row.id}" if isinstance(row, TrainingRow) else f"trial {row.id}"
    for name in ("val_score", "test_score", "chance", "pruned_score"):
        value = getattr(row, name, None)
        if value is not None and not score.low <= value <= score.high:
            bounds = f"from {score.low:g} to {score.high:g}"
            raise InputError(f"{what}: {name}: {value:g} is no {score.name} ({bounds}); {_REPEAT}")


_REPEAT = "it is damaged or comes from another version of prunas, so delete its folder and repeat the command"
_ROW = TypeAdapter(TrainingRow)
_TRIAL_ROW = TypeAdapter(TrialRow)
_SEARCH_COST = TypeAdapter(SearchCost)


def _read(adapter: TypeAdapter[_T], document: Mapping[str, Any], what: str) -> _T:
    # Through JSON text: only there does pydantic's strict mode take lists for tuples.
    try:
        return adapter.validate_json(json.dumps(dict(document)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{what}: {field}: {first['msg']}; {_REPEAT}") from error
