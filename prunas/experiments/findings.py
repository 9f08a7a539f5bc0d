"""What a search found: rows, costs and problems, of the sessions that have ended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.experiments.plan import Plan
from prunas.experiments.sessions import Aligned, Session, answered
from prunas.names import ONE_GIVEN_NETWORK, RowKind
from prunas.proposers.brief import Proposal
from prunas.results.record import Record
from prunas.results.rows import FINISHED, Proposed, SearchCost, Spent, TrainingRow, TrialRow
from prunas.runs.execute import Outcome
from prunas.runs.store import Store
from prunas.statistics.summary import spent
from prunas.works.trainings import Training, WorkRequest

__all__ = ["Findings", "Outcomes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings(Record):
    """The record of a search that has just been carried out, with the points themselves.

    Attributes:
        points: The points, by proposer.
        point_seeds: The search seed of each of them, by proposer.
        trained: Trainings done by this call.
    """

    points: Mapping[str, tuple[Proposal, ...]] = field(hash=False)
    point_seeds: Mapping[str, tuple[int, ...]] = field(hash=False)
    trained: int

    @property
    def record(self) -> Record:
        """What is stored: without the points, which the folders of the trainings hold."""
        return Record(**_fields(self))


def _fields(record: Record) -> dict[str, Any]:
    """The fields of a record by name."""
    return {each.name: getattr(record, each.name) for each in fields(Record)}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came of a search, from which its findings are written down.

    Attributes:
        plan: What was to be done.
        sessions: One per proposer and seed.
        store: Where runs live.
        outcomes: Of the jobs that ended, by id.
        finals: The trainings of the points, with their sessions.
        dense: The trainings of the dense network, with name and seed of who asked first, by id of the job.
        trained: Trainings done by this call.
    """

    plan: Plan
    sessions: Sequence[Session]
    store: Store
    outcomes: Mapping[str, Outcome]
    finals: Sequence[tuple[Session, Aligned, Training]]
    dense: Mapping[str, tuple[str, int, Training]]
    trained: int

    def findings(self, record: Record) -> Findings:
        """The record of the plan, with rows, costs and problems."""
        order = {name: i for i, name in enumerate(self.plan.proposers)}
        finals = sorted(
            self.finals,
            key=lambda f: (order[f[0].name], f[2].protocol, -f[1].point.target.value, f[0].seed),
        )
        rows = tuple(
            replace(
                self._row(
                    training,
                    session.name,
                    session.entry.kind,
                    point.target,
                    session.seed,
                    (*point.flags, *self._shared(session)),
                ),
                proposed=self._proposed(proposed),
            )
            for session, (point, proposed), training in finals
        )
        dense = tuple(
            self._row(training, name, "dense", self.plan.unpruned, seed, ())
            for name, seed, training in self.dense.values()
        )
        problems = dict.fromkeys(session.error for session in self.sessions if session.error)
        problems |= dict.fromkeys(self._failed_trials())
        for _, _, training in self.finals:
            outcome = self.outcomes.get(training.job.id)
            if outcome is not None and outcome.result is None:
                problems[f"run {training.job.name} ended {outcome.status}: {outcome.error}"] = None
        points = {
            name: tuple(p for s in self.sessions if s.name == name for p in s.points)
            for name in self.plan.proposers
        }
        point_seeds = {
            name: tuple(s.seed for s in self.sessions if s.name == name for _ in s.points)
            for name in self.plan.proposers
        }
        results: dict[str, Any] = {
            "rows": rows,
            "dense": dense,
            "costs": tuple(self._costs()),
            "trials": tuple(self._trials()),
            "problems": tuple(map(str, problems)),
        }
        return Findings(
            **_fields(record) | results, points=points, point_seeds=point_seeds, trained=self.trained
        )

    def _failed_trials(self) -> Iterator[str]:
        """One line per search about its failed trials."""
        for session in self.sessions:
            failed = {
                training.job.name: outcome
                for training in session.tried
                if (outcome := self.outcomes[training.job.id]).result is None
            }
            if failed:
                name, first = next(iter(failed.items()))
                yield (
                    f"{session.name}, seed {session.seed}: {len(failed)} of {len(session.tried)} trials failed, "
                    f"the search went on without; {name} ended {first.status}: {first.error}"
                )

    def _row(
        self, training: Training, name: str, kind: RowKind, asked: Target, seed: int, flags: tuple[str, ...]
    ) -> TrainingRow:
        return training.row(
            self.plan.setting.space,
            self.outcomes.get(training.job.id),
            proposer=name,
            kind=kind,
            asked=asked,
            search_seed=seed,
            folder=str(self.store.folder(training.job)),
            flags=flags,
        )

    def _shared(self, session: Session) -> tuple[str, ...]:
        """The flag of points that several seeds found in one given dense network."""
        given = self.plan.setting.dense_from
        if given is None or self.plan.seeds == 1:
            return ()
        job = self.plan.setting.given(given).job
        rests = any(job.id in search.asked for search in (session, *answered(session)))
        return (ONE_GIVEN_NETWORK,) if rests else ()

    def _proposed(self, arch: Architecture | None) -> Proposed | None:
        if arch is None:
            return None
        return Proposed(arch.to_json(), arch.digest, self.plan.setting.space.cost(arch))

    def _costs(self) -> Iterator[SearchCost]:
        for session in self.sessions:
            searches = [session, *answered(session)]
            source = self.plan.source if "source" in session.entry.needs else None
            of_source = source.without(session.seed).costs if source else ()
            trainings = {each.id: each for each in spent(of_source)}
            for search in searches:
                trainings |= {key: self._spent(training) for key, training in search.asked.items()}
            items = tuple(trainings.values())
            seeds = {search.seed for search in searches if search.asked}
            yield SearchCost(
                proposer=session.name,
                seed=session.seed,
                macs=sum(each.macs for each in items),
                seconds=round(sum(each.seconds for each in items), 3),
                trainings=len(items),
                duplicates=len(session.tried) - len({training.job.id for training in session.tried}),
                made_with=getattr(session.proposer, "made_with", ""),  # samplers say; a plug-in may
                rests_on=items,
                targets=self.plan.targets,
                seeds=tuple(sorted(seeds.union(*(cost.seeds for cost in of_source)))),
                complete=source is None or bool(of_source),
            )

    def _spent(self, asked: Training | WorkRequest) -> Spent:
        outcome = self.outcomes.get(asked.job.id)
        result = outcome.result if outcome else None
        seconds = result.values.get("seconds", result.seconds) if result else 0.0
        planned = asked.macs if isinstance(asked, Training) else 0
        macs = int(result.values.get("macs", planned)) if result else planned
        return Spent(id=asked.job.id, macs=macs, seconds=seconds)

    def _trials(self) -> Iterator[TrialRow]:
        """Target by target, in the order of proposals."""
        order = {target: i for i, target in enumerate(self.plan.targets)}
        for session in self.sessions:
            seen: set[str] = set()
            pairs = zip(session.trials, session.tried, strict=True)
            for trial, training in sorted(pairs, key=lambda pair: order[pair[0].proposal.target]):
                outcome = self.outcomes[training.job.id]
                yield TrialRow(
                    id=training.job.id,
                    proposer=session.name,
                    asked=trial.proposal.target,
                    search_seed=session.seed,
                    architecture=trial.proposal.architecture.digest,
                    reached=self.plan.setting.space.cost(training.architecture),
                    epochs=training.epochs,
                    train_macs=training.macs,
                    fraction=trial.proposal.fraction,
                    val_score=trial.score,
                    duplicate=training.job.id in seen,
                    folder=str(self.store.folder(training.job)),
                    status=FINISHED if outcome.result is not None else outcome.status,
                    error=outcome.error or "",
                    evaluator=session.evaluator.label if session.evaluator else "",
                )
                seen.add(training.job.id)
