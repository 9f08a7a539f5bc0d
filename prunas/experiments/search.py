"""`search`: propose, train from scratch, compare.

One session per (proposer, seed). A session asks its proposer, which is a pure function of brief and results; the
trainings it wants become jobs; when they are there it is asked again. Nothing is remembered but the run folders,
so a search that was stopped at any moment continues by being repeated.

Selection sees validation data only: a dense training and a sampler's trials are trained on *train* and scored on
*validation*. Once a session's points are fixed, each is trained on train + validation and meets the test split
once. Search seed i goes with training seed i, so that proposers are compared in pairs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunas.costs import Target
from prunas.errors import InputError
from prunas.experiments.jobs import Setting, Training
from prunas.proposers import Entry, entry
from prunas.proposers.brief import Brief, Penalty, Pending, Proposal, Proposer, Source, Trained, Trial
from prunas.recipe import Protocol
from prunas.runs.execute import Outcome
from prunas.runs.executors import Executor
from prunas.runs.store import Store
from prunas.statistics.rows import Row, SearchCost

__all__ = ["Findings", "Plan", "Session", "search"]

FINDERS = ("automatic", "predefined")

CALIBRATION_BATCH = 64
"""Images a proposer sees at once: a large network's activations of a few hundred would not fit a small machine."""


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
        cap: Largest factor of Scratch-B epochs, or None.
        dense: Whether the dense network is trained and tested too.
        keep_weights: Whether final trainings keep their weights.
        source: What was found in another space, if designs are to be transferred.
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


@dataclass(slots=True)
class Session:
    """One proposer with one seed.

    Attributes:
        name: Of the proposer.
        entry: Its line in the table.
        proposer: The proposer.
        seed: Of the search.
        trials: Results so far, in the order of the proposals.
        asked: Trainings that its search used, for its price.
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
    asked: dict[str, Training] = field(default_factory=dict)
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
        costs: What finding the points cost, per proposer and seed.
        points: The points themselves, by proposer.
        trained: Trainings done by this call.
        problems: Why something is missing, one line each.
    """

    rows: tuple[Row, ...]
    dense: tuple[Row, ...]
    costs: tuple[SearchCost, ...]
    points: Mapping[str, tuple[Proposal, ...]]
    trained: int
    problems: tuple[str, ...]


class _Search:
    """The driver's state: sessions, what was submitted, what came back."""

    def __init__(self, plan: Plan, store: Store, executor: Executor) -> None:
        self.plan = plan
        self.store = store
        self.executor = executor
        self.outcomes: dict[str, Outcome] = {}
        self.submitted: dict[str, Training] = {}
        self.finals: list[tuple[Session, Proposal, Training]] = []
        self.dense: dict[str, tuple[str, int, Training]] = {}
        self.trained = 0
        self.sessions = [
            Session(name, entry(name), self._proposer(name), seed)
            for name in plan.proposers
            for seed in range(plan.seeds)
        ]

    def _proposer(self, name: str) -> Proposer:
        options = {**self.plan.setting.space.options.get(name, {}), **self.plan.options.get(name, {})}
        try:
            return entry(name).build(**options)
        except TypeError as error:
            raise InputError(f"proposer {name!r}: {error}") from error

    @property
    def whole(self) -> Target:
        """The dense network as a budget."""
        space, metric = self.plan.setting.space, self.plan.targets[0].metric
        return Target(metric, space.measure(space.dense, metric), 1.0)

    def run(self) -> None:
        """Asks every session until none has anything left to ask."""
        scratch = next((p for p in self.plan.protocols if p.weights == "fresh"), None)
        if self.plan.dense and scratch is not None:
            for seed in range(self.plan.seeds):
                training = self._final(Proposal(self.whole, self.plan.setting.space.dense), scratch, seed)
                self.dense[training.job.id] = ("dense", seed, training)
                self.submit(training)
        self._advance()
        for outcome in self.executor.completed():
            self.outcomes[outcome.job.id] = outcome
            self.trained += outcome.status == "finished"
            self._advance()

    def submit(self, training: Training) -> None:
        """Hands a training over, once."""
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
        """What others found, with the same seed or any, if this session needs it; None while some are not done."""
        by_all = "found-by-all" in session.entry.needs
        if not by_all and "found" not in session.entry.needs:
            return ()
        others = [
            other
            for other in self.sessions
            if (by_all or other.seed == session.seed)
            and other.entry.kind in FINDERS
            and other.entry.dimensions[0] == session.entry.dimensions[0]
        ]
        if not all(other.ended for other in others):
            return None
        return tuple(point for other in others for point in other.points)

    def _ask(self, session: Session) -> None:
        found = self._found(session) or ()
        if {"found", "found-by-all"} & set(session.entry.needs) and not found:
            session.ended = True  # those it answers found nothing, and say why themselves
            return
        plan, setting = self.plan, self.plan.setting
        images = setting.images["train"]
        steps = -(-images // setting.recipe.batch)
        brief = Brief(
            space=setting.space,
            targets=plan.targets,
            seed=session.seed,
            trials=plan.trials.get(session.name, 1),
            lr_sum=setting.recipe.lr_sum(steps, setting.recipe.epochs),
            momentum=setting.recipe.momentum,
            found=tuple(point for point in found if "found" in session.entry.needs),
            found_by_all=tuple(point for point in found if "found-by-all" in session.entry.needs),
            source=plan.source,
            dense=lambda penalty: self._dense(session, penalty),
            calibration=lambda images: self._calibration(images, session.seed),
        )
        tried = "trials" in session.entry.needs and brief.trials > 1
        try:
            proposals = session.proposer.propose(brief, session.trials)
            if not tried:
                self._end(session, proposals)
            elif proposals:
                self._try(session, proposals)
            else:
                self._end(session, _best(session.trials, plan.targets))
        except Pending:
            pass
        except _Failed as failure:
            session.error, session.ended = str(failure), True
        except InputError as error:
            session.error, session.ended = f"{session.name}, seed {session.seed}: {error}", True

    def _dense(self, session: Session, penalty: Penalty | None) -> Trained:
        training = self.plan.setting.dense(session.seed, penalty)
        self.dense.setdefault(training.job.id, (session.name, session.seed, training))
        session.asked[training.job.id] = training
        outcome = self._outcome(session, training)
        if outcome is None:
            session.waiting = {training.job.id}
            raise Pending
        assert outcome.result is not None
        folder = self.store.folder(training.job)

        def load() -> Any:
            from prunas.experiments.work import weights

            return weights(folder)

        return Trained(training.job.name, load, outcome.result.values["penalty"])

    def _calibration(self, images: int, seed: int) -> Any:
        """At most so many training images; training sets smaller than that are passed over whole."""
        import torch

        from prunas.data import load

        data = load(self.plan.setting.data)
        wanted = min(images, data.sizes["train"])
        return data.calibration(wanted, seed=seed, device=torch.device("cpu"), batch=CALIBRATION_BATCH)

    def _outcome(self, session: Session, training: Training) -> Outcome | None:
        self.submit(training)
        outcome = self.outcomes.get(training.job.id)
        if outcome is not None and outcome.result is None:
            raise _Failed(
                f"{session.name}, seed {session.seed}: a training ended {outcome.status}: {outcome.error}"
            )
        return outcome

    def _try(self, session: Session, proposals: Sequence[Proposal]) -> None:
        """Trains candidates; their results become trials once all of them are there."""
        trainings = [self.plan.setting.candidate(p.architecture, session.seed) for p in proposals]
        session.asked |= {training.job.id: training for training in trainings}
        outcomes = [self._outcome(session, training) for training in trainings]
        if any(outcome is None for outcome in outcomes):
            session.waiting = {training.job.id for training in trainings}
            raise Pending
        for proposal, outcome in zip(proposals, outcomes, strict=True):
            assert outcome is not None and outcome.result is not None
            session.trials.append(Trial(proposal, outcome.result.values["accuracy"]))
        self._ask(session)

    def _end(self, session: Session, points: Sequence[Proposal]) -> None:
        session.points, session.ended = tuple(points), True
        for point in session.points:
            for protocol in self.plan.protocols:
                inherits = {
                    "fresh": True,
                    "initial": point.kept is not None,
                    "sliced": point.weights_of is not None,
                }
                if not inherits[protocol.weights]:
                    continue  # a shape without weights to inherit
                training = self._final(point, protocol, session.seed)
                self.finals.append((session, point, training))
                self.submit(training)

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
            self._row(training, session.name, session.entry.kind, point.target, session.seed, point.flags)
            for session, point, training in finals
        )
        dense = tuple(
            self._row(training, name, "dense", self.whole, seed, ())
            for name, seed, training in self.dense.values()
        )
        problems = dict.fromkeys(session.error for session in self.sessions if session.error)
        for _, _, training in self.finals:
            outcome = self.outcomes.get(training.job.id)
            if outcome is not None and outcome.result is None:
                problems[f"run {training.job.name} ended {outcome.status}: {outcome.error}"] = None
        points = {
            name: tuple(p for s in self.sessions if s.name == name for p in s.points)
            for name in self.plan.proposers
        }
        return Findings(rows, dense, tuple(self._costs()), points, self.trained, tuple(map(str, problems)))

    def _row(
        self, training: Training, name: str, kind: Any, asked: Target, seed: int, flags: tuple[str, ...]
    ) -> Row:
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

    def _costs(self) -> Iterator[SearchCost]:
        for session in self.sessions:
            used = [(t, self.outcomes.get(t.job.id)) for t in session.asked.values()]
            seconds = sum(
                o.result.values["seconds"] for _, o in used if o is not None and o.result is not None
            )
            yield SearchCost(
                proposer=session.name,
                seed=session.seed,
                macs=sum(t.macs for t, _ in used),
                seconds=round(seconds, 3),
                trainings=len(used),
            )


class _Failed(Exception):
    """A training that a session depends on did not finish."""


def _best(trials: Sequence[Trial], targets: Sequence[Target]) -> list[Proposal]:
    """The candidate with the highest validation accuracy of each target; the first of equals."""
    best = []
    for target in targets:
        of_target = [trial for trial in trials if trial.proposal.target == target]
        if of_target:
            best.append(max(of_target, key=lambda trial: trial.accuracy).proposal)
    return best


def search(plan: Plan, store: Store, make: Callable[[], Executor]) -> Findings:
    """Runs a search to its end, or continues one.

    Args:
        plan: What to do.
        store: Where runs live.
        make: Opens the executor.

    Raises:
        InputError: The store cannot be used.
        KeyboardInterrupt: Stopped; the same call continues.
    """
    with make() as executor:
        driver = _Search(plan, store, executor)
        driver.run()
    return driver.findings()
