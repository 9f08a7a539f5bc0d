"""`transfer`: find shapes in one space, carry their pattern to another, train there, compare.

The comparison on the target is a search like any other: the transferred design beside the guided one, uniform,
taper, and what the same method finds on the target itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.designs.stages import match
from prunas.errors import InputError, unknown
from prunas.experiments.plan import Plan
from prunas.experiments.search import search
from prunas.files import read_json
from prunas.names import FINDERS
from prunas.proposers.brief import Proposal, Source
from prunas.proposers.registry import designs_for, entry, installed_proposers
from prunas.runs.executors import Executor
from prunas.runs.store import Store
from prunas.spaces.load import space_folder
from prunas.spaces.space import SearchSpace

__all__ = ["designs_of", "find_source", "load_source", "source_plan", "stage_notes"]


def designs_of(proposer: str) -> tuple[str, ...]:
    """The designs that a transfer adds to the target's own search: those that carry what a method finds.

    Raises:
        InputError: There is no such proposer, or it finds nothing.
    """
    line = entry(proposer)
    if line.kind not in FINDERS:
        able = [name for name, e in installed_proposers()[0].items() if e.kind in FINDERS]
        raise InputError(f"{proposer!r} finds nothing that could be transferred; these do: {', '.join(able)}")
    return designs_for(line.dimensions[0])


def stage_notes(source: SearchSpace, space: SearchSpace, proposers: Sequence[str]) -> tuple[str, ...]:
    """How the stages of two networks were matched, if they do not correspond by themselves.

    Args:
        source: Where points are found.
        space: Where their pattern is carried.
        proposers: Those that need no source have no say.

    Raises:
        InputError: They cannot be matched; the message says why.
    """
    lines = [entry(name) for name in proposers]
    decisions = dict.fromkeys(line.dimensions[0] for line in lines if "source" in line.needs)
    found = [match(source, space, decision).note for decision in decisions]
    return tuple(note for note in found if note)


def source_plan(plan: Plan, proposer: str) -> Plan:
    """The part of a plan that finds points and trains none of them."""
    return replace(plan, proposers=(proposer,), protocols=(), dense=False)


def find_source(plan: Plan, store: Store, make: Callable[[], Executor]) -> tuple[Source, int]:
    """Finds the points of the source, or fetches what its finished runs found.

    Args:
        plan: From `source_plan`.
        store: Where runs live.
        make: Opens the executor.

    Returns:
        The source, and how many trainings this call did.

    Raises:
        InputError: The search on the source failed; the message says why.
    """
    findings = search(plan, store, make)
    points = tuple(point for found in findings.points.values() for point in found)
    if not points:
        raise InputError(
            f"nothing was found in space {plan.setting.space.name!r}: {'; '.join(findings.problems)}"
        )
    seeds = tuple(seed for of_points in findings.point_seeds.values() for seed in of_points)
    source = Source(plan.setting.space, points, plan.proposers[0], seeds=seeds, costs=findings.costs)
    return source, findings.trained


def load_source(space: SearchSpace, proposer: str) -> Source:
    """The points that are shipped in `search_spaces/found/` for a space and a method.

    Raises:
        InputError: There are none; the message names what there is.
    """
    known: dict[str, Path] = {}
    points: list[Proposal] = []
    for path in sorted((space_folder() / "found").glob("*.json")):
        document = read_json(path)
        known[f"{document['space']} by {document['proposer']}"] = path
        if (document["space"], document["proposer"]) == (space.name, proposer):
            points += _proposals(space, document["points"], path)
    if not points:
        raise unknown("found shapes of", f"{space.name} by {proposer}", known)
    return Source(space, tuple(points), proposer, shipped=True)


def _proposals(space: SearchSpace, documents: Sequence[dict[str, object]], path: Path) -> list[Proposal]:
    proposals = []
    for document in documents:
        arch = Architecture.from_json(document["architecture"], str(path))
        space.check(arch)
        target = Target.from_json(document["asked"])  # type: ignore[arg-type]  # an object of the file
        proposals.append(Proposal(target, space.canonical(arch)))
    return proposals
