"""One training step: tensors in, tensors changed in place, nothing read back."""

import contextlib
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.sgd import sgd

from prunas.data.dataset import Batch, Draw
from prunas.errors import unknown
from prunas.recipe import Recipe
from prunas.training.hooks import Regulariser
from prunas.training.precision import Float32, algorithm_search, float32_arithmetic

__all__ = ["Step", "arithmetic", "autocast"]


def autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context of a forward pass in the recipe's precision. May be entered many times."""
    if recipe.precision != "bf16":
        return contextlib.nullcontext()
    # The cache of cast weights would outlive the weights of a captured step.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def arithmetic(recipe: Recipe, device: torch.device) -> None:
    """Sets how CUDA multiplies float32 from here on: exactly, or in TF32 where the recipe says so."""
    kind: Float32 = "tf32" if recipe.precision == "tf32" else "ieee"
    float32_arithmetic(device, convolutions=kind, products=kind)


class Step:
    """Gather, forward, backward, penalty, SGD, masks: called with what a feed drew.

    All it reads and writes besides the draw are the tensors of `state` and `lr`, which stay where they are,
    and it never asks for a value. That is what a CUDA graph needs to replay it.

    Attributes:
        net: What is trained.
        lr: Learning rate, a float32 scalar on the device.
    """

    def __init__(
        self,
        net: nn.Module,
        gather: Callable[[Draw], Batch],
        recipe: Recipe,
        device: torch.device,
        regulariser: Regulariser | None = None,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Prepares momentum and learning rate, and applies the masks.

        Args:
            net: On the device, with the regulariser attached.
            gather: Of the feed whose draws will come.
            masks: By parameter name; where a mask is 0 the weight is 0 before and after every step.

        Raises:
            InputError: A mask's name is not that of a parameter.
        """
        self.net, self._gather, self._recipe, self._regulariser = net, gather, recipe, regulariser
        self._device = device
        self._autocast = autocast(recipe, device)
        self._params = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.lr = torch.zeros((), device=device)
        self._lr = 0.0
        exempt = {id(p) for p in regulariser.exempt()} if regulariser else set()
        # Zeros instead of torch's empty start: the first step is then like all others, to the bit.
        self._momentum = {name: torch.zeros_like(p) for name, p in self._params.items()}
        pairs = [(p, self._momentum[name]) for name, p in self._params.items()]
        self._groups = (
            ([pair for pair in pairs if id(pair[0]) not in exempt], recipe.weight_decay),
            ([pair for pair in pairs if id(pair[0]) in exempt], 0.0),
        )
        self._fused = recipe.fused and device.type in ("cpu", "cuda")
        self._totals = torch.zeros(2, device=device)
        self._loss_sum, self._hits = self._totals[0], self._totals[1]
        self._masked: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}
        for name, mask in (masks or {}).items():
            if name not in self._params:
                raise unknown("parameter", name, self._params)
            self._masked[name] = self._params[name].detach()
            self._masks[name] = torch.empty_like(self._masked[name]).copy_(mask)
        self._mask()

    @torch.no_grad()
    def begin(self, net: nn.Module, masks: Mapping[str, Tensor] | None = None) -> None:
        """Starts over, from the weights of another network; for a step that has no regulariser.

        Args:
            net: Of the same architecture, anywhere.
            masks: Other ones, by the same names.
        """
        _copy(net, self.net)
        for name, mask in (masks or {}).items():
            self._masks[name].copy_(mask)
        self._totals.zero_()
        self.forget()

    @torch.no_grad()
    def deliver(self, net: nn.Module) -> None:
        """Gives another network of the same architecture what was trained."""
        _copy(self.net, net)

    def set_lr(self, lr: float) -> None:
        """Changes the learning rate of the steps to come."""
        if lr != self._lr:
            self._lr = lr
            self.lr.fill_(lr)

    def __call__(self, draw: Draw) -> None:
        """Trains on one batch and adds to the totals of the epoch."""
        arithmetic(self._recipe, self._device)
        x, y = self._gather(draw)
        # The last batch of an epoch comes once in it: a search for its algorithms would cost more than it brings.
        with algorithm_search(torch.backends.cudnn.benchmark and len(y) == self._recipe.batch):
            self._train(x, y)

    def _train(self, x: Tensor, y: Tensor) -> None:
        with self._autocast:
            output = self.net(x)
        if self._recipe.precision == "bf16":
            output = output.float()
        loss = F.cross_entropy(output, y)
        for p in self._params.values():
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if self._regulariser is not None:
            self._regulariser.gradients()
        self._update()
        if self._regulariser is not None:
            self._regulariser.after_step(self.lr)
        self._mask()
        self._loss_sum.add_(loss.detach(), alpha=len(y))
        self._hits.add_((output.detach().argmax(1) == y).sum())

    @torch.no_grad()
    def _update(self) -> None:
        # torch's function, not its class: the first use of the class imports the compiler, for 1.5 s.
        for pairs, weight_decay in self._groups:
            # A parameter that took no part in the loss has no gradient.
            live = [(p, p.grad, momentum) for p, momentum in pairs if p.grad is not None]
            if not live:
                continue
            params, grads, momenta = (list(column) for column in zip(*live, strict=True))
            if not self._fused:
                self._update_unfused(params, grads, momenta, weight_decay)
                continue
            sgd(
                params,
                grads,
                momenta,
                fused=True,
                lr=self.lr,
                weight_decay=weight_decay,
                momentum=self._recipe.momentum,
                nesterov=self._recipe.nesterov,
                dampening=0.0,
                maximize=False,
            )

    def _update_unfused(
        self, params: list[Tensor], grads: list[Tensor], momenta: list[Tensor], weight_decay: float
    ) -> None:
        # torch's own would read the learning rate back.
        torch._foreach_add_(grads, params, alpha=weight_decay)
        torch._foreach_mul_(momenta, self._recipe.momentum)
        torch._foreach_add_(momenta, grads)
        moves = momenta
        if self._recipe.nesterov:
            torch._foreach_add_(grads, momenta, alpha=self._recipe.momentum)
            moves = grads
        torch._foreach_sub_(params, torch._foreach_mul(moves, self.lr))

    def _mask(self) -> None:
        if self._masked:
            torch._foreach_mul_(list(self._masked.values()), list(self._masks.values()))

    @torch.no_grad()
    def forget(self) -> None:
        """Drops the momentum, and applies the masks."""
        torch._foreach_zero_(list(self._momentum.values()))
        self._mask()

    def totals(self) -> tuple[float, float]:
        """Sum of the losses and number of hits since the last call. Waits for the device."""
        loss_sum, hits = self._totals.tolist()
        self._totals.zero_()
        return loss_sum, hits

    def state(self) -> dict[str, Tensor]:
        """Every tensor a step changes, by name; the tensors themselves, not copies."""
        net = {f"net.{name}": t for name, t in self.net.state_dict().items() if isinstance(t, Tensor)}
        momentum = {f"momentum.{name}": t for name, t in self._momentum.items()}
        own = self._regulariser.state() if self._regulariser is not None else {}
        return {
            **net,
            **momentum,
            **{f"regulariser.{name}": t for name, t in own.items()},
            "totals": self._totals,
        }

    def release(self) -> None:
        """Frees the gradients."""
        for p in self._params.values():
            p.grad = None


def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copies all parameters and buffers, whether a state dict holds them or not."""
    given = {**dict(source.named_parameters()), **dict(source.named_buffers())}
    for name, tensor in {**dict(target.named_parameters()), **dict(target.named_buffers())}.items():
        tensor.copy_(given[name])
