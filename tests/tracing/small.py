"""Random points of small networks against the dense network with its readers' input slices zeroed."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.support.oracle import Oracle, Point, batch_of, counted, masked, point, random_kept
from prunas.architecture import Architecture
from prunas.costs.counted import CostModel
from prunas.surgery.assemble import build
from prunas.survey import Survey
from prunas.tracing.survey import survey

Factory = Callable[[], nn.Module]

SHAPE = (3, 6, 6)
"""Of what `Net` takes."""


class Net(nn.Module):
    """Three layers; torch.fx stops at `len`, the other ways of tracing do not. Tests replace the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0
        return self.last(self.second(self.middle(F.relu(self.norm(self.first(x))))))


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
        with torch.no_grad(), masked(dense, made, Point(arch, kept)) as reference:
            for training in (False, True):
                expected, _ = reference(training, [images])
                assert_close(net.train(training)(images), expected)
    return made


def check_function(
    factory: Factory, made: Survey, shapes: Sequence[Sequence[int]], points: int = 2, images: int = 4
) -> None:
    """Random points compute what the dense network does without the units that they drop, and that shows."""
    oracle = Oracle(factory, made, batch_of(shapes, images))
    for seed in range(points):
        difference = oracle.difference(point(made, random_kept(made, random.Random(seed))))
        assert difference.eval <= 1e-9
        assert difference.train <= 1e-9
        assert difference.effect > 1e-3


def check_cost(factory: Factory, made: Survey, shapes: Sequence[Sequence[int]], points: int = 2) -> None:
    """Costs are torch's, and a built network's state dict loads into another one of its kind."""
    model = CostModel(made)
    assert model.of(Architecture("test", made.fingerprint))[2:] == counted(factory(), shapes)
    for seed in range(points):
        arch = point(made, random_kept(made, random.Random(seed))).arch
        net = build(factory, made, arch)
        build(factory, made, arch).load_state_dict(net.state_dict())
        assert model.of(arch)[2:] == counted(net, shapes)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-9 * float(expected.abs().max())
