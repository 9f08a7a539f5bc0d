import dataclasses

import pytest

from prunas.designs.stages import decided, match
from prunas.errors import InputError
from prunas.spaces.load import load_space


def test_the_study_s_pair_corresponds_without_a_word():
    found = match(load_space("vgg16-c10"), load_space("vgg19-c100"), "width")
    assert found == ({0: 0, 1: 1, 2: 2, 3: 3, 4: 4}, "")


def test_as_many_stages_correspond_in_their_order_and_that_is_said():
    found = match(load_space("preresnet20-digits"), load_space("preresnet164-c10"), "kernel")
    assert found.stages == {0: 0, 1: 1, 2: 2}
    assert found.note == (
        "stages of preresnet20-digits and preresnet164-c10 matched in their order: "
        "8x8 to 32x32, 4x4 to 16x16, 2x2 to 8x8"
    )


def test_other_numbers_of_stages_correspond_by_the_size_of_their_maps():
    vgg, resnet = load_space("vgg16-c10"), load_space("resnet56-c10")
    found = match(vgg, resnet, "width")
    assert found.stages == {0: 0, 1: 1, 2: 2}
    assert found.note.endswith("32x32 to 32x32, 16x16 to 16x16, 8x8 to 8x8; 4x4, 2x2 of vgg16-c10 not used")
    with pytest.raises(InputError, match=r"the 4x4 of 'vgg16-c10' \(it has 32x32, 16x16, 8x8\); choose"):
        match(resnet, vgg, "width")


def test_what_lies_behind_the_last_map_is_no_counterpart_of_a_map():
    headed, vgg = load_space("vgg16-l1-c10"), load_space("vgg16-c10")
    headed = dataclasses.replace(headed, exclude=("features.0", "features.3"))
    assert decided(headed, "width") == [1, 2, 3, 4, 5]
    assert headed.survey.stages[5] == ()
    with pytest.raises(InputError, match="the 32x32 of 'vgg16-c10'"):
        match(headed, vgg, "width")
    fewer = dataclasses.replace(vgg, exclude=("features.0", "features.3"))
    assert match(headed, fewer, "width").stages == {1: 1, 2: 2, 3: 3, 4: 4}


def test_a_network_without_anything_to_decide_is_named():
    with pytest.raises(InputError, match="'vgg16-c10' has no blocks that may be removed"):
        match(load_space("vgg16-c10"), load_space("preresnet20-digits"), "depth")
