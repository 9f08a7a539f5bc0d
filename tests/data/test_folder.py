import dataclasses

import pytest
import torch
from PIL import Image

from prunas.data import load
from prunas.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of 20 + 2 images: class a dark with a bright left edge, class b of one colour."""
    root = tmp_path_factory.mktemp("images")
    for part, n in (("train", 20), ("val", 2)):
        for label in "ab":
            (root / part / label).mkdir(parents=True)
            for k in range(n):
                image = Image.new("RGB", (40, 30), (255, 51, 0) if label == "b" else (10 * k, 0, 0))
                if label == "a":
                    image.paste((255, 255, 255), (0, 0, 10, 30))
                image.save(root / part / label / f"{k:02}.png")
    return root


def test_splits_and_test_images(root):
    data = load("folder", root)
    assert data.sizes == {"train": 36, "val": 4, "train+val": 40, "test": 4}
    assert data.labels[data.splits["val"]].tolist() == [0, 0, 1, 1]
    assert (data.shape, data.classes) == ((3, 224, 224), 2)
    assert load("folder", root, split_seed=1).identity != data.identity
    x, y = next(data.batches("test", 4, device=CPU))
    assert (x.shape, y.tolist()) == ((4, 3, 224, 224), [0, 0, 1, 1])
    plain = [(1.0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.0 - 0.406) / 0.225]
    torch.testing.assert_close(x[2], torch.tensor(plain).view(3, 1, 1).expand(3, 224, 224))


@pytest.mark.parametrize(("images", "val"), [(1, 1), (9, 1), (10, 2), (35, 4), (36, 4)])
def test_a_part_is_split_as_the_whole_is(root, images, val):
    data = load("folder", root)
    final = set(data.members("train+val", images).tolist())
    assert final & set(data.splits["train"].tolist()) == set(data.members("train", images).tolist())
    assert len(final & set(data.splits["val"].tolist())) == val


def test_the_test_crop_is_the_middle_of_the_image_resized_to_256(root):
    x, _ = next(load("folder", root).batches("test", 1, device=CPU))
    # 40x30 becomes 341x256; its bright left quarter ends at 85, the crop starts at 58: 27 columns are bright.
    bright = (x[0, 1, 112] > 0).sum().item()
    assert bright == pytest.approx(27, abs=1)


def test_the_stream_depends_on_seed_and_epoch_alone(root):
    data = load("folder", root)
    members = data.members("train")

    def batches(workers, epoch, start=0):
        copy = dataclasses.replace(data, workers=workers)
        feed = copy.feed(members, 16, device=CPU, augment=True)
        return [feed.gather(draw) for draw in feed.draws(4, epoch, start)]

    before = torch.get_rng_state()
    alone = batches(0, 1)
    assert torch.equal(before, torch.get_rng_state())
    assert [len(y) for _, y in alone] == [16, 16, 4]
    assert sum(y.sum().item() for _, y in alone) == 18
    for same in (batches(2, 1), [*alone[:2], *batches(0, 1, start=2)]):
        for (x, y), (u, v) in zip(alone, same, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    assert not torch.equal(alone[0][0], batches(0, 2)[0][0])


def test_layout(root):
    x, _ = next(load("folder", root).batches("test", 2, device=CPU, channels_last=True))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*train; give .*--data"):
        load("folder", tmp_path)
    for part, label in (("train", "a"), ("val", "b")):
        (tmp_path / part / label).mkdir(parents=True)
    with pytest.raises(InputError, match="valid file for the classes a"):
        load("folder", tmp_path)
    for part, label in (("train", "a"), ("val", "b")):
        Image.new("RGB", (4, 4)).save(tmp_path / part / label / "0.png")
    with pytest.raises(InputError, match="class 'a' is in only one of"):
        load("folder", tmp_path)
