from dataclasses import replace
from pathlib import Path

import pytest

from prunas.errors import InputError
from prunas.recipe import recipe
from prunas.spaces.file import parse
from prunas.spaces.study import Study

WHOLE = """\
# A comment with keep = [7] in it.
network = "mine.py:factory"  # floor = 3
arguments = { classes = 10 }
input = [3, 32, 32]
data = "cifar10"
recipe = "short"
metric = "macs"
keep = [0.5, 0.25]
cap = 2.0

[vary]
groups = ["layer*"]
gates = ["*"]
blocks = ["layer2*"]
exclude = ["layer1*"]
floor = 2
step = 4

[proposers.slimming]
pull = 1.5

[presets."First one"]
widths = [1, 2]
source = "a table"

[presets.second]
slug = "two"
widths = { conv1 = 3 }
selected = { fc = [0, 2] }
removed = ["layer2.1"]
source = "another table"
"""


def test_a_whole_file_becomes_the_settings_of_a_space():
    spec = parse(WHOLE, Path("x.toml"))
    assert (spec.network, spec.arguments, spec.input) == ("mine.py:factory", {"classes": 10}, [3, 32, 32])
    assert spec.settings() == {
        "network": "mine.py:factory",
        "study": Study(
            data="cifar10",
            recipe="short",
            metric="macs",
            keep=(0.5, 0.25),
            cap=2.0,
            finetune=None,
            options={"slimming": {"pull": 1.5}},
        ),
        "groups": ("layer*",),
        "gates": ("*",),
        "blocks": ("layer2*",),
        "exclude": ("layer1*",),
        "floor": 2,
        "step": 4,
        "ceiling": 1.0,
        "raw_presets": {
            "First one": {"slug": "", "source": "a table", "widths": [1, 2], "selected": {}, "removed": []},
            "second": {
                "slug": "two",
                "source": "another table",
                "widths": {"conv1": 3},
                "selected": {"fc": [0, 2]},
                "removed": ["layer2.1"],
            },
        },
    }


def test_fine_tuning_of_a_space():
    text = WHOLE.replace("cap = 2.0", "finetune = { epochs = 20, lr = 0.001 }")
    assert parse(text, Path("x.toml")).settings()["study"].finetune == (20, 0.001)
    for wrong, message in (
        ("epochs = 0", "x.toml:9: finetune.epochs: Input should be greater than or equal to 1"),
        ("epochs = 20, epoch = 3", "x.toml:9: finetune.epoch: unknown key 'epoch'; did you mean epochs"),
        ("epochs = 20, lr = nan } #", "x.toml:9: finetune.lr: Input should be"),
    ):
        with pytest.raises(InputError) as raised:
            parse(text.replace("epochs = 20", wrong), Path("x.toml"))
        assert message in str(raised.value)


TABLE = """\
network = "mine.py:factory"
input = [3, 32, 32]

[recipe]
name = "short"
optimizer = "adamw"
lr = 0.001
schedule = "linear"
milestones = [0.25]
label_smoothing = 0.1
"""


def test_a_recipe_may_be_a_table_of_changes() -> None:
    study = parse(TABLE, Path("x.toml")).settings()["study"]
    changes = {"lr": 0.001, "optimizer": "adamw", "schedule": "linear", "label_smoothing": 0.1}
    assert study.recipe == "short"
    assert study.default_recipe() == recipe("short").replace(milestones=(0.25,), **changes)
    unnamed = parse(TABLE.replace('name = "short"', ""), Path("x.toml")).settings()["study"]
    assert unnamed.default_recipe() == recipe("paper").replace(milestones=(0.25,), **changes)
    plain = parse(WHOLE, Path("x.toml")).settings()["study"]
    assert plain.default_recipe() == recipe("short")
    assert plain == replace(plain, recipe_changes={})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"short"', '"shrot"', ":5: unknown recipe 'shrot'; did you mean short"),
        ('name = "short"', "name = 3", ":5: unknown recipe '3'"),
        ("optimizer =", "optimiser =", ":6: unknown recipe setting 'optimiser'; did you mean optimizer"),
        ('"adamw"', '"adam"', ":6: unknown optimizer 'adam'; did you mean adamw"),
        ("0.001", "-0.001", ":7: recipe 'short': lr must be a finite number above 0, not -0.001"),
        ('"linear"', '"lin"', ":8: unknown schedule 'lin'; did you mean linear"),
        ("[0.25]", "0.25", ":9: recipe 'short': milestones are shares"),
        ("0.1", "[0.1]", ":10: recipe 'short': label_smoothing must be at least 0 and below 1, not [0.1]"),
        ("0.1", "0.1\nnesterov = true", ":4: recipe 'short': only the optimizer sgd has nesterov"),
        ("[recipe]", "[[recipe]]", ":4: recipe: Input should be a valid"),
    ],
)
def test_a_wrong_recipe_table_is_named_with_line_and_setting(old: str, new: str, message: str) -> None:
    assert TABLE.count(old) == 1
    with pytest.raises(InputError) as caught:
        parse(TABLE.replace(old, new), Path("x.toml"))
    assert str(caught.value).startswith(f"x.toml{message}")
    assert "\n" not in str(caught.value)


def test_two_lines_are_enough():
    settings = parse('network = "a.b:c"\ninput = [3, 8, 8]', Path("x.toml")).settings()
    assert settings["groups"] == ("*",)
    assert settings["gates"] == settings["blocks"] == settings["exclude"] == ()
    assert settings["study"] == Study()
    assert (Study().data, Study().recipe, Study().metric, Study().cap) == ("", "paper", "params", None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cap = 2.0", "caps = 2.0", ":9: caps: unknown key 'caps'; did you mean cap"),
        ("floor = 2", "flor = 2", ":16: vary.flor: unknown key 'flor'; did you mean floor"),
        (
            'source = "a table"',
            'sauce = "a table"',
            ":24: presets.First one.sauce: unknown key 'sauce'; did you mean source",
        ),
        ("step = 4", 'step = "four"', ":17: vary.step: Input should be a valid integer"),
        ("floor = 2", "floor = 0", ":16: vary.floor: Input should be greater than or equal to 1"),
        ("keep = [0.5, 0.25]", "keep = [0.5, 25]", ":8: keep.1: Input should be less than or equal to 1"),
        ("keep = [0.5, 0.25]", "keep = [0.0]", ":8: keep.0: Input should be greater than 0"),
        ("cap = 2.0", "cap = -1", ":9: cap: Input should be greater than or equal to 1"),
        ("input = [3, 32, 32]", "input = []", ":4: input: the input [] is none; write "),
        (
            "input = [3, 32, 32]",
            "input = [3, 0, 32]",
            ":4: input: the input's shape [3, 0, 32] has sizes below 1",
        ),
        ("input = [3, 32, 32]\n", "", ": input: Field required"),
        ("mine.py:factory", "mine.py", ":2: network: String should match pattern"),
        (
            '"macs"',
            '"flops"',
            ":7: unknown metric 'flops'",
        ),
        ('"short"', '"shrot"', ":6: unknown recipe 'shrot'; did you mean short"),
        (
            "widths = [1, 2]",
            'widths = [1, "b"]',
            ":23: presets.First one.widths.1: Input should be a valid integer",
        ),
        (
            "{ conv1 = 3 }",
            "{ conv1 = 0.5 }",
            ":28: presets.second.widths.conv1: Input should be a valid integer",
        ),
        (
            'removed = ["layer2.1"]',
            "removed = 1",
            ":30: presets.second.removed: Input should be a valid list",
        ),
        ('"another table"', "4", ":31: presets.second.source: Input should be a valid string"),
        ("[vary]", "[vary", ": not valid TOML: "),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_key(old, new, message):
    assert WHOLE.count(old) == 1
    with pytest.raises(InputError) as caught:
        parse(WHOLE.replace(old, new), Path("folder/x.toml"))
    text = str(caught.value)
    assert text.startswith(f"folder/x.toml{message}")
    assert "\n" not in text


def test_a_broken_toml_file_names_the_line():
    with pytest.raises(InputError, match=r"x\.toml: not valid TOML: .*line 11"):
        parse(WHOLE.replace("[vary]", "[vary"), Path("x.toml"))
