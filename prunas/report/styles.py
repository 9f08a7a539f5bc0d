"""One look per proposer or way to retrain, the same in every figure, told apart by marker and dash alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["STYLES", "Style", "styles"]

# Okabe and Ito, Color Universal Design (2008); their yellow is too faint for lines on white.
_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
_BLUE, _VERMILLION, _PURPLE, _GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"

_Dash = tuple[float, tuple[float, ...]]
_SOLID: _Dash = (0, ())
_DASHED: _Dash = (0, (4.5, 1.8))
_DOTTED: _Dash = (0, (1.0, 1.4))
_DASHDOT: _Dash = (0, (5.0, 1.5, 1.0, 1.5))
_DASHDOTDOT: _Dash = (0, (5.0, 1.3, 1.0, 1.3, 1.0, 1.3))


@dataclass(frozen=True, slots=True)
class Style:
    """How a proposer is drawn.

    Attributes:
        color: Hex RGB.
        marker: A matplotlib marker with an area, so that it can be hollow.
        dash: Offset and on-off lengths, in line widths; no lengths for a solid line.
    """

    color: str
    marker: str
    dash: _Dash


STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "slimming": Style(_VERMILLION, "o", _SOLID),
        "l1": Style(_GREEN, "s", _SOLID),
        "l1-global": Style(_GREEN, "D", _SOLID),
        "thinet": Style(_SKY, "^", _SOLID),
        "thinet-global": Style(_SKY, "p", _SOLID),
        "reconstruction": Style(_PURPLE, "v", _SOLID),
        "reconstruction-global": Style(_PURPLE, "h", _SOLID),
        "sss": Style(_ORANGE, "P", _SOLID),
        "magnitude": Style(_VERMILLION, "X", _SOLID),
        "tpe": Style(_PURPLE, "P", _DASHED),
        "guided": Style(_GREEN, "D", _DASHED),
        "guided-kernel": Style(_GREEN, "X", _DASHED),
        "transferred": Style(_SKY, "v", _DASHED),
        "transferred-kernel": Style(_SKY, "d", _DASHED),
        "taper": Style(_BLUE, "s", _DASHED),
        "uniform": Style(_BLACK, "^", _DASHDOT),
        "uniform-kernel": Style(_BLACK, "<", _DASHDOT),
        "uniform-depth": Style(_BLACK, ">", _DASHDOT),
        "erk": Style(_BLUE, "v", _DASHDOT),
        "random": Style(_GREY, "D", _DOTTED),
        "shuffled": Style(_ORANGE, "o", _DOTTED),
        "random-channels": Style(_GREY, "X", _DOTTED),
        "cross": Style(_PURPLE, "s", _DOTTED),
        "finetune": Style(_VERMILLION, "H", _SOLID),
        "finetune-rewound": Style(_PURPLE, "^", _DASHED),
        "scratch-e": Style(_BLUE, "s", _DASHDOT),
    }
)
"""Known proposers: what is found has a solid line, what is designed a dashed one, controls are broken up. Behind
them the ways to retrain, which share no figure with proposers."""

_SPARE = tuple(
    Style(color, marker, _DASHDOTDOT)
    for color, marker in zip(
        (_BLUE, _ORANGE, _GREEN, _PURPLE, _SKY, _VERMILLION, _BLACK, _GREY),
        ("o", "s", "^", "D", "v", "P", "X", "p"),
        strict=True,
    )
)


def styles(proposers: Iterable[str]) -> dict[str, Style]:
    """A style for each proposer, in the order of a legend: known ones first, then the others by name.

    Proposers without a style of their own (plug-ins) share a dash and differ by marker and colour; from the
    ninth on they repeat.
    """
    names = set(proposers)
    known = {name: style for name, style in STYLES.items() if name in names}
    others = sorted(names - known.keys())
    return known | {name: _SPARE[index % len(_SPARE)] for index, name in enumerate(others)}
