"""One training step: tensors in, tensors changed in place, nothing read back."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from prunas.data.dataset import Draw
from prunas.errors import InputError, unknown
from prunas.recipe import Recipe
from prunas.tasks.base import Task, training_loss
from prunas.training.average import Average
from prunas.training.hooks import Regulariser
from prunas.training.optimiser import make_optimiser, norms_and_biases
from prunas.training.precision import Float32, algorithm_search, float32_arithmetic

__all__ = ["Forward", "Step", "add_up", "arithmetic", "autocast", "no_totals"]


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


def no_totals(task: Task, device: torch.device) -> Tensor:
    """Where the statistics of batches are summed up: (statistics,), float64 where the device has it."""
    kind = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros(task.statistics or 0, dtype=kind, device=device)


def add_up(task: Task, sums: Tensor, totals: Any) -> None:
    """Adds the statistics of a batch to `sums`, both (statistics,).

    Raises:
        InputError: They have another shape, which would be broadcast.
    """
    if not isinstance(totals, Tensor) or totals.shape != sums.shape:
        kind = (
            f"tensor of shape {tuple(totals.shape)}" if isinstance(totals, Tensor) else type(totals).__name__
        )
        raise InputError(
            f"task {task.name!r}: totals returns a {kind}; as it says statistics = {task.statistics}, return "
            f"({task.statistics},)"
        )
    sums.add_(totals)


class Forward:
    """A network as tasks call it: in the recipe's precision, with what bf16 gave in float32."""

    def __init__(self, net: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self._net, self._autocast, self._bf16 = net, autocast(recipe, device), recipe.precision == "bf16"

    def __call__(self, *inputs: Any) -> Any:
        """One forward pass."""
        with self._autocast:
            output = self._net(*inputs)
        return tree_map_only(Tensor, _in_float32, output) if self._bf16 else output


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor  # labels stay integers


class _Passes:
    """The forward passes of one step's loss, to be read once more: a second pass would move running statistics."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._made: list[tuple[tuple[Any, ...], Any]] = []

    def __call__(self, *inputs: Any) -> Any:
        output = self._forward(*inputs)
        self._made.append((inputs, tree_map_only(Tensor, Tensor.detach, output)))
        return output

    def again(self, *inputs: Any) -> Any:
        """The output of the pass that had these very tensors.

        Raises:
            InputError: There was none.
        """
        for made, output in self._made:
            if len(made) == len(inputs) and all(a is b for a, b in zip(made, inputs, strict=True)):
                return output
        raise InputError(
            "in a training step, totals must call the network with the same tensors as loss does; do so, or set "
            "scores_training = False"
        )


class Step:
    """Gather, forward, backward, penalty, update, masks: called with what a feed drew.

    All it reads and writes besides the draw are the tensors of `state` and `lr`, which stay where they are,
    and it never asks for a value. That is what a CUDA graph needs to replay it.

    Attributes:
        net: What is trained.
        lr: Learning rate, a float32 scalar on the device.
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        gather: Callable[[Draw], Any],
        recipe: Recipe,
        device: torch.device,
        regulariser: Regulariser | None = None,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Prepares optimiser and learning rate, and applies the masks.

        Args:
            net: On the device, with the regulariser attached.
            task: Gives loss and statistics.
            gather: Of the feed whose draws will come.
            masks: By parameter name; where a mask is 0 the weight is 0 before and after every step.

        Raises:
            InputError: A mask's name is not that of a parameter, the task does not have the recipe's loss, or the
                recipe is not settled.
        """
        if recipe.label_smoothing_from:
            raise InputError(
                f"recipe {recipe.name!r} smooths labels from {recipe.label_smoothing_from:,} parameters on; train "
                "with recipe.settled(parameters), those of the dense network"
            )
        self.net, self._gather, self._recipe, self._regulariser = net, gather, recipe, regulariser
        self._task, self._device = task, device
        self._loss = training_loss(task, recipe.label_smoothing)
        self._forward = Forward(net, recipe, device)
        self._params = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.lr = torch.zeros((), device=device)
        self._lr = 0.0
        exempt = {id(p) for p in regulariser.exempt()} if regulariser else set()
        exempt |= set() if recipe.decay_norms else norms_and_biases(net)
        self._optimiser = make_optimiser(self._params, recipe, device, exempt)
        self._average = Average(net, recipe.ema) if recipe.ema else None
        self._loss_sum = torch.zeros((), device=device)
        self._totals = no_totals(task, device)
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
        self._loss_sum.zero_()
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
        batch = self._gather(draw)
        size = self._task.size(batch)
        # The last batch of an epoch comes once in it: a search for its algorithms would cost more than it brings.
        with algorithm_search(torch.backends.cudnn.benchmark and size == self._recipe.batch):
            self._train(batch, size)

    def _train(self, batch: Any, size: int) -> None:
        passes = _Passes(self._forward)
        loss = self._loss(passes, batch)
        for p in self._params.values():
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if self._regulariser is not None:
            self._regulariser.gradients()
        if self._recipe.clip:
            nn.utils.clip_grad_norm_(self._params.values(), self._recipe.clip)
        self._optimiser(self.lr)
        if self._regulariser is not None:
            self._regulariser.after_step(self.lr)
        self._mask()
        if self._average is not None:
            self._average.update()
        self._loss_sum.add_(loss.detach(), alpha=size)
        if self._task.scores_training:
            with torch.no_grad():
                add_up(self._task, self._totals, self._task.totals(passes.again, batch))

    def _mask(self) -> None:
        if self._masked:
            torch._foreach_mul_(list(self._masked.values()), list(self._masks.values()))

    @torch.no_grad()
    def forget(self) -> None:
        """Drops what optimiser and running mean remember, and applies the masks."""
        self._optimiser.forget()
        if self._average is not None:
            self._average.forget()
        self._mask()

    def judged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the network has the weights that are to be scored: the running mean where the recipe has one."""
        return contextlib.nullcontext() if self._average is None else self._average.standing_in()

    def settle(self) -> None:
        """After the last step, gives the network the weights that are scored and kept."""
        if self._average is not None:
            self._average.settle()

    def totals(self) -> tuple[float, Tensor]:
        """Sum of the losses and of the statistics since the last call, on the CPU. Waits for the device."""
        loss_sum, *totals = torch.cat((self._loss_sum.to(self._totals.dtype).view(1), self._totals)).tolist()
        self._loss_sum.zero_()
        self._totals.zero_()
        return loss_sum, torch.tensor(totals, dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        """Every tensor a step changes, by name; the tensors themselves, not copies."""
        net = {f"net.{name}": t for name, t in self.net.state_dict().items() if isinstance(t, Tensor)}
        own = self._regulariser.state() if self._regulariser is not None else {}
        mean = self._average.state() if self._average is not None else {}
        return {
            **net,
            **self._optimiser.state(),
            **{f"regulariser.{name}": t for name, t in own.items()},
            **{f"average.{name}": t for name, t in mean.items()},
            "loss": self._loss_sum,
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
