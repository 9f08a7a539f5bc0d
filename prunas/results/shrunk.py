"""The record of a shrunk network: every shape and training that was tried, and the picked one. Torch-free."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from prunas.costs.counted import Cost
from prunas.costs.target import Target
from prunas.tasks.score import Score

__all__ = ["DenseScores", "PrunedShape", "Retrained", "Round", "ShrinkRecord", "best_of"]

_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a plan.

    Attributes:
        name: `prune`, `short`, `full` or `test`.
        trainings: How many at most; 0 in a round that trains nothing.
        epochs: Passes over the training split of each of them.
        does: The round in words.
    """

    name: Literal["prune", "short", "full", "test"]
    trainings: _Count
    epochs: _Count
    does: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseScores:
    """The given network, as it is.

    Attributes:
        cost: Of it.
        val_score: On the validation split.
        test_score: On the test split, once.
    """

    cost: Cost
    val_score: float
    test_score: float | None

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dataclasses.asdict(self) | {"cost": self.cost.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedShape:
    """One shape at the target.

    Attributes:
        proposer: Who proposed it.
        architecture: Digest of it.
        cost: Of it.
        pruned_score: On the validation split with the weights it inherits, batch norms estimated anew, before any
            retraining; None if that could not be measured.
        flags: What a reader must know, see `prunas.proposers.brief.Proposal`.
    """

    proposer: str
    architecture: str
    cost: Cost
    pruned_score: float | None
    flags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dataclasses.asdict(self) | {"cost": self.cost.to_json(), "flags": list(self.flags)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    """One training of one shape, on the training split.

    Attributes:
        proposer: Who proposed the shape.
        architecture: Digest of it.
        protocol: The way to retrain, without its number of epochs.
        round: `short`, which says who goes on, or `full`, of which one is picked.
        epochs: Passes over the training split.
        train_macs: Multiply-accumulates of the training.
        status: `finished`, or what happened instead.
        val_score: On the validation split after the last epoch; None if the training did not finish.
        test_score: On the test split, of the picked network and the control alone.
        folder: Of the run; its weights are in it after a full training.
    """

    proposer: str
    architecture: str
    protocol: str
    round: Literal["short", "full"]
    epochs: _Count
    train_macs: _Count
    status: str
    val_score: float | None
    test_score: float | None = None
    folder: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkRecord:
    """What `shrink` tried and what it picked.

    Attributes:
        space: Name of the space.
        data: Name of the data set.
        weights: What the given weights are called.
        asked: The budget.
        seed: Of the retraining.
        score: What the scores mean.
        dense: The given network.
        shapes: In the order of their score right after pruning, the best first.
        trainings: Round by round, the best first.
        picked: The full training with the best validation score.
        control: Uniform widths with the channels of the largest weights, retrained in the plainest way.
        rounds: The plan.
        epochs: Passes of all trainings that the plan allows.
        notes: What a reader should know.
        problems: Why something is missing, one line each.
        trained: Trainings and scorings done by the call that made it.
    """

    space: str
    data: str
    weights: str
    asked: Target
    seed: int
    score: Score
    dense: DenseScores
    shapes: tuple[PrunedShape, ...]
    trainings: tuple[Retrained, ...]
    picked: Retrained
    control: Retrained | None
    rounds: tuple[Round, ...]
    epochs: _Count
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    trained: _Count = field(default=0, compare=False)

    @property
    def shape(self) -> PrunedShape:
        """The shape of the picked network."""
        return next(
            shape
            for shape in self.shapes
            if (shape.proposer, shape.architecture) == (self.picked.proposer, self.picked.architecture)
        )

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        nested: dict[str, Any] = {
            "asked": self.asked.to_json(),
            "score": self.score.to_json(),
            "dense": self.dense.to_json(),
            "shapes": [shape.to_json() for shape in self.shapes],
            "trainings": [training.to_json() for training in self.trainings],
            "picked": self.picked.to_json(),
            "control": self.control.to_json() if self.control else None,
            "rounds": [each.to_json() for each in self.rounds],
            "notes": list(self.notes),
            "problems": list(self.problems),
        }
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)} | nested


def best_of(trainings: tuple[Retrained, ...], score: Score) -> tuple[Retrained, ...]:
    """Trainings by validation score, the best first; of equals the first stays first; unfinished ones last."""
    finished = [training for training in trainings if training.val_score is not None]
    finished.sort(key=lambda training: -score.gain(training.val_score or 0.0, 0.0))
    return (*finished, *(training for training in trainings if training.val_score is None))
