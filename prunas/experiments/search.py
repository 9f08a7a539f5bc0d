"""`search`: propose, train from scratch, compare.

One session per (proposer, seed). A session asks its proposer, which is a pure function of brief and results; the
trainings it wants become jobs; when they are there it is asked again. Nothing is remembered but the run folders,
so a search that was stopped at any moment continues by being repeated.

Selection sees validation data only: a dense training and a sampler's trials are trained on *train* and scored on
*validation*. Once a session's points are fixed, each is trained on train + validation and meets the test split
once. Search seed i goes with training seed i, so that proposers are compared in pairs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prunas import designs
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.files import read_json, write_json
from prunas.names import FINDERS
from prunas.proposers.brief import Brief, DenseNetwork, Penalty, Pending, Proposal, Proposer, Source, Trial
from prunas.proposers.entry import Entry
from prunas.proposers.registry import configured
from prunas.protocols import SCRATCH, Protocol
from prunas.results.rows import FINISHED, Proposed, SearchCost, Spent, TrainingRow, TrialRow
from prunas.runs.execute import Outcome
from prunas.runs.executors import Executor
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.spaces.space import SearchSpace
from prunas.statistics.summary import spent
from prunas.works.trainings import Setting, Training

__all__ = ["Findings", "Plan", "Session", "check_unedited", "proposer_of", "search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides a search.

    Attributes:
        setting: Space, recipe and data.
        proposers: Names, in the order of the table.
        targets: Budgets, largest first.
        protocols: How points are trained.
        seeds: Searches per proposer, with seeds 0, 1, ...
        trials: Candidates per target of a sampler.
        options: Settings of proposers by name; the space's own come first.
        cap: Largest factor of Scratch-B epochs where a protocol names none, or None.
        dense: Whether the dense network is trained and tested too.
        keep_weights: Whether final trainings keep their weights.
        source: What was found in another space, if designs are to be transferred.
        align: What the widths of every proposal are aligned to, and how; see `prunas.designs.align`. None leaves
            them as proposed.
    """

    setting: Setting
    proposers: tuple[str, ...]
    targets: tuple[Target, ...]
    protocols: tuple[Protocol, ...]
    seeds: int
    trials: Mapping[str, int]
    options: Mapping[str, Mapping[str, Any]]
    cap: float | None = None
    dense: bool = True
    keep_weights: bool = False
    source: Source | None = None
    align: tuple[int, designs.Rounding] | None = None

    @property
    def references(self) -> tuple[Protocol, ...]:
        """How the dense network is trained and tested: as points are from scratch, and as its own training is."""
        # What has epochs of its own is a retraining budget, not how a dense network is trained.
        fresh = [how for how in self.protocols if how.weights == "fresh" and how.epochs is None]
        scratch = next(iter(fresh), None)
        if not self.dense or scratch is None:
            return ()
        own = self.setting.dense_training
        return (scratch,) if own in (SCRATCH, scratch) else (scratch, own)


@dataclass(frozen=True, slots=True)
class Errand:
    """A work that a proposer asked for by name.

    Attributes:
        job: As any process can execute it.
    """

    job: Job


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
    """

    name: str
    entry: Entry
    proposer: Proposer
    seed: int
    trials: list[Trial] = field(default_factory=list)
    tried: list[Training] = field(default_factory=list)
    asked: dict[str, Training | Errand] = field(default_factory=dict)
    answers: tuple["Session", ...] = ()
    points: tuple[Proposal, ...] = ()
    error: str | None = None
    ended: bool = False
    waiting: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search found.

    Attributes:
        rows: One per final training, in the order of proposers, targets and seeds.
        dense: Trainings of the dense network, penalised ones included.
        costs: What the points rest on, per proposer and seed.
        trials: What samplers tried, in the order in which they proposed it.
        points: The points themselves, by proposer.
        point_seeds: The search seed of each of them, by proposer.
        trained: Trainings done by this call.
        problems: Why something is missing, one line each.
    """

    rows: tuple[TrainingRow, ...]
    dense: tuple[TrainingRow, ...]
    costs: tuple[SearchCost, ...]
    trials: tuple[TrialRow, ...]
    points: Mapping[str, tuple[Proposal, ...]]
    point_seeds: Mapping[str, tuple[int, ...]]
    trained: int
    problems: tuple[str, ...]


class _Search:
    """The driver's state: sessions, what was submitted, what came back."""

    def __init__(self, plan: Plan, sessions: Sequence[Session], store: Store, executor: Executor) -> None:
        self.plan = plan
        self.store = store
        self.executor = executor
        self.outcomes: dict[str, Outcome] = {}
        self.submitted: dict[str, Training | Errand] = {}
        self.finals: list[tuple[Session, Proposal, Training]] = []
        self.dense: dict[str, tuple[str, int, Training]] = {}
        self.trained = 0
        self.sessions = sessions

    @property
    def whole(self) -> Target:
        """The dense network as a budget."""
        space, metric = self.plan.setting.space, self.plan.targets[0].metric
        return Target(metric, space.measure(space.dense, metric), 1.0)

    def run(self) -> None:
        """Asks every session until none has anything left to ask."""
        setting = self.plan.setting
        for how in self.plan.references:
            for seed in range(self.plan.seeds):
                training = self._final(Proposal(self.whole, setting.space.dense), how, seed)
                self.dense[training.job.id] = ("dense", seed, training)
                self.submit(training)
        self._advance()
        for outcome in self.executor.completed():
            self.outcomes[outcome.job.id] = outcome
            self.trained += outcome.status == "finished"
            self._advance()

    def submit(self, training: Training | Errand) -> None:
        """Hands a training or another work over, once."""
        if training.job.id not in self.submitted:
            self.submitted[training.job.id] = training
            self.executor.submit(training.job)

    def _advance(self) -> None:
        # To a fixed point: a session that ends may free those that answer what it found.
        moved = True
        while moved:
            moved = False
            for session in self.sessions:
                ready = session.waiting <= self.outcomes.keys() and self._found(session) is not None
                if ready and not session.ended:
                    session.waiting = set()
                    self._ask(session)
                    moved |= session.ended

    def _found(self, session: Session) -> tuple[Proposal, ...] | None:
        """What others found, if this session needs it; None while some are not done.

        With the same seed, or with the other seeds: a design that is compared with what its own seed found must
        not be made of that. With a single seed there is nothing to leave out.
        """
        by_others = "found-by-others" in session.entry.needs
        if not by_others and "found" not in session.entry.needs:
            return ()
        seeds = set(range(self.plan.seeds)) - {session.seed} if by_others else set()
        session.answers = tuple(
            other
            for other in self.sessions
            if other.seed in (seeds or {session.seed})
            and other.entry.kind in FINDERS
            and other.entry.dimensions[0] == session.entry.dimensions[0]
            and (not session.entry.starts or other.name in session.entry.starts)
        )
        if not all(other.ended for other in session.answers):
            return None
        return tuple(point for other in session.answers for point in other.points)

    def _ask(self, session: Session) -> None:
        found = self._found(session) or ()
        if {"found", "found-by-others"} & set(session.entry.needs) and not found:
            session.ended = True  # those it answers found nothing, and say why themselves
            return
        plan, setting = self.plan, self.plan.setting
        brief = Brief(
            space=setting.space,
            targets=plan.targets,
            seed=session.seed,
            trials=plan.trials.get(session.name, 1),
            lr_sum=setting.lr_sum,
            momentum=setting.recipe.momentum,
            found=tuple(point for point in found if "found" in session.entry.needs),
            found_by_others=tuple(point for point in found if "found-by-others" in session.entry.needs),
            leaves_one_out=plan.seeds > 1,
            source=plan.source,
            work=lambda name, options: self._work(session, name, options),
            dense=lambda penalty: self._dense(session, penalty),
            initial=lambda: self._initial(session.seed),
            calibration=lambda images: self._calibration(images, session.seed),
        )
        tried = "trials" in session.entry.needs and (brief.trials > 1 or bool(session.entry.starts))
        try:
            while proposals := session.proposer.propose(brief, session.trials):
                for proposal in proposals:
                    setting.space.check(proposal.architecture)
                if not tried:
                    self._end(session, proposals)
                    return
                self._try(session, proposals)
            self._end(session, _best(session.trials, plan.targets))
            session.error = self._without_answer(session)
        except Pending:
            pass
        except _Failed as failure:
            session.error, session.ended = str(failure), True
        except InputError as error:
            session.error, session.ended = f"{session.name}, seed {session.seed}: {error}", True

    def _dense(self, session: Session, penalty: Penalty | None) -> DenseNetwork:
        training = self.plan.setting.dense(session.seed, penalty)
        self.dense.setdefault(training.job.id, (session.name, session.seed, training))
        session.asked[training.job.id] = training
        result = self._result(session, training)
        folder = self.store.folder(training.job)

        def load() -> Any:
            from prunas.works.runtime import weights

            return weights(folder)

        return DenseNetwork(training.job.name, load, result["penalty"])

    def _initial(self, seed: int) -> Any:
        from prunas.works.runtime import initial

        return initial(self.plan.setting.space, seed)

    def _calibration(self, images: int, seed: int) -> Any:
        from prunas.works.runtime import calibration

        setting = self.plan.setting
        return calibration(setting.data, images, seed, setting.recipe.images)

    def _work(self, session: Session, name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        errand = Errand(self.plan.setting.work(name, options, session.seed))
        session.asked[errand.job.id] = errand
        return self._result(session, errand)

    def _result(self, session: Session, asked: Training | Errand) -> Mapping[str, Any]:
        """What a job that a session waits for returned.

        Raises:
            Pending: It is not there yet.
            _Failed: It failed, or was stopped as asked.
        """
        self.submit(asked)
        outcome = self.outcomes.get(asked.job.id)
        if outcome is None:
            session.waiting = {asked.job.id}
            raise Pending
        if outcome.result is None:
            what = "a training" if isinstance(asked, Training) else f"work {asked.job.work!r}"
            raise _Failed(
                f"{session.name}, seed {session.seed}: {what} ended {outcome.status}: {outcome.error}"
            )
        return outcome.result.values

    def _trial_outcome(self, session: Session, training: Training) -> Outcome | None:
        """Outcome of a candidate's training, a failure included; None while it is not there.

        Raises:
            _Failed: It was stopped as asked, and says nothing about the candidate.
        """
        self.submit(training)
        outcome = self.outcomes.get(training.job.id)
        if outcome is not None and outcome.status in ("preempted", "cancelled"):
            raise _Failed(f"{session.name}, seed {session.seed}: a training ended {outcome.status}")
        return outcome

    def _try(self, session: Session, proposals: Sequence[Proposal]) -> None:
        """Trains candidates; their results become trials once all of them are there, failed ones without a score.

        Raises:
            Pending: They are not.
        """
        trainings = [
            # A trial is the candidate as proposed, scored as aligned.
            self.plan.setting.candidate(self._aligned(p).architecture, session.seed, p.fraction)
            for p in proposals
        ]
        session.asked |= {training.job.id: training for training in trainings}
        outcomes = [self._trial_outcome(session, training) for training in trainings]
        if any(outcome is None for outcome in outcomes):
            session.waiting = {training.job.id for training in trainings}
            raise Pending
        for proposal, outcome in zip(proposals, outcomes, strict=True):
            assert outcome is not None
            accuracy = outcome.result.values["accuracy"] if outcome.result is not None else None
            session.trials.append(Trial(proposal, accuracy))
        session.tried += trainings

    def _without_answer(self, session: Session) -> str | None:
        """One line about the targets for which every trial failed; None if there are none."""
        answered = {point.target for point in session.points}
        missing = [target.label for target in self.plan.targets if target not in answered]
        errors = [
            outcome.error
            for training in session.tried
            if (outcome := self.outcomes[training.job.id]).result is None
        ]
        if not missing or not errors:
            return None
        return f"{session.name}, seed {session.seed}: every trial at {', '.join(missing)} failed: {errors[0]}"

    def _end(self, session: Session, points: Sequence[Proposal]) -> None:
        session.points, session.ended = tuple(points), True
        for point in map(self._aligned, session.points):  # what others answer are the points as proposed
            for protocol in self.plan.protocols:
                if not protocol.serves(point):
                    continue  # a shape without weights to inherit
                training = self._final(point, protocol, session.seed)
                self.finals.append((session, point, training))
                self.submit(training)

    def _aligned(self, point: Proposal) -> Proposal:
        """A proposal with aligned widths, if the plan asks for it."""
        if self.plan.align is None:
            return point
        space, found = self.plan.setting.space, point.architecture
        arch = designs.align(space, found, *self.plan.align)
        if arch == found:
            return replace(point, proposed=found)
        flags = [flag for flag in point.flags if flag != "target_missed"]
        flags += ["target_missed"] * designs.missed(space, arch, point.target)
        # The method chose its channels for other widths.
        return Proposal(point.target, arch, tuple(flags), proposed=found)

    def _final(self, point: Proposal, protocol: Protocol, seed: int) -> Training:
        return self.plan.setting.final(point, protocol, seed, self.plan.cap, self.plan.keep_weights)

    def findings(self) -> Findings:
        """Rows, costs and problems."""
        order = {name: i for i, name in enumerate(self.plan.proposers)}
        finals = sorted(
            self.finals,
            key=lambda f: (order[f[0].name], f[2].protocol, -f[1].target.value, f[0].seed),
        )
        rows = tuple(
            replace(
                self._row(
                    training, session.name, session.entry.kind, point.target, session.seed, point.flags
                ),
                proposed=self._proposed(point),
            )
            for session, point, training in finals
        )
        dense = tuple(
            self._row(training, name, "dense", self.whole, seed, ())
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
        return Findings(
            rows=rows,
            dense=dense,
            costs=tuple(self._costs()),
            trials=tuple(self._trials()),
            points=points,
            point_seeds=point_seeds,
            trained=self.trained,
            problems=tuple(map(str, problems)),
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
        self, training: Training, name: str, kind: Any, asked: Target, seed: int, flags: tuple[str, ...]
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

    def _proposed(self, point: Proposal) -> Proposed | None:
        if point.proposed is None:
            return None
        cost = self.plan.setting.space.cost(point.proposed)
        return Proposed(point.proposed.to_json(), point.proposed.digest, cost)

    def _costs(self) -> Iterator[SearchCost]:
        for session in self.sessions:
            searches = [session, *_answered(session)]
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

    def _spent(self, asked: Training | Errand) -> Spent:
        outcome = self.outcomes.get(asked.job.id)
        result = outcome.result if outcome else None
        seconds = result.values.get("seconds", result.seconds) if result else 0.0
        said = int(result.values.get("macs", 0)) if result else 0
        macs = asked.macs if isinstance(asked, Training) else said
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
                    val_score=trial.accuracy,
                    duplicate=training.job.id in seen,
                    folder=str(self.store.folder(training.job)),
                    status=FINISHED if outcome.result is not None else outcome.status,
                    error=outcome.error or "",
                )
                seen.add(training.job.id)


class _Failed(Exception):
    """A training that a session depends on did not finish."""


def _answered(session: Session) -> Iterator[Session]:
    """The searches whose points a session answers, and those that they answer in turn."""
    for other in session.answers:
        yield other
        yield from _answered(other)


def proposer_of(plan: Plan, name: str) -> tuple[Entry, Proposer]:
    """A proposer of a plan, made with its settings.

    Raises:
        InputError: It does not take one of them.
    """
    line, settings = configured(name, plan.setting.space.options, plan.options)
    try:
        return line, line.build(**settings)
    except TypeError as error:
        raise InputError(f"proposer {name!r}: {error}") from error


def _best(trials: Sequence[Trial], targets: Sequence[Target]) -> list[Proposal]:
    """The candidate with the highest validation accuracy of each target; the first of equals.

    Failed trials have none. Of a search that stops trials early, only those that were trained whole count.
    """
    best = []
    for target in targets:
        scores = {
            i: trial.accuracy
            for i, trial in enumerate(trials)
            if trial.proposal.target == target and trial.proposal.fraction == 1 and trial.accuracy is not None
        }
        if scores:
            best.append(trials[max(scores, key=scores.__getitem__)].proposal)
    return best


def _bounds(space: SearchSpace) -> dict[str, Any]:
    """What may vary in a space, as it is written down when its first search begins."""
    return {
        "network": space.survey.fingerprint,
        **{key: list(getattr(space, key)) for key in ("groups", "gates", "blocks", "exclude")},
        "floor": space.floor,
        "step": space.step,
    }


def check_unedited(space: SearchSpace, store: Store) -> None:
    """Refuses a space whose file was edited since its first search began.

    The same command would find other points in it than those it had begun to try.

    Raises:
        InputError: It was.
    """
    path = store.root / space.name / "space.json"
    if not path.exists():
        return
    before, bounds = read_json(path), _bounds(space)
    if not isinstance(before, dict):
        raise InputError(f"{path} is damaged; delete it")
    if edited := [key for key, value in bounds.items() if before.get(key) != value]:
        raise InputError(
            f"space {space.name!r} was edited ({', '.join(edited)}) since searches in {store.root} began; undo "
            "that, give the file another name, or choose another --out"
        )


def search(plan: Plan, store: Store, make: Callable[[], Executor]) -> Findings:
    """Runs a search to its end, or continues one.

    Args:
        plan: What to do.
        store: Where runs live.
        make: Opens the executor.

    Raises:
        InputError: See `prunas.experiments.preflight`; or the executor or the store cannot be used.
        KeyboardInterrupt: Stopped; the same call continues.
    """
    from prunas.experiments.preflight import preflight

    # All three come before anything is written: they may refuse the plan, or the executor's name.
    preflight(plan, store)
    sessions = [
        Session(name, *proposer_of(plan, name), s) for name in plan.proposers for s in range(plan.seeds)
    ]
    with make() as executor:
        check_unedited(plan.setting.space, store)  # by a search that began meanwhile
        bounds = store.root / plan.setting.space.name / "space.json"
        if not bounds.exists():
            write_json(bounds, _bounds(plan.setting.space))
        driver = _Search(plan, sessions, store, executor)
        driver.run()
    return driver.findings()
