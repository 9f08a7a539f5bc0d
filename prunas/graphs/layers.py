"""The few layers prunas puts into a network: selections of input channels, and a pad that can be narrowed.

Each selection is a subclass of the layer it replaces, so that `isinstance`, parameter names and state dicts
stay what they were, plus one buffer `index`: the input channels that pass, shape (selected,), int64.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["SELECTING", "ChannelPad", "select"]


class ChannelPad(nn.Module):
    """Appends zero channels: the parameter-free shortcut of type A (He et al. 2016a).

    A constant padding in `forward` would fix the widths it joins; this module carries its number where it can
    be changed.

    Args:
        extra: Zero channels to append.
    """

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, channels, ...) to (batch, channels + extra, ...)."""
        shape = (x.shape[0], self.extra, *x.shape[2:])
        return torch.cat((x, x.new_zeros(shape)), 1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"extra={self.extra}"


class _Select(nn.Module):
    index: Tensor
    axis = 1

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, super().forward(x.index_select(self.axis, self.index)))


class SelectConv1d(_Select, nn.Conv1d):
    """A convolution of some of its input channels."""


class SelectConv2d(_Select, nn.Conv2d):
    """A convolution of some of its input channels."""


class SelectConv3d(_Select, nn.Conv3d):
    """A convolution of some of its input channels."""


class SelectLinear(_Select, nn.Linear):
    """A linear layer of some of its input features."""

    axis = -1


class SelectBatchNorm1d(_Select, nn.BatchNorm1d):
    """A batch norm of some of its input channels."""


class SelectBatchNorm2d(_Select, nn.BatchNorm2d):
    """A batch norm of some of its input channels."""


class SelectBatchNorm3d(_Select, nn.BatchNorm3d):
    """A batch norm of some of its input channels."""


SELECTING: dict[type[nn.Module], type[_Select]] = {
    nn.Conv1d: SelectConv1d,
    nn.Conv2d: SelectConv2d,
    nn.Conv3d: SelectConv3d,
    nn.Linear: SelectLinear,
    nn.BatchNorm1d: SelectBatchNorm1d,
    nn.BatchNorm2d: SelectBatchNorm2d,
    nn.BatchNorm3d: SelectBatchNorm3d,
}
"""The layers a gate can sit on, and what each becomes."""


def select(module: nn.Module, index: Any) -> None:
    """Turns `module` in place into its selecting subclass.

    Args:
        module: A layer whose exact class is a key of `SELECTING`, already as narrow as the selection.
        index: Input channels that pass, ascending.
    """
    module.__class__ = SELECTING[type(module)]
    tensors = (*module.parameters(), *module.buffers())
    device = tensors[0].device if tensors else None
    module.register_buffer("index", torch.as_tensor(index, dtype=torch.int64, device=device))
