"""The schedules and lengths of prunas's own protocols."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from prunas.errors import InputError
from prunas.protocols.base import BACKWARD, Protocol
from prunas.recipe import Recipe, scratch_b_epochs

if TYPE_CHECKING:
    from prunas.architecture import Architecture
    from prunas.spaces.space import SearchSpace

__all__ = [
    "DenseSparseDense",
    "EqualComputation",
    "EqualCost",
    "FineTuned",
    "OneCycle",
    "WholeSchedule",
    "finetuning",
]

FINETUNE_RATE = 0.01
"""Learning rate of fine-tuning over the recipe's, where a space says nothing."""

RISE = 0.1
"""Share of the steps of `OneCycle` during which the learning rate rises."""


def finetuning(recipe: Recipe, space: "SearchSpace") -> tuple[int, float]:
    """Epochs and rate of fine-tuning: what the space says for its own recipe, in proportion for another.

    Where a space says nothing: a quarter of the recipe's epochs at a hundredth of its rate, the study's 40 of 160
    at 0.001 on CIFAR.
    """
    asked = space.study.finetune
    if asked is None:
        return max(1, recipe.epochs // 4), recipe.lr * FINETUNE_RATE
    whole = space.study.default_recipe()
    return max(1, recipe.epochs * asked.epochs // whole.epochs), recipe.lr * (asked.lr / whole.lr)


def _budget(own: Protocol, value: float) -> Any:
    """The protocol with epochs of its own."""
    if not (value >= 1 and float(value).is_integer()):
        raise InputError(f"its number must be whole epochs, as in {own.family}:20")
    return dataclasses.replace(own, name=f"{own.family}:{value:g}", epochs=int(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeSchedule(Protocol):
    """The recipe's schedule for the recipe's epochs, or for epochs of its own.

    From sliced weights (`finetune-rewound`: learning-rate rewinding, Renda et al. 2020) a budget of t epochs
    passes through the schedule's last t, as in the paper; with more than the recipe's epochs, of which the
    paper knows none, through a schedule of that length. `ticket` starts from the dense network's initial
    weights (Frankle & Carbin 2019).
    """

    @property
    def trains_dense(self) -> bool:
        """From fresh weights, and as long as the recipe says."""
        return self.weights == "fresh" and self.epochs is None

    def numbered(self, value: float) -> Protocol:
        """`scratch-e:20` lasts 20 epochs."""
        made: Protocol = _budget(self, value)
        return made

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: "Architecture", cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`."""
        length = self.epochs or recipe.epochs
        if self.weights == "sliced" and length < recipe.epochs:
            return recipe.replace(rewound=recipe.epochs), length
        return recipe, length

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """See `Protocol.length`."""
        return self.epochs or recipe.epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualComputation(Protocol):
    """The computation of the dense training: the study's Scratch-B, see `prunas.recipe.scratch_b_epochs`.

    Attributes:
        tuning: Whether the fine-tuning epochs that the pruned network would have had are added.
        cap: Largest factor on the recipe's epochs; infinite: none; None: what the plan or the space says.
    """

    tuning: bool = False
    cap: float | None = None

    @property
    def capped(self) -> bool:
        """Unless it names a cap of its own."""
        return self.cap is None

    def numbered(self, value: float) -> Protocol:
        """`scratch-b:2` is capped at twice the epochs, `scratch-b:inf` not at all whatever the space says."""
        if not value >= 1:
            raise InputError(f"its number must be a cap of 1 or more, as in {self.family}:2")
        return dataclasses.replace(self, name=f"{self.family}:{value:g}", cap=value)

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: "Architecture", cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`."""
        dense, macs = space.cost(space.dense).macs, space.cost(arch).macs
        epochs = scratch_b_epochs(recipe.epochs, dense, macs, cap if self.cap is None else self.cap)
        return recipe, epochs + (finetuning(recipe, space)[0] if self.tuning else 0)

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """See `Protocol.length`."""
        most = cap if self.cap is None else self.cap
        factor = 1 / share if most is None else min(1 / share, most)
        return recipe.epochs * factor + (finetuning(recipe, space)[0] if self.tuning else 0)

    def label(self, recipe: Recipe, epochs: int) -> str:
        """Of a point as large as the dense network it is plain training from scratch."""
        return "scratch-e" if epochs == recipe.epochs else "scratch-b"


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualCost(Protocol):
    """From scratch, at the whole cost of another way: of the dense training it rests on, and of its own.

    The smaller network is trained for floor((recipe's epochs * dense MACs + MACs of the other way) / MACs) epochs
    of the recipe's schedule; a teacher's forward pass is a third of a training step of the dense network. Where
    the dense network's weights are given, the recipe's epochs stand for a training that is not known here.

    Attributes:
        way: Inherits weights.
    """

    way: Protocol

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: "Architecture", cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`; no cap, or the cost would not be equal."""
        dense, macs = space.cost(space.dense).macs, space.cost(arch).macs
        epochs = self.way.schedule(recipe, space, arch, cap)[1]
        taught = 0 if self.way.teacher is None else dense
        forward = BACKWARD * dense * recipe.epochs + (BACKWARD * macs + taught) * epochs
        return recipe, forward // (BACKWARD * macs)

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """See `Protocol.length`."""
        own = self.way.length(recipe, space, share, cap) * self.way.forward_passes(share) / BACKWARD
        return recipe.epochs / share + own

    def label(self, recipe: Recipe, epochs: int) -> str:
        """As that of `EqualComputation`."""
        return "scratch-e" if epochs == recipe.epochs else "scratch-b"


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned(Protocol):
    """At a constant rate, for as long as `finetuning` or its number says."""

    weights: Literal["fresh", "sliced", "initial"] = "sliced"

    def numbered(self, value: float) -> Protocol:
        """`finetune:20` lasts 20 epochs."""
        made: Protocol = _budget(self, value)
        return made

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: "Architecture", cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`."""
        tuning, rate = finetuning(recipe, space)
        length = self.epochs or tuning
        return recipe.replace(schedule="constant", lr=rate, epochs=length), length

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """See `Protocol.length`."""
        return self.epochs or finetuning(recipe, space)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycle(FineTuned):
    """One cycle up to the recipe's full rate and down to zero, for as long as fine-tuning at a constant rate.

    The cyclic learning-rate restarting of Le & Hua (2021, arXiv:2105.03193): the rate rises from the least to the
    greatest of the original training within the first few epochs, then falls to the end.

    Departures: it falls linearly, to zero, not along a cosine, to the least rate of the original training (linear:
    Zimmer et al. 2023, arXiv:2111.00843); it rises, linearly, for a tenth of the steps.
    """

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: "Architecture", cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`."""
        length = self.epochs or finetuning(recipe, space)[0]
        return recipe.replace(schedule="one-cycle", warmup=RISE, epochs=length), length


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSparseDense(Protocol):
    """The recipe's epochs, and a quarter of them for each of two further phases.

    Attributes:
        sparsity: Share of the weights of each layer that the middle phase prunes, in (0, 1); see
            `prunas.training.phases.DenseSparseDense`.
    """

    sparsity: float = 0.3

    @property
    def trains_dense(self) -> bool:
        """It can, as a control."""
        return True

    @property
    def reference(self) -> bool:
        """What it makes of the dense network is a control of its own."""
        return False

    @property
    def phases(self) -> dict[str, Any]:
        """See `Protocol.phases`."""
        return {"name": "dsd", "options": {"sparsity": self.sparsity}}

    def numbered(self, value: float) -> Protocol:
        """`dsd:0.5` prunes half of each layer."""
        if not 0 < value < 1:
            raise InputError(f"its number must be a share of weights, as in {self.family}:0.5")
        return dataclasses.replace(self, name=f"{self.family}:{value:g}", sparsity=value)

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: "Architecture", cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`."""
        return recipe, recipe.epochs + 2 * max(1, recipe.epochs // 4)

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """See `Protocol.length`."""
        return recipe.epochs + 2 * max(1, recipe.epochs // 4)
