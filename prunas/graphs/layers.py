"""The few layers prunas puts into a network: selections of input channels, attention with fewer heads, a pad.

Each selection is a subclass of the layer it replaces, so that `isinstance`, parameter names and state dicts
stay what they were, plus one buffer `index`: the input channels that pass, shape (selected,), int64.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SELECTING", "ChannelPad", "HeadAttention", "refit_attention", "select"]


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


class HeadAttention(nn.MultiheadAttention):
    """Multi-head attention whose heads together need not be as wide as what it reads.

    A built network has it where torch's own cannot be: heads are gone, or the stream is narrower. Names of
    parameters are torch's; keys and values of its own, and zeros to attend to, are not supported.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`; with `is_causal`, `attn_mask` has to say so too, as there."""
        batched = query.dim() == 3
        tensors = [query, key, value] if batched else [t.unsqueeze(0) for t in (query, key, value)]
        if batched and not self.batch_first:
            tensors = [t.transpose(0, 1) for t in tensors]
        size = self.head_dim
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        packed = self._parameters["in_proj_weight"]
        apart = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        weights = apart if packed is None else packed.chunk(3)
        q, k, v = (
            F.linear(t, weight, bias).view(*t.shape[:2], self.num_heads, size).transpose(1, 2)
            for t, weight, bias in zip(tensors, weights, biases, strict=True)
        )
        mask = _added(attn_mask, q.dtype)
        if mask is not None and mask.dim() == 3:
            mask = mask.view(-1, self.num_heads, *mask.shape[1:])
        if key_padding_mask is not None:
            padding = _added(key_padding_mask if batched else key_padding_mask.unsqueeze(0), q.dtype)
            assert padding is not None
            mask = padding[:, None, None] if mask is None else mask + padding[:, None, None]
        weights_of = None
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = (q * size**-0.5) @ k.transpose(-2, -1)
            weights_of = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            attended = weights_of @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(attended.transpose(1, 2).flatten(2))
        if weights_of is not None and average_attn_weights:
            weights_of = weights_of.mean(1)
        if not batched:
            return output.squeeze(0), None if weights_of is None else weights_of.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights_of


def _added(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask as what is added to the scores: true means not allowed."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def refit_attention(module: nn.MultiheadAttention) -> None:
    """Lets an attention whose tensors were narrowed and whose `num_heads` was set run as it is now.

    Where its heads together are as wide as what it reads, it stays torch's own.
    """
    inner = module.num_heads * module.head_dim
    packed = module.in_proj_weight
    reads = (module.q_proj_weight if packed is None else packed).shape[1]
    module.kdim, module.vdim = (
        (reads, reads)
        if packed is not None
        else (module.k_proj_weight.shape[1], module.v_proj_weight.shape[1])
    )
    written = module.out_proj.weight.shape[0]
    if packed is not None and inner == reads == written:
        module.embed_dim = inner
        return
    if inner == reads == written == module.embed_dim:
        return
    module.embed_dim = reads
    # torch's shortcuts for inference ask for this, and compute with widths that are equal.
    module._qkv_same_embed_dim = False
    module.__class__ = HeadAttention
