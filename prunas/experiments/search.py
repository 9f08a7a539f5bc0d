"""`search`: propose, train from scratch, compare.

One session per (proposer, seed). A session asks its proposer, which is a pure function of brief and results; the
trainings it wants become jobs; when they are there it is asked again. Nothing is remembered but the run folders,
so a search that was stopped at any moment continues by being repeated.

Selection sees validation data only: a dense training and a sampler's trials are trained on *train* and scored on
*validation*. Once a session's points are fixed, each is trained on train + validation and meets the test split
once. Search seed i goes with training seed i, so that proposers are compared in pairs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from prunas.architecture import Architecture
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.experiments.findings import Findings, Outcomes
from prunas.experiments.plan import Plan
from prunas.experiments.preflight import bounds_of, check_unedited, preflight
from prunas.experiments.sessions import Aligned, Session, aligned, proposer_of
from prunas.files import write_json
from prunas.names import ANSWERS_OTHERS, FINDERS
from prunas.proposers.brief import Brief, DenseNetwork, Evaluating, Penalty, Pending, Proposal, Trial
from prunas.proposers.evaluators import Evaluator
from prunas.protocols import Protocol
from prunas.runs.execute import Outcome
from prunas.runs.executors import Executor
from prunas.runs.store import Store
from prunas.tasks.score import Score
from prunas.works.trainings import Training, WorkRequest

__all__ = ["Findings", "Plan", "search"]


class _Search:
    """The driver's state: sessions, what was submitted, what came back."""

    def __init__(self, plan: Plan, sessions: Sequence[Session], store: Store, executor: Executor) -> None:
        self.plan = plan
        self.store = store
        self.executor = executor
        self.outcomes: dict[str, Outcome] = {}
        self.submitted: dict[str, Training | WorkRequest] = {}
        self.finals: list[tuple[Session, Aligned, Training]] = []
        self.dense: dict[str, tuple[str, int, Training]] = {}
        self.trained = 0
        self.sessions = sessions

    def run(self) -> None:
        """Asks every session until none has anything left to ask."""
        setting = self.plan.setting
        for how in self.plan.references:
            for seed in range(self.plan.seeds):
                training = self._final(Proposal(self.plan.unpruned, setting.space.dense), how, seed)
                self.dense[training.job.id] = ("dense", seed, training)
                self.submit(training)
        self._advance()
        for outcome in self.executor.completed():
            self.outcomes[outcome.job.id] = outcome
            if outcome.status == "finished":
                self.trained += 1
            self._advance()

    def submit(self, training: Training | WorkRequest) -> None:
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
        if session.entry.rivals:
            return () if self._rival(session).ended else None
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
        if ANSWERS_OTHERS & set(session.entry.needs) and not found:
            session.ended = True  # those it answers found nothing, and say why themselves
            return
        plan, setting = self.plan, self.plan.setting
        trials, session.evaluator = self._scoring(session)
        if not trials:
            session.ended = True  # the method that it rivals found nothing, and says why itself
            return
        brief = Brief(
            space=setting.space,
            targets=plan.targets,
            seed=session.seed,
            trials=trials,
            lr_sum=setting.lr_sum,
            momentum=setting.recipe.momentum,
            score=setting.score,
            found=tuple(point for point in found if "found" in session.entry.needs),
            found_by_others=tuple(point for point in found if "found-by-others" in session.entry.needs),
            leaves_one_out=plan.seeds > 1,
            source=plan.source,
            work=lambda name, options: self._work(session, name, options),
            dense=lambda penalty: self._dense(session, penalty),
            initial=lambda: self._initial(session.seed),
            calibration=lambda images: self._calibration(images, session.seed),
            evaluator=session.evaluator,
            supernet=lambda options: self._supernet(session, options),
            short_training=lambda arch, share: self._short(session, arch, share),
            loss=lambda net, batch: self._task().loss(net, batch),
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
            self._end(session, _best(session.trials, plan.targets, setting.score))
            session.error = self._without_answer(session)
        except Pending:
            pass
        except _Failed as failure:
            session.error, session.ended = str(failure), True
        except InputError as error:
            session.error, session.ended = f"{session.name}, seed {session.seed}: {error}", True

    def _rival(self, session: Session) -> Session:
        """The search of the same seed by the method that a control rivals."""
        return next(s for s in self.sessions if (s.name, s.seed) == (session.entry.rivals, session.seed))

    def _scoring(self, session: Session) -> tuple[int, Evaluator | None]:
        """How many candidates per target a session tries, and how they are scored.

        A rival has as many evaluations as its method made, rounded up. A work counts as so many as it says, see
        `Brief.run`.
        """
        plan = self.plan
        if not session.entry.rivals:
            return plan.trials.get(session.name, 1), plan.evaluator
        method = self._rival(session)
        how = cast(Evaluating, method.proposer).scored_by(plan.setting.space, plan.evaluator)
        if method.error:
            return 0, how
        made = sum(
            float(result.values.get("worth", 1.0))
            for key, asked in method.asked.items()
            if key in self.outcomes
            and (result := self.outcomes[key].result) is not None
            and _scores_candidates(asked)
        )
        return math.ceil(made / len(plan.targets)), how

    def _dense(self, session: Session, penalty: Penalty | None) -> DenseNetwork:
        if penalty is not None and self.plan.setting.dense_from is not None:
            self._dense(session, None)  # a penalty trains on from the given weights
        training = self.plan.setting.dense(session.seed, penalty)
        self.dense.setdefault(training.job.id, (session.name, session.seed, training))
        session.asked[training.job.id] = training
        return self._network(session, training)

    def _supernet(self, session: Session, options: Mapping[str, Any]) -> DenseNetwork:
        training = self.plan.setting.supernet(session.seed, options)
        session.asked[training.job.id] = training
        return self._network(session, training)

    def _network(self, session: Session, training: Training) -> DenseNetwork:
        """A trained network of the dense shape, once its training is there."""
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

        return calibration(self._task(), images, seed, self.plan.setting.recipe.images)

    def _task(self) -> Any:
        from prunas.works.runtime import task_of

        setting = self.plan.setting
        return task_of(setting.task, setting.data_reference, setting.root)

    def _work(self, session: Session, name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        request = WorkRequest(self.plan.setting.work(name, options, session.seed))
        session.asked[request.job.id] = request
        return self._result(session, request)

    def _short(self, session: Session, arch: Architecture, share: float) -> float:
        training = self.plan.setting.candidate(arch, session.seed, share)
        session.asked[training.job.id] = training
        return float(self._result(session, training)["score"])

    def _result(self, session: Session, asked: Training | WorkRequest) -> Mapping[str, Any]:
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
        """Scores candidates; their results become trials once all of them are there, failed ones without a score.

        Raises:
            Pending: They are not.
        """
        # A trial is the candidate as proposed, scored as aligned.
        points = [(aligned(self.plan, p).point, p.fraction) for p in proposals]
        trainings = [self._candidate(session, point, fraction) for point, fraction in points]
        session.asked |= {training.job.id: training for training in trainings}
        outcomes = [self._trial_outcome(session, training) for training in trainings]
        if any(outcome is None for outcome in outcomes):
            session.waiting = {training.job.id for training in trainings}
            raise Pending
        for proposal, outcome in zip(proposals, outcomes, strict=True):
            assert outcome is not None
            score = outcome.result.values["score"] if outcome.result is not None else None
            session.trials.append(Trial(proposal, score))
        session.tried += trainings

    def _candidate(self, session: Session, point: Proposal, fraction: float) -> Training:
        """What scores a candidate: a training, or the evaluator of the plan.

        Raises:
            Pending: The network that the evaluator reads is not trained yet.
        """
        how, setting = session.evaluator, self.plan.setting
        if how is None:
            return setting.candidate(point.architecture, session.seed, fraction)
        run = ""
        if how.entry.source == "dense":
            run = self._dense(session, None).run
        elif how.entry.source == "supernet":
            run = self._supernet(session, how.supernet).run
        return setting.evaluation(point.architecture, how, session.seed, run, point.kept)

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
        for pair in (
            aligned(self.plan, point) for point in session.points
        ):  # others answer points as proposed
            point = pair.point
            for protocol in self.plan.protocols:
                if not protocol.serves(point):
                    continue  # a shape without weights to inherit
                training = self._final(point, protocol, session.seed)
                self.finals.append((session, pair, training))
                self.submit(training)

    def _final(self, point: Proposal, protocol: Protocol, seed: int) -> Training:
        return self.plan.setting.final(point, protocol, seed, self.plan.cap, self.plan.keep_weights)

    def ended(self) -> Outcomes:
        """What came of it all, once it has run."""
        return Outcomes(
            self.plan, self.sessions, self.store, self.outcomes, self.finals, self.dense, self.trained
        )


class _Failed(Exception):
    """A training that a session depends on did not finish."""


def _scores_candidates(asked: Training | WorkRequest) -> bool:
    """Whether a job scores candidates, and trains no network that candidates inherit from."""
    return isinstance(asked, WorkRequest) or not asked.job.spec.get("keep_weights")


def _best(trials: Sequence[Trial], targets: Sequence[Target], score: Score) -> list[Proposal]:
    """The candidate with the best validation score of each target; the first of equals.

    Failed trials have none. Of a search that stops trials early, only those that were trained whole count.
    """
    best = []
    for target in targets:
        gains = {
            i: score.gain(trial.score, 0.0)
            for i, trial in enumerate(trials)
            if trial.proposal.target == target and trial.proposal.fraction == 1 and trial.score is not None
        }
        if gains:
            best.append(trials[max(gains, key=gains.__getitem__)].proposal)
    return best


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
    from prunas.experiments.record import record_of

    # All three come before anything is written: they may refuse the plan, or the executor's name.
    preflight(plan, store)
    sessions = [
        Session(name, *proposer_of(plan, name), s) for name in plan.proposers for s in range(plan.seeds)
    ]
    with make() as executor:
        check_unedited(plan.setting.space, store)  # by a search that began meanwhile
        bounds = store.root / plan.setting.space.name / "space.json"
        if not bounds.exists():
            write_json(bounds, bounds_of(plan.setting.space))
        driver = _Search(plan, sessions, store, executor)
        driver.run()
    return driver.ended().findings(record_of(plan))
