"""`shrink`: a trained network in, a smaller trained one out.

Shapes are proposed as in a search; then come the rounds of `prunas.experiments.shrink_plan`. Every training,
every score right after pruning and every test is a run of the store, so that what was stopped at any moment
continues when it is repeated. Trainings read the training split and are ranked on the validation split. The test
split is met once each by the picked network, the control and the given network, when the choice is made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from prunas.errors import InputError
from prunas.experiments.search import search
from prunas.experiments.shrink_plan import CONTROL, ShrinkPlan
from prunas.files import canonical
from prunas.proposers.brief import Proposal
from prunas.proposers.pruning.channels import in_order_of, proposal
from prunas.proposers.pruning.l1 import sums
from prunas.protocols import protocol
from prunas.results.shrunk import DenseScores, PrunedShape, Retrained, ShrinkRecord, best_of
from prunas.runs.execute import Outcome, Stop
from prunas.runs.executors import Executor
from prunas.runs.job import Job
from prunas.runs.store import Store
from prunas.works.trainings import Training

__all__ = ["NORM_IMAGES", "Stopped", "shrink"]

NORM_IMAGES = 512
"""Training images from which statistics of batch norms are estimated anew right after pruning, at most."""

RoundName = Literal["short", "full"]

SELECTION = ("train", "val")
"""What candidates are trained on, and what they are ranked on."""


class Stopped(Exception):
    """The work was asked to stop; the same call continues."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """A candidate shape with the channels it keeps."""

    proposer: str
    point: Proposal
    score: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt:
    """One training of one shape."""

    shape: _Shape
    way: str
    training: Training


def shrink(plan: ShrinkPlan, store: Store, make: Callable[[], Executor], stop: Stop) -> ShrinkRecord:
    """Carries out a plan, or continues it.

    Args:
        plan: What to do.
        store: Where runs live.
        make: Opens the executor.
        stop: Whether to stop.

    Raises:
        InputError: Nothing could be proposed or retrained; the message says why.
        Stopped: As asked.
    """
    findings = search(plan.search, store, make)
    if stop():
        raise Stopped
    with make() as executor:
        driver = _Shrinking(plan, store, executor, stop)
        driver.trained, driver.problems = findings.trained, list(findings.problems)
        return driver.run(findings.points)


class _Shrinking:
    """The driver's state: what came back, and what failed."""

    def __init__(self, plan: ShrinkPlan, store: Store, executor: Executor, stop: Stop) -> None:
        self.plan, self.store, self.executor, self.stop = plan, store, executor, stop
        self.setting = plan.setting
        self.space = plan.setting.space
        self.score = plan.setting.score
        self.trained = 0
        self.problems: list[str] = []

    def run(self, points: Mapping[str, Sequence[Proposal]]) -> ShrinkRecord:
        """All rounds after the search for shapes."""
        weights = self.setting.dense_from
        assert weights is not None  # see make_shrink_plan
        given = self.setting.given(weights)
        dense_score = self._values([given.job])[0]
        if dense_score is None:
            raise InputError("; ".join(self.problems))
        shapes = self._pruned(self._shapes(points, given))
        trainings, picked, control = self._retrained(shapes)
        tests = {given.job.name: self.space.dense, picked.training.job.name: picked.training.architecture}
        if control is not None:
            tests[control.training.job.name] = control.training.architecture
        jobs = [
            self.setting.work("test", {"architecture": arch.to_json(), "run": run}, 0)
            for run, arch in tests.items()
        ]
        tested = dict(zip(tests, self._values(jobs), strict=True))

        def row(training: Retrained) -> Retrained:
            return replace(training, test_score=tested.get(Path(training.folder).name))

        rows = tuple(row(training) if training.round == "full" else training for training in trainings)
        of_job = {training.folder: training for training in rows if training.round == "full"}
        folder = {
            attempt: str(self.store.folder(attempt.training.job)) for attempt in (picked, control) if attempt
        }
        return ShrinkRecord(
            space=self.space.name,
            data=self.setting.data,
            weights=weights.label,
            asked=self.plan.search.targets[0],
            seed=self.plan.seed,
            score=self.score,
            dense=DenseScores(
                cost=self.space.cost(self.space.dense),
                val_score=dense_score,
                test_score=tested[given.job.name],
            ),
            shapes=tuple(self._shape_row(shape) for shape in shapes),
            trainings=rows,
            picked=of_job[folder[picked]],
            control=None if control is None else of_job[folder[control]],
            rounds=self.plan.rounds,
            epochs=self.plan.epochs,
            notes=self._notes(),
            problems=tuple(dict.fromkeys(self.problems)),
            trained=self.trained,
        )

    # Executing

    def _outcomes(self, jobs: Sequence[Job]) -> dict[str, Outcome]:
        """How each job ended, by its id."""
        unique = {job.id: job for job in jobs}
        for job in unique.values():
            self.executor.submit(job)
        outcomes = {}
        for outcome in self.executor.completed():
            outcomes[outcome.job.id] = outcome
            if outcome.status == "finished":
                self.trained += 1
        if self.stop() or any(each.status in ("preempted", "cancelled") for each in outcomes.values()):
            raise Stopped
        for outcome in outcomes.values():
            if outcome.result is None:
                self.problems.append(f"run {outcome.job.name} ended {outcome.status}: {outcome.error}")
        return outcomes

    def _values(self, jobs: Sequence[Job]) -> list[float | None]:
        """The score that each job ended with; None where it failed."""
        outcomes = self._outcomes(jobs)
        results = [outcomes[job.id].result for job in jobs]
        return [None if result is None else float(result.values["score"]) for result in results]

    # Shapes

    def _shapes(self, points: Mapping[str, Sequence[Proposal]], given: Training) -> list[_Shape]:
        """Every shape with its channels; what two proposers answer alike is one shape."""
        shapes: dict[str, _Shape] = {}
        for name in self.plan.search.proposers:
            for point in points.get(name, ()):
                kept = point if point.kept is not None else self._by_magnitude(point, given)
                rebuild = kept.rebuild.to_json() if kept.rebuild else None
                key = canonical(
                    [kept.architecture.to_json(), dict(kept.kept or {}), kept.weights_of, rebuild]
                )
                shapes.setdefault(key, _Shape(name, kept))
        if not shapes:
            raise InputError(f"no shape was found in space {self.space.name!r}: {'; '.join(self.problems)}")
        return list(shapes.values())

    def _by_magnitude(self, point: Proposal, given: Training) -> Proposal:
        """A shape without channels of its own, with those of the largest weights."""
        from prunas.works.runtime import weights

        folder = self.store.folder(given.job)
        totals, _ = sums(self.space, weights(folder))
        counts = self.space.counts(point.architecture)
        made = proposal(
            self.space, counts, in_order_of(totals), point.target, given.job.name, point.architecture.removed
        )
        return replace(made, flags=point.flags)

    def _pruned(self, shapes: Sequence[_Shape]) -> list[_Shape]:
        """The shapes with their scores right after pruning, the best first."""
        sliced = protocol("finetune")
        jobs = []
        for shape in shapes:
            options = {
                "architecture": shape.point.architecture.to_json(),
                "inherit": sliced.inherits(shape.point),
                "norms": NORM_IMAGES,
            }
            jobs.append(self.setting.work("evaluate", options, 0))
        scored = [
            replace(shape, score=score) for shape, score in zip(shapes, self._values(jobs), strict=True)
        ]
        known = [shape for shape in scored if shape.score is not None]
        known.sort(key=lambda shape: -self.score.gain(shape.score or 0.0, 0.0))
        return [*known, *(shape for shape in scored if shape.score is None)]

    def _shape_row(self, shape: _Shape) -> PrunedShape:
        arch = shape.point.architecture
        return PrunedShape(
            proposer=shape.proposer,
            architecture=arch.digest,
            cost=self.space.cost(arch),
            pruned_score=shape.score,
            flags=shape.point.flags,
        )

    # Retraining

    def _attempt(self, shape: _Shape, way: str, epochs: int, keep: bool) -> _Attempt:
        how = self.plan.way(way, epochs)
        return _Attempt(
            shape, way, self.setting.final(shape.point, how, self.plan.seed, None, keep, SELECTION)
        )

    def _round(self, attempts: Sequence[_Attempt], name: RoundName) -> list[Retrained]:
        outcomes = self._outcomes([attempt.training.job for attempt in attempts])
        return [self._row(attempt, outcomes[attempt.training.job.id], name) for attempt in attempts]

    def _row(self, attempt: _Attempt, outcome: Outcome, name: RoundName) -> Retrained:
        result, training = outcome.result, attempt.training
        return Retrained(
            proposer=attempt.shape.proposer,
            architecture=training.architecture.digest,
            protocol=attempt.way,
            round=name,
            epochs=training.epochs,
            train_macs=training.macs,
            status="finished" if result is not None else outcome.status,
            val_score=None if result is None else float(result.values["score"]),
            folder=str(self.store.folder(training.job)),
        )

    def _retrained(self, shapes: Sequence[_Shape]) -> tuple[tuple[Retrained, ...], _Attempt, _Attempt | None]:
        """All trainings, the picked one and the control."""
        plan, allotment = self.plan, self.plan.allotment
        pairs = [(shape, way) for shape in shapes[: allotment.shapes] for way in plan.ways]
        rows: tuple[Retrained, ...] = ()
        if allotment.short:
            attempts = [self._attempt(shape, way, allotment.short, False) for shape, way in pairs]
            by_row = dict(zip(self._round(attempts, "short"), pairs, strict=True))
            rows = best_of(tuple(by_row), self.score)
            pairs = [by_row[row] for row in rows if row.val_score is not None]
        control_shape = next((shape for shape in shapes if shape.proposer == CONTROL), None)
        chosen = pairs[: allotment.finalists]
        control = None if control_shape is None else (control_shape, plan.ways[0])
        if control is not None and control not in chosen:
            chosen.append(control)
        chosen += [(shapes[0], way) for way in plan.fresh]
        attempts = [self._attempt(shape, way, allotment.epochs, True) for shape, way in chosen]
        by_full = dict(zip(self._round(attempts, "full"), attempts, strict=True))
        full = best_of(tuple(by_full), self.score)
        if not full or full[0].val_score is None:
            raise InputError(f"nothing could be retrained in space {self.space.name!r}: {self.problems[-1]}")
        row_of = {(a.shape, a.way): row for row, a in by_full.items()}
        finished = control is not None and row_of[control].val_score is not None
        return (*rows, *full), by_full[full[0]], by_full[row_of[control]] if control and finished else None

    def _notes(self) -> tuple[str, ...]:
        leak = (
            "if the given network was trained on images that are validation images here, its score there is too "
            "good, and so is that of every way that inherits its weights, beside one from scratch; a validation "
            "split that it has not seen is safe"
        )
        return (*self.setting.notes, leak)
