"""Sessions of a search: one proposer with one seed, what it asked for and what it answered."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from prunas import designs
from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.experiments.plan import Plan
from prunas.names import TARGET_MISSED
from prunas.proposers.brief import Proposal, Proposer, Trial
from prunas.proposers.entry import Entry
from prunas.proposers.evaluators import Evaluator
from prunas.proposers.registry import configured
from prunas.works.trainings import Training, WorkRequest

__all__ = ["Aligned", "Session", "aligned", "answered", "proposer_of"]


@dataclass(slots=True)
class Session:
    """One proposer with one seed.

    Attributes:
        name: Of the proposer.
        entry: Its line in the table.
        proposer: The proposer.
        seed: Of the search.
        trials: Results so far, in the order of the proposals.
        tried: The trainings they are the results of.
        asked: Trainings and other works that it asked for, by the id of their job.
        answers: The searches whose points it answers, or starts from.
        points: Its answers, once it has ended.
        error: Why it could not answer.
        ended: Whether it has ended.
        waiting: Ids of the jobs it waits for.
        evaluator: How its candidates are scored; None trains them.
    """

    name: str
    entry: Entry
    proposer: Proposer
    seed: int
    trials: list[Trial] = field(default_factory=list)
    tried: list[Training] = field(default_factory=list)
    asked: dict[str, Training | WorkRequest] = field(default_factory=dict)
    answers: tuple["Session", ...] = ()
    points: tuple[Proposal, ...] = ()
    error: str | None = None
    ended: bool = False
    waiting: set[str] = field(default_factory=set)
    evaluator: Evaluator | None = None


def answered(session: Session) -> Iterator[Session]:
    """The searches whose points a session answers, and those that they answer in turn."""
    for other in session.answers:
        yield other
        yield from answered(other)


def proposer_of(plan: Plan, name: str) -> tuple[Entry, Proposer]:
    """A proposer of a plan, made with its settings.

    Raises:
        InputError: It does not take one of them.
    """
    line, settings = configured(name, plan.setting.space.study.options, plan.options)
    try:
        return line, line.build(**settings)
    except TypeError as error:
        raise InputError(f"proposer {name!r}: {error}") from error


class Aligned(NamedTuple):
    """A point as it is trained.

    Attributes:
        point: What is trained, its widths aligned if the plan says so.
        proposed: The point before that; None in a plan that aligns none.
    """

    point: Proposal
    proposed: Architecture | None


def aligned(plan: Plan, point: Proposal) -> Aligned:
    """A proposal with aligned widths, if the plan asks for it."""
    if plan.align is None:
        return Aligned(point, None)
    space, proposed = plan.setting.space, point.architecture
    arch = designs.align(space, proposed, *plan.align)
    if arch == proposed:
        return Aligned(point, proposed)
    flags = [flag for flag in point.flags if flag != TARGET_MISSED]
    if designs.missed(space, arch, point.target):
        flags.append(TARGET_MISSED)
    # The method chose its channels for other widths.
    return Aligned(Proposal(point.target, arch, tuple(flags)), proposed)
