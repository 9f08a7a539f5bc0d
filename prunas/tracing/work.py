"""What a network does for one image: output positions of every layer, MACs of what is not understood."""

from collections.abc import Mapping

from torch import fx, nn

from prunas.errors import InputError
from prunas.tracing.compare import detour
from prunas.tracing.labels import Work
from prunas.tracing.ledger import Ledger, Mismatch
from prunas.tracing.propagate import LabelPass, label
from prunas.tracing.trace import BATCH, Trace, Untraceable, trace_mode, traced

__all__ = ["work_of_one_image"]


def work_of_one_image(net: nn.Module, trace: Trace, labelled: LabelPass) -> Work:
    """What the network does for one image.

    Not every value has a batch, and what has one shows only when the number of images changes: a grid made from
    the input's size has none, a parameter expanded to the images has one, a mean over images has lost it.

    Args:
        net: The dense network.
        trace: How it is traced.
        labelled: The pass over it in eval mode, which had several images.
    """

    def counted(images: int) -> LabelPass | None:
        example = labelled.example.of(images)
        try:
            graph = labelled.graph if trace is traced else trace_mode(trace, net, example, training=False)
            return label(net, graph, Ledger(), example, False, counting=True)
        except (Mismatch, Untraceable):
            return None  # it may not take a single image: squeeze() then takes the batch away

    if (one := counted(1)) is not None:
        return Work(one.called, _by_twin(one.graph, labelled.graph, one.macs), one.read)
    some, twice = counted(BATCH), counted(2 * BATCH)
    if some is None or twice is None or detour(some.graph, twice.graph) is not None:
        raise InputError(
            f"the network takes {BATCH} images and neither 1 nor {2 * BATCH}, so its cost for one is unknown; "
            "the first dimension of what it computes must stay the batch"
        )

    def of_one(few: int, many: int) -> int:
        """From the line through both counts."""
        return few - (many - few) // BATCH * (BATCH - 1)

    twins = zip(some.graph.nodes, twice.graph.nodes, strict=True)
    macs = {node: of_one(some.macs.get(node, 0), twice.macs.get(twin, 0)) for node, twin in twins}
    return Work(
        {path: of_one(count, twice.called[path]) for path, count in some.called.items()},
        _by_twin(some.graph, labelled.graph, {node: count for node, count in macs.items() if count}),
        {path: of_one(count, twice.read[path]) for path, count in some.read.items()},
    )


def _by_twin(graph: fx.Graph, surveyed: fx.Graph, macs: Mapping[fx.Node, int]) -> Mapping[fx.Node, int]:
    """Multiply-accumulates by the nodes of the surveyed graph, which say what goes with a block.

    A network that does something else for one image keeps its own nodes.
    """
    if graph is surveyed or detour(surveyed, graph) is not None:
        return macs
    twin = dict(zip(graph.nodes, surveyed.nodes, strict=True))
    return {twin[node]: count for node, count in macs.items()}
