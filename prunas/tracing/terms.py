"""The channel axes of a state dict, and the products that the cost is the sum of."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, fx, nn

from prunas.survey import FIXED, Block, ChannelAxis, ChannelMap, CostTerm, Gate, Layer
from prunas.tracing.ledger import Grouping

__all__ = ["Terms"]

FOLLOWING = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
"""The tensors of a layer that follow its channels; any other is a parametrisation's, say, and never varies."""


class Terms:
    """Every channel axis of a state dict, and every product of the cost.

    Args:
        net: The network.
        grouping: What its channels are.
        form: The index of a form.
        gates: Where layers select their inputs.
        blocks: Which branches can be removed.
        read: Input positions of the layers that multiply these, for one image.

    Attributes:
        axes: The channel axes, in the order of the layers.
        products: The products of the cost, likewise.
    """

    def __init__(
        self,
        net: nn.Module,
        grouping: Grouping,
        form: Callable[[ChannelMap], int],
        gates: Sequence[Gate],
        blocks: Sequence[Block],
        read: Mapping[str, int],
    ) -> None:
        self.read = read
        self.net, self.grouping, self.form = net, grouping, form
        self.modules = dict(net.named_modules())
        self.gates = {gate.name for gate in gates}
        self.gate_of_norm = {gate.norm: gate.name for gate in gates if gate.norm}
        self.within: dict[str, tuple[int, ...]] = {}  # the blocks that each module or tensor goes with
        for i, block in enumerate(blocks):
            self.within.update({name: (*self.within.get(name, ()), i) for name in block.branch})
        self.axes: list[ChannelAxis] = []
        self.products: list[CostTerm] = []
        self.counted: set[int] = set()

    def first_met(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter that is not counted yet; a shared one counts where it is met first."""
        first = isinstance(tensor, nn.Parameter) and id(tensor) not in self.counted
        self.counted.add(id(tensor))
        return first

    def add_layer(self, layer: Layer) -> None:
        """The tensors of a layer that follow its channels."""
        path, within = layer.path, self.within.get(layer.path, ())
        if layer.kind == "recurrent":
            return  # each of its tensors has axes of its own
        module = self.modules[path]
        parameters = dict(module.named_parameters(recurse=False))
        if layer.kind == "embedding":
            weight = parameters["weight"]
            self.axes.append(ChannelAxis(f"{path}.weight", 1, layer.writes))
            if self.first_met(weight):
                self.products.append(CostTerm(path, FIXED, layer.writes, len(weight), 0, blocks=within))
            return
        multiplies = layer.kind in ("conv", "linear", "transposed")
        vectors = 0
        for name, tensor in (*parameters.items(), *module.named_buffers(recurse=False)):
            if name not in FOLLOWING:
                continue
            if tensor.ndim and not (layer.kind == "transposed" and name == "weight"):
                self.axes.append(ChannelAxis(f"{path}.{name}", 0, layer.writes))
            first = self.first_met(tensor)
            if name == "weight" and multiplies:
                self.add_weight(layer, first)
            elif first:
                vectors += 1
        if multiplies and "weight" not in parameters:
            # A computed weight (weight norm) is not in the state dict and never varies, but multiplies.
            macs = math.prod(layer.kernel) * layer.positions
            self.products.append(CostTerm(path, self.inner(path), layer.writes, 0, macs, blocks=within))
        if vectors:
            gate = self.gate_of_norm.get(path)
            self.products.append(CostTerm(path, FIXED, layer.writes, vectors, 0, None, gate, within))

    def add_weight(self, layer: Layer, first: bool) -> None:
        """The weight of a convolution or linear layer; `first` says whether it adds parameters."""
        path, reads, area = layer.path, self.inner(layer.path), math.prod(layer.kernel)
        transposed, full = layer.kind == "transposed", (path, "inner") in self.grouping.forms
        if transposed:  # its weight has the inputs first
            self.axes.append(ChannelAxis(f"{path}.weight", 0, reads if full else layer.writes))
        if full:
            self.axes.append(ChannelAxis(f"{path}.weight", 1, layer.writes if transposed else reads))
        params, macs = area if first else 0, area * (self.read[path] if transposed else layer.positions)
        gate = path if path in self.gates else None
        within, conv = self.within.get(path, ()), layer.kind == "conv"
        self.products.append(CostTerm(path, reads, layer.writes, params, macs, gate, None, within, conv))

    def inner(self, path: str) -> int:
        """The form of what each filter of a layer reads; fixed for a depthwise convolution."""
        form = self.grouping.forms.get((path, "inner"))
        return FIXED if form is None else self.form(form)

    def add_rest(self) -> None:
        """The parameters and buffers of no layer: some have a channel axis, such as a layer scale."""
        bare: dict[str, dict[int, ChannelMap]] = {}
        for (name, side), channels in self.grouping.forms.items():
            if side.isdigit():
                bare.setdefault(name, {})[int(side)] = channels
        rest: Counter[tuple[int, ...]] = Counter()
        for name, tensor in (*self.net.named_parameters(), *self.net.named_buffers()):
            within = self.within.get(name, self.within.get(name.rpartition(".")[0], ()))
            first = self.first_met(tensor)
            if name in bare:
                axes = {axis: self.form(channels) for axis, channels in sorted(bare[name].items())}
                self.axes += [ChannelAxis(name, axis, form) for axis, form in axes.items()]
                size = tensor.numel() // math.prod(tensor.shape[axis] for axis in axes)
                writes, reads = (*axes.values(), FIXED)[:2]
                if first:
                    self.products.append(CostTerm(name, reads, writes, size, 0, blocks=within))
                if name in self.read:
                    owner = name.rpartition(".")[0]
                    if isinstance(self.modules[owner], nn.MultiheadAttention):
                        # It projects queries, keys or values; or all three, in equal parts.
                        writes = self.form(self.grouping.forms[owner, "writes"])
                    self.products.append(CostTerm(name, reads, writes, 0, self.read[name], blocks=within))
            elif first:
                rest[within] += tensor.numel()
        self.products += [
            CostTerm("other parameters", FIXED, FIXED, count, 0, blocks=within)
            for within, count in rest.items()
        ]

    def add_operations(self, macs: Mapping[fx.Node, int], branches: Sequence[Sequence[fx.Node]]) -> None:
        """The multiply-accumulates of operations that are no layer's; `branches` are those of the blocks."""
        for node, count in macs.items():
            within = tuple(i for i, nodes in enumerate(branches) if node in nodes)
            channels = self.grouping.forms.get((node.name, "product"))
            if channels is None:
                self.products.append(CostTerm(node.name, FIXED, FIXED, 0, count, blocks=within))
                continue
            size = sum(run.length * run.repeat for run in channels)
            form = self.form(channels)
            self.products.append(CostTerm(node.name, FIXED, form, 0, count // size, blocks=within))
