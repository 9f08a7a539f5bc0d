"""Writes down what a grouping means: gates, blocks, stages, costs and all, as plain data."""

import inspect
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from torch import fx, nn

from prunas.build.build import fingerprint
from prunas.build.layers import SELECTING, ChannelPad
from prunas.build.residual import ADDITIONS, Branch, changes_in_place, find_branch, without_branch
from prunas.structure import FIXED, Block, Form, Frozen, Gate, Group, Layer, Row, Site, Survey
from prunas.survey.labels import CONVOLUTIONS, NORMS, LabelPass, commutes, operation
from prunas.survey.ledger import Grouping, Ledger

__all__ = ["record"]

Shape = tuple[int, ...]


def record(
    net: nn.Module,
    order: tuple[str, ...],
    input_shape: Shape,
    ledger: Ledger,
    grouping: Grouping,
    passes: Sequence[LabelPass],
) -> Survey:
    """The survey of `net`, the last pass being the one in eval mode."""
    return _Record(net, ledger, grouping, passes).survey(order, input_shape)


class _Record:
    def __init__(
        self, net: nn.Module, ledger: Ledger, grouping: Grouping, passes: Sequence[LabelPass]
    ) -> None:
        self.net, self.ledger, self.grouping = net, ledger, grouping
        self.inference = passes[-1]
        self.one_mode = len(passes) == 1
        self.modules = self.inference.modules
        self.called = list(dict.fromkeys(path for labelled in passes for path in labelled.called))
        self.calls: dict[str, list[fx.Node]] = {}
        for node in self.inference.graph.find_nodes(op="call_module"):
            self.calls.setdefault(str(node.target), []).append(node)
        # Every node that uses weights, under the name of its module or of the tensor itself.
        self.users = {
            n: str(n.target) for n in self.inference.graph.nodes if n.op in ("call_module", "get_attr")
        }
        self.index: dict[Form, int] = {}
        self.refused: list[Frozen] = []

    def form(self, form: Form) -> int:
        """The index of a form; equal ones share it."""
        return self.index.setdefault(form, len(self.index))

    def survey(self, order: tuple[str, ...], input_shape: Shape) -> Survey:
        """Everything, in the order in which it depends on each other."""
        branches = self.branches()
        self.maps, self.stage_of = self.stages(branches)
        blocks = [self.block(path, branch) for path, branch in branches.items()]
        layers = [self.layer(path) for path in self.called]
        gates = self.gates()
        sites, rows = self.sites_and_rows(layers, gates, blocks, list(branches.values()))
        return Survey(
            input=input_shape,
            fingerprint=fingerprint(self.net),
            order=order,
            groups=tuple(self.groups()),
            gates=tuple(gates),
            blocks=tuple(blocks),
            frozen=(*self.grouping.frozen, *self.refused),
            stages=(*self.maps, ()),
            forms=tuple(self.index),
            layers=tuple(layers),
            sites=tuple(sites),
            rows=tuple(rows),
        )

    # Blocks

    def branches(self) -> dict[str, Branch]:
        """The branch of every module that is a shortcut plus one branch, innermost modules only, in order."""
        sums: dict[str, set[str]] = {}
        for node in self.inference.graph.nodes:
            if node.target in ADDITIONS:
                for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
                    sums.setdefault(path, set()).add(call)
        inside: dict[str, list[fx.Node]] = {path: [] for path, calls in sums.items() if len(calls) == 1}
        for node in self.inference.graph.nodes:
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                if path in inside:
                    inside[path].append(node)
        found: dict[str, Branch] = {}
        for path in sorted(inside, key=len, reverse=True):
            if not isinstance(self.modules[path], nn.Sequential) and not any(
                p.startswith(f"{path}.") for p in found
            ):
                branch = find_branch(inside[path], self.modules)
                if branch is not None and self.removable(path, branch, inside[path]):
                    found[path] = branch
        place = {node: i for i, node in enumerate(self.inference.graph.nodes)}
        return dict(sorted(found.items(), key=lambda item: place[item[1].addition]))

    def removable(self, path: str, branch: Branch, block: Sequence[fx.Node]) -> bool:
        """Whether building the block without its branch is possible and does nothing else."""
        here = set(block)
        outer = {before for node in block for before in node.all_input_nodes if before not in here}
        outer |= {node for node in block if node.users.keys() - here}  # its input and its output
        weights = [self.users[node] for node in branch.nodes if node in self.users]
        weights = [name for name in weights if name not in self.modules or _weighs(self.modules[name])]
        values, uses = self.inference.values, Counter(self.users.values())
        why = ""
        if any(uses[name] != 1 or name in self.ledger.forbidden for name in weights):
            why = "its weights are used elsewhere too"
        elif values[branch.shortcut].shape != values[branch.addition].shape:
            why = "its shortcut is broadcast"
        elif any(
            changes_in_place(node, self.modules) and node.all_input_nodes[0] in outer
            for node in self.inference.graph.nodes
            if node not in here
        ):
            why = "its input or output is changed in place"
        elif len(inspect.signature(self.modules[path].forward).parameters) != 1:
            why = "its forward takes more than one argument"
        elif not self.one_mode:
            try:
                without_branch(self.modules[path])
            except Exception as error:  # whatever a user's forward raises when it is traced by itself
                why = str(error).partition("\n")[0]
        if why:
            self.refused.append(Frozen(path, f"its branch cannot be removed: {why}", path))
        return not why

    def block(self, path: str, branch: Branch) -> Block:
        """Its branch is every weight in it, called or not, that what is left does not use."""
        gone, within = set(branch.nodes), f"{path}."
        inside = [name for node, name in self.users.items() if node in gone]
        left = [f"{n}." for node, n in self.users.items() if node not in gone and n.startswith(within)]
        every = [within + (n.rpartition(".")[0] or n) for n, _ in self.modules[path].named_parameters()]
        names = tuple(n for n in dict.fromkeys((*inside, *every)) if not f"{n}.".startswith(tuple(left)))
        stages = [self.stage_of[name] for name in names if name in self.stage_of]
        return Block(path, stages[0] if stages else len(self.maps), names)

    # Stages

    def stages(self, branches: dict[str, Branch]) -> tuple[list[Shape], dict[str, int]]:
        """Feature-map sizes in order, and the stage of every layer; see `Layer.stage`.

        A layer inside a residual branch takes the size of the branch's output. A layer on a smaller map than one
        that comes later (squeeze and excitation) takes the later one's.
        """
        values = self.inference.values
        size: dict[str, Shape] = {}
        for path in self.called:
            for node in self.calls.get(path, ()):
                last = isinstance(self.modules[path], nn.Linear | nn.LayerNorm)
                size[path] = tuple(values[node].shape[1:-1] if last else values[node].shape[2:])
        for branch in branches.values():
            inside = [str(node.target) for node in branch.nodes if str(node.target) in size]
            size.update((name, size[inside[-1]]) for name in inside)
        largest: Shape = ()
        for path in reversed(size):
            largest = max(size[path], largest, key=lambda shape: math.prod(shape) if shape else 0)
            size[path] = largest
        maps = sorted({shape for shape in size.values() if shape}, key=math.prod, reverse=True)
        return maps, {path: maps.index(shape) if shape else len(maps) for path, shape in size.items()}

    def stage(self, path: str) -> int:
        return self.stage_of.get(path, len(self.maps))

    # Groups, layers and gates

    def groups(self) -> list[Group]:
        names: Counter[str] = Counter()
        groups = []
        for i, condensed in enumerate(self.grouping.groups):
            first = condensed.origins[0]
            names[first] += 1
            name = first if names[first] == 1 else f"{first}#{names[first]}"
            group, unit = self.grouping.axes[first, "writes"]
            occurs = int(((group == i) & (unit == 0)).sum())
            role: Literal["plain", "residual", "concatenated"] = "plain"
            if len(condensed.origins) > 1:
                role = "residual"
            elif condensed.concatenated:
                role = "concatenated"
            groups.append(Group(name, condensed.units, occurs, self.stage(first), role, not condensed.mixed))
        return groups

    def layer(self, path: str) -> Layer:
        module = self.modules[path]
        reads, writes = (self.form(self.grouping.forms[path, side]) for side in ("reads", "writes"))
        stage, positions = self.stage(path), self.inference.called.get(path, 0)
        if isinstance(module, CONVOLUTIONS):
            depthwise = self.ledger.is_depthwise(path, module)
            kernel = tuple(module.kernel_size)
            return Layer(path, "conv", stage, reads, writes, kernel, module.groups, depthwise, positions)
        if isinstance(module, nn.Linear):
            return Layer(path, "linear", stage, reads, writes, positions=positions)
        if isinstance(module, ChannelPad):
            return Layer(path, "pad", stage, reads, writes)
        return Layer(path, "prelu" if isinstance(module, nn.PReLU) else "norm", stage, reads, writes)

    def gates(self) -> list[Gate]:
        """Convolutions and linear layers that read channels which another one reads too."""
        excited = self.excitations()
        dense = [p for p in self.called if (p, "inner") in self.grouping.axes and p not in excited]
        reading = {path: set(self.grouping.classes[path, "reads"].tolist()) for path in dense}
        readers = Counter(label for labels in reading.values() for label in labels)
        gates = []
        for path in dense:
            module = self.modules[path]
            if (
                any(readers[label] > 1 for label in reading[path])
                and type(module) in SELECTING
                and getattr(module, "groups", 1) == 1
                and len(self.calls.get(path, ())) == 1
                and path not in self.ledger.forbidden
            ):
                form = self.grouping.forms[path, "reads"]
                gates.append(Gate(path, self.serving_norm(path), self.form(form), self.stage(path)))
        return gates

    def serving_norm(self, path: str) -> str | None:
        """The norm that serves a reader alone and sees the channels as the reader does."""
        node = self.calls[path][0].all_input_nodes[0]
        while len(node.users) == 1 and len(node.all_input_nodes) == 1:
            target = str(node.target)
            if node.op == "call_module" and isinstance(self.modules[target], NORMS):
                alike = self.grouping.forms.get((target, "reads")) == self.grouping.forms[path, "reads"]
                free = len(self.calls[target]) == 1 and target not in self.ledger.forbidden
                return target if alike and free and type(self.modules[target]) in SELECTING else None
            if not commutes(node, self.modules):
                return None
            node = node.all_input_nodes[0]
        return None

    def excitations(self) -> set[str]:
        """Layers that read channels only to scale them (squeeze and excitation): they are not other readers."""
        found: set[str] = set()
        for node in self.inference.graph.nodes:
            if operation(node) in ("mul", "imul") and len(node.all_input_nodes) == 2:
                for scaled, scale in (node.all_input_nodes, reversed(node.all_input_nodes)):
                    between, waiting = set(), [scale]
                    while waiting:
                        before = waiting.pop()
                        if before is not scaled and before not in between:
                            between.add(before)
                            waiting.extend(before.all_input_nodes)
                    if not any(before.op == "placeholder" for before in between):
                        found.update(self.users[before] for before in between if before in self.users)
        return found

    # Tensors and costs

    def sites_and_rows(
        self,
        layers: Sequence[Layer],
        gates: Sequence[Gate],
        blocks: Sequence[Block],
        branches: Sequence[Branch],
    ) -> tuple[list[Site], list[Row]]:
        """Every channel axis of the state dict, and every product of the cost."""
        gate_of_norm = {gate.norm: gate.name for gate in gates if gate.norm}
        reading = {gate.name for gate in gates}
        inside: dict[str, tuple[int, ...]] = {}
        for i, block in enumerate(blocks):
            inside.update({name: (*inside.get(name, ()), i) for name in block.branch})
        sites, rows = [], []
        counted: set[int] = set()  # a shared parameter counts once, where it is met first
        for layer in layers:
            within = inside.get(layer.path, ())
            module = self.modules[layer.path]
            inner = self.grouping.forms.get((layer.path, "inner"))
            vectors = 0
            for name, tensor in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ):
                if tensor.ndim:
                    sites.append(Site(f"{layer.path}.{name}", 0, layer.writes))
                own = isinstance(tensor, nn.Parameter) and id(tensor) not in counted
                counted.add(id(tensor))
                if name == "weight" and layer.kind in ("conv", "linear"):
                    reads = FIXED if inner is None else self.form(inner)
                    if inner is not None:
                        sites.append(Site(f"{layer.path}.{name}", 1, reads))
                    area = math.prod(layer.kernel)
                    gate = layer.path if layer.path in reading else None
                    macs, conv = area * layer.positions, layer.kind == "conv"
                    rows.append(
                        Row(layer.path, reads, layer.writes, area * own, macs, gate, None, within, conv)
                    )
                else:
                    vectors += own
            if vectors:
                gate = gate_of_norm.get(layer.path)
                rows.append(Row(layer.path, FIXED, layer.writes, vectors, 0, None, gate, within))
        rest: Counter[tuple[int, ...]] = Counter()
        bare = {
            owner: (int(axis), form) for (owner, axis), form in self.grouping.forms.items() if axis.isdigit()
        }
        for name, tensor in (*self.net.named_parameters(), *self.net.named_buffers()):
            within = inside.get(name, inside.get(name.rpartition(".")[0], ()))
            own = isinstance(tensor, nn.Parameter) and id(tensor) not in counted
            if name in bare:
                axis, form = bare[name]
                sites.append(Site(name, axis, self.form(form)))
                if own:
                    each = tensor.numel() // tensor.shape[axis]
                    rows.append(Row(name, FIXED, self.form(form), each, 0, blocks=within))
            elif own:
                rest[within] += tensor.numel()
        rows += [
            Row("other parameters", FIXED, FIXED, count, 0, blocks=within) for within, count in rest.items()
        ]
        for node, macs in self.inference.macs.items():
            within = tuple(i for i, branch in enumerate(branches) if node in branch.nodes)
            rows.append(Row(node.name, FIXED, FIXED, 0, macs, blocks=within))
        return sites, rows


def _weighs(module: nn.Module) -> bool:
    """Whether a module has parameters of its own or in children."""
    return next(module.parameters(), None) is not None
