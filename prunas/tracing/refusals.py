"""What no survey can follow: layers that a factory does not make anew, and tensors that modules share."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from prunas.errors import InputError
from prunas.surgery.construct import CONSTRUCTORS, Factory, construction_order
from prunas.tracing.labels import altered
from prunas.tracing.ledger import Ledger
from prunas.tracing.trace import on_meta

__all__ = ["forbid_shared", "forbid_unmade"]


def forbid_unmade(net: nn.Module, order: Sequence[str], factory: Factory, ledger: Ledger) -> None:
    """Holds layers that the factory does not construct when it is called.

    Raises:
        InputError: The network, or part of it, is the same object at every call: it is somebody's; or it has
            lazy layers.
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
