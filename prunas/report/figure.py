"""What all figures share: one look, one layout, SVG and PNG whose bytes depend on nothing but the input."""

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullLocator, ScalarFormatter
from matplotlib.transforms import Transform, offset_copy

from prunas.errors import InputError
from prunas.files import write_atomic
from prunas.report.styles import Style, styles
from prunas.statistics.flags import flag_words
from prunas.statistics.summary import Spread
from prunas.tasks.score import Score

__all__ = [
    "COLUMN",
    "FAINT",
    "FLAGGED",
    "FORMATS",
    "GRID",
    "INK",
    "as_svg",
    "cost_axis",
    "draw_means",
    "flag_sentences",
    "line_look",
    "mark_look",
    "mark_series",
    "nice_ticks",
    "save",
    "score_axis",
    "sheet",
    "sidestep",
    "styled",
]

COLUMN = 3.5
"""Width of one column of a printed page, in inches."""

INK, FAINT, GRID = "#222222", "#6B6B6B", "#E6E6E6"
FLAGGED = "flagged"
"""What the legend calls hollow marks."""

_FLAGGED_LOOK = Style(FAINT, "o", (0, ()))
_STYLE: Any = {  # matplotlib types the keys as literals
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "text.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "prunas",
}
_SIDESTEP = 4.6  # points between neighbouring curves: the single trainings of one fit in before the next
_SPREAD = 20.0  # points from the first curve to the last, at most
_LEAST_SPAN = 10  # margins of the score on its axis
_LEAST_SHARE = 0.02  # of the largest value, for a score without a margin
_P = ParamSpec("_P")


@contextmanager
def _own_style() -> Iterator[None]:
    with mpl.rc_context():
        # A user's own matplotlibrc must not change the figure.
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def styled(make: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Has a function make its figure in prunas's style, whatever the user's settings are."""

    @wraps(make)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with _own_style():
            return make(*args, **kwargs)

    return wrapped


_FORMATS: Mapping[str, Mapping[str, Any]] = {
    ".svg": {"format": "svg", "metadata": {"Date": None}},
    ".png": {"format": "png", "dpi": 300, "metadata": {"Software": None}},
    ".pdf": {"format": "pdf", "metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}

FORMATS = tuple(suffix.removeprefix(".") for suffix in _FORMATS)
"""What a figure can be written as."""


def save(
    figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("svg", "png")
) -> tuple[Path, ...]:
    """Writes a figure as `name`.svg and `name`.png, or in other formats.

    Raises:
        InputError: A file cannot be written.
    """
    return tuple(save_as(figure, folder / f"{name}.{form}") for form in formats)


def save_as(figure: Figure, path: Path) -> Path:
    """Writes a figure as one file, the same bytes for the same figure; its suffix decides the format.

    Raises:
        InputError: It is none of `.svg`, `.png` and `.pdf`, or cannot be written.
    """
    if path.suffix not in _FORMATS:
        raise InputError(f"a figure is written as .svg, .png or .pdf, not as {path.name!r}")
    with _own_style():
        write_atomic(path, lambda file: figure.savefig(file, **_FORMATS[path.suffix]))
    return path


def as_svg(figure: Figure) -> str:
    """The figure as an SVG document."""
    file = io.BytesIO()
    with _own_style():
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue().decode()


def sheet(
    names: Sequence[str],
    caption: str,
    *,
    panels: int,
    across: int,
    panel: tuple[float, float] = (COLUMN, 2.5),
    flagged: bool = False,
    **shared: Any,
) -> tuple[Figure, list[Axes], dict[str, Style]]:
    """An empty figure: panels, a legend of proposers above them, a caption below.

    Args:
        names: Of the proposers; at least one.
        caption: What one must know to read the figure without its text.
        panels: Number of panels.
        across: Most panels in a row.
        panel: Width and height of one panel with its labels, in inches.
        flagged: Whether the legend explains hollow marks.
        shared: `sharex` and `sharey` of `Figure.subplots`.

    Returns:
        The figure, its panels row by row, and the style of each proposer in the order of the legend.
    """
    looks = styles(names)
    across = min(across, panels)
    down = math.ceil(panels / across)
    width = across * panel[0]
    handles = [
        Line2D([], [], color=look.color, label=name, **line_look(look), **mark_look(look))
        for name, look in looks.items()
    ]
    if flagged:
        handles.append(Line2D([], [], label=FLAGGED, linestyle="none", **mark_look(_FLAGGED_LOOK, True)))
    columns = _columns([str(handle.get_label()) for handle in handles], width)
    legend = 0.17 * math.ceil(len(handles) / columns) + 0.06
    lines = textwrap.wrap(caption, width=int(width * 22.5))
    foot = 0.118 * len(lines) + 0.05
    height = down * panel[1] + legend + foot
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine(
        ConstrainedLayoutEngine(rect=(0, foot / height, 1, 1 - foot / height), w_pad=0.03, h_pad=0.04)
    )
    axes = list(figure.subplots(down, across, squeeze=False, **shared).flat)
    for ax in axes[panels:]:
        ax.remove()
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=columns,
        handlelength=2.5,
        handletextpad=0.4,
        columnspacing=1.0,
        borderaxespad=0.2,
    )
    figure.text(
        0.012, 0.04 / height, "\n".join(lines), fontsize=6, color=FAINT, linespacing=1.25, va="bottom"
    )
    return figure, axes[:panels], looks


def flag_sentences(flags: Mapping[str, Iterable[str]]) -> list[str]:
    """Sentences of a caption that say which marks are hollow.

    Args:
        flags: Whose marks carry each flag.
    """
    if not flags:
        return []
    parts = [f"{flag_words(flag)} ({', '.join(sorted(set(names)))})" for flag, names in flags.items()]
    return [f"White face, flagged: {'; '.join(parts)}."]


def line_look(look: Style) -> dict[str, Any]:
    """Arguments of `plot` for a proposer's line."""
    return {"linestyle": look.dash, "linewidth": 1.1}


def mark_look(look: Style, hollow: bool = False, size: float = 4.2) -> Mapping[str, Any]:
    """Arguments of `plot` for a proposer's marks.

    Args:
        look: Of the proposer.
        hollow: White inside: the point is flagged.
        size: In points.
    """
    return {
        "marker": look.marker,
        "markersize": size,
        "markerfacecolor": "white" if hollow else look.color,
        "markeredgecolor": look.color if hollow else "white",
        "markeredgewidth": (1.0 if hollow else 0.5) * min(1.0, size / 4.2),
    }


def sidestep(ax: Axes, figure: Figure, index: int, curves: int) -> Transform:
    """Where the curve at `index` of so many is drawn: a little aside, so that none hides another."""
    gap = min(_SIDESTEP, _SPREAD / curves)
    return offset_copy(ax.transData, figure, x=(index - (curves - 1) / 2) * gap, units="points")


def mark_series(ax: Axes, name: str, *artists: Artist | ErrorbarContainer) -> None:
    """Has the SVG say whose drawing this is, so that a page can hide and show it.

    Args:
        ax: Where it is drawn.
        name: Of the proposer, or what else a curve is called.
        artists: What draws it.
    """
    figure = ax.figure
    assert figure is not None
    for container in artists:
        for artist in container.get_children() if isinstance(container, ErrorbarContainer) else [container]:
            place = ax.get_children().index(artist)
            artist.set_gid(f"series-{figure.axes.index(ax)}.{place}-{name}")


def draw_means(
    ax: Axes,
    xs: Sequence[float],
    scores: Sequence[Spread],
    look: Style,
    place: Transform,
    hollow: Sequence[bool] | None = None,
    name: str = "",
) -> None:
    """A line through means with bars of one standard deviation.

    Args:
        ax: Where.
        xs: One per mean.
        scores: The means.
        look: Of the curve.
        place: See `sidestep`.
        hollow: Which marks are white inside.
        name: Of the curve, for `mark_series`.
    """
    means = [spread.mean for spread in scores]
    bars = ax.errorbar(
        xs,
        means,
        yerr=[spread.std or 0 for spread in scores],
        fmt="none",
        ecolor=look.color,
        elinewidth=0.8,
        capsize=0,
        transform=place,
        zorder=2,
    )
    drawn = ax.plot(xs, means, color=look.color, transform=place, zorder=4, **line_look(look))
    for x, mean, white in zip(xs, means, hollow or [False] * len(means), strict=True):
        drawn += ax.plot([x], [mean], color=look.color, transform=place, zorder=5, **mark_look(look, white))
    mark_series(ax, name, bars, *drawn)


def score_axis(ax: Axes, heights: Sequence[float], score: Score) -> None:
    """Limits and ticks around scores; what lies beyond their range is cut off. Larger numbers are always above.

    The axis spans ten margins at least, so that a single value has an axis too.

    Args:
        ax: Where.
        heights: What must be on it.
        score: What the heights mean.
    """
    least = _LEAST_SPAN * score.margin or _LEAST_SHARE * max(map(abs, heights)) or 1.0
    bottom, top = max(score.low, min(heights)), min(score.high, max(heights))
    short = max(0.0, least - (top - bottom)) / 2
    bottom, top = max(score.low, bottom - short), min(score.high, top + short)
    room = 0.06 * (top - bottom)
    ax.set_ylim(bottom - room, top + room)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(bottom, top)
    ax.yaxis.set_major_locator(
        FixedLocator(
            [tick for tick in ticks if max(score.low, bottom - room) <= tick <= min(score.high, top + room)]
        )
    )
    ax.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def cost_axis(ax: Axes, costs: Sequence[float]) -> None:
    """A logarithmic x axis around the costs, with round numbers on it."""
    low, high = math.log10(min(costs)), math.log10(max(costs))
    margin = max(0.08 * (high - low), 0.02)
    left, right = 10 ** (low - margin), 10 ** (high + margin)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.xaxis.set_major_locator(FixedLocator(nice_ticks(left, right)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def nice_ticks(left: float, right: float) -> list[float]:
    """Round numbers between `left` and `right`, at least three unless the axis is very short."""
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), range(1, 10)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if left <= tick <= right]
        if len(ticks) >= 3:
            # Over many decades only every second or third one is named.
            return ticks[:: math.ceil(len(ticks) / 6)]
    return [
        tick
        for tick in MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(left, right)
        if left <= tick <= right
    ]


def _columns(names: Sequence[str], inches: float) -> int:
    """As many legend columns as fit, by an estimate of their width in points."""
    for columns in range(len(names), 1, -1):
        parts = np.array_split(np.array(names), columns)
        if sum(28 + 4.4 * max(map(len, part)) for part in parts) <= 72 * inches:
            return columns
    return 1
