"""What a pruning method may add to the training of the dense network."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor, nn

__all__ = ["Regulariser"]


class Regulariser(Protocol):
    """A penalty in the training loop; what it does per step is tensor work, so a captured step can hold it.

    Derive from this class to inherit what is usual: nothing exempt, no state, nothing to record.
    """

    def attach(self, net: nn.Module) -> None:
        """Finds, or adds, the parameters it works on. Called once, on the device, before the first step."""

    def exempt(self) -> Iterable[nn.Parameter]:
        """Parameters of the network that are not decayed. Asked once, after `attach`."""
        return ()

    def gradients(self) -> None:
        """Adds its subgradient to `.grad`. Called between the backward pass and the optimiser's step."""

    def after_step(self, lr: Tensor) -> None:
        """Changes parameters in place, as a proximal step does. Called after the optimiser's step.

        Args:
            lr: Learning rate of this step, a scalar on the device.
        """

    def state(self) -> Mapping[str, Tensor]:
        """Tensors beside the network's that a resumed training needs; they are restored in place."""
        return {}

    def record(self) -> dict[str, float]:
        """Numbers to store with the result. Called once, after the last step."""
        return {}
