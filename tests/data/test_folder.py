import dataclasses
import shutil

import pytest
import torch
from PIL import Image

from prunas.data import folder as folder_module
from prunas.data import load
from prunas.data.folder import load_folder
from prunas.data.pictures import AUGMENTATIONS
from prunas.errors import InputError
from prunas.experiments.plan import make_setting
from prunas.files import digest
from prunas.spaces.load import load_space
from prunas.works.runtime import task_of_spec

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
    assert message.endswith("set PRUNAS_SKIP_DAMAGED=1 (or skip_damaged = true) to leave them out")
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


def test_a_folder_prepared_as_usual_keeps_its_identity(root):
    # Of its files' names and sizes, as before there were options.
    files = sorted(path for path in root.glob("*/*/*.png"))
    listing = [[path.relative_to(root).as_posix(), path.stat().st_size] for path in files]
    assert load("folder", root).identity == digest(["folder", listing, 0])
    assert load("folder", root, size=224, augment="crop+flip").identity == load("folder", root).identity


def test_size_grey_and_normalisation(root):
    data = load("folder", root, size=8, resize=8, channels=1, mean=[0.5], std=[0.25], augment="none")
    assert data.shape == (1, 8, 8)
    x, _ = next(data.batches("test", 4, device=CPU))
    # The grey of ITU-R 601-2, as PIL converts: 0.299 R + 0.587 G + 0.114 B of (255, 51, 0), in whole numbers.
    grey = round(0.299 * 255 + 0.587 * 51)
    torch.testing.assert_close(x[2], torch.full((1, 8, 8), (grey / 255 - 0.5) / 0.25))
    augmented, _ = next(data.batches("train", 4, device=CPU, seed=0, augment=True))
    plain, _ = next(data.batches("train", 4, device=CPU, seed=0))
    assert torch.equal(augmented, plain)
    identities = {
        load("folder", root, **options).identity
        for options in (
            {},
            {"size": 8},
            {"channels": 1},
            {"augment": "flip"},
            {"mean": [0.5] * 3},
            {"resize": 300},
        )
    }
    assert len(identities) == 6


@pytest.mark.parametrize("augment", [*sorted(AUGMENTATIONS), "shift+flip+trivial"])
def test_augmentations_change_training_images_alone(root, augment):
    data = load("folder", root, size=16, augment=augment)
    x, y = next(data.batches("train", 36, device=CPU, seed=0))
    u, v = next(data.batches("train", 36, device=CPU, seed=0, augment=True))
    assert x.shape == u.shape == (36, 3, 16, 16)
    assert torch.equal(y, v)
    assert torch.equal(x, u) == (augment == "none")


def test_train_alone_is_divided_and_a_test_folder_is_the_test_split(root, tmp_path):
    shutil.copytree(root / "train", tmp_path / "train")
    data = load("folder", tmp_path)
    assert data.sizes == {"train": 29, "val": 3, "train+val": 32, "test": 8}
    assert "no test split was given" in data.notes[0]
    shutil.copytree(root / "val", tmp_path / "test")
    load_folder.cache_clear()
    data = load("folder", tmp_path)
    assert (data.sizes, data.notes) == (load("folder", root).sizes, ())
    shutil.copytree(root / "val", tmp_path / "val")
    load_folder.cache_clear()
    assert load("folder", tmp_path).sizes == {"train": 40, "val": 4, "train+val": 44, "test": 4}


def test_options_stand_in_the_file_of_a_space(photographs, tmp_path):
    (photographs / "train" / "a" / "03.jpg").write_bytes(b"")
    file = tmp_path / "small.toml"
    file.write_text(
        'network = "prunas.networks:vgg11"\n'
        "arguments = { channels = 1, base = 4, pools = 2, classes = 2 }\n"
        'input = [1, 8, 8]\nrecipe = "tiny"\n'
        '[data]\nname = "folder"\nsize = 8\nchannels = 1\naugment = "shift"\nskip_damaged = true\n'
    )
    setting = make_setting(load_space(str(file)), root=photographs)
    assert setting.notes[-1] == "damaged images left out: 1, such as train/a/03.jpg"
    document = setting.dense(0, None).job.spec["data"]
    assert document["options"] == {"size": 8, "channels": 1, "augment": "shift", "skip_damaged": True}
    assert task_of_spec(setting.dense(0, None).job.task).data.identity == setting.identity


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "size must be a whole number of at least 1, not 0"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colours\), not 2"),
        ({"mean": [0.5]}, "need 3 numbers"),
        ({"std": [0.5, 0.5, 0]}, "std is above 0"),
        ({"mean": "grey"}, "mean must be numbers"),
        ({"augment": "crop+flop"}, "unknown augmentation 'flop'; did you mean flip"),
        ({"augment": "none+flip"}, "contradicts itself"),
        ({"size": 64, "resize": 32}, "resize must be 64 at least"),
        ({"sise": 64}, "unknown option of data set 'folder' 'sise'; did you mean size"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(root, options, says):
    with pytest.raises(InputError, match=says) as caught:
        load("folder", root, **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_went_is_named(photographs):
    data = load("folder", photographs)
    load_folder.cache_clear()
    (photographs / "train" / "a" / "03.jpg").unlink()
    with pytest.raises(InputError, match=r"cannot be read: .*train/a/03.jpg: .*put it back") as caught:
        list(data.batches("train+val", 8, device=CPU))
    assert "\n" not in str(caught.value)
