"""How a proposer is drawn: the palette, and what a look consists of. Plain data for `prunas.proposers.table`."""

from dataclasses import dataclass

__all__ = [
    "BLACK",
    "BLUE",
    "DASHDOT",
    "DASHDOTDOT",
    "DASHED",
    "DOTTED",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY",
    "SOLID",
    "VERMILLION",
    "Dash",
    "Style",
]

# Okabe and Ito, Color Universal Design (2008); their yellow is too faint for lines on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"

Dash = tuple[float, tuple[float, ...]]
SOLID: Dash = (0, ())
DASHED: Dash = (0, (4.5, 1.8))
DASHDOT: Dash = (0, (5.0, 1.5, 1.0, 1.5))
DOTTED: Dash = (0, (1.0, 1.4))
DASHDOTDOT: Dash = (0, (5.0, 1.3, 1.0, 1.3, 1.0, 1.3))


@dataclass(frozen=True, slots=True)
class Style:
    """How a proposer is drawn. Marker and dash alone tell it from every other; no meaning hangs on colour.

    Attributes:
        color: Hex RGB.
        marker: A matplotlib marker with an area, so that it can be hollow.
        dash: Offset and on-off lengths, in line widths; no lengths for a solid line. Methods have `SOLID`,
            samplers and designs `DASHED`, controls `DASHDOT` or, where points are drawn at random, `DOTTED`.
    """

    color: str
    marker: str
    dash: Dash
