import dataclasses
import math

import numpy as np
import pytest

from prunas.architecture import Architecture, KernelPattern
from prunas.designs import kernels
from prunas.errors import InputError
from prunas.spaces.load import load_space
from prunas.spaces.space import SearchSpace
from prunas.surgery.masks import kernel_masks


@pytest.fixture(scope="module")
def vgg() -> SearchSpace:
    return load_space("vgg16-c10")


def densities(space: SearchSpace, arch: Architecture) -> dict[str, float]:
    return {name: float(mask.mean()) for name, mask in kernel_masks(space.survey, arch).items()}


@pytest.mark.parametrize("keep", [0.5, 0.1])
@pytest.mark.parametrize("design", [kernels.uniform_kernels, kernels.erk])
@pytest.mark.parametrize("metric", ["params", "macs"])
def test_patterns_meet_their_budget(vgg, design, metric, keep):
    target = vgg.target(keep=keep, metric=metric)
    arch = design(vgg, target)
    assert 0 <= target.value - vgg.measure(arch, metric) <= 1e-4 * target.value
    dense = vgg.cost(vgg.dense)
    assert (vgg.cost(arch).dense_params, vgg.cost(arch).dense_macs) == (dense.params, dense.macs)


def test_uniform_is_one_density_everywhere(vgg):
    found = densities(vgg, kernels.uniform_kernels(vgg, vgg.target(keep=0.3)))
    # 14,710,464 of 14,724,042 parameters are weights of convolutions.
    wanted = (round(0.3 * 14_724_042) - (14_724_042 - 14_710_464)) / 14_710_464
    assert len(found) == 13
    # Counts are whole: half a weight of the 3 * 64 at a position of the first convolution is 0.0026.
    assert all(density == pytest.approx(wanted, abs=0.5 / 192) for density in found.values())


def test_erk_is_its_formula(vgg):
    found = densities(vgg, kernels.erk(vgg, vgg.target(keep=0.05)))
    shapes = {
        "features.7.weight": (64, 128),
        "features.24.weight": (256, 512),
        "features.40.weight": (512, 512),
    }
    wanted = {name: (i + o + 3 + 3) / (i * o * 9) for name, (i, o) in shapes.items()}
    for name in shapes:
        assert found[name] / found["features.40.weight"] == pytest.approx(
            wanted[name] / wanted["features.40.weight"], rel=2e-2
        )


def test_a_planted_pattern_is_read_back_and_carried_over(vgg):
    corner = np.array([0.25, 0.5, 0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 0.25])
    planted = KernelPattern(
        tuple((f"{stage}/3x3", tuple(corner / (stage + 1))) for stage in range(5)), seed=3
    )
    arch = vgg.point(kernels=planted)
    read = kernels.frequencies(vgg, [arch])
    for stage in range(5):
        # Counts are whole: the smallest convolution of stage 0 has 3 * 64 kernels.
        np.testing.assert_allclose(read[f"{stage}/3x3"], corner / (stage + 1), atol=0.5 / 192)
    as_found = kernels.transferred_kernels(vgg, [arch], vgg)
    assert vgg.measure(as_found, "params") == pytest.approx(vgg.measure(arch, "params"), rel=2e-3)
    bigger = load_space("vgg19-c100")
    moved = kernels.transferred_kernels(vgg, [arch], bigger)
    np.testing.assert_allclose(kernels.frequencies(bigger, [moved])["4/3x3"], corner / 5, atol=1e-3)
    target = bigger.target(keep=0.1)
    fitted = kernels.transferred_kernels(vgg, [arch], bigger, target)
    assert bigger.measure(fitted, "params") == pytest.approx(target.value, rel=1e-3)


def test_the_cross_keeps_five_of_nine(vgg):
    arch = kernels.cross(vgg)
    masks = kernel_masks(vgg.survey, arch)
    assert all(mask[..., 1, :].all() and mask[..., :, 1].all() for mask in masks.values())
    assert all(mask.sum() * 9 == mask.size * 5 for mask in masks.values())
    assert vgg.cost(arch).params == 14_724_042 - 14_710_464 * 4 // 9


def test_a_cross_on_a_budget_thins_its_arms_alike(vgg):
    target = vgg.target(keep=0.2)
    read = kernels.frequencies(vgg, [kernels.cross(vgg, target)])
    arms = [read[f"{stage}/3x3"][position] for stage in range(1, 5) for position in (1, 3, 4, 5, 7)]
    assert arms == pytest.approx([arms[0]] * 20, abs=1e-3)
    assert all(read[f"{stage}/3x3"][position] == 0 for stage in range(5) for position in (0, 2, 6, 8))
    assert vgg.measure(kernels.cross(vgg, target), "params") == pytest.approx(target.value, rel=1e-3)


def test_one_by_one_kernels_have_a_density_and_a_cross_leaves_them_whole():
    space = load_space("resnet50-imagenet")
    crossed = kernel_masks(space.survey, kernels.cross(space))
    assert {mask.shape[2:] for mask in crossed.values()} == {(3, 3)}
    even = kernels.frequencies(space, [kernels.uniform_kernels(space, space.target(keep=0.3))])
    assert {key.split("/")[1] for key in even} == {"1x1", "3x3", "7x7"}
    # Counts are whole: half a weight of the 3 * 64 at a position of the first convolution is 0.0026.
    assert all(np.allclose(values, even["1/1x1"].mean(), atol=0.5 / 192) for values in even.values())


def test_a_kernel_size_that_was_not_found_takes_the_density_of_its_stage():
    plain = load_space("resnet56-c10")  # stages of 3x3 kernels alone
    bottlenecks = load_space("preresnet164-c10")
    target = plain.target(keep=0.3)
    found = kernels.cross(plain, target)
    density = kernels.frequencies(plain, [found])["1/3x3"].mean()
    moved = kernels.frequencies(bottlenecks, [kernels.transferred_kernels(plain, [found], bottlenecks)])
    assert moved["1/1x1"][0] == pytest.approx(density, abs=1e-3)
    # The other way round, a stage of both sizes: its density is that of all its weights.
    both = KernelPattern((("1/1x1", (0.5,)), ("1/3x3", (0.1,) * 9)))
    shapes = bottlenecks.costs.weights(bottlenecks.dense)
    stage = [s for path, s in shapes.items() if bottlenecks.survey.layer_at[path].stage == 1]
    sizes = {k: sum(np.prod(s) for s in stage if s[2:] == (k, k)) for k in (1, 3)}
    five = dataclasses.replace(
        plain,
        survey=dataclasses.replace(
            plain.survey,
            layers=tuple(
                dataclasses.replace(layer, kernel=(5, 5)) if layer.kernel == (3, 3) else layer
                for layer in plain.survey.layers
            ),
        ),
    )
    arch = kernels.transferred_kernels(bottlenecks, [bottlenecks.point(kernels=both)], five)
    values = dict(arch.kernels.frequencies)["1/5x5"]
    wanted = (0.5 * sizes[1] + 0.1 * sizes[3]) / (sizes[1] + sizes[3])
    assert values == pytest.approx([wanted] * 25, abs=1e-3)


def test_seeds_choose_among_masks_of_the_same_counts(vgg):
    target = vgg.target(keep=0.2)
    one, other = (kernels.uniform_kernels(vgg, target, seed) for seed in (0, 1))
    assert vgg.cost(one) == vgg.cost(other)
    first, second = (kernel_masks(vgg.survey, arch) for arch in (one, other))
    assert any((first[name] != second[name]).any() for name in first)
    assert kernels.uniform_kernels(vgg, target, 1) == other


def test_budgets_below_what_no_convolution_holds_are_refused(vgg):
    rest = 14_724_042 - 14_710_464
    with pytest.raises(InputError, match=f"{rest + 13:,}"):  # a weight of each convolution stays
        kernels.uniform_kernels(vgg, vgg.target(budget=rest - 1000))
    with pytest.raises(InputError, match="ask for params, macs or conv-params"):
        kernels.uniform_kernels(vgg, vgg.target(keep=0.5, metric="channels"))
    with pytest.raises(InputError, match="at least one found"):
        kernels.transferred_kernels(vgg, [], vgg)
    assert math.isfinite(
        vgg.measure(kernels.uniform_kernels(vgg, vgg.target(budget=rest + 20_000)), "params")
    )
