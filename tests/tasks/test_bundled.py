"""The bundled tasks: their scores against published and independent values, and what they refuse."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, r2_score
from torch import nn

from examples.canvases import canvases
from prunas.data.samples import Form
from prunas.errors import InputError
from prunas.recipe import recipe
from prunas.tasks import measures
from prunas.tasks.base import Distillable, SplitTask, judge
from prunas.tasks.classification import Classification
from prunas.tasks.detection import Detection, objects
from prunas.tasks.multilabel import Multilabel
from prunas.tasks.regression import Regression
from prunas.tasks.segmentation import Segmentation
from prunas.training.evaluate import evaluate
from tests.tasks.arrays import held

CPU = torch.device("cpu")


class Table(nn.Module):
    """Answers sample i, whose input is the number i, with row i of a table."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x.flatten(1)[:, 0].long()]


def score(task: Any, net: nn.Module, split: str = "val", batch: int = 3) -> float:
    """Of a split in batches of `batch`, as the inputs are as large as can be."""
    return evaluate(net, task, split, device=CPU, recipe=recipe("tiny").replace(batch=batch))


def numbered(n: int, size: int = 512) -> torch.Tensor:
    """Inputs that hold their position, of a size that has four in a batch of evaluation."""
    return torch.arange(n).view(n, 1, 1, 1).expand(n, 1, size, size)


def test_mean_iou_is_that_of_all_pixels_of_a_split() -> None:
    random = np.random.default_rng(0)
    masks = random.integers(0, 4, (32, 6, 5))
    masks[random.random(masks.shape) < 0.2] = 255
    masks[masks == 3] = 2  # class 3 is nowhere
    outputs = torch.as_tensor(random.normal(size=(32, 4, 6, 5)), dtype=torch.float32)
    outputs[:, 3] = -100
    task = Segmentation(held(numbered(32), masks, classes=4))
    val = slice(16, 24)
    judged = masks[val] != 255
    expected = jaccard_score(masks[val][judged], outputs[val].argmax(1).numpy()[judged], average="macro")
    assert score(task, Table(outputs)) == pytest.approx(100 * expected, rel=1e-9)


def test_a_second_head_counts_half_and_ignored_pixels_not_at_all() -> None:
    logits, second = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    masks = torch.tensor([[0, 1, 255, 2]]).expand(2, 4, 4)
    task = Segmentation(held(np.zeros((8, 1, 4, 4)), np.zeros((8, 4, 4), np.int64), classes=3))

    def expected(answer: torch.Tensor) -> torch.Tensor:
        likely = answer.double().log_softmax(1)
        return -torch.stack([likely[:, c, :, column].mean() for column, c in ((0, 0), (1, 1), (3, 2))]).mean()

    both = task.loss(lambda x: {"out": logits, "aux": second}, (None, masks))
    assert both.item() == pytest.approx((expected(logits) + 0.5 * expected(second)).item(), rel=1e-6)
    assert task.loss(lambda x: logits, (None, masks)).item() == pytest.approx(
        expected(logits).item(), rel=1e-6
    )
    nothing = task.loss(lambda x: logits, (None, torch.full((2, 4, 4), 255)))
    assert nothing.item() == 0


def test_average_precision_of_a_published_example() -> None:
    # The example in scikit-learn's documentation of average_precision_score: 0.83.
    outputs = torch.tensor([[0.1, 0.1, 0.0], [0.4, 0.4, 0.0], [0.35, 0.35, 0.0], [0.8, 0.8, 0.0]])
    targets = torch.tensor([[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]])  # the last class is nowhere
    first = (1 / 1 + 2 / 3) / 2
    second = (1 / 2 + 2 / 4) / 2
    assert measures.mean_average_precision(outputs[:, :1], targets[:, :1]) == pytest.approx(100 * first)
    assert measures.mean_average_precision(outputs, targets) == pytest.approx(50 * (first + second))
    assert math.isnan(measures.mean_average_precision(outputs[:, 2:], targets[:, 2:]))


def test_a_score_of_a_whole_split_does_not_hang_on_its_batches() -> None:
    random = np.random.default_rng(1)
    targets = (random.random((32, 3)) < 0.4).astype(np.uint8)
    outputs = torch.as_tensor(random.normal(size=(32, 3)), dtype=torch.float32)
    large, small = (Multilabel(held(numbered(32, size), targets, classes=3)) for size in (512, 1))
    of_val = measures.mean_average_precision(outputs[16:24], torch.as_tensor(targets[16:24]))
    assert score(large, Table(outputs)) == score(small, Table(outputs)) == of_val
    assert small.chance == pytest.approx(100 * targets[24:].mean(0)[targets[24:].any(0)].mean())


def test_rmse_r2_and_the_error_of_a_constant() -> None:
    random = np.random.default_rng(2)
    targets = random.normal(3, 2, (40, 2)).astype(np.float32)
    outputs = torch.as_tensor(targets + random.normal(0, 1, (40, 2)), dtype=torch.float32)
    task = Regression(held(numbered(40), targets))
    errors = (outputs.numpy() - targets).astype(np.float64)[20:30]
    assert score(task, Table(outputs)) == pytest.approx(math.sqrt((errors**2).mean()), rel=1e-6)
    away = targets[30:].astype(np.float64) - targets[:20].mean(0, dtype=np.float64)
    assert task.chance == pytest.approx(math.sqrt((away**2).mean()), rel=1e-6)
    r2 = measures.r2(outputs[20:30], torch.as_tensor(targets[20:30]))
    assert r2 == pytest.approx(
        1 - ((errors**2).sum(0) / ((targets[20:30] - targets[20:30].mean(0)) ** 2).sum(0)).mean(), rel=1e-5
    )
    assert r2 == pytest.approx(r2_score(targets[20:30], outputs[20:30].numpy()), rel=1e-5)
    assert measures.mean_absolute_error(outputs, torch.as_tensor(targets)).shape == (40,)


def test_targets_far_from_unit_deviation_are_noted() -> None:
    plain = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    assert Regression(held(numbered(40, 1), plain)).notes == ()
    (note,) = Regression(held(numbered(40, 1), 1000 * plain + 5000)).notes
    assert "networks learn faster from targets near mean 0 and deviation 1" in note


def test_ap_of_a_published_example() -> None:
    # The example in torchmetrics' documentation of MeanAveragePrecision: map 0.6, map_50 1.0.
    outputs = [{"boxes": torch.tensor([[258.0, 41.0, 606.0, 285.0]]), "scores": torch.tensor([0.536]),
                "labels": torch.tensor([0])}]  # fmt: skip
    targets = {
        "boxes": torch.tensor([[[214.0, 41.0, 562.0, 285.0], [0, 0, 0, 0]]]),
        "labels": torch.tensor([[0, -1]]),
    }
    assert measures.average_precision(outputs, objects(targets)) == pytest.approx(60)
    assert measures.average_precision_50(outputs, objects(targets)) == pytest.approx(100)
    empty = {key: value[:, 1:] for key, value in targets.items()}
    assert math.isnan(measures.average_precision(outputs, objects(empty)))


class Oracle(nn.Module):
    """A detector that knows where everything is, and in training returns two losses."""

    def __init__(self, boxes: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.boxes, self.labels = boxes, labels

    def forward(self, images: list[torch.Tensor], targets: Any = None) -> Any:
        if self.training:
            return {"boxes": torch.tensor(float(len(targets[0]["boxes"]))), "labels": torch.tensor(0.5)}
        answers = []
        for image in images:
            i = int(image[0, 0, 0])
            there = self.labels[i] != -1
            found = {"boxes": self.boxes[i][there], "labels": self.labels[i][there]}
            answers.append({**found, "scores": torch.ones(len(found["labels"]))})
        return answers


def test_a_detector_that_finds_everything_has_an_ap_of_100() -> None:
    drawn = canvases(16, seed=1)
    boxes, labels = torch.as_tensor(drawn.boxes), torch.as_tensor(drawn.detector_labels)
    task = Detection(held(numbered(16, 32), {"boxes": boxes, "labels": labels}, classes=11))
    assert task.unusable() is None and task.chance == 0
    net = Oracle(boxes, labels)
    assert score(task, net) == pytest.approx(100)
    net.labels = (labels % 10 + 1).where(labels != -1, -1)  # every box right, every label wrong
    assert score(task, net) == pytest.approx(0)
    batch = next(iter(task.data.batches("train", 4, device=CPU)))
    assert task.loss(net.train(), batch).item() == (labels[0] != -1).sum() + 0.5
    greatest = labels[:8].amax(1).sort(descending=True).values
    assert labels[task.example(2)].amax(1).sort(descending=True).values.tolist() == greatest[:2].tolist()


Case = tuple[type, Any, int, str]
MASK = np.tile(np.array([[0, 1], [2, 255]]), (8, 1, 1))
BOXES = {"boxes": np.tile(np.float32([[1, 1, 4, 4]]), (8, 1, 1)), "labels": np.ones((8, 1), np.int64)}
UNUSABLE: dict[str, Case] = {
    "one class": (Classification, None, 3, "have only class 0 in train"),
    "no logits of classes": (Multilabel, np.zeros(8, np.int64), 3, "one number for every class is wanted"),
    "grades": (Multilabel, np.full((8, 3), 2), 3, "neither 0 nor 1"),
    "nothing there": (Multilabel, np.zeros((8, 3), np.uint8), 3, "have no image of any class in train"),
    "everything there": (Multilabel, np.ones((8, 3), np.uint8), 3, "have all classes in every image of train"),
    "NaN": (Regression, np.float32([[1, 2, 3, 4, np.nan, 1, 2, 3]]).T, 0, "targets in val that are not finite"),
    "counts": (Regression, np.arange(8)[:, None], 0, "have targets of int64"),
    "constant": (Regression, np.ones((8, 1), np.float32), 0, "have the same target for every sample of train"),
    "one mask class": (Segmentation, np.zeros((8, 2, 2), np.int64), 3, "have only class 0 in the masks of train"),
    "all ignored": (Segmentation, np.full((8, 2, 2), 255), 3, "have no judged pixel in the masks of train"),
    "float mask": (Segmentation, np.zeros((8, 2, 2), np.float32), 3, "have targets of float32"),
    "no boxes": (Detection, np.zeros((8, 4), np.float32), 3, "have no boxes and labels"),
    "background": (Detection, {**BOXES, "labels": np.zeros((8, 1), np.int64)}, 3, "have an object of label 0"),
    "no area": (Detection, {**BOXES, "boxes": np.zeros((8, 1, 4), np.float32)}, 3, "have the box [0.0, 0.0"),
    "no object": (Detection, {**BOXES, "labels": np.full((8, 1), -1)}, 3, "have no object in train"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "targets", "classes", "says"), UNUSABLE.values(), ids=list(UNUSABLE))
def test_data_that_say_nothing_are_refused(kind: type, targets: Any, classes: int, says: str) -> None:
    data = held(np.zeros((8, 1, 2, 2)), np.zeros(8, np.int64) if targets is None else targets, classes)
    assert says in kind(data).unusable()


GOOD: dict[str, tuple[type, Any, int, Any]] = {
    "classification": (Classification, None, 3, torch.zeros(2, 3)),
    "multilabel": (Multilabel, np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1, 2, 0, 1]], 3, torch.zeros(2, 3)),
    "regression": (Regression, np.arange(8, dtype=np.float32)[:, None], 0, torch.zeros(2, 1)),
    "segmentation": (Segmentation, MASK, 3, {"out": torch.zeros(2, 3, 2, 2)}),
    "detection": (Detection, BOXES, 2, [{"boxes": 0, "labels": 0, "scores": 0}] * 2),
}  # fmt: skip
UNFIT: list[tuple[str, Any, str]] = [
    ("multilabel", torch.zeros(2, 4), "returns a tensor of shape (2, 4) for 2 samples; 3 numbers per image"),
    ("multilabel", (torch.zeros(2, 3),), "returns a tuple"),
    ("regression", torch.zeros(2), "returns a tensor of shape (2,) for 2 samples; the shape of its targets"),
    ("segmentation", torch.zeros(2, 3, 4, 4), "3 numbers per pixel of the mask can be trained, (2, 3, 2, 2)"),
    ("segmentation", torch.zeros(2, 2, 2, 2), "has 2 outputs per pixel, and its data have 3 classes"),
    (
        "segmentation",
        {"aux": torch.zeros(2, 3, 2, 2)},
        "returns a dict with aux; the answer is read from 'out'",
    ),
    ("detection", torch.zeros(2, 3), "returns a Tensor in evaluation; a list with a dict"),
    ("detection", [{"boxes": 0}] * 2, "dicts without boxes, labels, scores"),
]


@pytest.mark.parametrize("kind", [Multilabel, Regression, Segmentation])
def test_boxes_and_empty_splits_are_refused_by_name(kind: type) -> None:
    with pytest.raises(
        InputError, match="its data have targets by name, boxes and labels; one tensor is wanted"
    ):
        kind(held(np.zeros((8, 1, 2, 2)), BOXES, 2)).unusable()
    with pytest.raises(InputError, match="its data have no sample in val"):
        kind(held(np.zeros((2, 1, 2, 2)), GOOD[kind.name][1][:2], 3)).unusable()


@pytest.mark.parametrize("name", GOOD)
def test_what_fits_is_accepted(name: str) -> None:
    kind, targets, classes, output = GOOD[name]
    labels = np.arange(8) % 2
    task = kind(held(np.zeros((8, 1, 2, 2)), labels if targets is None else targets, classes, labels))
    assert task.unusable() is None
    assert task.unfit(output, 2) is None


@pytest.mark.parametrize(("name", "output", "says"), UNFIT)
def test_outputs_that_do_not_fit_targets_are_refused(name: str, output: Any, says: str) -> None:
    kind, targets, classes, _ = GOOD[name]
    assert says in kind(held(np.zeros((8, 1, 2, 2)), targets, classes)).unfit(output, 2)


def test_a_teacher_is_followed_in_the_terms_of_the_task() -> None:
    student, teacher = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    ours, theirs = ((z.double() / 2).softmax(1) for z in (student, teacher))
    divergence = 4 * (theirs * (theirs / ours).log()).sum(1).mean()
    data = held(np.zeros((8, 1, 2, 2)), MASK, 3)
    segmented = Segmentation(data).distillation_loss({"out": student, "aux": 0}, {"out": teacher}, 2.0)
    assert segmented.item() == pytest.approx(divergence.item(), rel=1e-5)
    z, t = student[..., 0, 0], teacher[..., 0, 0]
    p, q = ((logits.double() / 2).sigmoid() for logits in (z, t))
    bernoulli = 4 * (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    assert Multilabel(data).distillation_loss(z, t, 2.0).item() == pytest.approx(bernoulli.item(), rel=1e-5)
    squares = (z.double() - t.double()).square().mean()
    assert Regression(data).distillation_loss(z, t, 2.0).item() == pytest.approx(squares.item(), rel=1e-5)
    assert [
        isinstance(kind(data), Distillable) for kind in (Multilabel, Regression, Segmentation, Detection)
    ] == [
        *(True, True, True),
        False,
    ]


def test_targets_of_another_task_are_told_apart() -> None:
    numbers = replace(held(np.zeros((8, 1, 2, 2)), np.arange(8.0)[:, None]), targets=Form((1,), "float32"))
    assert Classification(numbers).unusable() == 'have targets of another kind; write task = "regression"'


def test_a_score_that_is_no_number_is_refused() -> None:
    class Nothing(SplitTask):
        name, score = "nothing", Multilabel.score

        def measure(self, outputs: Any, targets: Any) -> float:
            return float("nan")

    data = held(np.zeros((8, 1, 2, 2)), np.zeros((8, 1), np.float32))
    with pytest.raises(InputError, match=r"its mAP of val is nan, and should be a number from 0.0"):
        judge(Nothing(data), [(torch.zeros(1), torch.zeros(1))], "val")
