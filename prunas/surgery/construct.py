"""Runs an unchanged factory so that its layers are constructed at other widths.

Weights must be drawn by the factory's own initialisation at the new shape: torch's default differs from it by
up to a factor of 12 in standard deviation, and a slice of the dense weights has the dense network's fan. So the
constructors of the layers that take channel counts are intercepted while the factory runs, and their counts are
replaced by the order of construction, which the survey recorded.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prunas.errors import InputError
from prunas.graphs.layers import ChannelPad
from prunas.plugins import foreign_code

__all__ = [
    "CONSTRUCTORS",
    "DerivedSize",
    "Factory",
    "construct",
    "constructed_layers",
    "constructing",
    "construction_order",
    "copied_layers",
    "layers_on_meta",
    "made_by",
]

Factory = Callable[[], nn.Module]

CONSTRUCTORS: Mapping[type[nn.Module], tuple[str, ...]] = {
    _ConvNd: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    _NormBase: ("num_features",),
    nn.LayerNorm: ("normalized_shape",),
    nn.RMSNorm: ("normalized_shape",),
    nn.GroupNorm: ("num_channels",),
    nn.PReLU: ("num_parameters",),
    nn.Embedding: ("embedding_dim",),
    nn.RNNBase: ("input_size", "hidden_size", "proj_size"),
    nn.RNNCellBase: ("input_size", "hidden_size"),
    ChannelPad: ("extra",),
}
"""Layers that take channel counts, and the names of those arguments."""

MADE_AS = "_prunas_made_as"
"""The attribute by which a copy of a layer is known."""

_lock = threading.RLock()


@contextmanager
def _intercepted(visit: Callable[[nn.Module, dict[str, Any]], None]) -> Iterator[None]:
    """While active, `visit` may change the arguments of every constructor of `CONSTRUCTORS`."""

    def patched(original: Any, names: Sequence[str]) -> Any:
        signature = inspect.signature(original)

        @functools.wraps(original)  # keeps the signature, which is read again where this is nested
        def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            counts = {name: bound.arguments[name] for name in names if name in bound.arguments}
            visit(self, counts)
            bound.arguments.update(counts)
            original(*bound.args, **bound.kwargs)

        return init

    with _replaced(patched):
        yield


@contextmanager
def constructing(layers: list[nn.Module]) -> Iterator[None]:
    """While active, the layers of `CONSTRUCTORS` are added to a list as they are made, the failing one last."""
    with _intercepted(lambda module, counts: layers.append(module)):
        yield


@contextmanager
def layers_on_meta() -> Iterator[None]:
    """While active, the layers of `CONSTRUCTORS` have their weights on the meta device, and nothing else has."""

    def patched(original: Any, names: Sequence[str]) -> Any:
        @functools.wraps(original)
        def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            with torch.device("meta"):
                original(self, *args, **kwargs)

        return init

    with _replaced(patched):
        yield


@contextmanager
def _replaced(patched: Callable[[Any, Sequence[str]], Any]) -> Iterator[None]:
    """While active, every constructor of `CONSTRUCTORS` is what `patched` makes of it and its arguments' names."""
    with _lock:
        originals = {cls: cls.__init__ for cls in CONSTRUCTORS}
        try:
            for cls, names in CONSTRUCTORS.items():
                cls.__init__ = patched(originals[cls], names)  # type: ignore[method-assign]
            yield
        finally:
            for cls, original in originals.items():
                cls.__init__ = original  # type: ignore[method-assign]


def made_by(factory: Factory) -> nn.Module:
    """The network that a user's factory returns.

    Raises:
        InputError: It is no factory, calls `sys.exit`, or returns something else.
    """
    if isinstance(factory, nn.Module):
        raise InputError(
            f"a function that makes a network is wanted, not a network, because every point is built anew: give "
            f"one that returns a fresh {type(factory).__name__} at every call"
        )
    with foreign_code("the network's factory"):
        net = factory()
    if not isinstance(net, nn.Module):
        raise InputError(f"the network's factory returns {type(net).__name__}, not a torch module")
    return net


def construction_order(factory: Factory) -> tuple[nn.Module, tuple[str, ...]]:
    """Runs `factory` and notes which layers it makes in which order.

    Returns:
        The network, and the module path of every layer of `CONSTRUCTORS` in the order of construction; an empty
        path for a layer that did not end up in the network.
    """
    net, constructed = constructed_layers(functools.partial(made_by, factory))
    paths = {id(module): path for path, module in net.named_modules()}
    return net, tuple(paths.get(id(module), "") for module, _ in constructed)


def constructed_layers(make: Factory) -> tuple[nn.Module, list[tuple[nn.Module, dict[str, Any]]]]:
    """Runs a function that makes a network, and notes the layers of `CONSTRUCTORS` that it makes.

    Returns:
        The network, and every such layer with the channel counts its constructor was given, in order.
    """
    constructed: list[tuple[nn.Module, dict[str, Any]]] = []
    with _intercepted(lambda module, counts: constructed.append((module, dict(counts)))):
        net = make()
    return net, constructed


def copied_layers(factory: Factory) -> tuple[nn.Module, set[str]]:
    """Runs `factory` and finds the layers that are copies of one which is no part of the network.

    `nn.TransformerEncoder(layer, 6)` copies a layer that nobody calls. A copy of one that is called would follow
    that one's width, whatever its own is.

    Returns:
        The network, and the module paths of such copies.
    """
    constructed: list[nn.Module] = []

    def visit(module: nn.Module, arguments: dict[str, Any]) -> None:
        module.__dict__[MADE_AS] = len(constructed)  # a copy of it has it too
        constructed.append(module)

    with _intercepted(visit):
        net = made_by(factory)
    placed = set(net.modules())
    prototypes = {i for i, module in enumerate(constructed) if module not in placed}
    return net, {path for path, module in net.named_modules() if vars(module).get(MADE_AS) in prototypes}


def construct(
    factory: Factory,
    order: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
    dense: Mapping[str, Mapping[str, int]],
) -> nn.Module:
    """Runs `factory` with other channel counts.

    Args:
        factory: The network's own factory.
        order: What `construction_order` noted.
        counts: New constructor arguments by module path; a layer that is missing keeps its own.
        dense: The arguments that the factory is expected to give itself.

    Raises:
        InputError: The factory makes other layers than it did for the survey.
    """
    constructed: list[nn.Module] = []

    def visit(module: nn.Module, arguments: dict[str, Any]) -> None:
        path = order[len(constructed)] if len(constructed) < len(order) else ""
        constructed.append(module)
        if not _as_expected(arguments, dense.get(path, {}), counts.get(path, {})):
            raise _Unexpected(path)
        arguments.update(counts.get(path, {}))

    try:
        with _intercepted(visit):
            net = factory()
    except _Unexpected as error:
        raise _different(factory, order, dense, error.path) from None
    paths = {id(module): path for path, module in net.named_modules()}
    if tuple(paths.get(id(module), "") for module in constructed) != tuple(order):
        raise _different(factory, order, dense)
    return net


class DerivedSize(InputError):
    """A factory computes a size from the width of a layer that it made before, and not as that width itself."""


class _Unexpected(InputError):  # `make_network` lets it pass
    """A layer is given another size than the dense network's."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def _as_expected(arguments: Mapping[str, Any], *expected: Mapping[str, int]) -> bool:
    """Whether each number that a constructor is given is one of those expected.

    That is the dense network's, or the new one, where the factory asks a layer that it made before for its width.
    """
    return all(
        any(
            counts.get(name, given) in (given, *(given if isinstance(given, Sequence) else ()))
            for counts in expected
        )
        for name, given in arguments.items()
    )


def _different(
    factory: Factory, order: Sequence[str], dense: Mapping[str, Mapping[str, int]], path: str = ""
) -> InputError:
    """The error of a factory that makes other layers; it is run again, unchanged, to find out why.

    Args:
        factory: The network's own factory.
        order: What `construction_order` noted.
        dense: The arguments that the factory is expected to give itself.
        path: The layer that shows it, if there is one.
    """
    given: list[dict[str, Any]] = []
    constructed: list[nn.Module] = []

    def visit(module: nn.Module, arguments: dict[str, Any]) -> None:
        constructed.append(module)
        given.append(dict(arguments))

    with _intercepted(visit):
        net = made_by(factory)
    paths = {id(module): path for path, module in net.named_modules()}
    if tuple(paths.get(id(module), "") for module in constructed) == tuple(order) and all(
        _as_expected(arguments, dense.get(layer, {})) for layer, arguments in zip(order, given, strict=True)
    ):
        what = f"a size of {path!r}" if path else "which layers it makes"
        return DerivedSize(
            f"the network's factory computes {what} from the size of a layer that it made before, and that one is "
            "narrowed; give it the sizes as numbers"
        )
    return InputError(
        "the network's factory makes other layers than when it was surveyed; it must return the same network at "
        "every call"
    )
