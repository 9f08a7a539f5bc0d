"""A recipe that starves is named before anything trains."""

import re
from pathlib import Path
from typing import Any

import pytest

from prunas.cli import main
from prunas.experiments.steps import FEWEST_STEPS, few_steps
from prunas.files import read_json
from prunas.protocols import PROTOCOLS, protocol
from prunas.recipe import recipe
from prunas.spaces.load import load_space
from prunas.works.trainings import Setting


def setting(images: int, **changes: Any) -> Setting:
    short = recipe("short").replace(**changes)
    return Setting(load_space("vgg11-digits"), short, "d", "i", {"train": images, "train+val": images})


def test_few_images_in_large_batches_are_too_few_steps() -> None:
    # 5,000 images in batches of 512: ten a pass, 60 in six epochs. 6 * ceil(5000 / 32) = 942, of 64: 474.
    line = few_steps(setting(5000, epochs=6), [PROTOCOLS["scratch-e"]], dense=False)
    assert line is not None
    assert "a training takes 60 steps (6 epochs of 10 batches of 512)" in line
    assert line.endswith("give it more with --batch 32, at equal cost")


@pytest.mark.parametrize(("epochs", "warned"), [(49, True), (50, False)])
def test_the_limit_is_500(epochs: int, warned: bool) -> None:
    assert FEWEST_STEPS == 500
    line = few_steps(setting(5000, epochs=epochs), [PROTOCOLS["scratch-e"]], dense=False)
    assert (line is not None) == warned


def test_where_no_batch_is_small_enough_epochs_are_missing() -> None:
    line = few_steps(setting(100, epochs=2), [PROTOCOLS["scratch-e"]], dense=False)
    assert line is not None and line.endswith("--batch 16 and more --epochs")


def test_what_inherits_weights_may_be_short_but_not_the_dense_training_behind_it() -> None:
    brief, long = [protocol("finetune:1")], [protocol("scratch-e:200")]
    starving, fed = setting(5000, epochs=6), setting(5000, epochs=60)
    assert few_steps(fed, brief, dense=True) is None
    assert few_steps(starving, brief, dense=False) is None
    assert "60 steps" in str(few_steps(starving, brief, dense=True))
    assert few_steps(starving, long, dense=False) is None
    assert "10 steps (1 epoch of" in str(few_steps(fed, [*long, protocol("scratch-e:1")], dense=True))


def test_a_dry_run_says_it_and_so_does_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "search",
        "vgg11-digits",
        "--proposer",
        "uniform",
        "--keep",
        "0.02",
        "--no-dense",
        "--no-controls",
    )
    words += ("--seeds", "1", "--epochs", "1", "--batch", "64", "--images", "64", "--out", str(tmp_path))
    with pytest.raises(SystemExit):
        main([*words, "--dry-run"])
    printed = capsys.readouterr()
    assert re.search(r"a training takes 2 steps .*--batch 16", printed.err)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit) as ended:
        main([*words])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert printed.err.index("a training takes 2 steps") < printed.err.index("trainings in")
    (stored,) = (tmp_path / "vgg11-digits" / "searches").glob("*.json")
    document = read_json(stored)
    assert any("a training takes 2 steps" in note for note in document["notes"])
    # 361 test images of which 37 at most are of one class: guessing reaches 15 % at most in 95 of 100 tests.
    assert 10 < document["runs"][0]["chance"] < 15
