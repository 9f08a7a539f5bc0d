"""Which layer of a network keeps a training from being reproducible to the bit."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunas.errors import InputError

__all__ = ["refusal"]

REFUSED = " does not have a deterministic implementation"
"""What follows the operator's name in torch's error."""


def refusal(error: RuntimeError, net: nn.Module, again: Callable[[], object]) -> InputError | None:
    """What to tell a user whose network has no deterministic implementation here.

    Args:
        error: What a training step raised.
        net: The network; every module without modules of its own is tried alone.
        again: Makes the forward pass of that step once more.

    Returns:
        One line that names operator and layers; None if `error` is about something else.
    """
    operator, refused, _ = str(error).partition(REFUSED)
    if not refused:
        return None
    layers = _refused(net, again)
    where = f" (layer {', '.join(map(repr, layers))})" if layers else ""
    return InputError(
        f"{operator.split()[-1]}{where} gives other bits on every run on this device; "
        "train without --deterministic, or take another layer in its place"
    )


def _refused(net: nn.Module, again: Callable[[], object]) -> list[str]:
    """Names of the layers that raise the error when they are run alone, forward and backward."""
    found: list[str] = []

    def alone(name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        inputs = [_leaf(x) if torch.is_tensor(x) else x for x in given]
        try:
            with torch.enable_grad():
                output = layer.forward(*inputs)
                if torch.is_tensor(output) and output.requires_grad:
                    torch.autograd.backward(output.sum())
        except RuntimeError as error:
            if REFUSED in str(error):
                found.append(name)

    hooks = [
        module.register_forward_pre_hook(lambda layer, given, name=name: alone(name, layer, given))
        for name, module in net.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        again()
    except RuntimeError as error:
        if REFUSED not in str(error):
            raise
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(found))


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_(x.is_floating_point())
