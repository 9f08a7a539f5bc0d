"""Networks that the survey refuses, or holds something of, each with the reason that it must give."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torchvision.ops import DeformConv2d, deform_conv2d

__all__ = ["HELD", "REFUSED", "UNBUILT", "Case", "OneMore"]

Operation = Callable[[nn.Module, Tensor], Tensor]
Layers = dict[str, Callable[[], Any]]
MAPS, ROWS = (3, 6, 6), (4, 5)
IDS = [{"": [4], "dtype": "int64", "below": 9}]


@dataclass(frozen=True, eq=False)
class Case:
    """A network and what the survey must say of it.

    Attributes:
        says: The reason, with `...` for what may stand there.
        factory: Makes the network.
        inputs: What it is surveyed with.
        part: The part that varies, if it is not all.
    """

    says: str
    factory: Callable[[], Any]
    inputs: Any = MAPS
    part: str = ""


class Middle(nn.Module):
    """Something between two layers."""

    def __init__(self, first: nn.Module, last: nn.Module, operation: Operation, layers: Layers) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.operation = operation
        for name, make in layers.items():
            setattr(self, name, make())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.operation(self, self.first(x)))


def maps(says: str, operation: Operation, read: int = 8, **layers: Callable[[], Any]) -> Case:
    """`operation` between two convolutions, the second of which reads `read` channels."""
    return Case(says, lambda: Middle(nn.Conv2d(3, 8, 1), nn.Conv2d(read, 4, 1), operation, layers))


def rows(says: str, operation: Operation, **layers: Callable[[], Any]) -> Case:
    """`operation` between two linear layers, on four rows of eight channels."""
    return Case(says, lambda: Middle(nn.Linear(5, 8), nn.Linear(8, 4), operation, layers), ROWS)


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.rand(shape))


def started(net: nn.Module, x: Tensor) -> Tensor:
    return net.cell(x, torch.zeros(1, len(x), 8))[0]


deformable = partial(DeformConv2d, 8, 8, 1)


def deformed(net: nn.Module, x: Tensor) -> Tensor:
    return net.deformed(x, net.offset(x))


class SplitOff(nn.Module):
    """Three of the channels are split off, of the others an attribute says how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.first, self.last = nn.Conv2d(3, 11, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, gates = self.first(x).split([self.width, 3], 1)
        return self.last(x * gates.mean((1, 2, 3), keepdim=True))


def packed(net: nn.Module, x: Tensor) -> Tensor:
    several = pack_padded_sequence(x, torch.full((len(x),), 3), batch_first=True)
    return pad_packed_sequence(net.cell(several)[0], batch_first=True)[0]


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, 4)).transpose(1, 2)


@fx.wrap
def flatten_(x: Tensor, first: int, second: int, times: int) -> Tensor:
    """Called like one of torch's functions, and called in another way."""
    return x.flatten(first, second) * times


def called_as_function(net: nn.Module, x: Tensor) -> Tensor:
    return F.multi_head_attention_forward(x, x, x, 8, 2, net.w, None, None, None, False, 0.0, net.o, None)[0]


def few_keys(net: nn.Module, x: Tensor) -> Tensor:
    """Four heads of queries, and two of keys that are one and the same."""
    keys = net.key(x)[:, None].expand(-1, 2, -1, -1)
    queries = x.unflatten(-1, (-1, 2)).transpose(1, 2)
    return F.scaled_dot_product_attention(queries, keys, keys, enable_gqa=True).transpose(1, 2).flatten(2)


def wide_only(net: nn.Module, x: Tensor) -> Tensor:
    if x.shape[1] < 8:
        raise RuntimeError("too narrow")
    return x


def two_only(net: nn.Module, x: Tensor) -> Tensor:
    if len(x) != 2:
        raise RuntimeError("two images")
    return x


class Block(nn.Module):
    """A shortcut and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Blocks(nn.Module):
    """A block between two layers."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(3, 8, 1), block(), nn.Conv2d(8, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.block(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Twice(Blocks):
    def middle(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))


class Reused(Blocks):
    def middle(self, x: Tensor) -> Tensor:
        return self.block(x) + self.block.conv2(self.block.conv1(x))


class Replaced(Blocks):
    def __init__(self) -> None:
        super().__init__(Block)
        self.block.conv1.forward = lambda x: F.conv2d(x, self.block.conv1.weight)


class Broadcast(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True) + self.branch(x)


class InPlace(Block):
    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        x += branch
        return x


class ChangedOutside(Blocks):
    def middle(self, x: Tensor) -> Tensor:
        return F.relu_(self.block(x)) + x


class TwoArguments(Block):
    def forward(self, x: Tensor, times: int = 1) -> Tensor:
        return x + self.branch(x)


class ByMode(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.training else x * 2 + self.branch(x)


class Known(Blocks):
    """Asks a block for something that only its own class has."""

    def middle(self, x: Tensor) -> Tensor:
        return self.block(x) * float(self.block.conv1.kernel_size[0])


class ByClass(Blocks):
    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.block(x)) if isinstance(self.block, Block) else self.block(x)


class Growing(nn.Module):
    """Names a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.same, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.also = self.same

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.also(self.same(self.first(x))))


class Shared(Growing):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.also = nn.Conv2d(8, 8, 1)
        self.also.weight = self.same.weight


class Copied(Growing):
    """A layer is a copy of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.also = copy.deepcopy(self.same)


class Hooked(Blocks):
    """A layer with a hook."""

    def __init__(self) -> None:
        super().__init__(Block)
        self.last.register_forward_pre_hook(lambda module, args: (args[0] + 1,))


class OneMore(nn.Module):
    """How many layers it has follows from a width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 4, 1))
        if self.layers[0].out_channels > 8:
            self.layers.append(nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class OwnWeight(nn.Module):
    """A layer's weight is made besides it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.first.weight = nn.Parameter(torch.rand(8, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


class Detector(nn.Module):
    """A body between a network's own beginning and end."""

    def __init__(self, body: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.body, self.last = nn.Conv2d(3, 8, 1), body(), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x)))


class Untied(Detector):
    """A weight of the body is read outside it too."""

    def __init__(self, body: Callable[[], nn.Module]) -> None:
        super().__init__(body)
        self.tied = nn.Conv2d(8, 6, 1)
        self.tied.weight = self.body.conv1.weight

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.tied(self.first(x)).mean()


class Reading(Detector):
    """Reads a weight of its body."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.conv2d(self.first(x), self.body.conv1.weight.view(6, 8, 1, 1)).mean()


class Weighing(Detector):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.conv2d(self.first(x), self.body.conv1.weight).mean()


class Peeking(Detector):
    """Calls what is inside its body."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.body.conv1(self.first(x)).mean()


class Repeating(Detector):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.body(self.first(x))))


class Avoiding(Detector):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


class Handing(Detector):
    """Gives its body something else than tensors."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x), object()))


class WithSomething(Block):
    def forward(self, x: Tensor, thing: object) -> Tensor:
        return x + self.branch(x)


class Reached(Detector):
    """Stops after its body, for it looks at numbers."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.first(x))
        if y.isfinite().all():
            raise RuntimeError("no object was found")
        return self.last(y)


class Unreached(Detector):
    """Stops before its body."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not yet")


class Choosing(Detector):
    """How much it does depends on numbers."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.first(x))
        return self.last(y[:, :, : 3 if (y > -9).all() else 1])


class Heads(nn.Module):
    """Two readers of one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.last, self.also, self.third = nn.Linear(8, 5), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pooled = self.first(x).mean((2, 3))
        return self.last(pooled), self.also(pooled), self.third(pooled)


class Asked(Heads):
    """Asks a layer how much it reads."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pooled = self.first(x).mean((2, 3)).view(-1, self.last.in_features)
        return self.last(pooled), self.also(pooled), self.third(pooled)


class DryRun(Heads):
    """Runs its layers when it is made."""

    def __init__(self) -> None:
        super().__init__()
        self(torch.zeros(1, 3, 6, 6))


class Deaf(Block):
    """torch.fx cannot trace it."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0
        return super().forward(x)


class TwoFaced(Block):
    """Something else for torch.fx."""

    def forward(self, x: Tensor) -> Tensor:
        return (
            x + self.branch(x) if isinstance(x, Tensor) else self.conv2(self.conv1(x)) + self.conv1(x).mean()
        )


class Listening(Blocks):
    """torch.fx cannot trace it, others can."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) > 0
        return super().forward(x)


def asking(x: Tensor) -> Tensor:
    """Stops torch.fx and torch.export."""
    return x if x.sum() > 0 else -x


def unseen(net: nn.Module, x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        y = x * 2.0
    return asking(y + 0)


def written(net: nn.Module, x: Tensor) -> Tensor:
    x = x + 0
    with torch._C.DisableTorchFunction():
        x.mul_(2.0)
    return asking(x + 0)


def each(net: nn.Module, x: Tensor) -> Tensor:
    return asking(torch.vmap(torch.sin)(x))


class Handed(Block):
    """Returns something of its own."""

    def forward(self, x: Tensor) -> Any:
        return MADE


ATTENTION = partial(nn.MultiheadAttention, 8, 2, batch_first=True)
GAPS = "a narrowed network has other channels here than expected (a size written as a number?)"

HELD: tuple[Case, ...] = (
    # Products of matrices and attention.
    rows(
        "a product of other things than two stacks of matrices",
        lambda net, x: x * (x @ net.weight)[..., None],
        weight=parameter(8),
    ),
    rows("they are multiplied by a parameter as a matrix", lambda net, x: x @ net.w, w=parameter(1, 8, 8)),
    rows(
        "they are multiplied by a tensor of fixed size",
        lambda net, x: (heads(x) @ x.new_ones(2, 4, 4)).transpose(1, 2).flatten(2),
    ),
    rows(
        "a product of matrices is not understood where no axis is one of heads",
        lambda net, x: x @ x.new_ones(1, 8, 8),
    ),
    rows(
        "matmul is called in an unusual way",
        lambda net, x: x @ net.other(x.new_ones(1, 8, 2)),
        other=partial(nn.Linear, 2, 8),
    ),
    rows(
        "multi_head_attention_forward is not understood: heads stay, their number is an "
        "attribute of the module, their size sets the scale",
        called_as_function,
        w=parameter(24, 8),
        o=parameter(8, 8),
    ),
    rows(
        "attention to what has no heads",
        lambda net, x: F.scaled_dot_product_attention(x, net.k, net.k),
        k=parameter(1, 4, 8),
    ),
    rows("heads meet others of another number", few_keys, key=partial(nn.Linear, 8, 2)),
    rows(
        "an attention with keys or values of its own is not understood",
        lambda net, x: net.attention(x, x, x)[0],
        attention=partial(ATTENTION, add_zero_attn=True),
    ),
    rows(
        "its attention weights are read",
        lambda net, x: (result := net.attention(x, x, x))[0] + result[1].mean(),
        attention=ATTENTION,
    ),
    rows(
        "its mask has a part for every head",
        lambda net, x: net.attention(x, x, x, attn_mask=x.new_zeros(2 * x.shape[0], 4, 4))[0],
        attention=ATTENTION,
    ),
    # Element by element.
    maps("they meet a tensor of fixed size", lambda net, x: x + x.new_ones(8, 1, 1)),
    rows(
        "channels of two axes meet", lambda net, x: net.first(x.new_ones(8, 5)) + x.transpose(1, 2)[:, :, :1]
    ),
    maps(
        "one channel is broadcast over many", lambda net, x: x * net.one(x), one=partial(nn.Conv2d, 8, 1, 1)
    ),
    # Layers.
    maps(
        "a transposed convolution in groups is not understood",
        lambda net, x: net.wide(x),
        wide=partial(nn.ConvTranspose2d, 8, 8, 1, groups=2),
    ),
    rows(
        "its norm takes the channels for positions",
        lambda net, x: net.norm(x[0]),
        norm=partial(nn.InstanceNorm1d, 4),
    ),
    Case(
        "it changes the rows that it looks up",
        lambda: nn.Sequential(nn.Embedding(9, 8, max_norm=1.0), nn.Linear(8, 4)),
        IDS,
    ),
    rows("Bilinear is not understood", lambda net, x: net.both(x, x), both=partial(nn.Bilinear, 8, 8, 8)),
    rows(
        "its channels do not lie along the axis that the layer reads",
        lambda net, x: net.mixed(x.transpose(1, 2)).transpose(1, 2),
        mixed=partial(nn.Linear, 4, 4),
    ),
    # Movement.
    maps(
        "getitem takes channels by computed positions",
        lambda net, x: x[:, net.order],
        order=lambda: nn.Buffer(torch.arange(8)),
    ),
    maps(
        "what it concatenates cannot be followed",
        lambda net, x: torch.cat([x.unflatten(1, (-1, 4)), x.new_ones(x.shape[0], 2, 4, 6, 6)], 3)[
            :, :, :, :6
        ].flatten(1, 2),
    ),
    maps("what it stacks cannot be followed", lambda net, x: torch.stack(x.unbind(0), 0)),
    maps(
        "stacked with tensors of fixed size",
        lambda net, x: torch.stack([x, torch.ones(1, 8, 6, 6).expand(len(x), -1, -1, -1)]).sum(0),
    ),
    maps(
        "pixels are shuffled by a computed factor",
        lambda net, x: F.pixel_unshuffle(F.pixel_shuffle(x, x.shape[2] // 3), 2),
    ),
    maps(
        "pixels are shuffled along another axis than the channels",
        lambda net, x: (
            F.pixel_unshuffle(F.pixel_shuffle(x.transpose(1, 2)[:, :4], 2), 2)
            .transpose(1, 2)
            .reshape(-1, 8, 4, 6)
        ),
    ),
    maps(
        "channels that do not lie along the second axis are shuffled",
        lambda net, x: F.channel_shuffle(x.transpose(1, 2), 2).transpose(1, 2),
    ),
    maps("getitem splits or reorders channels by position", lambda net, x: x[:, [1, 0, *range(2, 8)]]),
    maps("a single channel is taken by position", lambda net, x: x * x[0, 0, 0, 0]),
    maps(
        "it takes the shape of a tensor whose channels lie elsewhere",
        lambda net, x: x.reshape_as(net.other(x.new_ones(x.shape[0], 8, 5))).reshape(-1, 8, 6, 6),
        other=partial(nn.Linear, 5, 36),
    ),
    maps(
        "flatten moves channels in a way that cannot be followed",
        lambda net, x: flatten_(x, 2, 3, 4).reshape(-1, 8, 6, 6),
    ),
    maps(
        "concatenated along another axis than the channels",
        lambda net, x: torch.cat([x, x.new_ones(x.shape[0], 8, 6, 6)], 2),
    ),
    maps(
        "they meet channels that never vary",
        lambda net, x: torch.cat([x, x.new_ones(x.shape[0], 2, 6, 6)], 1) + net.beside(x),
        read=10,
        beside=partial(nn.Conv2d, 8, 10, 1),
    ),
    # Reductions.
    rows("pooled across channels", lambda net, x: F.max_pool1d(x, 3, 1, 1)),
    maps("sum runs over channels", lambda net, x: x + x.sum(1, keepdim=True)),
    maps("softmax runs over channels", lambda net, x: x.softmax(1)),
    maps("a pad of computed extent", lambda net, x: F.pad(x, x.shape[2:])),
    maps("a constant pad joins the channels", lambda net, x: F.pad(x, (0, 0, 0, 0, 1, 1)), read=10),
    maps("gated along another axis than the channels", lambda net, x: F.glu(x, 2)),
    # Parameters besides their layers.
    maps("forward reads its weight besides calling it", lambda net, x: x * net.first.weight.mean()),
    maps("table is not in the state dict", lambda net, x: x + net.table, table=partial(torch.rand, 8, 1, 1)),
    maps(
        "mean reads scale as a whole",
        lambda net, x: x * net.scale / net.scale.mean(),
        scale=parameter(8, 1, 1),
    ),
    rows(
        "its channels lie along two axes",
        lambda net, x: x * net.square[:, 0] * net.square[0],
        square=parameter(8, 8),
    ),
    rows(
        "its rows are looked up in table",
        lambda net, x: x * net.table[net.index] * net.table[:, 0],
        table=parameter(8, 8),
        index=lambda: nn.Buffer(torch.arange(4)),
    ),
    rows(
        "einsum reads it and is not followed",
        lambda net, x: torch.einsum("nij,kj->nik", x, net.weight),
        weight=parameter(8, 8),
    ),
    # Layers as a whole.
    maps(
        "its weight is parametrised",
        lambda net, x: net.normed(x),
        normed=lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 1)),
    ),
    Case("its forward was replaced", Replaced),
    Case("it has forward hooks", Hooked),
    Case("it is also called also", Growing),
    Case("it shares its weight with same", Shared),
    Case("the factory copies it instead of constructing it", Copied),
    Case("the network calls it outside the part too", partial(Peeking, Block), part="body"),
    Case("it is also used by tied", partial(Untied, Block), part="body"),
    # Recurrent layers and deformable convolutions.
    rows("its first state has a fixed size", started, cell=partial(nn.GRU, 8, 8, batch_first=True)),
    maps(
        "they say where a deformable convolution reads",
        deformed,
        offset=partial(nn.Conv2d, 8, 2, 1),
        deformed=deformable,
    ),
    maps(
        "a deformable convolution in groups is not understood",
        deformed,
        offset=partial(nn.Conv2d, 8, 2, 1),
        deformed=partial(deformable, groups=2),
    ),
    maps(
        "a deformable convolution by a computed weight is not understood",
        lambda net, x: deform_conv2d(x, net.offset(x), net.weight * 2),
        offset=partial(nn.Conv2d, 8, 2, 1),
        weight=parameter(8, 8, 1, 1),
    ),
    Case("it splits off as many channels as a number says", SplitOff),
    # Counts.
    maps("a channel count becomes a value", lambda net, x: x * x.shape[1]),
    maps("it has a single unit", lambda net, x: net.narrow(x), read=1, narrow=partial(nn.Conv2d, 8, 1, 1)),
    maps(GAPS, lambda net, x: x.reshape(-1, 8, 36).reshape(-1, 8, 6, 6)),
    maps(
        "squeeze takes a single channel away; give it the axes that it is to take",
        lambda net, x: x * x.mean((2, 3), keepdim=True).squeeze()[..., None, None],
    ),
    maps(
        "a narrowed network does something else here (a branch of Python on a size?)",
        lambda net, x: x.relu() if x.shape[1] > 7 else x,
    ),
    maps(
        "a narrowed network computes something else here (a size used as a number?)",
        lambda net, x: x * net.first.out_channels,
    ),
    maps("a narrowed network fails: too narrow", wide_only),
    Case(
        "the network's factory computes the size of another layer from it; give that size as a number",
        OneMore,
    ),
    Case("its factory gives it tensors of a size of their own", OwnWeight),
    # Blocks.
    Case("its branch cannot be removed: it is called more than once", partial(Twice, Block)),
    Case("its branch cannot be removed: its weights are used elsewhere too", partial(Reused, Block)),
    Case("its branch cannot be removed: its shortcut is broadcast", partial(Blocks, Broadcast)),
    Case("its branch cannot be removed: its sum changes its input in place", partial(Blocks, InPlace)),
    Case(
        "its branch cannot be removed: its input or output is changed in place",
        partial(ChangedOutside, Block),
    ),
    Case(
        "its branch cannot be removed: its forward takes more than one argument",
        partial(Blocks, TwoArguments),
    ),
    Case(
        "its branch cannot be removed: what is left without the branch differs between training and evaluation",
        partial(Blocks, ByMode),
    ),
    Case("how much they do depends on what is in the image", partial(Choosing, Block), part="body"),
    Case(
        "the network stops on a random image with RuntimeError: no object was found",
        partial(Reached, Block),
        part="body",
    ),
    Case("its branch cannot be removed: the network fails without it: ...", partial(Known, Block)),
    Case("its branch cannot be removed: the network does something else without it", partial(ByClass, Block)),
    Case("its branch cannot be removed: torch.fx cannot trace it: ...", partial(Listening, Deaf)),
    Case("its branch cannot be removed: torch.fx sees another branch", partial(Listening, TwoFaced)),
    # Gates.
    Case("its inputs cannot be selected: a narrowed network ...", Asked),
    Case("its inputs cannot be selected: the factory runs its layers while it makes the network", DryRun),
)


MADE = Block()
COUNTER = itertools.count(8)

REFUSED: tuple[Case, ...] = (
    Case(
        "a function that makes a network is wanted, not a network, ...: give one that returns a "
        "fresh Block at every call",
        MADE,
    ),
    Case("the network's factory returns int, not a torch module", lambda: 3),
    Case("the network cannot be made: ...", lambda: nn.Conv2d(3, 0, 1, groups=2)),
    Case(
        "'1' is a lazy layer: it has no size yet; make it with its sizes",
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.LazyConv2d(4, 1)),
    ),
    Case(
        "the network's factory returns a network that was made before; it must make a new one "
        "at every call, as `lambda: Net()` does",
        lambda: MADE,
    ),
    Case(
        "the network's factory returns a network with '0' in it that was made before; it must make ...",
        lambda: nn.Sequential(MADE, nn.Conv2d(8, 4, 1)),
        (8, 6, 6),
    ),
    Case(
        "the network's factory makes other layers than when it was surveyed; it must return the "
        "same network at every call",
        lambda: nn.Sequential(nn.Conv2d(3, next(COUNTER), 1)),
    ),
    maps(
        "the network cannot be traced, not by torch.fx: ...; nor by running it without data: "
        "...; nor by torch.export: ...",
        lambda net, x: x if x.sum() > 0 else -x,
    ),
    maps(
        "the network does not accept an input of shape (3, 6, 6): ...; give the shape of one "
        "input without the batch",
        lambda net, x: x[:, :, :, :7] + x.new_ones(7),
    ),
    maps(
        "the network reads the values of its tensors ..., and a survey knows shapes only: ...",
        lambda net, x: x * x.flatten()[x.flatten().nonzero()].sum(),
    ),
    maps("the network cannot be narrowed: ... at every width ...", lambda net, x: x * next(COUNTER)),
    Case(
        "the network does not accept an input of shape ...: a norm of 4 channels was given 8 ...",
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(4)),
    ),
    Case(
        "the network does not accept an input of shape ...: a norm of 8 channels was given 6 ...",
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.LayerNorm(8)),
    ),
    Case(
        "the network does not accept an input of shape ...: a linear layer of 8 inputs was given 6 ...",
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(8, 4)),
    ),
    Case(
        "the network does not accept an input of shape ...: a recurrent layer of 8 inputs was given 5 ...",
        lambda: nn.Sequential(nn.Linear(5, 5), nn.GRU(8, 4)),
        ROWS,
    ),
    maps("...running it without data: forward uses a transform of functions, such as vmap...", each),
    maps("...running it without data: forward uses a tensor that no function of torch's made...", unseen),
    maps("...running it without data: forward writes into a tensor by no function of torch's...", written),
    Case("...running it without data: forward returns a Block...", Handed, (8, 6, 6)),
    Case(
        "the network's forward is called with ..., and that does not fit: ...; name what it "
        "takes, as in input = [{ x = [3, 32, 32] }, { y = [10] }]",
        Block,
        [(8, 6, 6), (8, 6, 6)],
    ),
    maps("the network takes 2 images and neither 1 nor 4, so its cost for one is unknown; ...", two_only),
    rows(
        "...packed sequences are as long as values say, and a survey knows shapes only: give the padded tensor...",
        packed,
        cell=partial(nn.GRU, 8, 8, batch_first=True),
    ),
    # Parts.
    Case("the network Detector has no part 'neck'; it has ...", partial(Detector, Block), part="neck"),
    Case("part 'body' has no parameters, so nothing in it can vary", partial(Detector, nn.ReLU), part="body"),
    Case(
        "the network calls its part 'body' 2 times for one input; ...", partial(Repeating, Block), part="body"
    ),
    Case(
        "the network does not call its part 'body' for an input of shape 3x6x6; ...",
        partial(Avoiding, Block),
        part="body",
    ),
    Case(
        "the network does not call its part 'body' for an input of shape 3x6x6: it stops before with ...",
        partial(Unreached, Block),
        part="body",
    ),
    Case(
        "the part is called with object, and a survey knows tensors, lists and dictionaries of them; ...",
        partial(Handing, WithSomething),
        part="body",
    ),
    Case(
        "the network uses what is inside its part 'body', which may not vary then: narrowed, it "
        "stops with ...; name a larger part",
        partial(Reading, Block),
        part="body",
    ),
    Case(
        "the network uses what is inside its part 'body', which may not vary then: narrowed, it "
        "does something else outside the part; name a larger part",
        partial(Weighing, Block),
        part="body",
    ),
)


def changing_at(width: int, appended: bool) -> Callable[[], nn.Module]:
    """A factory that does something else at a single width: it appends a layer, or makes the last one wider."""

    def factory() -> nn.Module:
        first = nn.Conv2d(3, 40, 1)
        other = first.out_channels == width
        layers = [first, nn.Conv2d(40, 5 if other and not appended else 4, 1)]
        return nn.Sequential(*layers, *([nn.Conv2d(4, 4, 1)] if other and appended else []))

    return factory


UNBUILT: tuple[tuple[str, Callable[[], nn.Module]], ...] = (
    (
        "the network's factory computes which layers it makes from the size of a layer ...",
        changing_at(7, appended=True),
    ),
    (
        "the network's factory computes a size of '1' from the size of a layer ...",
        changing_at(7, appended=False),
    ),
)
"""Factories that a survey of few points cannot see through, and what a point of seven channels is refused with."""
