"""Where a layer can select its input channels: convolutions and linear layers that share them with others."""

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import fx

from prunas.graphs.layers import SELECTING
from prunas.survey import Frozen
from prunas.tracing.blocks import users_of
from prunas.tracing.ledger import Grouping, Ledger
from prunas.tracing.operations import NORMS, commutes, operation
from prunas.tracing.propagate import LabelPass

__all__ = ["find_gates"]


def find_gates(
    called: Sequence[str],
    ledger: Ledger,
    grouping: Grouping,
    passes: Sequence[LabelPass],
    closed: Mapping[str, Frozen],
) -> tuple[dict[str, str | None], list[Frozen]]:
    """Convolutions and linear layers that read channels which another one reads too.

    Args:
        called: The layers, in the order of their calls.
        ledger: Which layers may not vary.
        grouping: Which channels the layers read.
        passes: The last one is the one in eval mode.
        closed: Gates that cannot select, and why.

    Returns:
        The norm that selects for each gate, or None where the gate's layer does; and the gates that cannot select.
    """
    modules = passes[-1].modules
    scaling = _excitations(passes[-1])
    weighted = [p for p in called if (p, "inner") in grouping.axes and p not in scaling]
    reading = {path: set(grouping.channels[path, "reads"].tolist()) for path in weighted}
    readers = Counter(label for labels in reading.values() for label in labels)
    gates: dict[str, str | None] = {}
    refused = []
    for path in weighted:
        module = modules[path]
        if (
            any(readers[label] > 1 for label in reading[path])
            and type(module) in SELECTING
            and getattr(module, "groups", 1) == 1
            and {node.op for node in _only_calls(path, passes)} == {"call_module"}
            and path not in ledger.forbidden
        ):
            if path in closed:
                refused.append(closed[path])
            else:
                gates[path] = _selecting_norm(path, ledger, grouping, passes)
    return gates, refused


def _only_calls(path: str, passes: Sequence[LabelPass]) -> list[fx.Node]:
    """The one call of a layer in every mode in which there is one; none if there are several."""
    calls = [labelled.calls[path] for labelled in passes if path in labelled.calls]
    return [nodes[0] for nodes in calls] if all(len(nodes) == 1 for nodes in calls) else []


def _selecting_norm(path: str, ledger: Ledger, grouping: Grouping, passes: Sequence[LabelPass]) -> str | None:
    """The norm that serves a layer alone, in every mode, and sees the channels as the layer does."""
    modules = passes[-1].modules

    def norm_before(node: fx.Node) -> str | None:
        """The same for one call, `node` being what it reads."""
        while len(node.users) == 1 and len(node.all_input_nodes) == 1:
            norm = str(node.target)
            if node.op == "call_module" and isinstance(modules[norm], NORMS):
                alike = grouping.forms.get((norm, "reads")) == grouping.forms[path, "reads"]
                free = bool(_only_calls(norm, passes)) and norm not in ledger.forbidden
                return norm if alike and free and type(modules[norm]) in SELECTING else None
            if not commutes(node, modules):
                return None
            node = node.all_input_nodes[0]
        return None

    norms = {norm_before(node.all_input_nodes[0]) for node in _only_calls(path, passes)}
    return norms.pop() if len(norms) == 1 else None


def _excitations(inference: LabelPass) -> set[str]:
    """Layers that read channels only to scale them (squeeze and excitation): they are not other readers."""
    users = users_of(inference)
    excitations: set[str] = set()
    for node in inference.graph.nodes:
        if operation(node) in ("mul", "imul") and len(node.all_input_nodes) == 2:
            for scaled, scale in (node.all_input_nodes, reversed(node.all_input_nodes)):
                between, waiting = set(), [scale]
                while waiting:
                    before = waiting.pop()
                    if before is not scaled and before not in between:
                        between.add(before)
                        waiting.extend(before.all_input_nodes)
                if not any(before.op == "placeholder" for before in between):
                    excitations.update(users[before] for before in between if before in users)
    return excitations
