"""What a pruning method may add to the training of the dense network."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Protocol

from torch import Tensor, nn

__all__ = ["Combined", "Regulariser"]


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


class Combined(Regulariser):
    """Several regularisers as one; each acts after those before it.

    Args:
        parts: In the order in which they act.
    """

    def __init__(self, *parts: Regulariser) -> None:
        self._parts = parts

    def attach(self, net: nn.Module) -> None:
        """Attaches all."""
        for part in self._parts:
            part.attach(net)

    def exempt(self) -> Iterable[nn.Parameter]:
        """What any of them exempts."""
        return chain.from_iterable(part.exempt() for part in self._parts)

    def gradients(self) -> None:
        """Adds all their subgradients."""
        for part in self._parts:
            part.gradients()

    def after_step(self, lr: Tensor) -> None:
        """Lets all change parameters."""
        for part in self._parts:
            part.after_step(lr)

    def state(self) -> Mapping[str, Tensor]:
        """The tensors of all, by the place of each."""
        states = enumerate(part.state() for part in self._parts)
        return {f"{i}.{name}": tensor for i, state in states for name, tensor in state.items()}

    def record(self) -> dict[str, float]:
        """The numbers of all."""
        return {name: number for part in self._parts for name, number in part.record().items()}
