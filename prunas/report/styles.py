"""One look per proposer or way to retrain, the same in every figure, told apart by marker and dash alone."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from prunas.errors import InputError
from prunas.proposers.look import (
    BLACK,
    BLUE,
    DASHDOT,
    DASHDOTDOT,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SOLID,
    VERMILLION,
    Style,
)
from prunas.proposers.registry import entry
from prunas.proposers.table import PROPOSERS

__all__ = ["STYLES", "Style", "styles"]

_LEGEND = (SOLID, DASHED, DASHDOT, DOTTED)
"""What is found has a solid line, what is designed a dashed one, controls are broken up."""

_OTHERS = {
    "cross": Style(PURPLE, "s", DOTTED),
    "finetune": Style(VERMILLION, "H", SOLID),
    "finetune-large": Style(GREEN, "d", SOLID),
    "finetune-rewound": Style(PURPLE, "^", DASHED),
    "scratch-e": Style(BLUE, "s", DASHDOT),
    "finetune+distill": Style(ORANGE, "H", DOTTED),
    "finetune-large+distill": Style(SKY, "d", DOTTED),
    "scratch-e+distill": Style(BLACK, "P", DOTTED),
}
"""A design that no proposer makes, and the ways to retrain, which share no figure with proposers."""


def _known() -> dict[str, Style]:
    looks = {name: line.look for name, line in PROPOSERS.items() if line.look is not None}
    ordered = sorted(looks.items(), key=lambda item: _LEGEND.index(item[1].dash))
    return dict(ordered) | _OTHERS


STYLES: Mapping[str, Style] = MappingProxyType(_known())
"""Known proposers in the order of a legend; behind them what is no proposer."""

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK, GREY)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")


def _spare(index: int) -> Style:
    """The look of the proposer at `index` among those without one: 64 pairs of colour and marker."""
    turn, place = divmod(index, len(_COLORS))
    return Style(_COLORS[place], _MARKERS[(place + turn) % len(_MARKERS)], DASHDOTDOT)


def styles(proposers: Iterable[str]) -> dict[str, Style]:
    """A style for each proposer, in the order of a legend: known ones first, then the others by name.

    A plug-in has the look of its entry. Proposers without one share a dash and differ by marker and colour; from
    the 65th on they repeat.
    """
    names = set(proposers)
    known = {name: style for name, style in STYLES.items() if name in names}
    others = sorted(names - known.keys())
    looks = {name: look for name in others if (look := _offered(name)) is not None}
    spare = [name for name in others if name not in looks]
    return known | looks | {name: _spare(index) for index, name in enumerate(spare)}


def _offered(name: str) -> Style | None:
    """The look that another package gives its proposer, if it is installed."""
    with suppress(InputError):
        if name not in PROPOSERS and "+" not in name:  # tpe+slimming must not look like tpe
            return entry(name).look
    return None
