import dataclasses
import shutil

import pytest
import torch
from PIL import Image

from prunas.data import folder as folder_module
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


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture
def photographs(root, tmp_path, monkeypatch):
    """The same images as JPEGs and PNGs, of noise so that there is something to damage."""
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "photographs"
    shutil.copytree(root, copy)
    generator = torch.Generator().manual_seed(0)
    for path in copy.glob("*/*/*.png"):
        pixels = torch.randint(256, (40, 30, 3), generator=generator, dtype=torch.uint8).numpy()
        image = Image.fromarray(pixels)
        image.save(path)
        if int(path.stem) % 2:
            image.save(path.with_suffix(".jpg"))
            path.unlink()
    return copy


DAMAGE = {
    "no image": ("03.jpg", lambda path: path.write_text("<html>404</html>")),
    "empty": ("03.jpg", lambda path: path.write_bytes(b"")),
    "truncated JPEG": ("03.jpg", truncated),
    "truncated PNG": ("04.png", truncated),
    "PNG with a flipped byte": ("04.png", flipped),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_image_is_named_before_anything_is_read(photographs, name, damage):
    damage(photographs / "train" / "b" / name)
    with pytest.raises(InputError) as caught:
        load("folder", photographs)
    message = str(caught.value)
    assert message.startswith(f"1 of 44 images in {photographs} cannot be read, such as train/b/{name} (")
    assert message.endswith("set PRUNAS_SKIP_DAMAGED=1 to leave them out")
    assert "\n" not in message


def test_damaged_images_are_left_out_on_request_and_counted(photographs, monkeypatch):
    sound = load("folder", photographs)
    for path in ("train/b/03.jpg", "train/a/04.png", "val/a/00.png"):
        (photographs / path).write_bytes(b"")
    monkeypatch.setenv("PRUNAS_SKIP_DAMAGED", "1")
    data = load("folder", photographs)
    assert data.sizes == {"train": 35, "val": 3, "train+val": 38, "test": 3}
    assert data.notes == ("damaged images left out: 3, such as train/a/04.png",)
    assert data.identity != sound.identity
    assert sound.notes == ()
    _, labels = zip(*data.batches("test", 4, device=CPU), strict=True)
    assert labels[0].tolist() == [0, 1, 1]


def test_a_class_without_a_whole_image_is_refused(photographs, monkeypatch):
    for path in (photographs / "val" / "a").iterdir():
        path.write_bytes(b"")
    monkeypatch.setenv("PRUNAS_SKIP_DAMAGED", "1")
    with pytest.raises(InputError, match=r"no image of class 'a' in .*val can be read"):
        load("folder", photographs)


def test_images_are_looked_at_once(photographs, monkeypatch):
    looked = []
    original = folder_module._defect
    monkeypatch.setattr(folder_module, "_defect", lambda file: [looked.append(file), original(file)][1])
    for split_seed in (0, 1):
        load("folder", photographs, split_seed=split_seed)
        assert len(looked) == 44
    (photographs / "train" / "a" / "03.jpg").write_bytes(b"")  # another size: looked at again
    with pytest.raises(InputError, match="1 of 44 images"):
        load("folder", photographs, split_seed=2)
