"""What a network is trained for: batches, a loss, additive statistics and the score made of them."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from prunas.errors import InputError
from prunas.files import digest
from prunas.tasks.score import Score

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunas.data.dataset import DataSet, Draw, Indices

__all__ = [
    "DataSetTask",
    "Feed",
    "Inputs",
    "Mixable",
    "Network",
    "Smoothable",
    "Split",
    "Task",
    "judge",
    "training_loss",
]

Split = Literal["train", "val", "train+val", "test"]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a network is called with: the survey traces it with such tensors.

    Attributes:
        shapes: Of each tensor, in the order of the arguments, without the batch.
    """

    shapes: tuple[tuple[int, ...], ...]

    @property
    def positions(self) -> int:
        """Positions of the largest tensor, channels not counted: height times width of an image."""
        return max(math.prod(shape[1:]) for shape in self.shapes)


class Network(Protocol):
    """A network as a task calls it: in the precision of the recipe, with results in float32 at least."""

    def __call__(self, *inputs: Any) -> Any:
        """What the network's `forward` returns."""


class Feed(Protocol):
    """The batches of some members on one device, in two parts, so that a captured step can hold the second one."""

    def draws(self, seed: int | None, epoch: int = 0, start: int = 0) -> "Iterator[Draw]":
        """What each step of one epoch reads, on the device; see `prunas.data.dataset.Feed`."""

    def gather(self, draw: "Draw") -> Any:
        """The batch of one draw: tensors in, tensors in any container out, no read-back."""


class Task(Protocol):
    """What a network is trained for. `DataSetTask` has all of it that does not depend on what is learnt.

    `loss` and `totals` are called inside a step that a CUDA graph may hold: they work with tensors alone and never
    ask for a value. In a training step, `totals` is given again what the network returned to `loss`: both must
    call it with the same tensors of the batch.
    """

    @property
    def name(self) -> str:
        """In messages."""

    @property
    def identity(self) -> str:
        """A digest of everything that decides what is learnt and how it is judged, the data included."""

    @property
    def score(self) -> Score:
        """What `result` means."""

    @property
    def inputs(self) -> Inputs:
        """What the network takes."""

    @property
    def statistics(self) -> int:
        """How many numbers `totals` returns."""

    @property
    def scores_training(self) -> bool:
        """Whether training batches are judged too, each before its step.

        False where a network answers otherwise in training than in evaluation, as detectors do.
        """

    @property
    def chance(self) -> float | None:
        """The best score on the test split that guessing reaches by chance; None where it is not known."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a result should know."""

    def members(self, split: Split, images: int = 0) -> "Indices":
        """Positions of a split's samples, or of so many of them; see `DataSet.members`."""

    def feed(
        self,
        members: "Indices",
        batch: int,
        *,
        device: "torch.device",
        augment: bool = False,
        channels_last: bool = False,
    ) -> Feed:
        """Batches of the samples at `members`; see `DataSet.feed`."""

    def calibration(
        self, images: int, *, seed: int, device: "torch.device", batch: int = 256, subset: int = 0
    ) -> "Iterable[tuple[Tensor, Tensor]]":
        """Batches of training samples as they are, inputs first; see `DataSet.calibration`."""

    def size(self, batch: Any) -> int:
        """How many samples a batch holds."""

    def loss(self, net: Network, batch: Any) -> "Tensor":
        """Mean loss of a batch, a scalar; the forward pass belongs here, as detectors return losses."""

    def totals(self, net: Network, batch: Any) -> "Tensor":
        """Statistics of a batch (statistics,), on its device, of which sums over batches are meant."""

    def result(self, totals: "Tensor") -> float:
        """The score of all samples whose statistics were summed up to `totals`, float64 on the CPU."""

    def unfit(self, output: Any, images: int) -> str | None:
        """Why what a network returns for so many samples cannot be trained on, after "the network ..."."""


@runtime_checkable
class Smoothable(Protocol):
    """A task whose labels a recipe may smooth."""

    def smoothed_loss(self, net: Network, batch: Any, smoothing: float) -> "Tensor":
        """`Task.loss` with `smoothing`, in [0, 1), of every label's weight spread evenly over all classes."""


@runtime_checkable
class Mixable(Protocol):
    """A task whose labels are classes, and whose loss and totals also take shares of classes, (batch, classes)."""

    @property
    def soft_classes(self) -> int:
        """How many classes a label may be shared among."""


def training_loss(task: Task, smoothing: float = 0.0) -> "Callable[[Network, Any], Tensor]":
    """The loss that a training step descends: the task's own, with smoothed labels where a recipe asks for them.

    Raises:
        InputError: They are asked for, and the task does not have them.
    """
    if not smoothing:
        return task.loss
    if not isinstance(task, Smoothable):
        raise InputError(
            f"task {task.name!r} has no labels to smooth, and the recipe says label_smoothing = {smoothing:g}; "
            "leave that out, or give the task smoothed_loss(net, batch, smoothing)"
        )
    return partial(task.smoothed_loss, smoothing=smoothing)


class DataSetTask:
    """A task on the samples of a data set; derive from it, and say what is learnt.

    A derived class sets `name`, `score` and `statistics`, and has `loss`, `totals` and `result` of `Task`.

    Attributes:
        data: The data set.
    """

    name: str
    score: Score
    statistics: int
    scores_training: bool = True

    def __init__(self, data: "DataSet") -> None:
        self.data = data

    @property
    def identity(self) -> str:
        """Digest of name, score and data; a class with settings of its own adds them."""
        return digest([self.name, self.score.to_json(), self.data.identity])

    @property
    def inputs(self) -> Inputs:
        """One image."""
        return Inputs((self.data.shape,))

    @property
    def chance(self) -> float | None:
        """See `Task.chance`."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the data set."""
        return self.data.notes

    def members(self, split: Split, images: int = 0) -> "Indices":
        """See `DataSet.members`."""
        return self.data.members(split, images)

    def feed(
        self,
        members: "Indices",
        batch: int,
        *,
        device: "torch.device",
        augment: bool = False,
        channels_last: bool = False,
    ) -> Feed:
        """See `DataSet.feed`."""
        return self.data.feed(members, batch, device=device, augment=augment, channels_last=channels_last)

    def calibration(
        self, images: int, *, seed: int, device: "torch.device", batch: int = 256, subset: int = 0
    ) -> "Iterable[tuple[Tensor, Tensor]]":
        """See `DataSet.calibration`."""
        return self.data.calibration(images, seed=seed, device=device, batch=batch, subset=subset)

    def size(self, batch: Sequence[Any]) -> int:
        """Length of the first part of a batch."""
        return len(batch[0])

    def unfit(self, output: Any, images: int) -> str | None:
        """Nothing is known against any output."""
        return None


def judge(task: Task, totals: "Tensor", what: str) -> float:
    """The score of what was summed up.

    Args:
        task: Gives the score.
        totals: As `Task.result` takes them.
        what: Was judged, for the message.

    Raises:
        InputError: It is no number, or outside the score's range by more than rounding.
    """
    score, value = task.score, float(task.result(totals))
    inside = min(max(value, score.low), score.high)
    if not (math.isfinite(value) and math.isclose(value, inside, rel_tol=_ROUNDING, abs_tol=_ROUNDING)):
        raise InputError(
            f"task {task.name!r}: its {score.name} of {what} is {value}, and should be a number from {score.low} "
            f"to {score.high}; mend its totals and result, or the range of its score"
        )
    return inside
