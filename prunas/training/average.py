"""The running mean of a network's weights, in tensors that stay where they are, and no value read back."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Exponential moving average of all parameters and buffers of a network (EMA).

    The first weights it is told are the mean; from then on mean = decay * mean + (1 - decay) * weights, as in
    `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn` and `use_buffers`; but for what is counted in
    whole numbers, such as the batches of a batch norm: it is copied.

    Args:
        net: On its device, with all that is attached to it.
        decay: In (0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        self._live = {name: tensor.detach() for name, tensor in tensors.items()}
        self._mean = {name: torch.zeros_like(tensor) for name, tensor in self._live.items()}
        self._averaged = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        self._copied = [name for name, tensor in self._live.items() if not tensor.is_floating_point()]
        self._decay = decay
        # How much the next weights count; a tensor, so that a recorded step knows the first from the others.
        self._share = torch.ones((), device=next(iter(self._live.values())).device)

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's weights into the mean."""
        means = [self._mean[name] for name in self._averaged]
        moves = torch._foreach_sub([self._live[name] for name in self._averaged], means)
        torch._foreach_mul_(moves, self._share)
        torch._foreach_add_(means, moves)
        for name in self._copied:
            self._mean[name].copy_(self._live[name])
        self._share.fill_(1 - self._decay)

    @torch.no_grad()
    def forget(self) -> None:
        """Starts over: the next weights are the mean."""
        torch._foreach_zero_(list(self._mean.values()))  # the first weights are then taken without rounding
        self._share.fill_(1.0)

    @torch.no_grad()
    def settle(self) -> None:
        """Gives the network the mean for good."""
        for name, tensor in self._live.items():
            tensor.copy_(self._mean[name])

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        """Inside, the network has the mean; afterwards its own weights again."""
        before = {name: tensor.clone() for name, tensor in self._live.items()}
        self.settle()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self._live.items():
                    tensor.copy_(before[name])

    def state(self) -> dict[str, Tensor]:
        """The mean, and how much the next weights count; the tensors themselves, not copies."""
        return {**{f"mean.{name}": tensor for name, tensor in self._mean.items()}, "share": self._share}
