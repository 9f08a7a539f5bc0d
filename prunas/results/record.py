"""What a search leaves behind: one value, and the JSON document that it is written as. Torch-free.

The run folders hold the trainings; a record says which of them belong together, who proposed what, and what it
cost. A field is declared here once: its key in the document, how it is read and checked, and how records of one
setting are joined all follow from its declaration.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic.fields import FieldInfo

from prunas import SCHEMA
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.results.rows import SearchCost, TrainingRow, TrialRow, check_range
from prunas.tasks.score import Score

__all__ = ["Record"]

_Rows = tuple[TrainingRow, ...]
_Trials = tuple[TrialRow, ...]


def _each_once(before: tuple[Any, ...], after: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(before + after))


def _rows_once(before: _Rows, after: _Rows) -> _Rows:
    """Rows without repetitions; the later one wins, for it may be finished by now."""
    rows = {(r.id, r.proposer, r.asked, r.search_seed, r.flags): r for r in before + after}
    return tuple(rows.values())


def _longest_searches(*records: _Trials) -> _Trials:
    """The trials of every search once: where both records hold it, those of the one that tried most."""
    longest: dict[tuple[str, int, Target], list[TrialRow]] = {}
    for trials in records:
        searches: dict[tuple[str, int, Target], list[TrialRow]] = {}
        for trial in trials:
            searches.setdefault((trial.proposer, trial.search_seed, trial.asked), []).append(trial)
        for key, search in searches.items():
            longest[key] = max(longest.get(key, []), search, key=len)
    return tuple(trial for search in longest.values() for trial in search)


def _same_plan(before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any]:
    """Records of different plans have none."""
    return after if before == after else {}


@dataclass(frozen=True, slots=True)
class _Join:
    """How a field's values in two records of one setting become one."""

    values: Callable[[Any, Any], Any]


def _score(value: Any) -> Any:
    return Score.from_json(value) if isinstance(value, Mapping) else value


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A search's outcome, or several of one setting joined.

    Attributes:
        space: Name of the space.
        data: Name of the data set.
        recipe: Name of the recipe.
        epochs: Its epochs.
        setting: Digest of recipe, data and network: only records that share it may share a table.
        score: What the scores of its rows mean.
        plan: What was asked, and the command that asks it again; see `prunas.experiments.repeat`. Empty where
            different searches are joined.
        rows: One per final training.
        dense: Trainings of the dense network.
        costs: What finding the points cost.
        trials: What samplers tried, search by search, in the order of proposals.
        notes: What a reader should know about the data.
        problems: Why something is missing, one line each.
    """

    space: str
    data: str
    recipe: str
    epochs: int
    setting: str
    score: Annotated[SkipValidation[Score], BeforeValidator(_score)]
    plan: Annotated[Mapping[str, Any], _Join(_same_plan)] = field(default_factory=dict, hash=False)
    rows: Annotated[_Rows, Field(alias="runs"), _Join(_rows_once)] = ()
    dense: Annotated[_Rows, _Join(_rows_once)] = ()
    costs: Annotated[tuple[SearchCost, ...], Field(alias="cost"), _Join(_each_once)] = ()
    trials: Annotated[_Trials, _Join(_longest_searches)] = ()
    notes: Annotated[tuple[str, ...], _Join(_each_once)] = ()
    problems: Annotated[tuple[str, ...], _Join(_each_once)] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, by the keys of the document."""
        return {key: _plain(getattr(self, name)) for name, key in _KEYS.items()}

    @classmethod
    def from_document(cls, document: Any, source: Path) -> "Record":
        """The record in a stored document. What a document says beside its record is left out.

        Args:
            document: JSON values, as `prunas.statistics.tables.document` makes them.
            source: The file they come from, for messages.

        Raises:
            InputError: It was written by another version, or is damaged.
        """
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InputError(
                f"{source} was written by another version of prunas; repeat the search to replace it"
            )
        values = {key: document[key] for key in _KEYS.values() if key in document}
        try:
            # Through JSON text: only there does pydantic's strict mode take lists for tuples.
            record = _RECORD.validate_json(json.dumps(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"{source} is damaged ({where}: {first['msg']}); repeat the search to replace it"
            ) from error
        rows: tuple[TrainingRow | TrialRow, ...] = (*record.rows, *record.dense, *record.trials)
        for row in rows:
            check_range(row, record.score)
        return record

    def joined(self, later: "Record") -> "Record":
        """This record and a later one of the same setting; what both hold is counted once."""
        values = {
            name: join.values(getattr(self, name), getattr(later, name)) for name, join in _JOINS.items()
        }
        return replace(later, **values)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


_RECORD = TypeAdapter(Record)
_DECLARED: Mapping[str, tuple[Any, ...]] = {
    name: getattr(annotation, "__metadata__", ())
    for name, annotation in get_type_hints(Record, include_extras=True).items()
}
_JOINS = {name: each for name, parts in _DECLARED.items() for each in parts if isinstance(each, _Join)}
_KEYS = {
    name: next((each.alias for each in parts if isinstance(each, FieldInfo) and each.alias), name)
    for name, parts in _DECLARED.items()
}
"""The key in the document of every field."""
