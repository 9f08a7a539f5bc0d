"""What `shrink` refuses before anything is trained: one line that says what to do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunas.errors import InputError
from prunas.experiments.plan import make_setting
from prunas.experiments.shrink_plan import make_shrink_plan
from prunas.networks import vgg11
from prunas.shrinking import prepare_shrink
from prunas.spaces.load import load_space


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "mine.pth"
    with torch.random.fork_rng(devices=[]):
        torch.save(vgg11(channels=1, base=4, pools=2).state_dict(), path)
    return path


def refused(small_space: Path, weights: Any, **asked: Any) -> str:
    with pytest.raises(InputError) as error:
        prepare_shrink(small_space, weights=weights, **{"keep": 0.5} | asked)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("keep", [0.0, 1.0, 1.5, -0.5, float("nan")])
def test_a_share_that_is_no_share_is_refused(keep: float, small_space: Path, weights: Path) -> None:
    assert "--keep must be above 0 and below 1" in refused(small_space, weights, keep=keep)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"keep": None}, "needs one target; give --keep"),
        ({"budget": "1k"}, "needs one target"),
        ({"keep": None, "budget": "36710"}, "no less than the network has already"),
        ({"epochs": 5, "time": "2h"}, "a budget is --for or --epochs, not both"),
        ({"epochs": 0}, "--epochs must be a whole number above 0"),
        ({"seed": -1}, "--seed must be a whole number from 0"),
        ({"protocol": "finetune:20"}, "epochs come from the budget; leave out :20"),
        ({"protocol": "scratch-b"}, "its length is not a number of epochs"),
        ({"protocol": "scratch-e"}, "none of these inherits the given weights; add finetune"),
        ({"protocol": "finetuned"}, "finetune"),
        ({"proposers": "magnitude"}, "decides kernel, and shrink narrows widths"),
        ({"proposers": "tpe"}, "its trials are trained from scratch"),
        ({"proposers": "l2"}, "unknown proposer"),
        ({"options": {"slimming": {"pull": 1.0}}}, "slimming"),
        ({"input": (1, 8, 8)}, "input= is for a function"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_trained(
    asked: dict[str, Any], reason: str, small_space: Path, weights: Path
) -> None:
    assert reason in refused(small_space, weights, **asked)


def test_a_network_without_weights_or_with_those_of_another_is_refused(
    small_space: Path, weights: Path, tmp_path: Path
) -> None:
    assert "give its weights (--weights FILE)" in refused(small_space, None)
    other = tmp_path / "other.pth"
    torch.save(vgg11(channels=1, base=8, pools=2).state_dict(), other)
    assert "does not fit the dense network: " in refused(small_space, other)


def test_data_without_a_validation_split_are_refused(small_space: Path, weights: Path) -> None:
    setting = make_setting(load_space(str(small_space)), weights=weights)
    bare = replace(setting, images={"train": 1000, "train+val": 1000})
    with pytest.raises(InputError, match="'digits' has no validation split, by which shrink picks"):
        make_shrink_plan(bare, keep=0.5)


def test_a_network_in_which_no_width_varies_is_refused(
    tmp_path: Path, weights: Path, small_space: Path
) -> None:
    held = tmp_path / "held.toml"
    held.write_text(small_space.read_text().partition("[proposers")[0] + '[vary]\nexclude = ["*"]\n')
    assert "none vary there" in refused(held, weights)


def test_a_space_that_widens_is_refused(tmp_path: Path, small_space: Path, weights: Path) -> None:
    wide = tmp_path / "wide.toml"
    wide.write_text(small_space.read_text().partition("[proposers")[0] + "[vary]\nceiling = 2.0\n")
    assert "([vary] ceiling = 2), and shrink inherits its weights" in refused(wide, weights)
