"""Hugging Face data sets from disk."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunas.data import hugging_face
from prunas.errors import InputError

CPU = torch.device("cpu")
DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 256, (30, 12, 10, 3), np.uint8)
LABELS = [k % 3 for k in range(30)]

package = pytest.importorskip("datasets", reason="needs the extra datasets")


def columns(n: int = 30) -> Any:
    return package.Dataset.from_dict({"image": [Image.fromarray(p) for p in PIXELS[:n]], "label": LABELS[:n]})


def test_a_folder_of_splits(tmp_path: Path) -> None:
    package.DatasetDict(train=columns(), validation=columns(9), test=columns(6)).save_to_disk(
        tmp_path / "photos"
    )
    data = hugging_face(tmp_path / "photos")
    assert (data.name, data.shape, data.classes) == ("photos", (3, 12, 10), 3)
    assert data.sizes == {"train": 30, "val": 9, "train+val": 39, "test": 6}
    x, y = next(data.batches("test", 6, device=CPU))
    np.testing.assert_allclose(x, PIXELS[:6].transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    assert y.tolist() == LABELS[:6]
    assert hugging_face(tmp_path / "photos").identity == data.identity


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_file_is_split_and_prepared(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path / "cache"))
    if suffix == "parquet":
        columns().to_parquet(tmp_path / "some.parquet")
        path = tmp_path / "some.parquet"
    else:
        columns().save_to_disk(tmp_path / "some")
        (path,) = (tmp_path / "some").glob("*.arrow")
    data = hugging_face(path, size=8, channels=1, mean=[0.5], std=[0.5], augment="flip", name="mine")
    assert (data.name, data.shape) == ("mine", (1, 8, 8))
    assert data.sizes == {"train": 22, "val": 2, "train+val": 24, "test": 6}
    assert "no test split was given" in data.notes[0]
    plain, _ = next(data.batches("train", 22, device=CPU, seed=0))
    flipped, _ = next(data.batches("train", 22, device=CPU, seed=0, augment=True))
    same = [torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    assert {True, False} == set(same)
    assert all(one or torch.equal(a, b.flip(-1)) for one, a, b in zip(same, plain, flipped, strict=True))


def test_columns_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path / "cache"))
    table = DRAW.normal(size=(40, 3)).round(3)
    lines = ["a,b,price", *(",".join(map(str, row)) for row in table)]
    (tmp_path / "houses.csv").write_text("\n".join(lines) + "\n")
    data = hugging_face(tmp_path / "houses.csv", image=["a", "b"], label="price")
    x, y = next(data.batches("test", 8, device=CPU))
    np.testing.assert_allclose(torch.cat((x, y), 1), table[data.splits["test"]], rtol=1e-6)


def test_what_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.txt").write_text("")
    (tmp_path / "empty").mkdir()
    named = columns().add_column("kind", ["a"] * 30)
    for make, says in (
        (
            lambda: hugging_face(tmp_path / "absent"),
            "there is no .*absent; give a folder that save_to_disk wrote",
        ),
        (lambda: hugging_face(tmp_path / "other.txt"), "is none of the files that are read, .parquet"),
        (lambda: hugging_face(tmp_path / "empty"), "empty cannot be read: "),
        (
            lambda: hugging_face(columns(), image="img"),
            "unknown column of data set 'own' 'img'; did you mean image",
        ),
        (
            lambda: hugging_face(package.DatasetDict(train=columns()), train="tran"),
            "unknown split .*mean train",
        ),
        (lambda: hugging_face(named, label="kind"), "sample 0 of train holds a str; numbers"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            make()
        assert "\n" not in str(caught.value)
    original = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'prunas\[datasets\]'"):
        hugging_face(tmp_path)
