"""One line of the table of proposers: everything that the rest of prunas must know about a method."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from prunas.errors import InputError, unknown
from prunas.names import RESTS_ON_OTHERS, Decision, Kind, Need
from prunas.proposers.brief import Proposer
from prunas.proposers.look import Style
from prunas.proposers.options import Option
from prunas.protocols import Protocol

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        path: Import path of the class.
        kind: See `prunas.names.Kind`.
        description: For listings.
        reference: Where the method comes from.
        dimensions: What it can decide: `width`, `depth`, `kernel`; one at a time, by default the first.
        least: How many dimensions must vary for it to have anything to decide.
        needs: What it asks of its brief; see `prunas.names.Need`.
        trainings_per_target: Trainings of its own that one more target costs; those that serve all targets
            alike do not count.
        starts: Pruning methods whose points are its first trials.
        controls: Of a control that repeats a method without what the method finds by: that method. Its settings
            are the control's too.
        joins: Of a bundled control: whether it joins every search of what it decides, unless told otherwise.
        evaluates: Whether it searches by evaluations, so that others can be given as many, see `rivals`; it is a
            `prunas.proposers.brief.Evaluating` then.
        rivals: Of a control with the evaluator and the number of evaluations of a method: that method.
        fixed: Settings that nobody may change.
        options: Its settings; None: those that its constructor takes, which then checks their values itself.
        weights: Which weights its points can inherit, see `Protocol.weights`; None: `sliced` and `initial` ones if
            it has a `dense` training, else none.
        draws: Whether the seed of a search decides what it proposes, the brief being the same otherwise.
        look: How figures draw it; None: a look that is not taken.
    """

    path: str
    kind: Kind
    description: str
    reference: str
    dimensions: tuple[Decision, ...] = ("width",)
    least: int = 1
    needs: tuple[Need, ...] = ()
    trainings_per_target: int = 0
    starts: tuple[str, ...] = ()
    controls: str = ""
    joins: bool = False
    evaluates: bool = False
    rivals: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict, hash=False)
    options: tuple[Option, ...] | None = None
    weights: tuple[Literal["sliced", "initial"], ...] | None = None
    draws: bool = False
    look: Style | None = None

    @property
    def answers_found_points(self) -> bool:
        """Whether it answers points that other searches found, and can do nothing before they did."""
        return not RESTS_ON_OTHERS.isdisjoint(self.needs)

    def serves(self, how: Protocol) -> bool:
        """Whether its points can be trained by a protocol: they may have no weights to inherit."""
        inherited = ("sliced", "initial") if "dense" in self.needs else ()
        return how.needs <= set(inherited if self.weights is None else self.weights)

    def resolved(self) -> Callable[..., Any]:
        """The class at `path`.

        Raises:
            InputError: It cannot be imported.
        """
        try:
            return cast(Callable[..., Any], pkgutil.resolve_name(self.path))
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"proposer class {self.path!r} cannot be imported: {error}") from error

    def build(self, **options: Any) -> Proposer:
        """The proposer with its options.

        Raises:
            InputError: It does not take one of them, or not that value, or its class cannot be imported.
        """
        make = self.resolved()
        known = inspect.signature(make).parameters
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        for option in options:
            if option in self.fixed:
                raise InputError(f"{option} is always {self.fixed[option]} in this control; leave it out")
            if option not in known and not passes_on:
                raise unknown(f"option of proposer {make.__name__}:", option, known)
        made: Proposer = make(**options, **self.fixed)
        return made
