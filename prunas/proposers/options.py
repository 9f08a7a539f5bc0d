"""Settings of proposers: declared once beside their proposer, checked in one place whoever gives them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import TypedDict

from prunas.errors import InputError, unknown
from prunas.recipe import finite

__all__ = ["Option", "OptionRow", "at_least", "check_options"]

_TYPES: Mapping[type, str] = {float: "a finite number", int: "a whole number", str: "a name"}


class OptionRow(TypedDict):
    """What a reader needs to set an option."""

    name: str
    type: Literal["float", "int", "str"]
    default: float | int | str | None
    range: str
    help: str


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of a proposer.

    Attributes:
        name: Keyword of the proposer's constructor; `--set PROPOSER.NAME=VALUE`.
        type: `float` (which takes whole numbers too), `int` or `str`.
        default: What the constructor takes without it. None is allowed where it is the default.
        help: One line.
        allowed: Whether a value of that type lies in the range.
        range: The range in words, as in "pull must be 0 or more".
        choices: Of a name, which there are; empty: any.
    """

    name: str
    type: type
    default: float | int | str | None
    help: str
    allowed: Callable[[Any], bool] = lambda value: True
    range: str = ""
    choices: tuple[str, ...] = ()

    def to_json(self) -> OptionRow:
        """What a reader needs to set it, as JSON values."""
        return {
            "name": self.name,
            "type": self.type.__name__,  # type: ignore[typeddict-item]  # one of the three
            "default": self.default,
            "range": self.range or ", ".join(self.choices),
            "help": self.help,
        }

    def check(self, proposer: str, value: Any) -> None:
        """Refuses a value of another type or out of range.

        Raises:
            InputError: With one line that names proposer, setting and range.
        """
        if value is None and self.default is None:
            return
        if self.type is str:
            fits = isinstance(value, str)
        else:
            fits = finite(value) and (self.type is float or isinstance(value, int))
        if not fits:
            raise InputError(f"{proposer}: {self.name} must be {_TYPES[self.type]}, not {value!r}")
        if self.choices and value not in self.choices:
            raise unknown(f"{proposer}: {self.name}", value, self.choices)
        if not self.allowed(value):
            raise InputError(f"{proposer}: {self.name} must be {self.range}, not {value!r}")


def at_least(least: int, name: str, default: int, help: str) -> Option:
    """A whole number from `least`."""
    return Option(name, int, default, help, lambda value: value >= least, f"at least {least}")


def check_options(proposer: str, options: Sequence[Option], values: Mapping[str, Any]) -> None:
    """Refuses settings that a proposer does not have, and values that they cannot take.

    Raises:
        InputError: The message names the nearest setting, or the range.
    """
    declared = {option.name: option for option in options}
    for name, value in values.items():
        if name not in declared:
            raise unknown(f"option of proposer {proposer}:", name, declared)
        declared[name].check(proposer, value)
