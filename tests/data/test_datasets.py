import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunas.data import DATASETS, data_folder, load
from prunas.data.dataset import stratified
from prunas.data.resident import resident
from prunas.errors import InputError

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def colours(n=60, side=6, pad=2):
    """Random images of three classes."""
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 256, (n, side, side, 3), np.uint8)
    return resident(
        "colours",
        pixels,
        np.arange(n) % 3,
        {"train": np.arange(n // 2), "val": np.arange(n // 2, n - 10), "test": np.arange(n - 10, n)},
        peak=255,
        mean=MEAN,
        std=STD,
        pad=pad,
        flip=True,
    )


def every(batches):
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_the_table_needs_no_torch():
    code = "import sys, prunas.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name():
    with pytest.raises(InputError, match="did you mean cifar10"):
        load("cifar1")


def test_where_the_files_are(monkeypatch, tmp_path):
    monkeypatch.setenv("PRUNAS_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder(tmp_path / "own") == tmp_path / "own"
    monkeypatch.delenv("PRUNAS_DATA")
    assert data_folder().parent.name == "prunas"


def test_digits_are_split_once_and_for_all():
    data, other = load("digits"), load("digits", split_seed=1)
    assert (DATASETS["digits"].shape, DATASETS["digits"].classes) == (data.shape, data.classes)
    assert data.sizes == {"train": 1079, "val": 269, "test": 449, "train+val": 1348}
    parts = [data.splits[name] for name in ("train", "val", "test")]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    for part in parts:
        share = np.bincount(data.labels[part]) / np.bincount(data.labels)
        assert share == pytest.approx(np.full(10, len(part) / 1797), abs=1 / 150)
    assert np.array_equal(data.splits["test"], other.splits["test"])
    assert not np.array_equal(data.splits["val"], other.splits["val"])
    assert data.identity != other.identity
    assert data.identity == "1194de9ff0d0"  # moving this orphans stored runs
    assert load("digits") is data


def test_digits_are_the_normalised_images_of_scikit_learn():
    data, bunch = load("digits"), sklearn.datasets.load_digits()
    x, y = every(data.batches("test", 64, device=CPU))
    at = data.splits["test"]
    assert torch.equal(y, torch.from_numpy(bunch.target[at]))
    expected = (bunch.images[at, None] / 16 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(x, torch.from_numpy(expected).float(), rtol=0, atol=1e-6)
    seen = bunch.images[data.splits["train"]] / 16
    assert (data.mean[0], data.std[0]) == pytest.approx((seen.mean(), seen.std()), abs=1e-4)
    x, _ = every(data.batches("train", 64, device=CPU))
    assert (x.mean().item(), x.std().item()) == pytest.approx((0, 1), abs=1e-3)


@pytest.mark.parametrize("channels_last", [False, True])
def test_augmentation_is_pad_crop_mirror_normalise_of_what_was_drawn(channels_last):
    data = colours()
    feed = data.feed(data.members("train"), 8, device=CPU, augment=True, channels_last=channels_last)
    black = [(0 - m) / s for m, s in zip(MEAN, STD, strict=True)]
    borders = 0
    for draw in feed.draws(3):
        x, y = feed.gather(draw)
        assert x.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        for k, (image, row, column, mirrored) in enumerate(draw[0].T.tolist()):
            padded = np.pad(data.pixels[image], ((2, 2), (2, 2), (0, 0)))
            crop = padded[row : row + 6, column : column + 6]
            crop = crop[:, ::-1] if mirrored else crop
            expected = (crop / 255 - MEAN) / STD
            np.testing.assert_allclose(x[k].permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-6)
            assert y[k] == data.labels[image]
            if row == 0:
                borders += 1
                np.testing.assert_allclose(x[k, :, 0, 0].numpy(), black, atol=1e-6)
    assert borders > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_what_a_cpu_sees():
    data = colours()
    options = {"seed": 3, "epoch": 1, "augment": True, "channels_last": True}
    x, y = every(data.batches("train", 8, device=CPU, **options))
    u, v = every(data.batches("train", 8, device=torch.device("cuda"), **options))
    torch.testing.assert_close(u.cpu(), x)
    assert torch.equal(v.cpu(), y)


def test_every_crop_and_both_mirrors_occur_about_equally_often():
    data = colours()
    feed = data.feed(data.members("train"), 30, device=CPU, augment=True)
    drawn = torch.cat([draw[0] for epoch in range(100) for draw in feed.draws(0, epoch)], dim=1)
    for row, kinds in ((1, 5), (2, 5), (3, 2)):
        counts = drawn[row].bincount(minlength=kinds).tolist()
        assert len(counts) == kinds
        assert counts == pytest.approx([3000 / kinds] * kinds, abs=5 * (3000 / kinds) ** 0.5)


def test_alternating_flips_show_an_image_and_its_mirror_image_in_turn():
    """Jordan 2024, arXiv:2404.00498: random in the first epoch, then every image the other way round."""
    data = colours()

    def mirrored(seed, epoch, split="train"):
        feed = data.feed(data.members(split), 8, device=CPU, augment=True).alternating()
        drawn = torch.cat([draw[0] for draw in feed.draws(seed, epoch)], dim=1)
        return dict(zip(drawn[0].tolist(), drawn[3].tolist(), strict=True))

    first = mirrored(1, 0)
    assert 5 < sum(first.values()) < 25
    for epoch in range(1, 5):
        assert mirrored(1, epoch) == {image: (flip + epoch) % 2 for image, flip in first.items()}
    assert mirrored(2, 0) != first
    assert first.items() <= mirrored(1, 0, "train+val").items()
    plain = data.feed(data.members("train"), 8, device=CPU, augment=True)
    rest = [draw[0][:3] for draw in plain.alternating().draws(1, 3)]
    assert all(map(torch.equal, rest, (draw[0][:3] for draw in plain.draws(1, 3))))
    still = data.feed(data.members("train"), 8, device=CPU).alternating()
    assert not torch.cat([draw[0] for draw in still.draws(1, 3)], dim=1)[3].any()


def test_an_epoch_depends_on_seed_and_number_alone():
    data = colours()

    def drawn(seed, epoch, start=0):
        feed = data.feed(data.members("train"), 8, device=CPU, augment=True)
        return [draw[0] for draw in feed.draws(seed, epoch, start)]

    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = drawn(1, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert [part.shape[1] for part in first] == [8, 8, 8, 6]
    assert data.steps("train", 8) == 4
    assert torch.cat(first, dim=1)[0].sort().values.tolist() == list(range(30))
    assert all(map(torch.equal, first, drawn(1, 2)))
    assert all(map(torch.equal, first[3:], drawn(1, 2, start=3)))
    for other in (drawn(1, 3), drawn(2, 2), drawn(2, 1)):
        assert not torch.equal(first[0], other[0])


def test_without_augmentation_images_are_shuffled_whole():
    data = colours()
    plain, labels = every(data.batches("train", 8, device=CPU))
    x, y = every(data.batches("train", 8, device=CPU, seed=0))
    assert labels.tolist() == [0, 1, 2] * 10
    assert not torch.equal(x, plain)
    assert sorted(x.sum((1, 2, 3)).tolist()) == sorted(plain.sum((1, 2, 3)).tolist())
    assert sorted(y.tolist()) == sorted(labels.tolist())


def test_a_choice_of_images_is_fixed_even_and_nested():
    data = load("digits")
    few, more = data.members("train", 100), data.members("train", 200)
    assert set(few) < set(more) < set(data.splits["train"])
    assert max(np.bincount(data.labels[few])) - min(np.bincount(data.labels[few])) <= 2
    assert data.steps("train", 64, images=100) == 2
    for seed in (0, 1):
        _, y = every(data.batches("train", 64, device=CPU, seed=seed, images=100))
        assert sorted(y.tolist()) == sorted(data.labels[few])
    with pytest.raises(InputError, match="digits has 1079 train images, not 5000"):
        data.members("train", 5000)


def subset(data, split, images):
    return set(data.members(split, images).tolist())


@pytest.mark.parametrize("images", [1, 3, 10, 100, 333, 1000, 1078, 1079])
def test_a_part_of_all_training_images_is_split_as_the_whole_is(images):
    data = load("digits")
    train, val, test = (set(data.splits[split].tolist()) for split in ("train", "val", "test"))
    searched, final = subset(data, "train", images), subset(data, "train+val", images)
    assert len(searched) == images
    assert searched == final & train  # inherited weights have seen nothing that scratch does not see
    assert len(final & val) == math.ceil(images * 269 / 1079)
    assert not searched & (val | test)
    assert not final & test
    assert len(final) - len(final & val) == images
    assert data.steps("train+val", 7, images) == math.ceil(len(final) / 7)


def test_the_largest_part_is_everything_and_smaller_parts_are_nested():
    data = load("digits")
    assert subset(data, "train+val", 1079) == set(data.splits["train+val"].tolist())
    parts = [subset(data, "train+val", images) for images in (1, 2, 50, 51, 700, 1079, 0)]
    assert all(few <= more for few, more in itertools.pairwise(parts))
    with pytest.raises(InputError, match="digits has 1079 train images, not 1080"):
        data.members("train+val", 1080)


def test_classes_of_a_part_are_in_proportion():
    data = load("digits")
    counts = np.bincount(data.labels[data.members("train+val", 500)])
    share = np.bincount(data.labels[data.splits["train+val"]]) / 1348
    assert counts == pytest.approx(share * counts.sum(), abs=2)  # one of each of two choices


@pytest.mark.parametrize("images", [5, 12, 0])
def test_calibration_stays_within_the_images_that_are_trained_on(images):
    data = colours()
    known = every(data.batches("train", 30, device=CPU, images=10))[0]
    x, y = every(data.calibration(images, seed=5, device=CPU, subset=10))
    assert len(y) == (images if 0 < images < 10 else 10)
    assert all(any(torch.equal(image, other) for other in known) for image in x)


def test_calibration_is_the_same_every_time_and_not_augmented():
    data = colours()
    x, y = every(data.calibration(12, seed=5, device=CPU, batch=8))
    again, _ = every(data.calibration(12, seed=5, device=CPU, batch=8))
    other, _ = every(data.calibration(12, seed=6, device=CPU, batch=8))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert y.bincount().tolist() == [4, 4, 4]
    whole, _ = every(data.batches("train", 30, device=CPU))
    assert all(any(torch.equal(image, known) for known in whole) for image in x)


def test_the_data_are_placed_once():
    data = colours()
    first, second = (data.feed(data.members(split), 8, device=CPU) for split in ("train", "test"))
    assert first.windows.data_ptr() == second.windows.data_ptr()


def test_identity_covers_pixels_labels_and_splits():
    data = colours()

    def identity(pixels=data.pixels, labels=data.labels, val=data.splits["val"], pad=2):
        splits = {"train": data.splits["train"], "val": val, "test": data.splits["test"]}
        made = resident("colours", pixels, labels, splits, peak=255, mean=MEAN, std=STD, pad=pad, flip=True)
        return made.identity

    brighter = data.pixels.copy()
    brighter[0, 0, 0, 0] ^= 1
    others = {
        identity(pixels=brighter),
        identity(labels=data.labels[::-1].copy()),
        identity(val=data.splits["val"][1:]),
        identity(pad=1),
    }
    assert identity() == data.identity
    assert len({data.identity, *others}) == 5


@given(st.integers(2, 6), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_every_beginning_of_a_stratified_order_is_even(classes, each, seed):
    labels = np.repeat(np.arange(classes), each)
    order = stratified(labels, seed)
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    for k in range(1, len(labels) + 1):
        counts = np.bincount(labels[order[:k]], minlength=classes)
        assert counts.max() - counts.min() <= 1
