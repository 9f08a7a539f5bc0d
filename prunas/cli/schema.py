"""The JSON schema of what every command prints with `--json`, made from the types that are printed.

`python -m prunas.cli.schema` writes `prunas/schema.json` anew. A value whose `to_json` is all its fields describes
itself; where a document holds more or less than its value, the difference is stated here.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import GenericAlias, MappingProxyType
from typing import Annotated, Any, Literal, NotRequired, get_type_hints

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from typing_extensions import TypedDict

import prunas
from prunas.cli.doctor import Check
from prunas.cli.documents import PresetRow, ProposerRow, RunRow, SpaceRow, TaskRow
from prunas.costs.counted import Cost
from prunas.costs.target import Target
from prunas.experiments.forecast import DryRow
from prunas.experiments.optuna_studies import Written
from prunas.experiments.repeat import PlanDocument
from prunas.files import write_atomic
from prunas.inspection.draft import Draft
from prunas.inspection.export import Exported
from prunas.inspection.latency import Latency
from prunas.inspection.show import ShowDocument
from prunas.results.record import Record
from prunas.results.rows import Point, Proposed, TrainingRow
from prunas.results.shrunk import Round, ShrinkRecord
from prunas.statistics.advice import Advice, Observation
from prunas.statistics.claims import Verdict
from prunas.statistics.patterns import PatternSpread
from prunas.statistics.proxy import Proxy
from prunas.statistics.retraining import Crossing
from prunas.statistics.summary import Difference, Line, Summary
from prunas.statistics.widths import Agreement
from prunas.tasks.score import Score

__all__ = ["COMMANDS", "FILE", "schema", "schema_text"]

FILE = Path(prunas.__file__).parent / "schema.json"


def _fields(value: type) -> dict[str, Any]:
    """The type of every field of a dataclass, a named tuple or a TypedDict."""
    hints = get_type_hints(value, include_extras=True)
    names = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else hints
    return {name: hints[name] for name in names}


def _document(
    name: str,
    value: type | None = None,
    *,
    without: Collection[str] = (),
    more: Mapping[str, Any] = MappingProxyType({}),
    optional: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """The type of a document that differs from a value.

    Args:
        name: Of the definition.
        value: Its fields are in the document.
        without: Those that are not.
        more: Further fields, and those of another type than in the value.
        optional: Further fields that need not be there.
    """
    fields = {} if value is None else _fields(value)
    kept = {field: kind for field, kind in fields.items() if field not in without}
    further = {field: NotRequired[kind] for field, kind in optional.items()}
    made: Any = TypedDict(name, {**kept, **more, **further})  # type: ignore[misc]  # a name made here
    made.__doc__ = value.__doc__ if value else None
    return made


def _many(document: Any) -> Any:
    """The type of a list of documents whose type is made here."""
    return GenericAlias(list, (document,))


_VERSION: dict[str, Any] = {"schema": Literal[prunas.SCHEMA]}
_SUMMARY = _fields(Summary)
_SUMMARY_IF_TESTED = {name: kind if name == "n" else kind | None for name, kind in _SUMMARY.items()}
_SETTING = {"setting": str}  # for figures of several settings are printed together

_NineFrequencies = Annotated[list[float], Field(min_length=9, max_length=9)]


class StageFrequencies(TypedDict):
    """Keep frequencies of the positions of the 3x3 kernels of one stage, row by row."""

    stage: int
    mean: _NineFrequencies
    std: _NineFrequencies
    contrast: Summary


_Study = _document("Study", Written)
_Line = _document(
    "Line",
    Line,
    without=["score"],
    more=_SUMMARY_IF_TESTED | {"flags": Mapping[str, Annotated[int, Field(ge=1)]]},
)
_Difference = _document("Difference", Difference, without=["summary"], more=_SUMMARY)
_Latency = _document("Latency", Latency, more={"precision": Literal["fp32"]})
_Agreement = _document("Agreement", Agreement, optional=_SETTING)
_Crossing = _document("Crossing", Crossing, more={"sentence": str} | _SETTING)
_Pattern = _document(
    "PatternSpread",
    PatternSpread,
    without=["mean", "std", "by_stage"],
    more={"stages": list[StageFrequencies]},
    optional=_SETTING,
)
_Proxy = _document("Proxy", Proxy, more=_SETTING)
_Observation = _document("Observation", Observation, more={"verdict": Verdict})
_Search = _document(
    "Search",
    Record,
    more={
        **_VERSION,
        "score": Score,
        "plan": PlanDocument,
        "table": _many(_Line),
        "differences": _many(_Difference),
        "figures": list[str],
        "trained": int,
    },
    optional={
        "latency": _many(_Latency),
        "agreement": _many(_Agreement),
        "patterns": _many(_Pattern),
    },
)
_PLOTTED = {
    "agreement": _many(_Agreement),
    "patterns": _many(_Pattern),
    "crossings": _many(_Crossing),
    "proxies": _many(_Proxy),
}
_DESIGN: dict[str, Any] = {
    "space": str,
    "architecture": Point,
    "digest": str,
    "reached": Cost,
    "file": str,
}
_SHRINK_PLAN: dict[str, Any] = {
    "space": str,
    "asked": Target,
    "proposers": list[str],
    "protocols": list[str],
    "rounds": list[Round],
    "trainings": int,
    "epochs": int,
    "macs": int,
}
_ASKED = {"space": str, "budget": int, "keep": float, "epochs": int, "evidence": _many(_Observation)}

COMMANDS: Mapping[str, Any] = {
    "search": _Search,
    "search --dry-run": _document(
        "DryRun", more=_VERSION | {"trainings": int, "macs": int, "runs": list[DryRow]}
    ),
    "shrink": _document(
        "Shrink",
        ShrinkRecord,
        more={**_VERSION, "score": Score, "architecture": Point, "files": list[str]},
        optional={"latency": _Latency},
    ),
    "shrink --dry-run": _document("ShrinkPlan", more=_VERSION | _SHRINK_PLAN),
    "train": _document("Train", TrainingRow, more=_VERSION | {"space": str, "trained": int}),
    "design": _document("Design", more=_VERSION | _DESIGN, optional={"proposed": Proposed}),
    "show": _document("Show", ShowDocument, more=_VERSION, optional={"latency": _Latency}),
    "show --code": _document("ShowCode", more=_VERSION | {"space": str, "digest": str, "code": str}),
    "export": _document("Export", Exported, more=_VERSION | {"file": str}),
    "new": _document("New", Draft, without=["text"], more=_VERSION | {"file": str}),
    "spaces": list[SpaceRow],
    "proposers": list[ProposerRow],
    "presets": list[PresetRow],
    "tasks": list[TaskRow],
    "runs": list[RunRow],
    "compare": _document("Compare", more=_VERSION | {"records": _many(_Search)}),
    "plot": _document("Plot", more=_VERSION | {"figures": list[str]}, optional=_PLOTTED),
    "doctor": _document("Doctor", more=_VERSION | {"checks": list[Check]}),
    "report": _document("Report", more=_VERSION | {"file": str, "runs": int, "findings": list[str]}),
    "optuna": _document("Studies", more=_VERSION | {"studies": _many(_Study)}),
    "advise": _document("Advice", Advice, more=_VERSION | _ASKED),
}
"""What each command prints: its type."""


class _Strict(GenerateJsonSchema):
    """Documents hold every field of their type and no other."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return bool(field.get("required", total)) if field["type"] == "typed-dict-field" else True

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> JsonSchemaValue:
        return _closed(super().typed_dict_schema(schema))


def _closed(fields: JsonSchemaValue) -> JsonSchemaValue:
    """The same without room for further fields; of its description, the first line."""
    closed = {key: value for key, value in fields.items() if key != "title"} | {"additionalProperties": False}
    if text := closed.pop("description", ""):
        closed["description"] = text.partition("\n")[0]
    return closed


def schema() -> dict[str, Any]:
    """The document: under `$defs`, one definition for each command and for each value within."""
    mode: Literal["serialization"] = "serialization"
    adapters = [(name, mode, TypeAdapter(kind)) for name, kind in COMMANDS.items()]
    by_command, values = TypeAdapter.json_schemas(adapters, schema_generator=_Strict)
    commands = {name: by_command[name, mode] for name in COMMANDS}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": f"What prunas commands print with --json, version {prunas.SCHEMA}",
        "$defs": commands | values["$defs"],
    }


def schema_text() -> str:
    """The document as `prunas/schema.json` holds it."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    write_atomic(FILE, lambda file: file.write(schema_text().encode()))
