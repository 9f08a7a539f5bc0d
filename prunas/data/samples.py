"""Samples as a data set holds them: inputs and targets of one shape each, looked at one by one before training.

Inputs are bytes (images, channels first) or float32 of any shape. Targets are what a task reads:

- a class id: int64 scalar, from 0;
- several classes at once: uint8 (classes,), 0 or 1;
- values: float32 of any shape; a single number becomes (1,);
- a mask: integers (H, W), int64 in a batch, `IGNORED` where nothing is judged;
- boxes: `{"boxes": float32 (M, 4), "labels": int64 (M,)}`, corners x1 y1 x2 y2 in pixels, label -1 where there is
  no object. A sample of fewer objects is filled up to M.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from prunas.errors import InputError

__all__ = [
    "ABSENT",
    "CLASS_ID",
    "IGNORED",
    "KINDS",
    "Census",
    "Form",
    "Kind",
    "TargetForm",
    "Targets",
    "kind_of",
    "rows",
    "sample",
    "seen",
    "stack",
]

IGNORED = 255
"""Value of a mask where nothing is judged."""

ABSENT = -1
"""Label where a sample has no further object."""

Kind = Literal["class", "multilabel", "values", "mask", "boxes"]
KINDS: Mapping[Kind, str] = MappingProxyType(
    {
        "class": "a class id",
        "multilabel": "several classes at once",
        "values": "values",
        "mask": "a mask",
        "boxes": "boxes",
    }
)
"""What targets of each kind are called in messages."""

Targets = Tensor | dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Form:
    """Shape and type of one tensor of a sample, as a batch holds it.

    Attributes:
        shape: Without the batch.
        dtype: As torch calls it, such as `int64`.
    """

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, batch: Tensor) -> "Form":
        """That of the samples of a batch."""
        return cls(tuple(batch.shape[1:]), str(batch.dtype).removeprefix("torch."))

    def __str__(self) -> str:
        return f"{self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"


TargetForm = Form | Mapping[str, Form]
CLASS_ID = Form((), "int64")


def kind_of(form: TargetForm) -> Kind:
    """What targets of a form are."""
    if isinstance(form, Mapping):
        return "boxes"
    if form.dtype == "float32":
        return "values"
    return "class" if not form.shape else "multilabel" if len(form.shape) == 1 else "mask"


def rows(targets: Targets, index: Tensor | int) -> Targets:
    """The targets of some samples, or of one."""
    if isinstance(targets, dict):
        return {key: part[index] for key, part in targets.items()}
    return targets[index]


def seen(targets: Targets) -> Targets:
    """Targets of a batch as tasks read them: masks, which are kept as bytes, become class ids."""
    if isinstance(targets, Tensor) and targets.dtype == torch.uint8 and targets.ndim > 2:
        return targets.long()
    return targets


def sample(value: Any) -> tuple[Tensor, Targets]:
    """Inputs and targets of one item of a map-style Dataset.

    Raises:
        InputError: It is no pair, or holds something else than numbers. The message continues "sample 3 of train".
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        size = f" of {len(value)}" if isinstance(value, Sequence) else ""
        raise InputError(f"is a {type(value).__name__}{size}; return a pair (inputs, target)")
    given, target = value
    x = inputs_of(pil_to_tensor(given)[None] if isinstance(given, Image.Image) else _tensor(given)[None])[0]
    if isinstance(target, Mapping):
        return x, rows(targets_of({key: _tensor(part)[None] for key, part in target.items()}, one=True), 0)
    return x, rows(targets_of(_tensor(target)[None]), 0)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Image.Image):  # a mask
        value = np.array(value)
    try:
        array = np.asarray(value)
        return torch.from_numpy(np.ascontiguousarray(array).copy() if array.ndim else np.array(array))
    except (TypeError, ValueError) as error:
        raise InputError(f"holds a {type(value).__name__}; numbers of one shape are wanted") from error


def inputs_of(x: Tensor) -> Tensor:
    """A batch of inputs as they are kept.

    Raises:
        InputError: They are neither bytes nor floating-point numbers, or images with their channels last.
    """
    if x.is_floating_point():
        return x.float()
    if x.dtype != torch.uint8:
        kind = str(x.dtype).removeprefix("torch.")
        raise InputError(f"has inputs of {kind}; images are uint8, everything else is a float")
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise InputError(
            f"has images of {'x'.join(map(str, x.shape[1:]))}; put channels first, as in x.transpose(0, 3, 1, 2)"
        )
    return x


def targets_of(y: Tensor | Mapping[str, Tensor], one: bool = False) -> Targets:
    """A batch of targets as they are kept.

    Args:
        y: A tensor, or boxes and labels by name.
        one: Whether it is a single sample, whose boxes need not be filled up.

    Raises:
        InputError: They are none that a task could read.
    """
    if isinstance(y, Mapping):
        if set(y) != {"boxes", "labels"}:
            raise InputError(f"has targets {', '.join(sorted(map(str, y)))}; objects have boxes and labels")
        boxes, labels = y["boxes"].float(), y["labels"].long()
        boxes = boxes.reshape(*boxes.shape[:1], -1, 4) if one and boxes.numel() == 0 else boxes
        if boxes.ndim != 3 or boxes.shape[2] != 4 or labels.shape != boxes.shape[:2]:
            raise InputError(
                f"has boxes of {tuple(boxes.shape[1:])} and labels of {tuple(labels.shape[1:])}; (M, 4) and (M,) "
                "are wanted"
            )
        return {"boxes": boxes, "labels": labels}
    if y.is_floating_point():
        return y.float() if y.ndim > 1 else y.float()[:, None]
    if y.is_complex():
        raise InputError("has complex targets; give real and imaginary parts as floats")
    if y.dtype == torch.bool:
        y = y.to(torch.uint8)
    return y if y.dtype == torch.uint8 and y.ndim > 1 else y.long()


def stack(samples: Sequence[tuple[Tensor, Targets]], objects: int | None) -> tuple[Tensor, Targets]:
    """A batch of samples of the same forms.

    Args:
        samples: From `sample`.
        objects: To how many boxes are filled up; None takes what the fullest sample of the batch has.
    """
    x = torch.stack([inputs for inputs, _ in samples])
    first = samples[0][1]
    if isinstance(first, Tensor):
        return x, torch.stack([target for _, target in samples if isinstance(target, Tensor)])
    held = [target for _, target in samples if isinstance(target, dict)]
    room = max(len(target["labels"]) for target in held) if objects is None else objects
    boxes, labels = torch.zeros(len(held), room, 4), torch.full((len(held), room), ABSENT)
    for row, target in enumerate(held):
        n = len(target["labels"])
        boxes[row, :n], labels[row, :n] = target["boxes"], target["labels"]
    return x, {"boxes": boxes, "labels": labels}


class Census:
    """What looking at all samples once tells: that they can be trained on, their classes, and their content.

    Attributes:
        classes: Number of classes so far; 0 where targets are values.
        objects: Most boxes of a sample.
        form: Of the targets; None before the first batch.
        inputs: Form of the inputs; None before the first batch.
    """

    def __init__(self) -> None:
        self.classes = 0
        self.objects = 0
        self.form: TargetForm | None = None
        self.inputs: Form | None = None
        self._labels: list[Any] = []
        self._content = [hashlib.sha256(), hashlib.sha256()]

    def add(self, x: Tensor, y: Targets) -> tuple[int, str] | None:
        """Takes note of a batch; the first sample in it that cannot be trained on, and why not."""
        if not x.numel() and len(x):
            return 0, f"has no inputs (shape {tuple(x.shape[1:])})"
        if x.is_floating_point() and (bad := _first(~x.flatten(1).isfinite().all(1))) is not None:
            return bad, "has inputs that are not finite"
        self.inputs = Form.of(x)
        if isinstance(y, dict):
            problem = self._add_boxes(y)
        else:
            self.form = Form.of(seen(y))  # type: ignore[arg-type]  # a tensor stays one
            problem = self._add_tensor(y, kind_of(self.form))
        if problem is None:
            self._content[0].update(x.contiguous().numpy().tobytes())
        return problem

    def _add_tensor(self, y: Tensor, kind: Kind) -> tuple[int, str] | None:
        if kind == "values":
            if (bad := _first(~y.flatten(1).isfinite().all(1))) is not None:
                return bad, "has a target that is not finite; drop the sample, or fill its value in"
            self._labels.append(np.zeros(len(y), np.int64))
        elif kind == "class":
            if (bad := _first(y < 0)) is not None:
                return bad, f"has class {int(y[bad])}; classes are counted from 0"
            self.classes = max(self.classes, int(y.max()) + 1)
            self._labels.append(y.numpy())
        elif kind == "multilabel":
            if (bad := _first(((y != 0) & (y != 1)).any(1))) is not None:
                return bad, f"has targets {y[bad].tolist()}; each class is 0 or 1, values are floats"
            self.classes = y.shape[1]
            self._labels.append(np.packbits(y.numpy().astype(np.uint8), axis=1))
        else:
            judged = y[y != IGNORED]
            if (bad := _first((y < 0).flatten(1).any(1))) is not None:
                return (
                    bad,
                    f"has a mask with {int(y[bad].min())}; classes are counted from 0, {IGNORED} is ignored",
                )
            self.classes = max(self.classes, int(judged.max()) + 1 if judged.numel() else 0)
            self._labels.append(np.zeros(len(y), np.int64))
        self._content[1].update(y.contiguous().numpy().tobytes())
        return None

    def _add_boxes(self, y: Mapping[str, Tensor]) -> tuple[int, str] | None:
        boxes, labels = y["boxes"], y["labels"]
        there = labels != ABSENT
        bad = _first(((labels < 0) & there).any(1))
        if bad is not None:
            return bad, f"has an object of class {int(labels[bad].min())}; classes are counted from 0"
        area = boxes.isfinite().all(2) & (boxes[..., 2:] > boxes[..., :2]).all(2)
        if (bad := _first((there & ~area).any(1))) is not None:
            box = boxes[bad][there[bad] & ~area[bad]][0].tolist()
            return bad, f"has the box {box}; give x1 y1 x2 y2 in pixels with x1 < x2 and y1 < y2"
        counts = there.sum(1)
        self.objects = max(self.objects, labels.shape[1])
        self.classes = max(self.classes, int(labels.max()) + 1 if labels.numel() else 0)
        self.form = {"boxes": Form((self.objects, 4), "float32"), "labels": Form((self.objects,), "int64")}
        first = labels[:, 0] + 1 if labels.shape[1] else torch.zeros(len(labels), dtype=torch.int64)
        self._labels.append(first.numpy())
        for part in (counts, boxes[there], labels[there]):
            self._content[1].update(part.contiguous().numpy().tobytes())
        return None

    @property
    def labels(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """A class per sample, by which splits are even: zeros where targets know no classes.

        Of several classes at once it is their combination; of boxes the class of the first one.
        """
        labels = np.concatenate(self._labels)
        if labels.ndim > 1:
            labels = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        return labels.astype(np.int64)

    @property
    def content(self) -> str:
        """Hex digest of all samples, in their order; how they came in batches does not matter."""
        form = self.form if isinstance(self.form, Form) else "boxes"
        parts = [str(self.inputs), str(form), *(part.hexdigest() for part in self._content)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _first(wrong: Tensor) -> int | None:
    """Position of the first True."""
    return int(wrong.int().argmax()) if bool(wrong.any()) else None
