"""The study's claims beside what came of them."""

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.reproduce.cells import Cell
from prunas.costs.target import Target
from prunas.results.record import Record
from prunas.results.rows import TrainingRow
from prunas.statistics.claims import Judgement, Relation, Side, apart, compared, jointly, judge
from prunas.statistics.summary import Summary, grouped
from prunas.statistics.text import asked_text

__all__ = ["Claim", "Result", "Verdict", "bears", "load_claims", "load_results", "verdicts"]

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim, as `claims.toml` explains it.

    What is measured on shapes or kernels names a `control` that has everything but the cause.
    """

    id: str
    says: str
    source: str
    about: tuple[str, ...]
    kind: Literal["predefined", "automatic"]
    left: Mapping[str, str]
    right: Mapping[str, str] = field(default_factory=dict)
    control: Mapping[str, str] = field(default_factory=dict)
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
        difference: Left minus right: percentage points, or fractions where widths or kernels are compared; of
            several comparisons the one that says least for the claim. None as long as nothing is known.
        judgement: What all of it says.
        note: What a reader must know about it; "" if nothing.
    """

    claim: Claim
    cell: str
    row: str
    difference: Summary | None
    judgement: Judgement | Literal["not run"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One difference of shapes or kernels at one target; `against` is "" where there is no other side."""

    asked: Target
    against: str
    difference: Summary

    @property
    def judgement(self) -> Judgement:
        """Any difference of the right sign counts: widths and kernels are compared without a margin."""
        return judge(self.difference, "more", 0.0)

    @property
    def where(self) -> str:
        """Target and other side in words."""
        return f"at {asked_text(self.asked)}" + (f" against {self.against}" if self.against else "")


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
    if result is not None and claim.measure != "accuracy":
        return _controlled(claim, cell, row, result)
    difference, note = None, ""
    if result is not None:
        left, right = (_side(given, cell) for given in (claim.left, claim.right))
        difference = compared(result.record.rows, left, right, asked, score=result.record.score)
        note = _shared_shapes([each for each in result.record.rows if left.holds(each) or right.holds(each)])
    if difference is None:
        return Verdict(claim=claim, cell=cell.name, row=row, difference=None, judgement="not run")
    judgement = judge(difference, claim.relation, margin)
    return Verdict(
        claim=claim, cell=cell.name, row=row, difference=difference, judgement=judgement, note=note
    )


def _controlled(claim: Claim, cell: Cell, row: str, result: Result) -> Verdict:
    """A claim about shapes or kernels: it must hold at every target, on its own and beyond its control."""
    how = {"agreement": _agreements, "patterns": _contrasts}[claim.measure]
    plain, beyond = how(claim, result)
    if not plain:
        return Verdict(claim=claim, cell=cell.name, row=row, difference=None, judgement="not run")
    comparisons = [*plain, *beyond]
    judgement = jointly(each.judgement for each in comparisons)
    least = min(comparisons, key=lambda each: each.difference.mean)
    note = f"least {least.where}"
    if judgement != "fails" and {each.asked for each in beyond} != {each.asked for each in plain}:
        judgement, note = "undecided", f"control {claim.control['proposer']} not run, {note}"
    return Verdict(
        claim=claim, cell=cell.name, row=row, difference=least.difference, judgement=judgement, note=note
    )


def _agreements(claim: Claim, result: Result) -> tuple[list[_Comparison], list[_Comparison]]:
    """Margins of agreement against the claim's other side, and against its control."""
    plain, beyond = (
        [
            _Comparison(Target.from_json(each["asked"]), each["against"], Summary(**each["margin"]))
            for each in result.document["agreement"]
            if (each["proposer"], each["against"]) == (claim.left["proposer"], side["proposer"])
        ]
        for side in (claim.right, claim.control)
    )
    return plain, beyond


def _contrasts(claim: Claim, result: Result) -> tuple[list[_Comparison], list[_Comparison]]:
    """Contrasts of kernel positions, and how far they exceed those of the claim's control."""
    contrasts: dict[str, dict[Target, Summary]] = {}
    for each in result.document["patterns"]:
        own = contrasts.setdefault(each["proposer"], {})
        own[Target.from_json(each["asked"])] = Summary(**each["contrast"])
    found = contrasts.get(claim.left["proposer"], {})
    control = contrasts.get(claim.control["proposer"], {})
    plain = [_Comparison(asked, "", contrast) for asked, contrast in found.items()]
    beyond = [
        _Comparison(asked, claim.control["proposer"], apart(contrast, control[asked]))
        for asked, contrast in found.items()
        if asked in control
    ]
    return plain, beyond


def _shared_shapes(rows: Sequence[TrainingRow]) -> str:
    """Names the designs of which several seeds train the same shape."""
    shared = []
    for proposer, own in grouped(rows, lambda row: row.proposer).items():
        shapes, targets = {(row.asked, row.architecture) for row in own}, {row.asked for row in own}
        several = len({row.search_seed for row in own}) > 1
        if own[0].kind == "design" and several and len(shapes) == len(targets):
            shared.append(proposer)
    return f"one {' and one '.join(shared)} shape for all seeds: n counts trainings" if shared else ""


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
