"""What moves weights along their gradients: state in tensors that stay where they are, and no value read back.

That is what a captured step needs to replay an update. `torch.optim` keeps its state where a capture could not
reach it, so only its functions are used; the first use of its classes also imports the compiler, for 1.5 s.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from prunas.recipe import Recipe

__all__ = ["AdamW", "Optimiser", "Sgd", "make_optimiser", "norms_and_biases"]

BETAS = (0.9, 0.999)
"""Of AdamW: decay of the running means of gradients and of their squares, torch's defaults."""

EPSILON = 1e-8
"""Of AdamW: what is added to the root of the squares' mean, torch's default."""


class Optimiser(ABC):
    """Weights, and what an update remembers of each from step to step."""

    def __init__(
        self, params: Mapping[str, Tensor], recipe: Recipe, device: torch.device, exempt: Collection[int]
    ) -> None:
        """Remembers nothing yet.

        Args:
            params: By name.
            recipe: Gives weight decay and whatever else the optimiser has.
            device: Where the parameters are.
            exempt: The `id` of each parameter without weight decay.
        """
        self._params, self._recipe = params, recipe
        self._fused = recipe.fused and device.type in ("cpu", "cuda")
        decayed = [name for name, p in params.items() if id(p) not in exempt]
        others = [name for name, p in params.items() if id(p) in exempt]
        self._groups = ((decayed, recipe.weight_decay), (others, 0.0))
        # Zeros instead of torch's empty start: the first step is then like all others, to the bit.
        self._memory = self.blank(params, device)

    @abstractmethod
    def blank(self, params: Mapping[str, Tensor], device: torch.device) -> dict[str, dict[str, Tensor]]:
        """What is remembered at the start, zeros: by kind, and by the parameter's name."""

    @abstractmethod
    def move(
        self, params: list[Tensor], grads: list[Tensor], names: Sequence[str], decay: float, lr: Tensor
    ) -> None:
        """Updates parameters of these names in place; `grads` may be overwritten."""

    @torch.no_grad()
    def __call__(self, lr: Tensor) -> None:
        """Updates every parameter that has a gradient; one that took no part in the loss has none.

        Args:
            lr: Learning rate, a float32 scalar on the device.
        """
        for group, decay in self._groups:
            live = [(name, p, p.grad) for name in group if (p := self._params[name]).grad is not None]
            if live:
                grads = [grad for *_, grad in live if grad is not None]
                self.move([p for _, p, _ in live], grads, [name for name, *_ in live], decay, lr)

    @torch.no_grad()
    def forget(self) -> None:
        """Starts over."""
        for tensors in self._memory.values():
            torch._foreach_zero_(list(tensors.values()))

    def state(self) -> dict[str, Tensor]:
        """What is remembered, as `kind.parameter`; the tensors themselves, not copies."""
        return {f"{kind}.{name}": t for kind, tensors in self._memory.items() for name, t in tensors.items()}

    def remembered(self, kind: str, names: Sequence[str]) -> list[Tensor]:
        """What is remembered of these parameters."""
        tensors = self._memory[kind]
        return [tensors[name] for name in names]


class Sgd(Optimiser):
    """Stochastic gradient descent with momentum; weight decay is part of the gradient."""

    def blank(self, params: Mapping[str, Tensor], device: torch.device) -> dict[str, dict[str, Tensor]]:
        """The momentum."""
        return {"momentum": {name: torch.zeros_like(p) for name, p in params.items()}}

    def move(
        self, params: list[Tensor], grads: list[Tensor], names: Sequence[str], decay: float, lr: Tensor
    ) -> None:
        """See `Optimiser.move`."""
        momenta = self.remembered("momentum", names)
        if self._fused:
            sgd(
                params,
                grads,
                list[Tensor | None](momenta),
                fused=True,
                lr=lr,
                weight_decay=decay,
                momentum=self._recipe.momentum,
                nesterov=self._recipe.nesterov,
                dampening=0.0,
                maximize=False,
            )
            return
        # torch's own would read the learning rate back.
        torch._foreach_add_(grads, params, alpha=decay)
        torch._foreach_mul_(momenta, self._recipe.momentum)
        torch._foreach_add_(momenta, grads)
        moves = momenta
        if self._recipe.nesterov:
            torch._foreach_add_(grads, momenta, alpha=self._recipe.momentum)
            moves = grads
        torch._foreach_sub_(params, torch._foreach_mul(moves, lr))


class AdamW(Optimiser):
    """Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    def blank(self, params: Mapping[str, Tensor], device: torch.device) -> dict[str, dict[str, Tensor]]:
        """Running means of the gradients and of their squares, and the steps that each parameter took."""
        # torch's fused update wants float32, and computes in float64 what it makes of it.
        exact = device.type != "mps" and not self._fused
        kind = torch.float64 if exact else torch.float32
        return {
            "momentum": {name: torch.zeros_like(p) for name, p in params.items()},
            "square": {name: torch.zeros_like(p) for name, p in params.items()},
            "steps": {name: torch.zeros((), dtype=kind, device=device) for name in params},
        }

    def move(
        self, params: list[Tensor], grads: list[Tensor], names: Sequence[str], decay: float, lr: Tensor
    ) -> None:
        """See `Optimiser.move`."""
        momenta, squares = self.remembered("momentum", names), self.remembered("square", names)
        steps, (beta1, beta2) = self.remembered("steps", names), BETAS
        if self._fused:
            adamw(
                params,
                grads,
                momenta,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=lr,
                weight_decay=decay,
                eps=EPSILON,
                maximize=False,
            )
            return
        # torch's own would read the learning rate back, or take no steps off a CUDA device.
        torch._foreach_add_(steps, 1)
        torch._foreach_sub_(params, torch._foreach_mul(params, lr * decay))
        torch._foreach_lerp_(momenta, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_div_(divisors, list(torch._foreach_sqrt(_weights(beta2, steps))))
        torch._foreach_add_(divisors, EPSILON)
        torch._foreach_mul_(divisors, _weights(beta1, steps))
        torch._foreach_addcdiv_(params, torch._foreach_mul(momenta, lr), divisors, value=-1)


def _weights(beta: float, steps: list[Tensor]) -> list[Tensor]:
    """1 - beta**steps, the sum of the weights of a running mean that began with zero; without cancellation."""
    weights = torch._foreach_expm1(torch._foreach_mul(steps, math.log(beta)))
    return list(torch._foreach_neg(weights))


_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def norms_and_biases(net: nn.Module) -> set[int]:
    """The `id` of each parameter that only shifts or scales: those of norms, and all of one axis or none."""
    of_norms = (p for module in net.modules() if isinstance(module, _NORMS) for p in module.parameters())
    return {id(p) for p in of_norms} | {id(p) for p in net.parameters() if p.ndim <= 1}


_CLASSES: Mapping[str, type[Optimiser]] = {"sgd": Sgd, "adamw": AdamW}


def make_optimiser(
    params: Mapping[str, Tensor], recipe: Recipe, device: torch.device, exempt: Collection[int] = ()
) -> Optimiser:
    """The optimiser that a recipe names; arguments as those of `Optimiser`."""
    return _CLASSES[recipe.optimizer](params, recipe, device, exempt)
