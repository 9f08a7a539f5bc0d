"""What a pass knows so far: values, labels and channel counts of the nodes it has met, and the ledger."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx, nn

from prunas.tracing.labels import Channels, Labels, Refused, Spread, vectors
from prunas.tracing.ledger import NOTHING, Ledger, Vector
from prunas.tracing.operations import operation, where

__all__ = ["Grid", "PassState"]

Grid = npt.NDArray[np.int64]
"""Labels along all axes of a tensor, with extent 1 where they do not vary."""


class PassState:
    """What the rules of operations read and write.

    Args:
        net: The network, on the meta device, in the mode the graph was traced in.
        graph: Its graph.
        ledger: Where labels are entered; a checking ledger raises `Mismatch`.
        selecting: Positions of the inputs that pass, by the module path of the layer that selects them.
        counting: Whether multiply-accumulates are counted, which takes time.

    Attributes:
        modules: The network's modules by path.
        called: Layers met, in order, with the number of output positions in the batch summed over their calls.
        read: The same of input positions, for the layers that multiply these.
        calls: The nodes that call each layer.
        met: Nodes in which a parameter or buffer meets channels one by one, with its name.
        indexed: Parameters and buffers whose rows are looked up by an index that is itself a tensor.
        unsaved: Buffers met that the state dict does not hold.
        computed: Layers called with weights that forward has computed from theirs, with the source lines of that.
        cuts: Nodes that take one of equal parts of a vector to write over it, with their number.
        parts: The number of such parts by the name of the parameter or buffer.
        viewed: Attributes, as path and name, that give a view the extent of an axis of a parameter or buffer.
        values: Value of each node on the meta device.
        labels: Labels of each node.
        macs: Multiply-accumulates in the batch of operations that are no layer's, by node; if counted.
        counts: Which scalars are channel counts; for a whole shape, one entry per axis.
    """

    def __init__(
        self,
        net: nn.Module,
        graph: fx.Graph,
        ledger: Ledger,
        selecting: Mapping[str, Sequence[int]] = MappingProxyType({}),
        counting: bool = False,
    ) -> None:
        self.counting = counting
        self.macs: dict[fx.Node, int] = {}
        self.net = net
        self.graph = graph
        self.ledger = ledger
        self.selecting = selecting
        self.modules = dict(net.named_modules())
        self.called: dict[str, int] = {}
        self.read: dict[str, int] = {}
        self.calls: dict[str, list[fx.Node]] = {}
        self.met: set[tuple[fx.Node, str]] = set()
        self.indexed: set[str] = set()
        self.unsaved: set[str] = set()
        self.computed: dict[str, set[str]] = {}
        self.cuts: dict[fx.Node, int] = {}
        self.parts: dict[str, int] = {}
        self.viewed: dict[tuple[str, int], list[tuple[str, str]]] = {}
        self.values: dict[fx.Node, Any] = {}
        self.labels: dict[fx.Node, Labels] = {}
        self.counts: dict[fx.Node, Vector | tuple[Vector | None, ...]] = {}

    def source(self, node: fx.Node) -> fx.Node:
        """The tensor that an operation works on."""
        first = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(first, fx.Node):
            raise Refused(f"{operation(node)} is called in an unusual way")
        return first

    def entering(self, node: fx.Node) -> Vector:
        """All labels that a node is given."""
        return np.concatenate(
            [NOTHING, *(vector for n in node.all_input_nodes for vector in vectors(self.labels[n]))]
        )

    def counted(self, node: fx.Node) -> Vector:
        """The channels that a scalar, or a shape, counts."""
        entry = self.counts.get(node, NOTHING)
        parts = entry if isinstance(entry, tuple) else (entry,)
        return np.concatenate([NOTHING, *(part for part in parts if part is not None)])

    def freeze_inputs(self, node: fx.Node, why: str) -> None:
        """Holds the channels that enter a node, and those that the scalars it is given count."""
        for before in node.all_input_nodes:
            for labels in (*vectors(self.labels[before]), self.counted(before)):
                self.ledger.freeze(labels, why, where(node))

    def grid(self, node: fx.Node, ndim: int) -> Grid | None:
        """The labels of a tensor along all axes, leading ones added up to `ndim`; None if it has none."""
        labels = self.labels[node]
        if isinstance(labels, Channels):
            extents = [1] * self.values[node].ndim
            extents[labels.axis] = len(labels.labels)
            grid = labels.labels.reshape(extents)
        elif isinstance(labels, Spread):
            grid = labels.labels.numpy()
        else:
            return None
        return grid.reshape((*(1,) * (ndim - grid.ndim), *grid.shape))

    def tile(self, channels: Vector, groups: int, node: fx.Node) -> Vector:
        """Pairs equal positions of equal parts: a unit is one channel of every part. Returns the first part."""
        first, *others = np.split(channels, groups)
        for part in others:
            self.ledger.pair(first, part, node.name)
        return first

    def reading(self, node: fx.Node, axis: int) -> Vector:
        """Labels along the channel axis of a layer's input; fixed ones where they are opaque or lie elsewhere."""
        source = self.source(node)
        labels, value = self.labels[source], self.values[source]
        if isinstance(labels, Channels) and labels.axis == axis % value.ndim:
            return labels.labels
        if vectors(labels):
            self.freeze_inputs(node, "its channels do not lie along the axis that the layer reads")
        return self.ledger.fixed(value.shape[axis])

    def enter_layer(self, node: fx.Node, path: str, value: Tensor, axis: int) -> Vector:
        """Notes the call of a layer whose channels lie along `axis`; the labels it reads."""
        channels = self.reading(node, axis)
        self.ledger.occur((path, "reads"), channels, node.name)
        self.called[path] = self.called.get(path, 0) + value.numel() // value.shape[axis]
        self.calls.setdefault(path, []).append(node)
        return channels

    def passing(self, path: str, channels: Vector) -> Vector:
        """Those of the channels that a layer reads which pass its selection, if it has one."""
        positions = self.selecting.get(path)
        return channels if positions is None else channels[list(positions)]
