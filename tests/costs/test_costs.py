import itertools
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunas import networks
from prunas.architecture import Architecture, KernelPattern
from prunas.costs.counted import Cost, CostModel
from prunas.costs.kernels import kept_weights
from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.surgery.masks import kernel_masks
from prunas.survey import Layer, Survey
from prunas.tracing.survey import survey

FACTORIES = {
    "vgg11": partial(networks.vgg11, channels=1, base=16, pools=2, head="hidden", conv_bias=True),
    "resnet20": networks.resnet20,
    "preresnet20": networks.preresnet20,
    "densenet": partial(networks.DenseNet, 16, bottleneck=True, compression=0.5),
}


@cache
def surveyed(name: str) -> Survey:
    return survey(FACTORIES[name], (1, 8, 8) if name == "vgg11" else (3, 8, 8))


def arch_of(
    made: Survey, units: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], alive: list[bool]
) -> Architecture:
    """The point of one row of a table; a gate lets its first `count` inputs through, all if it is negative."""
    inputs = CostModel(made).gate_inputs(units[None])[0]
    return Architecture(
        "test",
        made.fingerprint,
        widths=tuple(sorted((group.name, int(n)) for group, n in zip(made.groups, units, strict=True))),
        selected=tuple(
            sorted(
                (gate.name, tuple(range(n)))
                for gate, n, full in zip(made.gates, counts, inputs, strict=True)
                if 0 <= n <= full
            )
        ),
        removed=tuple(sorted(b.name for b, lives in zip(made.blocks, alive, strict=True) if not lives)),
    )


@pytest.mark.parametrize("name", FACTORIES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_table_holds_the_cost_of_every_point(name: str, seed: int) -> None:
    made, model = surveyed(name), CostModel(surveyed(name))
    chance = np.random.default_rng(seed)
    widths = chance.integers(1, model.dense_widths, (7, len(made.groups)), endpoint=True)
    selected = chance.integers(-1, model.gate_inputs(widths), endpoint=True)
    selected[0] = np.minimum(selected[0], 0)
    alive = chance.random((7, len(made.blocks))) < 0.6
    params, macs = model.table(widths, selected, alive)
    conv = model.conv_params_table(widths, selected, alive)
    assert params.shape == macs.shape == (7,) and params.dtype == macs.dtype == np.int64
    for row in range(7):
        arch = arch_of(made, widths[row], selected[row], alive[row].tolist())
        assert model.of(arch) == (params[row], macs[row], params[row], macs[row])
        assert model.conv_params(arch) == conv[row]


def test_what_a_table_leaves_out_is_dense() -> None:
    made, model = surveyed("preresnet20"), CostModel(surveyed("preresnet20"))
    widths = np.stack([model.dense_widths, model.dense_widths - 1])
    everything, nothing = np.full((2, len(made.gates)), -1), np.ones((2, len(made.blocks)), bool)
    short, full = model.table(widths), model.table(widths, everything, nothing)
    assert np.array_equal(short, full)
    assert np.array_equal(model.table(widths, model.gate_inputs(widths)), full)
    assert model.table(widths[:0])[0].shape == (0,)


def test_tables_of_any_length_are_the_same_row_by_row() -> None:
    made, model = surveyed("preresnet20"), CostModel(surveyed("preresnet20"))
    chance = np.random.default_rng(0)
    widths = chance.integers(1, model.dense_widths + 1, (5000, len(made.groups)))
    selected = chance.integers(-1, model.gate_inputs(widths) + 1)
    alive = chance.random((5000, len(made.blocks))) < 0.5
    whole = np.stack(model.table(widths, selected, alive))
    for start in (0, 1234, 4999):
        row = slice(start, start + 1)
        assert np.array_equal(whole[:, row], np.stack(model.table(widths[row], selected[row], alive[row])))


class Pair(nn.Module):
    """Two convolutions and a linear layer, small enough to count by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 4, 1, stride=2)
        self.fc = nn.Linear(4 * 2 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.norm(self.first(x))).flatten(1))


@pytest.mark.parametrize(("first", "second"), list(itertools.product((1, 5, 8), (2, 4))))
def test_counts_by_hand(first: int, second: int) -> None:
    made = survey(Pair, (3, 4, 4))
    arch = Architecture("test", made.fingerprint, (("first", first), ("second", second)))
    params = 9 * 3 * first + 2 * first + first * second + second + (4 * second) * 5 + 5
    macs = 16 * 9 * 3 * first + 4 * first * second + (4 * second) * 5
    assert CostModel(made).of(arch) == Cost(params, macs, params, macs)
    assert CostModel(made).conv_params(arch) == 9 * 3 * first + first * second
    assert CostModel(made).weights(arch) == {"first": (first, 3, 3, 3), "second": (second, first, 1, 1)}


def test_counts_under_a_pattern_by_hand() -> None:
    made = survey(Pair, (3, 4, 4))
    values = (1.0, 0.5, 0.0, 0.25, 0.1, 1.0, 1.0, 0.33, 0.04)
    arch = Architecture("test", made.fingerprint, (("first", 6),)).replace(
        kernels=KernelPattern(frequencies=(("0/3x3", values),), seed=1)
    )
    # 18 kernels: 18 + 9 + 0 + 4 (4.5 to even) + 2 + 18 + 18 + 6 + 1; the 1x1 convolution and the rest stay dense
    kept = 76
    dense = CostModel(made).of(arch.replace(kernels=None))
    gone = 9 * 18 - kept
    assert CostModel(made).of(arch) == Cost(
        dense.params - gone, dense.macs - 16 * gone, dense.params, dense.macs
    )
    assert CostModel(made).conv_params(arch) == kept + 6 * 4  # the second convolution is dense
    (mask,) = kernel_masks(made, arch).values()
    assert mask.sum((0, 1)).ravel().tolist() == [18, 9, 0, 4, 2, 18, 18, 6, 1]
    other = kernel_masks(
        made, arch.replace(kernels=KernelPattern(frequencies=arch.kernels.frequencies, seed=2))
    )
    assert not np.array_equal(other["first.weight"], mask)
    assert np.array_equal(kernel_masks(made, arch)["first.weight"], mask)


def test_exact_masks_are_used_as_they_are() -> None:
    made = survey(Pair, (3, 4, 4))
    mask = np.random.default_rng(0).random((4, 8, 1, 1)) < 0.3
    arch = Architecture("test", made.fingerprint).replace(
        kernels=KernelPattern(masks=(("second", KernelPattern.pack(mask)),))
    )
    assert (
        np.array_equal(kernel_masks(made, arch)["second.weight"], mask) and len(kernel_masks(made, arch)) == 1
    )
    cost = CostModel(made).of(arch)
    assert cost.dense_params - cost.params == 32 - mask.sum()
    assert cost.dense_macs - cost.macs == 4 * (32 - mask.sum())


def test_patterns_that_do_not_fit_are_refused() -> None:
    layer = Layer("conv", "conv", 1, 0, 0, (3, 3))
    with pytest.raises(InputError, match="kernel pattern '1/3x3' has 4 values; a kernel has 9 positions"):
        kept_weights(KernelPattern(frequencies=(("1/3x3", (1.0,) * 4),)), layer, (2, 2, 3, 3))
    text = KernelPattern.pack(np.ones((2, 2, 3, 3), bool))
    with pytest.raises(InputError, match="does not fit weights of shape 4x2x3x3"):
        kept_weights(KernelPattern(masks=(("conv", text),)), layer, (4, 2, 3, 3))
    assert kept_weights(KernelPattern(masks=(("other", text),)), layer, (4, 2, 3, 3)) == 72


def test_a_removed_branch_costs_nothing() -> None:
    made = surveyed("preresnet20")
    model = CostModel(made)
    dense, without = (model.of(Architecture("t", made.fingerprint, removed=r)) for r in ((), ("layer3.1",)))
    # bn 256, conv 256 x 64, bn 64, conv 64 x 64 x 9, bn 64, conv 64 x 256, on maps of 2 x 2
    weights = 256 * 64 + 64 * 64 * 9 + 64 * 256
    assert dense.params - without.params == weights + 2 * (256 + 64 + 64)
    assert dense.macs - without.macs == 4 * weights
    assert "layer3.1.conv1" not in model.weights(Architecture("t", made.fingerprint, removed=("layer3.1",)))


@pytest.mark.parametrize(
    ("text", "value"),
    [("850000", 850_000), ("1.2M", 1_200_000), ("40k", 40_000), ("0.3G", 300_000_000), ("2m", 2_000_000)],
)
def test_budgets_as_people_write_them(text: str, value: int) -> None:
    assert Target.parse(text) == value


@pytest.mark.parametrize("text", ["", "k", "-3", "0", "1.2X", "nan", "inf", "1e400", "many"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a number above 0"):
        Target.parse(text)


def test_targets() -> None:
    assert Target("params", 123, 0.1).label == "10 %"
    assert Target("params", 123, 0.125).label == "12.5 %"
    assert [Target("macs", n).label for n in (999, 1200, 1_200_000, 3 * 10**9)] == [
        "999",
        "1.2k",
        "1.2M",
        "3G",
    ]
    target = Target("channels", 5, 0.5)
    assert Target.from_json(target.to_json()) == target
    assert Cost(1, 2, 3, 4).to_json() == {"params": 1, "macs": 2, "dense_params": 3, "dense_macs": 4}
