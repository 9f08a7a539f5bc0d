import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prunas.costs.target import Target
from prunas.data import load
from prunas.errors import InputError
from prunas.proposers.brief import Brief, DenseNetwork
from prunas.proposers.pruning.slimming import ScalePenalty, Slimming, penalty, scores
from prunas.proposers.registry import entry
from prunas.recipe import recipe
from prunas.spaces.space import SearchSpace
from prunas.tasks.classification import Classification
from prunas.training.loop import train

FAMILIES = ["vgg", "preresnet", "densenet", "streams", "stemmed"]


def norms(state):
    """Module paths of the batch norms of a state dict."""
    return [name.removesuffix(".running_mean") for name in state if name.endswith("running_mean")]


def plant(space, state, seed=0, share=0.4):
    """Chooses units and gated channels, and gives them scales of 0.5 and all others 1e-3.

    For the bundled networks: a group's own norm is the next one in the state dict, a gate's the one before.

    Returns:
        The units of every group that varies, and the channels of the dense input of every gate.
    """
    generator = np.random.default_rng(seed)
    alive, passing = {}, {}
    for norm in norms(state):
        state[f"{norm}.weight"].fill_(1e-3)
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    for d in space.dimensions:
        at = names.index(d.name)
        norm = names[at + 1 if d.kind == "group" else at - 1]
        chosen = np.sort(
            generator.permutation(d.dense)[: max(1, int(generator.uniform(share / 2, share * 2) * d.dense))]
        )
        state[f"{norm}.weight"][chosen] = 0.5
        (alive if d.kind == "group" else passing)[d.name] = tuple(chosen.tolist())
    return alive, passing


def planted_point(space, alive, passing):
    return space.point({name: len(units) for name, units in alive.items()}, passing)


def exactly(space, arch, metric="params"):
    return Target(metric, space.measure(arch, metric))


# Found, not fitted


@pytest.mark.parametrize("family", ["vgg", "preresnet", "densenet"])
@pytest.mark.parametrize("metric", ["params", "macs", "channels"])
def test_slimming_finds_a_planted_architecture(family, metric, spaces, weights, brief):
    space = spaces[family]
    state = weights(space)
    alive, passing = plant(space, state)
    arch = planted_point(space, alive, passing)
    target = exactly(space, arch, metric)
    (found,) = Slimming().propose(brief(space, state, targets=(target,)), [])
    assert found.architecture == arch
    assert found.kept == alive
    assert (found.flags, found.weights_of) == ((), "run-of-the-dense-network")


@pytest.mark.parametrize("family", ["vgg", "preresnet", "densenet"])
def test_slimming_does_not_find_it_in_shuffled_scales(family, spaces, weights, brief):
    space = spaces[family]
    state = weights(space)
    arch = planted_point(space, *plant(space, state))
    scales = torch.cat([state[f"{norm}.weight"] for norm in norms(state)])
    scales = scales[torch.randperm(len(scales), generator=torch.Generator().manual_seed(0))]
    for norm in norms(state):
        taken, scales = scales[: len(state[f"{norm}.weight"])], scales[len(state[f"{norm}.weight"]) :]
        state[f"{norm}.weight"] = taken
    (found,) = Slimming().propose(brief(space, state, targets=(exactly(space, arch),)), [])
    assert found.architecture != arch


@pytest.mark.parametrize("pruned", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("family", ["vgg", "densenet"])
def test_the_threshold_in_channels_is_the_studys(family, pruned, spaces, weights, brief):
    space = spaces[family]
    state = weights(space)
    # The study's rule over all scales of the network, which all vary here.
    scales = {norm: state[f"{norm}.weight"].abs() for norm in norms(state)}
    pooled = torch.sort(torch.cat(list(scales.values())))[0]
    limit = pooled[int(len(pooled) * pruned)]
    expected = {norm: int((scale > limit).sum()) for norm, scale in scales.items()}
    target = space.target(keep=1 - pruned, metric="channels")
    (found,) = Slimming().propose(brief(space, state, targets=(target,)), [])
    assert space.counts(found.architecture).tolist() == list(expected.values())
    assert sum(expected.values()) == len(pooled) - int(len(pooled) * pruned) - 1
    assert found.flags == ("penalty_not_acted",)  # nobody trained these scales


def test_ties_at_the_threshold_all_go(spaces, weights, brief):
    space = spaces["vgg"]
    state = weights(space)
    for norm in norms(state):
        state[f"{norm}.weight"].abs_().mul_(10).ceil_().div_(10)  # ten different scales
    pooled = torch.sort(torch.cat([state[f"{norm}.weight"] for norm in norms(state)]))[0]
    limit = pooled[int(len(pooled) * 0.5)]
    (found,) = Slimming().propose(
        brief(space, state, targets=(space.target(keep=0.5, metric="channels"),)), []
    )
    assert space.measure(found.architecture, "channels") == int((pooled > limit).sum())


# Flags


def test_the_floor_holds_the_highest_scales_and_says_so(spaces, weights, brief):
    space = dataclasses.replace(spaces["vgg"], floor=3)
    state = weights(space)
    alive, _ = plant(space, state)
    state["features.9.weight"].fill_(1e-6)
    state["features.9.weight"][[4, 20, 33]] = torch.tensor([1e-4, -1e-3, 1e-5])
    alive["features.8"] = (4, 20, 33)
    arch = planted_point(space, alive, {})
    (found,) = Slimming().propose(brief(space, state, targets=(exactly(space, arch),)), [])
    assert found.flags == ("floor",)
    assert found.kept["features.8"] == (4, 20, 33)
    assert found.architecture == arch


def test_scales_the_penalty_left_alone_are_flagged(spaces, weights, brief):
    space = spaces["vgg"]
    state = weights(space)
    for norm in norms(state):
        state[f"{norm}.weight"].abs_().add_(0.02)
    target = space.target(keep=0.5)
    (found,) = Slimming().propose(brief(space, state, targets=(target,)), [])
    assert found.flags == ("penalty_not_acted",)
    for norm in norms(state):
        state[f"{norm}.weight"].mul_(0.009)  # all below 0.01 now
    (found,) = Slimming().propose(brief(space, state, targets=(target,)), [])
    assert found.flags == ()


def test_a_threshold_that_jumps_past_the_target_is_flagged(spaces, weights, brief):
    space = spaces["vgg"]
    state = weights(space)
    arch = planted_point(space, *plant(space, state))
    between = Target("params", (space.measure(arch, "params") + space.measure(space.dense, "params")) // 2)
    (found,) = Slimming().propose(brief(space, state, targets=(between,)), [])
    assert found.architecture == arch
    assert found.flags == ("target_missed",)


def test_a_target_below_the_floor_is_refused(spaces, weights, brief):
    space = spaces["vgg"]
    target = Target("params", 10)
    with pytest.raises(InputError, match="slimming cannot meet 10 of params in space 'vgg11-digits'"):
        Slimming().propose(brief(space, weights(space), targets=(target,)), [])


def test_a_space_without_norms_is_refused_before_anything_is_trained(brief):
    def plain():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 4, 3),
            nn.GroupNorm(1, 4),
            nn.ReLU(),
            nn.Conv2d(4, 2, 3),
        )

    space = SearchSpace.from_model(plain, (3, 8, 8), name="plain")
    never = brief(space, targets=(space.target(keep=0.5),))  # its dense training fails
    with pytest.raises(InputError, match=r"slimming needs a batch norm .* '0' of space 'plain' has none"):
        Slimming().propose(never, [])
    late = dataclasses.replace(space, exclude=("0",))
    with pytest.raises(InputError, match="'2' of space 'plain' has none"):
        Slimming().propose(brief(late, targets=(space.target(keep=0.9),)), [])


# Networks


def masked(space, state, found):
    """The dense network with everything zeroed that the proposal removes."""
    survey = space.survey
    units = [np.array(found.kept.get(g.name, range(g.units)), np.int64) for g in survey.groups]
    net = space.build().double().eval()
    net.load_state_dict(state)
    parts = dict(net.named_modules())
    layers = {layer.path: layer for layer in survey.layers}
    with torch.no_grad():
        for path, layer in layers.items():  # what writes a removed unit writes zero
            stay = survey.positions(layer.writes, units)
            gone = np.setdiff1d(np.arange(parts[path].weight.shape[0]), stay)
            parts[path].weight[gone] = 0
            if parts[path].bias is not None:
                parts[path].bias[gone] = 0
        for gate, positions in found.architecture.selected:  # what a gate stops, its norm zeroes
            record = survey.gate_named[gate]
            passing = survey.positions(record.form, units)[list(positions)]
            gone = np.setdiff1d(np.arange(parts[record.norm].num_features), passing)
            parts[record.norm].weight[gone] = 0
            parts[record.norm].bias[gone] = 0
    return net


@pytest.mark.parametrize("keep", [0.7, 0.2])
@pytest.mark.parametrize("family", FAMILIES)
def test_inherited_weights_compute_what_the_masked_network_does(family, keep, spaces, weights, brief):
    space = spaces[family]
    state = {name: t.double() if t.is_floating_point() else t for name, t in weights(space, 3).items()}
    told = brief(space, state, targets=(space.target(keep=keep),))
    (found,) = entry("slimming").build().propose(told, [])
    if family != "vgg":
        assert found.architecture.selected
    net = space.build(found.architecture, weights=state, kept=found.kept).double()
    images = torch.randn(
        2, *space.survey.input, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    with torch.no_grad():
        output = net.train()(images)
        assert output.isfinite().all()
        net = space.build(found.architecture, weights=state, kept=found.kept).double().eval()
        expected = masked(space, state, found)(images)
        assert net(images).numpy() == pytest.approx(expected.numpy(), abs=1e-9)


def test_the_cost_foreseen_is_the_cost_reached_where_streams_and_gates_vary(spaces, weights, brief):
    space = spaces["streams"]
    state = weights(space, 5)
    target = space.target(keep=0.5, metric="channels")
    (found,) = Slimming().propose(brief(space, state, targets=(target,)), [])
    # A channel counts once per gate that lets it through, and as a unit of its stream.
    pooled = np.sort(np.concatenate(scores(space, state)))
    limit = pooled[len(pooled) - target.value - 1]
    assert space.measure(found.architecture, "channels") == int((pooled > limit).sum())
    assert (
        target.value - space.measure(found.architecture, "channels") <= 30
    )  # ties: a stream's channel takes its gates along


def test_a_stream_is_as_important_as_its_most_important_reader(spaces, weights):
    space = spaces["streams"]
    state = weights(space)
    by = {(d.name, d.kind): score for d, score in zip(space.dimensions, scores(space, state), strict=True)}
    readers = [state[f"{norm}.weight"].abs().double().numpy() for norm in ("layer1.1.bn1", "layer2.0.bn1")]
    assert by["layer1.0.conv3", "group"] == pytest.approx(np.maximum(*readers))
    assert by["layer1.1.conv1", "gate"] == pytest.approx(readers[0])
    assert by["layer1.0.conv1", "group"] == pytest.approx(state["layer1.0.bn2.weight"].abs().numpy())


def test_a_streams_own_norm_speaks_for_it_and_limits_its_readers(spaces, weights):
    space = spaces["stemmed"]
    state = weights(space)
    by = {(d.name, d.kind): score for d, score in zip(space.dimensions, scores(space, state), strict=True)}
    scale = {norm: state[f"{norm}.weight"].abs().double().numpy() for norm in norms(state)}
    assert by["stem", "group"] == pytest.approx(scale["bn0"])
    for gate, norm in (("narrow1", "bn1"), ("narrow2", "bn2"), ("fc", "bn")):
        assert by[gate, "gate"] == pytest.approx(np.minimum(scale[norm], scale["bn0"]))


def test_gates_without_a_norm_are_refused_by_name(spaces, weights, brief):
    space = dataclasses.replace(spaces["preresnet"], groups=("*",), gates=("*",))
    told = brief(space, weights(space), targets=(space.target(keep=0.5),))
    with pytest.raises(
        InputError, match=r"'conv1' of space .* has none|'layer1.0.shortcut' of space .* has none"
    ):
        Slimming().propose(told, [])
    targets = (space.target(keep=0.5),)
    for name in ("uniform", "random"):  # which need no norm
        (proposal,) = entry(name).build().propose(brief(space, targets=targets), [])
        net = space.build(proposal.architecture)
        assert net(torch.randn(2, 3, 32, 32)).isfinite().all()


# The penalty


def test_its_gradient_is_that_of_lambda_times_the_sum_of_the_scales():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.Flatten()
    )
    net.append(nn.Linear(4 * 16, 5)).append(nn.BatchNorm1d(5)).append(nn.LayerNorm(5))
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator)
        p.grad = torch.randn(p.shape, generator=generator)
    before = {name: p.grad.clone() for name, p in net.named_parameters()}
    acting = ScalePenalty(0.03)
    acting.attach(net)
    acting.gradients()
    scales = {name: p for name, p in net.named_parameters() if name in ("1.weight", "3.weight", "6.weight")}
    loss = 0.03 * sum(p.abs().sum() for p in scales.values())
    expected = dict(zip(scales, torch.autograd.grad(loss, list(scales.values())), strict=True))
    for name, p in net.named_parameters():
        added = expected.get(name, torch.zeros_like(p))
        assert p.grad == pytest.approx(before[name] + added, abs=1e-7)


def test_a_scale_without_gradient_is_left_alone():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(2))
    acting = ScalePenalty(0.5)
    acting.attach(net)
    net[1].weight.grad = torch.zeros(2)
    acting.gradients()
    assert net[0].weight.grad is None
    assert net[1].weight.grad.tolist() == [0.5, 0.5]


def test_it_records_the_share_of_small_scales():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(5))
    net[0].weight.data = torch.tensor([0.5, -0.009, 0.011])
    net[1].weight.data = torch.tensor([0.0, 0.3, -0.02, 1e-5, 1.0])
    acting = ScalePenalty(0.25)
    acting.attach(net)
    assert acting.record() == {"lambda": 0.25, "below": 3 / 8}


def test_the_studys_recipe_gets_the_studys_lambda():
    paper = recipe("paper")
    lr_sum = paper.lr_sum(-(-50_000 // 64), 160)
    assert penalty(6.6, lr_sum, paper.momentum).options["strength"] == pytest.approx(1e-4, rel=0.02)
    assert penalty(0.66, lr_sum, paper.momentum).options["strength"] == pytest.approx(1e-5, rel=0.02)


@pytest.mark.parametrize(("family", "pull"), [("vgg", 6.6), ("preresnet", 0.66), ("densenet", 0.66)])
def test_residual_and_dense_networks_get_a_tenth(family, pull, spaces, weights):
    asked = []

    def dense(penalty):
        asked.append(penalty)
        return DenseNetwork("run", lambda: weights(spaces[family]), {})

    told = Brief(spaces[family], (), 0, lr_sum=50.0, momentum=0.8, dense=dense)
    Slimming().propose(told, [])
    Slimming(pull=1.0).propose(told, [])
    assert [p.name for p in asked] == ["slimming/scale"] * 2
    assert [p.options["strength"] for p in asked] == pytest.approx([pull * 0.2 / 50, 1.0 * 0.2 / 50])


# Real training


class Small(nn.Module):
    """Two convolutions with batch norms; `planted` of the first one's channels are read by nobody."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, stride=2, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)
        nn.init.constant_(self.bn1.weight, 0.5)
        nn.init.constant_(self.bn2.weight, 0.5)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.fc(self.bn2(self.conv2(x)).relu().mean((2, 3)))


@pytest.mark.parametrize("pull", [0.6, 0.0])
def test_a_real_training_drives_useless_channels_out(pull):
    useless = [1, 4, 5, 9, 12, 15]
    read = torch.ones(16, 16, 3, 3)
    read[:, useless] = 0
    space = SearchSpace.from_model(Small, (1, 8, 8), name="small", exclude=("conv2",))
    data = load("digits")
    chosen = recipe("digits").replace(epochs=5, images=640)
    steps = 640 // chosen.batch

    def dense(asked):
        torch.manual_seed(0)
        net = space.build()
        done = train(
            net, Classification(data), chosen, epochs=5, seed=0, split="train", score="val",
            device=torch.device("cpu"), regulariser=ScalePenalty(**asked.options), masks={"conv2.weight": read},
        )  # fmt: skip
        return DenseNetwork("run", net.state_dict, done.regulariser)

    keep = 10 / 16
    target = Target("channels", 10, keep)
    told = Brief(space, (target,), 0, lr_sum=chosen.lr_sum(steps, 5), momentum=chosen.momentum, dense=dense)
    with torch.random.fork_rng(devices=[]):
        (found,) = Slimming(pull=pull).propose(told, [])
        scales = dense(penalty(pull, told.lr_sum, told.momentum)).weights()["bn1.weight"].abs()
    useful = sorted(set(range(16)) - set(useless))
    if pull:
        # Just enough for scales that only the penalty moves: 0.5 to 0.002, whatever convolutions round.
        # A stronger pull takes useful ones to zero too, and rounding decides which; these stay above 0.05.
        assert scales[useless].max() < 0.005
        assert scales[useful].min() > 0.02
        assert found.kept["conv1"] == tuple(useful)
        assert found.flags == ()
    else:
        assert scales[useless].min() > 0.1
        assert found.flags == ("penalty_not_acted",)
