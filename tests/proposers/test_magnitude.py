import numpy as np
import pytest
import torch

from prunas.errors import InputError
from prunas.proposers.registry import entry
from prunas.surgery.masks import kernel_masks


def planted(space, share, seed=0):
    """Weights of 1 where a mask lives and 0.01 elsewhere, and the mask."""
    generator = np.random.default_rng(seed)
    state, masks = space.build().state_dict(), {}
    for path in space.costs.weights(space.dense):
        weight = state[f"{path}.weight"]
        mask = generator.random(weight.shape) < share
        mask.flat[0] = True
        masks[f"{path}.weight"] = mask
        weight.copy_(torch.as_tensor(np.where(mask, 1.0, 0.01) * generator.choice([-1, 1], weight.shape)))
    return state, masks


def test_magnitude_finds_a_planted_mask_and_noise_does_not(spaces, brief):
    space = spaces["preresnet"]
    state, masks = planted(space, 0.3)
    gone = sum(mask.size - int(mask.sum()) for mask in masks.values())
    target = space.target(budget=space.measure(space.dense, "params") - gone)
    (found,) = entry("magnitude").build().propose(brief(space, state, targets=(target,)), [])
    read = kernel_masks(space.survey, found.architecture)
    assert all((read[name] == mask).all() for name, mask in masks.items())
    assert found.flags == ()
    assert space.measure(found.architecture, "params") == target.value
    for name in masks:
        state[name].copy_(torch.randn(state[name].shape, generator=torch.Generator().manual_seed(5)))
    (noise,) = entry("magnitude").build().propose(brief(space, state, targets=(target,)), [])
    read = kernel_masks(space.survey, noise.architecture)
    agreement = np.mean([(read[name] == mask).mean() for name, mask in masks.items()])
    assert agreement < 0.7  # two masks of density 0.3 that know nothing of each other agree at 0.58


@pytest.mark.parametrize("family", ["vgg", "preresnet", "densenet"])
def test_a_share_of_the_convolution_weights_goes(family, spaces, brief, weights):
    """The study's table 6 prunes 30 % and 80 % of these; norms, biases and linear layers do not count."""
    space = spaces[family]
    state = weights(space)
    conv = [m.weight for m in space.build().modules() if isinstance(m, torch.nn.Conv2d)]
    dense = sum(weight.numel() for weight in conv)
    targets = tuple(space.target(keep=keep, metric="conv-params") for keep in (0.7, 0.2))
    for target, share in zip(targets, (0.7, 0.2), strict=True):
        (found,) = entry("magnitude").build().propose(brief(space, state, targets=(target,)), [])
        kept = sum(int(mask.sum()) for mask in kernel_masks(space.survey, found.architecture).values())
        assert kept == target.value == round(share * dense)
        assert space.measure(found.architecture, "conv-params") == kept


def test_one_threshold_holds_for_all_layers(spaces, brief, weights):
    space = spaces["vgg"]
    state = weights(space)
    target = space.target(keep=0.2, metric="macs")
    (found,) = entry("magnitude").build().propose(brief(space, state, targets=(target,)), [])
    read = kernel_masks(space.survey, found.architecture)
    kept = min(state[name].abs().numpy()[mask].min() for name, mask in read.items())
    lost = max(state[name].abs().numpy()[~mask].max() for name, mask in read.items())
    assert lost < kept
    assert abs(space.measure(found.architecture, "macs") / target.value - 1) < 1e-3


def test_a_layer_keeps_its_last_weight_and_says_so(spaces, brief, weights):
    space = spaces["vgg"]
    state = weights(space)
    state["features.0.weight"].mul_(1e-6)
    (found,) = entry("magnitude").build().propose(brief(space, state, targets=(space.target(keep=0.1),)), [])
    assert "floor" in found.flags
    assert kernel_masks(space.survey, found.architecture)["features.0.weight"].sum() == 1


def test_channels_are_not_its_business(spaces, brief, weights):
    space = spaces["vgg"]
    with pytest.raises(InputError, match="params, macs or conv-params"):
        entry("magnitude").build().propose(
            brief(space, weights(space), targets=(space.target(keep=0.5, metric="channels"),)), []
        )
