"""One line of the table of proposers."""

import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunas.errors import InputError, unknown
from prunas.names import Kind
from prunas.proposers.brief import Proposer
from prunas.proposers.options import Option
from prunas.protocols import Protocol

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        path: Import path of the class.
        kind: `predefined`: the user gives the widths; `automatic`: the method finds them; `sampler`: it is asked
            again after every result; `design`: made of found points; `control`: what the others are compared with.
        description: For listings.
        reference: Where the method comes from.
        dimensions: What it can decide: `width`, `depth`, `kernel`; one at a time, by default the first.
        needs: What it asks of its brief: `dense` training, `initial` weights, `found` points of others with the
            same seed, or `found-by-others`: with other seeds, a `source` in another space, `trials`.
        trainings_per_target: Trainings of its own that one more target costs; those that serve all targets
            alike do not count.
        starts: Pruning methods whose points are its first trials.
        controls: Of a control that repeats a method without what the method finds by: that method. Its settings
            are the control's too.
        fixed: Settings that nobody may change.
        options: Its settings; None: those that its constructor takes, which then checks their values itself.
        weights: Which weights its points can inherit, see `Protocol.weights`; None: `sliced` and `initial` ones if
            it has a `dense` training, else none.
    """

    path: str
    kind: Kind
    description: str
    reference: str
    dimensions: tuple[str, ...] = ("width",)
    needs: tuple[str, ...] = ()
    trainings_per_target: int = 0
    starts: tuple[str, ...] = ()
    controls: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict, hash=False)
    options: tuple[Option, ...] | None = None
    weights: tuple[Literal["sliced", "initial"], ...] | None = None

    def serves(self, how: Protocol) -> bool:
        """Whether its points can be trained by a protocol: they may have no weights to inherit."""
        inherited = ("sliced", "initial") if "dense" in self.needs else ()
        return how.weights in ("fresh", *(inherited if self.weights is None else self.weights))

    def build(self, **options: Any) -> Proposer:
        """The proposer with its options.

        Raises:
            InputError: It does not take one of them, or not that value, or its class cannot be imported.
        """
        try:
            make = pkgutil.resolve_name(self.path)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"proposer class {self.path!r} cannot be imported: {error}") from error
        known = inspect.signature(make).parameters
        passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        for option in options:
            if option in self.fixed:
                raise InputError(f"{option} is always {self.fixed[option]} in this control; leave it out")
            if option not in known and not passes_on:
                raise unknown(f"option of proposer {make.__name__}:", option, known)
        made: Proposer = make(**options, **self.fixed)
        return made
