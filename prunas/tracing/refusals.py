"""What no survey can follow: layers that a factory does not make anew, shared tensors, weights read elsewhere."""

from collections.abc import Container, Iterator, Sequence
from operator import attrgetter

from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from prunas.errors import InputError
from prunas.surgery.construct import CONSTRUCTORS, Factory, construction_order
from prunas.survey import Frozen
from prunas.tracing.labels import altered
from prunas.tracing.ledger import Ledger
from prunas.tracing.operations import operation, where
from prunas.tracing.propagate import LabelPass, known
from prunas.tracing.trace import on_meta

__all__ = ["forbid_outside", "forbid_shared", "forbid_unmade", "unfollowed"]

NO_FACTORS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Layers that read their weights element by element, or some rows of them."""


def forbid_unmade(net: nn.Module, order: Sequence[str], factory: Factory, ledger: Ledger) -> None:
    """Holds layers that the factory does not construct when it is called.

    Raises:
        InputError: The network, or part of it, is the same object at every call, so that others hold it too; or it
            has lazy layers.
    """
    for path, module in net.named_modules():
        if isinstance(module, LazyModuleMixin):
            raise InputError(f"{path!r} is a lazy layer: it has no size yet; make it with its sizes")
    layers = [path for path, module in net.named_modules() if isinstance(module, tuple(CONSTRUCTORS))]
    unmade = set(layers).difference(order)
    if unmade or not all(parameter.is_meta for parameter in net.parameters()):
        known = {id(module): path for path, module in net.named_modules()}
        for module in on_meta(lambda: construction_order(factory))[0].modules():
            if id(module) in known:
                part = f" with {known[id(module)]!r} in it" if known[id(module)] else ""
                raise InputError(
                    f"the network's factory returns a network{part} that was made before; it must make a new one "
                    "at every call, as `lambda: Net()` does"
                )
    for path in sorted(unmade):
        ledger.forbid(path, "the factory copies it instead of constructing it", path)


def forbid_shared(net: nn.Module, ledger: Ledger) -> None:
    """Holds modules that have several names, parameters that live elsewhere too or are computed, or hooks."""
    owners: dict[int, str] = {}
    names: dict[int, list[str]] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        if next(module.parameters(), None) is not None:
            names.setdefault(id(module), []).append(path)
    for path, *others in names.values():
        if others:
            ledger.forbid(path, f"it is also called {others[0]}", path)
    for path, module in net.named_modules():
        if parametrize.is_parametrized(module) or hasattr(module, "weight_g"):
            ledger.forbid(path, "its weight is parametrised", path)
        elif why := altered(module):
            ledger.forbid(path, why, path)
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), path)
            if other != path:
                ledger.forbid(path, f"it shares its weight with {other}", path)
                ledger.forbid(other, f"it shares its weight with {path}", other)


def forbid_outside(net: nn.Module, part: str, reached: Sequence[str], ledger: Ledger) -> None:
    """Holds the modules of a part that the rest calls, that have another name, or share a parameter, outside it.

    Args:
        net: The network.
        part: Module path of the part.
        reached: Module paths inside the part that the rest calls.
        ledger: Of the part by itself.
    """
    for path in reached:
        name = path.removeprefix(f"{part}.")
        ledger.forbid(name, "the network calls it outside the part too", name)
    inside: dict[int, str] = {}
    for path, module in net.get_submodule(part).named_modules():
        inside |= {id(module): path, **{id(p): path for p in module.parameters(recurse=False)}}
    for path, module in net.named_modules(remove_duplicate=False):
        if path != part and not path.startswith(f"{part}."):
            shared = [module] if next(module.parameters(), None) is not None else []
            for thing in (*shared, *module.parameters(recurse=False)):
                if (held := inside.get(id(thing))) is not None:
                    ledger.forbid(held, f"it is also used by {path}", held)


def unfollowed(
    net: nn.Module, ledger: Ledger, passes: Sequence[LabelPass], surveyed: Container[str]
) -> list[Frozen]:
    """Every weight that multiplies but is not among the `surveyed` tensors, and what reads it."""
    names = {
        id(tensor): name for name, tensor in net.named_parameters() if any(n > 1 for n in tensor.shape[1:])
    }
    reasons: dict[str, Frozen] = {}
    for labelled in passes:
        for node, weight in _factors(labelled):
            name = names.get(id(weight), "")
            if name and name not in surveyed:
                module = labelled.modules.get(str(node.target)) if node.op == "call_module" else None
                reader = type(module).__name__ if module else operation(node)
                held = ledger.forbidden.get(name.rpartition(".")[0])
                why, place = held or (f"{reader} reads it and is not followed", where(node))
                reasons.setdefault(name, Frozen(name, why, place, weight.numel()))
    return list(reasons.values())


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
