import io
import pickle
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from prunas.architecture import Architecture
from prunas.errors import InputError
from prunas.graphs.layers import ChannelPad, select
from prunas.surgery.assemble import build, fingerprint
from prunas.surgery.construct import CONSTRUCTORS, construct, construction_order
from prunas.surgery.remove import without_branch
from prunas.surgery.weights import inherit
from prunas.tracing.survey import survey
from tests.surgery.bundled import FACTORIES, SHAPES, point, random_kept, surveyed


def combined(name: str) -> Architecture:
    made, chance = surveyed(name), random.Random(name)
    names = [block.name for block in made.blocks]
    return point(made, random_kept(made, chance), tuple(chance.sample(names, len(names) // 3)), chance)


@pytest.mark.parametrize("name", ["vgg11-digits", "resnet20", "preresnet20", "densenet40"])
def test_a_built_network_is_an_ordinary_one(name: str, tmp_path: Path) -> None:
    arch = combined(name)
    dense = FACTORIES[name]()
    net = build(FACTORIES[name], surveyed(name), arch)
    assert type(net) is type(dense)
    assert net.training
    added = set(net.state_dict()) - set(dense.state_dict())
    assert added == {
        f"{surveyed(name).gate_named[gate].norm or gate}.index" for gate, _ in arch.selected
    }  # one index a selection, else the factory's own names
    torch.save(net.state_dict(), tmp_path / "net.pt")
    again = build(FACTORIES[name], surveyed(name), arch)
    again.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    images = torch.randn(4, *SHAPES[name])
    with torch.no_grad():
        assert torch.equal(net.eval()(images), again.eval()(images))
    logits = net.train()(images)
    assert logits.shape == (4, 10)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_built_network_can_be_copied_and_pickled() -> None:
    net = build(FACTORIES["preresnet20"], surveyed("preresnet20"), combined("preresnet20")).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(net))(images), net(images))


def test_a_removed_branch_leaves_identity_or_the_shortcut_under_its_old_name() -> None:
    made = surveyed("preresnet20")
    assert [block.name for block in made.blocks] == [
        "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1",
    ]  # fmt: skip
    net = build(FACTORIES["preresnet20"], made, point(made, {}, ("layer1.1", "layer2.0")))
    assert isinstance(net.get_submodule("layer1.1"), nn.Identity)
    assert isinstance(net.get_submodule("layer2.0"), fx.GraphModule)
    assert list(net.get_submodule("layer2.0").state_dict()) == ["shortcut.weight"]
    assert type(net.get_submodule("layer2.0")).__name__ == "Bottleneck"


def test_training_goes_on_without_branches_where_what_follows_works_in_place() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y += x
            return self.relu(y)

    def factory() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.Sigmoid(), Block(), Block(), nn.Flatten(), nn.Linear(16, 2)
        )

    made = survey(factory, (3, 2, 2))
    assert [block.name for block in made.blocks] == ["2", "3"]
    net = build(factory, made, Architecture("test", made.fingerprint, removed=("2", "3")))
    net(torch.randn(2, 3, 2, 2)).sum().backward()
    x = torch.full((1, 4, 2, 2), -1.0)
    assert bool((net[2](x) == 0).all()) and bool((x == -1).all())


def test_without_branch_refuses_what_is_not_a_block() -> None:
    with pytest.raises(ValueError, match="not a shortcut plus one branch"):
        without_branch(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_the_factory_must_stay_the_same() -> None:
    made = surveyed("vgg11-digits")
    arch = point(made, {"features.0": (0, 1, 2)})
    for other in (FACTORIES["vgg11"], FACTORIES["vgg16"], FACTORIES["resnet20"]):
        with pytest.raises(InputError, match="the same network at every call"):
            build(other, made, arch)


def test_constructors_are_left_as_they_were() -> None:
    before = {cls: cls.__init__ for cls in CONSTRUCTORS}

    def broken() -> nn.Module:
        assert nn.Conv2d.__mro__[1].__init__ is not before[nn.Conv2d.__mro__[1]]
        nn.Conv2d(3, 4, 1)
        raise RuntimeError("no")

    for attempt in (construction_order, lambda f: construct(f, (), {}, {})):
        with pytest.raises(RuntimeError, match="no"):
            attempt(broken)
        assert {cls: cls.__init__ for cls in CONSTRUCTORS} == before
    surveyed("vgg11-digits")
    assert {cls: cls.__init__ for cls in CONSTRUCTORS} == before


def test_construction_order_names_layers_by_path_and_leaves_out_the_others() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 2)
            nn.Conv2d(3, 5, 1)  # thrown away
            self.inner = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())

    net, order = construction_order(Net)
    assert order == ("last", "", "inner.0", "inner.1")
    assert isinstance(net, Net)


def test_building_draws_from_the_global_state_as_the_factory_does_and_nothing_else() -> None:
    torch.manual_seed(3)
    FACTORIES["resnet20"]()
    expected = torch.rand(1)
    made = surveyed("resnet20")
    torch.manual_seed(3)
    build(FACTORIES["resnet20"], made, point(made, {}, (made.blocks[0].name,)))
    assert torch.equal(torch.rand(1), expected)


def test_inherited_weights_leave_the_dense_ones_alone() -> None:
    name = "resnet20"
    dense = FACTORIES[name]().state_dict()
    before = {key: tensor.clone() for key, tensor in dense.items()}
    kept = random_kept(surveyed(name), random.Random(0))
    net = build(FACTORIES[name], surveyed(name), point(surveyed(name), kept), weights=dense, kept=kept)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert all(torch.equal(dense[key], before[key]) for key in before)


def test_inherit_slices_by_hand() -> None:
    made = surveyed("vgg11-digits")
    dense = FACTORIES["vgg11-digits"]().state_dict()
    kept = {"features.0": (1, 5, 15), "features.4": (0, 30)}
    slices = inherit(made, point(made, kept), dense, kept)
    assert torch.equal(slices["features.0.weight"], dense["features.0.weight"][[1, 5, 15]])
    assert torch.equal(slices["features.1.running_var"], dense["features.1.running_var"][[1, 5, 15]])
    assert torch.equal(slices["features.4.weight"], dense["features.4.weight"][[0, 30]][:, [1, 5, 15]])
    assert torch.equal(slices["features.8.weight"], dense["features.8.weight"][:, [0, 30]])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"features.0": (0, 1)}, "group 'features.0' keeps 3 of 16 units, but 2 are named"),
        ({}, "group 'features.0' keeps 3 of 16 units, but 16 are named"),
        ({"features.0": (0, 1, 1)}, "but 2 are named"),
        ({"features.0": (0, 1, 16)}, "group 'features.0' keeps 3 of 16 units"),
        ({"features.0": (-1, 0, 1)}, "group 'features.0' keeps 3 of 16 units"),
        ({"features.0": (0, 1, 2), "features.4": (0,)}, "group 'features.4' keeps 32 of 32 units"),
        ({"features.0": (0, 1, 2), "feature.4": (0,)}, "unknown group 'feature.4'; did you mean features.4"),
    ],
)
def test_wrong_kept_units_are_refused(kept: dict[str, tuple[int, ...]], message: str) -> None:
    made = surveyed("vgg11-digits")
    dense = FACTORIES["vgg11-digits"]().state_dict()
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        build(
            FACTORIES["vgg11-digits"], made, point(made, {"features.0": (0, 1, 2)}), weights=dense, kept=kept
        )


def test_wrong_weights_are_refused() -> None:
    made = surveyed("vgg11-digits")
    dense = FACTORIES["vgg11-digits"]().state_dict()
    arch = point(made, {})
    with pytest.raises(
        InputError, match=r"the weights have no 'features.1.bias'; give the state dict of the dense"
    ):
        build(
            FACTORIES["vgg11-digits"],
            made,
            arch,
            weights={key: value for key, value in dense.items() if key != "features.1.bias"},
        )
    narrow = build(FACTORIES["vgg11-digits"], made, point(made, {"features.0": (0, 1, 2)})).state_dict()
    with pytest.raises(
        InputError, match=r"'features.0.weight' has 3 channels along axis 0, the dense network 16"
    ):
        build(FACTORIES["vgg11-digits"], made, arch, weights=narrow)


def test_the_fingerprint_names_parameters_and_shapes_only() -> None:
    first, second = FACTORIES["vgg11-digits"](), FACTORIES["vgg11-digits"]()
    assert fingerprint(first) == fingerprint(second.eval().double()) == surveyed("vgg11-digits").fingerprint
    assert fingerprint(first) != fingerprint(FACTORIES["vgg11"]())
    # sha256 of {"bias":[2],"weight":[2,3]}: moving this orphans stored runs
    assert fingerprint(nn.Linear(3, 2)) == "ed686204706b"


def test_channel_pad_appends_zeros() -> None:
    x = torch.randn(2, 3, 4, 4)
    y = ChannelPad(2)(x)
    assert torch.equal(y[:, :3], x) and y.shape == (2, 5, 4, 4) and not bool(y[:, 3:].any())
    assert str(ChannelPad(2)) == "ChannelPad(extra=2)"


@pytest.mark.parametrize(
    ("wide", "narrow", "shape"),
    [
        (nn.Conv2d(4, 2, 3), nn.Conv2d(2, 2, 3), (2, 4, 5, 5)),
        (nn.Conv1d(4, 2, 3), nn.Conv1d(2, 2, 3), (2, 4, 5)),
        (nn.Conv3d(4, 2, 2), nn.Conv3d(2, 2, 2), (2, 4, 3, 3, 3)),
        (nn.Linear(4, 3), nn.Linear(2, 3), (2, 7, 4)),
    ],
)
def test_selecting_is_zeroing_the_other_inputs(
    wide: nn.Module, narrow: nn.Module, shape: tuple[int, ...]
) -> None:
    narrow.load_state_dict({"weight": wide.weight[:, [1, 3]], "bias": wide.bias})
    with torch.no_grad():
        wide.weight[:, [0, 2]] = 0
    kind = type(narrow)
    select(narrow, (1, 3))
    assert isinstance(narrow, kind)
    assert narrow.state_dict()["index"].tolist() == [1, 3]
    x = torch.randn(shape)
    torch.testing.assert_close(narrow(x), wide(x))


@pytest.mark.parametrize(("kind", "shape"), [(1, (3, 4)), (2, (3, 4, 2, 2)), (3, (3, 4, 2, 2, 2))])
def test_selecting_norms(kind: int, shape: tuple[int, ...]) -> None:
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[kind - 1]
    wide, narrow = norm(4), norm(2)
    select(narrow, (0, 2))
    x = torch.randn(shape)
    torch.testing.assert_close(narrow(x), wide(x)[:, [0, 2]])


def test_state_dicts_survive_a_safe_round_trip_in_memory() -> None:
    net = build(FACTORIES["densenet40"], surveyed("densenet40"), combined("densenet40"))
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    assert all(torch.equal(loaded[key], value) for key, value in net.state_dict().items())
