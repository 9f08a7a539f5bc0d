"""A budget: a number of one metric, asked as a fraction of the dense network's or as a count."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunas.errors import InputError

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A budget.

    Attributes:
        metric: What is counted: a name in `prunas.costs.metrics`.
        value: The number asked for.
        keep: The fraction of the dense network it was asked as, or None if it was asked as a number.
    """

    metric: str
    value: int
    keep: float | None = None

    @property
    def label(self) -> str:
        """How a person would say it: `10 %` or `1.2M`."""
        if self.keep is not None:
            return f"{100 * self.keep:g} %"
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if self.value >= size:
                return f"{self.value / size:.4g}{letter}"
        return str(self.value)

    def to_json(self) -> dict[str, object]:
        """The three fields by name."""
        return {"metric": self.metric, "value": self.value, "keep": self.keep}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "Target":
        """The target `to_json` wrote."""
        return cls(**document)  # type: ignore[arg-type]  # written by to_json

    @staticmethod
    def parse(text: str) -> int:
        """A number as people write budgets: `850000`, `1.2M`, `40k`, `0.3G`.

        Raises:
            InputError: It is not a number above 0.
        """
        scale = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:].lower(), 1.0)
        try:
            value = round(float(text[:-1] if scale != 1.0 else text) * scale)
        except (ValueError, OverflowError):
            value = 0
        if value <= 0:
            raise InputError(f"budget {text!r} is not a number above 0, such as 850000 or 1.2M")
        return value
