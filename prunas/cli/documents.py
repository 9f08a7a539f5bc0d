"""Rows that commands print with `--json` and that are no values; see `prunas.cli.schema`."""

from typing import Literal

from typing_extensions import TypedDict

from prunas.names import Decision, Kind, Need
from prunas.proposers.options import OptionRow

__all__ = ["PresetRow", "ProposerRow", "RunRow", "SpaceRow", "TaskRow"]


class SpaceRow(TypedDict):
    """One search space; the counts are those of its dense network."""

    name: str
    network: str
    data: str
    recipe: str
    params: int
    macs: int
    dimensions: int


class PresetRow(TypedDict):
    """One named architecture."""

    name: str
    slug: str
    space: str
    params: int
    macs: int


class ProposerRow(TypedDict):
    """One method that proposes shapes; `options` is None where it does not declare them."""

    name: str
    kind: Kind
    description: str
    reference: str
    dimensions: list[Decision]
    needs: list[Need]
    trainings_per_target: int
    options: list[OptionRow] | None


class TaskRow(TypedDict):
    """What networks can be trained for; of a task that only its function makes, the score is not known here."""

    name: str
    description: str
    score: str | None
    unit: str | None
    better: Literal["higher", "lower"] | None


class RunRow(TypedDict):
    """One training that was begun."""

    id: str
    space: str
    label: str
    status: str
    score: float | None
    seconds: float | None
    folder: str
    error: str | None
