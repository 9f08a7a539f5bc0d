"""Trainings of several phases, each with a rate and masks of its own: hooks of the loop, by registered name."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from prunas.recipe import Recipe
from prunas.training.hooks import Regulariser

__all__ = ["DenseSparseDense", "Phases"]


class Phases(Regulariser, Protocol):
    """A regulariser that divides the training into phases; each begins with an epoch, without momentum."""

    def lr_at(self, recipe: Recipe, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The learning rate of one step; arguments as those of `Recipe.lr_at`."""

    def begin(self, epoch: int, epochs: int, masks: Mapping[str, Tensor]) -> bool:
        """Called before the first step of an epoch; True if a phase begins with it, other than the first.

        Args:
            epoch: Counted from 0.
            epochs: Length of the whole training.
            masks: By parameter name, those of the network itself.
        """

    def phase(self, epoch: int, epochs: int) -> str:
        """The name of the phase of an epoch, for the log."""


class DenseSparseDense(Phases):
    """Dense-sparse-dense training (Han et al., ICLR 2017, arXiv:1607.04381).

    The smallest weights of each layer go after a dense phase, the rest is trained under the mask, then those that
    went come back from zero and all is trained on, at a tenth of the learning rate.

    Departures: the first phase is the recipe's whole schedule, the other two are a quarter of it each (a sixth
    of `epochs`), at a constant tenth and hundredth of the recipe's learning rate; the paper trains every phase
    until it converges, at rates of each network's own. Each phase starts without momentum. The paper prunes 25 %
    to 50 % of every layer; 30 % is our default. Biases and norms are not pruned.

    Args:
        sparsity: Share of the weights of each layer that exist, in (0, 1); the int(sparsity * count) smallest go.
    """

    def __init__(self, sparsity: float) -> None:
        self._sparsity = sparsity
        self._weights: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}

    @staticmethod
    def starts(epochs: int) -> tuple[int, int]:
        """The epochs, from 0, at whose start a training of this length prunes and restores."""
        length = max(1, epochs // 6)
        return epochs - 2 * length, epochs - length

    def lr_at(self, recipe: Recipe, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The recipe's schedule in the dense phase, then a constant tenth and hundredth of its rate."""
        sparse, free = self.starts(epochs)
        if (epoch := step // steps_per_epoch) >= sparse:
            return recipe.lr * (0.1 if epoch < free else 0.01)
        return recipe.lr_at(step, steps_per_epoch, sparse)

    def phase(self, epoch: int, epochs: int) -> str:
        """`dense`, `sparse` or `re-dense`."""
        sparse, free = self.starts(epochs)
        return "dense" if epoch < sparse else "sparse" if epoch < free else "re-dense"

    def attach(self, net: nn.Module) -> None:
        """Gives every weight of more than one axis a mask, which changes nothing at first."""
        weights = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad and p.ndim > 1}
        self._weights = weights
        self._masks = {name: torch.ones_like(weight) for name, weight in weights.items()}

    def after_step(self, lr: Tensor) -> None:
        """Applies the masks."""
        if self._weights:
            torch._foreach_mul_(list(self._weights.values()), list(self._masks.values()))

    @torch.no_grad()
    def begin(self, epoch: int, epochs: int, masks: Mapping[str, Tensor]) -> bool:
        """Prunes and restores; see `Phases.begin`."""
        sparse, free = self.starts(epochs)
        if epoch not in (sparse, free):
            return False
        for name, mask in self._masks.items():
            mask.fill_(1.0)
            if epoch == sparse:
                exists = masks[name].to(mask) if name in masks else mask
                mask.copy_(self._largest(self._weights[name], exists))
        self.after_step(torch.zeros(()))
        return True

    def _largest(self, weight: Tensor, exists: Tensor) -> Tensor:
        """1 where a weight stays: of those that exist, all but the smallest."""
        size = weight.abs().where(exists > 0, -1.0).flatten()
        count = int(exists.count_nonzero())
        stays = torch.ones_like(size)
        stays[size.argsort()[: len(size) - count + int(self._sparsity * count)]] = 0
        return stays.view(weight.shape)

    def state(self) -> dict[str, Tensor]:
        """The masks."""
        return {f"mask.{name}": mask for name, mask in self._masks.items()}
