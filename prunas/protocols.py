"""How a point is trained: the weights it starts from, its schedule and its length. One protocol is one entry.

The protocols of the study (arXiv:1810.05270, section 3) and those that its readers compare with them. Another
package adds one by an entry point of the group `prunas.protocols`, which names a `Protocol`.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from typing import Protocol as Interface

from prunas.architecture import Architecture
from prunas.errors import InputError, unknown
from prunas.plugins import plugins
from prunas.recipe import Recipe, scratch_b_epochs

if TYPE_CHECKING:
    from prunas.spaces.space import SearchSpace

__all__ = [
    "PROTOCOLS",
    "SCRATCH",
    "DenseSparseDense",
    "EqualComputation",
    "FineTuned",
    "Protocol",
    "WholeSchedule",
    "family_of",
    "finetuning",
    "is_fresh",
    "is_reference",
    "protocol",
]

FINETUNE_RATE = 0.01
"""Learning rate of fine-tuning over the recipe's, where a space says nothing."""


class _Document(Interface):
    def to_json(self) -> dict[str, Any]: ...


class _Point(Interface):
    """What a protocol reads of a proposal; see `prunas.proposers.brief.Proposal`."""

    @property
    def kept(self) -> Mapping[str, tuple[int, ...]] | None: ...
    @property
    def weights_of(self) -> str | None: ...
    @property
    def rebuild(self) -> _Document | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Which weights a training starts from, and how long it may run. Derive from it, and say both lengths.

    Attributes:
        name: The word a user types, its number included.
        weights: `fresh` draws new initial weights at the new shape; `sliced` inherits those of the dense
            network's kept channels; `initial` slices the weights the dense network started from.
        epochs: Epochs of its own, a retraining budget; None leaves the length to the rule.
    """

    name: str
    weights: Literal["fresh", "sliced", "initial"] = "fresh"
    epochs: int | None = None

    @property
    def family(self) -> str:
        """The name without its number."""
        return family_of(self.name)

    @property
    def capped(self) -> bool:
        """Whether its length depends on a cap that the plan or the space gives."""
        return False

    @property
    def trains_dense(self) -> bool:
        """Whether the dense network of pruning methods can be trained by it."""
        return False

    @property
    def reference(self) -> bool:
        """Whether a dense network trained by it is what points are compared with."""
        return True

    @property
    def phases(self) -> dict[str, Any] | None:
        """Registered name and options of phases in a training, see `prunas.training.phases`; None: no phases."""
        return None

    def numbered(self, value: float) -> "Protocol":
        """The protocol with the number behind its colon.

        Args:
            value: The number; NaN if it could not be read.

        Raises:
            InputError: It takes none, or not this one; the message says which.
        """
        raise InputError("it takes no number; leave it out")

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: Architecture, cap: float | None = None
    ) -> tuple[Recipe, int]:
        """The recipe of a training, and its epochs.

        Args:
            recipe: Of the experiment.
            space: The search space.
            arch: What is trained; of a kernel pattern the weights that exist are what Scratch-B counts.
            cap: Largest factor on the recipe's epochs where the protocol names none, or None.
        """
        raise NotImplementedError

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """Epochs of a training of which only the budget is known, for a forecast.

        Args:
            recipe: Of the experiment.
            space: The search space.
            share: MACs of the point over those of the dense network, in (0, 1].
            cap: As in `schedule`.
        """
        raise NotImplementedError

    def label(self, recipe: Recipe, epochs: int) -> str:
        """What a run's folder is called: the same for protocols that come to the same training."""
        return self.family

    def serves(self, point: _Point) -> bool:
        """Whether a point comes with the weights that the protocol starts from."""
        match self.weights:
            case "fresh":
                return True
            case "initial":
                return point.kept is not None
            case "sliced":
                return point.kept is not None and point.weights_of is not None

    def inherits(self, point: _Point) -> dict[str, Any] | None:
        """What a job says about the weights a point inherits; None: it inherits none.

        Raises:
            InputError: The point comes without the weights that the protocol starts from.
        """
        if self.weights == "fresh":
            return None
        if point.kept is None or not self.serves(point):
            raise InputError(f"protocol {self.name!r} inherits weights, and this point comes without any")
        # Without a run: the weights the dense network of this seed was born with, which can be drawn again.
        run = point.weights_of if self.weights == "sliced" else None
        document: dict[str, Any] = {"run": run, "kept": {g: list(units) for g, units in point.kept.items()}}
        if run is not None and point.rebuild is not None:
            document["rebuild"] = point.rebuild.to_json()
        return document


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
        self, recipe: Recipe, space: "SearchSpace", arch: Architecture, cap: float | None = None
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
        self, recipe: Recipe, space: "SearchSpace", arch: Architecture, cap: float | None = None
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
class FineTuned(Protocol):
    """At a constant rate, for as long as `finetuning` or its number says."""

    weights: Literal["fresh", "sliced", "initial"] = "sliced"

    def numbered(self, value: float) -> Protocol:
        """`finetune:20` lasts 20 epochs."""
        made: Protocol = _budget(self, value)
        return made

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: Architecture, cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`."""
        tuning, rate = finetuning(recipe, space)
        length = self.epochs or tuning
        return recipe.replace(schedule="constant", lr=rate, epochs=length), length

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """See `Protocol.length`."""
        return self.epochs or finetuning(recipe, space)[0]


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
        self, recipe: Recipe, space: "SearchSpace", arch: Architecture, cap: float | None = None
    ) -> tuple[Recipe, int]:
        """See `Protocol.schedule`."""
        return recipe, recipe.epochs + 2 * max(1, recipe.epochs // 4)

    def length(self, recipe: Recipe, space: "SearchSpace", share: float, cap: float | None = None) -> float:
        """See `Protocol.length`."""
        return recipe.epochs + 2 * max(1, recipe.epochs // 4)


SCRATCH = WholeSchedule(name="scratch-e")
"""Training from scratch for the recipe's epochs: the default."""

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            SCRATCH,
            EqualComputation(name="scratch-b"),
            EqualComputation(name="scratch-b+finetune", tuning=True),
            FineTuned(name="finetune"),
            WholeSchedule(name="finetune-rewound", weights="sliced"),
            WholeSchedule(name="ticket", weights="initial"),
            DenseSparseDense(name="dsd"),
        )
    }
)
"""prunas's own, by name."""


def protocol(name: str) -> Protocol:
    """The protocol called `name`, of prunas or of another package, which may carry a number: `scratch-b:2`.

    Raises:
        InputError: There is none, the message names the nearest ones; or its number cannot be used.
    """
    base, colon, text = name.partition(":")
    entry = PROTOCOLS.get(base) or _offered(base)
    if not colon:
        return entry
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    try:
        return entry.numbered(value)
    except InputError as error:
        raise InputError(f"protocol {name!r}: {error}") from None


def _offered(name: str) -> Protocol:
    """The protocol of that name that another package offers."""
    offers = plugins("prunas.protocols")
    if name not in offers:
        raise unknown("protocol", name, (*PROTOCOLS, *offers))
    made = offers[name].load()
    if not isinstance(made, Protocol) or made.name != name:
        raise InputError(f"{offers[name]} is no Protocol called {name!r}; it names {made!r}")
    return made


def family_of(name: str) -> str:
    """The name of a protocol without its number."""
    return name.partition(":")[0]


def _of_row(name: str) -> Protocol | None:
    """The protocol that a stored row names; None if no installed package has it."""
    try:
        return protocol(name)
    except InputError:
        return None


def is_fresh(name: str) -> bool:
    """Whether the protocol that a row names trains from scratch; one that is not known here is taken to."""
    entry = _of_row(name)
    return entry is None or entry.weights == "fresh"


def is_reference(name: str) -> bool:
    """Whether the protocol that a row names makes a dense network that points are compared with."""
    entry = _of_row(name)
    return entry is None or entry.reference


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
