"""What the dense network does while it computes what a narrowed one must: modes of torch's functions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from prunas.survey import Survey

__all__ = ["KeptNorms", "RemovedBranches", "kept_columns"]

SUMS = ("add", "add_", "__add__", "__radd__", "__iadd__")
"""Functions that a branch may end in."""

STATISTICS = ("mean", "var", "std", "var_mean", "norm", "amax", "amin", "max", "min")
"""Functions that take statistics."""


class KeptNorms(TorchFunctionMode):
    """Norms over channels run over the kept ones; the others come out as zero.

    Args:
        kept: Positions by the id of the norm's weight.
        inside: Positions by the number of channels, by the module that scales them by parameters of its own: a
            statistic over as many channels in its forward is one of those that are kept.
        everywhere: Positions by the number of channels: anywhere, a statistic over as many that keeps the axis, to
            scale or shift these again, is one of those that are kept.
    """

    def __init__(
        self,
        kept: Mapping[int, Tensor],
        inside: Mapping[nn.Module, Mapping[int, Tensor]] = MappingProxyType({}),
        everywhere: Mapping[int, Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.kept, self.inside, self.everywhere = kept, inside, everywhere
        self.entered: list[Mapping[int, Tensor]] = []
        self.hooks: list[Any] = []

    def __enter__(self) -> "KeptNorms":
        """Watches the modules that norm by themselves."""
        for module, positions in self.inside.items():
            self.hooks += [
                module.register_forward_pre_hook(
                    lambda *_, positions=positions: self.entered.append(positions)
                ),
                module.register_forward_hook(lambda *_: self.entered.pop() and None),
            ]
        return cast("KeptNorms", super().__enter__())

    def __exit__(self, *error: object) -> None:
        """Leaves them as they were."""
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _statistic(self, func: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """The arguments of a statistic over channels, of the kept ones alone."""
        name = getattr(func, "__name__", "")
        if name not in STATISTICS or not args or not isinstance(args[0], Tensor):
            return args
        place = 2 if name == "norm" else 1
        dim = args[place] if len(args) > place else options.get("dim")
        if isinstance(dim, list | tuple) and len(dim) == 1:
            (dim,) = dim
        if not isinstance(dim, int) or isinstance(dim, bool):
            return args
        known = {**(self.everywhere if options.get("keepdim") or True in args[place + 1 :] else {})}
        kept = (known | dict(self.entered[-1] if self.entered else {})).get(args[0].shape[dim])
        return args if kept is None else (args[0].index_select(dim, kept), *args[1:])

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Takes over the three functions that matter."""
        options = dict(kwargs or {})
        if func in (F.layer_norm, F.group_norm):
            x, what, *rest = args
            weight, bias, eps = (
                rest[i] if i < len(rest) else options.get(name, default)
                for i, (name, default) in enumerate((("weight", None), ("bias", None), ("eps", 1e-5)))
            )
            if id(weight) in self.kept:
                kept, axis = self.kept[id(weight)], 1 if func is F.group_norm else -1
                some = x.index_select(axis, kept)
                size = what if func is F.group_norm else [len(kept)]
                some_weight, shift = (None if v is None else v[kept] for v in (weight, bias))
                return torch.zeros_like(x).index_copy_(axis, kept, func(some, size, some_weight, shift, eps))
        if func is F.rms_norm:
            weight = args[2] if len(args) > 2 else options.get("weight")
            if id(weight) in self.kept:
                x, kept = args[0], self.kept[id(weight)]
                eps = args[3] if len(args) > 3 else options.get("eps")
                some = func(x.index_select(-1, kept), [len(kept)], weight[kept], eps)
                return torch.zeros_like(x).index_copy_(-1, kept, some)
        return func(*self._statistic(func, args, options), **options)


class RemovedBranches(TorchFunctionMode):
    """The branches of removed blocks are multiplied by zero where they are added.

    Of every tensor it is known which weights it depends on. The sum that ends a branch is the first with an
    operand that depends on all of the branch's weights, and another that depends on none.

    Args:
        dense: The network.
        survey: Its survey.
        removed: Names of the blocks.
    """

    def __init__(self, dense: nn.Module, survey: Survey, removed: Sequence[str]) -> None:
        super().__init__()
        self.branches: dict[str, int] = {}  # by name of the block, weights as bits
        self.read: dict[int, int] = {}  # bits of what a tensor depends on, by its storage
        self.alive: list[Tensor] = []  # so that no other tensor gets the same storage
        tensors = list(dense.named_parameters())
        for name in removed:
            branch = survey.blocks[survey.block_index[name]].branch
            within = [
                (1 << place, tensor)
                for place, (path, tensor) in enumerate(tensors)
                if any(path == part or path.startswith(f"{part}.") for part in branch)
            ]
            if within:
                self.branches[name] = sum(bit for bit, _ in within)
            for bit, tensor in within:
                self._depend(tensor, bit)

    def __exit__(self, *error: object) -> None:
        """Refuses to have removed less than was asked.

        Raises:
            LookupError: The sum that ends a branch was not met.
        """
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if self.branches and error[0] is None:
            raise LookupError(f"the sum that ends the branch of {min(self.branches)!r} cannot be found")

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls a function, and notes what its results depend on."""
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in SUMS and len(args) == 2 and all(isinstance(side, Tensor) for side in args):
            args = self._without(args)
        given = [leaf for leaf in pytree.tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        bits = 0
        for tensor in given:
            bits |= self.read.get(_storage(tensor), 0)
        result = func(*args, **options)
        if bits:
            written = args[:1] if name.endswith("_") else ()  # in place, an assignment to items among them
            for leaf in pytree.tree_leaves((result, *written)):
                if isinstance(leaf, Tensor):
                    self._depend(leaf, bits)
        return result

    def _depend(self, tensor: Tensor, bits: int) -> None:
        place = _storage(tensor)
        self.read[place] = self.read.get(place, 0) | bits
        self.alive.append(tensor)

    def _without(self, sides: Sequence[Tensor]) -> Sequence[Tensor]:
        """The operands of a sum, a branch that ends there times zero."""
        read = [self.read.get(_storage(side), 0) for side in sides]
        for name, weights in list(self.branches.items()):
            for branch, other in ((0, 1), (1, 0)):
                if read[branch] & weights == weights and not read[other] & weights:
                    del self.branches[name]
                    with torch._C.DisableTorchFunctionSubclass():
                        zero = sides[branch] * 0.0
                    self._depend(zero, read[branch])
                    sides = [zero if place == branch else side for place, side in enumerate(sides)]
        return sides


def _storage(tensor: Tensor) -> int:
    """What tells tensors apart that share no elements."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # within a transform such as vmap
        return id(tensor)
    return cast(int, tensor.untyped_storage()._cdata)


@contextmanager
def kept_columns(kept: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """While active, convolutions have some columns only and read as many channels.

    One that standardises its weight does so over the columns that it has, as a norm does over channels.

    Args:
        kept: Positions by the convolution.
    """
    hooks, weights = [], []
    for layer, positions in kept.items():
        weight = layer.get_parameter("weight")
        weights.append((weight, weight.data))
        weight.data = weight.data.index_select(1, positions)
        hooks.append(
            layer.register_forward_pre_hook(
                lambda layer, args, positions=positions: (
                    args[0].index_select(-1 - len(layer.kernel_size), positions),
                    *args[1:],
                )
            )
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight, before in weights:
            weight.data = before
