import hashlib
import os
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from prunas.data import cifar, load
from prunas.errors import InputError

CPU = torch.device("cpu")


def write(path, document):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(document))
    return hashlib.md5(path.read_bytes()).hexdigest()


def images(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), np.uint8)


@pytest.fixture
def ten(tmp_path, monkeypatch):
    """A CIFAR-10 of 100 + 20 images whose checksums torchvision accepts."""
    folder = tmp_path / "cifar-10-batches-py"
    parts = {f"data_batch_{k}": 20 for k in range(1, 6)} | {"test_batch": 20}
    sums = {
        name: write(folder / name, {"data": images(n, k), "labels": [i % 10 for i in range(n)]})
        for k, (name, n) in enumerate(parts.items())
    }
    meta = write(folder / "batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", [(name, sums[name]) for name in list(parts)[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [("test_batch", sums["test_batch"])])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return tmp_path


def test_a_tenth_of_the_training_images_is_for_validation(ten):
    data = load("cifar10", ten)
    assert data.sizes == {"train": 90, "val": 10, "train+val": 100, "test": 20}
    assert np.bincount(data.labels[data.splits["val"]]).tolist() == [1] * 10
    assert (data.shape, data.classes, data.notes) == ((3, 32, 32), 10, ())
    for images_of_train in (1, 9, 10, 44, 89, 90):
        final = set(data.members("train+val", images_of_train).tolist())
        assert final & set(data.splits["train"]) == set(data.members("train", images_of_train).tolist())
        assert len(final & set(data.splits["val"])) == -(-images_of_train // 9)
    x, y = next(data.batches("test", 20, device=CPU))
    planes = images(20, 5).reshape(20, 3, 32, 32) / 255
    mean, std = (np.reshape(v, (3, 1, 1)) for v in ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]))
    np.testing.assert_allclose(x.numpy(), (planes - mean) / std, atol=1e-5)
    assert y.tolist() == [*range(10), *range(10)]
    assert load("cifar10", ten, split_seed=1).identity != data.identity


def test_missing_files_name_the_folder_and_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNAS_DATA", str(tmp_path))
    for name in ("cifar10", "cifar100"):
        with pytest.raises(InputError) as error:
            load(name)
        message = str(error.value)
        assert "\n" not in message
        assert all(word in message for word in (name, str(tmp_path), "--data", "PRUNAS_DATA", "--download"))


def test_an_incomplete_folder_names_the_file(ten):
    (ten / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(InputError, match=r"not complete, .*data_batch_3 is missing"):
        load("cifar10", ten)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("file", ["data_batch_2", "test_batch", "batches.meta"])
def test_no_pickle_is_opened_before_its_checksum_passed(ten, file):
    path, crater = ten / "cifar-10-batches-py" / file, ten / "crater"
    path.write_bytes(pickle.dumps(Bomb(str(crater))))
    with pytest.raises(InputError, match=f"{file} is damaged"):
        load("cifar10", ten)
    assert not crater.exists()
    pickle.loads(path.read_bytes())
    assert crater.exists()  # the bomb is a live one


def test_restored_cifar100_is_accepted_with_a_note(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    sums = {
        part: write(folder / part, {"data": images(200, k), "fine_labels": [i % 100 for i in range(200)]})
        for k, part in enumerate(("train", "test"))
    }
    meta = write(folder / "meta", {"fine_label_names": [str(i) for i in range(100)]})
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": meta})
    with pytest.raises(InputError, match="train is damaged"):
        load("cifar100", tmp_path)
    monkeypatch.setattr(cifar._Restored, "train_list", (("train", sums["train"]),))
    monkeypatch.setattr(cifar._Restored, "test_list", (("test", sums["test"]),))
    data = load("cifar100", tmp_path)
    assert (data.classes, data.sizes["val"]) == (100, 20)
    assert len(data.notes) == 1
    assert "123 images" in data.notes[0]


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    def offline(_):
        raise URLError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", offline)
    with pytest.raises(InputError, match=r"cannot download cifar10 into .*no route to host"):
        load("cifar10", tmp_path, download=True)


@pytest.mark.skipif("PRUNAS_DATA" not in os.environ, reason="needs the real CIFAR in PRUNAS_DATA")
@pytest.mark.parametrize(
    ("name", "classes", "mean", "std"),
    [  # per-channel statistics of all training pixels, as widely published
        ("cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ],
)
def test_the_real_ones(name, classes, mean, std):
    data = load(name)
    assert data.sizes == {"train": 45_000, "val": 5_000, "train+val": 50_000, "test": 10_000}
    for split, each in (("val", 5_000 // classes), ("test", 10_000 // classes)):
        assert np.bincount(data.labels[data.splits[split]]).tolist() == [each] * classes
    for images, held_out in ((500, 56), (5_000, 556), (20_000, 2_223), (44_000, 4_889), (45_000, 5_000)):
        searched, final = (set(data.members(part, images).tolist()) for part in ("train", "train+val"))
        assert searched == final & set(data.splits["train"].tolist())
        assert len(final) == images + held_out
    values = np.arange(256) / 255
    for channel in range(3):
        counts = np.bincount(data.pixels[:50_000, ..., channel].ravel(), minlength=256)
        seen = np.average(values, weights=counts)
        spread = np.average((values - seen) ** 2, weights=counts) ** 0.5
        assert (seen, spread) == pytest.approx((mean[channel], std[channel]), abs=2e-4)
