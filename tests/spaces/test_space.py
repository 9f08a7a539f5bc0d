import dataclasses
import json
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunas.architecture import Architecture, KernelPattern
from prunas.costs.metrics import METRICS
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.files import write_json
from prunas.networks import densenet40, vgg11
from prunas.networks.resnet import ResNet
from prunas.spaces.load import load_point, load_space
from prunas.spaces.space import SearchSpace
from prunas.spaces.study import Study

FACTORY = """
from __future__ import annotations

import dataclasses

import torch
from torch import nn

SCALE = torch.tensor([2.0])


@dataclasses.dataclass
class Widths:
    first: int
    second: int


class Scaled(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths.first, 3)
        self.conv2 = nn.Conv2d(widths.first, widths.second, 3)

    def forward(self, x):
        return self.conv2(self.conv1(x).relu()).mean((2, 3))


def factory(first=6):
    net = Scaled(Widths(first, 5))
    with torch.no_grad():
        net.conv1.bias.fill_(SCALE.item())
    return net


def fail():
    raise KeyError("no such width")


thing = 3
"""


@pytest.fixture(scope="module")
def resnet():
    return load_space("resnet20-c10")


@pytest.fixture(scope="module")
def preresnet():
    return load_space("preresnet20-c10")


@pytest.fixture(scope="module")
def whole(preresnet):
    """Streams, inner widths, gates and blocks vary."""
    return dataclasses.replace(preresnet, groups=("*",), gates=("*",), blocks=("*",))


@pytest.fixture
def mine(tmp_path):
    """The TOML file of a user's space, beside the user's Python file."""
    (tmp_path / "net.py").write_text(FACTORY)
    path = tmp_path / "mine.toml"
    path.write_text('network = "net.py:factory"\ninput = [3, 8, 8]\n')
    return path


def test_names_are_answered_with_the_nearest_ones():
    with pytest.raises(InputError, match="unknown space 'vgg16-c1O'; did you mean vgg16-c10"):
        load_space("vgg16-c1O")
    space = load_space("vgg16-l1-c10")
    with pytest.raises(InputError, match=r"unknown preset .*'VGG-16-B'; did you mean VGG-16-A"):
        space.preset("VGG-16-B")
    assert space.preset("vgg-16-a") is space.preset("VGG-16-A")
    with pytest.raises(InputError, match=r"there is no file nowhere/x\.toml"):
        load_space("nowhere/x.toml")


def test_points_are_loaded_by_space_preset_or_file(tmp_path, mine):
    space, arch = load_point("vgg16-l1-c10")
    assert arch == space.dense
    space, arch = load_point("vgg16-l1-c10:vgg-16-a")
    assert arch == space.preset("VGG-16-A").architecture != space.dense
    write_json(tmp_path / "arch.json", arch.to_json())
    again, found = load_point(str(tmp_path / "arch.json"))
    assert (again.name, found) == ("vgg16-l1-c10", arch)
    own = load_space(str(mine))
    point = own.point({"conv1": 2})
    write_json(tmp_path / "own.json", point.to_json())  # beside mine.toml
    again, found = load_point(str(tmp_path / "own.json"))
    assert (again.source, found) == (str(mine), point)


# A user's own space


def test_a_users_own_network_is_surveyed_and_built(mine):
    space = load_space(str(mine))
    assert space.name == "mine"
    assert [(d.name, d.dense) for d in space.dimensions] == [("conv1", 6)]
    net = space.build(space.point({"conv1": 4}))
    assert net.conv1.weight.shape == (4, 3, 3, 3)
    assert net.conv1.bias.tolist() == [2.0] * 4  # the file's own tensor is no meta tensor
    assert space.cost(space.point({"conv1": 4})).params == 4 * 27 + 4 + 5 * 4 * 9 + 5
    assert type(pickle.loads(pickle.dumps(space.factory))()).__name__ == "Scaled"


def test_a_users_space_is_known_by_its_content_and_not_by_its_place(mine, tmp_path):
    space = load_space(str(mine))
    moved = tmp_path / "elsewhere" / "deep"
    (moved / "nets").mkdir(parents=True)
    (moved / "nets" / "net.py").write_text(FACTORY)
    line = 'network = "nets/net.py:factory"\ninput = [3, 8, 8]\n'
    (moved / "mine.toml").write_text(f'{line}keep = [0.4]\nrecipe = "short"\n')
    again = load_space(str(moved / "mine.toml"))
    assert space.reference == again.reference
    assert str(tmp_path) not in json.dumps(space.reference)
    for changed in (line.replace("8, 8", "9, 9"), f"{line}arguments = {{ first = 5 }}\n"):
        (moved / "mine.toml").write_text(changed)
        assert load_space(str(moved / "mine.toml")).reference != space.reference
    (moved / "nets" / "net.py").write_text(FACTORY + "\n\nNEW = 1\n")
    (moved / "mine.toml").write_text(line)
    assert load_space(str(moved / "mine.toml")).reference != space.reference


def test_a_users_space_is_made_again_from_its_content(mine):
    space = load_space(str(mine))
    content = json.loads(json.dumps(space.reference))
    mine.with_name("net.py").unlink()
    mine.unlink()
    again = load_space(content)
    assert (again.name, again.survey) == ("mine", space.survey)
    assert again.build(again.point({"conv1": 4})).conv1.weight.shape == (4, 3, 3, 3)


def test_arguments_that_no_job_can_hold_are_named(mine):
    mine.write_text('network = "net.py:factory"\ninput = [3, 8, 8]\narguments = { first = 2026-01-01 }\n')
    with pytest.raises(InputError, match="space 'mine': arguments must be numbers, texts, lists and tables"):
        load_space(str(mine))


def test_a_changed_network_is_surveyed_anew(mine):
    before = load_space(str(mine))
    mine.with_name("net.py").write_text(FACTORY.replace("first=6", "first=7"))
    after = load_space(str(mine))
    assert (before.dimensions[0].dense, after.dimensions[0].dense) == (6, 7)
    with pytest.raises(InputError, match="made for another network"):
        after.check(before.point({"conv1": 2}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('network = "net.py:factory"\narguments = { depth = 3 }', "'net.py:factory' cannot be made .*depth"),
        ('network = "net.py:fail"', "'net.py:fail' cannot be made .*KeyError: 'no such width'"),
        ('network = "net.py:thing"', "'net.py:thing' is not a function"),
        ('network = "net.py:gone"', "'net.py:gone' cannot be imported: .*gone"),
        ('network = "other.py:factory"', "'other.py:factory': cannot read .*other.py: No such file"),
        ('network = "broken.py:factory"', "'broken.py:factory' cannot be imported: SyntaxError"),
        (
            'network = "no.such.package:factory"',
            "cannot be imported: ModuleNotFoundError: No module named 'no'",
        ),
        (
            'network = "net.py:factory"\n[vary]\ngroups = ["conv9"]',
            r"vary\.groups pattern 'conv9' matches nothing",
        ),
        (
            'network = "net.py:factory"\n[vary]\nexclude = ["cnv1"]',
            r"vary\.exclude pattern 'cnv1' matches nothing",
        ),
    ],
)
def test_a_network_that_cannot_be_used_is_named(mine, line, message):
    mine.with_name("broken.py").write_text("def factory(:")
    first, _, rest = line.partition("\n")
    mine.write_text(f"{first}\ninput = [3, 8, 8]\n{rest}\n")
    with pytest.raises(InputError, match=message) as caught:
        load_space(str(mine))
    assert "\n" not in str(caught.value)


def test_a_bad_preset_is_named_with_its_file(mine):
    text = mine.read_text()
    mine.write_text(text + "[presets.a]\nwidths = [1, 2]\n")
    with pytest.raises(InputError, match=r"mine\.toml: preset 'a': 2 widths are given and 1 groups vary"):
        _ = load_space(str(mine)).presets
    mine.write_text(text + "[presets.b]\nwidths = { conv1 = 7 }\n")
    with pytest.raises(InputError, match=r"mine\.toml: preset 'b': group 'conv1' cannot have 7 units"):
        _ = load_space(str(mine)).presets


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read .*x\.toml"):
        load_space(str(tmp_path / "x.toml"))


def test_a_space_from_python():
    space = SearchSpace.from_model(partial(vgg11, base=4), (3, 32, 32), name="tiny", floor=2)
    assert (space.name, space.floor, space.network) == ("tiny", 2, "prunas.networks.vgg:vgg11")
    assert [d.dense for d in space.dimensions] == [4, 8, 16, 16, 32, 32, 32, 32]
    again = load_space(json.loads(json.dumps(space.reference)))
    assert (again.name, again.floor, again.survey) == ("tiny", 2, space.survey)
    local = SearchSpace.from_model(lambda: vgg11(base=4), (3, 32, 32), name="local")
    inside = load_space(local.reference)  # in this process alone
    assert (inside.name, inside.survey) == ("local", local.survey)
    assert load_space("vgg16-c10").reference == "vgg16-c10"


def test_the_study_is_another_half_than_the_bounds():
    """What is trained in a space changes neither its points nor what makes it again elsewhere."""
    factory = partial(vgg11, base=4)
    plain = SearchSpace.from_model(factory, (3, 32, 32), name="tiny")
    studied = SearchSpace.from_model(
        factory, (3, 32, 32), name="tiny", data="digits", keep=(0.25,), study=Study(metric="macs", cap=2.0)
    )
    assert plain.study == Study()
    assert studied.study == Study(data="digits", metric="macs", keep=(0.25,), cap=2.0)
    assert studied.reference == plain.reference
    assert studied.dense == plain.dense
    assert studied.target(keep=0.25).value == round(0.25 * studied.cost(studied.dense).macs)
    with pytest.raises(TypeError, match="dat"):
        SearchSpace.from_model(factory, (3, 32, 32), name="tiny", dat="digits")


# The cache of surveys


def test_a_second_load_imports_no_torch_and_finds_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path / "cache"))
    surveyed = load_space("vgg11-digits").survey
    code = (
        "import sys; from prunas.spaces.load import load_space; space = load_space('vgg11-digits');"
        "print('torch' in sys.modules, space.survey.digest)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", surveyed.digest]


@pytest.mark.parametrize("damage", ['{"format": 1', "[]", '{"format": 1, "groups": 3}', '{"format": 1}'])
def test_a_damaged_cache_entry_is_made_anew(tmp_path, monkeypatch, mine, damage):
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path / "cache"))
    expected = load_space(str(mine)).survey
    (entry,) = (tmp_path / "cache" / "surveys").iterdir()
    whole = entry.read_bytes()
    entry.write_text(damage)
    assert load_space(str(mine)).survey == expected
    assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch, mine):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNAS_CACHE", str(tmp_path / "file"))
    assert load_space(str(mine)).dimensions[0].dense == 6


# Points


def test_points_are_canonical(whole):
    block = "layer1.1"
    arch = whole.point(
        {"conv1": 16, "layer1.0.conv1": 5, "layer1.1.conv1": 3},
        {"fc": range(256), "layer1.1.conv1": [3, 1], "layer2.0.conv1": [9, 2]},
        [block],
    )
    assert arch.widths == (("layer1.0.conv1", 5),)
    assert arch.selected == (("layer2.0.conv1", (2, 9)),)
    assert arch.removed == (block,)
    assert whole.point({g.name: g.units for g in whole.survey.groups}) == whole.dense


def test_a_group_that_a_removed_branch_shares_with_others_stays(whole):
    # layer1.0.conv3 names the stream of stage 1, which its shortcut, layer1.1 and layer2.0 carry too.
    arch = whole.point({"layer1.0.conv3": 40}, removed=["layer1.0"])
    assert dict(arch.widths) == {"layer1.0.conv3": 40}


def test_numbers_may_come_from_numpy(resnet):
    name = resnet.dimensions[0].name
    arch = resnet.point({name: np.int64(4)})
    assert Architecture.from_json(arch.to_json()) == arch
    with pytest.raises(TypeError):
        resnet.point({name: 4.5})


def test_kernel_patterns_are_canonical_too(whole):
    ones = np.ones((16, 64, 1, 1), bool)
    masks = {
        "layer1.1.conv1": KernelPattern.pack(ones),
        "conv1": KernelPattern.pack(np.ones((16, 3, 3, 3), bool)),
    }
    both = KernelPattern(masks=tuple(masks.items()))
    arch = whole.point(kernels=both, removed=["layer1.1"])
    assert [path for path, _ in arch.kernels.masks] == ["conv1"]
    half, full = ("0/3x3", (0.5,) * 9), ("1/3x3", (1.0,) * 9)
    assert whole.point(kernels=KernelPattern(frequencies=(half, full))).kernels.frequencies == (half,)
    assert whole.point(kernels=KernelPattern(frequencies=(full,))) == whole.dense


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "other"}, "belongs to space 'other', not to 'preresnet20-c10'"),
        ({"network": "0" * 12}, "made for another network"),
        (
            {"widths": (("layer1.0.conv9", 4),)},
            "unknown group .*'layer1.0.conv9'; did you mean layer1.0.conv",
        ),
        ({"widths": (("conv1", 4),)}, "group 'conv1' does not vary"),
        (
            {"widths": (("layer1.0.conv1", 17),)},
            "'layer1.0.conv1' cannot have 17 units; 2 to 16 in steps of 2",
        ),
        ({"widths": (("layer1.0.conv1", 5),)}, "cannot have 5 units"),
        ({"widths": (("layer1.0.conv1", 0),)}, "cannot have 0 units"),
        ({"selected": (("nowhere", (0, 1)),)}, "unknown gate .*'nowhere'"),
        ({"selected": (("layer1.0.shortcut", (0, 1)),)}, "gate 'layer1.0.shortcut' does not vary"),
        ({"selected": (("fc", ()),)}, "'fc' lets too few channels through; 2 is the least"),
        ({"selected": (("fc", (3,)),)}, "'fc' lets too few channels through; 2 is the least"),
        ({"selected": (("fc", (0, 256)),)}, "'fc' selects among 256 channels"),
        ({"selected": (("fc", (-1, 2)),)}, "'fc' selects among 256 channels"),
        ({"selected": (("fc", (2, 1)),)}, "must ascend without repetition"),
        ({"selected": (("fc", (1, 1, 2)),)}, "must ascend without repetition"),
        ({"removed": ("layer1.1",)}, "block 'layer1.1' does not vary"),
        ({"removed": ("layer9",)}, "unknown block .*'layer9'"),
        ({"kernels": KernelPattern(masks=(("fc", ""),))}, "unknown convolution .*'fc'"),
        ({"kernels": KernelPattern(frequencies=(("7/3x3", (1.0,) * 9),))}, "unknown kernel key .*'7/3x3'"),
        (
            {"kernels": KernelPattern(frequencies=(("0/3x3", (0.5,)),))},
            "'0/3x3' has 1 values; a kernel has 9",
        ),
        ({"kernels": KernelPattern(masks=(("conv1", "x"),))}, "a kernel mask is damaged"),
    ],
)
def test_points_outside_are_refused_by_name(preresnet, change, message):
    space = dataclasses.replace(preresnet, floor=2, step=2, blocks=())
    arch = space.dense.replace(**change)
    with pytest.raises(InputError, match=message) as caught:
        space.check(arch)
    assert "\n" not in str(caught.value)


def test_positions_count_in_the_input_as_built(whole):
    selected = {"layer1.1.conv1": (0, 39)}
    arch = whole.point({"layer1.0.conv3": 40}, selected)
    assert dict(arch.selected) == selected
    with pytest.raises(InputError, match="selects among 39 channels"):
        whole.point({"layer1.0.conv3": 39}, selected)


def test_dense_widths_off_the_step_are_allowed(preresnet):
    space = dataclasses.replace(preresnet, step=7)
    space.check(space.point({"layer1.0.conv1": 14}))
    space.check(space.dense)
    assert space.dense_counts[:6].tolist() == [16, 16, 16, 16, 32, 32]
    counts = space.grid([0, 6.9, 14 - 1e-12, 15.5, 31, 40] + [64] * 13)
    assert counts[:6].tolist() == [7, 7, 14, 14, 28, 32]


def test_counts_round_trip(whole):
    generator = np.random.default_rng(0)
    for _ in range(20):
        counts = generator.integers(1, whole.dense_counts + 1)
        arch = whole.counted(counts)
        inputs = whole.counts(arch.replace(selected=()))
        assert whole.counts(arch).tolist() == np.minimum(counts, inputs).tolist()
        assert whole.counted(whole.counts(arch)) == arch
        whole.check(arch)


def test_gates_select_evenly(preresnet):
    fc = [d.name for d in preresnet.dimensions].index("fc")
    counts = preresnet.dense_counts.copy()
    counts[fc] = 5
    assert preresnet.counted(counts).selected == (("fc", (0, 51, 102, 153, 204)),)


# Cost


def outputs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Numbers that all convolutions and linear layers return for one image, as hooks see them."""
    seen = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    with torch.no_grad():
        net.eval()(torch.zeros(1, *shape, device=next(net.parameters()).device))
    return sum(seen)


def flops(net: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net.to("meta").eval()(torch.empty(1, *shape))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["vgg", "preresnet", "whole", "densenet"])
def test_measures_are_those_of_the_built_network(request, name):
    if name == "vgg":
        space = load_space("vgg11-digits")
    elif name == "densenet":
        space = load_space("densenet40-c10")
    else:
        space = request.getfixturevalue(name)
    generator = np.random.default_rng(1)
    table = generator.integers(1, space.dense_counts + 1, (4, len(space.dimensions)))
    measured = {metric: space.measures(table, metric).tolist() for metric in METRICS}
    for i, counts in enumerate(table):
        arch = space.counted(counts)
        net = space.build(arch)
        assert measured["params"][i] == sum(p.numel() for p in net.parameters())
        assert measured["macs"][i] == flops(net, space.survey.input)
        assert measured["channels"][i] == space.measure(arch, "channels") == space.counts(arch).sum()
        assert measured["activations"][i] == outputs(net, space.survey.input)
        assert measured["memory"][i] == 4 * (measured["params"][i] + measured["activations"][i])
        for metric in METRICS:
            assert space.measure(arch, metric) == measured[metric][i]


def test_channels_of_removed_branches_do_not_count():
    space = SearchSpace.from_model(partial(ResNet, 8), (3, 32, 32), name="resnet8", blocks=("*",))
    # The streams of 16, 32 and 64, which the padding shortcuts tie or not, and an inner width each.
    inner = {d.name: d.dense for d in space.dimensions if d.name.endswith("conv1") and "." in d.name}
    assert inner == {"layer1.0.conv1": 16, "layer2.0.conv1": 32, "layer3.0.conv1": 64}
    dense = space.measure(space.dense, "channels")
    assert dense - space.measure(space.point(removed=["layer2.0"]), "channels") == 32
    without = space.point(removed=["layer2.0"])
    assert space.measure(without, "activations") == outputs(space.build(without), space.survey.input)


def test_a_budget_in_parameters_or_macs():
    space = load_space("vgg16-c10")
    assert space.target(keep=0.3) == Target("params", round(0.3 * 14_724_042), 0.3)
    assert space.target(keep=0.5, metric="macs") == Target("macs", 156_600_832, 0.5)
    assert space.target(budget=1_000_000) == Target("params", 1_000_000)
    assert space.target(keep=1.0).value == 14_724_042
    assert space.target().value == 14_724_042


@pytest.mark.parametrize(("pruned", "removed"), [(0.5, 2113), (0.1, 423), (0.9, 3802), (0.7, 2957)])
def test_a_budget_in_channels_is_the_studys_threshold(pruned, removed):
    # VGG-16 has 4224 channels; the study takes element int(4224 p) of the sorted scales and keeps what is above.
    space = load_space("vgg16-c10")
    assert space.measure(space.dense, "channels") == 4224
    assert removed == int(4224 * pruned) + 1
    assert space.target(keep=1 - pruned, metric="channels").value == 4224 - removed


@pytest.mark.parametrize(
    ("name", "channels"),
    [("vgg19-c100", 5504), ("preresnet164-c10", 12_112), ("densenet40-c10", 9360)],
)
def test_what_varies_is_what_the_study_counts(name, channels):
    space = load_space(name)
    assert space.measure(space.dense, "channels") == channels


def test_shares_that_floats_cannot_say_are_meant_exactly():
    space = SearchSpace.from_model(densenet40, (3, 32, 32), name="d40", groups=(), gates=("*",))
    assert space.measure(space.dense, "channels") == 9360  # the study's count of DenseNet-40
    assert space.target(keep=0.9, metric="channels").value == 9360 - 937  # 1 - 0.9 is less than 0.1 in floats


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keep": 0.0}, r"keep must lie in \(0, 1\], not 0"),
        ({"keep": 1.5}, r"keep must lie in \(0, 1\], not 1.5"),
        ({"keep": 1e-6}, "has 15 params; 181 to 14,724,042 can be reached"),
        ({"budget": 20_000_000}, "has 20,000,000 params; 181 to 14,724,042 can be reached"),
        ({"budget": 0}, "has 0 params; 181 to"),
        ({"budget": 12, "metric": "channels"}, "has 12 channels; 13 to 4,224 can be reached"),
        ({"keep": 0.5, "metric": "flops"}, "unknown metric 'flops'"),
        ({"keep": 0.5, "budget": 5}, "a fraction or a number, not both"),
    ],
)
def test_a_budget_out_of_reach_names_the_range(asked, message):
    space = load_space("vgg16-c10")
    # At width 1 everywhere the convolutions have 27 + 12 * 9 weights, the norms 13 * 2, the head 10 + 10.
    with pytest.raises(InputError, match=message):
        space.target(**asked)


def test_weights_are_inherited_for_the_kept_units():
    space = load_space("vgg11-digits")
    weights = space.build().state_dict()
    name = space.dimensions[0].name
    net = space.build(space.point({name: 2}), weights=weights, kept={name: (3, 9)})
    assert torch.equal(net.features[0].weight, weights["features.0.weight"][[3, 9]])
    assert torch.equal(net.features[4].weight, weights["features.4.weight"][:, [3, 9]])
    with pytest.raises(InputError, match="cannot have 99 units"):
        space.build(space.dense.replace(widths=((name, 99),)))
