"""What the number at the end of a training means: its name, unit, direction and range. Torch-free."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, WithJsonSchema

from prunas.errors import InputError

__all__ = ["ACCURACY", "Averaged", "Score", "described", "scored"]

Averaged = Literal["sample", "split"]
"""What a score function speaks of: every sample, to be averaged, or a split as a whole."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Bound = Annotated[float, WithJsonSchema({"type": ["number", "null"]})]  # an infinite one is null in JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a score is; stored in every record, so that tables, figures and verdicts ask nobody else.

    Attributes:
        name: As it stands on an axis, for example `accuracy`.
        unit: Of the number, for example `%`; "" for none.
        better: Whether `higher` or `lower` numbers are better.
        low: The least value there can be, or minus infinity.
        high: The greatest value there can be, or infinity.
        margin: Two results closer than this are the same, in units of the score.
    """

    name: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"
    low: _Bound = -math.inf
    high: _Bound = math.inf
    margin: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self) -> None:
        """Refuses what cannot be compared."""
        if not self.name.strip():
            raise InputError("a score needs a name, such as 'accuracy'")
        if self.better not in ("higher", "lower"):
            raise InputError(f"score {self.name!r}: better must be 'higher' or 'lower', not {self.better!r}")
        if not self.low < self.high:
            raise InputError(f"score {self.name!r}: low ({self.low}) must be below high ({self.high})")
        if not 0 <= self.margin < math.inf:
            raise InputError(f"score {self.name!r}: margin must be a number from 0, not {self.margin}")

    def gain(self, new: float, old: float) -> float:
        """How much better `new` is than `old`; negative if it is worse."""
        return new - old if self.better == "higher" else old - new

    @property
    def label(self) -> str:
        """Name and unit, for an axis or the head of a column."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def to_json(self) -> dict[str, Any]:
        """All fields; an infinite bound is null."""
        finite = {"low": self.low, "high": self.high}
        return asdict(self) | {name: v if math.isfinite(v) else None for name, v in finite.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Score":
        """The score that `to_json` wrote.

        Raises:
            InputError: It is none.
        """
        values = dict(document)
        for name, infinite in (("low", -math.inf), ("high", math.inf)):
            if values.get(name) is None:
                values[name] = infinite
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"score: {error}") from error


ACCURACY = Score(name="accuracy", unit="%", low=0.0, high=100.0, margin=0.2)
"""Share of images that are classified as they are labelled: top-1."""


def scored(score: Score, of: Averaged = "sample") -> Callable[[_Function], _Function]:
    """Says what a score function means; a decorator.

    Args:
        score: What its values mean.
        of: `sample`: the function of (outputs, targets) of a batch, on its device, returns a tensor (batch,),
            whose mean over a split is the score. `split`: the function is given the outputs and targets of a
            split, on the CPU, and returns a number.
    """

    def mark(function: _Function) -> _Function:
        function.__dict__.update(score=score, of=of)
        return function

    return mark


def described(
    function: Callable[..., Any] | None, table: Mapping[str, Any], usual: Score
) -> tuple[Score, Averaged]:
    """What a score means, and what its function speaks of.

    Args:
        function: Of a user's, which `scored` may have described; None where a task scores by itself.
        table: What the table `[score]` says: fields of a `Score`, and `of` as in `scored`. They come first.
        usual: The task's score. Without a function, only its unit and margin can be other ones.

    Raises:
        InputError: The name or the direction of a function's score is missing, or a field does not exist.
    """
    said = dict(table)
    if function is None:
        if held := said.keys() - {"unit", "margin"}:
            raise InputError(
                f"the score {usual.name!r} is the task's own, and [score] changes its {', '.join(sorted(held))}; "
                'name the function of another score, as in function = "mine.py:score"'
            )
        return Score.from_json({**usual.to_json(), **said}), "sample"
    of = said.pop("of", getattr(function, "of", "sample"))
    if of not in ("sample", "split"):
        raise InputError(f"[score] of must be 'sample' or 'split', not {of!r}")
    known = getattr(function, "score", None)
    if not isinstance(known, Score) and (missing := [key for key in ("name", "better") if key not in said]):
        raise InputError(
            f"the score function {function.__name__!r} does not say its {' and '.join(missing)}; write a table "
            'such as [score] function = "mine.py:score", name = "error", better = "lower"'
        )
    if unknown := said.keys() - {field.name for field in fields(Score)}:
        raise InputError(
            f"[score] has no {', '.join(sorted(unknown))}; it has function, of, and fields of a score"
        )
    base = known.to_json() if isinstance(known, Score) else {}
    return Score.from_json({**base, **said}), of
