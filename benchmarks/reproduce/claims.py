"""The study's claims beside what came of them."""

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.reproduce.cells import Cell
from prunas.costs import Target
from prunas.experiments.record import Record
from prunas.statistics.claims import Judgement, Relation, Side, compared, judge
from prunas.statistics.summary import Summary

__all__ = ["Claim", "Result", "Verdict", "bears", "load_claims", "load_results", "verdicts"]

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim, as `claims.toml` explains it."""

    id: str
    says: str
    source: str
    about: tuple[str, ...]
    kind: Literal["predefined", "automatic"]
    left: Mapping[str, str]
    right: Mapping[str, str] = field(default_factory=dict)
    relation: Relation = "more"
    measure: Literal["accuracy", "agreement", "patterns"] = "accuracy"
    rows: tuple[str, ...] = ("*",)
    negative: bool = False

    def covers(self, row: str) -> bool:
        """Whether it speaks of a row of the study's tables."""
        return any(fnmatch.fnmatchcase(row, pattern) for pattern in self.rows)


@dataclass(frozen=True, slots=True)
class Result:
    """What was committed of one cell.

    Attributes:
        document: All of it.
        record: Its rows.
    """

    document: Mapping[str, Any]
    record: Record

    @property
    def cell(self) -> Mapping[str, Any]:
        """Name, protocol and what it took."""
        told: Mapping[str, Any] = self.document["cell"]
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A claim judged on one cell, or on one row of the study's table.

    Attributes:
        claim: The claim.
        cell: Name of the cell.
        row: The row of the study's table; "" for a whole cell.
        difference: Left minus right: percentage points, or fractions where widths or kernels are compared. None as
            long as nothing is known.
        judgement: What it says.
    """

    claim: Claim
    cell: str
    row: str
    difference: Summary | None
    judgement: Judgement | Literal["not run"]


def load_claims(path: Path = HERE / "claims.toml") -> tuple[float, list[Claim]]:
    """The margin in percentage points, and all claims."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    made = [
        Claim(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
        for table in document["claims"]
    ]
    return document["margin"], made


def load_results(protocol: str, folder: Path = HERE / "results") -> dict[str, Result]:
    """The committed results of a protocol by name of their cell."""
    from prunas.files import read_json

    found = {}
    for path in sorted((folder / protocol).glob("*.json")):
        document = read_json(path)
        found[path.stem] = Result(document, Record.from_document(document, path))
    return found


def verdicts(
    claims: Sequence[Claim], cells: Sequence[Cell], results: Mapping[str, Result], margin: float
) -> list[Verdict]:
    """Every claim on every cell that bears on it, and on every row of a table, in the order of the claims.

    Args:
        claims: The claims.
        cells: The cells of one protocol.
        results: What is known, by name of the cell.
        margin: In percentage points.
    """
    found = []
    for claim in claims:
        for cell in cells:
            if not bears(claim, cell):
                continue
            result = results.get(cell.name)
            if not cell.rows:
                found.append(_judged(claim, cell, "", result, None, margin))
            found += [
                _judged(claim, cell, row, result, _asked(cell, row, result), margin)
                for row in filter(claim.covers, cell.rows)
            ]
    return found


def bears(claim: Claim, cell: Cell) -> bool:
    """Whether a cell bears on a claim."""
    about = set(claim.about) & set(cell.shows)
    return bool(about) and (not cell.rows or any(map(claim.covers, cell.rows)))


def _judged(
    claim: Claim, cell: Cell, row: str, result: Result | None, asked: Target | None, margin: float
) -> Verdict:
    difference = None if result is None else _difference(claim, cell, result, asked)
    judgement: Judgement | Literal["not run"] = "not run"
    if difference is not None:
        # Widths and kernels are compared without a margin: any difference of the right sign counts.
        judgement = judge(difference, claim.relation, margin if claim.measure == "accuracy" else 0.0)
    return Verdict(claim=claim, cell=cell.name, row=row, difference=difference, judgement=judgement)


def _difference(claim: Claim, cell: Cell, result: Result, asked: Target | None) -> Summary | None:
    if claim.measure == "accuracy":
        left, right = (_side(given, cell) for given in (claim.left, claim.right))
        return compared(result.record.rows, left, right, asked)
    # The smallest target tells most: that is where the shapes differ most.
    key = {"agreement": "margin", "patterns": "contrast"}[claim.measure]
    fitting = [
        each
        for each in result.document[claim.measure]
        if each["proposer"] == claim.left["proposer"]
        and each.get("against") in (None, claim.right.get("proposer"))
    ]
    return Summary(**min(fitting, key=lambda each: each["asked"]["value"])[key]) if fitting else None


def _side(given: Mapping[str, str], cell: Cell) -> Side:
    train = given.get("train", "")
    for word, pick in (("smallest", min), ("largest", max)):
        if train.endswith(f":{word}"):
            train = train.replace(word, str(pick(cell.epochs)))
    return Side(given.get("proposer", ""), train)


def _asked(cell: Cell, row: str, result: Result | None) -> Target | None:
    """The target that answers a row: they are in the same order."""
    if result is None:
        return None
    targets = dict.fromkeys(each.asked for each in result.record.rows)
    ordered = sorted(targets, key=lambda target: -target.value)
    place = cell.rows.index(row)
    return ordered[place] if place < len(ordered) else None
