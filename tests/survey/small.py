"""Random points of small networks against the dense network with its readers' input slices zeroed."""

import copy
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from prunas.architecture import Architecture
from prunas.build.build import build
from prunas.costs import CostModel
from prunas.structure import Survey
from prunas.survey.survey import survey

Factory = Callable[[], nn.Module]


def check_points(factory: Factory, shape: tuple[int, ...], points: int = 3, maskable: bool = True) -> Survey:
    """Surveys a network and checks random points of it: the function, if it is maskable, and the parameters."""
    made = survey(factory, shape)
    assert all(group.maskable for group in made.groups) == maskable
    torch.manual_seed(0)
    dense = factory().double()
    for module in dense.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for seed in range(points):
        chance = random.Random(seed)
        kept = {
            g.name: sorted(chance.sample(range(g.units), chance.randint(1, g.units - 1))) for g in made.groups
        }
        arch = Architecture("test", made.fingerprint, tuple(sorted((g, len(k)) for g, k in kept.items())))
        model = CostModel(made)
        inputs = model.gate_inputs(model.widths(arch)[None])[0].tolist()
        gated = {
            gate.name: tuple(sorted(chance.sample(range(n), chance.randint(1, n))))
            for gate, n in zip(made.gates, inputs, strict=True)
        }
        arch = arch.replace(selected=tuple(sorted(gated.items())))
        net = build(lambda: factory().double(), made, arch, weights=dense.state_dict(), kept=kept)
        assert model.of(arch).params == sum(parameter.numel() for parameter in net.parameters())
        images = torch.randn(4, *shape, dtype=torch.float64)
        if maskable:
            reference = masked(dense, made, kept, gated)
            for training in (False, True):
                net.train(training), reference.train(training)
                with torch.no_grad():
                    assert_close(net(images), reference(images))
        else:
            net(images)
    return made


def masked(
    dense: nn.Module, made: Survey, kept: dict[str, list[int]], gated: dict[str, tuple[int, ...]]
) -> nn.Module:
    net = copy.deepcopy(dense)
    units = [np.array(kept[group.name]) for group in made.groups]
    for layer in made.layers:
        if layer.kind in ("conv", "linear") and not layer.depthwise:
            passing = made.positions(layer.reads, units)
            if layer.path in gated:
                passing = passing[list(gated[layer.path])]
            weight = net.get_submodule(layer.path).weight.data
            mask = torch.zeros(weight.shape[1] * layer.groups)
            mask[torch.as_tensor(passing)] = 1
            for filters, part in zip(weight.chunk(layer.groups), mask.chunk(layer.groups), strict=True):
                filters *= part.view(1, -1, *[1] * (weight.ndim - 2))
    return net


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-9 * float(expected.abs().max())
