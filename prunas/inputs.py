"""What a network is called with, as plain data: shapes, types and names of tensors, without the batch."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunas.errors import InputError

__all__ = ["FLOATS", "INTEGERS", "Inputs"]

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "uint8")
TYPES = (*FLOATS, *INTEGERS, "bool")
NAME = re.compile(r"([A-Za-z_]\w*)?(\[\d+\]|\.[^.\[\]]+)*")
"""An argument of `forward`, and where in it a tensor lies: `ids`, `features[0]`, `features.p3`."""
FORMS = (
    'write [3, 224, 224], or a table such as { ids = [128], dtype = "int64", below = 30522 }, '
    "or a list of these"
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a network is called with: the survey traces it with such tensors.

    Attributes:
        shapes: Of each tensor, in the order of the arguments, without the batch.
        names: Of each tensor: the argument it is given as, `""` by position; `features[0]` is the first of a list,
            `features.p3` one of a dictionary. Empty where all are given by position.
        dtypes: Of each tensor, `""` for the floating-point type of the network. Empty where all are that.
        below: Bound of each tensor of integers, which are drawn from 0 to below - 1; 0 for other tensors. Empty
            where there are no integers.
    """

    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    below: tuple[int, ...] = ()

    @property
    def positions(self) -> int:
        """Positions of the largest tensor, channels not counted: height times width of an image."""
        return max(math.prod(shape[1:]) for shape in self.shapes)

    @property
    def plain(self) -> bool:
        """Whether it is one tensor of the network's own type, given by position."""
        return len(self.shapes) == 1 and not (self.names or self.dtypes or self.below)

    @property
    def tensors(self) -> tuple[tuple[str, tuple[int, ...], str, int], ...]:
        """Name, shape, type and bound of each tensor."""
        count = len(self.shapes)
        return tuple(
            zip(
                self.names or ("",) * count,
                self.shapes,
                self.dtypes or ("",) * count,
                self.below or (0,) * count,
                strict=True,
            )
        )

    def __str__(self) -> str:
        """Such as `3x32x32`, or `ids 128 (int64) and mask 128`."""
        return " and ".join(
            " ".join(filter(None, (name, "x".join(map(str, shape)), f"({dtype})" if dtype else "")))
            for name, shape, dtype, _ in self.tensors
        )

    @classmethod
    def of(cls, given: Any) -> "Inputs":
        """What a user writes: one shape, a table of a tensor or several, or a list of these.

        Args:
            given: `[3, 32, 32]`; `[[3, 32, 32], [10]]` for two tensors by position;
                `{ids = [128], dtype = "int64", below = 30522}`; a list of such tables. A table may hold several
                arguments of one type, and an argument may be a list or a dictionary of shapes.

        Raises:
            InputError: It is none of these.
        """
        if isinstance(given, Inputs):
            return given
        if isinstance(given, Mapping) or (given and _is_shape(given)):
            given = [given]
        tensors: list[tuple[str, tuple[int, ...], str, int]] = []
        if isinstance(given, Sequence) and not isinstance(given, str):
            for entry in given:
                tensors += _of_table(entry) if isinstance(entry, Mapping) else _leaves("", entry)
        if not tensors:
            raise InputError(f"the input {given!r} is none; {FORMS}")
        names, shapes, dtypes, below = zip(*tensors, strict=True)
        return cls(
            shapes,
            names if any(names) else (),
            dtypes if any(dtypes) else (),
            below if any(below) else (),
        )

    def to_json(self) -> list[Any]:
        """What `of` reads: the shape alone where it is plain, else one table a tensor."""
        if self.plain:
            return list(self.shapes[0])
        return [
            {name: list(shape)} | ({"dtype": dtype} if dtype else {}) | ({"below": below} if below else {})
            for name, shape, dtype, below in self.tensors
        ]


def _is_shape(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(size, int) for size in given)


def _of_table(table: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...], str, int]]:
    """The tensors of one table."""
    dtype, below = table.get("dtype", ""), table.get("below", 0)
    if dtype and dtype not in TYPES:
        raise InputError(f"the input's dtype {dtype!r} is not known; choose one of {', '.join(TYPES)}")
    if (dtype in INTEGERS) != (isinstance(below, int) and below > 0):
        raise InputError(
            'an input of integers needs both, as in { ids = [128], dtype = "int64", below = 30522 }: a dtype of '
            "integers, and the number that they are below"
        )
    leaves = [
        leaf
        for name, value in table.items()
        if name not in ("dtype", "below")
        for leaf in _leaves(name, value)
    ]
    return [(name, shape, dtype, below) for name, shape, _, _ in leaves]


def _leaves(name: str, value: Any) -> list[tuple[str, tuple[int, ...], str, int]]:
    """The tensors of one argument."""
    if not NAME.fullmatch(name):
        raise InputError(f"the input's name {name!r} is no argument of a function; {FORMS}")
    if _is_shape(value):
        if any(isinstance(size, bool) or size < 1 for size in value):
            raise InputError(f"the input's shape {list(value)} has sizes below 1")
        return [(name, tuple(value), "", 0)]
    if name and isinstance(value, list | tuple):
        return [leaf for i, item in enumerate(value) for leaf in _leaves(f"{name}[{i}]", item)]
    if name and isinstance(value, Mapping):
        return [leaf for key, item in value.items() for leaf in _leaves(f"{name}.{key}", item)]
    raise InputError(f"the input {value!r} is no shape; {FORMS}")
