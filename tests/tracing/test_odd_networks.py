"""Networks that would be narrowed into other functions by a survey that believes its eyes: held, or right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.survey import Survey
from prunas.tracing.survey import survey
from tests.tracing.small import check_points

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Three convolutions; cases replace the middle, which has 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.b(self.middle(F.relu(self.a(x))))))


class Features(Net):
    """The same of linear layers: there are no positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(10, 16), nn.Linear(16, 12), nn.Linear(12, 4)


class PooledFeatures(Features):
    def middle(self, x: Tensor) -> Tensor:
        return F.max_pool1d(x, 3, 1, 1)


class PooledFeaturesByModule(Features):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(3, 1, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.pool(x)


class NormedFeatures(Features):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(16)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Scaled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.1, 1, 16).view(16, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        return x * self.scale + self.scale.mean()


class ScaledByNorm(Scaled):
    def middle(self, x: Tensor) -> Tensor:
        return x * self.scale / self.scale.norm()


class Unsaved(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.linspace(0.1, 1, 16).view(16, 1, 1), persistent=False)

    def middle(self, x: Tensor) -> Tensor:
        return x * self.scale


class Thresholded(Net):
    def middle(self, x: Tensor) -> Tensor:
        return x if self.a.out_channels > 3 else x * 2


class HookedActivation(Net):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.relu.register_forward_hook(lambda module, inputs, output: output.flip(1))

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(x)


class ReplacedActivation(Net):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.relu.forward = lambda x: x.flip(1)  # type: ignore[method-assign]

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(x)


class ReplacedLayer(Net):
    def __init__(self) -> None:
        super().__init__()
        forward = self.a.forward
        self.a.forward = lambda x: forward(x).flip(1)  # type: ignore[method-assign]


class OwnWeight(Net):
    def __init__(self) -> None:
        super().__init__()
        self.b.weight = nn.Parameter(torch.rand(12, 16, 1, 1))


class Transposed(Features):
    def __init__(self) -> None:
        super().__init__()
        self.back = nn.Linear(12, 16)
        self.back.weight = nn.Parameter(self.b.weight.t())
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.back(F.relu(self.b(F.relu(self.a(x))))))


class Aliased(Net):
    def __init__(self) -> None:
        super().__init__()
        self.again = self.b

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.again(F.relu(self.a(x)))))


class Located(Net):
    def middle(self, x: Tensor) -> Tensor:
        return x * F.pad(x, (4, 4)).narrow(3, self.a.out_channels % 3, 8)


class Constant(Net):
    def middle(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0, 1, 8, dtype=x.dtype)


ODD: dict[str, tuple[type[Net], list[str], str | None]] = {
    # network, groups that vary, and why `a`, or what is named first, does not
    "pooled features": (PooledFeatures, ["b"], "pooled across channels"),
    "pooled features, a module": (PooledFeaturesByModule, ["b"], "pooled across channels"),
    "normed features": (NormedFeatures, ["b"], "its norm takes the channels for positions"),
    "mean of a parameter": (Scaled, ["b"], "mean reads scale as a whole"),
    "norm of a parameter": (ScaledByNorm, ["b"], "norm reads scale as a whole"),
    "buffer that is not saved": (Unsaved, ["b"], "scale is not in the state dict"),
    "branch on few channels": (
        Thresholded,
        ["b"],
        "a narrowed network does something else here (a branch of Python on a size?)",
    ),
    "hooked activation": (HookedActivation, ["b"], "it has forward hooks"),
    "replaced activation": (ReplacedActivation, ["b"], "its forward was replaced"),
    "replaced layer": (ReplacedLayer, ["b"], "its forward was replaced"),
    "weight of a size of its own": (OwnWeight, [], "its factory gives it tensors of a size of their own"),
    "weight that is another one's transpose": (
        Transposed,
        [],
        "its factory gives it tensors of a size of their own",
    ),
    "layer with two names": (Aliased, [], "it is also called again"),
    "place by a width": (
        Located,
        ["b"],
        "a narrowed network computes something else here (a size used as a number?)",
    ),
    "constant made in forward": (Constant, ["a", "b"], None),
}


def reasons(made: Survey) -> dict[str, str]:
    return {frozen.what: frozen.why for frozen in made.frozen if frozen.why != "the network's output"}


@pytest.mark.filterwarnings("ignore:input's size at dim=0")
@pytest.mark.parametrize("name", ODD)
def test_odd_networks(name: str) -> None:
    factory, varies, why = ODD[name]
    made = check_points(factory, (10,) if issubclass(factory, Features) else SHAPE)
    assert [group.name for group in made.groups] == varies
    assert why is None or why in reasons(made).values()


class Block(nn.Module):
    factor = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.d(F.relu(self.c(x))))


class Adding(Block):
    def forward(self, x: Tensor) -> Tensor:
        x += self.d(F.relu(self.c(x)))
        return x


class Blocks(Net):
    def __init__(self, block: Callable[[], nn.Module] = Block) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block(), block()])

    def middle(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class AsksAnAttribute(Blocks):
    def middle(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) * block.factor
        return x


class AsksTheClass(Blocks):
    def middle(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x * 2 if isinstance(block, Block) else x)
        return x


class AsksOne(Blocks):
    def middle(self, x: Tensor) -> Tensor:
        return self.blocks[1](self.blocks[0](x)) * self.blocks[1].factor


class KeepsAList(Blocks):
    def __init__(self) -> None:
        super().__init__()
        self.listed = [*self.blocks]

    def middle(self, x: Tensor) -> Tensor:
        for block in self.listed:
            x = block(x)
        return x


class SecondName(Blocks):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.blocks[0]

    def middle(self, x: Tensor) -> Tensor:
        return self.blocks[1](self.first(x))


class Hooked(Blocks):
    def __init__(self) -> None:
        super().__init__()
        self.blocks[0].register_forward_hook(lambda module, inputs, output: output * 2)


class InputRead(Blocks):
    def __init__(self) -> None:
        super().__init__(Adding)

    def middle(self, x: Tensor) -> Tensor:
        x = x * 1
        return super().middle(x) + x


LEAVE: dict[str, tuple[Callable[[], Net], list[str], str]] = {
    # network, blocks that can be removed, why the first other one cannot
    "an attribute": (AsksAnAttribute, [], "the network fails without it: 'Nothing' object has no"),
    "the class": (AsksTheClass, [], "the network does something else without it"),
    "an attribute of one": (AsksOne, ["blocks.0"], "the network fails without it: 'Nothing' object has no"),
    "a list": (KeepsAList, [], "the network "),
    "a second name": (SecondName, ["blocks.1"], "it is also called first"),
    "a hook": (Hooked, ["blocks.1"], "it has forward hooks"),
    "its input, which it changes": (InputRead, [], "its sum changes its input in place"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAVE)
def test_blocks_that_somebody_knows_stay(name: str) -> None:
    factory, removable, why = LEAVE[name]
    made = survey(factory, SHAPE)
    assert [block.name for block in made.blocks] == removable
    told = next(text for what, text in reasons(made).items() if what in ("blocks.0", "blocks.1"))
    assert told.startswith(f"its branch cannot be removed: {why}")


def test_other_number_formats_are_surveyed_as_they_are() -> None:
    assert survey(lambda: Net().half(), SHAPE) == survey(Net, SHAPE) == survey(lambda: Net().double(), SHAPE)


def test_lazy_layers_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"^'1' is a lazy layer: it has no size yet; make it with its sizes$"
    ):
        survey(lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.LazyConv2d(4, 1)), SHAPE)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_tensors_that_others_put_into_layers_are_counted() -> None:
    from torch.nn.utils import prune, spectral_norm, weight_norm

    from prunas.architecture import Architecture
    from prunas.costs.counted import CostModel

    for change in (weight_norm, spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)):

        def factory(change: Callable[[nn.Module], object] = change) -> nn.Module:
            net = Net()
            change(net.b)
            return net

        made = survey(factory, SHAPE)
        params = CostModel(made).of(Architecture("t", made.fingerprint)).params
        assert params == sum(parameter.numel() for parameter in factory().parameters())
