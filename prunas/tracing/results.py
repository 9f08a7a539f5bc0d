"""What common layers and functions return on the meta device without being run: torch's own way is slow there."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._device import DeviceContext

from prunas.graphs.layers import SELECTING
from prunas.tracing.operations import BINARY, POINTWISE_MODULES, SHAPE_KEEPING

__all__ = ["MetaUndrawn", "alike", "result_of", "result_of_function"]


INTO_FIRST = frozenset({"iadd", "isub", "imul", "itruediv"})
"""Operators that write into their first operand."""
FILLING = frozenset({
    "uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_", "zero_", "fill_", "exponential_",
    "erfinv_", "clamp_", "clamp_min_", "clamp_max_", "mul_", "add_", "sub_", "div_",
})  # fmt: skip
"""Functions and methods that write numbers into a tensor, whatever its shape."""


class MetaUndrawn(DeviceContext):
    """The meta device; initial values are not drawn, which takes time there too."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in FILLING:
            given = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)]
            allowed = getattr(func, "__module__", "") == nn.init.__name__ or not torch.is_grad_enabled()
            if (
                given
                and all(value is given[0] for value in given)
                and given[0].is_meta
                and given[0].is_floating_point()
                and (allowed or not given[0].requires_grad)
            ):
                return given[0]
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def result_of(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What looks like what a common layer returns; None where torch must be asked.

    Raises:
        ValueError: The layer does not accept such an input.
    """
    if len(args) != 1 or not isinstance(args[0], Tensor) or kwargs:
        return None
    given: Tensor = args[0]
    if isinstance(module, POINTWISE_MODULES):
        return given
    if isinstance(module, tuple(SELECTING.values())):
        if isinstance(module, _BatchNorm):
            return given.new_empty((given.shape[0], module.num_features, *given.shape[2:]))
        return None
    expected, axis = 0, -1
    if isinstance(module, _BatchNorm):
        module._check_input_dim(given)  # type: ignore[no-untyped-call]
        expected, axis, what = module.num_features, 1, "norm of {} channels"
    elif isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        (expected,), what = module.normalized_shape, "norm of {} channels"
    elif type(module) in (nn.LSTM, nn.GRU, nn.RNN) and given.ndim in (2, 3):
        expected, what = cast(nn.RNNBase, module).input_size, "recurrent layer of {} inputs"
    elif isinstance(module, nn.Linear):
        expected, what = module.in_features, "linear layer of {} inputs"
    else:
        return None
    if given.shape[axis] != expected:
        raise ValueError(f"a {what.format(expected)} was given {given.shape[axis]}")
    if isinstance(module, nn.RNNBase):
        return _result_of_recurrent(module, given)
    return (
        given.new_empty((*given.shape[:-1], module.out_features)) if isinstance(module, nn.Linear) else given
    )


def _result_of_recurrent(layer: Any, given: Tensor) -> Any:
    """What an LSTM, GRU or RNN returns; torch runs it step by step."""
    directions = 2 if layer.bidirectional else 1
    width = layer.proj_size or layer.hidden_size
    batch = [given.shape[0 if layer.batch_first else 1]] if given.ndim == 3 else []
    output = given.new_empty((*given.shape[:-1], directions * width))
    last = given.new_empty((directions * layer.num_layers, *batch, width))
    if not isinstance(layer, nn.LSTM):
        return output, last
    return output, (last, given.new_empty((*last.shape[:-1], layer.hidden_size)))


def alike(first: Any, second: Any) -> bool:
    """Whether the element-wise result of two operands certainly looks like the first one."""
    if not isinstance(first, Tensor):
        return False
    if isinstance(second, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype
    return first.is_floating_point() and isinstance(second, int | float)


def result_of_function(name: str, args: Any, kwargs: Any) -> Tensor | None:
    """A new tensor that looks like what a function returns that is called often; None where torch must be asked.

    Args:
        name: How the function is called; one with `_` behind it writes into its operand.
        args: By position.
        kwargs: By name.
    """
    if name in INTO_FIRST or not args or not isinstance(args[0], Tensor) or not args[0].is_contiguous():
        return None
    first: Tensor = args[0]
    others = [*args[1:], *kwargs.values()]
    if not first.is_floating_point():
        same = name in BINARY and not kwargs and len(others) == 1 and alike(first, others[0])
        return first.new_empty(first.shape) if same else None
    if name in SHAPE_KEEPING | {"softmax"}:
        numbers = all(other is False or type(other) in (int, float, type(None)) for other in others)
        return first.new_empty(first.shape) if numbers else None
    if kwargs:
        return None
    if name in BINARY and len(others) == 1:
        return first.new_empty(first.shape) if alike(first, others[0]) or _fits(others[0], first) else None
    if name == "linear" and _multiplies(others[0].mT, first):
        return first.new_empty((*first.shape[:-1], len(others[0])))
    if name == "matmul" and first.ndim > 2 and _multiplies(others[0], first):
        stacks = first.shape[:-2] == others[0].shape[:-2]
        return first.new_empty((*first.shape[:-1], others[0].shape[-1])) if stacks else None
    return None


def _fits(small: Any, large: Tensor) -> bool:
    """Whether a tensor is broadcast to another one, which stays as large as it is."""
    return (
        isinstance(small, Tensor)
        and small.dtype == large.dtype
        and small.ndim <= large.ndim
        and all(a in (1, b) for a, b in zip(reversed(small.shape), reversed(large.shape), strict=False))
    )


def _multiplies(matrix: Tensor, rows: Tensor) -> bool:
    """Whether rows can be multiplied by a matrix, or by as many as there are stacks of them."""
    return matrix.ndim > 1 and matrix.dtype == rows.dtype and matrix.shape[-2] == rows.shape[-1]
