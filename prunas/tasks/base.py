"""What a network is trained for: batches, a loss, and the score of what the network answers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from prunas.errors import InputError
from prunas.files import digest
from prunas.inputs import Inputs
from prunas.tasks.score import Score

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunas.data.dataset import DataSet, Draw, Indices

__all__ = [
    "DataSetTask",
    "Distillable",
    "Feed",
    "Inputs",
    "Mixable",
    "Network",
    "Smoothable",
    "Split",
    "SplitTask",
    "Task",
    "Totals",
    "joined",
    "judge",
    "shape_problem",
    "training_loss",
]

Split = Literal["train", "val", "train+val", "test"]
Totals = Any
"""What a score is made of: the sum of a task's statistics (statistics,), float64 on the CPU; or, of a task that
does not sum, a list of what `Task.totals` gave for each batch, tensors on the CPU."""

LOOKED_AT = 256, 2**26
"""Samples of a split that a task looks at before training; more where all their inputs are no more numbers."""

_ROUNDING = 1e-9


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
    def statistics(self) -> int | None:
        """How many numbers `totals` returns.

        None where a score is made of no sums, as average precision: then `totals` returns any tensors, and those
        of all batches are kept for `result`. Training batches cannot be judged so.
        """

    @property
    def scores_training(self) -> bool:
        """Whether training batches are judged too, each before its step.

        False where a network answers otherwise in training than in evaluation, as detectors do.
        """

    @property
    def loss_of_outputs(self) -> bool:
        """Whether the loss is made of what a network in training mode returns for inputs alone.

        False where `loss` calls it with the targets too, as torchvision's detectors want it.
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

    def totals(self, net: Network, batch: Any) -> Any:
        """Statistics of a batch (statistics,), on its device, of which sums over batches are meant.

        Where `statistics` is None: tensors in any container of which `result` makes the score of a split.
        """

    def result(self, totals: Totals) -> float:
        """The score of all samples, of the sum of their statistics or of the list of what `totals` returned."""

    def unfit(self, output: Any, images: int) -> str | None:
        """Why what a network returns for so many samples cannot be trained on, after "the network ..."."""

    def unusable(self) -> str | None:
        """Why the data cannot be trained on or judged, after "its data ..."; looked at before training."""

    def example(self, images: int) -> "Indices":
        """Positions of so many training samples on which one step is tried before training."""


@runtime_checkable
class Smoothable(Protocol):
    """A task whose labels a recipe may smooth."""

    def smoothed_loss(self, net: Network, batch: Any, smoothing: float) -> "Tensor":
        """`Task.loss` with `smoothing`, in [0, 1), of every label's weight spread evenly over all classes."""


@runtime_checkable
class Distillable(Protocol):
    """A task that a trained network can teach to a smaller one."""

    def distillation_loss(self, student: Any, teacher: Any, temperature: float) -> "Tensor":
        """How far the student's answers are from the teacher's: a mean over the batch, of the size of `Task.loss`.

        Called inside a training step, as `Task.loss` is; of tasks that call the network more than once, for each
        call.

        Args:
            student: What the network in training returned.
            teacher: What the teacher returned for the same inputs, in evaluation mode, without gradients.
            temperature: Softens probabilities, above 0; a loss without probabilities does not read it.
        """


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

    A derived class sets `name`, `score` and `statistics`, and has `loss`, `totals` and `result` of `Task`. See
    `SplitTask` for a score that is no sum over samples.

    Attributes:
        data: The data set.
    """

    name: str
    score: Score
    statistics: int | None
    scores_training: bool = True
    loss_of_outputs: bool = True

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

    def unusable(self) -> str | None:
        """Nothing is known against any data."""
        return None

    def example(self, images: int) -> "Indices":
        """The first ones."""
        return self.members("train")[:images]

    def look(self, split: Split, images: int = 0) -> "Iterator[Any]":
        """Targets of a split in batches on the CPU, of so many samples at most: always the same ones.

        Args:
            split: The split.
            images: How many; 0 leaves it to `LOOKED_AT`.

        Raises:
            InputError: The split is empty.
        """
        import torch

        members = self.members(split)
        if not len(members):
            raise InputError(f"task {self.name!r}: its data have no sample in {split}; give it some")
        least, numbers = LOOKED_AT
        images = images or max(least, numbers // math.prod(self.data.shape))
        if images < len(members):
            members = self.members(split, images)
        feed = self.feed(members, min(len(members), 64), device=torch.device("cpu"))
        for draw in feed.draws(None):
            yield feed.gather(draw)[1]

    def targets(self, split: Split, images: int = 0) -> "Tensor":
        """As `look`, in one tensor (samples, ...).

        Raises:
            InputError: The split is empty, or its targets are tensors by name.
        """
        import torch

        return torch.cat([self._tensor(targets) for targets in self.look(split, images)])

    def _tensor(self, targets: Any) -> "Tensor":
        """One tensor of targets.

        Raises:
            InputError: They are tensors by name.
        """
        import torch

        if not isinstance(targets, torch.Tensor):
            names = " and ".join(targets)
            raise InputError(
                f"task {self.name!r}: its data have targets by name, {names}; one tensor is wanted"
            )
        return targets


class SplitTask(DataSetTask):
    """A task whose score is made of all outputs of a split at once; derive from it, and say what is learnt.

    A derived class sets `name` and `score`, and has `loss` of `Task` and `measure`.
    """

    statistics: int | None = None
    scores_training: bool = False

    def measure(self, outputs: Any, targets: Any) -> float:
        """The score of a split.

        Args:
            outputs: What the network returned for its samples, on the CPU: tensors (samples, ...), or the lists of
                all batches one behind the other.
            targets: Likewise.
        """
        raise NotImplementedError

    def totals(self, net: Network, batch: Any) -> Any:
        """Outputs and targets."""
        inputs, targets = batch
        return net(inputs), targets

    def result(self, totals: Totals) -> float:
        """See `measure`."""
        outputs, targets = zip(*totals, strict=True)
        return float(self.measure(joined(outputs), joined(targets)))


def joined(batches: Sequence[Any]) -> Any:
    """What networks returned for some batches, as for one: tensors (batch, ...), dicts of them, or lists."""
    import torch

    first = batches[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(batches))
    if isinstance(first, Mapping):
        return {key: joined([batch[key] for batch in batches]) for key in first}
    return [part for batch in batches for part in batch]


def shape_problem(output: Any, shape: tuple[int, ...], wanted: str) -> str | None:
    """Why an output is not a tensor of a shape, after "the network ..."; None if it is.

    Args:
        output: What a network returned.
        shape: With the batch.
        wanted: In words.
    """
    import torch

    if not isinstance(output, torch.Tensor):
        return f"returns a {type(output).__name__}; a tensor of {wanted} can be trained"
    if tuple(output.shape) != shape:
        given = tuple(output.shape)
        return f"returns a tensor of shape {given} for {shape[0]} samples; {wanted} can be trained, {shape}"
    return None


def judge(task: Task, totals: Totals, what: str) -> float:
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
