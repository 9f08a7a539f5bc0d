"""The study's claims beside what came of them."""

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.reproduce.cells import Cell, cells, data_identity, recipe_of
from prunas.costs.target import Target
from prunas.files import digest
from prunas.names import FINDERS
from prunas.recipe import Recipe
from prunas.results.record import Record
from prunas.results.rows import TrainingRow
from prunas.statistics.claims import Judgement, Relation, Side, apart, chances, compared
from prunas.statistics.inference import LEVEL, holm
from prunas.statistics.summary import Summary, grouped
from prunas.statistics.text import asked_text

__all__ = [
    "Claim",
    "Comparison",
    "Critic",
    "Margins",
    "Result",
    "Verdict",
    "bears",
    "claims_digest",
    "corrected",
    "load_claims",
    "load_critics",
    "load_results",
    "stranger",
    "verdicts",
    "weighed",
]

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

    def stale(self, cell: Cell) -> bool:
        """Whether the claims on its cell, or their margin, have changed since its first run."""
        return "claims" in self.document and self.document["claims"] != claims_digest(cell)


@dataclass(frozen=True, slots=True, kw_only=True)
class Critic:
    """Later work that objects to the study.

    Attributes:
        who: Authors, year and where.
        says: What it objects, in a sentence.
        claims: Ids of the claims that put it to the test.
    """

    who: str
    says: str
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Margins:
    """The smallest differences that matter, in percentage points.

    Attributes:
        usual: Of a protocol without one of its own.
        own: Of those that have one.
    """

    usual: float
    own: Mapping[str, float] = field(default_factory=dict)

    def of(self, protocol: str) -> float:
        """That of a protocol."""
        return self.own.get(protocol, self.usual)


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
        tends: What it says as far as it says anything; None where nothing can be tested.
        p: How surprising that is if it is not so, over all comparisons; None likewise.
        counts: What n counts.
        note: What a reader must know about it; "" if nothing.
    """

    claim: Claim
    cell: str
    row: str
    difference: Summary | None = None
    judgement: Judgement | Literal["not run"] = "not run"
    tends: Literal["holds", "fails"] | None = None
    p: float | None = None
    counts: Literal["searches", "trainings"] = "searches"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One difference at one target.

    Attributes:
        asked: The target.
        difference: Left minus right.
        against: The other side, of shapes and kernels; "" where there is none.
        error: Standard error where it is not that of one sample.
    """

    asked: Target
    difference: Summary
    against: str = ""
    error: float | None = None

    @property
    def where(self) -> str:
        """Target and other side in words."""
        return f"at {asked_text(self.asked)}" + (f" against {self.against}" if self.against else "")


def load_claims(path: Path = HERE / "claims.toml") -> tuple[Margins, list[Claim]]:
    """The margins, and all claims."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    made = [
        Claim(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
        for table in document["claims"]
    ]
    return Margins(document["margin"], document["margins"]), made


def load_critics(path: Path = HERE / "claims.toml") -> list[Critic]:
    """The study's critics, in the order of the file."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["critics"]
    return [Critic(who=each["who"], says=each["says"], claims=tuple(each["claims"])) for each in tables]


def claims_digest(cell: Cell, path: Path = HERE / "claims.toml") -> str:
    """Twelve hex digits over the margin of a cell and the claims that it bears on, as they stand now."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    margins, claims = load_claims(path)
    on_it = [table for table, claim in zip(document["claims"], claims, strict=True) if bears(claim, cell)]
    return digest([margins.of(cell.protocol.name), on_it])


def load_results(protocol: str, folder: Path = HERE / "results") -> dict[str, Result]:
    """The committed results of a protocol by name of their cell."""
    from prunas.files import read_json

    found = {}
    for path in sorted((folder / protocol).glob("*.json")):
        document = read_json(path)
        found[path.stem] = Result(document, Record.from_document(document, path))
    return {name: result for name, result in found.items() if stranger(protocol, name, result) is None}


def stranger(protocol: str, name: str, result: Result) -> str | None:
    """Why a result does not belong to the cell of its name, and enters no table; None if it does.

    Args:
        protocol: The folder it lies in.
        name: The name of its file.
        result: It.
    """
    cell = next((cell for cell in cells(protocol) if cell.name == name), None)
    if cell is None:
        return "the grid has no such cell"
    planned = Recipe.from_json(result.document["plan"]["recipe"])
    if planned.identity != recipe_of(cell).identity:
        return "another recipe or precision"
    seen, expected = result.document.get("data_identity"), data_identity(result.record.data)
    if None not in (seen, expected) and seen != expected:
        return "other data"
    return None


def verdicts(
    claims: Sequence[Claim], grid: Sequence[Cell], results: Mapping[str, Result], margin: float
) -> list[Verdict]:
    """Every claim on every cell that bears on it, and on every row of a table, in the order of the claims.

    Args:
        claims: The claims.
        grid: The cells of one protocol.
        results: What is known, by name of the cell.
        margin: In percentage points.
    """
    found = []
    for claim in claims:
        for cell in grid:
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


def corrected(judged: Sequence[Verdict]) -> list[Verdict]:
    """The same verdicts, with p values adjusted for all of them (Holm), and judged by these."""
    adjusted = holm([each.p for each in judged if each.judgement != "not run"])
    by_place = iter(adjusted)
    return [
        each if each.judgement == "not run" else _decided(replace(each, p=next(by_place))) for each in judged
    ]


def _decided(verdict: Verdict) -> Verdict:
    """A verdict that follows its p value."""
    sure = verdict.tends is not None and verdict.p is not None and verdict.p < 1 - LEVEL
    judgement: Judgement = verdict.tends if sure and verdict.tends is not None else "undecided"
    return replace(verdict, judgement=judgement)


def _judged(
    claim: Claim, cell: Cell, row: str, result: Result | None, asked: Target | None, margin: float
) -> Verdict:
    unknown = Verdict(claim=claim, cell=cell.name, row=row)
    if result is None:
        return unknown
    if claim.measure != "accuracy":
        return _controlled(unknown, result)
    left, right = (_side(given, cell) for given in (claim.left, claim.right))
    rows = result.record.rows
    planned = [Target.from_json(each) for each in result.document["plan"]["targets"]]
    if cell.preset is not None:  # one point, whatever the targets of the space are
        planned = list(dict.fromkeys(each.asked for each in rows))
    targets = planned if asked is None else [asked]
    by_target = {target: compared(rows, left, right, target, score=result.record.score) for target in targets}
    comparisons = [Comparison(target, value) for target, value in by_target.items() if value is not None]
    if not comparisons:
        return unknown
    told = replace(unknown, **_count([each for each in rows if left.holds(each) or right.holds(each)]))
    return weighed(told, comparisons, claim.relation, margin, missing=len(targets) - len(comparisons))


def _controlled(unknown: Verdict, result: Result) -> Verdict:
    """A claim about shapes or kernels: it must hold at every target, on its own and beyond its control."""
    claim = unknown.claim
    how = {"agreement": _agreements, "patterns": _contrasts}[claim.measure]
    plain, beyond = how(claim, result)
    if not plain:
        return unknown
    # Any difference of the right sign counts: widths and kernels are compared without a margin.
    made = weighed(unknown, [*plain, *beyond], "more", 0.0)
    if made.tends != "fails" and {each.asked for each in beyond} != {each.asked for each in plain}:
        note = f"control {claim.control['proposer']} not run, {made.note}"
        return replace(made, judgement="undecided", tends=None, p=None, note=note)
    return made


def weighed(
    verdict: Verdict, comparisons: Sequence[Comparison], relation: Relation, margin: float, missing: int = 0
) -> Verdict:
    """A verdict from all comparisons: all must hold; one that fails is enough, and pays for their number.

    Args:
        verdict: Of a claim, without what the comparisons say.
        comparisons: At least one.
        relation: What the claim says of each.
        margin: The smallest difference that matters, in the unit of the differences.
        missing: Comparisons that are still to come.
    """
    known = [chances(each.difference, relation, margin, each.error) for each in comparisons]
    tested = [each for each in known if each is not None]
    holds = max(hold for hold, _ in tested) if len(tested) == len(known) else 1.0
    fails = min(1.0, (len(known) + missing) * min((fail for _, fail in tested), default=1.0))
    far = abs if relation == "tie" else lambda mean: -mean
    least = max(comparisons, key=lambda each: far(each.difference.mean))
    notes = [verdict.note, f"least {least.where}" if len(comparisons) > 1 or least.against else ""]
    if missing:
        notes.append(f"{missing} more {'targets' if missing > 1 else 'target'} to come")
        holds = 1.0
    tends: Literal["holds", "fails"] = "holds" if holds < fails else "fails"
    made = replace(
        verdict,
        difference=least.difference,
        tends=tends if tested else None,
        p=min(holds, fails) if tested else None,
        note=", ".join(filter(None, notes)),
    )
    return _decided(made)


def _agreements(claim: Claim, result: Result) -> tuple[list[Comparison], list[Comparison]]:
    """Margins of agreement against the claim's other side, and against its control."""
    plain, beyond = (
        [
            Comparison(Target.from_json(each["asked"]), Summary(**each["margin"]), each["against"])
            for each in result.document["agreement"]
            if (each["proposer"], each["against"]) == (claim.left["proposer"], side["proposer"])
        ]
        for side in (claim.right, claim.control)
    )
    return plain, beyond


def _contrasts(claim: Claim, result: Result) -> tuple[list[Comparison], list[Comparison]]:
    """Contrasts of kernel positions, and how far they exceed those of the claim's control."""
    contrasts: dict[str, dict[Target, Summary]] = {}
    for each in result.document["patterns"]:
        own = contrasts.setdefault(each["proposer"], {})
        own[Target.from_json(each["asked"])] = Summary(**each["contrast"])
    found = contrasts.get(claim.left["proposer"], {})
    control = contrasts.get(claim.control["proposer"], {})
    plain = [Comparison(asked, contrast) for asked, contrast in found.items()]
    beyond = []
    for asked, contrast in found.items():
        if asked in control:
            difference = apart(contrast, control[asked])
            beyond.append(Comparison(asked, difference, claim.control["proposer"], difference.std))
    return plain, beyond


def _count(rows: Sequence[TrainingRow]) -> dict[str, str]:
    """What n counts where these rows are compared, and the designs of which several seeds train the same shape."""
    shared = []
    for proposer, own in grouped(rows, lambda row: row.proposer).items():
        shapes, targets = {(row.asked, row.architecture) for row in own}, {row.asked for row in own}
        several = len({row.search_seed for row in own}) > 1
        if own[0].kind == "design" and several and len(shapes) == len(targets):
            shared.append(proposer)
    if shared:
        return {"counts": "trainings", "note": f"one {' and one '.join(shared)} shape for all seeds"}
    searched = any(row.kind in FINDERS and row.kind != "predefined" for row in rows)
    return {"counts": "searches" if searched or any(row.kind == "design" for row in rows) else "trainings"}


def _side(given: Mapping[str, str], cell: Cell) -> Side:
    train = given.get("train", "")
    for word, pick in (("smallest", min), ("middle", _middle), ("largest", max)):
        if train.endswith(f":{word}"):
            train = train.replace(word, str(pick(cell.epochs)))
    return Side(given.get("proposer", ""), train)


def _middle(epochs: Sequence[int]) -> int:
    return sorted(epochs)[len(epochs) // 2]


def _asked(cell: Cell, row: str, result: Result | None) -> Target | None:
    """The target that answers a row: they are in the same order."""
    if result is None:
        return None
    targets = dict.fromkeys(each.asked for each in result.record.rows)
    ordered = sorted(targets, key=lambda target: -target.value)
    place = cell.rows.index(row)
    return ordered[place] if place < len(ordered) else None
