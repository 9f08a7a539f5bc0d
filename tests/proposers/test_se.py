import math

import numpy as np
import pytest
import torch
from torch import nn

from prunas.costs.target import Target
from prunas.errors import InputError
from prunas.proposers.brief import DenseNetwork
from prunas.proposers.pruning.channels import allocated, in_order_of
from prunas.proposers.pruning.se import SqueezeExcitation, TrainedGates, gate, scores
from prunas.proposers.pruning.slimming import carriers
from prunas.proposers.pruning.slimming import scores as scales
from prunas.proposers.table import PROPOSERS
from prunas.spaces.space import SearchSpace

FAMILIES = ["vgg", "preresnet", "densenet", "streams", "stemmed"]


def gated(space, **settings):
    """A network with gates attached, and the gates."""
    asked = []

    class Asked(Exception):
        pass

    class Brief:
        seed = 3
        targets = ()

        def __init__(self):
            self.space = space

        def trained(self, penalty):
            asked.append(penalty)
            raise Asked

    with pytest.raises(Asked):
        SqueezeExcitation(**settings).propose(Brief(), [])
    net = space.build()
    acting = TrainedGates(**asked[0].options)
    acting.attach(net)
    return net, acting


def images(space, count=8):
    return torch.randn(count, *space.survey.input, generator=torch.Generator().manual_seed(0))


def with_record(brief, space, state, record, **changes):
    return brief(space, state, dense=lambda penalty: DenseNetwork("run", lambda: state, record), **changes)


def uniform_record(space, value):
    units = [group.units for group in space.survey.groups]
    norms = {norm.path: space.survey.size(norm.writes, units) for of in carriers(space) for norm in of}
    return {
        f"{kind} {path} {c}": value
        for path, n in norms.items()
        for c in range(n)
        for kind in ("gate", "activity")
    }


# The gates


def test_a_gate_is_the_papers_formula():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=generator)
    first, b1, second, b2 = (
        torch.randn(*shape, generator=generator) for shape in ((4, 3), (4,), (3, 4), (3,))
    )
    gates = gate(x, (first, b1, second, b2))
    for n in range(2):
        z = [float(x[n, c].mean()) for c in range(3)]
        hidden = [max(0.0, sum(float(first[h, c]) * z[c] for c in range(3)) + float(b1[h])) for h in range(4)]
        for c in range(3):
            logit = sum(float(second[c, h]) * hidden[h] for h in range(4)) + float(b2[c])
            assert float(gates[n, c]) == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-5)


def test_it_multiplies_what_the_norm_gives_and_averages_in_training_alone(spaces):
    space = spaces["vgg"]
    net, acting = gated(space)
    x = images(space)
    seen = {}
    norm, _ = acting.norms[0]
    net.get_submodule(norm).register_forward_hook(
        lambda module, inputs, output: seen.update(gated=output.clone())
    )
    net.train()
    with torch.no_grad():
        inside = net.features[0](x)
        bn = net.get_submodule(norm)
        plain = nn.functional.batch_norm(inside, None, None, bn.weight, bn.bias, training=True)
        net(x)
    gates = gate(plain, acting.weights[0]).detach()
    assert torch.allclose(seen["gated"], plain * gates[:, :, None, None], atol=1e-5)
    record = acting.record()
    assert record[f"gate {norm} 1"] == pytest.approx(float(gates[:, 1].mean()), abs=1e-5)
    activity = (gates[:, 1] * plain.abs().mean((2, 3))[:, 1]).mean()
    assert record[f"activity {norm} 1"] == pytest.approx(float(activity), abs=1e-5)
    assert record[f"deviation {norm} 1"] == pytest.approx(float(gates[:, 1].std(correction=0)), abs=1e-3)
    net.eval()
    with torch.no_grad():
        net(torch.zeros_like(x))
    assert acting.record() == record


@pytest.mark.parametrize("family", FAMILIES)
def test_every_norm_that_decides_gets_one_and_learns(family, spaces):
    space = spaces[family]
    net, acting = gated(space)
    assert {path for path, _ in acting.norms} == {norm.path for of in carriers(space) for norm in of}
    before = [[w.detach().clone() for w in weights] for weights in acting.weights]
    x = images(space)
    for _ in range(2):
        nn.functional.cross_entropy(net.train()(x), torch.arange(len(x)) % 5).backward()
        acting.gradients()
        acting.after_step(torch.tensor(0.1))
    for old, new in zip(before, acting.weights, strict=True):
        assert not torch.equal(old[2], new[2])
        assert all(w.grad is None and w.isfinite().all() for w in new)


def test_gates_do_not_touch_the_random_state_and_are_the_same_for_a_seed(spaces):
    before = torch.get_rng_state()
    first = TrainedGates([("features.1", 4)], 16, 3)
    second, other = TrainedGates([("features.1", 4)], 16, 3), TrainedGates([("features.1", 4)], 16, 4)
    with torch.random.fork_rng(devices=[]):
        nets = [spaces["vgg"].build() for _ in range(3)]
    for acting, net in zip((first, second, other), nets, strict=True):
        acting.attach(net)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.weights[0][0], second.weights[0][0])
    assert not torch.equal(first.weights[0][0], other.weights[0][0])


def test_a_training_continues_from_its_state(spaces):
    space = spaces["vgg"]
    net, acting = gated(space)
    x = images(space)

    def step(net, acting):
        net.train()
        net.zero_grad()
        nn.functional.cross_entropy(net(x), torch.arange(len(x)) % 5).backward()
        acting.after_step(torch.tensor(0.1))

    step(net, acting)
    resumed, again = gated(space)
    resumed.load_state_dict(net.state_dict())
    with torch.no_grad():
        for name, tensor in again.state().items():
            tensor.copy_(acting.state()[name])
    step(net, acting)
    step(resumed, again)
    assert acting.record() == again.record()
    assert all(
        torch.equal(a, b) for a, b in zip(acting.state().values(), again.state().values(), strict=True)
    )


def test_the_losses_that_sharpen_add_their_slope():
    for binary, sparse in ((2.0, 0.0), (0.0, 3.0), (2.0, 3.0)):
        net = nn.Sequential(nn.BatchNorm2d(4))
        acting = TrainedGates([("0", 4)], 16, 0, binary, sparse)
        acting.attach(net)
        x = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(1))
        (0 * net.train()(x).sum()).backward()
        mine = [w.grad.clone() for w in acting.weights[0]]
        plain = nn.functional.batch_norm(x, None, None, training=True)
        s = gate(plain, acting.weights[0])
        loss = binary * torch.sin(math.pi * s).mean() + sparse * s.mean()
        expected = torch.autograd.grad(loss, acting.weights[0])
        for a, b in zip(mine, expected, strict=True):
            assert torch.allclose(a, b, atol=1e-6)


# The scores


@pytest.mark.parametrize("by", ["gate", "scale", "activity"])
def test_a_dead_channel_goes_first(by, spaces, weights):
    space = spaces["vgg"]
    net, acting = gated(space)
    deciding = [norms[0].path for norms in carriers(space)]
    with torch.no_grad():
        acting.weights[2][3][1] = -10.0
        net.train()(images(space))
    measured = scores(space, acting.record(), net.state_dict(), by)
    lowest = min(range(len(measured)), key=lambda i: measured[i].min())
    assert deciding[lowest] == acting.norms[2][0]
    assert measured[lowest].argmin() == 1
    assert [score.max() for score in measured] == pytest.approx([1.0] * len(measured))


@pytest.mark.parametrize("family", ["vgg", "preresnet", "densenet"])
def test_it_finds_channels_whose_gates_are_shut(family, spaces, weights, brief):
    space, state = spaces[family], weights(spaces[family])
    record = uniform_record(space, 0.02)
    generator = np.random.default_rng(0)
    widths, passing = {}, {}
    for d, norms in zip(space.dimensions, carriers(space), strict=True):
        stay = np.sort(generator.permutation(d.dense)[: max(1, int(generator.uniform(0.3, 0.7) * d.dense))])
        (widths if d.kind == "group" else passing)[d.name] = stay.tolist()
        record |= {f"{kind} {norms[0].path} {c}": 0.8 for c in stay for kind in ("gate", "activity")}
    arch = space.point({name: len(stay) for name, stay in widths.items()}, passing)
    target = Target("params", space.measure(arch, "params"))
    for by in ("gate", "activity"):
        told = with_record(brief, space, state, record, targets=(target,))
        (found,) = SqueezeExcitation(score=by).propose(told, [])
        assert found.architecture == arch
        assert found.kept == {name: tuple(stay) for name, stay in widths.items()}
    rng = np.random.default_rng(1)
    names, values = list(record), list(record.values())
    shuffled = dict(zip(names, rng.permutation(values).tolist(), strict=True))
    told = with_record(brief, space, state, shuffled, targets=(target,))
    (blind,) = SqueezeExcitation(score="gate").propose(told, [])
    assert blind.architecture != arch


def test_where_all_gates_are_half_open_the_scales_decide_or_nothing(spaces, weights, brief):
    space, state = spaces["vgg"], weights(spaces["vgg"])
    targets = (space.target(keep=0.4),)
    told = with_record(brief, space, state, uniform_record(space, 0.5), targets=targets)
    (found,) = SqueezeExcitation(score="scale").propose(told, [])
    assert "penalty_not_acted" in found.flags
    by_scale = [score / score.max() for score in scales(space, state)]
    assert found.architecture == allocated(told, by_scale, in_order_of(by_scale), "run", "x")[0].architecture
    with pytest.raises(InputError, match=r"se: the gates say nothing: .* 0.0000, below 0.02; train longer"):
        SqueezeExcitation(score="gate").propose(told, [])


def test_a_space_without_norms_is_refused_before_anything_is_trained(brief):
    def plain():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5)
        )

    space = SearchSpace.from_model(plain, (3, 8, 8), name="plain")
    with pytest.raises(InputError, match=r"se needs a batch norm behind .* '0' .* sampler such as tpe"):
        SqueezeExcitation().propose(brief(space, targets=(space.target(keep=0.5),)), [])


def test_gates_of_its_control_do_not_learn(spaces):
    net, acting = gated(spaces["vgg"], rate=0.0)
    before = [w.detach().clone() for weights in acting.weights for w in weights]
    x = images(spaces["vgg"])
    nn.functional.cross_entropy(net.train()(x), torch.arange(len(x)) % 5).backward()
    acting.after_step(torch.tensor(0.1))
    assert all(
        torch.equal(a, b) for a, b in zip(before, [w for ws in acting.weights for w in ws], strict=True)
    )
    assert PROPOSERS["se-unlearnt"].fixed == {"rate": 0.0}
