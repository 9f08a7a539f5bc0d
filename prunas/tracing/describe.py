"""Writes down what a grouping means: gates, blocks, stages, costs and all, as plain data."""

import inspect
import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal

import networkx as nx
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunas.graphs.branches import Branch, changes_in_place, find_branch, find_branches, is_fresh
from prunas.graphs.layers import SELECTING, ChannelPad
from prunas.graphs.structure import structure
from prunas.graphs.tracer import ADDITIONS
from prunas.surgery.assemble import fingerprint
from prunas.survey import FIXED, Block, ChannelAxis, ChannelMap, CostTerm, Frozen, Gate, Group, Layer, Survey
from prunas.tracing.labels import Channels, Work
from prunas.tracing.ledger import Grouping, Ledger
from prunas.tracing.operations import CONVOLUTIONS, NORMS, RANDOM, commutes, operation, where
from prunas.tracing.propagate import LabelPass, known

__all__ = ["record"]

Shape = tuple[int, ...]

OWN = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
"""The tensors of a layer that follow its channels."""

JOINS = frozenset({"add", "iadd", "mul", "imul"})
"""Functions in which what was made of a tensor meets it again."""

NO_FACTORS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Layers that read their weights element by element, or some rows of them."""

KEEPS_ZEROS = RANDOM | {"getitem", "mul", "imul"}
"""Functions behind the last module of a branch that leave zeros as they are."""


def record(
    net: nn.Module,
    order: tuple[str, ...],
    input_shape: Shape,
    ledger: Ledger,
    grouping: Grouping,
    passes: Sequence[LabelPass],
    work: Work,
    standing: Mapping[str, str],
    closed: Mapping[str, Frozen],
) -> Survey:
    """The survey of a network.

    Args:
        net: The network.
        order: Module path of every layer with channel counts in the order of construction.
        input_shape: Shape of one input without the batch.
        ledger: The books.
        grouping: What they condense to.
        passes: The last one is the one in eval mode.
        work: What the network does for one image.
        standing: Blocks that cannot be removed, and why.
        closed: Gates that cannot select, and why.
    """
    return _Record(net, ledger, grouping, passes, work, standing, closed).survey(order, input_shape)


class _Record:
    def __init__(
        self,
        net: nn.Module,
        ledger: Ledger,
        grouping: Grouping,
        passes: Sequence[LabelPass],
        work: Work,
        standing: Mapping[str, str],
        closed: Mapping[str, Frozen],
    ) -> None:
        self.net, self.ledger, self.grouping, self.passes = net, ledger, grouping, passes
        self.work, self.standing, self.closed = work, standing, closed
        self.calls = {labelled: self.calls_of_blocks(labelled) for labelled in passes}
        self.owners = {labelled: self.nodes_of_modules(labelled) for labelled in passes}
        self.inference = passes[-1]
        self.modules = self.inference.modules
        self.called = list(dict.fromkeys(path for labelled in passes for path in labelled.called))
        # Every node that uses weights, under the name of its module or of the tensor itself.
        self.users = {
            n: str(n.target) for n in self.inference.graph.nodes if n.op in ("call_module", "get_attr")
        }
        self.index: dict[ChannelMap, int] = {}
        self.refused: list[Frozen] = []

    def form(self, form: ChannelMap) -> int:
        """The index of a form; equal ones share it."""
        return self.index.setdefault(form, len(self.index))

    def survey(self, order: tuple[str, ...], input_shape: Shape) -> Survey:
        """Everything, in the order in which it depends on each other."""
        branches = self.branches()
        self.maps, self.stage_of = self.stages()
        blocks = [self.block(name, branch) for name, branch in branches.items()]
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
            frozen=(*self.grouping.frozen, *self.refused, *self.unfollowed({site.tensor for site in sites})),
            stages=(*self.maps, ()),
            forms=tuple(self.index),
            layers=tuple(layers),
            sites=tuple(sites),
            rows=tuple(rows),
        )

    # Blocks

    def branches(self) -> dict[str, Branch]:
        """The branches that can be removed, by the name of their block, in order.

        A module that is a shortcut plus one branch is one block, the innermost such module only; of a module with
        several branches, each that is a chain of modules is one.
        """
        whole, single = self.calls[self.inference]
        training = self.calls[self.passes[0]][1]
        found: dict[str, Branch] = {}
        self.chains: dict[str, tuple[str, ...]] = {}
        for path in sorted(whole, key=len, reverse=True):
            if isinstance(self.modules[path], nn.Sequential) or any(p.startswith(f"{path}.") for p in found):
                continue
            branch = find_branch(whole[path], self.modules)
            if branch is not None:
                if self.removable(path, branch, whole[path], single, training):
                    found[path] = branch
                continue
            chains = [self.parts(path, single, labelled) for labelled in self.passes]
            for name, (branch, chain) in chains[-1].items():
                if all(chain == other.get(name, (None, ()))[1] for other in chains):
                    found[name], self.chains[name] = branch, chain
        for name in found.keys() & self.standing.keys():
            self.refused.append(Frozen(name, f"its branch cannot be removed: {self.standing[name]}", name))
            del found[name]
        place = {node: i for i, node in enumerate(self.inference.graph.nodes)}
        return dict(sorted(found.items(), key=lambda item: place[item[1].addition]))

    def calls_of_blocks(
        self, labelled: LabelPass
    ) -> tuple[dict[str, list[fx.Node]], dict[str, list[fx.Node]]]:
        """The nodes of every module that holds a sum: of its first call; and of its only call, if it has one."""
        calls: dict[str, dict[str, list[fx.Node]]] = {}
        sums: set[str] = set()
        for node in labelled.graph.nodes:
            for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
                calls.setdefault(path, {}).setdefault(call, []).append(node)
                if node.target in ADDITIONS:
                    sums.add(path)
        first = {path: next(iter(calls[path].values())) for path in calls if path in sums}
        return first, {path: nodes for path, nodes in first.items() if len(calls[path]) == 1}

    def removable(
        self,
        path: str,
        branch: Branch,
        block: Sequence[fx.Node],
        single: dict[str, list[fx.Node]],
        training: dict[str, list[fx.Node]],
    ) -> bool:
        """Whether building the block without its branch is possible and does nothing else."""
        here = set(block)
        outer = {before for node in block for before in node.all_input_nodes if before not in here}
        outer |= {node for node in block if node.users.keys() - here}  # its input and its output
        weights = [self.users[node] for node in branch.nodes if node in self.users]
        weights = [name for name in weights if name not in self.modules or _weighs(self.modules[name])]
        values, uses = self.inference.values, Counter(self.users.values())
        rest = [node for node in block if node not in branch.nodes]
        why = ""
        if path not in single:
            why = "it is called more than once"
        elif path in self.ledger.forbidden:
            why = self.ledger.forbidden[path][0]
        elif any(uses[name] != 1 or name in self.ledger.forbidden for name in weights):
            why = "its weights are used elsewhere too"
        elif values[branch.shortcut].shape != values[branch.addition].shape:
            why = "its shortcut is broadcast"
        elif branch.addition in self.changing and not is_fresh(branch.addition, here, self.modules):
            why = "its sum changes its input in place"
        elif any(node not in here and node.all_input_nodes[0] in outer for node in self.changing):
            why = "its input or output is changed in place"
        elif len(inspect.signature(self.modules[path].forward).parameters) != 1:
            why = "its forward takes more than one argument"
        elif (
            any(node.op == "call_function" and operation(node) in RANDOM for node in rest)
            or path not in training
            or (other := find_branch(training[path], self.passes[0].modules)) is None
            or _remainder(block, branch) != _remainder(training[path], other)
        ):
            why = "what is left without the branch differs between training and evaluation"
        if why:
            self.refused.append(Frozen(path, f"its branch cannot be removed: {why}", path))
        return not why

    @cached_property
    def changing(self) -> list[fx.Node]:
        """Nodes that write into their first operand."""
        return [node for node in self.inference.graph.nodes if changes_in_place(node, self.modules)]

    def parts(
        self, path: str, single: dict[str, list[fx.Node]], labelled: LabelPass
    ) -> dict[str, tuple[Branch, tuple[str, ...]]]:
        """The branches of a module with several that are chains of modules, by name, with the chains."""
        nodes = self.calls[labelled][1].get(path, []) if path in single else []
        found = {}
        for branch in find_branches(nodes, self.modules):
            chain = self.chain(path, branch, labelled)
            if chain:
                name = "+".join(part.removeprefix(f"{path}.") for part in chain)
                found[f"{path}.{name}" if path else name] = branch, chain
        return found

    def chain(self, path: str, branch: Branch, labelled: LabelPass) -> tuple[str, ...]:
        """The modules that make a branch, if they pass one tensor on and what follows them keeps zeros."""
        inside, within = set(branch.nodes), f"{path}." if path else ""
        owners = self.owners[labelled]
        wholly = {
            p
            for p, nodes in owners.items()
            if p.startswith(within) and p != path and nodes <= inside and _weighs(self.modules[p])
        }
        chain = [p for p in owners if p in wholly and not any(p.startswith(f"{q}.") for q in wholly)]
        values, total = labelled.values, labelled.values[branch.addition]
        passed: fx.Node | None = branch.shortcut
        for part in chain:
            nodes = owners[part]
            entering = {b for n in nodes for b in n.all_input_nodes if b not in nodes and b.op != "get_attr"}
            leaving = [n for n in nodes if n.users.keys() - nodes]
            if len(entering) != 1 or len(leaving) != 1 or self.shared(part, nodes, labelled):
                return ()
            (before,), (passed_on,) = entering, leaving
            if passed is None or values[before].shape != total.shape or before is not passed:
                return ()
            attention = isinstance(self.modules[part], nn.MultiheadAttention)
            passed = None if attention else passed_on
            if not attention and values[passed_on].shape != total.shape:
                return ()
        loose = [n for n in branch.nodes if n.users and not any(n in owners[part] for part in chain)]
        fine = all(
            n.op == "get_attr" or operation(n) in KEEPS_ZEROS
            if n.op != "call_module"
            else isinstance(self.modules[str(n.target)], nn.Dropout | nn.Identity)
            for n in loose
        )
        return tuple(chain) if chain and fine else ()

    def nodes_of_modules(self, labelled: LabelPass) -> dict[str, set[fx.Node]]:
        """The nodes of every module in all its calls, by its path, in the order in which the modules begin."""
        owners: dict[str, set[fx.Node]] = {}
        for node in labelled.graph.nodes:
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                owners.setdefault(path, set()).add(node)
            if node.op == "call_module":
                owners.setdefault(str(node.target), set()).add(node)
        return owners

    def shared(self, part: str, nodes: set[fx.Node], labelled: LabelPass) -> bool:
        """Whether somebody else reads the tensors of a module, or holds them too."""
        own = {id(tensor) for tensor in self.modules[part].parameters()}
        inside = f"{part}."
        return any(
            node.op == "get_attr" and str(node.target).startswith(inside) and node.users.keys() - nodes
            for node in labelled.graph.nodes
        ) or any(
            id(tensor) in own and not name.startswith(inside)
            for name, tensor in self.net.named_parameters(remove_duplicate=False)
        )

    def block(self, name: str, branch: Branch) -> Block:
        """Its branch is every weight in it, called or not, that what is left does not use."""
        chain = self.chains.get(name, ())
        tops = chain or (name,)
        gone = set(branch.nodes)
        within = tuple(f"{top}." for top in tops)
        inside = [used for node, used in self.users.items() if node in gone]
        if chain:
            inside = [used for used in inside if f"{used}.".startswith(within)]
        left = [f"{n}." for node, n in self.users.items() if node not in gone and n.startswith(within)]
        every = [
            f"{top}.{n}".rpartition(".")[0] if "." in n or chain else f"{top}.{n}"
            for top in tops
            for n, _ in self.modules[top].named_parameters()
        ]
        names = tuple(n for n in dict.fromkeys((*inside, *every)) if not f"{n}.".startswith(tuple(left)))
        stages = [self.stage_of[path] for path in names if path in self.stage_of]
        return Block(name, stages[0] if stages else len(self.maps), names, chain)

    # Stages

    def stages(self) -> tuple[list[Shape], dict[str, int]]:
        """Feature-map sizes in order, and the stage of every layer; see `Layer.stage`.

        A layer of a residual branch takes the map of the branch's sum, and one that pools its input to scale or
        shift it (squeeze and excitation, say) the map of what it scales. Any other layer on a smaller map than one
        that comes later takes the later one's.
        """
        values = self.inference.values
        size: dict[str, Shape] = {}
        for path in self.called:
            for node in self.inference.calls.get(path, ()):
                last = isinstance(self.modules[path], nn.Linear | nn.LayerNorm)
                size[path] = tuple(values[node].shape[1:-1] if last else values[node].shape[2:])
        taken = dict(size)
        for join, nodes in self.regions():
            inside = [path for path in size if not nodes.isdisjoint(self.inference.calls.get(path, ()))]
            shape = tuple(values[join].shape)
            labels = (
                self.inference.labels[n]
                for n in (join, *join.all_input_nodes)
                if getattr(values[n], "shape", None) == shape
            )
            axis = next((carried.axis for carried in labels if isinstance(carried, Channels)), None)
            if axis is not None:
                taken.update(dict.fromkeys(inside, shape[1:axis] + shape[axis + 1 :]))
            else:  # its channels are opaque: before or behind its positions, as for a layer, rather one inside
                fitting = [size[path] for path in (*size, *inside) if size[path] in (shape[2:], shape[1:-1])]
                taken.update(dict.fromkeys(inside, fitting[-1]) if fitting else {})
        largest: Shape = ()
        for path in reversed(taken):
            largest = max(taken[path], largest, key=lambda shape: math.prod(shape) if shape else 0)
            taken[path] = largest
        maps = sorted({shape for shape in taken.values() if shape}, key=math.prod, reverse=True)
        return maps, {path: maps.index(shape) if shape else len(maps) for path, shape in taken.items()}

    def regions(self) -> list[tuple[fx.Node, set[fx.Node]]]:
        """Every sum and product in which what was made of one tensor meets again, with the nodes in between.

        Nothing but the sum or product reads from these. Residual sums come last, and of nested ones the outer ones
        first: what comes later is to count.
        """
        graph, values = self.inference.graph, self.inference.values
        entry = next(node for node in graph.nodes if node.op == "placeholder")
        # A size or a device that is asked for is no tensor that is passed on.
        passing = {n for n in graph.nodes if any(map(torch.is_tensor, pytree.tree_leaves(values[n])))}
        read: set[fx.Node] = set()
        for node in reversed(graph.nodes):
            if node in passing and (node.op == "output" or not read.isdisjoint(node.users)):
                read.add(node)
        operands = {node: [n for n in node.all_input_nodes if n in passing] for node in read}
        edges = [(before, node) for node in graph.nodes if node in read for before in operands[node]]
        dominators = nx.immediate_dominators(nx.DiGraph([(entry, entry), *edges]), entry)
        regions = []
        for join in dominators:
            if operation(join) not in JOINS or len(operands[join]) < 2:
                continue
            sides = [self.between(dominators[join], operand, dominators) for operand in operands[join]]
            nodes = set.union(*sides)
            readers = {reader for node in nodes for reader in node.users} & read
            if len(nodes) < sum(map(len, sides)) or readers - nodes - {join}:
                continue
            for node in reversed(graph.nodes):  # what does not depend on the input and serves them alone
                if node in read and node not in dominators and nodes.issuperset(read & node.users.keys()):
                    nodes.add(node)
            alike = len({values[operand].shape for operand in operands[join]}) == 1
            regions.append((alike and operation(join) in ("add", "iadd"), len(nodes), join, nodes))
        regions.sort(key=lambda region: (region[0], -region[1]))
        return [(join, nodes) for _, _, join, nodes in regions]

    def between(self, start: fx.Node, end: fx.Node, live: Container[fx.Node]) -> set[fx.Node]:
        """The live nodes on the ways from `start`, which is left out, to `end`."""
        nodes: set[fx.Node] = set()
        waiting = [end]
        while waiting:
            node = waiting.pop()
            if node is not start and node in live and node not in nodes:
                nodes.add(node)
                waiting.extend(node.all_input_nodes)
        return nodes

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
        stage, positions = self.stage(path), self.work.positions.get(path, 0)
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
        reading = {path: set(self.grouping.channels[path, "reads"].tolist()) for path in dense}
        readers = Counter(label for labels in reading.values() for label in labels)
        gates = []
        for path in dense:
            module = self.modules[path]
            if (
                any(readers[label] > 1 for label in reading[path])
                and type(module) in SELECTING
                and getattr(module, "groups", 1) == 1
                and {node.op for node in self.only_calls(path)} == {"call_module"}
                and path not in self.ledger.forbidden
            ):
                if path in self.closed:
                    self.refused.append(self.closed[path])
                    continue
                form = self.grouping.forms[path, "reads"]
                gates.append(Gate(path, self.serving_norm(path), self.form(form), self.stage(path)))
        return gates

    def only_calls(self, path: str) -> list[fx.Node]:
        """The one call of a layer in every mode in which there is one; none if there are several."""
        calls = [labelled.calls[path] for labelled in self.passes if path in labelled.calls]
        return [nodes[0] for nodes in calls] if all(len(nodes) == 1 for nodes in calls) else []

    def serving_norm(self, path: str) -> str | None:
        """The norm that serves a reader alone, in every mode, and sees the channels as the reader does."""
        norms = {self.norm_before(path, node.all_input_nodes[0]) for node in self.only_calls(path)}
        return norms.pop() if len(norms) == 1 else None

    def norm_before(self, path: str, node: fx.Node) -> str | None:
        """The same for one call, `node` being what it reads."""
        while len(node.users) == 1 and len(node.all_input_nodes) == 1:
            target = str(node.target)
            if node.op == "call_module" and isinstance(self.modules[target], NORMS):
                alike = self.grouping.forms.get((target, "reads")) == self.grouping.forms[path, "reads"]
                free = bool(self.only_calls(target)) and target not in self.ledger.forbidden
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

    def unfollowed(self, surveyed: Container[str]) -> list[Frozen]:
        """Every weight that multiplies but is not among the `surveyed` tensors, and what reads it."""
        names = {
            id(tensor): name
            for name, tensor in self.net.named_parameters()
            if any(n > 1 for n in tensor.shape[1:])
        }
        reasons: dict[str, Frozen] = {}
        for labelled in self.passes:
            for node, weight in _factors(labelled):
                name = names.get(id(weight), "")
                if name and name not in surveyed:
                    module = labelled.modules.get(str(node.target)) if node.op == "call_module" else None
                    what = type(module).__name__ if module else operation(node)
                    held = self.ledger.forbidden.get(name.rpartition(".")[0])
                    why, place = held or (f"{what} reads it and is not followed", where(node))
                    reasons.setdefault(name, Frozen(name, why, place))
        return list(reasons.values())

    def sites_and_rows(
        self,
        layers: Sequence[Layer],
        gates: Sequence[Gate],
        blocks: Sequence[Block],
        branches: Sequence[Branch],
    ) -> tuple[list[ChannelAxis], list[CostTerm]]:
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
                if name not in OWN:
                    continue  # made by somebody else, such as a parametrisation: it never varies
                if tensor.ndim:
                    sites.append(ChannelAxis(f"{layer.path}.{name}", 0, layer.writes))
                own = isinstance(tensor, nn.Parameter) and id(tensor) not in counted
                counted.add(id(tensor))
                if name == "weight" and layer.kind in ("conv", "linear"):
                    reads = FIXED if inner is None else self.form(inner)
                    if inner is not None:
                        sites.append(ChannelAxis(f"{layer.path}.{name}", 1, reads))
                    area = math.prod(layer.kernel)
                    gate = layer.path if layer.path in reading else None
                    macs, conv = area * layer.positions, layer.kind == "conv"
                    rows.append(
                        CostTerm(layer.path, reads, layer.writes, area * own, macs, gate, None, within, conv)
                    )
                else:
                    vectors += own
            if layer.kind in ("conv", "linear") and "weight" not in dict(
                module.named_parameters(recurse=False)
            ):
                # A computed weight (weight norm) is not in the state dict and never varies, but multiplies.
                reads = FIXED if inner is None else self.form(inner)
                macs = math.prod(layer.kernel) * layer.positions
                rows.append(CostTerm(layer.path, reads, layer.writes, 0, macs, blocks=within))
            if vectors:
                gate = gate_of_norm.get(layer.path)
                rows.append(CostTerm(layer.path, FIXED, layer.writes, vectors, 0, None, gate, within))
        rest: Counter[tuple[int, ...]] = Counter()
        bare = {
            owner: (int(axis), form) for (owner, axis), form in self.grouping.forms.items() if axis.isdigit()
        }
        for name, tensor in (*self.net.named_parameters(), *self.net.named_buffers()):
            within = inside.get(name, inside.get(name.rpartition(".")[0], ()))
            own = isinstance(tensor, nn.Parameter) and id(tensor) not in counted
            if name in bare:
                axis, form = bare[name]
                sites.append(ChannelAxis(name, axis, self.form(form)))
                if own:
                    each = tensor.numel() // tensor.shape[axis]
                    rows.append(CostTerm(name, FIXED, self.form(form), each, 0, blocks=within))
            elif own:
                rest[within] += tensor.numel()
        rows += [
            CostTerm("other parameters", FIXED, FIXED, count, 0, blocks=within)
            for within, count in rest.items()
        ]
        for node, macs in self.work.macs.items():
            within = tuple(i for i, branch in enumerate(branches) if node in branch.nodes)
            rows.append(CostTerm(node.name, FIXED, FIXED, 0, macs, blocks=within))
        return sites, rows


def _remainder(block: Sequence[fx.Node], branch: Branch) -> list[Any]:
    """What is left of a block without its branch, to be compared."""
    kept = [node for node in block if node not in branch.nodes and node is not branch.addition]
    place: dict[fx.Node, int | str] = {node: i for i, node in enumerate(kept)}
    place[branch.addition] = "sum"
    return structure(kept, lambda node: place.get(node, "input"))


def _factors(labelled: LabelPass) -> Iterator[tuple[fx.Node, Tensor]]:
    """The nodes that multiply by the network's own tensors, or by what is computed from these alone, with them."""
    dependent: set[fx.Node] = set()  # on the input
    for node in labelled.graph.nodes:
        if node.op == "placeholder" or not dependent.isdisjoint(node.all_input_nodes):
            dependent.add(node)
        if node.op == "call_module":
            module = labelled.modules[str(node.target)]
            if not isinstance(module, NO_FACTORS):
                yield from ((node, weight) for weight in module.parameters())
        elif node in dependent and node.op.startswith("call") and not known(operation(node)):
            waiting, seen = list(node.all_input_nodes), set(dependent)
            while waiting:
                before = waiting.pop(0)
                if before not in seen and before.op == "get_attr":
                    yield node, attrgetter(str(before.target))(labelled.net)
                elif before not in seen:
                    waiting.extend(before.all_input_nodes)
                seen.add(before)


def _weighs(module: nn.Module) -> bool:
    """Whether a module has parameters of its own or in children."""
    return next(module.parameters(), None) is not None
