"""Data sets of a user's own arrays and Datasets: what comes out of them, and what is refused."""

import os
import random
import signal
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from prunas.data import arrays, datasets
from prunas.data.dataset import DataSet
from prunas.data.in_memory import InMemory
from prunas.data.resident import Resident
from prunas.data.samples import Form
from prunas.data.streamed import Streamed
from prunas.errors import InputError

CPU = torch.device("cpu")
DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (40, 3, 6, 5), np.uint8)
VECTORS = DRAW.normal(size=(40, 7))
CLASSES = np.arange(40) % 4
BOXES = np.tile(np.array([[1.0, 1, 3, 4], [0, 0, 2, 2]], np.float32), (40, 1, 1))
OBJECTS = np.stack([np.arange(40) % 3, np.where(np.arange(40) % 2, 1, -1)], axis=1)

TARGETS = {
    "class": (CLASSES, 4, Form((), "int64")),
    "multilabel": (DRAW.integers(0, 2, (40, 5)).astype(bool), 5, Form((5,), "uint8")),
    "number": (VECTORS[:, 0], 0, Form((1,), "float32")),
    "values": (VECTORS[:, :2], 0, Form((2,), "float32")),
    "mask": (np.where(IMAGES[:, 0] < 9, 255, IMAGES[:, 0] % 3), 3, Form((6, 5), "int64")),
    "boxes": (
        {"boxes": BOXES, "labels": OBJECTS},
        3,
        {"boxes": Form((2, 4), "float32"), "labels": Form((2,), "int64")},
    ),
}


class Listed(Dataset[Any]):
    """Rows of arrays, one by one, of boxes only those that are there."""

    def __init__(self, x: Any, y: Any, change: Any = None) -> None:
        self.x, self.y, self.change = x, y, change

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.y, dict):
            there = self.y["labels"][index] >= 0
            target = {key: part[index][there] for key, part in self.y.items()}
        else:
            target = self.y[index]
        pair = self.x[index], target
        return pair if self.change is None else self.change(index, *pair)


def first(data: DataSet, split: Any = "train", **options: Any) -> Any:
    return next(data.batches(split, 8, device=CPU, **options))


@pytest.mark.parametrize("x", [IMAGES, VECTORS], ids=["images", "vectors"])
@pytest.mark.parametrize("kind", TARGETS)
def test_arrays_and_datasets_give_the_same_batches(kind: str, x: Any) -> None:
    y, classes, form = TARGETS[kind]
    held, streamed = arrays("mine", (x, y)), datasets(Listed(x, y), name="mine")
    for data in (held, streamed):
        assert (data.classes, data.targets, data.shape) == (classes, form, x.shape[1:])
        assert data.sizes == {"train": 29, "val": 3, "train+val": 32, "test": 8}
        assert all(np.array_equal(data.splits[split], held.splits[split]) for split in data.splits)
    at = held.splits["test"]
    expected = x[at] / 255 if x is IMAGES else x[at]
    for data in (held, streamed, arrays("mine", (x, y), resident=False)):
        inputs, targets = first(data, "test")
        np.testing.assert_allclose(inputs, expected, rtol=1e-6)
        if isinstance(y, dict):
            there = y["labels"][at] >= 0
            assert np.array_equal(targets["labels"], y["labels"][at])
            assert np.array_equal(targets["boxes"][there], y["boxes"][at][there])
        else:
            assert np.array_equal(targets.reshape(y[at].shape), y[at].astype(targets.numpy().dtype))
    # The order of an epoch is the same wherever the samples are kept.
    for one, other in zip(
        *(data.batches("train", 8, device=CPU, seed=3) for data in (held, streamed)), strict=True
    ):
        assert torch.equal(one[0], other[0])


def test_images_with_class_ids_stay_bytes_and_are_normalised() -> None:
    data = arrays("mine", (IMAGES, CLASSES), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), pad=1, flip=True)
    assert isinstance(data, Resident)
    x, y = first(data, "test", channels_last=True)
    at = data.splits["test"]
    mean, std = (np.reshape(v, (3, 1, 1)) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    np.testing.assert_allclose(x, (IMAGES[at] / 255 - mean) / std, atol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == CLASSES[at].tolist()
    again = arrays("mine", (IMAGES, CLASSES), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), pad=1, flip=True)
    assert again.identity == data.identity
    streamed = arrays("mine", (IMAGES, CLASSES), pad=1, flip=True, resident=False)
    assert isinstance(streamed, Streamed)
    plain, moved = (first(streamed, seed=1, augment=augment)[0] for augment in (False, True))
    assert not torch.equal(plain, moved)
    for image, crop in zip(
        plain, moved, strict=True
    ):  # each a shifted copy, mirrored or not, of the same image
        padded = torch.nn.functional.pad(torch.stack((image, image.flip(-1))), (1, 1, 1, 1))
        windows = padded.unfold(2, 6, 1).unfold(3, 5, 1)
        assert any(torch.equal(crop, windows[k, :, i, j]) for k in (0, 1) for i in range(3) for j in range(3))


def test_content_is_the_identity() -> None:
    same = arrays("mine", (VECTORS, CLASSES))
    assert isinstance(same, InMemory)
    other = VECTORS.copy()
    other[39, 6] += 1
    relabelled = np.roll(CLASSES, 1)
    identities = {
        same.identity,
        arrays("mine", (other, CLASSES)).identity,
        arrays("mine", (VECTORS, relabelled)).identity,
        arrays("mine", (VECTORS, CLASSES), split_seed=1).identity,
        datasets(Listed(VECTORS, CLASSES)).identity,
        datasets(Listed(other, CLASSES)).identity,
        datasets(Listed(VECTORS, CLASSES), mean=()).identity,
    }
    assert len(identities) == 6
    assert arrays("mine", (torch.from_numpy(VECTORS), CLASSES.tolist())).identity == same.identity


def test_a_stated_version_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path))
    read: list[int] = []

    def note(index: int, x: Any, y: Any) -> Any:
        read.append(index)
        return x, y

    def made(version: str) -> DataSet:
        read.clear()
        return datasets(Listed(IMAGES, CLASSES, note), name="mine", version=version, workers=0)

    one = made("1")
    assert set(read) == set(range(40))
    again = made("1")
    assert len(set(read)) < 10  # those that tell whether transforms are random
    assert (again.identity, again.classes, again.targets) == (one.identity, one.classes, one.targets)
    assert np.array_equal(again.labels, one.labels)
    assert made("2").identity != one.identity
    assert set(read) == set(range(40))


@pytest.mark.parametrize(
    ("given", "sizes", "note"),
    [
        ({"val": 10, "test": 10}, (40, 10, 10), ""),
        ({"test": 10}, (36, 4, 10), ""),
        ({"val": 10}, (40, 5, 5), "half of the validation split"),
        ({}, (29, 3, 8), "a fifth of the samples"),
    ],
)
def test_splits_that_are_not_given_are_made(given: dict[str, int], sizes: tuple[int, ...], note: str) -> None:
    def pair(n: int) -> Any:
        return VECTORS[:n], CLASSES[:n]

    data, other = (
        arrays("mine", pair(40), **{key: pair(n) for key, n in given.items()}, split_seed=seed)
        for seed in (0, 1)
    )
    assert tuple(data.sizes[split] for split in ("train", "val", "test")) == sizes
    assert sorted(np.concatenate([data.splits[s] for s in ("train", "val", "test")])) == list(
        range(sum(sizes))
    )
    assert note in " ".join(data.notes) and bool(data.notes) == bool(note)
    assert np.array_equal(data.splits["test"], other.splits["test"])
    for split in ("train", "test"):
        counts = np.bincount(data.labels[data.splits[split]], minlength=4)
        assert counts.max() - counts.min() <= 1


def jitter(index: int, x: Any, y: Any) -> Any:
    """A transform that draws from everything that is seeded."""
    drawn = torch.rand(1).item() + float(np.random.rand()) + random.random()  # noqa: NPY002
    return torch.as_tensor(x).float() + drawn, y


def test_random_transforms_depend_on_seed_epoch_and_sample_alone() -> None:
    train, plain = Listed(VECTORS, CLASSES, jitter), Listed(VECTORS, CLASSES)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    def epoch(workers: int, number: int = 1, start: int = 0) -> list[Any]:
        data = datasets(train, plain=plain, workers=workers)
        feed = data.feed(data.members("train"), 8, device=CPU, augment=True)
        list(feed.draws(4, number + 1))  # an epoch before, by the same workers
        return [feed.gather(draw) for draw in feed.draws(4, number, start)]

    alone = epoch(0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    for same in (epoch(1), epoch(2), [*alone[:2], *epoch(2, start=2)]):
        assert all(
            torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(alone, same, strict=True)
        )
    assert not torch.equal(alone[0][0], epoch(0, 2)[0][0])
    # Of a part of the samples, each is augmented as among all.
    data = datasets(train, plain=plain)
    (feed,) = (data.feed(data.members("train")[:5], 8, device=CPU, augment=True) for _ in range(1))
    few = torch.cat([feed.gather(draw)[0] for draw in feed.draws(4, 1)])
    every = torch.cat([x for x, _ in alone])
    assert not data.notes or "random" not in " ".join(data.notes)
    for x in first(data, "val")[0]:
        assert (torch.from_numpy(VECTORS).float() == x).all(1).any()
    assert len(few) == 5 and len(every) == 29


def test_random_validation_samples_are_noted_and_what_is_not_seeded_is_refused() -> None:
    assert "plain=" in " ".join(datasets(Listed(VECTORS, CLASSES, jitter)).notes)
    generator = np.random.default_rng()
    unseeded = Listed(VECTORS, CLASSES, lambda i, x, y: (x + generator.normal(), y))
    with pytest.raises(InputError, match="another one each time"):
        datasets(unseeded)


def other_at(at: int, x: Any = None, y: Any = None) -> Any:
    """A Dataset of images whose sample `at` is another one."""

    def change(index: int, inputs: Any, target: Any) -> Any:
        if index != at:
            return inputs, target
        return inputs if x is None else x, target if y is None else y

    return Listed(IMAGES, CLASSES, change)


NAN = np.where(np.arange(40) == 17, np.nan, VECTORS[:, 0])
FLAT = np.where(np.arange(40)[:, None, None] == 5, BOXES[:, :, [0, 1, 0, 3]], BOXES)
REFUSED = {
    "NaN target": (
        lambda: arrays("mine", (VECTORS, NAN)),
        "sample 17 of train has a target that is not finite",
    ),
    "NaN target of a Dataset": (
        lambda: datasets(Listed(VECTORS, NAN)),
        "sample 17 of train has a target that is",
    ),
    "NaN input": (
        lambda: arrays("mine", (np.where(VECTORS[3, 2] == VECTORS, np.inf, VECTORS), CLASSES)),
        "sample 3 of train has inputs that are not finite",
    ),
    "NaN in the test split": (
        lambda: arrays("mine", (VECTORS, VECTORS), test=(VECTORS[:3], np.full((3, 7), np.nan))),
        "sample 0 of test has a target",
    ),
    "negative class": (lambda: arrays("mine", (VECTORS, CLASSES - 1)), "sample 0 of train has class -1"),
    "one class": (
        lambda: arrays("mine", (VECTORS, CLASSES * 0)),
        "all 29 samples of its split 'train' are of class",
    ),
    "one class tested": (
        lambda: arrays("mine", (VECTORS, CLASSES), test=(VECTORS[:3], [2, 2, 2])),
        "all 3 samples of its split 'test' are of class 2",
    ),
    "empty split": (
        lambda: arrays("mine", (VECTORS, CLASSES), val=([], [])),
        "its val split is empty|val has",
    ),
    "empty Dataset": (lambda: datasets(Listed([], [])), "its train split is empty"),
    "lengths": (lambda: arrays("mine", (VECTORS, CLASSES[:-1])), "40 inputs and 39 targets"),
    "other form": (
        lambda: arrays("mine", (VECTORS, CLASSES), test=(VECTORS[:, :5], CLASSES)),
        "test has float32 5 with targets int64 scalar, and train has float32 7",
    ),
    "channels last": (
        lambda: arrays("mine", (IMAGES.transpose(0, 2, 3, 1), CLASSES)),
        "images of 6x5x3; put channels first",
    ),
    "flat box": (
        lambda: arrays("mine", (IMAGES, {"boxes": FLAT, "labels": OBJECTS})),
        "sample 5 of train has the box",
    ),
    "not a pair": (
        lambda: datasets(Listed(VECTORS, CLASSES, lambda i, x, y: x)),
        "sample 0 of train is a ndarray",
    ),
    "other shape": (
        lambda: datasets(other_at(33, x=IMAGES[0][:, 1:]), workers=0),
        "sample 33 of train has inputs of uint8 3x5x5, and the others have uint8 3x6x5",
    ),
    "other shape in a worker": (
        lambda: datasets(other_at(33, x=IMAGES[0][:, 1:]), workers=1),
        "sample 33 of train has inputs of uint8 3x5x5, and the others have uint8 3x6x5",
    ),
    "other target": (
        lambda: datasets(other_at(7, y=0.5)),
        "sample 7 of train has a target of float32 1, and the others have int64 scalar",
    ),
    "error": (
        lambda: datasets(Listed(IMAGES, CLASSES, lambda i, x, y: (x, y) if i != 9 else 1 / 0), workers=1),
        "sample 9 of train cannot be read: ZeroDivisionError: division by zero",
    ),
    "plain": (
        lambda: datasets(Listed(IMAGES, CLASSES), plain=Listed(VECTORS[:3], CLASSES)),
        "plain has 3 samples",
    ),
    "iterable": (lambda: datasets(iter([1])), "give a map-style Dataset"),
    "mean": (lambda: arrays("mine", (IMAGES, CLASSES), mean=(0.5,)), "a number for each of 3 channels"),
    "floats with a mean": (
        lambda: arrays("mine", (VECTORS, CLASSES), mean=(0.5,)),
        "normalise floats yourself",
    ),
    "flipped vectors": (lambda: arrays("mine", (VECTORS, CLASSES), flip=True), "pad and flip are for images"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_on_is_named_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        make()
    message = str(caught.value)
    assert message.startswith("data set '") and "\n" not in message


def test_a_shape_that_changes_now_and_then_is_named_in_training_too() -> None:
    dataset = other_at(-1)
    data = datasets(dataset, workers=0)
    data.parts[0].plain.change = lambda i, x, y: (x[:, 1:] if i == 12 else x, y)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"sample 12 of train has inputs of uint8 3x5x5") as caught:
        list(data.batches("train+val", 8, device=CPU))
        list(data.batches("test", 8, device=CPU))
    assert "\n" not in str(caught.value)


def test_a_worker_that_dies_is_one_line() -> None:
    alive, parent = {"yes": True}, os.getpid()

    def die(index: int, x: Any, y: Any) -> Any:
        if not alive["yes"] and index == 3 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return x, y

    data = datasets(Listed(IMAGES, CLASSES, die), test=Listed(IMAGES, CLASSES), workers=1)
    alive["yes"] = False
    with pytest.raises(InputError, match=r"a process that reads samples died .*workers = 0") as caught:
        list(data.batches("train+val", 8, device=CPU))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["class", "multilabel", "values", "mask", "boxes"])
def test_a_task_is_told_what_its_targets_are(kind: Any) -> None:
    data = arrays("mine", (IMAGES, TARGETS[kind][0]))
    data.require("any", kind)
    other: Any = "mask" if kind != "mask" else "boxes"
    with pytest.raises(
        InputError, match=r"^task 'other' learns (a mask|boxes); the targets of data set 'mine' are"
    ):
        data.require("other", other)
