"""MobileNet-V2 and MnasNet-B1 are the published networks."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models

from prunas import networks
from prunas.costs.counted import CostModel
from prunas.networks.projected import projected_resnet
from prunas.spaces.load import load_space
from prunas.tracing.survey import survey

PEERS = {
    "mobilenet_v2": (networks.mobilenet_v2, models.mobilenet_v2),
    "mobilenet_v2 x1.4": (
        partial(networks.mobilenet_v2, width=1.4),
        partial(models.mobilenet_v2, width_mult=1.4),
    ),
    "mnasnet": (networks.mnasnet, models.mnasnet1_0),
}


@pytest.mark.parametrize("name", PEERS)
def test_they_compute_what_torchvisions_do(name):
    ours, theirs = PEERS[name]
    torch.manual_seed(0)
    ours, theirs = ours(classes=10).double(), theirs(num_classes=10).double()
    mine, state = ours.state_dict(), theirs.state_dict()
    assert [v.shape for v in mine.values()] == [v.shape for v in state.values()]
    ours.load_state_dict(dict(zip(mine, state.values(), strict=True)))
    x = torch.randn(2, 3, 64, 64, dtype=torch.double)
    for net in (ours, theirs):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("factory", "published", "params", "macs"),
    [
        # Sandler et al. 2018, table 4: 300 M and 3.4 M; 585 M at 1.4
        (networks.mobilenet_v2, 300e6, 3_504_872, 300_774_272),
        (partial(networks.mobilenet_v2, width=1.4), 585e6, 6_108_776, 582_195_824),
        # Yu & Huang 2019, table 1: 317 M; all counted by torch of the networks of torchvision
        (networks.mnasnet, 317e6, 4_383_312, 314_415_872),
    ],
)
def test_dense_counts(factory, published, params, macs):
    made = survey(factory, (3, 224, 224))
    cost = CostModel(made).of(load_space("mobilenet-v2-imagenet").dense.replace(network=made.fingerprint))
    assert (cost.params, cost.macs) == (params, macs)
    assert cost.macs == pytest.approx(published, rel=0.01)


def test_they_start_by_he_et_al():
    torch.manual_seed(0)
    weight = networks.mobilenet_v2().blocks[16].branch[0].weight.detach()
    assert weight.shape == (960, 160, 1, 1)
    assert float(weight.std()) == pytest.approx((2 / 960) ** 0.5, rel=0.01)


def test_a_projected_resnet_may_have_stages_of_unlike_depth():
    net = projected_resnet(stages=(3, 1, 2))
    assert [block.conv1.out_channels for block in net.blocks] == [16, 16, 16, 32, 64, 64]
    assert [block.conv1.stride for block in net.blocks] == [(1, 1)] * 3 + [(2, 2)] * 2 + [(1, 1)]
    assert [p.shape for p in projected_resnet(20).parameters()] == [
        p.shape for p in projected_resnet(stages=(3, 3, 3)).parameters()
    ]
