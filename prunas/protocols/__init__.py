"""How a point is trained: the weights it starts from, its schedule and its length. One protocol is one entry.

The protocols of the study (arXiv:1810.05270, section 3) and those that its readers compare with them. Another
package adds one by an entry point of the group `prunas.protocols`, which names a `Protocol`. `+distill` behind any
name has the dense network teach; `scratch=NAME` trains from scratch at the whole cost of `NAME`.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

from prunas.errors import InputError, unknown
from prunas.plugins import plugins
from prunas.protocols.base import BACKWARD, TAUGHT, Distillation, Protocol, family_of, untaught
from prunas.protocols.ways import (
    DenseSparseDense,
    EqualComputation,
    EqualCost,
    FineTuned,
    OneCycle,
    WholeSchedule,
    finetuning,
)

__all__ = [
    "BACKWARD",
    "PROTOCOLS",
    "SCRATCH",
    "TAUGHT",
    "DenseSparseDense",
    "Distillation",
    "EqualComputation",
    "EqualCost",
    "FineTuned",
    "OneCycle",
    "Protocol",
    "WholeSchedule",
    "family_of",
    "finetuning",
    "is_fresh",
    "is_reference",
    "protocol",
    "untaught",
]

SAME_COST = "scratch="

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
            OneCycle(name="finetune-large"),
            WholeSchedule(name="finetune-rewound", weights="sliced"),
            WholeSchedule(name="ticket", weights="initial"),
            DenseSparseDense(name="dsd"),
        )
    }
)
"""prunas's own, by name."""


def protocol(name: str) -> Protocol:
    """The protocol called `name`, of prunas or of another package, with its teacher and number.

    `scratch-b:2` carries a number, `finetune-large+distill:20` a teacher and a number, `finetune+distill=2@0.5` a
    teacher with a temperature and a weight of its own; `scratch=finetune-large:20` costs what that costs in all.

    Raises:
        InputError: There is none, the message names the nearest ones; or its number or teacher cannot be used.
    """
    if name.startswith(SAME_COST):
        way = protocol(name.removeprefix(SAME_COST))
        if way.weights == "fresh":
            raise InputError(
                f"protocol {name!r}: {way.name} inherits no weights; name a way that does, such as "
                f"{SAME_COST}finetune-large"
            )
        return EqualCost(name=f"{SAME_COST}{way.name}", way=way)
    head, colon, text = name.partition(":")
    base, taught, options = head.partition(TAUGHT)
    entry = PROTOCOLS.get(base) or _offered(base)
    try:
        if colon:
            entry = entry.numbered(_number(text))
        return entry.taught(Distillation.parse(options)) if taught else entry
    except InputError as error:
        raise InputError(f"protocol {name!r}: {error}") from None


def _number(text: str) -> float:
    """The number behind a colon; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _offered(name: str) -> Protocol:
    """The protocol of that name that another package offers."""
    offers = plugins("prunas.protocols")
    if name not in offers:
        raise unknown("protocol", name, (*PROTOCOLS, *offers))
    made = offers[name].load()
    if not isinstance(made, Protocol) or made.name != name:
        raise InputError(f"{offers[name]} is no Protocol called {name!r}; it names {made!r}")
    return made


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
    return entry is None or (entry.reference and entry.teacher is None)
