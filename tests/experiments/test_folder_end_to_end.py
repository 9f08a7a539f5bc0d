"""A folder of pictures, the recipes made for ImageNet, its networks: from the command line to a result."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prunas.cli import main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of small JPEGs, red and blue ones: six each to train on, one each to test on."""
    root = tmp_path_factory.mktemp("pictures")
    for part, n in (("train", 6), ("val", 1)):
        for label, colour in (("blue", (0, 30, 200)), ("red", (210, 30, 0))):
            (root / part / label).mkdir(parents=True)
            for k in range(n):
                picture = Image.new("RGB", (48 + 4 * k, 40), colour)
                picture.paste((250, 250, 250), (k, k, 20, 20))
                picture.save(root / part / label / f"{k}.jpg")
    return root


@pytest.fixture
def called(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The document a command prints, and the folder of its runs."""
    monkeypatch.setenv("PRUNAS_DATA", str(pictures))  # --data sets it too, and would leave it behind

    def call(*arguments: str) -> tuple[Any, Path]:
        quick = ("--epochs", "1", "--batch", "3", "--images", "2")  # and one of validation, in the end
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *quick, "--data", str(pictures), "--out", str(tmp_path), "--json"])
        printed = capsys.readouterr()
        assert not ended.value.code, printed.err
        return json.loads(printed.out), tmp_path

    return call


@pytest.mark.parametrize(
    ("point", "recipe", "rate"),
    [
        ("resnet34-imagenet:ResNet-34-B", "imagenet", 0.1),
        ("resnet50-thinet-imagenet:ResNet50-30%", "imagenet", 0.1),
        ("vgg16-gap-imagenet:VGG-Tiny", "imagenet-vgg", 0.01),
        ("preresnet50-imagenet:SSS ResNet-26", "sss", 0.1),
        pytest.param("vgg11-imagenet:VGG-11-BN (slimming)", "imagenet", 0.1, marks=pytest.mark.slow),
        pytest.param("vgg16-imagenet:VGG-16-5x", "imagenet-vgg", 0.01, marks=pytest.mark.slow),
        pytest.param("vgg16-bn-imagenet", "imagenet", 0.1, marks=pytest.mark.slow),
    ],
)
def test_a_preset_is_trained_on_a_folder(point: str, recipe: str, rate: float, called: Any) -> None:
    row, _ = called("train", point, "--recipe", recipe)
    assert (row["status"], row["trained"], row["epochs"]) == ("finished", 1, 1)
    assert row["test_score"] in (0.0, 50.0, 100.0)  # of two pictures
    result = json.loads((Path(row["folder"]) / "result.json").read_text())
    assert result["spec"]["recipe"]["lr"] == rate
    assert result["spec"]["data"]["name"] == "folder"
    assert len(result["result"]["losses"]) == 1


def test_blocks_are_searched_by_sss_on_a_folder(called: Any) -> None:
    what = ("preresnet50-imagenet", "--proposer", "sss", "--recipe", "sss", "--keep", "0.6")
    document, _ = called("search", *what, "--seeds", "1", "--no-dense", "--no-controls", "--yes")
    assert document["problems"] == []
    (row,) = document["runs"]
    assert (row["status"], row["proposer"]) == ("finished", "sss")
    (cost,) = document["cost"]
    assert cost["trainings"] == 1
