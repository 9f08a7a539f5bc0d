"""What a protocol is, and what a teacher adds to one."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from typing import Protocol as Interface

from prunas.errors import InputError
from prunas.recipe import Recipe

if TYPE_CHECKING:
    from prunas.architecture import Architecture
    from prunas.spaces.space import SearchSpace

__all__ = ["BACKWARD", "TAUGHT", "Distillation", "Protocol", "family_of", "untaught"]

TAUGHT = "+distill"

BACKWARD = 3
"""MACs of a training step over those of a forward pass: the backward pass costs about two more."""


def family_of(name: str) -> str:
    """The name of a protocol without its number."""
    return name.partition(":")[0]


def untaught(name: str) -> str:
    """The name of a protocol without its number and its teacher."""
    return family_of(name).partition(TAUGHT)[0]


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


@dataclass(frozen=True, slots=True)
class Distillation:
    """What a smaller network learns of the dense one beside its labels (Hinton et al. 2015, arXiv:1503.02531).

    The loss is (1 - weight) * the task's + weight * the task's distillation loss at this temperature; see
    `prunas.tasks.base.Distillable`. The defaults are those of Zagoruyko & Komodakis (2017, arXiv:1612.03928).

    Attributes:
        temperature: What outputs are divided by before they become probabilities; above 0.
        weight: Of what the teacher says, in (0, 1].
    """

    temperature: float = 4.0
    weight: float = 0.9

    def __post_init__(self) -> None:
        """Refuses numbers that no training could follow."""
        if not 0 < self.temperature < math.inf:
            raise InputError(f"the temperature of {TAUGHT} must be above 0, not {self.temperature:g}")
        if not 0 < self.weight <= 1:
            raise InputError(f"the weight of {TAUGHT} must be above 0 and at most 1, not {self.weight:g}")

    @property
    def suffix(self) -> str:
        """What a protocol's name says of it, in its shortest form: `+distill`, or `+distill=2@0.5`."""
        if self == Distillation():
            return TAUGHT
        return f"{TAUGHT}={self.temperature:g}@{self.weight:g}"

    @classmethod
    def parse(cls, text: str) -> "Distillation":
        """What stands behind `+distill` in a name: nothing, `=TEMPERATURE` or `=TEMPERATURE@WEIGHT`.

        Raises:
            InputError: Something else does, or the numbers cannot be used.
        """
        if not text:
            return cls()
        try:
            sign, numbers = text[0], [float(number) for number in text[1:].split("@")]
        except ValueError:
            sign, numbers = "", []
        if sign != "=" or len(numbers) > 2:
            raise InputError(
                f"{TAUGHT} takes a temperature, or a temperature and a weight, as in {TAUGHT}=4@0.9"
            )
        return cls(*numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Which weights a training starts from, and how long it may run. Derive from it, and say both lengths.

    Attributes:
        name: The word a user types, its number included.
        weights: `fresh` draws new initial weights at the new shape; `sliced` inherits those of the dense
            network's kept channels; `initial` slices the weights the dense network started from.
        epochs: Epochs of its own, a retraining budget; None leaves the length to the rule.
        teacher: What the dense network teaches, the one whose weights a point could inherit; None: nothing.
    """

    name: str
    weights: Literal["fresh", "sliced", "initial"] = "fresh"
    epochs: int | None = None
    teacher: Distillation | None = None

    @property
    def family(self) -> str:
        """The name without its number."""
        return family_of(self.name)

    @property
    def needs(self) -> frozenset[str]:
        """Weights of the dense network that it needs: `sliced` where trained, `initial` where untrained ones."""
        taught = {"sliced"} if self.teacher is not None else set()
        return frozenset({self.weights, *taught} - {"fresh"})

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

    def taught(self, teacher: Distillation) -> "Protocol":
        """The protocol with the dense network as teacher."""
        family, colon, number = self.name.partition(":")
        return dataclasses.replace(self, name=f"{family}{teacher.suffix}{colon}{number}", teacher=teacher)

    def schedule(
        self, recipe: Recipe, space: "SearchSpace", arch: "Architecture", cap: float | None = None
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
        """What a run's folder is called: the same for protocols that come to the same training, teacher or not."""
        return untaught(self.name)

    def serves(self, point: _Point) -> bool:
        """Whether a point comes with the weights that the protocol starts from, and those of its teacher."""
        inherits = self.weights == "fresh" or point.kept is not None
        return inherits and ("sliced" not in self.needs or point.weights_of is not None)

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

    def teaching(self, point: _Point) -> dict[str, Any] | None:
        """What a job says about who teaches a point; None: nobody.

        Raises:
            InputError: The point comes without a trained dense network.
        """
        if self.teacher is None:
            return None
        if point.weights_of is None:
            raise InputError(
                f"protocol {self.name!r} has the dense network teach, and this point comes without a trained one"
            )
        return {"run": point.weights_of, **dataclasses.asdict(self.teacher)}

    def forward_passes(self, share: float) -> float:
        """Forward passes of the trained network that an image costs in one epoch, the teacher's counted as such.

        Args:
            share: MACs of the trained network over those of the dense one, above 0.
        """
        return BACKWARD + (1 / share if self.teacher is not None else 0)
