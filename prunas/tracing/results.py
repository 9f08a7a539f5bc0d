"""What common layers return on the meta device, without running them: torch's own way is slow there."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas.graphs.layers import SELECTING
from prunas.tracing.operations import POINTWISE_MODULES

__all__ = ["result_of"]


def result_of(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor | None:
    """A tensor that looks like what a common layer returns; None where torch must be asked.

    Raises:
        ValueError: The layer does not accept such an input.
    """
    if len(args) != 1 or not isinstance(args[0], Tensor) or kwargs:
        return None
    (given,) = args
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
    elif isinstance(module, nn.Linear):
        expected, what = module.in_features, "linear layer of {} inputs"
    else:
        return None
    if given.shape[axis] != expected:
        raise ValueError(f"a {what.format(expected)} was given {given.shape[axis]}")
    return (
        given.new_empty((*given.shape[:-1], module.out_features)) if isinstance(module, nn.Linear) else given
    )
